/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_WORKER_FRAGMENTS_H_
#define _ONVM_WORKER_FRAGMENTS_H_

/**
 * @file
 * Fragments between a port and the chain behind it, where an NF wants more than fragments.
 *
 * A fragment is counted as received when it is known what becomes of it: with the others of its
 * datagram as one packet, or as lost. So what was received is what has gone on or was dropped, at
 * any time.
 *
 * Threads: workers.
 */

#include "worker/worker.h"

/**
 * Take the fragments out of a burst, and put in what they have made complete. What has no place in
 * it waits in `ready` of @p wport, for a call with @p nb 0.
 *
 * @param mbufs  has ONVM_BURST_SIZE places
 * @return packets in it now
 */
uint16_t onvm_fragments_take(struct onvm_worker *worker, struct onvm_worker_port *wport,
			     uint16_t queue, struct rte_mbuf **mbufs, uint16_t nb);
/**
 * Take one packet. The caller counts as received what goes on.
 *
 * @param ready  ONVM_PIECES_MAX places: gets what goes on, the packet itself if it is no fragment
 * @return how many
 */
uint16_t onvm_fragment_take(struct onvm_worker *worker, struct onvm_worker_port *wport,
			    uint16_t queue, struct rte_mbuf *mbuf, struct rte_mbuf **ready);
/** Drop what waits for too long, or in vain, because its port has come to its end. */
void onvm_fragments_expire(struct onvm_worker *worker);
/** Drop all that came through a port, as when it or the manager stops. */
void onvm_fragments_forget(struct onvm_worker *worker, struct onvm_worker_port *wport);

#endif /* _ONVM_WORKER_FRAGMENTS_H_ */
