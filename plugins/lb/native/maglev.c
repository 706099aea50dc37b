/* SPDX-License-Identifier: Apache-2.0 */
#include "lb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FREE_SLOT UINT32_MAX

int
lb_maglev_fill(const uint32_t *offsets, const uint32_t *skips, const uint32_t *weights, uint32_t nb,
	       uint32_t size, uint32_t *table)
{
	uint64_t *credit;
	uint32_t *next;
	uint32_t max_weight = 0, nb_filled = 0;

	for (uint32_t i = 0; i < nb; i++)
		if (weights[i] > max_weight)
			max_weight = weights[i];
	if (max_weight == 0 || nb >= size)
		return -EINVAL;
	next = malloc(nb * sizeof(*next));
	credit = malloc(nb * sizeof(*credit));
	if (next == NULL || credit == NULL) {
		free(next);
		free(credit);
		return -ENOMEM;
	}
	memcpy(next, offsets, nb * sizeof(*next));
	memset(table, 0xff, size * sizeof(*table));
	/* So that each has a turn in the first round, and a slot. */
	for (uint32_t i = 0; i < nb; i++)
		credit[i] = max_weight;
	for (uint32_t i = 0; nb_filled < size; i = i + 1 == nb ? 0 : i + 1) {
		credit[i] += weights[i];
		if (credit[i] < max_weight || weights[i] == 0)
			continue;
		credit[i] -= max_weight;
		while (table[next[i]] != FREE_SLOT)
			next[i] = (uint32_t)(((uint64_t)next[i] + skips[i]) % size);
		table[next[i]] = i;
		nb_filled++;
	}
	free(next);
	free(credit);
	return 0;
}

/* FNV-1a over the tuple, then the finalizer of MurmurHash3: plain, and the same on every host. */
uint64_t
lb_hash(const struct lb_key *key, bool by_client)
{
	const uint8_t *const bytes = (const uint8_t *)key;
	const uint32_t length = by_client ? sizeof(key->src) : offsetof(struct lb_key, pad);
	uint64_t hash = 0xcbf29ce484222325ull;

	for (uint32_t i = 0; i < length; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3ull;
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdull;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ull;
	return hash ^ hash >> 33;
}
