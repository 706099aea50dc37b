/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIELDS_H_
#define _ONVM_FIELDS_H_

/**
 * @file
 * The header fields of a packet by name: one table for columns, packet views and kernels.
 *
 * A *layout* says where the headers of one packet are; a *field* says where a value lies in its
 * header and which checksums cover it. A field of a header that the packet does not have reads 0
 * and is never written. A store keeps checksums right incrementally (RFC 1624, equation 3):
 *
 *  - IPv4 fields: the IPv4 header checksum;
 *  - addresses: the transport checksum as well, where it covers a pseudo-header;
 *  - TCP, UDP and ICMP fields: the transport checksum.
 *
 * A UDP checksum of zero ("none") stays zero; one that becomes zero is sent as 0xffff (RFC 768).
 * A fragment that is not the first has no transport header. Storing a checksum field stores just
 * that: an author uses that to override it.
 */

#include <stdint.h>
#include <string.h>

#include <onvm/nf.h>
#include <onvm/parse.h>

#define ONVM_FIELD_INLINE inline __attribute__((always_inline))

enum onvm_header {
	ONVM_H_ETH = 0,	 /**< at the frame's first byte */
	ONVM_H_VLAN = 1, /**< the outermost tag */
	ONVM_H_IPV4 = 2,
	ONVM_H_IPV6 = 3,
	ONVM_H_TCP = 4,
	ONVM_H_UDP = 5,
	ONVM_H_ICMP = 6,     /**< ICMP and ICMPv6 */
	ONVM_H_TYPE = 7,     /**< the EtherType behind all VLAN tags */
	ONVM_H_FRAGMENT = 8, /**< no header, but a bit of onvm_layout.flags: an IP fragment */
	ONVM_H_REVERSE = 9,  /**< likewise: ONVM_F_REVERSE */
	ONVM_H_PSEUDO = 10,  /**< likewise: the transport checksum covers the addresses */
	ONVM_H_PORTS = 11,   /**< likewise: the transport header begins with two ports */
	/* Headers that are looked for when they are used (onvm/rare.h); no bits of a layout. */
	ONVM_H_ARP = 16,   /**< for IPv4 over Ethernet */
	ONVM_H_MPLS = 17,  /**< the first label */
	ONVM_H_PPPOE = 18, /**< discovery and session */
	ONVM_H_SCTP = 19,
	ONVM_H_GRE = 20,
	ONVM_H_VXLAN = 21,  /**< UDP to port 4789 */
	ONVM_H_GENEVE = 22, /**< UDP to port 6081 */
	ONVM_H_GTPU = 23,   /**< UDP to port 2152 */
	ONVM_H_RARE_END = 24,
};

/** Where the headers of one packet are. */
struct onvm_layout {
	uint16_t l3;	     /**< offset of the network header */
	uint16_t l4;	     /**< offset of the transport header */
	uint16_t flags;	     /**< bit h: header h of enum onvm_header is there, as a whole */
	uint8_t protocol;    /**< transport protocol; 0 without IP */
	uint8_t l4_checksum; /**< offset of the checksum in the transport header; 0: none */
};
static_assert(sizeof(struct onvm_layout) == 8, "a layout fits a register");

enum onvm_sums {
	ONVM_SUM_IP = 1,     /**< the IPv4 header checksum covers the field */
	ONVM_SUM_PSEUDO = 2, /**< the transport's pseudo-header covers it */
	ONVM_SUM_L4 = 4,     /**< the transport checksum covers it */
};

/**
 * X(header, name, offset, bytes, shift, bits, sums, writable)
 *
 * `bytes` is the size of the word that holds the field; `shift` and `bits` select from it.
 */
#define ONVM_FIELDS(X)                                               \
	X(ETH, dst, 0, 6, 0, 48, 0, 1)                               \
	X(ETH, src, 6, 6, 0, 48, 0, 1)                               \
	X(TYPE, type, 0, 2, 0, 16, 0, 1)                             \
	X(VLAN, tci, 0, 2, 0, 16, 0, 1)                              \
	X(VLAN, id, 0, 2, 0, 12, 0, 1)                               \
	X(VLAN, priority, 0, 2, 13, 3, 0, 1)                         \
	X(IPV4, header_length, 0, 1, 0, 4, 0, 0)                     \
	X(IPV4, tos, 1, 1, 0, 8, ONVM_SUM_IP, 1)                     \
	X(IPV4, dscp, 1, 1, 2, 6, ONVM_SUM_IP, 1)                    \
	X(IPV4, ecn, 1, 1, 0, 2, ONVM_SUM_IP, 1)                     \
	X(IPV4, total_length, 2, 2, 0, 16, ONVM_SUM_IP, 1)           \
	X(IPV4, id, 4, 2, 0, 16, ONVM_SUM_IP, 1)                     \
	X(IPV4, flags, 6, 1, 5, 3, ONVM_SUM_IP, 1)                   \
	X(IPV4, fragment_offset, 6, 2, 0, 13, ONVM_SUM_IP, 1)        \
	X(IPV4, ttl, 8, 1, 0, 8, ONVM_SUM_IP, 1)                     \
	X(IPV4, protocol, 9, 1, 0, 8, ONVM_SUM_IP, 1)                \
	X(IPV4, checksum, 10, 2, 0, 16, 0, 1)                        \
	X(IPV4, src, 12, 4, 0, 32, ONVM_SUM_IP | ONVM_SUM_PSEUDO, 1) \
	X(IPV4, dst, 16, 4, 0, 32, ONVM_SUM_IP | ONVM_SUM_PSEUDO, 1) \
	X(IPV6, traffic_class, 0, 2, 4, 8, 0, 1)                     \
	X(IPV6, flow_label, 0, 4, 0, 20, 0, 1)                       \
	X(IPV6, payload_length, 4, 2, 0, 16, 0, 1)                   \
	X(IPV6, next_header, 6, 1, 0, 8, 0, 1)                       \
	X(IPV6, hop_limit, 7, 1, 0, 8, 0, 1)                         \
	X(IPV6, src, 8, 16, 0, 128, ONVM_SUM_PSEUDO, 1)              \
	X(IPV6, dst, 24, 16, 0, 128, ONVM_SUM_PSEUDO, 1)             \
	X(IPV6, src_high, 8, 8, 0, 64, ONVM_SUM_PSEUDO, 1)           \
	X(IPV6, src_low, 16, 8, 0, 64, ONVM_SUM_PSEUDO, 1)           \
	X(IPV6, dst_high, 24, 8, 0, 64, ONVM_SUM_PSEUDO, 1)          \
	X(IPV6, dst_low, 32, 8, 0, 64, ONVM_SUM_PSEUDO, 1)           \
	X(TCP, src_port, 0, 2, 0, 16, ONVM_SUM_L4, 1)                \
	X(TCP, dst_port, 2, 2, 0, 16, ONVM_SUM_L4, 1)                \
	X(TCP, seq, 4, 4, 0, 32, ONVM_SUM_L4, 1)                     \
	X(TCP, ack, 8, 4, 0, 32, ONVM_SUM_L4, 1)                     \
	X(TCP, data_offset, 12, 1, 4, 4, 0, 0)                       \
	X(TCP, flags, 13, 1, 0, 8, ONVM_SUM_L4, 1)                   \
	X(TCP, window, 14, 2, 0, 16, ONVM_SUM_L4, 1)                 \
	X(TCP, checksum, 16, 2, 0, 16, 0, 1)                         \
	X(TCP, urgent, 18, 2, 0, 16, ONVM_SUM_L4, 1)                 \
	X(UDP, src_port, 0, 2, 0, 16, ONVM_SUM_L4, 1)                \
	X(UDP, dst_port, 2, 2, 0, 16, ONVM_SUM_L4, 1)                \
	X(UDP, length, 4, 2, 0, 16, ONVM_SUM_L4, 1)                  \
	X(UDP, checksum, 6, 2, 0, 16, 0, 1)                          \
	X(ICMP, type, 0, 1, 0, 8, ONVM_SUM_L4, 1)                    \
	X(ICMP, code, 1, 1, 0, 8, ONVM_SUM_L4, 1)                    \
	X(ICMP, checksum, 2, 2, 0, 16, 0, 1)                         \
	X(ICMP, id, 4, 2, 0, 16, ONVM_SUM_L4, 1)                     \
	X(ICMP, sequence, 6, 2, 0, 16, ONVM_SUM_L4, 1)

/** The fields of headers that are looked for when they are used, as above. */
#define ONVM_RARE_FIELDS(X)                              \
	X(ARP, operation, 6, 2, 0, 16, 0, 1)             \
	X(ARP, sender_mac, 8, 6, 0, 48, 0, 1)            \
	X(ARP, sender_ip, 14, 4, 0, 32, 0, 1)            \
	X(ARP, target_mac, 18, 6, 0, 48, 0, 1)           \
	X(ARP, target_ip, 24, 4, 0, 32, 0, 1)            \
	X(MPLS, label, 0, 4, 12, 20, 0, 1)               \
	X(MPLS, traffic_class, 0, 4, 9, 3, 0, 1)         \
	X(MPLS, bottom, 0, 4, 8, 1, 0, 1)                \
	X(MPLS, ttl, 3, 1, 0, 8, 0, 1)                   \
	X(PPPOE, code, 1, 1, 0, 8, 0, 1)                 \
	X(PPPOE, session, 2, 2, 0, 16, 0, 1)             \
	X(PPPOE, length, 4, 2, 0, 16, 0, 1)              \
	X(SCTP, src_port, 0, 2, 0, 16, 0, 1)             \
	X(SCTP, dst_port, 2, 2, 0, 16, 0, 1)             \
	X(SCTP, tag, 4, 4, 0, 32, 0, 1)                  \
	X(SCTP, checksum, 8, 4, 0, 32, 0, 1)             \
	X(GRE, flags, 0, 2, 0, 16, 0, 1)                 \
	X(GRE, protocol, 2, 2, 0, 16, 0, 1)              \
	X(VXLAN, flags, 0, 1, 0, 8, ONVM_SUM_L4, 1)      \
	X(VXLAN, vni, 4, 4, 8, 24, ONVM_SUM_L4, 1)       \
	X(GENEVE, options, 0, 1, 0, 6, 0, 0)             \
	X(GENEVE, flags, 1, 1, 6, 2, ONVM_SUM_L4, 1)     \
	X(GENEVE, protocol, 2, 2, 0, 16, ONVM_SUM_L4, 1) \
	X(GENEVE, vni, 4, 4, 8, 24, ONVM_SUM_L4, 1)      \
	X(GTPU, flags, 0, 1, 0, 8, ONVM_SUM_L4, 1)       \
	X(GTPU, type, 1, 1, 0, 8, ONVM_SUM_L4, 1)        \
	X(GTPU, length, 2, 2, 0, 16, ONVM_SUM_L4, 1)     \
	X(GTPU, teid, 4, 4, 0, 32, ONVM_SUM_L4, 1)

/** One field of a header. */
struct onvm_field {
	uint8_t header; /**< enum onvm_header */
	uint8_t offset; /**< bytes from the start of the header */
	uint8_t bytes;	/**< 1, 2, 4, 6, 8 or 16 */
	uint8_t shift;
	uint8_t bits;
	uint8_t sums; /**< enum onvm_sums */
	uint8_t is_writable;
};

enum onvm_field_id {
#define ONVM_X(header, name, ...) ONVM_FIELD_##header##_##name,
	ONVM_FIELDS(ONVM_X)
#undef ONVM_X
		ONVM_FIELD_COUNT
};

enum onvm_rare_field_id {
#define ONVM_X(header, name, ...) ONVM_RARE_##header##_##name,
	ONVM_RARE_FIELDS(ONVM_X)
#undef ONVM_X
		ONVM_RARE_COUNT
};

/** Read the headers of a packet the slow, complete way. */
static __attribute__((noinline, unused)) void
onvm_layout_read_any(const uint8_t *data, uint32_t length, struct onvm_layout *layout)
{
	struct onvm_headers headers;
	uint32_t flags = 0;

	onvm_parse(data, length, &headers);
	layout->l3 = headers.l3_offset != 0 ? headers.l3_offset : 14;
	layout->l4 = headers.l4_offset;
	layout->protocol = headers.protocol;
	layout->l4_checksum = 0;
	if (length >= 14)
		flags = 1u << ONVM_H_ETH | 1u << ONVM_H_TYPE;
	if (headers.nb_vlans != 0)
		flags |= 1u << ONVM_H_VLAN;
	if (headers.ip_version != 0)
		flags |= headers.ip_version == 4 ? 1u << ONVM_H_IPV4 : 1u << ONVM_H_IPV6;
	if (onvm_headers_is_fragment(&headers))
		flags |= 1u << ONVM_H_FRAGMENT;
	if (headers.has_ports)
		flags |= 1u << ONVM_H_PORTS;
	if (headers.l4_status == ONVM_L4_OK || headers.l4_status == ONVM_L4_BAD_HEADER) {
		switch (headers.protocol) {
		case ONVM_PROTO_TCP:
			flags |= 1u << ONVM_H_TCP | 1u << ONVM_H_PSEUDO;
			layout->l4_checksum = 16;
			break;
		case ONVM_PROTO_UDP:
			flags |= 1u << ONVM_H_UDP | 1u << ONVM_H_PSEUDO;
			layout->l4_checksum = 6;
			break;
		case ONVM_PROTO_UDPLITE:
		case ONVM_PROTO_DCCP:
			flags |= 1u << ONVM_H_PSEUDO;
			layout->l4_checksum = 6;
			break;
		case ONVM_PROTO_ICMP:
			flags |= 1u << ONVM_H_ICMP;
			layout->l4_checksum = 2;
			break;
		case ONVM_PROTO_ICMPV6:
			flags |= 1u << ONVM_H_ICMP | 1u << ONVM_H_PSEUDO;
			layout->l4_checksum = 2;
			break;
		default:
			break;
		}
	}
	layout->flags = (uint16_t)flags;
}

/** Most packets: untagged, whole IPv4 without options, with TCP or UDP. */
static ONVM_FIELD_INLINE int
onvm_is_plain(const uint8_t *data, uint32_t length)
{
	uint32_t total, rest;

	if (length < 54 || onvm_load_be32(data + 12) >> 8 != 0x080045)
		return 0;
	total = onvm_load_be16(data + 16);
	rest = onvm_load_be32(data + 20); /* fragment, TTL, protocol */
	return (rest & 0x3fff0000) == 0 && total >= 40 && total <= length - 14 &&
	       ((rest & 0xff) == ONVM_PROTO_UDP || (rest & 0xff) == ONVM_PROTO_TCP);
}

/** Read where the headers of a packet are. */
static inline struct onvm_layout
onvm_layout_of(const struct onvm_pkt *pkt)
{
	/* Constants as a whole: of a layout stored field by field, a load of all eight bytes waits
	 * until the stores are done. */
	enum {
		COMMON = 1 << ONVM_H_ETH | 1 << ONVM_H_TYPE | 1 << ONVM_H_IPV4 |
			 1 << ONVM_H_PSEUDO | 1 << ONVM_H_PORTS
	};
	static const struct onvm_layout udp = {14, 34, COMMON | 1 << ONVM_H_UDP, ONVM_PROTO_UDP, 6};
	static const struct onvm_layout tcp = {14, 34, COMMON | 1 << ONVM_H_TCP, ONVM_PROTO_TCP,
					       16};
	struct onvm_layout layout;

	if (__builtin_expect(onvm_is_plain(pkt->data, pkt->length), 1))
		layout = pkt->data[23] == ONVM_PROTO_UDP ? udp : tcp;
	else
		onvm_layout_read_any(pkt->data, pkt->length, &layout);
	if (pkt->flags & ONVM_F_REVERSE)
		layout.flags |= 1u << ONVM_H_REVERSE;
	return layout;
}

static inline int
onvm_layout_has(const struct onvm_layout *layout, uint32_t header)
{
	return layout->flags >> header & 1;
}

/** First byte of a header. */
static ONVM_FIELD_INLINE uint8_t *
onvm_header_at(uint8_t *data, const struct onvm_layout *layout, uint32_t header)
{
	switch (header) {
	case ONVM_H_ETH:
		return data;
	case ONVM_H_VLAN:
		return data + 14;
	case ONVM_H_TYPE:
		return data + layout->l3 - 2;
	case ONVM_H_IPV4:
	case ONVM_H_IPV6:
		return data + layout->l3;
	default:
		return data + layout->l4;
	}
}

/** @p bytes big-endian bytes as a number; 1, 2, 4, 6 or 8. */
static ONVM_FIELD_INLINE uint64_t
onvm_load_be(const uint8_t *at, uint32_t bytes)
{
	switch (bytes) {
	case 1:
		return at[0];
	case 2:
		return onvm_load_be16(at);
	case 4:
		return onvm_load_be32(at);
	case 6:
		return (uint64_t)onvm_load_be16(at) << 32 | onvm_load_be32(at + 2);
	default:
		return (uint64_t)onvm_load_be32(at) << 32 | onvm_load_be32(at + 4);
	}
}

static ONVM_FIELD_INLINE void
onvm_store_be(uint8_t *at, uint32_t bytes, uint64_t value)
{
	switch (bytes) {
	case 1:
		at[0] = (uint8_t)value;
		break;
	case 2:
		onvm_store_be16(at, (uint16_t)value);
		break;
	case 4:
		onvm_store_be32(at, (uint32_t)value);
		break;
	case 6:
		onvm_store_be16(at, (uint16_t)(value >> 32));
		onvm_store_be32(at + 2, (uint32_t)value);
		break;
	default:
		onvm_store_be32(at, (uint32_t)(value >> 32));
		onvm_store_be32(at + 4, (uint32_t)value);
		break;
	}
}

static ONVM_FIELD_INLINE uint64_t
onvm_field_mask(const struct onvm_field *field)
{
	return field->bits >= 64 ? UINT64_MAX : (UINT64_C(1) << field->bits) - 1;
}

/** Sum of the 16-bit words of a number of @p bytes; an even one-byte field is a high byte. */
static ONVM_FIELD_INLINE uint32_t
onvm_field_sum(uint64_t word, uint32_t bytes, uint32_t offset)
{
	if (bytes == 1)
		return (uint32_t)(offset & 1 ? word : word << 8);
	return (uint32_t)((word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) +
			  (word >> 48));
}

/** RFC 1624, equation 3, with sums of up to four words. */
static ONVM_FIELD_INLINE void
onvm_field_fix(uint8_t *checksum, uint32_t old_sum, uint32_t new_sum)
{
	/* 0x4fffb is a multiple of 0xffff, so subtracting from it complements the old sum. */
	uint32_t sum = (uint16_t)~onvm_load_be16(checksum) + (0x4fffbu - old_sum) + new_sum;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	onvm_store_be16(checksum, (uint16_t)~sum);
}

/** Replace the word of @p field at @p at and fix every checksum that covers it. */
static ONVM_FIELD_INLINE void
onvm_field_replace(uint8_t *data, const struct onvm_layout *layout, const struct onvm_field *field,
		   uint8_t *at, uint32_t bytes, uint64_t word)
{
	const uint64_t old_word = onvm_load_be(at, bytes);
	const uint32_t old_sum = onvm_field_sum(old_word, bytes, field->offset);
	const uint32_t new_sum = onvm_field_sum(word, bytes, field->offset);

	if (old_word == word)
		return;
	if (field->sums & ONVM_SUM_IP)
		onvm_field_fix(data + layout->l3 + 10, old_sum, new_sum);
	if (layout->l4_checksum != 0 &&
	    (field->sums & ONVM_SUM_L4 ||
	     (field->sums & ONVM_SUM_PSEUDO && onvm_layout_has(layout, ONVM_H_PSEUDO)))) {
		uint8_t *checksum = data + layout->l4 + layout->l4_checksum;

		if (layout->protocol != ONVM_PROTO_UDP) {
			onvm_field_fix(checksum, old_sum, new_sum);
		} else if (checksum[0] != 0 || checksum[1] != 0) {
			onvm_field_fix(checksum, old_sum, new_sum);
			if (checksum[0] == 0 && checksum[1] == 0)
				onvm_store_be16(checksum, 0xffff);
		}
	}
	onvm_store_be(at, bytes, word);
}

/** Value of a field of up to 8 bytes; 0 without its header. */
static ONVM_FIELD_INLINE uint64_t
onvm_field_load(uint8_t *data, const struct onvm_layout *layout, const struct onvm_field *field)
{
	const uint8_t *at = onvm_header_at(data, layout, field->header) + field->offset;

	if (!onvm_layout_has(layout, field->header))
		return 0;
	return onvm_load_be(at, field->bytes) >> field->shift & onvm_field_mask(field);
}

/** Store a field of up to 8 bytes; nothing without its header. Surplus bits are cut off. */
static ONVM_FIELD_INLINE void
onvm_field_store(uint8_t *data, const struct onvm_layout *layout, const struct onvm_field *field,
		 uint64_t value)
{
	uint8_t *at = onvm_header_at(data, layout, field->header) + field->offset;
	const uint64_t mask = onvm_field_mask(field) << field->shift;

	if (!onvm_layout_has(layout, field->header))
		return;
	onvm_field_replace(data, layout, field, at, field->bytes,
			   (onvm_load_be(at, field->bytes) & ~mask) |
				   (value << field->shift & mask));
}

#endif /* _ONVM_FIELDS_H_ */
