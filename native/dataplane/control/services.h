/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_SERVICES_H_
#define _ONVM_CONTROL_SERVICES_H_

/**
 * @file
 * What the services of chains want.
 *
 * Threads: the control thread.
 */

#include "worker/worker.h"

/** Let ports cut what they receive, and wait for fragments, as the NFs behind them want it. */
void onvm_services_set_packet_forms(struct onvm_dataplane *dp);
/** Give the flows of a chain the longest lives that one of its services wants. */
void onvm_services_set_lives(struct onvm_dataplane *dp, uint16_t chain);

#endif /* _ONVM_CONTROL_SERVICES_H_ */
