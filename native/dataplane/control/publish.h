/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_H_
#define _ONVM_CONTROL_H_

/**
 * @file
 * What the files of the control thread share: dataplane.c (life), control.c (hosts and
 * chains), remote_control.c (peers and what is there), port_control.c (ports), capture_control.c
 * (captures), stats.c (reading).
 */

#include "worker/worker.h"

extern struct onvm_dataplane onvm_dp;

/** Leave a line for the user and give back @p result. */
__attribute__((format(printf, 2, 3))) int onvm_fail(int result, const char *format, ...);

/** Make sleeping workers look around. */
void onvm_wake_workers(struct onvm_dataplane *dp);
/** Raise the epoch and wait until every running worker has taken over all changes. */
void onvm_publish(struct onvm_dataplane *dp);
/** What onvm_swap_candidates() has replaced, by chain. */
struct onvm_old_candidates {
	struct onvm_candidates *of[ONVM_CHAINS_MAX];
};
/**
 * Build what workers choose from, for all chains, and let them see it.
 *
 * @param old  what they may still read until onvm_publish(); then for onvm_free_candidates()
 */
int onvm_swap_candidates(struct onvm_dataplane *dp, struct onvm_old_candidates *old);
void onvm_free_candidates(struct onvm_old_candidates *old);
/** Build and publish what workers choose from, for all chains; free the old. */
int onvm_publish_candidates(struct onvm_dataplane *dp);
/** Let the cluster know the NF host in @p slot as @p number; 0: no more. Publishes. */
void onvm_host_set_number(struct onvm_dataplane *dp, uint32_t slot, uint16_t number);
/** Forget the claims of @p slot; publishes. */
void onvm_forget_claims(struct onvm_dataplane *dp, uint16_t slot);
/** A free port with its name and memory; NULL when all are taken. */
struct onvm_port *onvm_port_take(struct onvm_dataplane *dp, const char *name);
/** Put a port that its kind has opened, or not (@p rc), into service; @return its ID. */
int onvm_port_finish(struct onvm_dataplane *dp, struct onvm_port *port, int rc, const char *reason);
/** Free captures that nobody stopped; the workers have stopped. */
void onvm_captures_free(struct onvm_dataplane *dp);
/** Free what a closed port leaves behind. */
void onvm_port_free(struct onvm_dataplane *dp, uint32_t port);
/** Free what a dead or never used host leaves behind. */
void onvm_host_free(struct onvm_dataplane *dp, uint32_t host);

#endif /* _ONVM_CONTROL_H_ */
