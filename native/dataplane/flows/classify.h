/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CLASSIFY_H_
#define _ONVM_CLASSIFY_H_

/**
 * @file
 * A burst on its way to the flow table: keys made and looked up in bulk.
 *
 * A worker classifies a burst in one turn of its loop and admits it in the next. Meanwhile the
 * prefetched lines arrive. A position may be a guess of the cache, so admission compares the key
 * (onvm_burst_path()). There is no quiescent state between the two turns, so a position that was
 * found in the table still belongs to the same flow.
 */

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include "flows/flow_table.h"
#include "packet_memory.h"
#include "table_sizes.h"

struct onvm_burst {
	union onvm_flow_key keys[ONVM_BURST_SIZE];
	uint32_t hashes[ONVM_BURST_SIZE];
	uint32_t positions[ONVM_BURST_SIZE]; /**< where it may be, or ONVM_FLOW_NONE */
	uint8_t kinds[ONVM_BURST_SIZE];	     /**< enum onvm_flow_kind */
	uint8_t signs[ONVM_BURST_SIZE];	     /**< enum onvm_packet_signs */
};

/** Find the flows of packets that came in on @p port, and prefetch their entries. */
void onvm_classify(const struct onvm_flow_table *flows, uint8_t port, struct rte_mbuf **mbufs,
		   uint32_t nb, struct onvm_burst *burst);
/** Hash of the flow of a packet, whichever port it came in on; 0: it has none. */
uint32_t onvm_flow_hash_of(const struct rte_mbuf *mbuf);

/**
 * Path of the flow of packet @p i; 0: it has none yet. Its position is ONVM_FLOW_NONE then, because
 * the guess was wrong.
 */
static inline uint16_t
onvm_burst_path(const struct onvm_flow_table *flows, struct onvm_burst *burst, uint32_t i)
{
	uint16_t path;

	if (unlikely(burst->positions[i] == ONVM_FLOW_NONE))
		return 0;
	path = onvm_flow_path_of_key(flows, burst->positions[i],
				     (enum onvm_flow_kind)burst->kinds[i], &burst->keys[i]);
	if (unlikely(path == 0)) {
		onvm_flow_cache_forget(&flows->cache, burst->hashes[i], burst->positions[i]);
		burst->positions[i] = ONVM_FLOW_NONE;
	}
	return path;
}

#endif /* _ONVM_CLASSIFY_H_ */
