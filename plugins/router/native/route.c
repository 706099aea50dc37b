/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

uint32_t
router_flow_hash(const struct onvm_pkt *pkt)
{
	struct onvm_headers headers;
	const uint8_t *addresses;
	uint32_t hash, bytes;

	if (onvm_parse(pkt->data, pkt->length, &headers) != ONVM_L3_OK)
		return 0;
	bytes = onvm_address_bytes(headers.ip_version);
	addresses = pkt->data + headers.l3_offset + (headers.ip_version == 4 ? 12 : 8);
	hash = headers.protocol;
	if (headers.has_ports && !onvm_headers_is_fragment(&headers))
		hash ^= (uint32_t)(headers.src_port ^ headers.dst_port) << 8;
	for (uint32_t i = 0; i < 2 * bytes; i += 4)
		hash ^= onvm_load_be32(addresses + i);
	hash *= 0x9e3779b1u;
	return hash ^ hash >> 15;
}

const struct router_hop *
router_choose_hop(const struct router_group *group, uint32_t ip_version, const uint8_t *address,
		  uint32_t hash, struct router_hop *connected)
{
	uint32_t total = 0, place, at = 0;

	if (group->kind == ROUTER_CONNECTED) {
		connected->interface = group->hops[0].interface;
		memcpy(connected->gateway, address, onvm_address_bytes(ip_version));
		return connected;
	}
	for (uint32_t i = 0; i < group->nb_hops; i++)
		total += group->hops[i].weight;
	place = (uint32_t)((uint64_t)hash * total >> 32);
	while (place >= group->hops[at].weight)
		place -= group->hops[at++].weight;
	return &group->hops[at];
}

uint32_t
router_group_of(const struct router *router, uint32_t ip_version, const uint8_t *address)
{
	uint32_t group;

	if (router->lpm[ip_version == 6] == NULL ||
	    onvm_lpm_lookup(router->lpm[ip_version == 6], address, &group, 1) != 0 ||
	    group >= ROUTER_GROUPS_MAX)
		return ROUTER_NONE;
	return group;
}

const struct router_hop *
router_hop_to(struct router *router, uint32_t ip_version, const uint8_t *address, uint32_t hash,
	      struct router_hop *connected)
{
	const uint32_t group = router_group_of(router, ip_version, address);

	if (group == ROUTER_NONE || router->groups[group].kind > ROUTER_VIA)
		return NULL;
	return router_choose_hop(&router->groups[group], ip_version, address, hash, connected);
}

static bool
leads_back(const struct router *router, uint32_t interface, uint32_t ip_version,
	   const uint8_t *source)
{
	const uint8_t mode = router->interfaces[interface].link.reverse_path;
	const struct router_group *group;
	uint32_t index;

	if (mode == ROUTER_REVERSE_OFF)
		return true;
	index = router_group_of(router, ip_version, source);
	if (index == ROUTER_NONE || router->groups[index].kind > ROUTER_VIA)
		return false;
	group = &router->groups[index];
	for (uint32_t i = 0; i < group->nb_hops && mode == ROUTER_REVERSE_STRICT; i++)
		if (group->hops[i].interface == interface)
			return true;
	return mode == ROUTER_REVERSE_LOOSE;
}

bool
router_comes_right(struct router *router, uint32_t interface, uint32_t ip_version,
		   const uint8_t *source)
{
	if (leads_back(router, interface, ip_version, source))
		return true;
	router->ctx->counters[ROUTER_REVERSE_PATH]++;
	return false;
}
