/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_BITS_H_
#define _ONVM_FIREWALL_BITS_H_

/**
 * @file
 * Which conditional entries match a value of one field: one bit for each entry.
 *
 * The bounds of all spans cut the numbers of the field into intervals. All numbers of an interval
 * match the same entries, so it has one row of bits, and equal rows are kept once (Lakshman and
 * Stiliadis, "High-speed policy-based packet forwarding", SIGCOMM 1998). A look-up is a binary search
 * over the bounds. The rows of all fields, one "and" the other, leave the entries that match.
 */

#include "../firewall.h"

typedef unsigned __int128 bits_number;

struct bits_field {
	bits_number *bounds; /* where intervals begin, sorted; the first is 0 */
	uint32_t *rows;	     /* by interval: its row */
	uint64_t *words;     /* the rows */
	uint32_t nb_intervals, nb_rows;
};

/** @param spans  of which those of @p field and @p ip_version count */
int bits_create(struct bits_field *bits, const struct firewall_config *config,
		enum firewall_field field, uint32_t ip_version, uint32_t nb_words);
void bits_free(struct bits_field *bits);

static inline const uint64_t *
bits_find(const struct bits_field *bits, bits_number number, uint32_t nb_words)
{
	const bits_number *base = bits->bounds;

	for (uint32_t nb = bits->nb_intervals; nb > 1;) {
		const uint32_t half = nb / 2;

		base = base[half] <= number ? base + half : base;
		nb -= half;
	}
	return bits->words + (size_t)bits->rows[base - bits->bounds] * nb_words;
}

#endif /* _ONVM_FIREWALL_BITS_H_ */
