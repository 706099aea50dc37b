/* SPDX-License-Identifier: Apache-2.0 */
#include "steering/candidates.h"

#include <stdlib.h>
#include <string.h>

#include "steering/choose.h"
#include "steering/rows.h"

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

/** Whether the rest of the chain behind @p host can be served by the hosts found so far. */
static bool
can_continue(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
	     uint32_t position, uint16_t host)
{
	const uint32_t next = position + steering->hosts[host].nb_stages;

	return next == candidates->nb_services || candidates->choices[next].nb_hosts != 0;
}

/** Empty candidates with space for every active host at every position. */
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

/** Combinations of the NF hosts found, and how many there are where there are most. */
static void
count_combinations(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
		   uint32_t *combinations, uint32_t *nb_most)
{
	uint64_t from[ONVM_CHAIN_LENGTH_MAX + 1] = {0};

	*nb_most = 0;
	from[candidates->nb_services] = 1;
	for (uint32_t position = candidates->nb_services; position-- > 0;) {
		const struct onvm_choice *choice = &candidates->choices[position];

		for (uint32_t i = 0; i < choice->nb_hosts; i++) {
			from[position] +=
				from[position + steering->hosts[choice->hosts[i]].nb_stages];
			if (from[position] > UINT32_MAX)
				from[position] = UINT32_MAX;
		}
		if (choice->nb_hosts > *nb_most)
			*nb_most = choice->nb_hosts;
	}
	*combinations = (uint32_t)from[0];
}

/** Give the chain rows if it has too many combinations; @return them, or NULL. */
static struct onvm_candidates *
add_rows(const struct onvm_steering *steering, struct onvm_candidates *candidates)
{
	uint32_t combinations, nb_most, nb_chains = 0;

	for (uint32_t id = 1; id < ONVM_CHAINS_MAX; id++)
		nb_chains += steering->chains[id].is_used;
	count_combinations(steering, candidates, &combinations, &nb_most);
	candidates->nb_rows = onvm_rows_wanted(combinations, nb_most, nb_chains);
	if (candidates->nb_rows == 0)
		return candidates;
	candidates->rows = calloc((size_t)candidates->nb_services * candidates->nb_rows,
				  sizeof(*candidates->rows));
	if (candidates->rows == NULL) {
		free(candidates);
		return NULL;
	}
	for (uint32_t position = 0; position < candidates->nb_services; position++) {
		struct onvm_choice *choice = &candidates->choices[position];

		if (choice->nb_hosts == 0)
			continue;
		onvm_rows_fill(steering, choice->hosts, choice->nb_hosts, position,
			       &candidates->rows[position * candidates->nb_rows],
			       candidates->nb_rows);
		onvm_rows_set_mean(steering, choice);
	}
	return candidates;
}

/** Note the services of a chain whose instances addresses decide: the first ones, if too many. */
static void
add_addresses(const struct onvm_steering *steering, const struct onvm_chain *chain,
	      struct onvm_candidates *candidates)
{
	for (uint32_t i = 0; i < chain->nb_services; i++) {
		const uint16_t service = chain->services[i];
		bool is_known = steering->affinity[service] == ONVM_AFFINITY_FLOW;

		for (uint32_t k = 0; k < candidates->nb_addresses; k++)
			is_known |= candidates->addresses[k].service == service;
		if (!is_known && candidates->nb_addresses < ONVM_AFFINITIES_MAX)
			candidates->addresses[candidates->nb_addresses++] =
				(struct onvm_address_rule){.service = service,
							   .affinity = steering->affinity[service],
							   .position = (uint8_t)i};
	}
}

struct onvm_candidates *
onvm_steering_candidates(struct onvm_steering *steering, uint16_t index)
{
	const struct onvm_chain *chain = &steering->chains[index];
	struct onvm_candidates *candidates = candidates_alloc(steering, chain->nb_services);
	bool is_single = true;

	if (candidates == NULL)
		return NULL;
	/* From the end, so that no choice leads into a dead end. */
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
	add_addresses(steering, chain, candidates);
	candidates = add_rows(steering, candidates);
	if (candidates == NULL)
		return NULL;
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
