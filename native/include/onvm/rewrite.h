/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_REWRITE_H_
#define _ONVM_REWRITE_H_

/**
 * @file
 * New addresses and ports with all checksums kept right incrementally (RFC 1624, equation 3).
 *
 * A checksum that was wrong stays wrong: nothing is repaired silently. A UDP checksum of zero
 * over IPv4 means "none" and stays zero (RFC 3022 4.1); one that comes out as zero is sent as
 * 0xffff (RFC 768).
 */

#include <onvm/address.h>
#include <onvm/parse.h>

enum onvm_side {
	ONVM_SRC = 0,
	ONVM_DST = 1,
};

/** Where the transport checksum is, counted from its header; 0: none that covers addresses. */
static inline uint32_t
onvm_l4_checksum_offset(uint8_t protocol)
{
	switch (protocol) {
	case ONVM_PROTO_TCP:
		return 16;
	case ONVM_PROTO_UDP:
	case ONVM_PROTO_UDPLITE:
	case ONVM_PROTO_DCCP:
		return 6;
	case ONVM_PROTO_ICMPV6:
		return 2;
	default:
		return 0;
	}
}

/** Add to an unfolded sum what changes when @p old_bytes become @p new_bytes; length even. */
static inline uint64_t
onvm_checksum_delta(uint64_t sum, const void *old_bytes, const void *new_bytes, uint32_t length)
{
	uint16_t word;

	for (uint32_t i = 0; i < length; i += 2) {
		memcpy(&word, (const uint8_t *)old_bytes + i, 2);
		sum += (uint16_t)~word;
		memcpy(&word, (const uint8_t *)new_bytes + i, 2);
		sum += word;
	}
	return sum;
}

/** Apply a delta to the checksum field at @p field. */
static inline void
onvm_checksum_apply(uint8_t *field, uint64_t delta)
{
	uint16_t checksum;

	memcpy(&checksum, field, 2);
	checksum = (uint16_t)~onvm_checksum_fold(delta + (uint16_t)~checksum);
	memcpy(field, &checksum, 2);
}

/** onvm_checksum_apply() with UDP's two meanings of zero. */
static inline void
onvm_l4_checksum_apply(uint8_t *field, uint8_t protocol, uint64_t delta)
{
	const bool is_udp = protocol == ONVM_PROTO_UDP;
	const uint16_t ones = 0xffff;

	if (is_udp && onvm_load_be16(field) == 0)
		return;
	onvm_checksum_apply(field, delta);
	if (is_udp && onvm_load_be16(field) == 0)
		memcpy(field, &ones, 2);
}

/**
 * Replace one end of a packet.
 *
 * @param data     the frame that @p headers were read from, with ONVM_L3_OK
 * @param address  4 or 16 bytes as the packet's IP version says, network order
 * @param port     2 bytes, network order; NULL leaves it. Ignored without a transport header
 */
static inline void
onvm_rewrite_end(uint8_t *data, const struct onvm_headers *headers, enum onvm_side side,
		 const uint8_t *address, const uint8_t *port)
{
	uint8_t *const l3 = data + headers->l3_offset;
	uint8_t *const l4 = data + headers->l4_offset;
	const uint32_t address_size = onvm_address_bytes(headers->ip_version);
	uint8_t *const old_address = l3 + (headers->ip_version == 4 ? 12 : 8) +
				     (side == ONVM_SRC ? 0 : address_size);
	const uint32_t checksum_offset = onvm_l4_checksum_offset(headers->protocol);
	uint64_t delta = onvm_checksum_delta(0, old_address, address, address_size);

	if (headers->ip_version == 4)
		onvm_checksum_apply(l3 + 10, delta);
	memcpy(old_address, address, address_size);
	if (headers->l4_status != ONVM_L4_OK)
		return;
	if (port != NULL && headers->has_ports) {
		uint8_t *const old_port = l4 + (side == ONVM_SRC ? 0 : 2);

		delta = onvm_checksum_delta(delta, old_port, port, 2);
		memcpy(old_port, port, 2);
	}
	if (checksum_offset != 0)
		onvm_l4_checksum_apply(l4 + checksum_offset, headers->protocol, delta);
}

/** Replace the identifier of an ICMP query; its checksum covers no addresses (RFC 792). */
static inline void
onvm_rewrite_icmp_id(uint8_t *data, const struct onvm_headers *headers, const uint8_t *id)
{
	uint8_t *const icmp = data + headers->l4_offset;

	onvm_checksum_apply(icmp + 2, onvm_checksum_delta(0, icmp + 4, id, 2));
	memcpy(icmp + 4, id, 2);
}

#endif /* _ONVM_REWRITE_H_ */
