/* SPDX-License-Identifier: Apache-2.0 */
#include "set.h"

#include <stdlib.h>
#include <string.h>

#include <onvm/checksum.h>

#define TOPS 65536u

struct range4 {
	uint32_t first, last;
};

struct range6 {
	unsigned __int128 first, last;
};

struct address_set {
	struct range4 *ranges4;
	struct range6 *ranges6;
	uint32_t nb4, nb6;
	uint32_t
		tops[TOPS + 1]; /* by the first 16 bits: the first range that ends there or later */
};

struct address_set *
set_create(const struct firewall_set *given)
{
	struct address_set *const set = calloc(1, sizeof(*set));

	if (set == NULL)
		return NULL;
	set->nb4 = given->nb4;
	set->nb6 = given->nb6;
	set->ranges4 = calloc(given->nb4 + 1, sizeof(*set->ranges4));
	set->ranges6 = calloc(given->nb6 + 1, sizeof(*set->ranges6));
	if (set->ranges4 == NULL || set->ranges6 == NULL) {
		set_free(set);
		return NULL;
	}
	if (given->nb4 != 0)
		memcpy(set->ranges4, given->ranges4, given->nb4 * sizeof(*set->ranges4));
	for (uint32_t i = 0; i < given->nb6; i++) {
		const uint64_t *const range = given->ranges6 + 4 * (size_t)i;

		set->ranges6[i].first = (unsigned __int128)range[0] << 64 | range[1];
		set->ranges6[i].last = (unsigned __int128)range[2] << 64 | range[3];
	}
	for (uint32_t top = 0, at = 0; top < TOPS; top++) {
		while (at < set->nb4 && set->ranges4[at].last < top << 16)
			at++;
		set->tops[top] = at;
	}
	set->tops[TOPS] = set->nb4;
	return set;
}

void
set_free(struct address_set *set)
{
	if (set == NULL)
		return;
	free(set->ranges4);
	free(set->ranges6);
	free(set);
}

static bool
has4(const struct address_set *set, uint32_t address)
{
	const uint32_t top = address >> 16;
	uint32_t low = set->tops[top], high = set->tops[top + 1];

	/* the first range that ends at the address or later; of the next top it may be the first */
	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;

		if (set->ranges4[middle].last < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < set->nb4 && set->ranges4[low].first <= address;
}

static bool
has6(const struct address_set *set, unsigned __int128 address)
{
	uint32_t low = 0, high = set->nb6;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;

		if (set->ranges6[middle].last < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < set->nb6 && set->ranges6[low].first <= address;
}

bool
set_has(const struct address_set *set, uint32_t ip_version, const uint8_t *address)
{
	unsigned __int128 number = 0;

	if (ip_version == 4)
		return has4(set, onvm_load_be32(address));
	for (uint32_t i = 0; i < ONVM_ADDRESS_BYTES; i += 4)
		number = number << 32 | onvm_load_be32(address + i);
	return has6(set, number);
}
