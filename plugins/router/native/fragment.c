/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

#define MORE_FRAGMENTS 0x2000

/* RFC 791 3.1: options without the "copied" bit are in the first fragment only. */
static void
blank_options(uint8_t *ip, uint32_t header_length)
{
	for (uint32_t at = 20; at < header_length && ip[at] != 0;) {
		const uint32_t bytes = ip[at] == 1 || at + 1 == header_length ? 1 : ip[at + 1];

		if (bytes == 0 || at + bytes > header_length)
			return;
		if ((ip[at] & 0x80) == 0)
			memset(ip + at, 1, bytes);
		at += bytes;
	}
}

enum router_reason
router_fragment(struct router *router, struct onvm_pkt *pkt, const struct router_hop *hop,
		uint16_t mtu)
{
	const uint8_t *const ip = pkt->data + 14;
	const uint32_t header_length = (ip[0] & 15) * 4u;
	const uint32_t end = onvm_load_be16(ip + 2) - header_length;
	const uint16_t field = onvm_load_be16(ip + 6);
	uint32_t piece;

	if (mtu < header_length + 8)
		return ROUTER_DROP_TOO_BIG;
	if ((pkt->flags & ONVM_F_PARTIAL) != 0)
		router_complete_checksum(pkt->data, pkt->length);
	piece = (mtu - header_length) & ~7u;
	for (uint32_t at = 0; at < end; at += piece) {
		const uint32_t bytes = end - at < piece ? end - at : piece;
		const bool is_last = at + bytes == end && (field & MORE_FRAGMENTS) == 0;
		struct onvm_pkt *const made = router->ctx->originate(router->ctx);
		uint8_t *head;

		if (made == NULL)
			return ROUTER_DROP_TOO_BIG;
		if (made->tailroom < 14 + header_length + bytes)
			return ROUTER_DROP_TOO_BIG;
		memcpy(made->data, pkt->data, 14 + header_length);
		memcpy(made->data + 14 + header_length, ip + header_length + at, bytes);
		made->length = (uint16_t)(14 + header_length + bytes);
		made->port = pkt->port;
		head = made->data + 14;
		if (at != 0)
			blank_options(head, header_length);
		onvm_store_be16(head + 2, (uint16_t)(header_length + bytes));
		onvm_store_be16(head + 6, (uint16_t)(((field & 0x1fff) + at / 8) |
						     (is_last ? 0 : MORE_FRAGMENTS)));
		router_store_ipv4_checksum(head, header_length);
		router->ctx->counters[ROUTER_FRAGMENTS_MADE]++;
		if (router_address_frame(router, made, hop, 4) == ROUTER_SENT)
			router_out(router, made, hop->interface);
	}
	return ROUTER_DROP_FRAGMENTED;
}
