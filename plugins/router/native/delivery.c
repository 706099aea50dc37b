/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

/* The address of a query becomes the answer's. */
static void
turn_around(struct router *router, struct onvm_pkt *pkt, uint32_t interface, uint32_t ip_version)
{
	uint8_t *const src = pkt->data + (ip_version == 4 ? 26 : 22);
	const uint32_t bytes = onvm_address_bytes(ip_version);
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t mac[ROUTER_MAC_BYTES];

	memcpy(address, src, bytes);
	memcpy(src, src + bytes, bytes);
	memcpy(src + bytes, address, bytes);
	memcpy(mac, pkt->data, ROUTER_MAC_BYTES);
	memcpy(pkt->data, pkt->data + ROUTER_MAC_BYTES, ROUTER_MAC_BYTES);
	memcpy(pkt->data + ROUTER_MAC_BYTES, mac, ROUTER_MAC_BYTES);
	router_out(router, pkt, interface);
	router->ctx->counters[ROUTER_ANSWERED_ECHO]++;
}

/* Answer an echo request in its own buffer. */
static void
answer_echo(struct router *router, struct onvm_pkt *pkt, uint32_t interface,
	    const struct onvm_headers *headers)
{
	uint8_t *const ip = pkt->data + headers->l3_offset;
	uint8_t *const icmp = pkt->data + headers->l4_offset;
	const uint8_t before[2] = {icmp[0], icmp[1]};
	const uint8_t after[2] = {headers->ip_version == 4 ? 0 : 129, icmp[1]};

	icmp[0] = after[0];
	onvm_checksum_replace(icmp + 2, before, after, 2);
	ip[headers->ip_version == 6 ? 7 : 8] = 64;
	if (headers->ip_version == 4)
		router_store_ipv4_checksum(ip, (ip[0] & 15) * 4u);
	turn_around(router, pkt, interface, headers->ip_version);
}

enum router_reason
router_receive(struct router *router, struct onvm_pkt *pkt, uint32_t interface)
{
	struct onvm_headers headers;
	bool is_icmp;

	if (onvm_parse(pkt->data, pkt->length, &headers) != ONVM_L3_OK)
		return ROUTER_DROP_MALFORMED;
	is_icmp = headers.l4_status == ONVM_L4_OK && !onvm_headers_is_fragment(&headers) &&
		  headers.protocol ==
			  (headers.ip_version == 4 ? ONVM_PROTO_ICMP : ONVM_PROTO_ICMPV6);
	if (is_icmp && interface != ROUTER_NONE &&
	    pkt->data[headers.l4_offset] == (headers.ip_version == 4 ? 8 : 128)) {
		answer_echo(router, pkt, interface, &headers);
		return ROUTER_NO_DROP;
	}
	if (interface != ROUTER_NONE &&
	    router_to_host(router, pkt, interface, ROUTER_DROP_LOCAL) == ROUTER_NO_DROP)
		return ROUTER_NO_DROP;
	if (headers.protocol == ONVM_PROTO_UDP && headers.l4_status == ONVM_L4_OK)
		router_send_error(router, pkt, ROUTER_ERROR_PORT_UNREACHABLE, interface, 0);
	return ROUTER_DROP_LOCAL;
}
