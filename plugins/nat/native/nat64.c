/* SPDX-License-Identifier: Apache-2.0 */

/*
 * NAT64 (RFC 6146): IPv6 hosts reach IPv4 ones. An IPv6 host gets a *stand-in*, an IPv4 address in
 * 0.0.0.0/8, which no real packet has. Its packets become IPv4 from there (siit.c), and the NAT does
 * with them what it does with those of any inside address. What the NAT sends to a stand-in becomes
 * IPv6 again.
 */

#include "nat.h"

#include <onvm/verify.h>

#include <string.h>

#define DIFFERENCE 20u /* bytes between the headers */
#define FRAGMENT_BYTES 8u

/* ---- IPv6 to IPv4 ---- */

/* Addresses that no packet may come from when it leaves its link (RFC 4291, RFC 6146 3.5). */
static bool
is_no_source(const struct siit_prefix *prefix, const uint8_t *address)
{
	static const uint8_t none[15];

	return siit_prefix_holds(prefix, address) || address[0] == 0xff ||
	       (address[0] == 0xfe && (address[1] & 0xc0) == 0x80) ||
	       (memcmp(address, none, sizeof(none)) == 0 && address[15] <= 1);
}

/* RFC 6052 3.1: the well-known prefix is for global addresses alone (RFC 6890). */
static bool
is_private(const uint8_t *address)
{
	static const uint32_t networks[][2] = {
		{0x0a000000, 0xff000000}, {0x64400000, 0xffc00000}, {0xa9fe0000, 0xffff0000},
		{0xac100000, 0xfff00000}, {0xc0000000, 0xffffff00}, {0xc0000200, 0xffffff00},
		{0xc0a80000, 0xffff0000}, {0xc6120000, 0xfffe0000}, {0xc6336400, 0xffffff00},
		{0xcb007100, 0xffffff00}, {0xf0000000, 0xf0000000},
	};
	const uint32_t value = onvm_load_be32(address);

	for (uint32_t i = 0; i < sizeof(networks) / sizeof(networks[0]); i++)
		if ((value & networks[i][1]) == networks[i][0])
			return true;
	return false;
}

static bool
is_well_known(const struct siit_prefix *prefix)
{
	static const uint8_t well_known[12] = {0x00, 0x64, 0xff, 0x9b};

	return prefix->bits == 96 && memcmp(prefix->address, well_known, sizeof(well_known)) == 0;
}

bool
nat64_is_outbound(const struct nat *nat, const struct onvm_pkt *pkt,
		  const struct onvm_headers *headers)
{
	return ((pkt->flags & ONVM_F_REVERSE) == 0 || nat->is_routed) &&
	       headers->l3_status == ONVM_L3_OK &&
	       siit_prefix_holds(&nat->config.nat64, pkt->data + headers->l3_offset + 24);
}

static enum nat_reason
reason_of(enum siit_result result)
{
	switch (result) {
	case SIIT_DONE:
		return NAT_NO_DROP;
	case SIIT_NOT_TRANSLATED:
		return NAT_DROP_PROTOCOL;
	case SIIT_MALFORMED:
		return NAT_DROP_MALFORMED;
	case SIIT_FRAGMENT:
		return NAT_DROP_FRAGMENT;
	case SIIT_NO_ROOM:
		return NAT_DROP_TOO_BIG;
	}
	return NAT_DROP_PROTOCOL;
}

/* What cannot be translated, as with IPv4. */
static enum nat_reason
refuse6(const struct nat *nat, const uint8_t *data, const struct onvm_headers *headers,
	const uint8_t *dst)
{
	const struct siit_prefix *const prefix = &nat->config.nat64;
	const bool is_damaged = headers->l4_status == ONVM_L4_SHORT ||
				headers->l4_status == ONVM_L4_BAD_HEADER;

	if (is_no_source(prefix, data + headers->l3_offset + 8) || nat_is_no_host(dst) ||
	    (is_well_known(prefix) && is_private(dst)))
		return NAT_DROP_UNROUTABLE;
	if (is_damaged)
		return headers->more_fragments && headers->fragment_offset == 0 ?
			       NAT_DROP_FRAGMENT :
			       NAT_DROP_MALFORMED;
	if (headers->protocol != ONVM_PROTO_TCP && headers->protocol != ONVM_PROTO_UDP &&
	    headers->protocol != ONVM_PROTO_ICMPV6)
		return NAT_DROP_PROTOCOL;
	return NAT_NO_DROP;
}

/* Addresses of an error: it may come from any router, and is about a host that has a stand-in. */
static enum nat_reason
error_ends_fill(struct nat *nat, const uint8_t *data, const struct onvm_headers *headers,
		const uint8_t *vlan, struct siit_ends *ends)
{
	const uint8_t *const quoted = data + headers->l4_offset + 8;

	if (onvm_verify_l4(data, headers) != ONVM_SUM_OK || headers->l4_length < 8 + 40)
		return NAT_DROP_MALFORMED;
	if (!siit_prefix_holds(&nat->config.nat64, quoted + 8) ||
	    !nat_host_find(nat, quoted + 24, vlan, false, ends->quoted_dst))
		return NAT_DROP_NO_MAPPING;
	siit_extract(&nat->config.nat64, quoted + 8, ends->quoted_src);
	return NAT_NO_DROP;
}

enum nat_reason
nat64_out(struct nat *nat, struct onvm_pkt *pkt, struct onvm_headers *headers, uint32_t *host)
{
	const uint8_t *const ip = pkt->data + headers->l3_offset;
	const bool is_error = onvm_icmp_is_error(pkt->data, headers);
	const bool makes = headers->fragment_offset == 0;
	struct siit_ends ends = {0};
	enum nat_reason reason;
	uint8_t vlan[3];

	siit_extract(&nat->config.nat64, ip + 24, ends.dst);
	reason = refuse6(nat, pkt->data, headers, ends.dst);
	if (reason != NAT_NO_DROP)
		return reason;
	if (!nat_vlan_fill(nat, headers, vlan))
		return NAT_DROP_TABLE_FULL;
	if (is_error)
		reason = error_ends_fill(nat, pkt->data, headers, vlan, &ends);
	else if (!nat_host_find(nat, ip + 8, vlan, makes, ends.src))
		reason = makes ? NAT_DROP_TABLE_FULL : NAT_DROP_FRAGMENT;
	if (reason != NAT_NO_DROP)
		return reason;
	*host = onvm_load_be32(is_error ? ends.quoted_dst : ends.src);
	nat_host_hold(nat, is_error ? ends.quoted_dst : ends.src);
	reason = reason_of(
		siit_to4(pkt, headers, &ends, nat->is_routed ? 0 : 1, nat->identification++));
	if (reason != NAT_NO_DROP)
		return reason;
	nat->counters[NAT_TRANSLATED_64]++;
	onvm_parse(pkt->data, pkt->length, headers);
	return NAT_NO_DROP;
}

/* ---- IPv4 to IPv6 ---- */

/* Tell the sender of a packet that has been translated: as if its stand-in did. */
static void
sender_tell(struct nat *nat, struct onvm_ctx *ctx, const struct onvm_pkt *pkt,
	    const struct onvm_headers *headers, enum nat_own_error error)
{
	const struct nat_offender about = {pkt->data, *headers, pkt->port};
	const uint8_t *const ip = pkt->data + headers->l3_offset;
	struct onvm_headers made_headers;
	struct onvm_pkt *made;

	if (nat->is_tagged || nat_external_find(nat, ip + 12) >= 0)
		return;
	made = nat_own_error_send(nat, ctx, &about, ip + 16, error, nat->link_mtu - DIFFERENCE);
	if (made == NULL)
		return;
	onvm_parse(made->data, made->length, &made_headers);
	if (nat_error_out(nat, made->data, &made_headers, ctx->now_ns) != NAT_NO_DROP)
		made->verdict = ONVM_DROP;
}

static enum nat_reason
check6(struct nat *nat, struct onvm_ctx *ctx, const struct onvm_pkt *pkt,
       const struct onvm_headers *headers)
{
	const uint8_t *const ip = pkt->data + headers->l3_offset;
	const uint32_t longer = DIFFERENCE +
				(onvm_headers_is_fragment(headers) ? FRAGMENT_BYTES : 0);
	const bool is_error = onvm_icmp_is_error(pkt->data, headers);

	if (!nat->is_routed && ip[8] <= 1) {
		sender_tell(nat, ctx, pkt, headers, NAT_ERROR_TTL);
		return NAT_DROP_TTL;
	}
	if (nat->link_mtu == 0 || is_error ||
	    nat_sent_bytes(pkt, headers) + longer <= nat->link_mtu)
		return NAT_NO_DROP;
	if ((ip[6] & 0x40) != 0)
		sender_tell(nat, ctx, pkt, headers, NAT_ERROR_TOO_BIG);
	return NAT_DROP_TOO_BIG;
}

enum nat_reason
nat64_in(struct nat *nat, struct onvm_ctx *ctx, struct onvm_pkt *pkt)
{
	const uint8_t *ip;
	struct siit_ends ends = {0};
	struct onvm_headers headers;
	enum nat_reason reason;

	onvm_parse(pkt->data, pkt->length, &headers);
	ip = pkt->data + headers.l3_offset;
	reason = check6(nat, ctx, pkt, &headers);
	if (reason != NAT_NO_DROP)
		return reason;
	siit_embed(&nat->config.nat64, ip + 12, ends.src);
	memcpy(ends.dst, nat_host_of(nat, ip + 16), sizeof(ends.dst));
	if (onvm_icmp_is_error(pkt->data, &headers)) {
		const uint8_t *const quoted = pkt->data + headers.l4_offset + 8;

		memcpy(ends.quoted_src, nat_host_of(nat, quoted + 12), sizeof(ends.quoted_src));
		siit_embed(&nat->config.nat64, quoted + 16, ends.quoted_dst);
	}
	reason = reason_of(siit_to6(pkt, &headers, &ends, nat->is_routed ? 0 : 1));
	if (reason == NAT_NO_DROP)
		nat->counters[NAT_TRANSLATED_46]++;
	return reason;
}
