/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Paths that span hosts. Every host renders them for itself; what travels in packets is which NF
 * hosts they lead through, by numbers that the cluster gives out.
 */

#include "steering/spanning.h"

#include <string.h>
#include <time.h>

#include "steering/mix.h"
#include "steering/path.h"

static inline uint16_t
number_of(const struct onvm_host *host)
{
	return __atomic_load_n(&host->number, __ATOMIC_ACQUIRE);
}

void
onvm_span_numbers(const struct onvm_steering *steering, const struct onvm_path *path,
		  uint16_t *numbers)
{
	memset(numbers, 0, ONVM_SPAN_MAX * sizeof(*numbers));
	for (uint32_t i = 0; i < path->nb_hops && i < ONVM_SPAN_MAX; i++) {
		const struct onvm_hop *hop =
			&path->hops[path->is_reverse ? path->nb_hops - 1 - i : i];
		const struct onvm_host *host = &steering->hosts[hop->host];

		if (host->generation == hop->generation)
			numbers[i] = number_of(host);
	}
}

uint64_t
onvm_span_seed(const uint16_t *numbers)
{
	uint64_t words[ONVM_SPAN_MAX / 4];

	memcpy(words, numbers, sizeof(words));
	return onvm_mix(words[0] + onvm_mix(words[1]));
}

uint16_t
onvm_span_substitute(const struct onvm_steering *steering, const struct onvm_choice *choice,
		     uint64_t seed, uint32_t nb_stages)
{
	uint64_t best_score = 0;
	uint16_t best = 0;

	for (uint32_t i = 0; i < choice->nb_hosts; i++) {
		const struct onvm_host *host = &steering->hosts[choice->hosts[i]];
		const uint64_t score = onvm_mix(seed ^ number_of(host));

		if (nb_stages != 0 && host->nb_stages != nb_stages)
			continue;
		if (best == 0 || score > best_score) {
			best = choice->hosts[i];
			best_score = score;
		}
	}
	return best;
}

static uint16_t
chain_by_number(const struct onvm_steering *steering, uint32_t number)
{
	for (uint16_t id = 1; number != 0 && id < ONVM_CHAINS_MAX; id++)
		if (steering->chains[id].is_used &&
		    __atomic_load_n(&steering->chains[id].number, __ATOMIC_ACQUIRE) == number)
			return id;
	return 0;
}

/** Whether @p slot still takes packets of @p chain at @p position. */
static bool
serves(const struct onvm_steering *steering, uint16_t slot, const struct onvm_chain *chain,
       uint32_t position)
{
	const struct onvm_host *host = &steering->hosts[slot];
	const uint8_t state = __atomic_load_n(&host->state, __ATOMIC_ACQUIRE);

	return (state == ONVM_HOST_ACTIVE || state == ONVM_HOST_DRAINING) &&
	       position + host->nb_stages <= chain->nb_services &&
	       memcmp(host->services, chain->services + position,
		      host->nb_stages * sizeof(host->services[0])) == 0;
}

/** Whether @p number has been unknown for so long that it will not be told any more. */
static bool
is_long_unknown(struct onvm_steering *steering, uint16_t number)
{
	uint32_t *since = &steering->unknown_since_s[number], first;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	first = __atomic_load_n(since, __ATOMIC_RELAXED);
	if (first == 0)
		__atomic_store_n(since, (uint32_t)now.tv_sec + 1, __ATOMIC_RELAXED);
	return first != 0 && (uint32_t)now.tv_sec + 1 - first > ONVM_UNKNOWN_S;
}

/**
 * Host that serves as NF host @p number at @p position of @p chain: itself, or the one that has its
 * state.
 *
 * @return its slot; 0: none any more; ONVM_SLOTS_MAX: that is not known yet
 */
static uint16_t
serving(struct onvm_steering *steering, uint16_t number, const struct onvm_chain *chain,
	uint32_t position)
{
	for (uint32_t i = 0; number != 0 && i < ONVM_SUCCESSORS_MAX; i++) {
		/* N2: both pair with the release stores N1 in control/numbers.c. */
		const uint16_t slot = __atomic_load_n(&steering->slots[number], __ATOMIC_ACQUIRE);
		const uint16_t successor =
			__atomic_load_n(&steering->successors[number], __ATOMIC_ACQUIRE);

		if (slot != 0 && serves(steering, slot, chain, position))
			return slot;
		/*
		 * Another host has heard of it before us. If its flows went to a substitute now,
		 * their state would arise there, and be missing a moment later.
		 */
		if (successor == 0 && !is_long_unknown(steering, number))
			return ONVM_SLOTS_MAX;
		number = successor == number ? 0 : successor;
	}
	return 0;
}

uint16_t
onvm_span_path(struct onvm_steering *steering, uint32_t number, const uint16_t *numbers,
	       uint32_t hash)
{
	const uint16_t id = chain_by_number(steering, number);
	const struct onvm_chain *chain = &steering->chains[id];
	const struct onvm_candidates *candidates =
		id == 0 ? NULL : __atomic_load_n(&chain->candidates, __ATOMIC_ACQUIRE);
	uint64_t seed = onvm_span_seed(numbers);
	uint16_t hosts[ONVM_CHAIN_LENGTH_MAX];
	uint32_t nb_hosts = 0, position = 0;

	if (candidates == NULL)
		return 0;
	if (numbers[0] == 0)
		seed = onvm_mix(hash);
	while (position < candidates->nb_services) {
		const uint16_t wanted = nb_hosts < ONVM_SPAN_MAX ? numbers[nb_hosts] : 0;
		uint16_t host = serving(steering, wanted, chain, position);

		if (host == ONVM_SLOTS_MAX)
			return 0;
		if (host == 0)
			host = onvm_span_substitute(steering, &candidates->choices[position], seed,
						    0);
		if (host == 0)
			return 0;
		hosts[nb_hosts++] = host;
		position += steering->hosts[host].nb_stages;
	}
	return position == candidates->nb_services ?
		       onvm_path_intern(steering, id, hosts, nb_hosts, chain->far_port) :
		       0;
}

/** Whether a peer runs an NF host of @p service, or the last one in a slot was there. */
static bool
has_served(const struct onvm_steering *steering, uint16_t service, uint16_t peer)
{
	for (uint32_t slot = ONVM_HOSTS_MAX; slot < steering->nb_slots; slot++) {
		const struct onvm_host *host = &steering->hosts[slot];

		for (uint32_t i = 0; host->peer == peer && i < host->nb_stages; i++)
			if (host->services[i] == service)
				return true;
	}
	return false;
}

bool
onvm_span_may_hand_over(const struct onvm_steering *steering, const struct onvm_path *path,
			uint32_t hop, uint16_t peer)
{
	const struct onvm_chain *chain = &steering->chains[path->chain];

	if ((path->is_reverse ? chain->far_port : chain->near_port) == (ONVM_PORT_REMOTE | peer))
		return true;
	for (uint32_t i = 0; i < hop; i++)
		if (steering->hosts[path->hops[i].host].peer == peer)
			return true;
	return hop < path->nb_hops &&
	       has_served(steering, steering->hosts[path->hops[hop].host].services[0], peer);
}
