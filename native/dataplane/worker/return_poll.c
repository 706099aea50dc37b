/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Return, in runs: bursts come back from an NF host. Packets that are alike pass on in loops that
 * keep all they need in registers (a quarter more packets than one by one); the rest goes to
 * return.c.
 *
 * The rules are the same: a descriptor counts only if it names a buffer that this link owns, with
 * bounds inside its slot.
 */

#include "worker/return_poll.h"

#include <stddef.h>
#include <string.h>

#include <rte_byteorder.h>

#include <onvm/nf.h>

#include "worker/credits.h"
#include "worker/egress.h"
#include "worker/permissions.h"
#include "worker/return.h"

/**
 * Most packets come back like the one before: owned by this link, on the same path and hop, with
 * nothing special about them, to go on. Where that leads is found once a run.
 */
struct run {
	uint64_t like;			/**< what_of() their records */
	struct onvm_worker_port *wport; /**< port they leave by, or NULL */
	struct onvm_link *next;		/**< their next hop, or NULL */
	uint16_t owner;			/**< their owner from now on */
	uint8_t hop;			/**< their hop from now on */
	uint8_t desc_flags;
};

/** Owner, path, hop and flags of a record as one word. */
static inline uint64_t
what_of(const struct onvm_buffer *buffer)
{
	uint64_t word;

	static_assert(offsetof(struct onvm_buffer, port) == 7, "the word's last byte");
	memcpy(&word, buffer, sizeof(word));
	return rte_cpu_to_le_64(word) << 8;
}

/** Prepare for packets like the one that @p buffer describes; without a way out there is none. */
static void
run_begin(struct onvm_worker *worker, const struct onvm_link *link,
	  const struct onvm_buffer *buffer, struct run *run)
{
	const struct onvm_path *path = &worker->dp->steering.paths[buffer->path];
	const uint32_t hop = buffer->hop + 1u;

	ONVM_ASSERT((buffer->flags & ONVM_BUFFER_LOANED) != 0 ||
		    onvm_hop_is_at(path, buffer->hop, link));

	*run = (struct run){.like = what_of(buffer), .hop = (uint8_t)hop};
	if ((buffer->flags & ~ONVM_BUFFER_HINTS) != ONVM_BUFFER_RESERVED)
		return;
	if (hop < path->nb_hops)
		run->next = onvm_link_of_hop(worker, &path->hops[hop]);
	else if (path->egress < ONVM_PORTS_MAX)
		run->wport = worker->wport_of[path->egress];
	run->owner = run->next != NULL ? run->next->id : ONVM_OWNER_NONE;
	run->desc_flags =
		(uint8_t)(onvm_path_desc_flags(path, hop) | ONVM_DESC_HINTS(buffer->flags));
}

/** Record of the packet that @p desc gives back, if it continues the run; else NULL. */
static ONVM_ALWAYS_INLINE struct onvm_buffer *
run_take(const struct onvm_packet_memory *memory, const struct onvm_link *link,
	 const struct run *run, const struct onvm_desc *desc)
{
	struct onvm_buffer *buffer = &memory->buffers[desc->buffer];

	if (unlikely(desc->buffer >= memory->nb_buffers))
		return NULL;
	return likely(what_of(buffer) == run->like && (desc->verdict_stage & 15) == ONVM_NEXT &&
		      (uint32_t)(desc->verdict_stage >> 4) < link->nb_stages &&
		      desc->length >= ONVM_PACKET_MIN &&
		      (uint32_t)desc->offset + desc->length <= memory->stride) ?
		       buffer :
		       NULL;
}

/** Let packets of a run leave, up to the first of another run; @return how many. */
static uint32_t
run_to_port(const struct onvm_packet_memory *memory, const struct onvm_link *link,
	    const struct run *run, const struct onvm_desc *descs, uint32_t nb)
{
	struct onvm_worker_port *wport = run->wport;
	struct rte_mbuf **pending = &wport->pending[wport->nb_pending];
	uint64_t nb_bytes = 0;
	uint32_t i;

	for (i = 0; i < nb; i++) {
		struct onvm_buffer *buffer = run_take(memory, link, run, &descs[i]);
		struct rte_mbuf *mbuf;

		if (buffer == NULL)
			break;
		buffer->owner = ONVM_OWNER_NONE;
		mbuf = memory->mbufs[descs[i].buffer];
		onvm_set_bounds(mbuf, &descs[i]);
		pending[i] = mbuf;
		nb_bytes += descs[i].length;
	}
	wport->nb_pending += i;
	wport->pending_bytes += nb_bytes;
	return i;
}

/** Send packets of a run to their next hop, up to the first of another run; @return how many. */
static uint32_t
run_to_link(const struct onvm_packet_memory *memory, const struct onvm_link *link,
	    const struct run *run, const struct onvm_desc *descs, uint32_t nb)
{
	struct onvm_link *next = run->next;
	struct onvm_desc *pending = &next->pending[next->nb_pending];
	uint32_t i;

	for (i = 0; i < nb; i++) {
		struct onvm_buffer *buffer = run_take(memory, link, run, &descs[i]);

		if (buffer == NULL)
			break;
		buffer->owner = run->owner;
		buffer->hop = run->hop;
		onvm_set_bounds(memory->mbufs[descs[i].buffer], &descs[i]);
		pending[i] = (struct onvm_desc){
			.buffer = descs[i].buffer,
			.offset = descs[i].offset,
			.length = descs[i].length,
			.flow_hash = buffer->flow_hash,
			.port = buffer->port,
			.verdict_stage = ONVM_NEXT,
			.flags = run->desc_flags,
		};
	}
	next->nb_pending += i;
	next->stats.rx[run->desc_flags & ONVM_F_REVERSE ? 1 : 0] += i;
	return i;
}

/** Let a run pass on, as far as it goes; @return packets. */
static uint32_t
run_pass_on(struct onvm_worker *worker, struct onvm_link *link, const struct run *run,
	    const struct onvm_desc *descs, uint32_t nb)
{
	uint32_t nb_done = 0;

	if (run->wport != NULL) {
		if (unlikely(run->wport->nb_pending + nb > ONVM_PENDING_MAX))
			onvm_worker_port_flush(worker, run->wport);
		nb_done = run_to_port(&worker->dp->memory, link, run, descs, nb);
	} else if (run->next != NULL) {
		if (unlikely(run->next->nb_pending + nb > ONVM_PENDING_MAX))
			onvm_link_flush(worker, run->next);
		nb_done = run_to_link(&worker->dp->memory, link, run, descs, nb);
	}
	onvm_credits_give(link, nb_done);
	return nb_done;
}

uint32_t
onvm_return_poll(struct onvm_worker *worker, struct onvm_link *link)
{
	const struct onvm_packet_memory *memory = &worker->dp->memory;
	struct onvm_desc descs[ONVM_BURST_SIZE];
	const uint32_t nb = onvm_ring_dequeue_burst(&link->from_nf, descs, ONVM_BURST_SIZE);
	struct run run = {.like = 0}; /* no buffer of a link looks so */

	if (unlikely(link->from_nf.is_bad))
		onvm_link_report_fault(worker, link);
	if (unlikely(link->is_limited))
		onvm_link_enforce(worker, link, descs, nb);
	if (nb != 0 && onvm_capture_wants(&worker->dp->captures, ONVM_CAPTURE_FROM_HOST))
		onvm_capture_host(&worker->dp->captures, worker->index, &worker->dp->memory,
				  link->host, link->id, ONVM_CAPTURE_FROM_HOST, descs, nb);
	for (uint32_t i = 0; i < nb;) {
		const uint32_t index = descs[i].buffer;
		uint32_t nb_run = 0;

		if (likely(index < memory->nb_buffers &&
			   memory->buffers[index].owner == link->id)) {
			if (what_of(&memory->buffers[index]) != run.like)
				run_begin(worker, link, &memory->buffers[index], &run);
			nb_run = run_pass_on(worker, link, &run, &descs[i], nb - i);
		}
		if (nb_run == 0) {
			onvm_take_back(worker, link, &descs[i]);
			nb_run = 1;
		}
		i += nb_run;
	}
	return nb;
}
