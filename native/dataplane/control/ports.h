/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_PORTS_H_
#define _ONVM_CONTROL_PORTS_H_

/**
 * @file
 * Taking a port slot, and putting an opened port into service.
 */

#include "worker/worker.h"

/** A free port with its name and memory; NULL when all are taken. */
struct onvm_port *onvm_port_take(struct onvm_dataplane *dp, const char *name);
/** Put a port that its kind has opened, or not (@p rc), into service; @return its ID. */
int onvm_port_finish(struct onvm_dataplane *dp, struct onvm_port *port, int rc, const char *reason);
/** Free the worker ports and rules of a closed port. */
void onvm_port_free(struct onvm_dataplane *dp, uint32_t port);

#endif /* _ONVM_CONTROL_PORTS_H_ */
