/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PARSE_H_
#define _ONVM_PARSE_H_

/**
 * @file
 * Header parsing with a cursor that knows its end.
 *
 * One reading of a frame for the whole platform: the manager's classifier, the columns of the
 * SDK and the plugins use this file. Nothing is read before its protocol and length are known.
 *
 * Ethernet, up to ONVM_VLANS_MAX VLAN tags (802.1Q, 802.1ad, 0x9100, 0x9200), IPv4 with
 * options, IPv6 with hop-by-hop, routing, destination, mobility, HIP, shim6 and authentication
 * headers and fragments, then TCP, UDP, UDP-Lite, SCTP, DCCP, ICMP and ICMPv6.
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <onvm/checksum.h>

#define ONVM_VLANS_MAX 4
#define ONVM_IPV6_EXTENSIONS_MAX 16

#define ONVM_ETHERTYPE_IPV4 0x0800
#define ONVM_ETHERTYPE_IPV6 0x86dd

enum onvm_protocol {
	ONVM_PROTO_HOPOPTS = 0,
	ONVM_PROTO_ICMP = 1,
	ONVM_PROTO_TCP = 6,
	ONVM_PROTO_UDP = 17,
	ONVM_PROTO_DCCP = 33,
	ONVM_PROTO_ROUTING = 43,
	ONVM_PROTO_FRAGMENT = 44,
	ONVM_PROTO_ESP = 50,
	ONVM_PROTO_AH = 51,
	ONVM_PROTO_ICMPV6 = 58,
	ONVM_PROTO_NONE = 59,
	ONVM_PROTO_DSTOPTS = 60,
	ONVM_PROTO_SCTP = 132,
	ONVM_PROTO_MOBILITY = 135,
	ONVM_PROTO_UDPLITE = 136,
	ONVM_PROTO_HIP = 139,
	ONVM_PROTO_SHIM6 = 140,
};

/** State of the network layer. */
enum onvm_l3_status {
	ONVM_L3_OK = 0,
	ONVM_L3_NONIP = 1, /**< another EtherType, or no whole Ethernet header */
	ONVM_L3_SHORT = 2, /**< the frame ends inside the header */
	ONVM_L3_BAD_VERSION = 3,
	ONVM_L3_BAD_IHL = 4,	/**< IPv4 header length below 20 bytes */
	ONVM_L3_BAD_LENGTH = 5, /**< the length field is below the header's or past the frame */
};

/** State of the transport layer; meaningful only with ONVM_L3_OK. */
enum onvm_l4_status {
	ONVM_L4_OK = 0,		/**< TCP, UDP, UDP-Lite, SCTP, DCCP, ICMP or ICMPv6, whole header */
	ONVM_L4_NONE = 1,	/**< another protocol: no ports known */
	ONVM_L4_SHORT = 2,	/**< the packet ends inside the header */
	ONVM_L4_FRAGMENT = 3,	/**< not the first fragment: no transport header here */
	ONVM_L4_BAD_HEADER = 4, /**< its own length field is impossible */
};

/** One frame's headers. Offsets count from the first byte of the frame. */
struct onvm_headers {
	uint16_t ethertype; /**< behind the VLAN tags */
	uint16_t l3_offset;
	uint16_t l4_offset;	  /**< where the transport header is, or would be */
	uint16_t l4_length;	  /**< bytes from l4_offset to the end of the IP packet */
	uint16_t src_port;	  /**< host order; 0 without ports. ICMP: type * 256 + code */
	uint16_t dst_port;	  /**< host order; 0 without ports. ICMP echo: identifier */
	uint16_t fragment_offset; /**< bytes */
	uint16_t fragment_header; /**< offset of IPv6's fragment header; 0: there is none */
	uint8_t nb_vlans;
	uint8_t ip_version; /**< 4, 6, or 0 when not IP */
	uint8_t protocol;   /**< transport protocol, behind IPv6 extension headers */
	uint8_t tcp_flags;
	uint8_t l3_status; /**< enum onvm_l3_status */
	uint8_t l4_status; /**< enum onvm_l4_status */
	bool more_fragments;
	bool has_ports; /**< src_port and dst_port are those of a transport header */
	uint16_t vlan_tci[ONVM_VLANS_MAX]; /**< host order, outermost first */
};

static inline bool
onvm_headers_is_fragment(const struct onvm_headers *headers)
{
	return headers->more_fragments || headers->fragment_offset != 0;
}

static inline bool
onvm_ethertype_is_vlan(uint16_t ethertype)
{
	return ethertype == 0x8100 || ethertype == 0x88a8 || ethertype == 0x9100 ||
	       ethertype == 0x9200;
}

/** Whether the ICMP or ICMPv6 message at @p l4 is an echo request or reply. */
static inline bool
onvm_icmp_is_echo(const uint8_t *l4, uint8_t protocol)
{
	return protocol == ONVM_PROTO_ICMP ? l4[0] == 8 || l4[0] == 0 :
					     l4[0] == 128 || l4[0] == 129;
}

/** Whether the transport header of a protocol begins with two ports. */
static inline bool
onvm_protocol_has_ports(uint8_t protocol)
{
	switch (protocol) {
	case ONVM_PROTO_TCP:
	case ONVM_PROTO_UDP:
	case ONVM_PROTO_DCCP:
	case ONVM_PROTO_SCTP:
	case ONVM_PROTO_UDPLITE:
		return true;
	default:
		return false;
	}
}

/** Whether a next header of IPv6 names an extension header that can be walked over, or a fragment's. */
static inline bool
onvm_ipv6_is_extension(uint8_t next)
{
	switch (next) {
	case ONVM_PROTO_HOPOPTS:
	case ONVM_PROTO_ROUTING:
	case ONVM_PROTO_FRAGMENT:
	case ONVM_PROTO_AH:
	case ONVM_PROTO_DSTOPTS:
	case ONVM_PROTO_MOBILITY:
	case ONVM_PROTO_HIP:
	case ONVM_PROTO_SHIM6:
		return true;
	default:
		return false;
	}
}

/** Bytes of the extension header @p header, of which 2 may be read. */
static inline uint32_t
onvm_ipv6_extension_bytes(uint8_t next, const uint8_t *header)
{
	if (next == ONVM_PROTO_FRAGMENT)
		return 8;
	return next == ONVM_PROTO_AH ? (header[1] + 2u) * 4 : (header[1] + 1u) * 8;
}

/** Transport header between @p offset and @p end (exclusive). */
static inline void
onvm_parse_l4(const uint8_t *data, uint32_t offset, uint32_t end, struct onvm_headers *headers)
{
	const uint8_t *l4 = data + offset;
	const uint32_t length = end - offset;

	headers->l4_offset = (uint16_t)offset;
	headers->l4_length = (uint16_t)length;
	if (headers->fragment_offset != 0) {
		headers->l4_status = ONVM_L4_FRAGMENT;
		return;
	}
	switch (headers->protocol) {
	case ONVM_PROTO_TCP:
		if (length < 20) {
			headers->l4_status = ONVM_L4_SHORT;
			break;
		}
		headers->tcp_flags = l4[13];
		headers->l4_status = (l4[12] >> 4) < 5 || ((l4[12] >> 4) * 4u > length &&
							   !headers->more_fragments) ?
					     ONVM_L4_BAD_HEADER :
					     ONVM_L4_OK;
		headers->has_ports = true;
		break;
	case ONVM_PROTO_UDP:
	case ONVM_PROTO_UDPLITE:
		if (length < 8) {
			headers->l4_status = ONVM_L4_SHORT;
			break;
		}
		headers->l4_status = ONVM_L4_OK;
		if (headers->protocol == ONVM_PROTO_UDP && !headers->more_fragments &&
		    (onvm_load_be16(l4 + 4) < 8 || onvm_load_be16(l4 + 4) > length))
			headers->l4_status = ONVM_L4_BAD_HEADER;
		headers->has_ports = true;
		break;
	case ONVM_PROTO_SCTP:
	case ONVM_PROTO_DCCP:
		headers->l4_status = length < 12 ? ONVM_L4_SHORT : ONVM_L4_OK;
		headers->has_ports = length >= 12;
		break;
	case ONVM_PROTO_ICMP:
	case ONVM_PROTO_ICMPV6:
		if (length < 8) {
			headers->l4_status = ONVM_L4_SHORT;
			break;
		}
		headers->l4_status = ONVM_L4_OK;
		headers->src_port = onvm_load_be16(l4);
		if (onvm_icmp_is_echo(l4, headers->protocol))
			headers->dst_port = onvm_load_be16(l4 + 4);
		break;
	default:
		headers->l4_status = ONVM_L4_NONE;
		break;
	}
	if (headers->has_ports) {
		headers->src_port = onvm_load_be16(l4);
		headers->dst_port = onvm_load_be16(l4 + 2);
	}
}

/** IPv4 at @p offset of a frame of @p length bytes. */
static inline void
onvm_parse_ipv4(const uint8_t *data, uint32_t offset, uint32_t length, struct onvm_headers *headers)
{
	const uint8_t *ip = data + offset;
	const uint32_t room = length - offset;
	uint32_t header_length, total_length;
	uint16_t fragment;

	if (room < 1) {
		headers->l3_status = ONVM_L3_SHORT;
		return;
	}
	if (ip[0] >> 4 != 4) {
		headers->l3_status = ONVM_L3_BAD_VERSION;
		return;
	}
	if (room < 20) {
		headers->l3_status = ONVM_L3_SHORT;
		return;
	}
	header_length = (ip[0] & 15) * 4u;
	total_length = onvm_load_be16(ip + 2);
	if (header_length < 20) {
		headers->l3_status = ONVM_L3_BAD_IHL;
		return;
	}
	if (header_length > room) {
		headers->l3_status = ONVM_L3_SHORT;
		return;
	}
	if (total_length < header_length || total_length > room) {
		headers->l3_status = ONVM_L3_BAD_LENGTH;
		return;
	}
	headers->ip_version = 4;
	headers->protocol = ip[9];
	fragment = onvm_load_be16(ip + 6);
	headers->more_fragments = (fragment & 0x2000) != 0;
	headers->fragment_offset = (uint16_t)((fragment & 0x1fff) * 8);
	onvm_parse_l4(data, offset + header_length, offset + total_length, headers);
}

/** IPv6 at @p offset of a frame of @p length bytes. */
static inline void
onvm_parse_ipv6(const uint8_t *data, uint32_t offset, uint32_t length, struct onvm_headers *headers)
{
	const uint8_t *ip = data + offset;
	const uint32_t room = length - offset;
	uint32_t cursor, end, step;
	uint8_t next;

	if (room < 1) {
		headers->l3_status = ONVM_L3_SHORT;
		return;
	}
	if (ip[0] >> 4 != 6) {
		headers->l3_status = ONVM_L3_BAD_VERSION;
		return;
	}
	if (room < 40) {
		headers->l3_status = ONVM_L3_SHORT;
		return;
	}
	end = offset + 40 + onvm_load_be16(ip + 4);
	if (end > length) {
		headers->l3_status = ONVM_L3_BAD_LENGTH;
		return;
	}
	headers->ip_version = 6;
	next = ip[6];
	cursor = offset + 40;
	for (int nb = 0; nb <= ONVM_IPV6_EXTENSIONS_MAX; nb++) {
		switch (next) {
		case ONVM_PROTO_HOPOPTS:
		case ONVM_PROTO_ROUTING:
		case ONVM_PROTO_DSTOPTS:
		case ONVM_PROTO_MOBILITY:
		case ONVM_PROTO_HIP:
		case ONVM_PROTO_SHIM6:
		case ONVM_PROTO_AH:
			step = end - cursor < 8	     ? 0 :
			       next == ONVM_PROTO_AH ? (data[cursor + 1] + 2u) * 4 :
						       (data[cursor + 1] + 1u) * 8;
			break;
		case ONVM_PROTO_FRAGMENT:
			step = end - cursor < 8 ? 0 : 8;
			if (step != 0) {
				const uint16_t fragment = onvm_load_be16(data + cursor + 2);

				headers->fragment_header = (uint16_t)cursor;
				headers->more_fragments = (fragment & 1) != 0;
				headers->fragment_offset = fragment & 0xfff8;
			}
			break;
		default:
			headers->protocol = next;
			onvm_parse_l4(data, cursor, end, headers);
			return;
		}
		if (step == 0 || step > end - cursor || nb == ONVM_IPV6_EXTENSIONS_MAX) {
			if (step != 0)
				next = data[cursor];
			break;
		}
		/* Mobility ends the chain when its own next header says "none" (RFC 6275 6.1.1). */
		next = data[cursor];
		cursor += step;
		if (headers->fragment_offset != 0) {
			headers->protocol = next;
			onvm_parse_l4(data, cursor, end, headers);
			return;
		}
	}
	headers->protocol = next;
	headers->l4_offset = (uint16_t)cursor;
	headers->l4_status = ONVM_L4_SHORT;
}

/**
 * Read the headers of a frame.
 *
 * @param data    the frame, from its Ethernet header
 * @param length  bytes of it; all of them may be read
 * @return @p headers->l3_status
 */
static inline enum onvm_l3_status
onvm_parse(const uint8_t *data, uint32_t length, struct onvm_headers *headers)
{
	uint32_t offset = 14;

	memset(headers, 0, sizeof(*headers));
	headers->l4_status = ONVM_L4_NONE;
	if (length < 14) {
		headers->l3_status = ONVM_L3_NONIP;
		return ONVM_L3_NONIP;
	}
	headers->ethertype = onvm_load_be16(data + 12);
	while (onvm_ethertype_is_vlan(headers->ethertype) && headers->nb_vlans < ONVM_VLANS_MAX) {
		if (length - offset < 4) {
			headers->l3_status = ONVM_L3_SHORT;
			return ONVM_L3_SHORT;
		}
		headers->vlan_tci[headers->nb_vlans++] = onvm_load_be16(data + offset);
		headers->ethertype = onvm_load_be16(data + offset + 2);
		offset += 4;
	}
	headers->l3_offset = (uint16_t)offset;
	headers->l4_offset = (uint16_t)offset;
	if (headers->ethertype == ONVM_ETHERTYPE_IPV4)
		onvm_parse_ipv4(data, offset, length, headers);
	else if (headers->ethertype == ONVM_ETHERTYPE_IPV6)
		onvm_parse_ipv6(data, offset, length, headers);
	else
		headers->l3_status = ONVM_L3_NONIP;
	return (enum onvm_l3_status)headers->l3_status;
}

#endif /* _ONVM_PARSE_H_ */
