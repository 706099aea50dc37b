/* SPDX-License-Identifier: Apache-2.0 */
#include "steering/rows.h"

#include <stdlib.h>

#include "steering/choice.h"
#include "steering/mix.h"

/** Each NF host occurs in so many rows at least, if the table has room. */
#define ROWS_OF_HOST 16u
#define ROWS_MIN 64u
/** Rows that are compared for a flow. */
#define SAMPLES 8u
/** Rows in which an NF host that has claimed traffic takes the place of others. */
#define ROWS_OF_CLAIM 16u
/** After so many flows, those before count half. */
#define MEMORY 4096u
#define MEAN_SCALE 16
/** Part of a mean that one look changes, as a divisor. */
#define MEAN_WEIGHT 64

static uint32_t
power_of_two_up_to(uint32_t limit)
{
	uint32_t power = 1;

	while (power <= limit / 2)
		power *= 2;
	return power;
}

uint32_t
onvm_rows_wanted(uint32_t combinations, uint32_t nb_hosts, uint32_t nb_chains)
{
	const uint32_t share = ONVM_ROWS_BUDGET / (nb_chains == 0 ? 1 : nb_chains);
	const uint32_t limit = share < ONVM_ROWS_MAX ? share : ONVM_ROWS_MAX;
	uint32_t nb_rows = ROWS_MIN;

	if (combinations <= limit)
		return 0;
	while (nb_rows < ROWS_OF_HOST * nb_hosts || nb_rows < limit / 8)
		nb_rows *= 2;
	return nb_rows <= limit ? nb_rows : power_of_two_up_to(limit);
}

/** An NF host in the order that is the same on all hosts. */
struct ranked {
	uint64_t rank;
	uint16_t host;
};

static int
compare(const void *left, const void *right)
{
	const uint64_t a = ((const struct ranked *)left)->rank;
	const uint64_t b = ((const struct ranked *)right)->rank;

	return a < b ? -1 : a > b;
}

void
onvm_rows_fill(const struct onvm_steering *steering, const uint16_t *hosts, uint32_t nb_hosts,
	       uint32_t position, uint16_t *column, uint32_t nb_rows)
{
	struct ranked ranked[ONVM_SLOTS_MAX];
	uint64_t random = onvm_mix(position + 1);

	for (uint32_t i = 0; i < nb_hosts; i++) {
		const uint16_t number = steering->hosts[hosts[i]].number;

		ranked[i] = (struct ranked){onvm_mix(number != 0 ? number : 65536u + hosts[i]),
					    hosts[i]};
	}
	qsort(ranked, nb_hosts, sizeof(ranked[0]), compare);
	/* Equal parts, in an order that is another one at each position. */
	for (uint32_t row = 0; row < nb_rows; row++) {
		const uint32_t other = (uint32_t)(random % (row + 1));

		random = onvm_mix(random + row);
		column[row] = column[other];
		column[other] = ranked[(uint64_t)row * nb_hosts / nb_rows].host;
	}
}

/** One number for the wished hosts together; 0: there are none. */
static uint64_t
number_of(const struct onvm_wishes *wishes)
{
	uint64_t number = 0;

	for (uint32_t i = 0; wishes != NULL && i < wishes->nb; i++)
		number = number * ONVM_SLOTS_MAX + wishes->hosts[i];
	return number;
}

/** NF hosts of the path that a row stands for. */
static uint32_t
hosts_of_row(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
	     uint32_t row, const struct onvm_wishes *wishes, uint16_t *hosts)
{
	uint32_t nb_hosts = 0, position = 0;

	while (position < candidates->nb_services) {
		const struct onvm_choice *choice = &candidates->choices[position];
		uint16_t host = onvm_choice_wished(choice, wishes);

		if (host == 0 && choice->nb_hosts != 0)
			host = candidates->rows[position * candidates->nb_rows + row];
		if (host == 0)
			return 0;
		hosts[nb_hosts++] = host;
		position += steering->hosts[host].nb_stages;
	}
	return nb_hosts;
}

static uint32_t
spare_of(const struct onvm_steering *steering, uint16_t host)
{
	return __atomic_load_n(&steering->hosts[host].spare_pps, __ATOMIC_RELAXED);
}

void
onvm_rows_set_mean(const struct onvm_steering *steering, struct onvm_choice *choice)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < choice->nb_hosts; i++)
		total += spare_of(steering, choice->hosts[i]);
	choice->mean_spare = (uint32_t)(total * MEAN_SCALE / choice->nb_hosts);
}

/** Spare capacities change: follow them with those of a row that was taken at random. */
static void
follow_means(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
	     const uint16_t *hosts, uint32_t nb_hosts)
{
	for (uint32_t i = 0, position = 0; i < nb_hosts; i++) {
		/* A hint: that workers may overwrite each other's does not matter. */
		uint32_t *mean = (uint32_t *)(uintptr_t)&candidates->choices[position].mean_spare;
		const int64_t before = __atomic_load_n(mean, __ATOMIC_RELAXED);
		const int64_t now = (int64_t)spare_of(steering, hosts[i]) * MEAN_SCALE;

		__atomic_store_n(mean, (uint32_t)(before + (now - before) / MEAN_WEIGHT),
				 __ATOMIC_RELAXED);
		position += steering->hosts[hosts[i]].nb_stages;
	}
}

/** How good the worst NF host of a row is. */
static float
worth(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
      const struct onvm_selector *selector, const uint16_t *hosts, uint32_t nb_hosts)
{
	float worst = 0;

	for (uint32_t i = 0, position = 0; i < nb_hosts; i++) {
		const uint16_t host = hosts[i];
		const struct onvm_choice *choice = &candidates->choices[position];
		const float mean = (float)__atomic_load_n(&choice->mean_spare, __ATOMIC_RELAXED) /
				   MEAN_SCALE;
		const float spare = ((float)spare_of(steering, host) + 1) / (mean + 1);
		/* Where few share a position, each of them gets more of its flows. */
		const float share = spare /
				    (1 + (float)selector->given[host] * (float)choice->nb_hosts);

		if (i == 0 || share < worst)
			worst = share;
		position += steering->hosts[host].nb_stages;
	}
	return worst;
}

static void
count(struct onvm_selector *selector, const uint16_t *hosts, uint32_t nb_hosts)
{
	for (uint32_t i = 0; i < nb_hosts; i++)
		selector->given[hosts[i]]++;
	if (++selector->nb_given % MEMORY == 0)
		for (uint32_t host = 0; host < ONVM_SLOTS_MAX; host++)
			selector->given[host] /= 2;
}

uint32_t
onvm_rows_pick(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
	       struct onvm_selector *selector, const struct onvm_wishes *wishes, uint16_t *hosts)
{
	const uint64_t wanted = number_of(wishes);
	uint16_t found[ONVM_CHAIN_LENGTH_MAX];
	uint32_t nb_hosts = 0;
	float best = 0;

	for (uint32_t i = 0; i < SAMPLES; i++) {
		uint32_t row, nb;
		float now;

		selector->random = onvm_mix(selector->random + 1);
		row = (uint32_t)selector->random;
		if (wanted != 0)
			row = (uint32_t)onvm_mix(wanted * ROWS_OF_CLAIM + row % ROWS_OF_CLAIM);
		nb = hosts_of_row(steering, candidates, row % candidates->nb_rows, wishes, found);
		if (nb == 0)
			return 0;
		if (i == 0)
			follow_means(steering, candidates, found, nb);
		now = worth(steering, candidates, selector, found, nb);
		if (nb_hosts != 0 && now <= best)
			continue;
		best = now;
		nb_hosts = nb;
		for (uint32_t k = 0; k < nb; k++)
			hosts[k] = found[k];
	}
	count(selector, hosts, nb_hosts);
	return nb_hosts;
}
