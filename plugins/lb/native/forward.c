/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Ways to a backend that leave the packet as it is, so that the backend answers as the VIP by itself:
 * another MAC address, or an IP packet around it. A connection has both its entries all the same.
 * The reply is the reverse of the client's tuple, and passes unchanged if it comes by here.
 */

#include "lb.h"

#include <string.h>

#define TTL 64
#define UDP_BYTES 8u
#define SOURCE_PORTS_FIRST 0xc000u /* RFC 8085 section 5.1.1: from the ephemeral ones */

/* A transport checksum that the kernel has left to the device would be wrong inside a tunnel. */
static void
checksum_complete(uint8_t *data, const struct onvm_headers *headers)
{
	const uint32_t field = onvm_l4_checksum_offset(headers->protocol);
	const uint32_t size = onvm_address_bytes(headers->ip_version);
	uint8_t *const l4 = data + headers->l4_offset;
	uint8_t pseudo[4] = {0, headers->protocol};
	uint16_t checksum = 0;
	uint64_t sum;

	memcpy(l4 + field, &checksum, 2);
	onvm_store_be16(pseudo + 2, (uint16_t)headers->l4_length);
	sum = onvm_checksum_add(0, data + headers->l3_offset + (headers->ip_version == 4 ? 12 : 8),
				2 * size);
	sum = onvm_checksum_add(sum, pseudo, sizeof(pseudo));
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(sum, l4, headers->l4_length));
	if (checksum == 0 && headers->protocol == ONVM_PROTO_UDP)
		checksum = 0xffff;
	memcpy(l4 + field, &checksum, 2);
}

/* The outer IP header; congestion marks are those of the inner one (RFC 6040 section 4.1). */
static void
outer_fill(const struct lb *lb, uint8_t *ip, const struct lb_entry *entry, uint8_t protocol,
	   uint8_t traffic_class, uint32_t payload, bool is_whole)
{
	uint16_t checksum;

	if (entry->outer_version == 6) {
		memset(ip, 0, 40);
		ip[0] = (uint8_t)(0x60 | traffic_class >> 4);
		ip[1] = (uint8_t)(traffic_class << 4);
		onvm_store_be16(ip + 4, (uint16_t)payload);
		ip[6] = protocol;
		ip[7] = TTL;
		memcpy(ip + 8, lb->config.tunnel_source6, 16);
		memcpy(ip + 24, entry->address, 16);
		return;
	}
	memset(ip, 0, 20);
	ip[0] = 0x45;
	ip[1] = traffic_class;
	onvm_store_be16(ip + 2, (uint16_t)(20 + payload));
	ip[6] = is_whole ? 0x40 : 0; /* don't fragment, so it needs no identification */
	ip[8] = TTL;
	ip[9] = protocol;
	memcpy(ip + 12, lb->config.tunnel_source4, 4);
	memcpy(ip + 16, entry->address, 4);
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, ip, 20));
	memcpy(ip + 10, &checksum, 2);
}

/* UDP around an IP packet. Over IPv4 it has no checksum; over IPv6 it must have one (RFC 8200). */
static void
udp_fill(const struct lb *lb, uint8_t *udp, const struct lb_entry *entry, uint32_t length,
	 uint64_t hash)
{
	uint8_t pseudo[4] = {0, ONVM_PROTO_UDP};
	uint16_t checksum;

	onvm_store_be16(udp, (uint16_t)(SOURCE_PORTS_FIRST | (hash >> 32 & 0x3fff)));
	memcpy(udp + 2, lb->config.gue_port, 2);
	onvm_store_be16(udp + 4, (uint16_t)length);
	memset(udp + 6, 0, 2);
	if (entry->outer_version == 4)
		return;
	onvm_store_be16(pseudo + 2, (uint16_t)length);
	checksum = (uint16_t)~onvm_checksum_fold(
		onvm_checksum_add(onvm_checksum_add(onvm_checksum_add(0, udp - 32, 32), pseudo,
						    sizeof(pseudo)),
				  udp, length));
	if (checksum == 0)
		checksum = 0xffff;
	memcpy(udp + 6, &checksum, 2);
}

static enum lb_reason
encapsulate(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers,
	    const struct lb_entry *entry, uint64_t hash)
{
	const uint32_t ip_bytes = entry->outer_version == 4 ? 20 : 40;
	const uint32_t udp_bytes = entry->forward == LB_GUE ? UDP_BYTES : 0;
	const uint32_t added = ip_bytes + udp_bytes;
	/* what follows the packet in the frame, to fill it up, stays outside */
	const uint32_t inner = headers->l4_offset + headers->l4_length - headers->l3_offset;
	const uint8_t protocol = headers->ip_version == 4 ? 4 : 41;
	const uint8_t *const ip = pkt->data + headers->l3_offset;
	const uint8_t traffic_class = headers->ip_version == 4 ? ip[1] :
								 (uint8_t)(ip[0] << 4 | ip[1] >> 4);
	uint8_t *const old = pkt->data;
	uint8_t *outer;

	if ((pkt->flags & ONVM_F_MERGED) != 0)
		return LB_DROP_TOO_BIG;
	/* What came in fragments leaves in fragments, of the size that it had. */
	if (inner + added > lb->config.tunnel_mtu && onvm_pkt_largest_fragment(pkt) == 0)
		return lb_too_big(lb, pkt, headers, (uint16_t)(lb->config.tunnel_mtu - added)) ?
			       LB_NO_DROP :
			       LB_DROP_TOO_BIG;
	if ((pkt->flags & ONVM_F_PARTIAL) != 0 && onvm_l4_checksum_offset(headers->protocol) != 0)
		checksum_complete(pkt->data, headers);
	if (onvm_pkt_push(pkt, (uint16_t)added) == NULL)
		return LB_DROP_TOO_BIG;
	memmove(pkt->data, old, headers->l3_offset);
	outer = pkt->data + headers->l3_offset;
	onvm_store_be16(outer - 2, entry->outer_version == 4 ? 0x0800 : 0x86dd);
	outer_fill(lb, outer, entry, udp_bytes != 0 ? ONVM_PROTO_UDP : protocol, traffic_class,
		   udp_bytes + inner, onvm_pkt_largest_fragment(pkt) == 0);
	if (udp_bytes != 0)
		udp_fill(lb, outer + ip_bytes, entry, udp_bytes + inner, hash);
	pkt->length = (uint16_t)(headers->l3_offset + added + inner);
	return LB_NO_DROP;
}

enum lb_reason
lb_forward(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers,
	   const struct lb_entry *entry, uint64_t hash)
{
	const struct lb_backend *const backend =
		entry->backend == LB_NO_BACKEND ? NULL : &lb->config.backends[entry->backend];
	enum lb_reason reason = LB_NO_DROP;

	/* With the backend its MAC address is gone from the configuration. */
	if (entry->forward == LB_DSR && backend == NULL)
		return LB_DROP_NO_BACKEND;
	if (entry->forward != LB_DSR)
		reason = encapsulate(lb, pkt, headers, entry, hash);
	if (reason != LB_NO_DROP || pkt->verdict != ONVM_NEXT)
		return reason;
	if (backend != NULL && backend->has_mac)
		memcpy(pkt->data, backend->mac, sizeof(backend->mac));
	lb->counters[LB_TO_BACKEND]++;
	return LB_NO_DROP;
}
