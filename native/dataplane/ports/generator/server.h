/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_GEN_SERVER_H_
#define _ONVM_GEN_SERVER_H_

/**
 * @file
 * The generator's far end: it answers every packet and keeps no state.
 *
 * The packet itself determines the answer: a TCP segment acknowledges the byte at which the
 * answer's sequence begins, and a request carries the length of its reply. So packets may come from
 * behind NAT and load balancers, and any number of servers are one. The answer is made in the
 * buffer of the packet; a packet without an answer is freed.
 *
 * Threads: the caller locks.
 */

#include <stdint.h>

#include <rte_mbuf.h>

#include "dataplane.h"

struct onvm_gen_server {
	struct rte_mbuf **answers; /**< ring: has a place for every buffer there is */
	uint32_t mask;
	uint32_t head, tail;
	uint32_t room; /**< largest frame */
	struct onvm_dp_gen_stats stats;
};

int onvm_gen_server_init(struct onvm_gen_server *server, uint32_t nb_buffers, uint32_t room);
/** Free it and the answers in it. */
void onvm_gen_server_free(struct onvm_gen_server *server);
/** Take a burst; all of it is the server's. */
void onvm_gen_server_take(struct onvm_gen_server *server, struct rte_mbuf **mbufs, uint32_t nb);
/** Give up to @p nb answers, oldest first. */
uint32_t onvm_gen_server_give(struct onvm_gen_server *server, struct rte_mbuf **mbufs, uint32_t nb);

#endif /* _ONVM_GEN_SERVER_H_ */
