/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the load balancer says for its VIPs. Answers are made in the buffer of what they answer and
 * leave by the port it came from.
 */

#include "lb.h"

#include <string.h>

#define TTL 64
#define QUOTED4_MAX 548u  /* RFC 1812 4.3.2.3: 576 bytes in all */
#define QUOTED6_MAX 1232u /* RFC 4443 2.4: 1280 bytes in all */

/* Is the packet from an address that a host can have, and none of ours? */
static bool
may_answer(const struct lb *lb, const uint8_t *data, const struct onvm_headers *headers)
{
	static const uint8_t unspecified[ONVM_ADDRESS_BYTES];
	const uint8_t *const src = data + headers->l3_offset + (headers->ip_version == 4 ? 12 : 8);

	if (headers->ip_version == 4 && (src[0] == 0 || src[0] == 127 || src[0] >= 224))
		return false;
	if (headers->ip_version == 6 &&
	    (src[0] == 0xff || memcmp(src, unspecified, sizeof(unspecified)) == 0))
		return false;
	return !lb_is_vip(lb, headers->ip_version, src);
}

static void
swap(uint8_t *a, uint8_t *b, uint32_t size)
{
	uint8_t kept[ONVM_ADDRESS_BYTES];

	memcpy(kept, a, size);
	memcpy(a, b, size);
	memcpy(b, kept, size);
}

bool
lb_answer_echo(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers)
{
	const bool is_4 = headers->ip_version == 4;
	const uint32_t size = onvm_address_bytes(headers->ip_version);
	uint8_t *const l3 = pkt->data + headers->l3_offset;
	uint8_t *const icmp = pkt->data + headers->l4_offset;
	uint8_t *const addresses = l3 + (is_4 ? 12 : 8);
	uint8_t before[2];

	if (!may_answer(lb, pkt->data, headers))
		return false;
	swap(pkt->data, pkt->data + 6, 6);
	swap(addresses, addresses + size, size); /* which no checksum sees */
	if (is_4) {
		memcpy(before, l3 + 8, 2);
		l3[8] = TTL;
		onvm_checksum_replace(l3 + 10, before, l3 + 8, 2);
	} else {
		l3[7] = TTL;
	}
	memcpy(before, icmp, 2);
	icmp[0] = is_4 ? 0 : 129;
	onvm_checksum_replace(icmp + 2, before, icmp, 2);
	onvm_pkt_out(pkt, pkt->port);
	lb->counters[LB_ECHOES_ANSWERED]++;
	return true;
}

/* An IP header of an answer at @p ip; @p ends: source and destination of what is answered. */
static void
ip_fill(uint8_t *ip, uint8_t ip_version, uint8_t protocol, uint32_t l4_length, const uint8_t *ends)
{
	const uint32_t size = onvm_address_bytes(ip_version);
	uint8_t *const addresses = ip + (ip_version == 4 ? 12 : 8);
	uint16_t checksum;

	memset(ip, 0, ip_version == 4 ? 20 : 40);
	memcpy(addresses, ends + size, size);
	memcpy(addresses + size, ends, size);
	if (ip_version == 6) {
		ip[0] = 0x60;
		onvm_store_be16(ip + 4, (uint16_t)l4_length);
		ip[6] = protocol;
		ip[7] = TTL;
		return;
	}
	ip[0] = 0x45;
	onvm_store_be16(ip + 2, (uint16_t)(20 + l4_length));
	ip[6] = 0x40; /* don't fragment, so it needs no identification */
	ip[8] = TTL;
	ip[9] = protocol;
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, ip, 20));
	memcpy(ip + 10, &checksum, 2);
}

/* The whole checksum of a transport header at @p l4, whose field at @p field is 0. */
static void
l4_checksum_fill(uint8_t *l4, uint32_t field, uint8_t protocol, uint32_t length,
		 const uint8_t *ends, uint32_t address_bytes)
{
	uint8_t pseudo[4] = {0, protocol};
	uint64_t sum = 0;
	uint16_t checksum;

	if (protocol != ONVM_PROTO_ICMP) {
		onvm_store_be16(pseudo + 2, (uint16_t)length);
		sum = onvm_checksum_add(0, ends, 2 * address_bytes);
		sum = onvm_checksum_add(sum, pseudo, sizeof(pseudo));
	}
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(sum, l4, length));
	memcpy(l4 + field, &checksum, 2);
}

/* RFC 9293 section 3.5.2: a reset for a port that is closed. */
static void
reset_make(struct onvm_pkt *pkt, const struct onvm_headers *headers, const uint8_t *ends)
{
	const uint32_t size = onvm_address_bytes(headers->ip_version);
	const uint32_t ip_bytes = headers->ip_version == 4 ? 20 : 40;
	const uint8_t *const old = pkt->data + headers->l4_offset;
	uint8_t *const ip = pkt->data + headers->l3_offset;
	const uint8_t flags = headers->tcp_flags;
	const uint32_t length = headers->l4_length - (uint32_t)(old[12] >> 4) * 4 +
				((flags & ONVM_TCP_SYN) != 0) + ((flags & ONVM_TCP_FIN) != 0);
	const uint32_t acknowledged = onvm_load_be32(old + 4) + length;
	uint8_t segment[20] = {old[2], old[3], old[0], old[1]};

	segment[12] = 0x50;
	segment[13] = ONVM_TCP_RST;
	if ((flags & ONVM_TCP_ACK) != 0) {
		memcpy(segment + 4, old + 8, 4);
	} else {
		onvm_store_be32(segment + 8, acknowledged);
		segment[13] |= ONVM_TCP_ACK;
	}
	l4_checksum_fill(segment, 16, ONVM_PROTO_TCP, sizeof(segment), ends, size);
	ip_fill(ip, headers->ip_version, ONVM_PROTO_TCP, sizeof(segment), ends);
	memcpy(ip + ip_bytes, segment, sizeof(segment));
	pkt->length = (uint16_t)(headers->l3_offset + ip_bytes + sizeof(segment));
}

/*
 * RFC 792, RFC 1191, RFC 4443: an error in front of what it quotes, with @p mtu or 0 in its second
 * word. false: there is no headroom.
 */
static bool
error_make(struct onvm_pkt *pkt, const struct onvm_headers *headers, const uint8_t *ends,
	   uint8_t type, uint8_t code, uint16_t mtu)
{
	const bool is_4 = headers->ip_version == 4;
	const uint32_t most = is_4 ? QUOTED4_MAX : QUOTED6_MAX;
	const uint32_t whole = headers->l4_offset + headers->l4_length - headers->l3_offset;
	const uint32_t quoted = whole < most ? whole : most;
	const uint32_t added = is_4 ? 28 : 48;
	const uint8_t protocol = is_4 ? ONVM_PROTO_ICMP : ONVM_PROTO_ICMPV6;
	uint8_t *const old = pkt->data;
	uint8_t *ip, *icmp;

	if (onvm_pkt_push(pkt, (uint16_t)added) == NULL)
		return false;
	memmove(pkt->data, old, headers->l3_offset);
	ip = pkt->data + headers->l3_offset;
	icmp = ip + added - 8;
	memset(icmp, 0, 8);
	icmp[0] = type;
	icmp[1] = code;
	onvm_store_be16(icmp + 6, mtu);
	l4_checksum_fill(icmp, 2, protocol, 8 + quoted, ends,
			 onvm_address_bytes(headers->ip_version));
	ip_fill(ip, headers->ip_version, protocol, 8 + quoted, ends);
	pkt->length = (uint16_t)(headers->l3_offset + added + quoted);
	return true;
}

static void
ends_copy(uint8_t *ends, const uint8_t *data, const struct onvm_headers *headers)
{
	memcpy(ends, data + headers->l3_offset + (headers->ip_version == 4 ? 12 : 8),
	       2 * onvm_address_bytes(headers->ip_version));
}

static bool
answered(struct lb *lb, struct onvm_pkt *pkt, enum lb_counter counter)
{
	swap(pkt->data, pkt->data + 6, 6);
	onvm_pkt_out(pkt, pkt->port);
	lb->counters[counter]++;
	return true;
}

bool
lb_reset(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers)
{
	uint8_t ends[2 * ONVM_ADDRESS_BYTES] = {0};

	if ((headers->tcp_flags & ONVM_TCP_RST) != 0 || !may_answer(lb, pkt->data, headers))
		return false;
	ends_copy(ends, pkt->data, headers);
	reset_make(pkt, headers, ends);
	return answered(lb, pkt, LB_REJECTED);
}

bool
lb_too_big(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers, uint16_t mtu)
{
	const bool is_4 = headers->ip_version == 4;
	uint8_t ends[2 * ONVM_ADDRESS_BYTES] = {0};

	/* Without DF only a fragment would help, which is not made here. */
	if ((is_4 && (pkt->data[headers->l3_offset + 6] & 0x40) == 0) ||
	    onvm_icmp_is_error(pkt->data, headers) || !may_answer(lb, pkt->data, headers))
		return false;
	ends_copy(ends, pkt->data, headers);
	return error_make(pkt, headers, ends, is_4 ? 3 : 2, is_4 ? 4 : 0, mtu) &&
	       answered(lb, pkt, LB_TOO_BIG_ANSWERED);
}

bool
lb_reject(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers)
{
	const bool is_4 = headers->ip_version == 4;
	uint8_t ends[2 * ONVM_ADDRESS_BYTES] = {0};

	if (!lb->config.rejects)
		return false;
	if (headers->protocol == ONVM_PROTO_TCP)
		return lb_reset(lb, pkt, headers);
	if (!may_answer(lb, pkt->data, headers))
		return false;
	ends_copy(ends, pkt->data, headers);
	return error_make(pkt, headers, ends, is_4 ? 3 : 1, is_4 ? 3 : 4, 0) &&
	       answered(lb, pkt, LB_REJECTED);
}
