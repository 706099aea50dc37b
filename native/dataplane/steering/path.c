/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Rendered paths: made once for each choice of NF hosts, and found again. steering.h has the rules.
 */

#include "steering/path.h"

#include <stddef.h>
#include <string.h>

#include <onvm/assert.h>

static_assert(offsetof(struct onvm_path, state) == 0, "what is behind the state is the rest");

static uint32_t
intern_hash(uint16_t chain, const uint16_t *hosts, uint32_t nb_hosts, uint16_t egress)
{
	uint32_t hash = 2166136261u ^ chain;

	hash = (hash * 16777619u) ^ egress;
	for (uint32_t i = 0; i < nb_hosts; i++)
		hash = (hash * 16777619u) ^ hosts[i];
	return (hash ^ hash >> 15) % ONVM_INTERN_BUCKETS;
}

bool
onvm_path_has_reverse_of(const struct onvm_steering *steering, const struct onvm_path *path,
			 const struct onvm_chain *chain)
{
	if (path->opposite == 0 || !chain->is_bidirectional)
		return path->opposite == 0 && !chain->is_bidirectional;
	return steering->paths[path->opposite].egress == chain->near_port;
}

static bool
path_matches(const struct onvm_steering *steering, const struct onvm_path *path, uint16_t chain,
	     const uint16_t *hosts, uint32_t nb_hosts, uint16_t egress)
{
	if (path->chain != chain || path->nb_hops != nb_hosts || path->egress != egress ||
	    (steering->chains[chain].number != 0 &&
	     path->spi >> 1 != steering->chains[chain].number) ||
	    path->is_reverse || __atomic_load_n(&path->state, __ATOMIC_ACQUIRE) != ONVM_PATH_LIVE ||
	    (chain != 0 && !onvm_path_has_reverse_of(steering, path, &steering->chains[chain])))
		return false;
	for (uint32_t i = 0; i < nb_hosts; i++)
		if (path->hops[i].host != hosts[i] ||
		    path->hops[i].generation != steering->hosts[hosts[i]].generation)
			return false;
	return true;
}

/** Index of a path that may be written, or 0; the lock is held. */
static uint16_t
path_alloc(struct onvm_steering *steering)
{
	if (steering->nb_free_paths != 0) {
		const uint32_t nb = steering->nb_free_paths - 1;

		__atomic_store_n(&steering->nb_free_paths, nb, __ATOMIC_RELAXED);
		ONVM_ASSERT(steering->paths[steering->free_paths[nb]].state == ONVM_PATH_FREE);
		return steering->free_paths[nb];
	}
	if (steering->nb_paths >= ONVM_PATHS_MAX)
		return 0;
	return (uint16_t)__atomic_fetch_add(&steering->nb_paths, 1, __ATOMIC_RELAXED);
}

void
onvm_steering_give_back(struct onvm_steering *steering, uint16_t index)
{
	ONVM_ASSERT(index != 0 && steering->nb_free_paths < ONVM_PATHS_MAX);
	ONVM_ASSERT(steering->paths[index].state == ONVM_PATH_FREE);
	steering->free_paths[steering->nb_free_paths] = index;
	__atomic_store_n(&steering->nb_free_paths, steering->nb_free_paths + 1, __ATOMIC_RELAXED);
}

void
onvm_path_unlink(struct onvm_steering *steering, uint16_t index)
{
	struct onvm_path *path = &steering->paths[index];

	for (uint16_t *link = &steering->intern[path->bucket]; *link != 0;
	     link = &steering->paths[*link].next) {
		if (*link != index)
			continue;
		__atomic_store_n(link, path->next, __ATOMIC_RELEASE);
		return;
	}
}

void
onvm_path_link(struct onvm_steering *steering, uint16_t index)
{
	struct onvm_path *path = &steering->paths[index];

	path->next = steering->intern[path->bucket];
	/* I1: pairs with the acquire load I2 in intern_find(). */
	__atomic_store_n(&steering->intern[path->bucket], index, __ATOMIC_RELEASE);
}

/** Service path identifier: this host's own, or one that means the same in all of the cluster. */
static uint32_t
spi_of(const struct onvm_steering *steering, uint16_t index)
{
	const struct onvm_path *path = &steering->paths[index];
	const uint32_t number = steering->chains[path->chain].number;

	return number == 0 ? index : number << 1 | path->is_reverse;
}

/** Whether packets that leave the path teach the other direction; else those at peers do. */
static bool
learns(const struct onvm_path *path)
{
	return path->opposite != 0 && path->remotes == 0 && path->egress < ONVM_PORTS_MAX;
}

/** Fill a free path; its state stays, because housekeeping reads the states of all paths. */
static void
path_fill(struct onvm_steering *steering, uint16_t index, uint16_t chain, const uint16_t *hosts,
	  uint32_t nb_hosts, uint16_t egress)
{
	struct onvm_path *path = &steering->paths[index];

	memset((uint8_t *)path + sizeof(path->state), 0, sizeof(*path) - sizeof(path->state));
	path->chain = chain;
	path->egress = egress;
	path->spi = spi_of(steering, index);
	path->nb_hops = (uint8_t)nb_hosts;
	for (uint32_t i = 0; i < nb_hosts; i++) {
		const struct onvm_host *host = &steering->hosts[hosts[i]];

		path->hops[i] = (struct onvm_hop){.host = hosts[i],
						  .nb_services = host->nb_stages,
						  .generation = host->generation};
		path->nb_services = (uint8_t)(path->nb_services + host->nb_stages);
		if (host->peer != 0)
			path->remotes |= (uint16_t)(1u << i);
	}
	for (uint32_t i = 0; i < nb_hosts; i++) {
		uint8_t nb_visits = 0;

		for (uint32_t k = 0; k < nb_hosts; k++)
			nb_visits = (uint8_t)(nb_visits + (hosts[k] == hosts[i]));
		if (nb_visits > path->nb_visits)
			path->nb_visits = nb_visits;
	}
}

/** Make the path backwards through the same hosts; the lock is held. */
static uint16_t
path_reverse(struct onvm_steering *steering, uint16_t forward, uint16_t egress)
{
	const uint16_t index = path_alloc(steering);
	struct onvm_path *path = &steering->paths[index];
	const struct onvm_path *from = &steering->paths[forward];

	if (index == 0)
		return 0;
	memcpy((uint8_t *)path + sizeof(path->state), (const uint8_t *)from + sizeof(from->state),
	       sizeof(*path) - sizeof(path->state));
	path->next = 0;
	path->is_reverse = 1;
	path->egress = egress;
	path->opposite = forward;
	path->spi = spi_of(steering, index);
	path->learns = learns(path);
	for (uint32_t i = 0; i < from->nb_hops; i++)
		path->hops[i] = from->hops[from->nb_hops - 1 - i];
	path->remotes = 0;
	for (uint32_t i = 0; i < from->nb_hops; i++)
		if (onvm_path_is_remote(from, from->nb_hops - 1 - i))
			path->remotes |= (uint16_t)(1u << i);
	__atomic_store_n(&path->state, ONVM_PATH_LIVE, __ATOMIC_RELEASE);
	return index;
}

/** The live path in @p bucket, or 0. Without the lock it may miss one that is being added. */
static uint16_t
intern_find(const struct onvm_steering *steering, uint32_t bucket, uint16_t chain,
	    const uint16_t *hosts, uint32_t nb_hosts, uint16_t egress)
{
	/* I2: pairs with the release store I1 in onvm_path_intern(). */
	uint16_t index = __atomic_load_n(&steering->intern[bucket], __ATOMIC_ACQUIRE);

	while (index != 0 &&
	       !path_matches(steering, &steering->paths[index], chain, hosts, nb_hosts, egress))
		index = __atomic_load_n(&steering->paths[index].next, __ATOMIC_ACQUIRE);
	return index;
}

uint16_t
onvm_path_find(const struct onvm_steering *steering, uint16_t chain, const uint16_t *hosts,
	       uint32_t nb_hosts, uint16_t egress)
{
	return intern_find(steering, intern_hash(chain, hosts, nb_hosts, egress), chain, hosts,
			   nb_hosts, egress);
}

uint16_t
onvm_path_intern(struct onvm_steering *steering, uint16_t chain, const uint16_t *hosts,
		 uint32_t nb_hosts, uint16_t egress)
{
	const uint32_t bucket = intern_hash(chain, hosts, nb_hosts, egress);
	uint16_t index = intern_find(steering, bucket, chain, hosts, nb_hosts, egress);
	struct onvm_path *path;

	if (index != 0)
		return index;
	rte_spinlock_lock(&steering->lock);
	index = intern_find(steering, bucket, chain, hosts, nb_hosts, egress);
	if (index == 0) {
		const bool has_reverse = chain != 0 && steering->chains[chain].is_bidirectional;

		index = path_alloc(steering);
		if (index == 0)
			goto out;
		path = &steering->paths[index];
		path_fill(steering, index, chain, hosts, nb_hosts, egress);
		if (has_reverse) {
			path->opposite =
				path_reverse(steering, index, steering->chains[chain].near_port);
			if (path->opposite == 0) {
				onvm_steering_give_back(steering, index);
				index = 0;
				goto out;
			}
			path->learns = learns(path);
		}
		path->bucket = (uint16_t)bucket;
		__atomic_store_n(&path->state, ONVM_PATH_LIVE, __ATOMIC_RELEASE);
		onvm_path_link(steering, index);
	}
out:
	rte_spinlock_unlock(&steering->lock);
	return index;
}
