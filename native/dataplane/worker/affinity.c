/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/affinity.h"

#include <string.h>

#include "steering/choice.h"

/** The key of the address of packet @p i that @p rule is about. */
static void
address_key(const struct onvm_burst *burst, uint32_t i, bool is_source, uint16_t service,
	    union onvm_flow_key *key)
{
	const union onvm_flow_key *of = &burst->keys[i];

	memset(key, 0, sizeof(*key));
	if (burst->kinds[i] == ONVM_FLOW_KIND_IPV4) {
		key->v4.src = is_source ? of->v4.src : of->v4.dst;
		key->v4.src_port = service;
		key->v4.vlan = ONVM_FLOW_VLAN_ADDRESS;
	} else {
		memcpy(key->v6.src, is_source ? of->v6.src : of->v6.dst, sizeof(key->v6.src));
		key->v6.src_port = service;
		key->v6.vlan = ONVM_FLOW_VLAN_ADDRESS;
	}
}

static bool
serves(const struct onvm_steering *steering, uint16_t host, uint16_t service)
{
	for (uint32_t stage = 0; stage < steering->hosts[host].nb_stages; stage++)
		if (steering->hosts[host].services[stage] == service)
			return true;
	return false;
}

/** The NF host of a path that serves @p service; 0: it has none. */
static uint16_t
host_of_path(const struct onvm_steering *steering, uint16_t index, uint16_t service)
{
	const struct onvm_path *path = &steering->paths[index];

	for (uint32_t hop = 0; hop < path->nb_hops; hop++)
		if (serves(steering, path->hops[hop].host, service))
			return path->hops[hop].host;
	return 0;
}

/** The NF host that a hash gives for the service of @p rule; 0: there is none. */
static uint16_t
host_of_hash(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
	     const struct onvm_address_rule *rule, uint32_t hash)
{
	/* A fused host may begin at a position before. */
	for (int32_t position = rule->position; position >= 0; position--) {
		const uint16_t host = onvm_choice_by_hash(&candidates->choices[position], hash);

		if (host != 0 && serves(steering, host, rule->service))
			return host;
	}
	return 0;
}

/** Whether a wish decides already which instance of @p service it is: a claim. */
static bool
is_decided(const struct onvm_steering *steering, uint16_t service, const struct onvm_wishes *wishes)
{
	for (uint32_t i = 0; i < wishes->nb; i++)
		if (serves(steering, wishes->hosts[i], service))
			return true;
	return false;
}

void
onvm_affinity_wishes(const struct onvm_worker *worker, const struct onvm_burst *burst, uint32_t i,
		     const struct onvm_chain_entry *entry, struct onvm_wishes *wishes,
		     struct onvm_owners *owners)
{
	const struct onvm_steering *steering = &worker->dp->steering;
	const struct onvm_flow_table *table = &worker->dp->flows;
	const struct onvm_candidates *candidates = entry->candidates;

	owners->nb = 0;
	for (uint32_t k = 0; k < candidates->nb_addresses; k++) {
		const struct onvm_address_rule *rule = &candidates->addresses[k];
		const bool is_source = (rule->affinity == ONVM_AFFINITY_SOURCE) != entry->is_far;
		struct onvm_owner *owner = &owners->of[owners->nb];
		uint16_t host;

		if (is_decided(steering, rule->service, wishes))
			continue;
		owners->nb++;
		owner->service = rule->service;
		owner->kind = (enum onvm_flow_kind)burst->kinds[i];
		address_key(burst, i, is_source, rule->service, &owner->key);
		owner->hash = onvm_flow_key_hash(owner->kind, &owner->key);
		owner->position =
			onvm_flow_table_find(table, owner->kind, &owner->key, owner->hash);
		owner->known = owner->position == ONVM_FLOW_NONE ?
				       0 :
				       onvm_flow_path_of_key(table, owner->position, owner->kind,
							     &owner->key);
		host = host_of_path(steering, onvm_steering_resolve(steering, owner->known),
				    rule->service);
		if (host == 0 && owners->is_full)
			host = host_of_hash(steering, candidates, rule, owner->hash);
		owner->has_wish = host != 0;
		if (host != 0)
			wishes->hosts[wishes->nb++] = host;
	}
}

/** Give an address the path of its first flow; false: it has another one. */
static bool
keep(struct onvm_flow_table *table, struct onvm_owner *owner, uint16_t path)
{
	struct onvm_flow *flow = &table->flows[owner->position];
	const uint16_t before = owner->known;

	if (before == 0) {
		__atomic_store_n(&table->peers[owner->position], ONVM_FLOW_NONE, __ATOMIC_RELAXED);
		__atomic_store_n(&flow->flags, ONVM_FLOW_ADDRESS, __ATOMIC_RELAXED);
	}
	/* K1, as in onvm_flow_set_path(). */
	if (!onvm_flow_change_path(table, owner->position, &owner->known, path))
		return owner->known == path;
	if (before == 0)
		onvm_flow_count(table, owner->position, 1);
	return true;
}

bool
onvm_affinity_keep(struct onvm_worker *worker, struct onvm_owners *owners, uint16_t path)
{
	struct onvm_flow_table *table = &worker->dp->flows;
	const uint8_t now = __atomic_load_n(&table->now, __ATOMIC_RELAXED);

	for (uint32_t i = 0; i < owners->nb; i++) {
		struct onvm_owner *owner = &owners->of[i];

		/* One without a path may just be forgotten: that puts it again. */
		if (owner->known == 0 && !owners->is_full)
			owner->position =
				onvm_flow_table_put(table, owner->kind, &owner->key, owner->hash);
		if (owner->position == ONVM_FLOW_NONE) {
			if (owners->is_full)
				continue;
			owners->is_full = true;
			worker->stats.flow_table_full++;
			return false;
		}
		onvm_flow_touch(&table->flows[owner->position], now);
		if (!owner->has_wish && !keep(table, owner, path))
			return false;
	}
	return true;
}

void
onvm_affinity_own(struct onvm_flow_table *table, uint32_t position,
		  const struct onvm_owners *owners)
{
	__atomic_store_n(&table->has_owners, 1, __ATOMIC_RELAXED);
	for (uint32_t i = 0; i < ONVM_AFFINITIES_MAX; i++) {
		const uint32_t owner = i < owners->nb ? owners->of[i].position + 1 : 0;

		__atomic_store_n(&table->owners[position][i], owner, __ATOMIC_RELAXED);
	}
}
