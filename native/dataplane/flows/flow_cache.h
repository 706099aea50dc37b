/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FLOW_CACHE_H_
#define _ONVM_FLOW_CACHE_H_

/**
 * @file
 * A cache of positions in the flow table: four bytes a flow, so that those of a hundred thousand
 * flows stay in a core's own cache. The buckets of the table would not.
 *
 * It is set-associative and indexed by the flow's hash. An entry is a guess: the position may
 * belong to another flow by now, or to none. The reader compares the key and removes a wrong guess.
 * So no other code needs to keep the cache right, and concurrent writes by two workers do no harm.
 * A flow gets its entry with its second packet: scans, whose flows have one packet, leave the cache
 * alone.
 *
 * The cache starts small and grows with the number of flows, by using one more bit of the hash.
 * Entries that are then in the wrong set are made again.
 *
 * Threads: all workers.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <rte_prefetch.h>

#define ONVM_FLOW_CACHE_WAYS 4
/**
 * Entries in use for each set, on average. The hash is random, so of sets with 1 on average 0.4 %
 * of the flows find all ways taken; with 2 it is 4 %, which sends most bursts to the hash table.
 */
#define ONVM_FLOW_CACHE_LOAD 1
/** Sets in use at first: 16 KiB. */
#define ONVM_FLOW_CACHE_SETS_MIN 1024u
/** An entry is the position + 1 and eight bits of the hash that do not choose the set. */
#define ONVM_FLOW_CACHE_TAG_SHIFT 24
#define ONVM_FLOW_CACHE_POSITIONS_MAX ((1u << ONVM_FLOW_CACHE_TAG_SHIFT) - 2)

struct onvm_flow_cache_set {
	uint32_t ways[ONVM_FLOW_CACHE_WAYS]; /**< atomic; 0: empty */
};

struct onvm_flow_cache {
	struct onvm_flow_cache_set *sets;
	uint32_t mask; /**< atomic: sets in use, less one */
	uint32_t mask_max;
};

/** For @p nb_positions; pages of sets that are not used are never there. @return 0 or -1 */
static inline int
onvm_flow_cache_init(struct onvm_flow_cache *cache, uint32_t nb_positions)
{
	uint32_t nb_sets = ONVM_FLOW_CACHE_SETS_MIN;
	void *sets;

	*cache = (struct onvm_flow_cache){.mask = ONVM_FLOW_CACHE_SETS_MIN - 1};
	if (nb_positions > ONVM_FLOW_CACHE_POSITIONS_MAX)
		nb_positions = ONVM_FLOW_CACHE_POSITIONS_MAX;
	while (nb_sets * ONVM_FLOW_CACHE_LOAD < nb_positions)
		nb_sets *= 2;
	sets = mmap(NULL, nb_sets * sizeof(*cache->sets), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sets == MAP_FAILED)
		return -1;
	cache->sets = sets;
	cache->mask_max = nb_sets - 1;
	return 0;
}

static inline void
onvm_flow_cache_fini(struct onvm_flow_cache *cache)
{
	if (cache->sets != NULL)
		munmap(cache->sets, ((size_t)cache->mask_max + 1) * sizeof(*cache->sets));
}

/** Grow for @p nb_used flows: at most a quarter of the entries shall be in use. */
static inline void
onvm_flow_cache_fit(struct onvm_flow_cache *cache, uint32_t nb_used)
{
	uint32_t mask = __atomic_load_n(&cache->mask, __ATOMIC_RELAXED);

	if (nb_used > mask * ONVM_FLOW_CACHE_LOAD && mask < cache->mask_max)
		__atomic_compare_exchange_n(&cache->mask, &mask, mask * 2 + 1, false,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static inline struct onvm_flow_cache_set *
onvm_flow_cache_set(const struct onvm_flow_cache *cache, uint32_t hash)
{
	return &cache->sets[hash & __atomic_load_n(&cache->mask, __ATOMIC_RELAXED)];
}

static inline void
onvm_flow_cache_prefetch(const struct onvm_flow_cache *cache, uint32_t hash)
{
	rte_prefetch0(onvm_flow_cache_set(cache, hash));
}

/** Position at which a flow with @p hash may be; UINT32_MAX: no idea. */
static inline uint32_t
onvm_flow_cache_find(const struct onvm_flow_cache *cache, uint32_t hash)
{
	const struct onvm_flow_cache_set *set = onvm_flow_cache_set(cache, hash);
	const uint32_t tag = hash >> ONVM_FLOW_CACHE_TAG_SHIFT;

	for (uint32_t i = 0; i < ONVM_FLOW_CACHE_WAYS; i++) {
		const uint32_t entry = __atomic_load_n(&set->ways[i], __ATOMIC_RELAXED);

		if (entry >> ONVM_FLOW_CACHE_TAG_SHIFT == tag && entry != 0)
			return (entry & ((1u << ONVM_FLOW_CACHE_TAG_SHIFT) - 1)) - 1;
	}
	return UINT32_MAX;
}

/** Note that the flow with @p hash is at @p position, in the entry of its tag, an empty one or any. */
static inline void
onvm_flow_cache_put(const struct onvm_flow_cache *cache, uint32_t hash, uint32_t position)
{
	struct onvm_flow_cache_set *set = onvm_flow_cache_set(cache, hash);
	const uint32_t tag = hash >> ONVM_FLOW_CACHE_TAG_SHIFT;
	uint32_t way = position % ONVM_FLOW_CACHE_WAYS;

	if (position > ONVM_FLOW_CACHE_POSITIONS_MAX)
		return;
	for (uint32_t i = 0; i < ONVM_FLOW_CACHE_WAYS; i++) {
		const uint32_t entry = __atomic_load_n(&set->ways[i], __ATOMIC_RELAXED);

		if (entry == 0) {
			way = i;
		} else if (entry >> ONVM_FLOW_CACHE_TAG_SHIFT == tag) {
			way = i;
			break;
		}
	}
	__atomic_store_n(&set->ways[way], tag << ONVM_FLOW_CACHE_TAG_SHIFT | (position + 1),
			 __ATOMIC_RELAXED);
}

/** That the flow with @p hash is at @p position was wrong. */
static inline void
onvm_flow_cache_forget(const struct onvm_flow_cache *cache, uint32_t hash, uint32_t position)
{
	struct onvm_flow_cache_set *set = onvm_flow_cache_set(cache, hash);
	const uint32_t wrong = hash >> ONVM_FLOW_CACHE_TAG_SHIFT << ONVM_FLOW_CACHE_TAG_SHIFT |
			       (position + 1);

	for (uint32_t i = 0; i < ONVM_FLOW_CACHE_WAYS; i++)
		if (__atomic_load_n(&set->ways[i], __ATOMIC_RELAXED) == wrong)
			__atomic_store_n(&set->ways[i], 0, __ATOMIC_RELAXED);
}

#endif /* _ONVM_FLOW_CACHE_H_ */
