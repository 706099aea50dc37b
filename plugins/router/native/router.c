/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

#include <errno.h>
#include <stdlib.h>

#define ANNOUNCEMENTS 3

static bool
tables_create(struct router *router)
{
	const struct router_config *config = &router->config;

	router->lpm[0] = onvm_lpm_create(4, config->max_routes);
	if (router->lpm[0] == NULL)
		return false;
	if (config->has_ipv6) {
		router->lpm[1] = onvm_lpm_create(6, config->max_routes);
		if (router->lpm[1] == NULL)
			return false;
	}
	router->neighbours = onvm_flow_table_create(config->max_neighbours,
						    sizeof(struct router_neighbour_key),
						    sizeof(struct router_neighbour));
	router->groups = calloc(ROUTER_GROUPS_MAX, sizeof(*router->groups));
	router->waiting = calloc(ROUTER_WAITING_MAX, sizeof(*router->waiting));
	router->originals = calloc(ROUTER_ORIGINALS, sizeof(*router->originals));
	return router->neighbours != NULL && router->groups != NULL && router->waiting != NULL &&
	       router->originals != NULL;
}

struct router *
router_create(const struct router_config *config)
{
	struct router *router = calloc(1, sizeof(*router));

	if (router == NULL)
		return NULL;
	router->config = *config;
	if (!tables_create(router)) {
		const int error = errno;

		router_free(router);
		errno = error;
		return NULL;
	}
	for (uint32_t i = 0; i < config->nb_addresses; i++) {
		const struct router_address *const own = &config->addresses[i];
		const uint32_t bit = router_hash(own->ip_version, own->bytes) % ROUTER_FILTER_BITS;

		router->own_filter[bit / 64] |= UINT64_C(1) << bit % 64;
	}
	memset(router->interface_of, ROUTER_INTERFACES_MAX, sizeof(router->interface_of));
	router->mtu_min = UINT16_MAX;
	router->first_ready = ROUTER_NONE;
	router->first_failed = ROUTER_NONE;
	for (uint32_t i = 0; i < ROUTER_WAITING_MAX; i++)
		router->waiting[i].next = i + 1 < ROUTER_WAITING_MAX ? i + 1 : ROUTER_NONE;
	return router;
}

void
router_free(struct router *router)
{
	if (router == NULL)
		return;
	onvm_lpm_free(router->lpm[0]);
	onvm_lpm_free(router->lpm[1]);
	onvm_flow_table_free(router->neighbours);
	free(router->groups);
	free(router->waiting);
	free(router->originals);
	free(router);
}

/* The link-local address of a MAC address (RFC 4291 appendix A). */
static void
link_local_of(const uint8_t *mac, uint8_t *address)
{
	memset(address, 0, ONVM_ADDRESS_BYTES);
	address[0] = 0xfe;
	address[1] = 0x80;
	memcpy(address + 8, mac, 3);
	address[8] ^= 2;
	address[11] = 0xff;
	address[12] = 0xfe;
	memcpy(address + 13, mac + 3, 3);
}

static void
find_smallest_mtu(struct router *router)
{
	router->mtu_min = UINT16_MAX;
	for (uint32_t i = 0; i < router->config.nb_interfaces; i++)
		if (router->interfaces[i].is_bound && router->interfaces[i].mtu < router->mtu_min)
			router->mtu_min = router->interfaces[i].mtu;
}

int
router_bind(struct router *router, uint32_t index, uint16_t port, const uint8_t *mac, uint16_t mtu)
{
	struct router_interface *const interface = &router->interfaces[index];

	if (index >= router->config.nb_interfaces || port >= ROUTER_PORTS_MAX)
		return -EINVAL;
	router_unbind(router, index);
	interface->is_bound = true;
	interface->port = port;
	interface->mtu = mtu;
	memcpy(interface->mac, mac, ROUTER_MAC_BYTES);
	link_local_of(mac, interface->link_local);
	interface->nb_announcements = ANNOUNCEMENTS;
	interface->announce_ns = 0;
	router->interface_of[port] = (uint8_t)index;
	find_smallest_mtu(router);
	return 0;
}

void
router_unbind(struct router *router, uint32_t index)
{
	struct router_interface *const interface = &router->interfaces[index];

	if (index >= router->config.nb_interfaces || !interface->is_bound)
		return;
	router->interface_of[interface->port] = ROUTER_INTERFACES_MAX;
	interface->is_bound = false;
	find_smallest_mtu(router);
}

int
router_add_group(struct router *router, const struct router_group *group)
{
	if (router->nb_groups == ROUTER_GROUPS_MAX)
		return -ENOSPC;
	if (group->nb_hops > ROUTER_HOPS_MAX)
		return -EINVAL;
	router->groups[router->nb_groups] = *group;
	return (int)router->nb_groups++;
}

int
router_add_route(struct router *router, uint32_t ip_version, const uint8_t *prefix, uint8_t depth,
		 uint32_t group)
{
	struct onvm_lpm *const lpm = router->lpm[ip_version == 6];

	if (lpm == NULL || group >= router->nb_groups)
		return -EINVAL;
	return onvm_lpm_add(lpm, prefix, depth, group);
}

int
router_delete_route(struct router *router, uint32_t ip_version, const uint8_t *prefix,
		    uint8_t depth)
{
	struct onvm_lpm *const lpm = router->lpm[ip_version == 6];

	return lpm == NULL ? -EINVAL : onvm_lpm_delete(lpm, prefix, depth);
}

uint32_t
router_nb_neighbours(const struct router *router)
{
	return onvm_flow_table_count(router->neighbours);
}
