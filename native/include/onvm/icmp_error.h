/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_ICMP_ERROR_H_
#define _ONVM_ICMP_ERROR_H_

/**
 * @file
 * The packet inside an ICMP or ICMPv6 error.
 *
 * An error carries the IP header and at least the first 8 bytes behind it (RFC 792, RFC 4443) of
 * the packet that caused it, mostly cut off: its length field says more than is there.
 */

#include <onvm/rewrite.h>

/** The embedded packet. Offsets count from the first byte of the frame. */
struct onvm_embedded {
	uint16_t l3_offset;
	uint16_t l4_offset;
	uint16_t l4_length; /**< bytes that are there, at least 8 */
	uint16_t src_port;  /**< host order. ICMP echo: the identifier, in both */
	uint16_t dst_port;
	uint8_t ip_version;
	uint8_t protocol;
};

/** Is it an error about another packet? Redirects are not forwarded. */
static inline bool
onvm_icmp_is_error(const uint8_t *data, const struct onvm_headers *headers)
{
	uint8_t type;

	if (headers->l4_status != ONVM_L4_OK)
		return false;
	type = data[headers->l4_offset];
	if (headers->protocol == ONVM_PROTO_ICMP && headers->ip_version == 4)
		return type == 3 || type == 4 || type == 11 || type == 12;
	return headers->protocol == ONVM_PROTO_ICMPV6 && headers->ip_version == 6 && type >= 1 &&
	       type <= 4;
}

/**
 * Find the transport header inside an error, behind extension and fragment headers of IPv6.
 *
 * @param headers   of the frame; onvm_icmp_is_error() holds
 * @param embedded  its ports are not filled
 * @return false when it is cut off before 8 bytes of the transport header, or is a later fragment
 */
static inline bool
onvm_embedded_locate(const uint8_t *data, const struct onvm_headers *headers,
		     struct onvm_embedded *embedded)
{
	const uint32_t room = headers->l4_length - 8u;
	const uint8_t *const ip = data + headers->l4_offset + 8;
	uint32_t cursor = 40;
	uint8_t protocol;

	if (room < 20 || ip[0] >> 4 != headers->ip_version)
		return false;
	if (headers->ip_version == 4) {
		cursor = (ip[0] & 15) * 4u;
		if (cursor < 20 || (onvm_load_be16(ip + 6) & 0x1fff) != 0)
			return false;
		protocol = ip[9];
	} else {
		if (room < 40)
			return false;
		protocol = ip[6];
		for (uint32_t nb = 0; onvm_ipv6_is_extension(protocol); nb++) {
			if (nb == ONVM_IPV6_EXTENSIONS_MAX || room < cursor + 8)
				return false;
			if (protocol == ONVM_PROTO_FRAGMENT &&
			    (onvm_load_be16(ip + cursor + 2) & 0xfff8) != 0)
				return false;
			const uint32_t step = onvm_ipv6_extension_bytes(protocol, ip + cursor);

			protocol = ip[cursor];
			cursor += step;
		}
	}
	if (room < cursor + 8)
		return false;
	embedded->ip_version = headers->ip_version;
	embedded->protocol = protocol;
	embedded->l3_offset = (uint16_t)(headers->l4_offset + 8);
	embedded->l4_offset = (uint16_t)(embedded->l3_offset + cursor);
	embedded->l4_length = (uint16_t)(room - cursor);
	embedded->src_port = embedded->dst_port = 0;
	return true;
}

/**
 * Read the packet inside an error.
 *
 * @param headers  of the frame; onvm_icmp_is_error() holds
 * @return false when onvm_embedded_locate() fails, or for a protocol without ports or echo
 * identifier
 */
static inline bool
onvm_parse_embedded(const uint8_t *data, const struct onvm_headers *headers,
		    struct onvm_embedded *embedded)
{
	const uint8_t *l4;

	if (!onvm_embedded_locate(data, headers, embedded))
		return false;
	l4 = data + embedded->l4_offset;
	switch (embedded->protocol) {
	case ONVM_PROTO_TCP:
	case ONVM_PROTO_UDP:
	case ONVM_PROTO_UDPLITE:
	case ONVM_PROTO_SCTP:
	case ONVM_PROTO_DCCP:
		embedded->src_port = onvm_load_be16(l4);
		embedded->dst_port = onvm_load_be16(l4 + 2);
		return true;
	case ONVM_PROTO_ICMP:
	case ONVM_PROTO_ICMPV6:
		embedded->src_port = onvm_load_be16(l4 + 4);
		embedded->dst_port = embedded->src_port;
		return onvm_icmp_is_echo(l4, embedded->protocol);
	default:
		return false;
	}
}

/**
 * Replace one end of the embedded packet (IPv4) and keep its checksums and the error's right.
 *
 * @param address  4 bytes, network order
 * @param port     2 bytes, network order; for an echo its identifier
 */
static inline void
onvm_rewrite_embedded(uint8_t *data, const struct onvm_headers *headers,
		      const struct onvm_embedded *embedded, enum onvm_side side,
		      const uint8_t *address, const uint8_t *port)
{
	const bool is_icmp = embedded->protocol == ONVM_PROTO_ICMP;
	const uint32_t l4_checksum = is_icmp ? 2 : onvm_l4_checksum_offset(embedded->protocol);
	uint8_t *const l3 = data + embedded->l3_offset;
	uint8_t *const l4 = data + embedded->l4_offset;
	uint8_t *const old_address = l3 + (side == ONVM_SRC ? 12 : 16);
	uint8_t *const old_port = l4 + (is_icmp ? 4 : side == ONVM_SRC ? 0 : 2);
	const uint64_t address_delta = onvm_checksum_delta(0, old_address, address, 4);
	const uint64_t port_delta = onvm_checksum_delta(0, old_port, port, 2);
	uint64_t outer = address_delta + port_delta;
	uint8_t before[2];

	memcpy(old_address, address, 4);
	memcpy(old_port, port, 2);
	memcpy(before, l3 + 10, 2);
	onvm_checksum_apply(l3 + 10, address_delta);
	outer = onvm_checksum_delta(outer, before, l3 + 10, 2);
	if (l4_checksum != 0 && l4_checksum + 2 <= embedded->l4_length) {
		memcpy(before, l4 + l4_checksum, 2);
		onvm_l4_checksum_apply(l4 + l4_checksum, embedded->protocol,
				       is_icmp ? port_delta : address_delta + port_delta);
		outer = onvm_checksum_delta(outer, before, l4 + l4_checksum, 2);
	}
	onvm_checksum_apply(data + headers->l4_offset + 2, outer);
}

#endif /* _ONVM_ICMP_ERROR_H_ */
