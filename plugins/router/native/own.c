/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the router says of itself. An address is used at once: a gateway that waits for the end of
 * duplicate address detection loses packets, and the router never gives an address up (RFC 5227
 * 2.4 (c)). It asks all the same, so that a conflict is logged at start.
 */

#include "router.h"

#define NS 1000000000ull
#define ANNOUNCE_NS NS
#define DEFEND_NS (10 * NS) /* RFC 5227 DEFEND_INTERVAL */

static void
announce(struct router *router, uint32_t interface, const struct router_address *own)
{
	if (own->ip_version == 4)
		router_arp_announce(router, interface, own->bytes);
	else
		router_ndp_announce(router, interface, own->bytes);
}

static void
probe(struct router *router, uint32_t interface, const struct router_address *own)
{
	if (own->ip_version == 4)
		router_arp_probe(router, interface, own->bytes);
	else
		router_ndp_probe(router, interface, own->bytes);
}

/* Tell neighbours where the addresses of an interface are (RFC 5227 3, RFC 4861 7.2.6). */
static void
introduce(struct router *router, uint32_t index)
{
	struct router_interface *const interface = &router->interfaces[index];

	if (interface->nb_announcements == 0 || router->ctx->now_ns < interface->announce_ns)
		return;
	interface->nb_announcements--;
	interface->announce_ns = router->ctx->now_ns + ANNOUNCE_NS;
	for (uint32_t i = 0; i < router->setup.nb_addresses; i++) {
		const struct router_address *const own = &router->setup.addresses[i];

		if (own->interface != index)
			continue;
		if (!interface->is_probed)
			probe(router, index, own);
		announce(router, index, own);
	}
	interface->is_probed = true;
}

void
router_own_tick(struct router *router)
{
	if (router->ctx->now_ns < router->tick_ns)
		return;
	for (uint32_t i = 0; i < router->setup.nb_interfaces; i++) {
		introduce(router, i);
		if (router->interfaces[i].link.advertises)
			router_advertise(router, i);
	}
}

void
router_defend(struct router *router, uint32_t interface, const struct router_address *own,
	      const uint8_t *mac)
{
	uint64_t *const defended_ns = &router->defended_ns[own - router->setup.addresses];
	struct router_conflict *conflict;

	router->ctx->counters[ROUTER_CONFLICTS]++;
	if (own->interface != interface ||
	    (*defended_ns != 0 && router->ctx->now_ns - *defended_ns < DEFEND_NS))
		return;
	*defended_ns = router->ctx->now_ns;
	router->ctx->counters[ROUTER_DEFENDED]++;
	announce(router, interface, own);
	if (router->nb_conflicts == ROUTER_CONFLICTS_MAX)
		return;
	conflict = &router->conflicts[router->nb_conflicts++];
	memcpy(conflict->address, own->bytes, ONVM_ADDRESS_BYTES);
	memcpy(conflict->mac, mac, ROUTER_MAC_BYTES);
	conflict->ip_version = own->ip_version;
	conflict->interface = (uint8_t)interface;
}

bool
router_take_conflict(struct router *router, struct router_conflict *conflict)
{
	if (router->nb_conflicts == 0)
		return false;
	*conflict = router->conflicts[--router->nb_conflicts];
	return true;
}
