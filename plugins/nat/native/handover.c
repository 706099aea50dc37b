/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sessions on their way to another instance of the NAT. They keep their external ports, which lie
 * in the block of who opened them; new mappings never get such a port, for it is outside the block
 * here. An endpoint that has a mapping of its own here keeps it for new sessions, beside the one it
 * has brought along.
 */

#include "nat.h"

#include <errno.h>
#include <string.h>

uint32_t
nat_nb_sessions(const struct nat *nat)
{
	return onvm_flow_table_count(nat->sessions);
}

uint32_t
nat_nb_inherited(const struct nat *nat)
{
	return nat->nb_inherited;
}

uint32_t
nat_save(struct nat *nat, struct nat_saved *saved, uint32_t nb, uint64_t now_ns)
{
	int32_t slot = onvm_flow_table_next(nat->sessions, 0);
	uint32_t nb_saved = 0;

	for (; slot >= 0 && nb_saved < nb; slot = onvm_flow_table_next(nat->sessions, slot + 1)) {
		const struct nat_session *session = onvm_flow_table_value(nat->sessions, slot);
		const struct nat_mapping *mapping =
			onvm_flow_table_value(nat->mappings, session->mapping);
		const uint64_t used_ns = onvm_flow_table_used_ns(nat->sessions, slot);
		struct nat_saved *one = &saved[nb_saved++];

		memset(one, 0, sizeof(*one));
		memcpy(&one->key, onvm_flow_table_key(nat->sessions, slot), sizeof(one->key));
		memcpy(one->port, mapping->port, sizeof(one->port));
		one->tcp_state = session->tcp_state;
		one->age_ns = now_ns > used_ns ? now_ns - used_ns : 0;
	}
	return nb_saved;
}

static void
endpoint_of(const struct nat_saved *saved, struct nat_endpoint *endpoint)
{
	memset(endpoint, 0, sizeof(*endpoint));
	memcpy(endpoint->address, saved->key.inside, sizeof(endpoint->address));
	memcpy(endpoint->port, saved->key.inside_port, sizeof(endpoint->port));
	endpoint->protocol = saved->key.protocol;
}

/** Whether what has a mapping at the session's external port is its own endpoint. */
static bool
is_endpoint_behind(struct nat *nat, enum nat_space space, const struct nat_saved *saved)
{
	const struct nat_endpoint *there = nat_endpoint_behind(nat, space, saved->port);

	return memcmp(there->address, saved->key.inside, sizeof(there->address)) == 0 &&
	       memcmp(there->port, saved->key.inside_port, sizeof(there->port)) == 0;
}

static int
check(struct nat *nat, const struct nat_saved *saved, uint32_t nb)
{
	const uint32_t nb_here = onvm_flow_table_count(nat->sessions);

	if (nb > nat->config.max_sessions || nb_here > nat->config.max_sessions - nb)
		return -ENOSPC;
	for (uint32_t i = 0; i < nb; i++) {
		const enum nat_space space = nat_space_of(saved[i].key.protocol);

		if (space == NAT_SPACES)
			return -EINVAL;
		if (nat->mapping_of[space][onvm_load_be16(saved[i].port)] >= 0 &&
		    !is_endpoint_behind(nat, space, &saved[i]))
			return -EEXIST;
	}
	return 0;
}

/** The mapping of a session that comes, made if need be; below 0: there is no room. */
static int32_t
mapping_of(struct nat *nat, const struct nat_saved *saved, uint64_t now_ns)
{
	const enum nat_space space = nat_space_of(saved->key.protocol);
	const uint32_t port = onvm_load_be16(saved->port);
	struct nat_endpoint endpoint;
	struct nat_mapping *mapping;
	int32_t slot = nat->mapping_of[space][port];

	if (slot >= 0)
		return is_endpoint_behind(nat, space, saved) ? slot : -EEXIST;
	endpoint_of(saved, &endpoint);
	if (onvm_flow_table_lookup(nat->mappings, &endpoint) >= 0) {
		memcpy(endpoint.tag, saved->port, sizeof(saved->port));
		endpoint.tag[2] = 1;
	}
	slot = onvm_flow_table_add(nat->mappings, &endpoint, now_ns);
	if (slot < 0)
		return slot;
	mapping = onvm_flow_table_value(nat->mappings, slot);
	memcpy(mapping->port, saved->port, sizeof(mapping->port));
	mapping->space = (uint8_t)space;
	nat->mapping_of[space][port] = slot;
	nat->used[space][port >> 6] |= 1ull << (port & 63);
	if (nat_port_is_own(nat, port))
		nat->nb_used[space]++;
	else
		nat->nb_inherited++;
	nat->counters[NAT_MAPPINGS_OPENED]++;
	return slot;
}

int
nat_restore(struct nat *nat, const struct nat_saved *saved, uint32_t nb, uint64_t now_ns)
{
	const int rc = check(nat, saved, nb);

	if (rc != 0)
		return rc;
	for (uint32_t i = 0; i < nb; i++) {
		const uint64_t used_ns = now_ns > saved[i].age_ns ? now_ns - saved[i].age_ns : 0;
		int32_t mapping;

		if (onvm_flow_table_lookup(nat->sessions, &saved[i].key) >= 0)
			continue; /* it is known here, too, and newer */
		mapping = mapping_of(nat, &saved[i], now_ns);
		if (mapping < 0)
			continue; /* two of them want one port: not what nat_save() gives */
		if (nat_session_add(nat, &saved[i].key, mapping, saved[i].tcp_state, used_ns) < 0)
			nat_mapping_release(nat, mapping);
	}
	return 0;
}
