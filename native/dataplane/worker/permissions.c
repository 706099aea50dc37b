/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/permissions.h"

#include <onvm/nf.h>

#include "worker/egress.h"

void
onvm_link_enforce(struct onvm_worker *worker, struct onvm_link *link, struct onvm_desc *descs,
		  uint32_t nb)
{
	const struct onvm_packet_memory *memory = &worker->dp->memory;

	for (uint32_t i = 0; i < nb; i++) {
		struct onvm_desc *desc = &descs[i];
		const uint32_t stage = desc->verdict_stage >> 4;
		const struct rte_mbuf *mbuf;

		/* What is not its own, and packets it has made, are return.c's to judge. */
		if (unlikely(desc->buffer >= memory->nb_buffers ||
			     memory->buffers[desc->buffer].owner != link->id ||
			     (memory->buffers[desc->buffer].flags & ONVM_BUFFER_LOANED) != 0))
			continue;
		if ((desc->verdict_stage & 15) == ONVM_DROP && (link->no_drops >> stage & 1) != 0) {
			desc->verdict_stage = (uint8_t)(ONVM_NEXT | stage << 4);
			onvm_link_report(worker, link, ONVM_FAULT_DROP);
		}
		if (!link->reads_only)
			continue;
		mbuf = memory->mbufs[desc->buffer];
		if (unlikely(desc->offset != mbuf->data_off || desc->length != mbuf->data_len)) {
			desc->offset = mbuf->data_off;
			desc->length = mbuf->data_len;
			onvm_link_report(worker, link, ONVM_FAULT_REWRITE);
		}
	}
}
