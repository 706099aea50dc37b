/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

#define ETHERTYPE_ARP 0x0806

/* RFC 1812 5.3.7, RFC 6890: addresses that no packet comes from. */
static bool
is_martian4(uint32_t address)
{
	return address >> 24 == 0 || address >> 24 == 127 || address >= 0xe0000000 ||
	       address >> 16 == 0xa9fe;
}

static bool
is_unspecified6(const uint8_t *address)
{
	static const uint8_t zeros[ONVM_ADDRESS_BYTES];

	return memcmp(address, zeros, 15) == 0 && address[15] <= 1;
}

static bool
is_link_local6(const uint8_t *address)
{
	return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

static enum router_reason
arrive4(struct router *router, struct onvm_pkt *pkt, uint32_t interface)
{
	uint8_t *const ip = pkt->data + 14;
	const struct router_address *own;
	uint32_t header_length, src, dst;
	uint8_t before[2], after[2];

	if (pkt->length < 34 || ip[0] >> 4 != 4)
		return ROUTER_DROP_MALFORMED;
	header_length = (ip[0] & 15) * 4u;
	if (header_length < 20 || onvm_load_be16(ip + 2) < header_length ||
	    onvm_load_be16(ip + 2) + 14u > pkt->length ||
	    onvm_checksum_fold(onvm_checksum_add(0, ip, header_length)) != 0xffff)
		return ROUTER_DROP_MALFORMED;
	src = onvm_load_be32(ip + 12);
	dst = onvm_load_be32(ip + 16);
	/* RFC 1812 5.3.4: what comes as a broadcast of the link is not forwarded */
	if (dst >= 0xe0000000 || (pkt->data[0] & 1) != 0)
		return dst >> 8 == 0xe00000 || dst == UINT32_MAX ?
			       router_to_host(router, pkt, interface, ROUTER_DROP_MULTICAST) :
			       ROUTER_DROP_MULTICAST;
	if (is_martian4(src) || is_martian4(dst) || router_own_address(router, 4, ip + 12) != NULL)
		return ROUTER_DROP_MARTIAN;
	if (!router_comes_right(router, interface, 4, ip + 12))
		return ROUTER_DROP_MARTIAN;
	own = router_own_address(router, 4, ip + 16);
	if (own != NULL && !own->is_passed)
		return router_receive(router, pkt, interface);
	if (ip[8] <= 1) {
		router_send_error(router, pkt, ROUTER_ERROR_TTL, interface, 0);
		return ROUTER_DROP_TTL;
	}
	if (onvm_load_be16(ip + 2) > router->mtu_min)
		router_keep_original(router, pkt, interface);
	memcpy(before, ip + 8, 2);
	ip[8]--;
	memcpy(after, ip + 8, 2);
	onvm_checksum_replace(ip + 10, before, after, 2);
	return ROUTER_NO_DROP;
}

static enum router_reason
arrive6(struct router *router, struct onvm_pkt *pkt, uint32_t interface)
{
	uint8_t *const ip = pkt->data + 14;
	const struct router_address *own;
	enum router_reason reason;

	if (pkt->length < 54 || ip[0] >> 4 != 6 || onvm_load_be16(ip + 4) + 54u > pkt->length)
		return ROUTER_DROP_MALFORMED;
	reason = router_ndp_arrive(router, pkt, interface);
	if (reason != ROUTER_NO_DROP || pkt->verdict != ONVM_NEXT)
		return reason;
	if (ip[24] == 0xff || (pkt->data[0] & 1) != 0)
		return ip[24] == 0xff && ip[25] == 2 ?
			       router_to_host(router, pkt, interface, ROUTER_DROP_MULTICAST) :
			       ROUTER_DROP_MULTICAST;
	if (ip[8] == 0xff || is_unspecified6(ip + 8) || is_unspecified6(ip + 24) ||
	    router_own_address(router, 6, ip + 8) != NULL)
		return ROUTER_DROP_MARTIAN;
	if (!is_link_local6(ip + 8) && !router_comes_right(router, interface, 6, ip + 8))
		return ROUTER_DROP_MARTIAN;
	own = router_own_address(router, 6, ip + 24);
	if ((own != NULL && !own->is_passed) ||
	    memcmp(ip + 24, router->interfaces[interface].link_local, ONVM_ADDRESS_BYTES) == 0)
		return router_receive(router, pkt, interface);
	/* RFC 4291 2.5.6: not from link to link */
	if (is_link_local6(ip + 8) || is_link_local6(ip + 24))
		return ROUTER_DROP_MARTIAN;
	if (ip[7] <= 1) {
		router_send_error(router, pkt, ROUTER_ERROR_TTL, interface, 0);
		return ROUTER_DROP_TTL;
	}
	if (onvm_load_be16(ip + 4) + 40u > router->mtu_min)
		router_keep_original(router, pkt, interface);
	ip[7]--;
	return ROUTER_NO_DROP;
}

/* Take the VLAN tag of a frame off. @return the VLAN, 0 for none and for a mere priority */
static uint16_t
take_tag(struct onvm_pkt *pkt)
{
	uint16_t vlan;

	if (pkt->length < 18 || onvm_load_be16(pkt->data + 12) != ROUTER_ETHERTYPE_VLAN)
		return 0;
	vlan = onvm_load_be16(pkt->data + 14) & 0xfff;
	memmove(pkt->data + ROUTER_TAG_BYTES, pkt->data, 2 * ROUTER_MAC_BYTES);
	onvm_pkt_pull(pkt, ROUTER_TAG_BYTES);
	return vlan;
}

enum router_reason
router_arrive(struct router *router, struct onvm_pkt *pkt)
{
	const struct router_link *link;
	uint16_t ethertype;
	uint32_t index;

	if (pkt->port < ROUTER_PORTS_MAX && router->wire_of[pkt->port] != ROUTER_NO_PORT) {
		onvm_pkt_out(pkt, router->wire_of[pkt->port]);
		return ROUTER_NO_DROP;
	}
	index = router_interface_of(router, pkt->port, take_tag(pkt));
	if (index == ROUTER_INTERFACES_MAX)
		return ROUTER_DROP_NO_INTERFACE;
	link = &router->interfaces[index].link;
	if (pkt->length < 14)
		return ROUTER_DROP_MALFORMED;
	if (memcmp(pkt->data + ROUTER_MAC_BYTES, link->mac, ROUTER_MAC_BYTES) == 0)
		return ROUTER_DROP_LOOP;
	if ((pkt->data[0] & 1) == 0 && memcmp(pkt->data, link->mac, ROUTER_MAC_BYTES) != 0)
		return ROUTER_DROP_NOT_OURS;
	ethertype = onvm_load_be16(pkt->data + 12);
	if (ethertype == ETHERTYPE_ARP)
		return router_arp_arrive(router, pkt, index);
	if (ethertype == ONVM_ETHERTYPE_IPV6)
		return arrive6(router, pkt, index);
	if (ethertype != ONVM_ETHERTYPE_IPV4)
		return ROUTER_DROP_NOT_IP;
	return arrive4(router, pkt, index);
}
