/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

const struct router_address *
router_own_address(const struct router *router, uint32_t ip_version, const uint8_t *bytes)
{
	const uint32_t length = onvm_address_bytes(ip_version);
	const uint32_t bit = router_hash(ip_version, bytes) % ROUTER_FILTER_BITS;

	if ((router->own_filter[bit / 64] >> bit % 64 & 1) == 0)
		return NULL;
	for (uint32_t i = 0; i < router->setup.nb_addresses; i++) {
		const struct router_address *const own = &router->setup.addresses[i];

		if (own->ip_version == ip_version && memcmp(own->bytes, bytes, length) == 0)
			return own;
	}
	return NULL;
}

uint32_t
router_interface_of(const struct router *router, uint16_t port, uint16_t vlan)
{
	if (port >= ROUTER_PORTS_MAX)
		return ROUTER_INTERFACES_MAX;
	if (vlan == 0)
		return router->interface_of[port];
	for (uint32_t i = 0; i < router->setup.nb_interfaces; i++)
		if (router->interfaces[i].link.port == port &&
		    router->interfaces[i].link.vlan == vlan)
			return i;
	return ROUTER_INTERFACES_MAX;
}

/* Send a frame out of a port, with the tag of a VLAN. */
static void
out_tagged(struct onvm_pkt *pkt, uint16_t vlan, uint16_t port)
{
	uint8_t macs[2 * ROUTER_MAC_BYTES];

	if (vlan != 0) {
		memcpy(macs, pkt->data, sizeof(macs));
		if (onvm_pkt_push(pkt, ROUTER_TAG_BYTES) == NULL) {
			onvm_pkt_drop(pkt, ROUTER_DROP_TOO_BIG);
			return;
		}
		memcpy(pkt->data, macs, sizeof(macs));
		onvm_store_be16(pkt->data + 12, ROUTER_ETHERTYPE_VLAN);
		onvm_store_be16(pkt->data + 14, vlan);
	}
	onvm_pkt_out(pkt, port);
}

void
router_out(const struct router *router, struct onvm_pkt *pkt, uint32_t index)
{
	const struct router_link *const link = &router->interfaces[index].link;

	out_tagged(pkt, link->vlan, link->port);
}

enum router_reason
router_to_host(const struct router *router, struct onvm_pkt *pkt, uint32_t index,
	       enum router_reason otherwise)
{
	const struct router_link *const link = &router->interfaces[index].link;

	if (link->slow_port == ROUTER_NO_PORT)
		return otherwise;
	router->ctx->counters[ROUTER_TO_HOST]++;
	out_tagged(pkt, link->vlan, link->slow_port);
	return ROUTER_NO_DROP;
}

/* Whether the first @p depth bits of two addresses are the same. */
static bool
has_prefix(const uint8_t *prefix, uint32_t depth, const uint8_t *address)
{
	const uint32_t whole = depth / 8;
	const uint8_t mask = (uint8_t)(0xff00 >> depth % 8);

	return memcmp(prefix, address, whole) == 0 &&
	       (mask == 0 || ((prefix[whole] ^ address[whole]) & mask) == 0);
}

static bool
is_link_local(uint32_t ip_version, const uint8_t *address)
{
	return ip_version == 6 && address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

bool
router_is_on_link(const struct router *router, uint32_t interface, uint32_t ip_version,
		  const uint8_t *address)
{
	for (uint32_t i = 0; i < router->setup.nb_addresses; i++) {
		const struct router_address *const own = &router->setup.addresses[i];

		if (own->interface == interface && own->ip_version == ip_version &&
		    has_prefix(own->bytes, own->depth, address))
			return true;
	}
	return is_link_local(ip_version, address);
}

const uint8_t *
router_source_on(const struct router *router, uint32_t interface, uint32_t ip_version,
		 const uint8_t *target)
{
	const uint8_t *any = NULL;

	if (is_link_local(ip_version, target))
		return router->interfaces[interface].link_local;
	for (uint32_t i = 0; i < router->setup.nb_addresses; i++) {
		const struct router_address *const own = &router->setup.addresses[i];

		if (own->interface != interface || own->ip_version != ip_version)
			continue;
		if (has_prefix(own->bytes, own->depth, target))
			return own->bytes;
		if (any == NULL)
			any = own->bytes;
	}
	return any;
}
