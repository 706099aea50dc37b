/* SPDX-License-Identifier: Apache-2.0 */
#include "steering/retire.h"

#include <string.h>

#include "steering/choice.h"
#include "steering/choose.h"
#include "steering/path.h"
#include "steering/spanning.h"

/** Host that replaces one that has ended, at a position with @p nb_stages; 0: none. */
static uint16_t
replacement(struct onvm_steering *steering, const struct onvm_path *path,
	    const struct onvm_choice *choice, uint32_t nb_stages, uint16_t next_host)
{
	uint16_t numbers[ONVM_SPAN_MAX], host;

	if (choice->nb_hosts == 0)
		return 0;
	if (onvm_choice_has(choice, next_host))
		return steering->hosts[next_host].nb_stages == nb_stages ? next_host : 0;
	if (steering->chains[path->chain].number != 0) {
		onvm_span_numbers(steering, path, numbers);
		return onvm_span_substitute(steering, choice, onvm_span_seed(numbers), nb_stages);
	}
	host = onvm_steering_choose_host(steering, choice->hosts, choice->nb_hosts,
					 steering->selector);
	/* Fused differently: the flow gets a new choice. */
	return steering->hosts[host].nb_stages == nb_stages ? host : 0;
}

/** A path like @p path with another host instead of each that is not active; 0: none. */
static uint16_t
find_successor(struct onvm_steering *steering, const struct onvm_path *path, uint16_t next_host)
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
					       hop->nb_services, next_host);
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
		/* T1: pairs with the acquire load T2 in onvm_path_is_retired(). */
		__atomic_store_n(&opposite->state, ONVM_PATH_RETIRED, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&path->successor, successor, __ATOMIC_RELEASE);
	/* T1: pairs with the acquire load T2 in onvm_path_is_retired(). */
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
onvm_steering_retire_host(struct onvm_steering *steering, uint16_t host, uint16_t next_host)
{
	const uint32_t end = __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED);
	uint32_t nb = 0;

	pthread_mutex_lock(&steering->changes);
	for (uint32_t index = 1; index < end; index++) {
		const struct onvm_path *path = &steering->paths[index];

		if (!is_live_forward(path) || !passes_host(path, host))
			continue;
		retire(steering, (uint16_t)index, find_successor(steering, path, next_host));
		nb++;
	}
	pthread_mutex_unlock(&steering->changes);
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

	pthread_mutex_lock(&steering->changes);
	for (uint32_t i = 1; i < end; i++) {
		const struct onvm_path *path = &steering->paths[i];

		if (!is_live_forward(path) || path->chain != index ||
		    is_of_chain(steering, path, &steering->chains[index]))
			continue;
		retire(steering, (uint16_t)i, 0);
		nb++;
	}
	pthread_mutex_unlock(&steering->changes);
	return nb;
}

/** Host of @p path that can serve the position that @p choice is about; 0: none. */
static uint16_t
host_kept(const struct onvm_steering *steering, const struct onvm_path *path,
	  const struct onvm_choice *choice)
{
	for (uint32_t i = 0; i < path->nb_hops; i++) {
		const struct onvm_hop *hop = &path->hops[i];

		if (steering->hosts[hop->host].generation == hop->generation &&
		    onvm_choice_has(choice, hop->host))
			return hop->host;
	}
	return 0;
}

/** The path of chain @p next that is most like @p path; 0: none. */
static uint16_t
find_like(struct onvm_steering *steering, const struct onvm_path *path, uint16_t next)
{
	const struct onvm_chain *chain = &steering->chains[next];
	const struct onvm_candidates *candidates = chain->candidates;
	uint16_t hosts[ONVM_CHAIN_LENGTH_MAX], numbers[ONVM_SPAN_MAX];
	uint32_t nb_hosts = 0, position = 0;

	if (candidates == NULL)
		return 0;
	onvm_span_numbers(steering, path, numbers);
	while (position < candidates->nb_services) {
		const struct onvm_choice *choice = &candidates->choices[position];
		uint16_t host = host_kept(steering, path, choice);

		if (host == 0)
			host = onvm_span_substitute(steering, choice, onvm_span_seed(numbers), 0);
		if (host == 0)
			return 0;
		hosts[nb_hosts++] = host;
		position += steering->hosts[host].nb_stages;
	}
	return onvm_path_intern(steering, next, hosts, nb_hosts, chain->far_port);
}

uint32_t
onvm_steering_succeed_chain(struct onvm_steering *steering, uint16_t chain, uint16_t next)
{
	const struct onvm_chain *from = &steering->chains[chain], *to = &steering->chains[next];
	const bool is_like = from->near_port == to->near_port && from->far_port == to->far_port;
	const uint32_t end = __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED);
	uint32_t nb = 0;

	pthread_mutex_lock(&steering->changes);
	for (uint32_t i = 1; i < end; i++) {
		const struct onvm_path *path = &steering->paths[i];

		if (!is_live_forward(path) || path->chain != chain)
			continue;
		retire(steering, (uint16_t)i, is_like ? find_like(steering, path, next) : 0);
		nb++;
	}
	pthread_mutex_unlock(&steering->changes);
	return nb;
}
