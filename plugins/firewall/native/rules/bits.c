/* SPDX-License-Identifier: Apache-2.0 */
#include "bits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NO_ROW UINT32_MAX

/* From `at` on the entry matches, or does not any more. */
struct edge {
	bits_number at;
	uint32_t position;
};

/* Rows while they are made, with a hash table of them. */
struct builder {
	uint64_t *words;
	uint32_t *slots;
	uint32_t nb_words, nb_rows, nb_slots, max_rows;
};

static bits_number
join(uint64_t high, uint64_t low)
{
	return (bits_number)high << 64 | low;
}

static int
by_place(const void *one, const void *other)
{
	const struct edge *const a = one, *const b = other;

	return (a->at > b->at) - (a->at < b->at);
}

/* The edges of all spans of a field, sorted. */
static struct edge *
edges_create(const struct firewall_config *config, enum firewall_field field, uint32_t ip_version,
	     uint32_t *nb)
{
	struct edge *edges;

	*nb = 0;
	for (uint32_t i = 0; i < config->nb_spans; i++)
		*nb += config->spans[i].field == field && config->spans[i].ip_version == ip_version;
	edges = calloc(2u * *nb + 1, sizeof(*edges));
	*nb = 0;
	for (uint32_t i = 0; edges != NULL && i < config->nb_spans; i++) {
		const struct firewall_span *const span = &config->spans[i];
		const bits_number last = join(span->last_high, span->last_low);

		if (span->field != field || span->ip_version != ip_version)
			continue;
		edges[(*nb)++] =
			(struct edge){join(span->first_high, span->first_low), span->position};
		if (last != ~(bits_number)0)
			edges[(*nb)++] = (struct edge){last + 1, span->position};
	}
	if (edges != NULL)
		qsort(edges, *nb, sizeof(*edges), by_place);
	return edges;
}

static uint64_t
hash_of(const uint64_t *row, uint32_t nb_words)
{
	uint64_t hash = 0x9e3779b97f4a7c15ull;

	for (uint32_t i = 0; i < nb_words; i++) {
		hash = (hash ^ row[i]) * 0xff51afd7ed558ccdull;
		hash ^= hash >> 32;
	}
	return hash;
}

/* Number of the row that equals @p row, added if there is none; NO_ROW without memory. */
static uint32_t
row_of(struct builder *builder, const uint64_t *row)
{
	const size_t bytes = builder->nb_words * sizeof(*row);
	uint32_t slot = (uint32_t)hash_of(row, builder->nb_words) & (builder->nb_slots - 1);

	for (; builder->slots[slot] != NO_ROW; slot = (slot + 1) & (builder->nb_slots - 1))
		if (memcmp(builder->words + (size_t)builder->slots[slot] * builder->nb_words, row,
			   bytes) == 0)
			return builder->slots[slot];
	if (builder->nb_rows == builder->max_rows) {
		const uint32_t wanted = builder->max_rows * 2 + 8;
		uint64_t *const words = realloc(builder->words, wanted * bytes);

		if (words == NULL)
			return NO_ROW;
		builder->words = words;
		builder->max_rows = wanted;
	}
	memcpy(builder->words + (size_t)builder->nb_rows * builder->nb_words, row, bytes);
	builder->slots[slot] = builder->nb_rows;
	return builder->nb_rows++;
}

/* Walk over the edges; each number at which something changes begins an interval. */
static int
intervals_fill(struct bits_field *bits, struct builder *builder, const struct edge *edges,
	       uint32_t nb, uint64_t *row)
{
	uint32_t at = 0;

	do {
		const bits_number begin = bits->nb_intervals == 0 ? 0 : edges[at].at;

		for (; at < nb && edges[at].at == begin; at++)
			row[edges[at].position / 64] ^= 1ull << (edges[at].position % 64);
		bits->bounds[bits->nb_intervals] = begin;
		bits->rows[bits->nb_intervals] = row_of(builder, row);
		if (bits->rows[bits->nb_intervals++] == NO_ROW)
			return -ENOMEM;
	} while (at < nb);
	return 0;
}

int
bits_create(struct bits_field *bits, const struct firewall_config *config,
	    enum firewall_field field, uint32_t ip_version, uint32_t nb_words)
{
	struct builder builder = {.nb_words = nb_words, .nb_slots = 16};
	uint32_t nb;
	struct edge *const edges = edges_create(config, field, ip_version, &nb);
	uint64_t *const row = calloc(nb_words, sizeof(*row));
	int rc = -ENOMEM;

	while (builder.nb_slots < 2 * (nb + 1))
		builder.nb_slots *= 2;
	builder.slots = malloc(builder.nb_slots * sizeof(*builder.slots));
	bits->bounds = calloc(nb + 1, sizeof(*bits->bounds));
	bits->rows = calloc(nb + 1, sizeof(*bits->rows));
	if (edges != NULL && row != NULL && builder.slots != NULL && bits->bounds != NULL &&
	    bits->rows != NULL) {
		memset(builder.slots, 0xff, builder.nb_slots * sizeof(*builder.slots));
		rc = intervals_fill(bits, &builder, edges, nb, row);
	}
	bits->words = builder.words;
	bits->nb_rows = builder.nb_rows;
	free(builder.slots);
	free(row);
	free(edges);
	return rc;
}

void
bits_free(struct bits_field *bits)
{
	free(bits->bounds);
	free(bits->rows);
	free(bits->words);
}
