/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_PORTS_H_
#define _ONVM_CONTROL_PORTS_H_

/**
 * @file
 * Opening a port of any kind, and freeing it.
 */

#include "worker/worker.h"

/** Take a free port, open it and put it into service; @return its ID. */
int onvm_port_open(struct onvm_dataplane *dp, const char *name, onvm_port_opener *open,
		   const void *options);
/** Let go of devices that are being taken away; their ports stay, without packets. Any thread. */
void onvm_ports_release(struct onvm_dataplane *dp);
/** Look for devices that are gone, and for those that have come again. Any thread. */
void onvm_ports_revive(struct onvm_dataplane *dp);
/** Ask the devices of all ports for what has been lost. Any thread. */
void onvm_ports_read(struct onvm_dataplane *dp);
/** Add what ports have lost to drops, by reason. */
void onvm_port_add_losses(const struct onvm_port_losses *losses, uint64_t *drops);
/** Packets that a port has taken and not sent. */
uint64_t onvm_port_unsent(const struct onvm_port_losses *losses);
/** The workers have stopped: let ports send what they hold. */
void onvm_ports_finish(struct onvm_dataplane *dp);
/** Free the worker ports and rules of a closed port. */
void onvm_port_free(struct onvm_dataplane *dp, uint32_t port);

#endif /* _ONVM_CONTROL_PORTS_H_ */
