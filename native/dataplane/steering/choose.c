/* SPDX-License-Identifier: Apache-2.0 */
#include "steering/choose.h"

#include "steering/choice.h"
#include "steering/mix.h"
#include "steering/path.h"
#include "steering/rows.h"

/** A host about which nothing is known yet counts as this much spare. */
#define SPARE_FLOOR_PPS 1u
/** Choices for a flow among known paths when no path can be made. */
#define FULL_TRIES 32u

uint16_t
onvm_steering_choose_host(const struct onvm_steering *steering, const uint16_t *hosts,
			  uint32_t nb_hosts, struct onvm_selector *selector)
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
	/* Weights change: what one owes from better times must not bar it forever. */
	if (selector->credit[best] > total)
		selector->credit[best] = total;
	selector->credit[best] -= total;
	for (uint32_t i = 0; i < nb_hosts; i++)
		if (selector->credit[hosts[i]] < -total)
			selector->credit[hosts[i]] = -total;
	return best;
}

/** Choose NF hosts for each position by themselves; @return how many, 0: a service has none. */
static uint32_t
choose_each(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
	    struct onvm_selector *selector, const struct onvm_wishes *wishes, uint16_t *hosts)
{
	uint32_t nb_hosts = 0;

	for (uint32_t position = 0; position < candidates->nb_services;) {
		const struct onvm_choice *choice = &candidates->choices[position];
		uint16_t host = onvm_choice_wished(choice, wishes);

		if (host == 0 && choice->nb_hosts != 0)
			host = onvm_steering_choose_host(steering, choice->hosts, choice->nb_hosts,
							 selector);
		if (host == 0)
			return 0;
		hosts[nb_hosts++] = host;
		position += steering->hosts[host].nb_stages;
	}
	return nb_hosts;
}

/** Choose NF hosts; @return whether all services have one. */
static bool
choose_hosts(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
	     struct onvm_selector *selector, const struct onvm_wishes *wishes, uint16_t *hosts,
	     uint32_t *nb_hosts)
{
	*nb_hosts = candidates->nb_rows != 0 ?
			    onvm_rows_pick(steering, candidates, selector, wishes, hosts) :
			    choose_each(steering, candidates, selector, wishes, hosts);
	return *nb_hosts != 0 || candidates->nb_services == 0;
}

uint16_t
onvm_steering_choose_with(struct onvm_steering *steering, uint16_t chain,
			  const struct onvm_candidates *candidates, struct onvm_selector *selector,
			  const struct onvm_wishes *wishes)
{
	const uint16_t egress = steering->chains[chain].far_port;
	uint16_t hosts[ONVM_CHAIN_LENGTH_MAX], path;
	uint32_t nb_hosts;

	if (!choose_hosts(steering, candidates, selector, wishes, hosts, &nb_hosts))
		return 0;
	path = onvm_path_intern(steering, chain, hosts, nb_hosts, egress);
	/* The table is full: what it has of this chain is better than no path. */
	for (uint32_t i = 0; path == 0 && i < FULL_TRIES; i++) {
		if (!choose_hosts(steering, candidates, selector, wishes, hosts, &nb_hosts))
			return 0;
		path = onvm_path_find(steering, chain, hosts, nb_hosts, egress);
	}
	if (path == 0 && (wishes == NULL || wishes->nb == 0))
		path = onvm_steering_resolve(steering, candidates->default_path);
	return path;
}

uint16_t
onvm_steering_choose_by_hash(struct onvm_steering *steering, uint16_t chain,
			     const struct onvm_candidates *candidates,
			     const struct onvm_wishes *wishes, uint64_t hash)
{
	uint16_t hosts[ONVM_CHAIN_LENGTH_MAX];
	uint32_t nb_hosts = 0;

	for (uint32_t position = 0; position < candidates->nb_services;) {
		const struct onvm_choice *choice = &candidates->choices[position];
		uint16_t host = onvm_choice_wished(choice, wishes);

		if (host == 0 && candidates->nb_rows != 0 && choice->nb_hosts != 0)
			host = candidates->rows[position * candidates->nb_rows +
						(uint32_t)(onvm_mix(hash) % candidates->nb_rows)];
		else if (host == 0)
			host = onvm_choice_by_hash(choice, hash);
		if (host == 0)
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
	return onvm_steering_choose_with(steering, chain, candidates, selector, NULL);
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
	return nb_hosts == 0 ? 0 : onvm_steering_choose_host(steering, hosts, nb_hosts, selector);
}

uint16_t
onvm_steering_detour(struct onvm_steering *steering, uint16_t host, uint16_t egress)
{
	return onvm_path_intern(steering, 0, &host, 1, egress);
}
