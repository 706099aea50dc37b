/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_GEN_MIX_H_
#define _ONVM_GEN_MIX_H_

/**
 * @file
 * The mix of the generator's connections: addresses, protocols, lengths, sizes.
 *
 * Everything follows from a seed, the connection's slot and the number of connections the slot has
 * had before; nothing follows from time. The same seed gives the same connections, and runs differ
 * only in how the packets interleave.
 *
 * Slot s belongs to client s / 16 (10.16.0.1 or 2001:2:0:1::1 and following) and to a range of
 * 2000 source ports, or ICMP identifiers, of that client; each new connection takes the next.
 * Servers are of the ranges for benchmarks: 198.18.0.0/15 (RFC 2544) and 2001:2::/48 (RFC 5180).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataplane.h"

#define ONVM_GEN_SLOTS_MAX (1u << 20)
#define ONVM_GEN_SERVERS_MAX 32
#define ONVM_GEN_SLOTS_PER_CLIENT 16u
#define ONVM_GEN_PORTS_PER_SLOT 2000u
#define ONVM_GEN_FIRST_PORT 32768u

enum onvm_gen_kind {
	ONVM_GEN_TCP,	 /**< requests and replies between handshake and teardown */
	ONVM_GEN_DNS,	 /**< one query */
	ONVM_GEN_STREAM, /**< UDP datagrams, each answered */
	ONVM_GEN_ECHO,	 /**< ICMP */
};

struct onvm_gen_mix {
	uint64_t seed;
	uint32_t ipv6_percent, tcp_percent, udp_percent, vip_percent;
	uint32_t size; /**< bytes of a frame with data, 0: IMIX */
	uint16_t vip_port;
	uint32_t nb_servers4, nb_servers6;
	uint8_t vip[4];
	uint8_t servers4[ONVM_GEN_SERVERS_MAX][4];
	uint8_t servers6[ONVM_GEN_SERVERS_MAX][ONVM_ADDRESS_BYTES];
};

/** One connection as planned. */
struct onvm_gen_plan {
	enum onvm_gen_kind kind;
	uint32_t tag;		     /**< sequence number, or mark of its payload */
	uint16_t src_port, dst_port; /**< ICMP: src_port is the identifier */
	uint16_t nb_requests;
	bool is_ipv6;
	bool ends_with_reset;
	const uint8_t *dst; /**< of the mix */
};

int onvm_gen_mix_init(struct onvm_gen_mix *mix, const struct onvm_gen_options *options,
		      uint32_t room, char *error, size_t error_size);
/** Plan connection @p generation of @p slot. */
void onvm_gen_mix_plan(const struct onvm_gen_mix *mix, uint32_t slot, uint32_t generation,
		       struct onvm_gen_plan *plan);
/** Bytes of frames with request and reply @p index of the connection with @p tag. */
void onvm_gen_mix_sizes(const struct onvm_gen_mix *mix, uint32_t tag, uint32_t index,
			uint32_t *request, uint32_t *reply);
/** Packets that the client sends in a connection that goes well. */
static inline uint32_t
onvm_gen_plan_packets(const struct onvm_gen_plan *plan)
{
	if (plan->kind != ONVM_GEN_TCP)
		return plan->nb_requests;
	return plan->nb_requests + (plan->ends_with_reset ? 3u : 4u);
}

#endif /* _ONVM_GEN_MIX_H_ */
