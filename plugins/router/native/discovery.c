/* SPDX-License-Identifier: Apache-2.0 */

/*
 * ARP and neighbour discovery that arrive. The router learns from what neighbours say about
 * themselves; a new neighbour is remembered only if it asks for an address of ours, so that a flood
 * of other words does not fill the table.
 */

#include "ndp.h"
#include "router.h"

static const uint8_t unspecified[ONVM_ADDRESS_BYTES];

enum router_reason
router_arp_arrive(struct router *router, struct onvm_pkt *pkt, uint32_t index)
{
	const uint8_t *const data = pkt->data;
	const struct router_address *own;
	uint8_t sender[4], mac[ROUTER_MAC_BYTES];
	uint16_t operation;
	bool is_ours;

	if (pkt->length < ROUTER_ARP_BYTES || !router_is_arp(data))
		return ROUTER_DROP_MALFORMED;
	operation = onvm_load_be16(data + 20);
	memcpy(mac, data + 22, sizeof(mac));
	memcpy(sender, data + 28, sizeof(sender));
	own = router_own_address(router, 4, data + 38);
	is_ours = own != NULL && own->interface == index;
	/* A probe (RFC 5227) has no sender's address. */
	if (onvm_load_be32(sender) != 0)
		router_neighbour_learn(router, index, 4, sender, mac,
				       operation == ROUTER_ARP_REQUEST && is_ours,
				       operation == ROUTER_ARP_REPLY && is_ours);
	/* The host asks by itself for its packets. */
	if (operation == ROUTER_ARP_REPLY && is_ours)
		return router_to_host(router, pkt, index, ROUTER_DROP_CONSUMED);
	if (operation != ROUTER_ARP_REQUEST || !is_ours || (mac[0] & 1) != 0)
		return ROUTER_DROP_CONSUMED;
	router_arp_answer(router, pkt, index);
	return ROUTER_NO_DROP;
}

/* The MAC address in an option of @p type, NULL if there is none. *is_good: options are sound. */
static const uint8_t *
find_option(const uint8_t *data, uint32_t end, uint8_t type, bool *is_good)
{
	const uint8_t *found = NULL;

	*is_good = true;
	for (uint32_t at = NDP_OPTIONS; at < end;) {
		if (at + 2 > end || data[at + 1] == 0 || at + data[at + 1] * 8u > end) {
			*is_good = false;
			return NULL;
		}
		if (data[at] == type && found == NULL)
			found = data + at + 2;
		at += data[at + 1] * 8u;
	}
	return found;
}

enum router_reason
router_ndp_arrive(struct router *router, struct onvm_pkt *pkt, uint32_t index)
{
	const uint8_t *const data = pkt->data;
	const uint32_t l4_length = onvm_load_be16(data + 18);
	struct router_interface *const interface = &router->interfaces[index];
	const struct router_address *own;
	const uint8_t *mac;
	bool is_good, is_ours, is_probe;

	/* RFC 4861 6.1, 7.1, 8.1: all of it has this hop limit. */
	if (data[20] != ONVM_PROTO_ICMPV6 || l4_length < 8 || data[NDP_ICMP] < 133 ||
	    data[NDP_ICMP] > 137)
		return ROUTER_NO_DROP;
	if (data[NDP_ICMP] == NDP_ROUTER_SOLICITATION && data[21] == NDP_HOP_LIMIT)
		interface->is_solicited = true;
	if (data[NDP_ICMP] != NDP_SOLICITATION && data[NDP_ICMP] != NDP_ADVERTISEMENT)
		return router_to_host(router, pkt, index, ROUTER_DROP_CONSUMED);
	if (data[21] != NDP_HOP_LIMIT || data[NDP_ICMP + 1] != 0 ||
	    l4_length < NDP_OPTIONS - NDP_ICMP || data[NDP_TARGET] == 0xff)
		return ROUTER_DROP_MALFORMED;
	if ((pkt->flags & ONVM_F_PARTIAL) == 0 &&
	    onvm_checksum_fold(
		    onvm_checksum_add(router_pseudo_sum6(data + 14, l4_length, ONVM_PROTO_ICMPV6),
				      data + NDP_ICMP, l4_length)) != 0xffff)
		return ROUTER_DROP_MALFORMED;
	mac = find_option(data, NDP_ICMP + l4_length,
			  data[NDP_ICMP] == NDP_SOLICITATION ? NDP_OPTION_SOURCE :
							       NDP_OPTION_TARGET,
			  &is_good);
	if (!is_good)
		return ROUTER_DROP_MALFORMED;
	own = router_own_address(router, 6, data + NDP_TARGET);
	is_ours = (own != NULL && own->interface == index) ||
		  memcmp(data + NDP_TARGET, interface->link_local, ONVM_ADDRESS_BYTES) == 0;
	if (data[NDP_ICMP] == NDP_ADVERTISEMENT) {
		if (mac != NULL)
			router_neighbour_learn(router, index, 6, data + NDP_TARGET, mac, false,
					       (data[NDP_ICMP + 4] & NDP_FLAG_SOLICITED) != 0);
		return router_to_host(router, pkt, index, ROUTER_DROP_CONSUMED);
	}
	is_probe = memcmp(data + 22, unspecified, sizeof(unspecified)) == 0;
	if (mac != NULL && !is_probe)
		router_neighbour_learn(router, index, 6, data + 22, mac, is_ours, false);
	return is_ours ? router_ndp_answer(router, pkt, index, mac) : ROUTER_DROP_CONSUMED;
}
