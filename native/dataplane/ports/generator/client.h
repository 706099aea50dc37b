/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_GEN_CLIENT_H_
#define _ONVM_GEN_CLIENT_H_

/**
 * @file
 * The generator's near end: keeps so many connections going and checks what comes back.
 *
 * Each slot runs one connection after the other (gen_mix.h says which). A connection is a small
 * state machine: TCP has handshake, requests of which up to WINDOW are unanswered, and FIN or
 * RST; UDP and ICMP have requests only. Connections that can send wait in a ring and send one
 * packet each in turn. A connection that hears nothing for too long has failed: its slot begins
 * the next, so packets that an NF drops cost time and never stall.
 *
 * With a `count` the client sends exactly so many packets: a connection is opened only when its
 * packets are still to be had, the last ones are cut to fit, and what a failed one did not send
 * is given to others.
 *
 * Threads: the caller locks.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include "packet_memory.h"
#include "ports/generator/mix.h"
#include "ports/generator/rtt.h"

/** What a connection does next. */
enum onvm_gen_step {
	ONVM_GEN_CLOSED, /**< nothing: no packets are left to send */
	ONVM_GEN_SEND_SYN,
	ONVM_GEN_AWAIT_SYN_ACK,
	ONVM_GEN_SEND_ACK,
	ONVM_GEN_EXCHANGE, /**< requests and replies */
	ONVM_GEN_SEND_FIN,
	ONVM_GEN_AWAIT_FIN,
	ONVM_GEN_SEND_LAST_ACK,
	ONVM_GEN_SEND_RST,
};

struct onvm_gen_connection {
	uint64_t active_at; /**< TSC when it last sent or heard something */
	uint64_t timed_at;  /**< TSC when the request that measures the RTT was sent */
	const uint8_t *dst;
	uint32_t generation;
	uint32_t tag;
	uint32_t seq;	  /**< of the next byte sent */
	uint32_t ack;	  /**< of the next byte expected; UDP, ICMP: next index */
	uint32_t wanted;  /**< sequence at which the next reply shall begin */
	uint32_t timed;	  /**< what the timed request's answer begins with */
	uint32_t nb_left; /**< packets of its plan not yet sent */
	uint16_t src_port, dst_port;
	uint16_t nb_requests, nb_sent, nb_replied;
	uint8_t kind; /**< enum onvm_gen_kind */
	uint8_t step; /**< enum onvm_gen_step */
	bool is_ipv6, ends_with_reset, has_failed, is_ready, is_timed;
} __rte_cache_aligned;

struct onvm_gen_client {
	struct onvm_gen_mix mix;
	struct onvm_gen_connection *connections;
	uint32_t nb_slots;
	uint32_t nb_active;
	uint32_t *ready; /**< ring of slots that can send */
	uint32_t ready_mask, ready_head, ready_tail;
	uint32_t next_expiry; /**< slot to look at next */
	uint64_t budget;      /**< packets not yet promised to a connection */
	uint64_t timeout;     /**< TSC cycles; 0: follows the RTT */
	struct onvm_gen_rtt rtt;
	uint64_t hz;
	bool is_endless;
	bool no_answer;
	uint16_t ip_id;
	struct onvm_dp_gen_stats stats;
};

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
