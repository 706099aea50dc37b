/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Router advertisements (RFC 4861 4.2, 6.2). Offsets in a frame: hop limit of hosts 58, flags 59,
 * router lifetime 60, options 70. A solicitation is answered to all nodes, at most once in three
 * seconds (MIN_DELAY_BETWEEN_RAS), so that a flood of them makes no flood.
 */

#include "ndp.h"
#include "router.h"

#define NS 1000000000ull
#define INTERVAL_NS (200 * NS) /* of MaxRtrAdvInterval at most 600 */
#define INITIAL_NS (16 * NS)   /* MAX_INITIAL_RTR_ADVERT_INTERVAL */
#define INITIAL_TIMES 3
#define DELAY_NS (3 * NS)
#define LIFETIME_S 1800
#define VALID_S 2592000
#define PREFERRED_S 604800
#define RA_OPTIONS 70
#define PREFIX_BYTES 32
#define OPTION_PREFIX 3
#define OPTION_MTU 5
#define ON_LINK_AND_AUTONOMOUS 0xc0
#define PREFIX_BITS 64

static const uint8_t all_nodes[ONVM_ADDRESS_BYTES] = {0xff, 2, [15] = 1};
static const uint8_t all_nodes_mac[ROUTER_MAC_BYTES] = {0x33, 0x33, 0, 0, 0, 1};

static uint32_t
put_prefixes(const struct router *router, uint32_t index, uint8_t *data, uint32_t at, uint32_t end)
{
	for (uint32_t i = 0; i < router->setup.nb_addresses; i++) {
		const struct router_address *const own = &router->setup.addresses[i];

		if (own->interface != index || own->ip_version != 6 || own->depth != PREFIX_BITS ||
		    at + PREFIX_BYTES > end)
			continue;
		memset(data + at, 0, PREFIX_BYTES);
		data[at] = OPTION_PREFIX;
		data[at + 1] = PREFIX_BYTES / 8;
		data[at + 2] = PREFIX_BITS;
		data[at + 3] = ON_LINK_AND_AUTONOMOUS;
		onvm_store_be32(data + at + 4, VALID_S);
		onvm_store_be32(data + at + 8, PREFERRED_S);
		memcpy(data + at + 16, own->bytes, PREFIX_BITS / 8);
		at += PREFIX_BYTES;
	}
	return at;
}

static void
send_advertisement(struct router *router, uint32_t index)
{
	const struct router_interface *const interface = &router->interfaces[index];
	const struct router_link *const link = &interface->link;
	struct onvm_pkt *const pkt = router->ctx->originate(router->ctx);
	uint32_t at = RA_OPTIONS;
	uint8_t *data;

	if (pkt == NULL)
		return;
	data = pkt->data;
	memset(data, 0, RA_OPTIONS);
	memcpy(data, all_nodes_mac, ROUTER_MAC_BYTES);
	memcpy(data + 6, link->mac, ROUTER_MAC_BYTES);
	onvm_store_be16(data + 12, ONVM_ETHERTYPE_IPV6);
	data[14] = 0x60;
	data[20] = ONVM_PROTO_ICMPV6;
	data[21] = NDP_HOP_LIMIT;
	memcpy(data + 22, interface->link_local, ONVM_ADDRESS_BYTES);
	memcpy(data + 38, all_nodes, ONVM_ADDRESS_BYTES);
	data[NDP_ICMP] = NDP_ROUTER_ADVERTISEMENT;
	data[NDP_ICMP + 4] = 64;
	onvm_store_be16(data + NDP_ICMP + 6, LIFETIME_S);
	data[at] = NDP_OPTION_SOURCE;
	data[at + 1] = 1;
	memcpy(data + at + 2, link->mac, ROUTER_MAC_BYTES);
	at += 8;
	data[at] = OPTION_MTU;
	data[at + 1] = 1;
	onvm_store_be16(data + at + 2, 0);
	onvm_store_be32(data + at + 4, link->mtu);
	at = put_prefixes(router, index, data, at + 8, pkt->tailroom);
	onvm_store_be16(data + 18, (uint16_t)(at - NDP_ICMP));
	router_store_icmp6_checksum(data + 14, at - NDP_ICMP);
	pkt->length = (uint16_t)at;
	router_out(router, pkt, index);
}

void
router_advertise(struct router *router, uint32_t index)
{
	struct router_interface *const interface = &router->interfaces[index];
	const uint64_t now_ns = router->ctx->now_ns;

	if (now_ns < interface->advertise_ns && !interface->is_solicited)
		return;
	if (interface->nb_advertised != 0 && now_ns - interface->advertised_ns < DELAY_NS)
		return;
	interface->is_solicited = false;
	interface->advertised_ns = now_ns;
	if (interface->nb_advertised < INITIAL_TIMES)
		interface->nb_advertised++;
	interface->advertise_ns =
		now_ns + (interface->nb_advertised < INITIAL_TIMES ? INITIAL_NS : INTERVAL_NS);
	send_advertisement(router, index);
}
