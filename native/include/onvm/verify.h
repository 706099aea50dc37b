/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_VERIFY_H_
#define _ONVM_VERIFY_H_

/**
 * @file
 * Checking the checksums of a parsed frame. It is separate from parsing because no hop needs it.
 */

#include <onvm/parse.h>

enum onvm_checksum_status {
	ONVM_SUM_OK = 0,
	ONVM_SUM_BAD = 1,
	ONVM_SUM_ABSENT = 2, /**< UDP over IPv4 without a checksum */
	ONVM_SUM_UNKNOWN =
		3, /**< a fragment, a cut header, a protocol without a ones' complement sum */
};

/** The IPv4 header's checksum; ONVM_SUM_UNKNOWN for anything else. */
static inline enum onvm_checksum_status
onvm_verify_l3(const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t *ip = data + headers->l3_offset;

	if (headers->ip_version != 4)
		return ONVM_SUM_UNKNOWN;
	return onvm_checksum_fold(onvm_checksum_add(0, ip, (ip[0] & 15) * 4u)) == 0xffff ?
		       ONVM_SUM_OK :
		       ONVM_SUM_BAD;
}

/**
 * Sum of the IPv6 addresses of the pseudo-header: the final destination of a routing header
 * (RFC 8200 8.1) and the home address of a mobile node (RFC 6275 6.3) stand for those on the wire.
 */
static inline uint64_t
onvm_verify_addresses6(const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t *ip = data + headers->l3_offset;
	const uint8_t *src = ip + 8, *dst = ip + 24;
	uint32_t cursor = headers->l3_offset + 40u;
	uint8_t next = ip[6];

	while (cursor + 8 <= headers->l4_offset) {
		const uint8_t *header = data + cursor;
		const uint32_t bytes = next == ONVM_PROTO_FRAGMENT ? 8 :
				       next == ONVM_PROTO_AH	   ? (header[1] + 2u) * 4 :
								     (header[1] + 1u) * 8;

		if (next == ONVM_PROTO_ROUTING && header[3] != 0 && bytes >= 24) {
			if (header[2] == 4) /* segments are listed backwards (RFC 8754 2) */
				dst = header + 8;
			else if (header[2] == 0 || header[2] == 2)
				dst = header + bytes - 16;
		} else if (next == ONVM_PROTO_DSTOPTS) {
			for (uint32_t at = 2; at + 2 <= bytes;
			     at += header[at] == 0 ? 1 : header[at + 1] + 2u)
				if (header[at] == 201 && header[at + 1] == 16 && at + 18 <= bytes)
					src = header + at + 2;
		}
		next = header[0];
		cursor += bytes;
	}
	return onvm_checksum_add(onvm_checksum_add(0, src, 16), dst, 16);
}

/** The checksum of TCP, UDP, ICMP and ICMPv6. */
static inline enum onvm_checksum_status
onvm_verify_l4(const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t *ip = data + headers->l3_offset;
	const uint8_t *l4 = data + headers->l4_offset;
	const uint8_t pseudo[2] = {0, headers->protocol};
	uint32_t length = headers->l4_length;
	uint8_t length_be[2];
	uint64_t sum = 0;

	if (headers->l4_status != ONVM_L4_OK || onvm_headers_is_fragment(headers))
		return ONVM_SUM_UNKNOWN;
	switch (headers->protocol) {
	case ONVM_PROTO_TCP:
	case ONVM_PROTO_ICMPV6:
	case ONVM_PROTO_ICMP:
		break;
	case ONVM_PROTO_UDP:
		if (l4[6] == 0 && l4[7] == 0)
			return headers->ip_version == 4 ? ONVM_SUM_ABSENT : ONVM_SUM_BAD;
		length = onvm_load_be16(l4 + 4);
		break;
	default:
		return ONVM_SUM_UNKNOWN;
	}
	if (headers->protocol != ONVM_PROTO_ICMP) {
		sum = headers->ip_version == 4 ? onvm_checksum_add(0, ip + 12, 8) :
						 onvm_verify_addresses6(data, headers);
		onvm_store_be16(length_be, (uint16_t)length);
		sum = onvm_checksum_add(sum, pseudo, 2);
		sum = onvm_checksum_add(sum, length_be, 2);
	}
	sum = onvm_checksum_add(sum, l4, length);
	return onvm_checksum_fold(sum) == 0xffff ? ONVM_SUM_OK : ONVM_SUM_BAD;
}

#endif /* _ONVM_VERIFY_H_ */
