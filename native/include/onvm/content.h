/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CONTENT_H_
#define _ONVM_CONTENT_H_

/**
 * @file
 * The payload of a parsed frame, and checksums made from its bytes.
 *
 * An NF that writes into a payload, or changes a length, makes the checksums again with
 * onvm_checksums_make(). One that writes header fields does not need that: onvm/fields.h and
 * onvm/rewrite.h keep them right.
 */

#include <onvm/verify.h>

/** Bytes of a frame that belong to nothing we know a header of. */
struct onvm_payload {
	uint16_t offset; /**< from the first byte of the frame */
	uint16_t length;
};

/** Bytes of a transport header, at most @p length. */
static inline uint32_t
onvm_transport_bytes(const uint8_t *l4, uint8_t protocol, uint32_t length)
{
	uint32_t bytes;

	switch (protocol) {
	case ONVM_PROTO_TCP:
		bytes = (l4[12] >> 4) * 4u;
		break;
	case ONVM_PROTO_DCCP:
		bytes = l4[4] * 4u;
		break;
	case ONVM_PROTO_SCTP:
		bytes = 12;
		break;
	case ONVM_PROTO_UDP:
	case ONVM_PROTO_UDPLITE:
	case ONVM_PROTO_ICMP:
	case ONVM_PROTO_ICMPV6:
		bytes = 8;
		break;
	default:
		bytes = 0;
		break;
	}
	return bytes < length ? bytes : length;
}

/**
 * Where the payload of a frame is: behind the transport header; without one behind the IP headers;
 * without IP behind the EtherType. Bytes behind the IP packet (padding of the frame) are not in it.
 */
static inline struct onvm_payload
onvm_payload_of(const uint8_t *data, uint32_t length, const struct onvm_headers *headers)
{
	const uint8_t *l4 = data + headers->l4_offset;
	uint32_t bytes, rest;

	if (length < 14)
		return (struct onvm_payload){0, 0};
	if (headers->ip_version == 0) {
		bytes = headers->l3_offset > 14 ? headers->l3_offset : 14;
		return (struct onvm_payload){(uint16_t)bytes, (uint16_t)(length - bytes)};
	}
	if (headers->l4_status == ONVM_L4_SHORT)
		return (struct onvm_payload){headers->l4_offset, 0};
	if (headers->l4_status != ONVM_L4_OK && headers->l4_status != ONVM_L4_BAD_HEADER)
		return (struct onvm_payload){headers->l4_offset, headers->l4_length};
	bytes = onvm_transport_bytes(l4, headers->protocol, headers->l4_length);
	rest = headers->l4_length - bytes;
	if (headers->protocol == ONVM_PROTO_UDP && headers->l4_status == ONVM_L4_OK &&
	    onvm_load_be16(l4 + 4) >= 8 && onvm_load_be16(l4 + 4) - 8u < rest)
		rest = onvm_load_be16(l4 + 4) - 8u;
	return (struct onvm_payload){(uint16_t)(headers->l4_offset + bytes), (uint16_t)rest};
}

/** CRC32c (RFC 9260 appendix A), four bits at a time: SCTP is rare, and a table small. */
static inline uint32_t
onvm_crc32c(const uint8_t *data, uint32_t length)
{
	static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
					   0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
					   0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
					   0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
	uint32_t crc = UINT32_MAX;

	for (uint32_t i = 0; i < length; i++) {
		crc ^= data[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

/** Sum of the pseudo-header, unfolded. */
static inline uint64_t
onvm_pseudo_sum(const uint8_t *data, const struct onvm_headers *headers, uint32_t length)
{
	const uint8_t pseudo[2] = {0, headers->protocol};
	uint8_t length_be[2];
	uint64_t sum;

	onvm_store_be16(length_be, (uint16_t)length);
	sum = headers->ip_version == 4 ? onvm_checksum_add(0, data + headers->l3_offset + 12, 8) :
					 onvm_verify_addresses6(data, headers);
	return onvm_checksum_add(onvm_checksum_add(sum, pseudo, 2), length_be, 2);
}

/** Store the ones' complement sum of a transport packet into the field at @p offset. */
static inline void
onvm_transport_checksum_make(uint8_t *l4, uint32_t length, uint32_t offset, uint64_t pseudo_sum)
{
	uint16_t checksum = 0;

	memcpy(l4 + offset, &checksum, 2);
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(pseudo_sum, l4, length));
	memcpy(l4 + offset, &checksum, 2);
}

/**
 * Make the checksums of a frame from its bytes: of IPv4, TCP, UDP, ICMP, ICMPv6 and SCTP.
 *
 * A transport checksum of a fragment, or of a header that is cut or contradicts itself, stays.
 *
 * @param with_transport  false: of IPv4 alone, as of a packet with ONVM_F_PARTIAL
 */
static inline void
onvm_checksums_make(uint8_t *data, const struct onvm_headers *headers, bool with_transport)
{
	uint8_t *ip = data + headers->l3_offset;
	uint8_t *l4 = data + headers->l4_offset;
	uint32_t length = headers->l4_length, crc;

	if (headers->ip_version == 4)
		onvm_transport_checksum_make(ip, (ip[0] & 15) * 4u, 10, 0);
	if (headers->ip_version == 0 || !with_transport || headers->l4_status != ONVM_L4_OK ||
	    onvm_headers_is_fragment(headers))
		return;
	switch (headers->protocol) {
	case ONVM_PROTO_TCP:
		onvm_transport_checksum_make(l4, length, 16,
					     onvm_pseudo_sum(data, headers, length));
		break;
	case ONVM_PROTO_UDP:
		length = onvm_load_be16(l4 + 4);
		onvm_transport_checksum_make(l4, length, 6, onvm_pseudo_sum(data, headers, length));
		if (l4[6] == 0 && l4[7] == 0) /* which would say that there is none */
			onvm_store_be16(l4 + 6, 0xffff);
		break;
	case ONVM_PROTO_ICMP:
		onvm_transport_checksum_make(l4, length, 2, 0);
		break;
	case ONVM_PROTO_ICMPV6:
		onvm_transport_checksum_make(l4, length, 2, onvm_pseudo_sum(data, headers, length));
		break;
	case ONVM_PROTO_SCTP:
		onvm_store_be32(l4 + 8, 0);
		crc = htole32(onvm_crc32c(l4, length));
		memcpy(l4 + 8, &crc, 4);
		break;
	default:
		break;
	}
}

#endif /* _ONVM_CONTENT_H_ */
