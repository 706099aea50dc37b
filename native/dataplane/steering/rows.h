/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_ROWS_H_
#define _ONVM_ROWS_H_

/**
 * @file
 * The combinations of NF hosts that a chain uses when it has too many of them.
 *
 * Five services with nine instances each have 59,049 combinations, and the table of paths does not
 * hold that many. Such a chain uses *rows*: a bounded number of combinations, in which each NF host
 * of a position occurs equally often, beside ever different ones at the other positions. Where no
 * more rows than combinations would be needed, every combination may be chosen (choose.c).
 *
 * The rows follow from the numbers of the NF hosts alone, so all hosts of a cluster use the same
 * ones, and a host that carries the flows of many others does not need more paths than they.
 *
 * Of a few rows taken at random, a flow gets the best one. A row is as good as the worst of its NF
 * hosts, and an NF host is good when it has much spare capacity for its position, for each flow that
 * it was lately given. So shares follow spare capacities, although the rows do not.
 *
 * Life: the columns are part of the candidates and immutable once published.
 * Threads: the control thread makes them; workers pick, each with a selector of its own.
 */

#include "steering/steering.h"

/** Combinations up to which a chain needs no rows, and the most rows that it gets. */
#define ONVM_ROWS_MAX 8192u

/** Forward paths of all chains together; the rest of the table is for those that retire. */
#define ONVM_ROWS_BUDGET 24576u

/**
 * Rows that a chain gets, a power of two.
 *
 * @param combinations  how many its NF hosts have, at most UINT32_MAX
 * @param nb_hosts      NF hosts of the position that has most of them
 * @param nb_chains     chains that share the table
 * @return 0: it needs none
 */
uint32_t onvm_rows_wanted(uint32_t combinations, uint32_t nb_hosts, uint32_t nb_chains);

/**
 * Fill the column of one position.
 *
 * @param hosts     NF hosts that can serve the position, @p nb_hosts, at least one
 * @param position  of the chain
 * @param column    space for @p nb_rows slots
 */
void onvm_rows_fill(const struct onvm_steering *steering, const uint16_t *hosts, uint32_t nb_hosts,
		    uint32_t position, uint16_t *column, uint32_t nb_rows);

/** Note the mean spare capacity of a position; workers keep it up to date. */
void onvm_rows_set_mean(const struct onvm_steering *steering, struct onvm_choice *choice);

/**
 * Pick a row, and write the NF hosts of its path to @p hosts.
 *
 * @param wishes  NF hosts that must serve where they can, or NULL
 * @return how many; 0: a service has no instance
 */
uint32_t
onvm_rows_pick(const struct onvm_steering *steering, const struct onvm_candidates *candidates,
	       struct onvm_selector *selector, const struct onvm_wishes *wishes, uint16_t *hosts);

#endif /* _ONVM_ROWS_H_ */
