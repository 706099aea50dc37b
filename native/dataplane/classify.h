/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CLASSIFY_H_
#define _ONVM_CLASSIFY_H_

/**
 * @file
 * A burst on its way through the flow director: keys made and looked up in bulk.
 *
 * A worker classifies a burst in one turn of its loop and admits it in the next: what the look-up
 * has prefetched arrives meanwhile. No quiescent state lies between the two, so a position that
 * was found stays the flow's.
 */

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include "flow_table.h"
#include "table_sizes.h"

struct onvm_burst {
	union onvm_flow_key keys[ONVM_BURST_SIZE];
	uint32_t hashes[ONVM_BURST_SIZE];
	uint32_t positions[ONVM_BURST_SIZE]; /**< in the flow table, or ONVM_FLOW_NONE */
	uint8_t kinds[ONVM_BURST_SIZE];	     /**< enum onvm_flow_kind */
	bool is_fragment[ONVM_BURST_SIZE];
};

/** Find the flows of packets that came in on @p port, and prefetch their entries. */
void onvm_classify(const struct onvm_flow_table *flows, uint8_t port, struct rte_mbuf **mbufs,
		   uint32_t nb, struct onvm_burst *burst);

#endif /* _ONVM_CLASSIFY_H_ */
