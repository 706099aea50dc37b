/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_H_
#define _ONVM_CONTROL_H_

/**
 * @file
 * What the files of the control thread share: dataplane.c (life), control.c (ports, hosts and
 * chains), capture_control.c (captures), stats.c (reading).
 */

#include "worker.h"

extern struct onvm_dataplane onvm_dp;

/** Leave a line for the user and give back @p result. */
__attribute__((format(printf, 2, 3))) int onvm_fail(int result, const char *format, ...);

/** Make sleeping workers look around. */
void onvm_wake_workers(struct onvm_dataplane *dp);
/** Raise the epoch and wait until every running worker has taken over all changes. */
void onvm_publish(struct onvm_dataplane *dp);
/** Free captures that nobody stopped; the workers have stopped. */
void onvm_captures_free(struct onvm_dataplane *dp);
/** Free what a closed port leaves behind. */
void onvm_port_free(struct onvm_dataplane *dp, uint32_t port);
/** Free what a dead or never used host leaves behind. */
void onvm_host_free(struct onvm_dataplane *dp, uint32_t host);

#endif /* _ONVM_CONTROL_H_ */
