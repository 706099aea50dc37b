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
 * Ports are 0 where the protocol has none, and in fragments behind the first. Both ports of an ICMP
 * echo are its identifier, so that a request and its reply are each other's reverse.
 */
static inline void
onvm_tuple_read(const uint8_t *data, const struct onvm_layout *layout, struct onvm_tuple *tuple)
{
	const uint8_t *const l3 = data + layout->l3, *const l4 = data + layout->l4;

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
	}
}

#endif /* _ONVM_TUPLE_H_ */
