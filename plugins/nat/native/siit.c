/* SPDX-License-Identifier: Apache-2.0 */
#include "siit.h"

#include <onvm/content.h>

#include <string.h>

#define IP4_BYTES 20u
#define IP6_BYTES 40u
#define FRAGMENT_BYTES 8u
#define MINIMUM_MTU6 1280u
#define CUT_BY_OTHERS_MAX 1260u /* RFC 7915 5.1: may be cut behind the translator */
#define MTU_DIFFERENCE 20u
#define UNKNOWN_POINTER 255

/* ---- addresses: RFC 6052 2.2; the bits from 64 to 71 are zero ---- */

bool
siit_prefix_holds(const struct siit_prefix *prefix, const uint8_t *address)
{
	return prefix->bits != 0 && memcmp(prefix->address, address, prefix->bits / 8) == 0;
}

void
siit_extract(const struct siit_prefix *prefix, const uint8_t *address, uint8_t *ipv4)
{
	uint32_t at = prefix->bits / 8;

	for (uint32_t i = 0; i < 4; i++) {
		at += at == 8;
		ipv4[i] = address[at++];
	}
}

void
siit_embed(const struct siit_prefix *prefix, const uint8_t *ipv4, uint8_t *address)
{
	uint32_t at = prefix->bits / 8;

	memcpy(address, prefix->address, 16);
	for (uint32_t i = 0; i < 4; i++) {
		at += at == 8;
		address[at++] = ipv4[i];
	}
}

/* ---- checksums ---- */

static uint64_t
sum_without(uint64_t sum, const uint8_t *data, uint32_t length)
{
	uint16_t word;

	for (uint32_t i = 0; i < length; i += 2) {
		memcpy(&word, data + i, sizeof(word));
		sum += (uint16_t)~word;
	}
	return sum;
}

static uint64_t
sum_with(uint64_t sum, const uint8_t *data, uint32_t length)
{
	return onvm_checksum_add(sum, data, length);
}

static void
checksum4_fill(uint8_t *ip)
{
	uint16_t sum = 0;

	memcpy(ip + 10, &sum, sizeof(sum));
	sum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, ip, IP4_BYTES));
	memcpy(ip + 10, &sum, sizeof(sum));
}

/* Length and protocol of ICMPv6's pseudo-header, which ICMP has not. */
static void
pseudo_fill(uint8_t *pseudo, uint32_t length)
{
	onvm_store_be16(pseudo, (uint16_t)length);
	onvm_store_be16(pseudo + 2, ONVM_PROTO_ICMPV6);
}

/* ---- headers ---- */

/* What a header of either version says. */
struct says {
	uint8_t traffic_class, hops, protocol;
	bool is_fragment, more;
	bool may_be_cut; /* of IPv4 */
	uint16_t offset; /* of the fragment, bytes */
	uint16_t identification;
	uint32_t length; /* behind the header */
};

static void
header4_fill(uint8_t *ip, const struct says *says, const uint8_t *src, const uint8_t *dst)
{
	const bool is_uncut = !says->is_fragment && !says->may_be_cut;

	ip[0] = 0x45;
	ip[1] = says->traffic_class;
	onvm_store_be16(ip + 2, (uint16_t)(IP4_BYTES + says->length));
	onvm_store_be16(ip + 4, is_uncut ? 0 : says->identification);
	onvm_store_be16(ip + 6, (uint16_t)(is_uncut   ? 0x4000 :
					   says->more ? 0x2000 | says->offset / 8 :
							says->offset / 8));
	ip[8] = says->hops;
	ip[9] = says->protocol;
	memcpy(ip + 12, src, 4);
	memcpy(ip + 16, dst, 4);
	checksum4_fill(ip);
}

static uint32_t
header6_bytes(const struct says *says)
{
	return IP6_BYTES + (says->is_fragment ? FRAGMENT_BYTES : 0);
}

static void
header6_fill(uint8_t *ip, const struct says *says, const uint8_t *src, const uint8_t *dst)
{
	uint8_t *const fragment = ip + IP6_BYTES;

	ip[0] = (uint8_t)(0x60 | says->traffic_class >> 4);
	ip[1] = (uint8_t)(says->traffic_class << 4);
	ip[2] = ip[3] = 0;
	onvm_store_be16(ip + 4, (uint16_t)(header6_bytes(says) - IP6_BYTES + says->length));
	ip[6] = says->is_fragment ? ONVM_PROTO_FRAGMENT : says->protocol;
	ip[7] = says->hops;
	memcpy(ip + 8, src, 16);
	memcpy(ip + 24, dst, 16);
	if (!says->is_fragment)
		return;
	fragment[0] = says->protocol;
	fragment[1] = 0;
	onvm_store_be16(fragment + 2, (uint16_t)(says->offset | says->more));
	onvm_store_be16(fragment + 4, 0);
	onvm_store_be16(fragment + 6, says->identification);
}

static uint8_t
traffic_class_of(const uint8_t *ip)
{
	return (uint8_t)(ip[0] << 4 | ip[1] >> 4);
}

/* Whether a packet has headers that have no counterpart: a route to follow, authentication. */
static bool
has_unknown_extension(const uint8_t *ip, uint32_t l4_at)
{
	uint32_t cursor = IP6_BYTES;
	uint8_t next = ip[6];

	while (cursor + 8 <= l4_at) {
		const uint8_t *const header = ip + cursor;

		if (next != ONVM_PROTO_HOPOPTS && next != ONVM_PROTO_DSTOPTS &&
		    next != ONVM_PROTO_FRAGMENT && (next != ONVM_PROTO_ROUTING || header[3] != 0))
			return true;
		cursor += onvm_ipv6_extension_bytes(next, header);
		next = header[0];
	}
	return false;
}

/* RFC 7915 4.1: a source route that is not over is not translated. */
static bool
has_source_route(const uint8_t *ip, uint32_t header_bytes)
{
	for (uint32_t at = IP4_BYTES; at < header_bytes && ip[at] != 0;) {
		const uint32_t bytes = ip[at] == 1 || at + 1 == header_bytes ? 1 : ip[at + 1];

		if (bytes == 0 || at + bytes > header_bytes)
			return true;
		if ((ip[at] == 131 || ip[at] == 137) && (bytes < 3 || ip[at + 2] <= bytes))
			return true;
		at += bytes;
	}
	return false;
}

/* Move the frame so that its IP header has @p bytes in front of the transport header. */
static uint8_t *
frame_move(struct onvm_pkt *pkt, const struct onvm_headers *headers, uint32_t bytes)
{
	const int32_t by = (int32_t)(headers->l3_offset + bytes) - headers->l4_offset;
	uint8_t *const before = pkt->data;
	uint8_t *const data = by > 0 ? onvm_pkt_push(pkt, (uint16_t)by) :
			      by < 0 ? onvm_pkt_pull(pkt, (uint16_t)-by) :
				       before;

	if (data != NULL)
		memmove(data, before, headers->l3_offset);
	return data;
}

static void
ethertype_set(uint8_t *data, const struct onvm_headers *headers, uint16_t ethertype)
{
	onvm_store_be16(data + headers->l3_offset - 2, ethertype);
}

/* ---- errors: RFC 7915 4.2, 4.3, 5.2, 5.3 ---- */

static uint8_t
pointer_to4(uint32_t pointer)
{
	static const uint8_t of[] = {0, 1, UNKNOWN_POINTER, UNKNOWN_POINTER, 2, 2, 9, 8};

	if (pointer < sizeof(of))
		return of[pointer];
	return pointer < 24 ? 12 : pointer < 40 ? 16 : UNKNOWN_POINTER;
}

static uint8_t
pointer_to6(uint32_t pointer)
{
	static const uint8_t of[] = {0,
				     1,
				     4,
				     4,
				     UNKNOWN_POINTER,
				     UNKNOWN_POINTER,
				     UNKNOWN_POINTER,
				     UNKNOWN_POINTER,
				     7,
				     6,
				     UNKNOWN_POINTER,
				     UNKNOWN_POINTER};

	if (pointer < sizeof(of))
		return of[pointer];
	return pointer < 16 ? 8 : pointer < 20 ? 24 : UNKNOWN_POINTER;
}

/* RFC 1191 7.1, for routers that do not say what fits: the next lower of usual sizes. */
static uint32_t
plateau_below(uint32_t length)
{
	static const uint16_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296};

	for (uint32_t i = 0; i < sizeof(plateaus) / sizeof(plateaus[0]); i++)
		if (plateaus[i] < length)
			return plateaus[i];
	return 68;
}

/* Type, code and the four bytes behind the checksum; false: it has no counterpart. */
static bool
error_to4(const uint8_t *from, uint8_t *to)
{
	static const uint8_t unreachable[] = {1, 10, 1, 1, 3};
	const uint32_t mtu = onvm_load_be32(from + 4);
	const uint8_t pointer = pointer_to4(onvm_load_be32(from + 4));

	memset(to, 0, 8);
	switch (from[0]) {
	case 1:
		to[0] = 3;
		to[1] = from[1] < sizeof(unreachable) ? unreachable[from[1]] : 0;
		return from[1] < sizeof(unreachable);
	case 2:
		to[0] = 3;
		to[1] = 4;
		onvm_store_be16(to + 6,
				(uint16_t)(mtu > UINT16_MAX	     ? UINT16_MAX :
					   mtu < MTU_DIFFERENCE + 68 ? 68 :
								       mtu - MTU_DIFFERENCE));
		return true;
	case 3:
		to[0] = 11;
		to[1] = from[1];
		return true;
	case 4:
		to[0] = from[1] == 1 ? 3 : 12;
		to[1] = from[1] == 1 ? 2 : 0;
		if (from[1] == 0)
			to[4] = pointer;
		return from[1] == 1 || (from[1] == 0 && pointer != UNKNOWN_POINTER);
	default:
		return false;
	}
}

/* @p quoted: length of the packet that the error quotes, for those that do not say what fits. */
static bool
error_to6(const uint8_t *from, uint32_t quoted, uint8_t *to)
{
	static const uint8_t unreachable[] = {0, 0, 4, 4, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 1};
	uint32_t mtu = onvm_load_be16(from + 6);
	const uint8_t pointer = pointer_to6(from[4]);

	memset(to, 0, 8);
	switch (from[0]) {
	case 3:
		if (from[1] >= sizeof(unreachable) || from[1] == 14)
			return false;
		to[0] = from[1] == 2 ? 4 : from[1] == 4 ? 2 : 1;
		to[1] = from[1] == 2 ? 1 : unreachable[from[1]];
		if (from[1] == 2) /* no protocol: that was in "next header" */
			to[7] = 6;
		if (from[1] == 4) {
			mtu = (mtu == 0 ? plateau_below(quoted) : mtu) + MTU_DIFFERENCE;
			onvm_store_be32(to + 4, mtu < MINIMUM_MTU6 ? MINIMUM_MTU6 : mtu);
		}
		return true;
	case 11:
		to[0] = 3;
		to[1] = from[1];
		return true;
	case 12:
		to[0] = 4;
		to[7] = pointer;
		return (from[1] == 0 || from[1] == 2) && pointer != UNKNOWN_POINTER;
	default:
		return false;
	}
}

/* The checksum of a transport header, as far as it is there. */
static void
transport_checksum_change(uint8_t *l4, uint32_t bytes, uint8_t protocol, uint64_t delta)
{
	const uint32_t at = onvm_l4_checksum_offset(protocol);

	if (at != 0 && at + 2 <= bytes)
		onvm_l4_checksum_apply(l4 + at, protocol, delta);
}

/* An echo changes its type, and its sum covers addresses in IPv6 alone. */
static void
echo_change(uint8_t *l4, uint64_t delta, bool is_to4)
{
	uint8_t type[2] = {l4[0], l4[1]};

	delta = sum_without(delta, type, 2);
	type[0] = is_to4 ? (l4[0] == 128 ? 8 : 0) : (l4[0] == 8 ? 128 : 129);
	delta = sum_with(delta, type, 2);
	l4[0] = type[0];
	onvm_checksum_apply(l4 + 2, delta);
}

/* Replace the packet behind the link layer by @p ip. */
static bool
frame_replace(struct onvm_pkt *pkt, const struct onvm_headers *headers, const uint8_t *ip,
	      uint32_t bytes)
{
	const uint32_t length = headers->l3_offset + bytes;
	uint8_t *const before = pkt->data;
	uint8_t *data = before;

	if (length > pkt->length)
		data = onvm_pkt_push(pkt, (uint16_t)(length - pkt->length));
	if (data == NULL)
		return false;
	memmove(data, before, headers->l3_offset);
	memcpy(data + headers->l3_offset, ip, bytes);
	pkt->length = (uint16_t)length;
	return true;
}

/* What is quoted, without the extensions behind it (RFC 4884): the length is in words of @p unit. */
static uint32_t
quoted_end(uint32_t bytes, uint8_t words, uint32_t unit)
{
	const uint32_t said = words * unit;

	return said != 0 && said < bytes ? said : bytes;
}

/* The fragment header of a quoted packet, or NULL. */
static const uint8_t *
quoted_fragment_find(const uint8_t *ip, uint32_t header_bytes)
{
	uint8_t next = ip[6];

	for (uint32_t at = IP6_BYTES; at < header_bytes;) {
		const uint32_t bytes = onvm_ipv6_extension_bytes(next, ip + at);

		if (next == ONVM_PROTO_FRAGMENT)
			return ip + at;
		next = ip[at];
		at += bytes;
	}
	return NULL;
}

static enum siit_result
error_translate4(struct onvm_pkt *pkt, const struct onvm_headers *headers,
		 const struct siit_ends *ends, const struct says *outer)
{
	uint8_t made[MINIMUM_MTU6] = {0};
	uint8_t *const icmp = made + IP4_BYTES, *const quote = icmp + 8;
	const uint8_t *const from = pkt->data + headers->l4_offset;
	struct onvm_embedded quoted;
	struct says inner = {0}, whole = *outer;
	const uint8_t *ip, *fragment;
	uint32_t bytes, header_bytes;
	uint64_t delta;
	uint16_t sum;

	if (!onvm_embedded_locate(pkt->data, headers, &quoted))
		return SIIT_MALFORMED;
	ip = pkt->data + quoted.l3_offset;
	header_bytes = (uint32_t)(quoted.l4_offset - quoted.l3_offset);
	if (!error_to4(from, icmp) || has_unknown_extension(ip, header_bytes))
		return SIIT_NOT_TRANSLATED;
	bytes = quoted_end(headers->l4_length - 8u, from[4], from[0] == 1 || from[0] == 3 ? 8 : 0);
	if (bytes < header_bytes + 8 || onvm_load_be16(ip + 4) + IP6_BYTES < header_bytes)
		return SIIT_MALFORMED;
	bytes -= header_bytes;
	if (bytes > sizeof(made) - IP4_BYTES - 8 - IP4_BYTES)
		bytes = sizeof(made) - IP4_BYTES - 8 - IP4_BYTES;
	inner.traffic_class = traffic_class_of(ip);
	inner.hops = ip[7];
	inner.protocol = quoted.protocol == ONVM_PROTO_ICMPV6 ? ONVM_PROTO_ICMP : quoted.protocol;
	inner.length = onvm_load_be16(ip + 4) + IP6_BYTES - header_bytes;
	fragment = quoted_fragment_find(ip, header_bytes);
	if (fragment != NULL && (fragment[3] & 1) != 0) {
		inner.is_fragment = inner.more = true;
		inner.identification = onvm_load_be16(fragment + 6);
	}
	header4_fill(quote, &inner, ends->quoted_src, ends->quoted_dst);
	memcpy(quote + IP4_BYTES, pkt->data + quoted.l4_offset, bytes);
	delta = sum_without(0, ip + 8, 32);
	if (quoted.protocol == ONVM_PROTO_ICMPV6) {
		uint8_t pseudo[4];

		pseudo_fill(pseudo, inner.length);
		echo_change(quote + IP4_BYTES, sum_without(delta, pseudo, 4), true);
	} else {
		delta = sum_with(delta, quote + 12, 8);
		transport_checksum_change(quote + IP4_BYTES, bytes, quoted.protocol, delta);
	}
	bytes += IP4_BYTES;
	sum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, icmp, 8 + bytes));
	memcpy(icmp + 2, &sum, sizeof(sum));
	whole.length = 8 + bytes;
	header4_fill(made, &whole, ends->src, ends->dst);
	if (!frame_replace(pkt, headers, made, IP4_BYTES + whole.length))
		return SIIT_NO_ROOM;
	ethertype_set(pkt->data, headers, ONVM_ETHERTYPE_IPV4);
	return SIIT_DONE;
}

static enum siit_result
error_translate6(struct onvm_pkt *pkt, const struct onvm_headers *headers,
		 const struct siit_ends *ends, const struct says *outer)
{
	uint8_t made[MINIMUM_MTU6] = {0};
	uint8_t *const icmp = made + IP6_BYTES, *const quote = icmp + 8;
	const uint8_t *const from = pkt->data + headers->l4_offset;
	struct onvm_embedded quoted;
	struct says inner = {0}, whole = *outer;
	uint32_t bytes, header_bytes, total, inner_bytes;
	const uint8_t *ip;
	uint8_t pseudo[4];
	uint16_t fragment, sum;
	uint64_t delta;

	if (!onvm_embedded_locate(pkt->data, headers, &quoted))
		return SIIT_MALFORMED;
	ip = pkt->data + quoted.l3_offset;
	header_bytes = (uint32_t)(quoted.l4_offset - quoted.l3_offset);
	total = onvm_load_be16(ip + 2);
	if (!error_to6(from, total, icmp))
		return SIIT_NOT_TRANSLATED;
	bytes = quoted_end(headers->l4_length - 8u, from[5], 4);
	if (bytes < header_bytes + 8 || total < header_bytes)
		return SIIT_MALFORMED;
	bytes -= header_bytes;
	fragment = onvm_load_be16(ip + 6);
	inner.traffic_class = ip[1];
	inner.hops = ip[8];
	inner.protocol = ip[9] == ONVM_PROTO_ICMP ? ONVM_PROTO_ICMPV6 : ip[9];
	inner.length = total - header_bytes;
	inner.is_fragment = inner.more = (fragment & 0x2000) != 0;
	inner.identification = onvm_load_be16(ip + 4);
	inner_bytes = header6_bytes(&inner);
	if (bytes > sizeof(made) - IP6_BYTES - 8 - inner_bytes)
		bytes = sizeof(made) - IP6_BYTES - 8 - inner_bytes;
	header6_fill(quote, &inner, ends->quoted_src, ends->quoted_dst);
	memcpy(quote + inner_bytes, pkt->data + quoted.l4_offset, bytes);
	if (ip[9] == ONVM_PROTO_ICMP) {
		pseudo_fill(pseudo, inner.length);
		delta = sum_with(sum_with(0, quote + 8, 32), pseudo, 4);
		echo_change(quote + inner_bytes, delta, false);
	} else {
		delta = sum_with(sum_without(0, ip + 12, 8), quote + 8, 32);
		transport_checksum_change(quote + inner_bytes, bytes, ip[9], delta);
	}
	bytes += inner_bytes;
	whole.length = 8 + bytes;
	header6_fill(made, &whole, ends->src, ends->dst);
	pseudo_fill(pseudo, whole.length);
	sum = (uint16_t)~onvm_checksum_fold(
		onvm_checksum_add(sum_with(sum_with(0, made + 8, 32), pseudo, 4), icmp, 8 + bytes));
	memcpy(icmp + 2, &sum, sizeof(sum));
	if (!frame_replace(pkt, headers, made, IP6_BYTES + whole.length))
		return SIIT_NO_ROOM;
	ethertype_set(pkt->data, headers, ONVM_ETHERTYPE_IPV6);
	return SIIT_DONE;
}

/* ---- packets ---- */

enum siit_result
siit_to4(struct onvm_pkt *pkt, const struct onvm_headers *headers, const struct siit_ends *ends,
	 uint8_t hops, uint16_t identification)
{
	const uint8_t *const ip = pkt->data + headers->l3_offset;
	const bool is_fragment = headers->fragment_header != 0 && onvm_headers_is_fragment(headers);
	const bool is_icmp = headers->protocol == ONVM_PROTO_ICMPV6;
	uint8_t *const l4 = pkt->data + headers->l4_offset;
	struct says says = {
		.traffic_class = traffic_class_of(ip),
		.hops = (uint8_t)(ip[7] < hops ? 0 : ip[7] - hops),
		.protocol = is_icmp ? ONVM_PROTO_ICMP : headers->protocol,
		.is_fragment = is_fragment,
		.more = headers->more_fragments,
		.may_be_cut = IP4_BYTES + headers->l4_length <= CUT_BY_OTHERS_MAX,
		.offset = headers->fragment_offset,
		.identification = identification,
		.length = headers->l4_length,
	};
	uint64_t delta = sum_without(0, ip + 8, 32);
	uint8_t *data;

	if (has_unknown_extension(ip, (uint32_t)(headers->l4_offset - headers->l3_offset)))
		return SIIT_NOT_TRANSLATED;
	if (is_fragment)
		says.identification =
			onvm_load_be16(pkt->data + headers->fragment_header + FRAGMENT_BYTES - 2);
	if (is_icmp && is_fragment)
		return SIIT_FRAGMENT;
	if (onvm_icmp_is_error(pkt->data, headers))
		return error_translate4(pkt, headers, ends, &says);
	if (headers->fragment_offset == 0 && headers->protocol == ONVM_PROTO_UDP &&
	    onvm_load_be16(l4 + 6) == 0)
		return SIIT_MALFORMED; /* RFC 8200 8.1 */
	if (is_icmp) {
		uint8_t pseudo[4];

		if (l4[0] != 128 && l4[0] != 129)
			return SIIT_NOT_TRANSLATED;
		pseudo_fill(pseudo, headers->l4_length);
		echo_change(l4, sum_without(delta, pseudo, 4), true);
	} else if (headers->fragment_offset == 0) {
		delta = sum_with(sum_with(delta, ends->src, 4), ends->dst, 4);
		transport_checksum_change(l4, headers->l4_length, headers->protocol, delta);
	}
	data = frame_move(pkt, headers, IP4_BYTES); /* never longer */
	header4_fill(data + headers->l3_offset, &says, ends->src, ends->dst);
	ethertype_set(data, headers, ONVM_ETHERTYPE_IPV4);
	return SIIT_DONE;
}

enum siit_result
siit_to6(struct onvm_pkt *pkt, const struct onvm_headers *headers, const struct siit_ends *ends,
	 uint8_t hops)
{
	const uint8_t *const ip = pkt->data + headers->l3_offset;
	const bool is_fragment = onvm_headers_is_fragment(headers);
	const bool is_icmp = headers->protocol == ONVM_PROTO_ICMP;
	const struct says says = {
		.traffic_class = ip[1],
		.hops = (uint8_t)(ip[8] < hops ? 0 : ip[8] - hops),
		.protocol = is_icmp ? ONVM_PROTO_ICMPV6 : headers->protocol,
		.is_fragment = is_fragment,
		.more = headers->more_fragments,
		.offset = headers->fragment_offset,
		.identification = onvm_load_be16(ip + 4),
		.length = headers->l4_length,
	};
	uint8_t *const l4 = pkt->data + headers->l4_offset;
	uint64_t delta = sum_with(sum_with(0, ends->src, 16), ends->dst, 16);
	uint8_t *data;

	if (has_source_route(ip, (uint32_t)(headers->l4_offset - headers->l3_offset)))
		return SIIT_NOT_TRANSLATED;
	if (is_icmp && is_fragment)
		return SIIT_FRAGMENT;
	if (onvm_icmp_is_error(pkt->data, headers))
		return error_translate6(pkt, headers, ends, &says);
	if (is_icmp && l4[0] != 8 && l4[0] != 0)
		return SIIT_NOT_TRANSLATED;
	const bool is_unsummed = headers->fragment_offset == 0 &&
				 headers->protocol == ONVM_PROTO_UDP && onvm_load_be16(l4 + 6) == 0;

	if (is_unsummed && is_fragment)
		return SIIT_FRAGMENT;
	delta = sum_without(delta, ip + 12, 8);
	data = frame_move(pkt, headers, header6_bytes(&says));
	if (data == NULL)
		return SIIT_NO_ROOM;
	if (is_icmp) {
		uint8_t pseudo[4];

		pseudo_fill(pseudo, headers->l4_length);
		delta = sum_with(sum_with(sum_with(0, ends->src, 16), ends->dst, 16), pseudo, 4);
		echo_change(l4, delta, false);
	} else if (headers->fragment_offset == 0) {
		transport_checksum_change(l4, headers->l4_length, headers->protocol, delta);
	}
	header6_fill(data + headers->l3_offset, &says, ends->src, ends->dst);
	ethertype_set(data, headers, ONVM_ETHERTYPE_IPV6);
	if (is_unsummed) {
		struct onvm_headers made;

		onvm_parse(data, pkt->length, &made);
		onvm_checksums_make(data, &made, true);
	}
	return SIIT_DONE;
}
