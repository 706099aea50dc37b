/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

#include <errno.h>

#define ANNOUNCEMENTS 3

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
	for (uint32_t i = 0; i < router->setup.nb_interfaces; i++)
		if (router->interfaces[i].link.mtu < router->mtu_min)
			router->mtu_min = router->interfaces[i].link.mtu;
}

static void
find_filter(struct router *router)
{
	memset(router->own_filter, 0, sizeof(router->own_filter));
	memset(router->defended_ns, 0, sizeof(router->defended_ns));
	for (uint32_t i = 0; i < router->setup.nb_addresses; i++) {
		const struct router_address *const own = &router->setup.addresses[i];
		const uint32_t bit = router_hash(own->ip_version, own->bytes) % ROUTER_FILTER_BITS;

		router->own_filter[bit / 64] |= UINT64_C(1) << bit % 64;
	}
}

/* Whether an interface speaks from the same addresses as before. */
static bool
has_same_addresses(const struct router *router, const struct router_setup *setup, uint32_t index)
{
	const struct router_setup *const before = &router->setup;
	uint32_t i = 0, j = 0;

	for (;; i++, j++) {
		while (i < before->nb_addresses && before->addresses[i].interface != index)
			i++;
		while (j < setup->nb_addresses && setup->addresses[j].interface != index)
			j++;
		if (i == before->nb_addresses || j == setup->nb_addresses)
			return i == before->nb_addresses && j == setup->nb_addresses;
		if (memcmp(&before->addresses[i], &setup->addresses[j],
			   sizeof(setup->addresses[j])) != 0)
			return false;
	}
}

/* Make an interface another one, or let it say that it has other addresses. */
static void
change_interface(struct router *router, const struct router_setup *setup, uint32_t index)
{
	struct router_interface *const interface = &router->interfaces[index];
	const struct router_link *const link = &setup->links[index];
	const bool is_known = index < router->setup.nb_interfaces &&
			      interface->link.port == link->port &&
			      interface->link.vlan == link->vlan &&
			      memcmp(interface->link.mac, link->mac, ROUTER_MAC_BYTES) == 0;

	if (!is_known) {
		router_neighbours_forget(router, index);
		memset(interface, 0, sizeof(*interface));
	}
	if (!is_known || !has_same_addresses(router, setup, index)) {
		interface->nb_announcements = ANNOUNCEMENTS;
		interface->announce_ns = 0;
		interface->is_probed = false;
	}
	interface->link = *link;
	link_local_of(link->mac, interface->link_local);
}

int
router_change(struct router *router, const struct router_setup *setup)
{
	if (setup->nb_interfaces > ROUTER_INTERFACES_MAX ||
	    setup->nb_addresses > ROUTER_ADDRESSES_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < setup->nb_interfaces; i++)
		if (setup->links[i].port >= ROUTER_PORTS_MAX ||
		    (setup->links[i].slow_port >= ROUTER_PORTS_MAX &&
		     setup->links[i].slow_port != ROUTER_NO_PORT))
			return -EINVAL;
	for (uint32_t i = setup->nb_interfaces; i < router->setup.nb_interfaces; i++)
		router_neighbours_forget(router, i);
	for (uint32_t i = 0; i < setup->nb_interfaces; i++)
		change_interface(router, setup, i);
	router->setup = *setup;
	memset(router->interface_of, ROUTER_INTERFACES_MAX, sizeof(router->interface_of));
	for (uint32_t i = 0; i < setup->nb_interfaces; i++)
		if (setup->links[i].vlan == 0)
			router->interface_of[setup->links[i].port] = (uint8_t)i;
	memset(router->wire_of, 0xff, sizeof(router->wire_of)); /* ROUTER_NO_PORT */
	for (uint32_t i = 0; i < setup->nb_interfaces; i++)
		if (setup->links[i].slow_port != ROUTER_NO_PORT)
			router->wire_of[setup->links[i].slow_port] = setup->links[i].port;
	find_smallest_mtu(router);
	find_filter(router);
	return 0;
}
