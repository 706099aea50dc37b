/* SPDX-License-Identifier: Apache-2.0 */
#include "steering/steering.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/** A host about which nothing is known yet counts as this much spare. */
#define SPARE_FLOOR_PPS 1u

int
onvm_steering_init(struct onvm_steering *steering)
{
	memset(steering, 0, sizeof(*steering));
	rte_spinlock_init(&steering->lock);
	steering->paths = calloc(ONVM_PATHS_MAX, sizeof(*steering->paths));
	steering->intern = calloc(ONVM_INTERN_BUCKETS, sizeof(*steering->intern));
	steering->free_paths = calloc(ONVM_PATHS_MAX, sizeof(*steering->free_paths));
	steering->marks = calloc(ONVM_PATHS_MAX, sizeof(*steering->marks));
	steering->slots = calloc(ONVM_NUMBERS_MAX, sizeof(*steering->slots));
	steering->successors = calloc(ONVM_NUMBERS_MAX, sizeof(*steering->successors));
	steering->unknown_since_s = calloc(ONVM_NUMBERS_MAX, sizeof(*steering->unknown_since_s));
	steering->selector = calloc(1, sizeof(*steering->selector));
	steering->nb_paths = 1;
	steering->nb_slots = ONVM_HOSTS_MAX;
	if (steering->paths == NULL || steering->intern == NULL || steering->free_paths == NULL ||
	    steering->marks == NULL || steering->slots == NULL || steering->successors == NULL ||
	    steering->unknown_since_s == NULL || steering->selector == NULL) {
		onvm_steering_fini(steering);
		return -ENOMEM;
	}
	return 0;
}

void
onvm_steering_fini(struct onvm_steering *steering)
{
	for (int chain = 0; chain < ONVM_CHAINS_MAX; chain++)
		free(steering->chains[chain].candidates);
	free(steering->paths);
	free(steering->intern);
	free(steering->free_paths);
	free(steering->marks);
	free(steering->slots);
	free(steering->successors);
	free(steering->unknown_since_s);
	free(steering->selector);
	memset(steering, 0, sizeof(*steering));
}

/* ---- choosing ---- */

/** Smooth weighted round robin: over time each host gets flows in proportion to its weight. */
static uint16_t
choose_host(const struct onvm_steering *steering, const uint16_t *hosts, uint32_t nb_hosts,
	    struct onvm_selector *selector)
{
	uint16_t best = hosts[0];
	int64_t total = 0;

	if (nb_hosts == 1)
		return best;
	for (uint32_t i = 0; i < nb_hosts; i++) {
		const uint16_t host = hosts[i];
		int64_t *credit = &selector->credit[host];
		const int64_t weight = (int64_t)__atomic_load_n(&steering->hosts[host].spare_pps,
								__ATOMIC_RELAXED) +
				       SPARE_FLOOR_PPS;

		*credit += weight;
		total += weight;
		if (*credit > selector->credit[best])
			best = host;
	}
	/* Weights change: what one owes from better times must not bar it for ever. */
	if (selector->credit[best] > total)
		selector->credit[best] = total;
	selector->credit[best] -= total;
	for (uint32_t i = 0; i < nb_hosts; i++)
		if (selector->credit[hosts[i]] < -total)
			selector->credit[hosts[i]] = -total;
	return best;
}

static bool
choice_has(const struct onvm_choice *choice, uint16_t host)
{
	for (uint32_t i = 0; i < (uint32_t)choice->nb_hosts + choice->nb_draining; i++)
		if (choice->hosts[i] == host)
			return true;
	return false;
}

uint16_t
onvm_steering_choose_with(struct onvm_steering *steering, uint16_t chain,
			  const struct onvm_candidates *candidates, struct onvm_selector *selector,
			  uint16_t wanted)
{
	uint16_t hosts[ONVM_CHAIN_LENGTH_MAX];
	uint32_t nb_hosts = 0;

	for (uint32_t position = 0; position < candidates->nb_services;) {
		const struct onvm_choice *choice = &candidates->choices[position];
		uint16_t host;

		if (choice_has(choice, wanted))
			host = wanted;
		else if (choice->nb_hosts != 0)
			host = choose_host(steering, choice->hosts, choice->nb_hosts, selector);
		else
			return 0;
		hosts[nb_hosts++] = host;
		position += steering->hosts[host].nb_stages;
	}
	return onvm_path_intern(steering, chain, hosts, nb_hosts, steering->chains[chain].far_port);
}

uint16_t
onvm_steering_choose(struct onvm_steering *steering, uint16_t chain,
		     const struct onvm_candidates *candidates, struct onvm_selector *selector)
{
	return onvm_steering_choose_with(steering, chain, candidates, selector, 0);
}

uint16_t
onvm_steering_host_of(struct onvm_steering *steering, uint16_t service,
		      struct onvm_selector *selector)
{
	uint16_t hosts[ONVM_HOSTS_MAX];
	uint32_t nb_hosts = 0;

	for (uint16_t host = 1; host < ONVM_HOSTS_MAX; host++)
		if (__atomic_load_n(&steering->hosts[host].state, __ATOMIC_ACQUIRE) ==
			    ONVM_HOST_ACTIVE &&
		    steering->hosts[host].services[0] == service)
			hosts[nb_hosts++] = host;
	return nb_hosts == 0 ? 0 : choose_host(steering, hosts, nb_hosts, selector);
}

uint16_t
onvm_steering_detour(struct onvm_steering *steering, uint16_t host, uint16_t egress)
{
	return onvm_path_intern(steering, 0, &host, 1, egress);
}

/* ---- control thread ---- */

/** Whether @p host serves @p chain from @p position on, with all of its stages. */
static bool
host_fits(const struct onvm_host *host, const struct onvm_chain *chain, uint32_t position,
	  enum onvm_host_state state)
{
	if (host->state != state || position + host->nb_stages > chain->nb_services)
		return false;
	if (chain->number == 0 ? host->peer != 0 : host->number == 0)
		return false;
	for (uint32_t stage = 0; stage < host->nb_stages; stage++)
		if (host->services[stage] != chain->services[position + stage])
			return false;
	return true;
}

/** Whether the rest of the chain can be served from @p position on, by what was found so far. */
static bool
can_continue(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
	     uint32_t position, uint16_t host)
{
	const uint32_t next = position + steering->hosts[host].nb_stages;

	return next == candidates->nb_services || candidates->choices[next].nb_hosts != 0;
}

/** Empty candidates with room for every active host at every position. */
static struct onvm_candidates *
candidates_alloc(const struct onvm_steering *steering, uint32_t nb_services)
{
	struct onvm_candidates *candidates;
	uint32_t nb_hosts = 0;
	uint16_t *hosts;

	for (uint32_t slot = 1; slot < steering->nb_slots; slot++)
		nb_hosts += steering->hosts[slot].state == ONVM_HOST_ACTIVE ||
			    steering->hosts[slot].state == ONVM_HOST_DRAINING;
	candidates = calloc(1, sizeof(*candidates) + nb_services * (sizeof(candidates->choices[0]) +
								    nb_hosts * sizeof(*hosts)));
	if (candidates == NULL)
		return NULL;
	candidates->nb_services = (uint16_t)nb_services;
	hosts = (uint16_t *)&candidates->choices[nb_services];
	for (uint32_t position = 0; position < nb_services; position++)
		candidates->choices[position].hosts = hosts + position * nb_hosts;
	return candidates;
}

struct onvm_candidates *
onvm_steering_candidates(struct onvm_steering *steering, uint16_t index)
{
	const struct onvm_chain *chain = &steering->chains[index];
	struct onvm_candidates *candidates = candidates_alloc(steering, chain->nb_services);
	bool is_single = true;

	if (candidates == NULL)
		return NULL;
	/* From the end, so that no choice leads to where nobody goes on. */
	for (uint32_t position = chain->nb_services; position-- > 0;) {
		struct onvm_choice *choice = &candidates->choices[position];

		for (uint16_t host = 1; host < steering->nb_slots; host++)
			if (host_fits(&steering->hosts[host], chain, position, ONVM_HOST_ACTIVE) &&
			    can_continue(steering, candidates, position, host))
				choice->hosts[choice->nb_hosts++] = host;
		for (uint16_t host = 1; host < steering->nb_slots; host++)
			if (host_fits(&steering->hosts[host], chain, position,
				      ONVM_HOST_DRAINING) &&
			    can_continue(steering, candidates, position, host))
				choice->hosts[choice->nb_hosts + choice->nb_draining++] = host;
	}
	for (uint32_t position = 0; position < chain->nb_services && is_single;) {
		const struct onvm_choice *choice = &candidates->choices[position];

		is_single = choice->nb_hosts == 1;
		if (is_single)
			position += steering->hosts[choice->hosts[0]].nb_stages;
	}
	memset(steering->selector, 0, sizeof(*steering->selector));
	candidates->default_path =
		onvm_steering_choose(steering, index, candidates, steering->selector);
	if (is_single)
		candidates->single_path = candidates->default_path;
	return candidates;
}

/** Who takes the place of a host that has ended on paths of @p chain; 0: nobody. */
static uint16_t
replacement(struct onvm_steering *steering, const struct onvm_path *path,
	    const struct onvm_choice *choice, uint32_t nb_stages, uint16_t successor)
{
	uint16_t numbers[ONVM_SPAN_MAX], host;

	if (choice->nb_hosts == 0)
		return 0;
	if (choice_has(choice, successor))
		return steering->hosts[successor].nb_stages == nb_stages ? successor : 0;
	if (steering->chains[path->chain].number != 0) {
		onvm_span_numbers(steering, path, numbers);
		return onvm_span_substitute(steering, choice, onvm_span_seed(numbers), nb_stages);
	}
	host = choose_host(steering, choice->hosts, choice->nb_hosts, steering->selector);
	/* Fused otherwise: the flow is chosen anew. */
	return steering->hosts[host].nb_stages == nb_stages ? host : 0;
}

/** A path like @p path with another host in place of each that is not active; 0: none. */
static uint16_t
find_successor(struct onvm_steering *steering, const struct onvm_path *path, uint16_t successor)
{
	const struct onvm_chain *chain = &steering->chains[path->chain];
	const struct onvm_candidates *candidates = chain->candidates;
	uint16_t hosts[ONVM_CHAIN_LENGTH_MAX];
	uint32_t position = 0;

	if (path->chain == 0 || candidates == NULL)
		return 0;
	memset(steering->selector, 0, sizeof(*steering->selector));
	for (uint32_t i = 0; i < path->nb_hops; i++) {
		const struct onvm_hop *hop = &path->hops[i];
		const struct onvm_host *host = &steering->hosts[hop->host];

		hosts[i] = hop->host;
		if (host->generation != hop->generation || host->state == ONVM_HOST_DEAD ||
		    host->state == ONVM_HOST_LEAVING || host->state == ONVM_HOST_FREE) {
			hosts[i] = replacement(steering, path, &candidates->choices[position],
					       hop->nb_services, successor);
			if (hosts[i] == 0)
				return 0;
		}
		position += hop->nb_services;
	}
	return onvm_path_intern(steering, path->chain, hosts, path->nb_hops, path->egress);
}

static void
retire(struct onvm_steering *steering, uint16_t index, uint16_t successor)
{
	struct onvm_path *path = &steering->paths[index];

	if (path->opposite != 0) {
		struct onvm_path *opposite = &steering->paths[path->opposite];

		__atomic_store_n(&opposite->successor,
				 successor == 0 ? 0 : steering->paths[successor].opposite,
				 __ATOMIC_RELEASE);
		__atomic_store_n(&opposite->state, ONVM_PATH_RETIRED, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&path->successor, successor, __ATOMIC_RELEASE);
	__atomic_store_n(&path->state, ONVM_PATH_RETIRED, __ATOMIC_RELEASE);
	__atomic_add_fetch(&steering->nb_retired, path->opposite != 0 ? 2 : 1, __ATOMIC_RELEASE);
}

static bool
is_live_forward(const struct onvm_path *path)
{
	return __atomic_load_n(&path->state, __ATOMIC_ACQUIRE) == ONVM_PATH_LIVE &&
	       !path->is_reverse;
}

static bool
passes_host(const struct onvm_path *path, uint16_t host)
{
	for (uint32_t i = 0; i < path->nb_hops; i++)
		if (path->hops[i].host == host)
			return true;
	return false;
}

uint32_t
onvm_steering_retire_host(struct onvm_steering *steering, uint16_t host, uint16_t successor)
{
	const uint32_t end = __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED);
	uint32_t nb = 0;

	for (uint32_t index = 1; index < end; index++) {
		const struct onvm_path *path = &steering->paths[index];

		if (!is_live_forward(path) || !passes_host(path, host))
			continue;
		retire(steering, (uint16_t)index, find_successor(steering, path, successor));
		nb++;
	}
	return nb;
}

/** Whether @p path goes through the services and to the ports of @p chain as it is now. */
static bool
is_of_chain(const struct onvm_steering *steering, const struct onvm_path *path,
	    const struct onvm_chain *chain)
{
	uint32_t position = 0;

	if (chain->number != 0 && path->spi >> 1 != chain->number)
		return false;
	if (!chain->is_used || path->egress != chain->far_port ||
	    path->nb_services != chain->nb_services ||
	    !onvm_path_has_reverse_of(steering, path, chain))
		return false;
	for (uint32_t i = 0; i < path->nb_hops; i++) {
		const uint32_t nb = path->hops[i].nb_services;

		if (memcmp(steering->hosts[path->hops[i].host].services, chain->services + position,
			   nb * sizeof(chain->services[0])) != 0)
			return false;
		position += nb;
	}
	return true;
}

uint32_t
onvm_steering_retire_chain(struct onvm_steering *steering, uint16_t index)
{
	const uint32_t end = __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED);
	uint32_t nb = 0;

	for (uint32_t i = 1; i < end; i++) {
		const struct onvm_path *path = &steering->paths[i];

		if (!is_live_forward(path) || path->chain != index ||
		    is_of_chain(steering, path, &steering->chains[index]))
			continue;
		retire(steering, (uint16_t)i, 0);
		nb++;
	}
	return nb;
}
