/* SPDX-License-Identifier: Apache-2.0 */
#include "sorting.h"

#include "icmp.h"

#define ETHERTYPE_MIN 0x600 /* below, it is a length */
#define OPTION_END 0
#define OPTION_NONE 1
#define OPTION_LOOSE_ROUTE 131
#define OPTION_STRICT_ROUTE 137

static enum firewall_kind
kind_of(uint16_t ethertype)
{
	if (onvm_ethertype_is_vlan(ethertype))
		return FIREWALL_KIND_VLAN_STACK;
	if (ethertype < ETHERTYPE_MIN)
		return FIREWALL_KIND_LLC;
	switch (ethertype) {
	case 0x0806:
		return FIREWALL_KIND_ARP;
	case 0x8863:
	case 0x8864:
		return FIREWALL_KIND_PPPOE;
	case 0x8847:
	case 0x8848:
		return FIREWALL_KIND_MPLS;
	default:
		return FIREWALL_KIND_OTHER;
	}
}

/* Options of IPv4 that mean something, and those with which the sender chooses the route. */
static void
options_read4(const uint8_t *options, uint32_t nb, bool *has_options, bool *has_route)
{
	for (uint32_t at = 0; at < nb && options[at] != OPTION_END;) {
		if (options[at] == OPTION_NONE) {
			at++;
			continue;
		}
		*has_options = true;
		*has_route |= options[at] == OPTION_LOOSE_ROUTE ||
			      options[at] == OPTION_STRICT_ROUTE;
		if (at + 1 >= nb || options[at + 1] < 2)
			break;
		at += options[at + 1];
	}
}

/* Routing headers of type 0 (RFC 5095). */
static bool
has_route6(const uint8_t *data, const struct onvm_headers *headers)
{
	uint32_t cursor = headers->l3_offset + 40u;
	uint8_t next = data[headers->l3_offset + 6];

	while (cursor + 8 <= headers->l4_offset) {
		if (next == ONVM_PROTO_ROUTING && data[cursor + 2] == 0)
			return true;
		const uint32_t step = onvm_ipv6_extension_bytes(next, data + cursor);

		next = data[cursor];
		cursor += step;
	}
	return false;
}

static bool
has_forbidden_options(const struct firewall_config *config, const uint8_t *data,
		      const struct onvm_headers *headers)
{
	const uint8_t *const ip = data + headers->l3_offset;
	bool has_options = false, has_route = false;

	if (headers->ip_version == 4) {
		if (ip[0] == 0x45)
			return false;
		options_read4(ip + 20, (ip[0] & 15) * 4u - 20, &has_options, &has_route);
	} else if (headers->l4_offset != headers->l3_offset + 40) {
		has_route = has_route6(data, headers);
	}
	return (has_options && !config->passes_ip_options) ||
	       (has_route && !config->passes_source_route);
}

bool
sorting_is_damaged(const struct onvm_pkt *pkt, const struct onvm_headers *headers, bool with_header)
{
	if (with_header && onvm_verify_l3(pkt->data, headers) == ONVM_SUM_BAD)
		return true;
	/* a partial checksum is made behind the chain */
	return (pkt->flags & ONVM_F_PARTIAL) == 0 &&
	       onvm_verify_l4(pkt->data, headers) == ONVM_SUM_BAD;
}

enum sorting
sorting_decide(const struct firewall_config *config, const struct onvm_pkt *pkt,
	       const struct onvm_headers *headers, uint16_t *reason)
{
	*reason = FIREWALL_DROP_MALFORMED;
	if (headers->l3_status == ONVM_L3_NONIP && headers->l3_offset != 0) {
		*reason = FIREWALL_DROP_NON_IP;
		return config->passes_kind[kind_of(headers->ethertype)] ? SORT_PASS : SORT_DROP;
	}
	if (headers->l3_status != ONVM_L3_OK || headers->l4_status == ONVM_L4_SHORT ||
	    headers->l4_status == ONVM_L4_BAD_HEADER)
		return SORT_DROP;
	if (has_forbidden_options(config, pkt->data, headers)) {
		*reason = FIREWALL_DROP_OPTIONS;
		return SORT_DROP;
	}
	if (config->verifies_checksums && sorting_is_damaged(pkt, headers, true)) {
		*reason = FIREWALL_DROP_INVALID;
		return SORT_DROP;
	}
	if (config->passes_ndp && icmp_is_ndp(pkt->data, headers))
		return SORT_PASS;
	return SORT_CANDIDATE;
}
