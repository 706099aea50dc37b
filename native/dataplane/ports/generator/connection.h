/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_GEN_CONNECTION_H_
#define _ONVM_GEN_CONNECTION_H_

/**
 * @file
 * The connections of the generator's client, one for each of its slots.
 */

#include <stdbool.h>
#include <stdint.h>

#include <rte_common.h>

#include "dataplane.h"
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
	uint32_t timed;	  /**< with which the timed request's answer begins */
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

#endif /* _ONVM_GEN_CONNECTION_H_ */
