/* SPDX-License-Identifier: Apache-2.0 */

/*
 * ARP (RFC 826). Offsets in a frame: operation 20, sender's MAC 22 and address 28, target's MAC 32
 * and address 38.
 */

#include "router.h"

static const uint8_t fixed[8] = {0x08, 0x06, 0, 1, 0x08, 0, 6, 4};
static const uint8_t broadcast[ROUTER_MAC_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* The sender's part of a message, and what goes before it. */
static void
fill(const uint8_t *mac, uint8_t *data, uint16_t operation, const uint8_t *to,
     const uint8_t *sender)
{
	memcpy(data, to, ROUTER_MAC_BYTES);
	memcpy(data + 6, mac, ROUTER_MAC_BYTES);
	memcpy(data + 12, fixed, sizeof(fixed));
	onvm_store_be16(data + 20, operation);
	memcpy(data + 22, mac, ROUTER_MAC_BYTES);
	memcpy(data + 28, sender, 4);
}

static void
send_request(struct router *router, uint32_t index, const uint8_t *to, const uint8_t *sender,
	     const uint8_t *target)
{
	struct onvm_pkt *const pkt = router->ctx->originate(router->ctx);

	if (pkt == NULL)
		return; /* it is asked again */
	fill(router->interfaces[index].link.mac, pkt->data, ROUTER_ARP_REQUEST, to, sender);
	memset(pkt->data + 32, 0, ROUTER_MAC_BYTES);
	memcpy(pkt->data + 38, target, 4);
	pkt->length = ROUTER_ARP_BYTES;
	router_out(router, pkt, index);
}

void
router_arp_ask(struct router *router, uint32_t interface, const uint8_t *target, const uint8_t *mac)
{
	const uint8_t *const source = router_source_on(router, interface, 4, target);

	if (source == NULL)
		return;
	router->ctx->counters[ROUTER_ASKED]++;
	send_request(router, interface, mac != NULL ? mac : broadcast, source, target);
}

void
router_arp_announce(struct router *router, uint32_t interface, const uint8_t *address)
{
	send_request(router, interface, broadcast, address, address);
}

void
router_arp_probe(struct router *router, uint32_t interface, const uint8_t *address)
{
	static const uint8_t none[4];

	send_request(router, interface, broadcast, none, address);
}

bool
router_is_arp(const uint8_t *data)
{
	return memcmp(data + 12, fixed, sizeof(fixed)) == 0;
}

void
router_arp_answer(struct router *router, struct onvm_pkt *pkt, uint32_t interface)
{
	uint8_t asker[ROUTER_MAC_BYTES + 4], target[4];

	memcpy(asker, pkt->data + 22, sizeof(asker));
	memcpy(target, pkt->data + 38, sizeof(target));
	fill(router->interfaces[interface].link.mac, pkt->data, ROUTER_ARP_REPLY, asker, target);
	memcpy(pkt->data + 32, asker, sizeof(asker));
	router->ctx->counters[ROUTER_ANSWERED_ARP]++;
	router_out(router, pkt, interface);
}
