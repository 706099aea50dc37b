/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sessions on their way to another instance of the NAT. They keep their external ports, which lie
 * in the block of the instance that opened them; new mappings never get such a port, for it is
 * outside the block here. An endpoint that has a mapping of its own here keeps it for new sessions,
 * beside the one it has brought along.
 */

#include "nat.h"

#include <errno.h>
#include <string.h>

uint32_t
nat_nb_inherited(const struct nat *nat)
{
	return nat->nb_inherited;
}

void
nat_session_save(struct nat *nat, int32_t slot, struct nat_saved *saved, uint64_t now_ns)
{
	const struct nat_session *const session = onvm_flow_value(nat->sessions, slot);
	const uint64_t used_ns = session->link.used_ns;

	memset(saved, 0, sizeof(*saved));
	memcpy(&saved->key, onvm_flow_table_key(nat->sessions, slot), sizeof(saved->key));
	memcpy(saved->external, nat->config.externals[session->external], sizeof(saved->external));
	memcpy(saved->port, session->port, sizeof(saved->port));
	saved->state = session->state;
	saved->age_ns = now_ns > used_ns ? now_ns - used_ns : 0;
}

uint32_t
nat_nb_saved(const struct nat *nat)
{
	return nat_nb_sessions(nat) + (nat->hosts == NULL ? 0 : onvm_flow_table_count(nat->hosts));
}

uint32_t
nat_save(struct nat *nat, struct nat_saved *saved, uint32_t nb, uint64_t now_ns)
{
	uint32_t nb_saved = nat_host_save(nat, saved, nb);

	/* in the order of their last use, so that they lie in this order again */
	for (uint32_t life = 0; life < NAT_LIVES; life++) {
		int32_t slot = nat->queues[life].first;

		for (; slot >= 0 && nb_saved < nb;
		     slot = onvm_idle_link_of(nat->sessions, slot)->after)
			nat_session_save(nat, slot, &saved[nb_saved++], now_ns);
	}
	return nb_saved;
}

/** Whether what has a mapping at the session's external port is its own endpoint. */
static bool
is_endpoint_behind(struct nat *nat, uint32_t external, enum nat_space space,
		   const struct nat_saved *saved)
{
	const struct nat_endpoint *const there =
		nat_endpoint_behind(nat, external, space, saved->port, saved->key.vlan);

	return there != NULL &&
	       memcmp(there->address, saved->key.inside, sizeof(there->address)) == 0 &&
	       memcmp(there->port, saved->key.inside_port, sizeof(there->port)) == 0;
}

static bool
is_allowed(struct nat *nat, const struct nat_saved *saved, uint32_t first, uint32_t end,
	   bool keeps_hosts)
{
	const enum nat_space space = nat_space_of(saved->key.protocol);
	const int32_t external = nat_external_find(nat, saved->external);
	const uint32_t port = onvm_load_be16(saved->port);

	if (nat_is_stand_in(saved->key.inside) && !keeps_hosts)
		return false;
	if (nat_is_saved_host(saved))
		return true;
	if (port < first || port >= end || external < 0 || space == NAT_SPACES)
		return false;
	/* a port that is forwarded now */
	if (nat->ports[external][space].mapping_of[port] >= 0 &&
	    !is_endpoint_behind(nat, (uint32_t)external, space, saved))
		return false;
	return (nat_is_stand_in(saved->key.inside) ||
		nat_is_inside(&nat->config, saved->key.inside));
}

uint32_t
nat_allowed(struct nat *nat, struct nat_saved *saved, uint32_t nb, uint32_t first, uint32_t end,
	    bool keeps_hosts)
{
	uint32_t nb_left = 0;

	for (uint32_t i = 0; i < nb; i++)
		if (is_allowed(nat, &saved[i], first, end, keeps_hosts))
			saved[nb_left++] = saved[i];
	return nb_left;
}

static void
endpoint_of(const struct nat_saved *saved, struct nat_endpoint *endpoint)
{
	memset(endpoint, 0, sizeof(*endpoint));
	memcpy(endpoint->address, saved->key.inside, sizeof(endpoint->address));
	memcpy(endpoint->port, saved->key.inside_port, sizeof(endpoint->port));
	endpoint->protocol = saved->key.protocol;
	memcpy(endpoint->vlan, saved->key.vlan, sizeof(endpoint->vlan));
}

static int
check(struct nat *nat, const struct nat_saved *saved, uint32_t nb)
{
	const uint32_t nb_here = onvm_flow_table_count(nat->sessions);

	if (nb > nat->config.max_sessions || nb_here > nat->config.max_sessions - nb)
		return -ENOSPC;
	for (uint32_t i = 0; i < nb; i++) {
		const enum nat_space space = nat_space_of(saved[i].key.protocol);
		const int32_t external = nat_external_find(nat, saved[i].external);
		const uint32_t port = onvm_load_be16(saved[i].port);

		if (space == NAT_SPACES || external < 0)
			return -EINVAL;
		if (nat->ports[external][space].mapping_of[port] >= 0 &&
		    !is_endpoint_behind(nat, (uint32_t)external, space, &saved[i]))
			return -EEXIST;
	}
	return 0;
}

/** The mapping of a session that comes, made if need be; below 0: there is no room. */
static int32_t
mapping_of(struct nat *nat, const struct nat_saved *saved)
{
	const enum nat_space space = nat_space_of(saved->key.protocol);
	const uint32_t external = (uint32_t)nat_external_find(nat, saved->external);
	const uint32_t port = onvm_load_be16(saved->port);
	struct nat_endpoint endpoint;
	int32_t slot = nat->ports[external][space].mapping_of[port];

	if (slot >= 0)
		return is_endpoint_behind(nat, external, space, saved) ? slot : -EEXIST;
	endpoint_of(saved, &endpoint);
	if (onvm_flow_table_lookup(nat->mappings, &endpoint) >= 0) {
		memcpy(endpoint.tag, saved->port, sizeof(saved->port));
		endpoint.tag[2] = 1;
		if (onvm_flow_table_lookup(nat->mappings, &endpoint) >= 0)
			return -EEXIST; /* the same port of another external address */
	}
	nat_port_use(nat, external, space, port);
	slot = nat_mapping_add(nat, &endpoint, external, port);
	if (slot < 0)
		nat_port_give_back(nat, external, space, port, 0);
	return slot;
}

static void
sessions_add(struct nat *nat, const struct nat_saved *saved, uint32_t nb, uint64_t now_ns)
{
	nat->has_pending = true;
	for (uint32_t i = 0; i < nb; i++) {
		const uint64_t used_ns = now_ns > saved[i].age_ns ? now_ns - saved[i].age_ns : 0;
		int32_t mapping;

		if (onvm_flow_table_lookup(nat->sessions, &saved[i].key) >= 0)
			continue; /* it is known here, too, and newer */
		mapping = mapping_of(nat, &saved[i]);
		if (mapping < 0)
			continue; /* two of them want one port: not what nat_save() gives */
		if (nat_session_add(nat, &saved[i].key, mapping, saved[i].state, used_ns) < 0)
			nat_mapping_release(nat, mapping, false);
	}
}

int
nat_restore(struct nat *nat, struct nat_saved *saved, uint32_t nb, uint64_t now_ns)
{
	uint32_t nb_hosts = 0;
	int rc;

	while (nb_hosts < nb && nat_is_saved_host(&saved[nb_hosts]))
		nb_hosts++;
	rc = nat_host_restore(nat, saved, nb_hosts, nb);
	if (rc == 0)
		rc = check(nat, saved + nb_hosts, nb - nb_hosts);
	if (rc == 0)
		sessions_add(nat, saved + nb_hosts, nb - nb_hosts, now_ns);
	nat_host_restored(nat, saved, nb_hosts);
	return rc;
}
