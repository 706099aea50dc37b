/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_REMOTE_H_
#define _ONVM_REMOTE_H_

/**
 * @file
 * Packets that come from peers.
 */

#include "worker/worker.h"

/** Take in what peers have sent: @p nb packets of queue @p queue of @p wport. */
void onvm_remote_take_in(struct onvm_worker *worker, struct onvm_worker_port *wport, uint16_t queue,
			 struct rte_mbuf **mbufs, uint16_t nb);

#endif /* _ONVM_REMOTE_H_ */
