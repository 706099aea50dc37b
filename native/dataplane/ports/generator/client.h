/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_GEN_CLIENT_H_
#define _ONVM_GEN_CLIENT_H_

/**
 * @file
 * The generator's near end: it keeps a number of connections going and checks the answers.
 *
 * Each slot runs one connection after the other (mix.h decides which). A connection is a small
 * state machine. TCP has a handshake, requests of which up to WINDOW are unanswered, and FIN or
 * RST; UDP and ICMP have requests only. Connections that can send wait in a ring and send one
 * packet each in turn. A connection that hears nothing for too long has failed, and its slot begins
 * the next one. So packets that an NF drops cost time and never stall the client.
 *
 * With a `count` the client sends exactly that many packets. It opens a connection only while
 * packets are left for it, cuts the last ones to fit, and gives the unsent packets of a failed
 * connection to others.
 *
 * Threads: the caller locks.
 */

#include <stddef.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include "ports/generator/connection.h"

int onvm_gen_client_init(struct onvm_gen_client *client, const struct onvm_gen_options *options,
			 uint32_t room, char *error, size_t error_size);
void onvm_gen_client_free(struct onvm_gen_client *client);
/** Make up to @p nb packets. */
uint32_t onvm_gen_client_give(struct onvm_gen_client *client, struct rte_mempool *pool,
			      struct rte_mbuf **mbufs, uint32_t nb, uint64_t now);
/** Take and check a burst; all of it is the client's. */
void onvm_gen_client_take(struct onvm_gen_client *client, struct rte_mbuf **mbufs, uint32_t nb,
			  uint64_t now);
/** Give up connections that have been silent for too long; looks at @p nb_slots of them. */
void onvm_gen_client_expire(struct onvm_gen_client *client, uint32_t nb_slots, uint64_t now);
/** Whether any connection can send. */
static inline bool
onvm_gen_client_is_ready(const struct onvm_gen_client *client)
{
	return client->ready_head != client->ready_tail;
}

#endif /* _ONVM_GEN_CLIENT_H_ */
