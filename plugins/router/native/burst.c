/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

#define CHUNK 32u
#define PREFETCH_AHEAD 4u

/* Packets to forward, and the destinations of those of one IP version. */
struct chunk {
	struct onvm_pkt *pkts[CHUNK];
	uint8_t addresses[CHUNK * ONVM_ADDRESS_BYTES];
	uint32_t groups[CHUNK];
	uint32_t nb;
};

static void
finish(struct router *router, struct onvm_pkt *pkt, enum router_reason reason)
{
	if (reason != ROUTER_NO_DROP)
		onvm_pkt_drop(pkt, (uint16_t)reason);
	else
		router->ctx->counters[ROUTER_FORWARDED]++;
}

/* Look up all destinations of one version at once, and send the packets on. */
static void
forward_chunk(struct router *router, struct chunk *chunk, uint32_t ip_version)
{
	if (chunk->nb == 0)
		return;
	if (router->lpm[ip_version == 6] == NULL ||
	    onvm_lpm_lookup(router->lpm[ip_version == 6], chunk->addresses, chunk->groups,
			    chunk->nb) != 0)
		memset(chunk->groups, 0xff, sizeof(chunk->groups));
	for (uint32_t i = 0; i < chunk->nb; i++)
		finish(router, chunk->pkts[i],
		       router_forward(router, chunk->pkts[i], chunk->groups[i]));
}

static void
put(struct chunk *chunk, struct onvm_pkt *pkt, uint32_t ip_version)
{
	const uint32_t bytes = onvm_address_bytes(ip_version);

	memcpy(chunk->addresses + chunk->nb * bytes, pkt->data + (ip_version == 4 ? 30 : 38),
	       bytes);
	chunk->pkts[chunk->nb++] = pkt;
}

/* Whether NFs have left an IP packet that can be read. */
static bool
is_whole(const struct onvm_pkt *pkt)
{
	const uint8_t *const ip = pkt->data + 14;
	const uint32_t room = pkt->length - 14u;
	uint32_t header_length;

	if (pkt->length < 34)
		return false;
	if (onvm_load_be16(pkt->data + 12) == ONVM_ETHERTYPE_IPV6)
		return ip[0] >> 4 == 6 && room >= 40 && onvm_load_be16(ip + 4) + 40u <= room;
	header_length = (ip[0] & 15) * 4u;
	return onvm_load_be16(pkt->data + 12) == ONVM_ETHERTYPE_IPV4 && ip[0] >> 4 == 4 &&
	       header_length >= 20 && onvm_load_be16(ip + 2) >= header_length &&
	       onvm_load_be16(ip + 2) <= room;
}

static void
burst_chunk(struct router *router, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct chunk v4, v6;

	v4.nb = 0;
	v6.nb = 0;
	for (uint32_t i = 0; i < nb_pkts; i++) {
		struct onvm_pkt *const pkt = &pkts[i];

		if (i + PREFETCH_AHEAD < nb_pkts)
			__builtin_prefetch(pkts[i + PREFETCH_AHEAD].data);
		if (onvm_pkt_is_first(router->ctx, pkt)) {
			const enum router_reason reason = router_arrive(router, pkt);

			if (reason != ROUTER_NO_DROP)
				onvm_pkt_drop(pkt, (uint16_t)reason);
		} else if (!is_whole(pkt)) {
			onvm_pkt_drop(pkt, ROUTER_DROP_MALFORMED);
		}
		if (pkt->verdict != ONVM_NEXT || !onvm_pkt_is_last(router->ctx, pkt))
			continue;
		if (router_version_of(pkt->data) == 4)
			put(&v4, pkt, 4);
		else
			put(&v6, pkt, 6);
	}
	forward_chunk(router, &v4, 4);
	forward_chunk(router, &v6, 6);
}

/* Tell the senders of packets whose neighbours do not answer. */
static void
tell_failed(struct router *router)
{
	while (router->first_failed != ROUTER_NONE) {
		const uint32_t index = router_queue_take(router, &router->first_failed);
		struct router_waiting *const waiting = &router->waiting[index];
		const struct onvm_pkt pkt = {
			.data = waiting->frame,
			.buffer = ROUTER_NONE,
			.length = waiting->length,
		};

		router_send_error(router, &pkt, ROUTER_ERROR_HOST_UNREACHABLE, ROUTER_NONE, 0);
		router_waiting_free(router, index);
	}
}

void
router_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct router *const router = ctx->state;

	router->ctx = ctx;
	router_own_tick(router);
	router_neighbours_tick(router);
	tell_failed(router);
	for (uint32_t first = 0; first < nb_pkts; first += CHUNK)
		burst_chunk(router, pkts + first,
			    nb_pkts - first < CHUNK ? nb_pkts - first : CHUNK);
	router_release(router);
}
