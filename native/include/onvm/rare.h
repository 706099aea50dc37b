/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_RARE_H_
#define _ONVM_RARE_H_

/**
 * @file
 * Headers that few packets have: ARP, MPLS, PPPoE, SCTP, GRE, and the tunnels over UDP.
 *
 * They are no part of a layout, so packets of NFs that never ask for them pay nothing. A tunnel is
 * recognised by its registered UDP destination port. A field is read and written as those of
 * onvm/fields.h are; the checksum of UDP follows, the CRC of SCTP does not: onvm_checksums_make().
 */

#include <onvm/content.h>
#include <onvm/fields.h>

#define ONVM_PORT_GTPU 2152
#define ONVM_PORT_VXLAN 4789
#define ONVM_PORT_GENEVE 6081

/** Whether the transport header of @p pkt is UDP to @p port, with a payload of @p least bytes. */
static inline bool
onvm_is_udp_tunnel(const struct onvm_pkt *pkt, const struct onvm_layout *layout, uint16_t port,
		   uint32_t least)
{
	const uint8_t *udp = pkt->data + layout->l4;

	return onvm_layout_has(layout, ONVM_H_UDP) && onvm_load_be16(udp + 2) == port &&
	       onvm_load_be16(udp + 4) >= 8 + least && layout->l4 + 8u + least <= pkt->length;
}

/** First byte of a header from ONVM_H_ARP on; NULL: the packet has none, or not all of it. */
static inline uint8_t *
onvm_rare_header(const struct onvm_pkt *pkt, const struct onvm_layout *layout, uint32_t header)
{
	uint8_t *l3 = pkt->data + layout->l3, *l4 = pkt->data + layout->l4;
	const uint32_t rest = pkt->length > layout->l3 ? pkt->length - (uint32_t)layout->l3 : 0;
	const uint16_t type =
		onvm_layout_has(layout, ONVM_H_ETH) && rest != 0 ? onvm_load_be16(l3 - 2) : 0;
	const bool is_whole_ip = layout->flags & (1 << ONVM_H_IPV4 | 1 << ONVM_H_IPV6) &&
				 !onvm_layout_has(layout, ONVM_H_FRAGMENT);

	switch (header) {
	case ONVM_H_ARP: /* RFC 826: Ethernet and IPv4, with addresses of 6 and 4 bytes */
		return type == 0x0806 && rest >= 28 && onvm_load_be32(l3) == 0x00010800 &&
				       onvm_load_be16(l3 + 4) == 0x0604 ?
			       l3 :
			       NULL;
	case ONVM_H_MPLS:
		return (type == 0x8847 || type == 0x8848) && rest >= 4 ? l3 : NULL;
	case ONVM_H_PPPOE:
		return (type == 0x8863 || type == 0x8864) && rest >= 6 ? l3 : NULL;
	case ONVM_H_SCTP: /* ports are only there if the whole header is */
		return layout->protocol == ONVM_PROTO_SCTP && is_whole_ip &&
				       onvm_layout_has(layout, ONVM_H_PORTS) ?
			       l4 :
			       NULL;
	case ONVM_H_GRE:
		return layout->protocol == 47 && is_whole_ip && layout->l4 + 4u <= pkt->length ?
			       l4 :
			       NULL;
	case ONVM_H_VXLAN:
		return onvm_is_udp_tunnel(pkt, layout, ONVM_PORT_VXLAN, 8) ? l4 + 8 : NULL;
	case ONVM_H_GENEVE:
		return onvm_is_udp_tunnel(pkt, layout, ONVM_PORT_GENEVE, 8) ? l4 + 8 : NULL;
	case ONVM_H_GTPU:
		return onvm_is_udp_tunnel(pkt, layout, ONVM_PORT_GTPU, 8) ? l4 + 8 : NULL;
	default:
		return NULL;
	}
}

/** Value of a field of up to 8 bytes; 0 without its header. */
static inline uint64_t
onvm_rare_load(const struct onvm_pkt *pkt, const struct onvm_layout *layout,
	       const struct onvm_field *field)
{
	const uint8_t *at = onvm_rare_header(pkt, layout, field->header);

	if (at == NULL)
		return 0;
	return onvm_load_be(at + field->offset, field->bytes) >> field->shift &
	       onvm_field_mask(field);
}

/** Store a field of up to 8 bytes; nothing without its header. Surplus bits are cut off. */
static inline void
onvm_rare_store(const struct onvm_pkt *pkt, const struct onvm_layout *layout,
		const struct onvm_field *field, uint64_t value)
{
	const uint64_t mask = onvm_field_mask(field) << field->shift;
	uint8_t *at = onvm_rare_header(pkt, layout, field->header);

	if (at == NULL)
		return;
	at += field->offset;
	onvm_field_replace(pkt->data, layout, field, at, field->bytes,
			   (onvm_load_be(at, field->bytes) & ~mask) |
				   (value << field->shift & mask));
}

#endif /* _ONVM_RARE_H_ */
