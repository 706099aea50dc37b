/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_ANSWER_H_
#define _ONVM_ANSWER_H_

/**
 * @file
 * Answers to packets that an NF refuses, made in the buffer of what they answer: TCP resets and
 * ICMP errors. They are whole: addresses exchanged, all checksums made.
 *
 * The caller decides whether an answer is allowed (RFC 1122 3.2.2, RFC 4443 2.4): never to another
 * error, to a later fragment, or to what was sent to or from more than one host.
 */

#include <onvm/nf.h>
#include <onvm/rewrite.h>
#include <onvm/tcp_track.h>

#define ONVM_ANSWER_TTL 64
#define ONVM_ANSWER_QUOTED4_MAX 548u  /**< RFC 1812 4.3.2.3: 576 bytes in all */
#define ONVM_ANSWER_QUOTED6_MAX 1232u /**< RFC 4443 2.4: 1280 bytes in all */

/** Source and destination of a packet, one behind the other; zeros behind those of IPv4. */
static inline void
onvm_answer_ends(uint8_t ends[2 * ONVM_ADDRESS_BYTES], const uint8_t *data,
		 const struct onvm_headers *headers)
{
	memset(ends, 0, 2 * ONVM_ADDRESS_BYTES);
	memcpy(ends, data + headers->l3_offset + (headers->ip_version == 4 ? 12 : 8),
	       2 * onvm_address_bytes(headers->ip_version));
}

/** An IP header at @p ip, from the destination of @p ends to their source. */
static inline void
onvm_answer_ip(uint8_t *ip, uint8_t ip_version, uint8_t protocol, uint32_t l4_length,
	       const uint8_t *ends)
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
		ip[7] = ONVM_ANSWER_TTL;
		return;
	}
	ip[0] = 0x45;
	onvm_store_be16(ip + 2, (uint16_t)(20 + l4_length));
	ip[6] = 0x40; /* don't fragment, so it needs no identification */
	ip[8] = ONVM_ANSWER_TTL;
	ip[9] = protocol;
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, ip, 20));
	memcpy(ip + 10, &checksum, 2);
}

/** The whole checksum of a transport header at @p l4, whose field at @p field is 0. */
static inline void
onvm_answer_checksum(uint8_t *l4, uint32_t field, uint8_t protocol, uint32_t length,
		     const uint8_t *ends, uint8_t ip_version)
{
	uint8_t pseudo[4] = {0, protocol};
	uint64_t sum = 0;
	uint16_t checksum;

	if (protocol != ONVM_PROTO_ICMP) {
		onvm_store_be16(pseudo + 2, (uint16_t)length);
		sum = onvm_checksum_add(0, ends, 2 * onvm_address_bytes(ip_version));
		sum = onvm_checksum_add(sum, pseudo, sizeof(pseudo));
	}
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(sum, l4, length));
	memcpy(l4 + field, &checksum, 2);
}

/**
 * Make the packet the reset that a closed port answers to a segment (RFC 9293 3.10.7.1).
 *
 * @param headers  of a TCP segment with a whole header, which is no reset
 */
static inline void
onvm_answer_reset(struct onvm_pkt *pkt, const struct onvm_headers *headers)
{
	const uint32_t ip_bytes = headers->ip_version == 4 ? 20 : 40;
	const uint8_t *const old = pkt->data + headers->l4_offset;
	uint8_t *const ip = pkt->data + headers->l3_offset;
	const uint8_t flags = headers->tcp_flags;
	const uint32_t taken = headers->l4_length - (uint32_t)(old[12] >> 4) * 4 +
			       ((flags & ONVM_TCP_SYN) != 0) + ((flags & ONVM_TCP_FIN) != 0);
	uint8_t segment[20] = {old[2], old[3], old[0], old[1]};
	uint8_t ends[2 * ONVM_ADDRESS_BYTES];

	onvm_answer_ends(ends, pkt->data, headers);
	segment[12] = 0x50;
	segment[13] = ONVM_TCP_RST;
	if ((flags & ONVM_TCP_ACK) != 0) {
		memcpy(segment + 4, old + 8, 4);
	} else {
		onvm_store_be32(segment + 8, onvm_load_be32(old + 4) + taken);
		segment[13] |= ONVM_TCP_ACK;
	}
	onvm_answer_checksum(segment, 16, ONVM_PROTO_TCP, sizeof(segment), ends,
			     headers->ip_version);
	onvm_answer_ip(ip, headers->ip_version, ONVM_PROTO_TCP, sizeof(segment), ends);
	memcpy(ip + ip_bytes, segment, sizeof(segment));
	pkt->length = (uint16_t)(headers->l3_offset + ip_bytes + sizeof(segment));
}

/**
 * The IP and ICMP headers of an error at @p ip, in front of @p quoted bytes that lie there already.
 *
 * @param ends  source and destination of the packet that is quoted; the error goes the other way
 * @param mtu   the last 16 bits of the second word: the MTU of "too big", else 0
 */
static inline void
onvm_answer_error_headers(uint8_t *ip, uint8_t ip_version, const uint8_t *ends, uint32_t quoted,
			  uint8_t type, uint8_t code, uint16_t mtu)
{
	const bool is_4 = ip_version == 4;
	const uint8_t protocol = is_4 ? ONVM_PROTO_ICMP : ONVM_PROTO_ICMPV6;
	uint8_t *const icmp = ip + (is_4 ? 20 : 40);

	memset(icmp, 0, 8);
	icmp[0] = type;
	icmp[1] = code;
	onvm_store_be16(icmp + 6, mtu);
	onvm_answer_checksum(icmp, 2, protocol, 8 + quoted, ends, ip_version);
	onvm_answer_ip(ip, ip_version, protocol, 8 + quoted, ends);
}

/** Bytes that onvm_answer_error() needs in front of a packet. */
static inline uint32_t
onvm_answer_error_bytes(const struct onvm_headers *headers)
{
	return headers->ip_version == 4 ? 28 : 48;
}

/**
 * Put an ICMP or ICMPv6 error in front of the packet that it quotes (RFC 792, RFC 1191, RFC 4443).
 *
 * @param mtu  as above
 * @return false when there is no headroom; then nothing has changed
 */
static inline bool
onvm_answer_error(struct onvm_pkt *pkt, const struct onvm_headers *headers, uint8_t type,
		  uint8_t code, uint16_t mtu)
{
	const bool is_4 = headers->ip_version == 4;
	const uint32_t most = is_4 ? ONVM_ANSWER_QUOTED4_MAX : ONVM_ANSWER_QUOTED6_MAX;
	const uint32_t whole = headers->l4_offset + headers->l4_length - headers->l3_offset;
	const uint32_t quoted = whole < most ? whole : most;
	const uint32_t added = onvm_answer_error_bytes(headers);
	uint8_t *const old = pkt->data;
	uint8_t ends[2 * ONVM_ADDRESS_BYTES];

	onvm_answer_ends(ends, old, headers);
	if (onvm_pkt_push(pkt, (uint16_t)added) == NULL)
		return false;
	memmove(pkt->data, old, headers->l3_offset);
	onvm_answer_error_headers(pkt->data + headers->l3_offset, headers->ip_version, ends, quoted,
				  type, code, mtu);
	pkt->length = (uint16_t)(headers->l3_offset + added + quoted);
	return true;
}

/** Exchange the MAC addresses, and let the packet leave by the port that it came in by. */
static inline void
onvm_answer_send_back(struct onvm_pkt *pkt)
{
	uint8_t mac[6];

	memcpy(mac, pkt->data, 6);
	memcpy(pkt->data, pkt->data + 6, 6);
	memcpy(pkt->data + 6, mac, 6);
	onvm_pkt_out(pkt, pkt->port);
}

#endif /* _ONVM_ANSWER_H_ */
