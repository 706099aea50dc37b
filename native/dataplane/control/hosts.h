/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTROL_HOSTS_H_
#define _ONVM_CONTROL_HOSTS_H_

/**
 * @file
 * The end of an NF host, here or at a peer.
 */

#include "worker/worker.h"

/**
 * Take the NF host in @p slot away from the workers: its flows get successors, its claims and its
 * number end. Publishes.
 *
 * @param successor  host that takes its flows where it can; 0: chosen as for new flows
 */
void onvm_host_end(struct onvm_dataplane *dp, uint32_t slot, uint32_t successor);
/** Let the slot be used again, under another generation. */
void onvm_host_free_slot(struct onvm_dataplane *dp, uint32_t slot);

#endif /* _ONVM_CONTROL_HOSTS_H_ */
