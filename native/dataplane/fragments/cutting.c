/* SPDX-License-Identifier: Apache-2.0 */
#include "fragments/cutting.h"

#include <rte_random.h>

bool
onvm_fragmenter_begin(struct onvm_fragmenter *fragmenter, struct rte_mbuf *whole)
{
	const uint8_t *const data = rte_pktmbuf_mtod(whole, const uint8_t *);
	struct onvm_headers headers;

	whole->ol_flags &= ~ONVM_OFFLOAD_FRAGMENTED;
	fragmenter->whole = NULL;
	if (onvm_parse(data, whole->data_len, &headers) != ONVM_L3_OK ||
	    !onvm_fragment_plan(data, &headers, whole->tso_segsz, (uint32_t)rte_rand(),
				&fragmenter->plan))
		return false;
	fragmenter->whole = whole;
	fragmenter->next = fragmenter->plan.header;
	fragmenter->nb_made = 0;
	return true;
}

uint16_t
onvm_fragmenter_next(struct onvm_fragmenter *fragmenter, const struct onvm_packet_memory *memory,
		     struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t nb)
{
	const struct onvm_fragment_plan *const plan = &fragmenter->plan;
	uint16_t nb_made = 0;

	if (onvm_fragment_bytes(plan) > memory->stride - RTE_PKTMBUF_HEADROOM)
		pool = memory->large.pool;
	for (; nb_made < nb && fragmenter->next < plan->end; fragmenter->next += plan->piece) {
		struct rte_mbuf *mbuf = pool == NULL ? NULL : rte_pktmbuf_alloc(pool);

		if (mbuf == NULL)
			return nb_made;
		ONVM_ASSERT(onvm_fragment_bytes(plan) <= rte_pktmbuf_tailroom(mbuf));
		mbuf->data_len = (uint16_t)onvm_fragment_write(
			plan, rte_pktmbuf_mtod(fragmenter->whole, const uint8_t *),
			fragmenter->next, rte_pktmbuf_mtod(mbuf, uint8_t *));
		mbuf->pkt_len = mbuf->data_len;
		mbuf->hash = fragmenter->whole->hash; /* of a packet to a peer, its way */
		fragmenter->nb_made++;
		mbufs[nb_made++] = mbuf;
	}
	if (fragmenter->next >= plan->end) {
		rte_pktmbuf_free(fragmenter->whole);
		fragmenter->whole = NULL;
	}
	return nb_made;
}
