/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_TUPLE_H_
#define _ONVM_TUPLE_H_

/**
 * @file
 * The 5-tuple of a packet, in the form in which tables take it.
 */

#include <stdint.h>
#include <string.h>

#include <onvm/fields.h>
#include <onvm/tables.h>

/**
 * Read the tuple of a packet; all zeros when it is not IP.
 *
 * Ports are 0 where the protocol has none, and in fragments behind the first unless the NF has
 * `fragments = "virtual"`. Both ports of an ICMP echo are its identifier, so that a request and its
 * reply are each other's reverse.
 *
 * @param layout  of @p pkt: onvm_layout_of()
 */
static inline void
onvm_tuple_read(const struct onvm_pkt *pkt, const struct onvm_layout *layout,
		struct onvm_tuple *tuple)
{
	const uint8_t *const l3 = pkt->data + layout->l3, *const l4 = pkt->data + layout->l4;
	const uint8_t *ports;

	memset(tuple, 0, sizeof(*tuple));
	if (onvm_layout_has(layout, ONVM_H_IPV4)) {
		tuple->ip_version = 4;
		memcpy(tuple->src, l3 + 12, 4);
		memcpy(tuple->dst, l3 + 16, 4);
	} else if (onvm_layout_has(layout, ONVM_H_IPV6)) {
		tuple->ip_version = 6;
		memcpy(tuple->src, l3 + 8, 16);
		memcpy(tuple->dst, l3 + 24, 16);
	} else {
		return;
	}
	tuple->protocol = layout->protocol;
	if (onvm_layout_has(layout, ONVM_H_PORTS)) {
		memcpy(tuple->src_port, l4, 2);
		memcpy(tuple->dst_port, l4 + 2, 2);
	} else if (onvm_layout_has(layout, ONVM_H_ICMP) &&
		   onvm_icmp_is_echo(l4, layout->protocol)) {
		memcpy(tuple->src_port, l4 + 4, 2);
		memcpy(tuple->dst_port, l4 + 4, 2);
	} else if (onvm_layout_has(layout, ONVM_H_FRAGMENT) &&
		   (ports = onvm_pkt_fragment_ports(pkt)) != NULL) {
		memcpy(tuple->src_port, ports, 2);
		memcpy(tuple->dst_port, ports + 2, 2);
	}
}

#endif /* _ONVM_TUPLE_H_ */
