/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CUTTING_H_
#define _ONVM_CUTTING_H_

/**
 * @file
 * A datagram that was reassembled, in fragments again.
 *
 * It leaves in fragments of the size that its largest one had when it came in, so that it passes
 * where it would have passed without us (RFC 8200 section 5: no path carries more than its sender
 * knows). The size stands in the mbuf (tso_segsz), so no NF can change it. Headers are found when
 * the packet leaves: NFs may have rewritten it, or put another header before it.
 *
 * Threads: any; a packet by the one that has it.
 */

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include <onvm/fragments.h>

#include "packet_memory.h"

/**
 * A flag of mbufs, one that DPDK leaves free: the packet was reassembled, and its largest fragment
 * had tso_segsz bytes; or that is 0, and it is a fragment with known ports.
 */
#define ONVM_OFFLOAD_FRAGMENTED RTE_MBUF_F_LAST_FREE

/** Work on a datagram: the fragments come one after the other. */
struct onvm_fragmenter {
	struct rte_mbuf *whole; /**< NULL: there is no work */
	struct onvm_fragment_plan plan;
	uint32_t next; /**< first byte that is in no fragment yet */
	uint32_t nb_made;
};

/**
 * Begin with a reassembled packet; it belongs to the fragmenter if it must be cut.
 *
 * @return false: it is small enough, or cannot be cut; it is as any other from now on
 */
bool onvm_fragmenter_begin(struct onvm_fragmenter *fragmenter, struct rte_mbuf *whole);

/**
 * Make the next fragments, in buffers of @p pool, or in large ones if they would not fit. With the
 * last of them, `whole` is freed and NULL.
 *
 * @return how many; fewer than @p nb also when there are no more buffers
 */
uint16_t
onvm_fragmenter_next(struct onvm_fragmenter *fragmenter, const struct onvm_packet_memory *memory,
		     struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t nb);

#endif /* _ONVM_CUTTING_H_ */
