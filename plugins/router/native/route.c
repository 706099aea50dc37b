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
router_choose_hop(const struct router *router, const struct router_group *group,
		  uint32_t ip_version, const uint8_t *address, uint32_t hash,
		  struct router_hop *connected)
{
	uint32_t alive[ROUTER_HOPS_MAX];
	uint32_t nb = 0;

	for (uint32_t i = 0; i < group->nb_hops; i++)
		if (router->interfaces[group->hops[i].interface].is_bound)
			alive[nb++] = i;
	if (nb == 0)
		return NULL;
	if (group->kind == ROUTER_VIA)
		return &group->hops[alive[nb == 1 ? 0 : (uint64_t)hash * nb >> 32]];
	connected->interface = group->hops[0].interface;
	memcpy(connected->gateway, address, onvm_address_bytes(ip_version));
	return connected;
}

const struct router_hop *
router_hop_to(struct router *router, uint32_t ip_version, const uint8_t *address, uint32_t hash,
	      struct router_hop *connected)
{
	uint32_t group;

	if (router->lpm[ip_version == 6] == NULL ||
	    onvm_lpm_lookup(router->lpm[ip_version == 6], address, &group, 1) != 0 ||
	    group >= router->nb_groups || router->groups[group].kind > ROUTER_VIA)
		return NULL;
	return router_choose_hop(router, &router->groups[group], ip_version, address, hash,
				 connected);
}
