/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

#define TCP_SYN 2

/* Lower the MSS of a SYN to what fits through @p mtu. */
static void
clamp_mss(struct router *router, struct onvm_pkt *pkt, uint16_t mtu)
{
	struct onvm_headers headers;
	uint32_t at, end;
	uint16_t most;
	uint8_t *tcp;

	if (onvm_parse(pkt->data, pkt->length, &headers) != ONVM_L3_OK ||
	    headers.protocol != ONVM_PROTO_TCP || headers.l4_status != ONVM_L4_OK ||
	    (headers.tcp_flags & TCP_SYN) == 0 || mtu < 100)
		return;
	tcp = pkt->data + headers.l4_offset;
	end = (tcp[12] >> 4) * 4u;
	if (end > headers.l4_length)
		end = headers.l4_length & ~3u; /* in a first fragment */
	most = (uint16_t)(mtu - (headers.ip_version == 4 ? 40 : 60));
	for (at = 20; at + 4 <= end && tcp[at] != 0;) {
		if (tcp[at] == 2 && tcp[at + 1] == 4) {
			/* At an even offset or not: the sum is of the words that hold it. */
			const uint32_t first = (at + 2) & ~1u, bytes = (at & 1) != 0 ? 4 : 2;
			uint8_t before[4];

			if (onvm_load_be16(tcp + at + 2) <= most)
				return;
			memcpy(before, tcp + first, bytes);
			onvm_store_be16(tcp + at + 2, most);
			onvm_checksum_replace(tcp + 16, before, tcp + first, bytes);
			router->ctx->counters[ROUTER_MSS_CLAMPED]++;
			return;
		}
		if (tcp[at] != 1 && tcp[at + 1] < 2)
			return;
		at += tcp[at] == 1 ? 1u : tcp[at + 1];
	}
}

/* Bytes of each packet that a merged one is cut into, from the IP header on. */
static uint32_t
segment_length(const struct onvm_pkt *pkt)
{
	struct onvm_headers headers;
	uint32_t header = 8;

	if (onvm_parse(pkt->data, pkt->length, &headers) != ONVM_L3_OK ||
	    headers.l4_status != ONVM_L4_OK)
		return 0;
	if (headers.protocol == ONVM_PROTO_TCP)
		header = (pkt->data[headers.l4_offset + 12] >> 4) * 4u;
	return headers.l4_offset - headers.l3_offset + header + onvm_pkt_segment(pkt);
}

enum router_reason
router_forward(struct router *router, struct onvm_pkt *pkt, uint32_t index)
{
	const uint32_t ip_version = router_version_of(pkt->data);
	const uint8_t *const ip = pkt->data + 14;
	const uint8_t *const destination = ip + (ip_version == 4 ? 16 : 24);
	const struct router_link *link;
	const struct router_group *group;
	const struct router_hop *hop;
	struct router_hop connected;
	const uint16_t fragment = onvm_pkt_largest_fragment(pkt);
	uint32_t length;
	bool is_merged;

	if (index >= ROUTER_GROUPS_MAX) {
		router_send_error(router, pkt, ROUTER_ERROR_NET_UNREACHABLE, ROUTER_NONE, 0);
		return ROUTER_DROP_NO_ROUTE;
	}
	group = &router->groups[index];
	switch ((enum router_group_kind)group->kind) {
	case ROUTER_LOCAL:
		return router_receive(router, pkt, ROUTER_NONE);
	case ROUTER_BLACKHOLE:
		return ROUTER_DROP_BLACKHOLE;
	case ROUTER_UNREACHABLE:
		router_send_error(router, pkt, ROUTER_ERROR_HOST_UNREACHABLE, ROUTER_NONE, 0);
		return ROUTER_DROP_NO_ROUTE;
	case ROUTER_CONNECTED:
	case ROUTER_VIA:
		break;
	}
	hop = router_choose_hop(group, ip_version, destination,
				group->nb_hops > 1 ? router_flow_hash(pkt) : 0, &connected);
	link = &router->interfaces[hop->interface].link;
	if (router->setup.clamps_mss)
		clamp_mss(router, pkt, link->mtu);
	is_merged = (pkt->flags & ONVM_F_MERGED) != 0;
	length = ip_version == 4 ? onvm_load_be16(ip + 2) : onvm_load_be16(ip + 4) + 40u;
	if (length > link->mtu && is_merged)
		length = segment_length(pkt);
	/* It leaves in fragments of this size, in IPv6, too. */
	if (length > link->mtu && fragment != 0)
		length = fragment;
	if (length > link->mtu) {
		if (ip_version == 4 && (ip[6] & 0x40) == 0 && !is_merged)
			return router_fragment(router, pkt, hop, link->mtu);
		router_send_error(router, pkt, ROUTER_ERROR_TOO_BIG, ROUTER_NONE, link->mtu);
		return ROUTER_DROP_TOO_BIG;
	}
	switch (router_address_frame(router, pkt, hop, ip_version)) {
	case ROUTER_SENT:
		router_out(router, pkt, hop->interface);
		return ROUTER_NO_DROP;
	case ROUTER_WAITS:
		return ROUTER_DROP_RESOLVING;
	case ROUTER_NOT_SENT:
		/* The neighbour is not known yet; fragments can wait for it. */
		if (fragment != 0)
			return router_fragment(router, pkt, hop, fragment);
		break;
	case ROUTER_REFUSED:
		router_send_error(router, pkt, ROUTER_ERROR_HOST_UNREACHABLE, ROUTER_NONE, 0);
		break;
	}
	return ROUTER_DROP_UNRESOLVED;
}
