/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Neighbour discovery (RFC 4861). Offsets in a frame without extension headers: hop limit 21,
 * source 22, destination 38, NDP_ICMPv6 54, its target 62, options 78.
 */

#include "ndp.h"
#include "router.h"

#define FLAG_ROUTER 0x80
#define FLAG_OVERRIDE 0x20
#define LONG_BYTES (NDP_OPTIONS + 8)

static const uint8_t all_nodes[ONVM_ADDRESS_BYTES] = {0xff, 2, [15] = 1};
static const uint8_t solicited_node[13] = {0xff, 2, [11] = 1, [12] = 0xff};
static const uint8_t unspecified[ONVM_ADDRESS_BYTES];

/* A message with an option for the MAC address, unless it has no source. @return its length */
static uint16_t
fill(const struct router_interface *interface, uint8_t *data, uint8_t type, uint8_t flags,
     const uint8_t *to, const uint8_t *source, const uint8_t *destination, const uint8_t *target)
{
	const bool is_probe = memcmp(source, unspecified, sizeof(unspecified)) == 0;
	const uint16_t length = is_probe ? NDP_OPTIONS : LONG_BYTES;

	memcpy(data, to, ROUTER_MAC_BYTES);
	memcpy(data + 6, interface->link.mac, ROUTER_MAC_BYTES);
	onvm_store_be16(data + 12, ONVM_ETHERTYPE_IPV6);
	memset(data + 14, 0, 8);
	data[14] = 0x60;
	onvm_store_be16(data + 18, length - NDP_ICMP);
	data[20] = ONVM_PROTO_ICMPV6;
	data[21] = NDP_HOP_LIMIT;
	memcpy(data + 22, source, ONVM_ADDRESS_BYTES);
	memcpy(data + 38, destination, ONVM_ADDRESS_BYTES);
	memset(data + NDP_ICMP, 0, 8);
	data[NDP_ICMP] = type;
	data[NDP_ICMP + 4] = flags;
	memcpy(data + NDP_TARGET, target, ONVM_ADDRESS_BYTES);
	if (!is_probe) {
		data[NDP_OPTIONS] = type == NDP_SOLICITATION ? NDP_OPTION_SOURCE :
							       NDP_OPTION_TARGET;
		data[NDP_OPTIONS + 1] = 1;
		memcpy(data + NDP_OPTIONS + 2, interface->link.mac, ROUTER_MAC_BYTES);
	}
	router_store_icmp6_checksum(data + 14, length - NDP_ICMP);
	return length;
}

static void
send_message(struct router *router, uint32_t index, uint8_t type, uint8_t flags, const uint8_t *mac,
	     const uint8_t *source, const uint8_t *destination, const uint8_t *target)
{
	const struct router_interface *const interface = &router->interfaces[index];
	uint8_t to[ROUTER_MAC_BYTES] = {0x33, 0x33};
	struct onvm_pkt *const pkt = router->ctx->originate(router->ctx);

	if (pkt == NULL)
		return; /* it is said again */
	memcpy(to + 2, destination + 12, 4);
	pkt->length = fill(interface, pkt->data, type, flags, mac != NULL ? mac : to, source,
			   destination, target);
	router_out(router, pkt, index);
}

void
router_ndp_ask(struct router *router, uint32_t interface, const uint8_t *target, const uint8_t *mac)
{
	const uint8_t *const source = router_source_on(router, interface, 6, target);
	uint8_t destination[ONVM_ADDRESS_BYTES];

	if (source == NULL)
		return;
	memcpy(destination, target, sizeof(destination));
	if (mac == NULL)
		memcpy(destination, solicited_node, sizeof(solicited_node));
	router->ctx->counters[ROUTER_ASKED]++;
	send_message(router, interface, NDP_SOLICITATION, 0, mac, source, destination, target);
}

void
router_ndp_announce(struct router *router, uint32_t interface, const uint8_t *address)
{
	send_message(router, interface, NDP_ADVERTISEMENT, FLAG_ROUTER | FLAG_OVERRIDE, NULL,
		     address, all_nodes, address);
}

void
router_ndp_probe(struct router *router, uint32_t interface, const uint8_t *address)
{
	uint8_t destination[ONVM_ADDRESS_BYTES];

	memcpy(destination, address, sizeof(destination));
	memcpy(destination, solicited_node, sizeof(solicited_node));
	send_message(router, interface, NDP_SOLICITATION, 0, NULL, unspecified, destination,
		     address);
}

enum router_reason
router_ndp_answer(struct router *router, struct onvm_pkt *pkt, uint32_t index, const uint8_t *mac)
{
	const struct router_interface *const interface = &router->interfaces[index];
	uint8_t *const data = pkt->data;
	const bool is_probe = memcmp(data + 22, unspecified, sizeof(unspecified)) == 0;
	uint8_t to[ROUTER_MAC_BYTES] = {0x33, 0x33, 0, 0, 0, 1};
	uint8_t target[ONVM_ADDRESS_BYTES], asker[ONVM_ADDRESS_BYTES];

	if ((uint32_t)pkt->length + pkt->tailroom < LONG_BYTES)
		return ROUTER_DROP_CONSUMED;
	memcpy(target, data + NDP_TARGET, sizeof(target));
	memcpy(asker, is_probe ? all_nodes : data + 22, sizeof(asker));
	if (!is_probe)
		memcpy(to, mac != NULL ? mac : data + 6, sizeof(to));
	fill(interface, data, NDP_ADVERTISEMENT,
	     (uint8_t)(FLAG_ROUTER | FLAG_OVERRIDE | (is_probe ? 0 : NDP_FLAG_SOLICITED)), to,
	     target, asker, target);
	pkt->tailroom = (uint16_t)(pkt->tailroom + pkt->length - LONG_BYTES);
	pkt->length = LONG_BYTES;
	router->ctx->counters[ROUTER_ANSWERED_NDP]++;
	router_out(router, pkt, index);
	return ROUTER_NO_DROP;
}
