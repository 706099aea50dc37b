/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Return, one by one: a packet comes back from an NF host and goes to the next hop, out, or to the
 * pool. Most packets come in runs, which return_poll.c passes on.
 *
 * The worker trusts nothing that an NF host writes. A descriptor must name a buffer that this link
 * owns and bounds inside its slot; the position in the chain, the ingress port and the flow come
 * from the private record.
 */

#include "worker/return.h"

#include <rte_cycles.h>

#include <onvm/nf.h>

#include "steering/choose.h"
#include "worker/credits.h"
#include "worker/egress.h"
#include "worker/flow_path.h"

/** Whether a descriptor's bounds, verdict and stage can be true of @p mbuf. */
static inline bool
is_possible(const struct onvm_link *link, const struct rte_mbuf *mbuf, const struct onvm_desc *desc)
{
	if (unlikely(desc->length < ONVM_PACKET_MIN) &&
	    (desc->length == 0 || desc->length < mbuf->data_len || mbuf->data_len == 0))
		return false; /* shorter than a frame, and it did not come in so short */
	return (uint32_t)desc->offset + desc->length <= mbuf->buf_len &&
	       (desc->verdict_stage & 15) <= ONVM_OUT &&
	       (uint32_t)(desc->verdict_stage >> 4) < link->nb_stages;
}

static void
drop(struct onvm_worker *worker, struct rte_mbuf *mbuf, enum onvm_drop reason)
{
	worker->stats.drops[reason]++;
	onvm_worker_free_later(worker, mbuf);
}

/** On along a path that has changed since the packet was admitted. */
static void
reroute(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint32_t index,
	struct onvm_buffer *buffer, uint8_t hop)
{
	struct onvm_steering *steering = &worker->dp->steering;
	const struct onvm_path *old = &steering->paths[buffer->path];
	const uint16_t resolved = onvm_steering_resolve(steering, buffer->path);
	const struct onvm_path *path = &steering->paths[resolved];
	struct onvm_link *link;
	uint32_t end;

	/* The chain has changed under the packet: it ends as it began, while all hops live. */
	if (resolved == 0) {
		const uint32_t end = onvm_path_end_here(old, hop);
		uint32_t i = hop;

		while (i < end && onvm_link_of_hop(worker, &old->hops[i]) != NULL)
			i++;
		if (i == end && i != hop) {
			onvm_queue_to_link(worker, onvm_link_of_hop(worker, &old->hops[hop]), mbuf,
					   index, buffer, hop);
			return;
		}
	}
	onvm_credits_release(worker, old, hop, 1);
	if (resolved == 0 || hop >= path->nb_hops) {
		drop(worker, mbuf, ONVM_DROP_NO_INSTANCE);
		return;
	}
	if (onvm_hop_is_remote(worker, path, hop)) {
		onvm_remote_send(worker, mbuf, resolved, hop, ONVM_NSH_TTL);
		return;
	}
	/* Credits on the whole rest of the new path, or none. */
	end = onvm_path_end_here(path, hop);
	for (uint32_t i = hop; i < end; i++) {
		link = onvm_link_of_hop(worker, &path->hops[i]);
		if (link == NULL || !onvm_credits_take(link)) {
			while (i-- > hop)
				onvm_credits_give(onvm_link_of_hop(worker, &path->hops[i]), 1);
			drop(worker, mbuf,
			     link == NULL ? ONVM_DROP_NO_INSTANCE : ONVM_DROP_RING_FULL);
			return;
		}
	}
	buffer->path = resolved;
	onvm_queue_to_link(worker, onvm_link_of_hop(worker, &path->hops[hop]), mbuf, index, buffer,
			   hop);
}

static inline void
pass_on(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint32_t index,
	struct onvm_buffer *buffer)
{
	const struct onvm_path *path = &worker->dp->steering.paths[buffer->path];
	const uint8_t hop = (uint8_t)(buffer->hop + 1);
	struct onvm_link *link;

	if (hop >= path->nb_hops) {
		if (unlikely(path->egress >= ONVM_PORTS_MAX))
			onvm_remote_send(worker, mbuf, buffer->path, hop, ONVM_NSH_TTL);
		else
			onvm_leave(worker, mbuf, index, buffer, path->egress);
		return;
	}
	link = onvm_link_of_hop(worker, &path->hops[hop]);
	if (unlikely(link == NULL && onvm_hop_is_remote(worker, path, hop))) {
		onvm_remote_send(worker, mbuf, buffer->path, hop, ONVM_NSH_TTL);
		return;
	}
	/* Packets on a retired path go on along it as long as its hosts live. */
	if (unlikely(link == NULL)) {
		reroute(worker, mbuf, index, buffer, hop);
		return;
	}
	onvm_queue_to_link(worker, link, mbuf, index, buffer, hop);
}

/** On to hop @p hop, at a peer or behind one: it holds no credits there. */
static void
skip_peers(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint32_t index,
	   struct onvm_buffer *buffer, uint8_t hop)
{
	const struct onvm_path *path = &worker->dp->steering.paths[buffer->path];

	onvm_credits_release(worker, path, buffer->hop + 1u, 1);
	if (onvm_path_is_remote(path, hop)) {
		onvm_remote_send(worker, mbuf, buffer->path, hop, ONVM_NSH_TTL);
		return;
	}
	if (onvm_credits_available(worker, path, hop, true) == 0) {
		drop(worker, mbuf, ONVM_DROP_RING_FULL);
		return;
	}
	onvm_credits_reserve(worker, path, hop, 1);
	onvm_queue_to_link(worker, onvm_link_of_hop(worker, &path->hops[hop]), mbuf, index, buffer,
			   hop);
}

/** To a service by ID: later in this packet's path if it is there, else a detour of one hop. */
static void
redirect(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint32_t index,
	 struct onvm_buffer *buffer, uint16_t service)
{
	struct onvm_steering *steering = &worker->dp->steering;
	const struct onvm_path *path = &steering->paths[buffer->path];
	const bool is_reserved = (buffer->flags & ONVM_BUFFER_RESERVED) != 0;
	struct onvm_link *link;
	uint16_t host, egress;

	for (uint32_t hop = buffer->hop + 1u; is_reserved && hop < path->nb_hops; hop++) {
		const bool is_remote = onvm_hop_is_remote(worker, path, hop);

		link = onvm_link_of_hop(worker, &path->hops[hop]);
		if (steering->hosts[path->hops[hop].host].services[0] != service ||
		    (link == NULL && !is_remote))
			continue;
		if (hop >= onvm_path_end_here(path, buffer->hop + 1u)) {
			skip_peers(worker, mbuf, index, buffer, (uint8_t)hop);
			return;
		}
		for (uint32_t i = buffer->hop + 1u; i < hop; i++) {
			struct onvm_link *skipped = onvm_link_of_hop(worker, &path->hops[i]);

			if (skipped != NULL)
				onvm_credits_give(skipped, 1);
		}
		onvm_queue_to_link(worker, link, mbuf, index, buffer, (uint8_t)hop);
		return;
	}
	if (is_reserved)
		onvm_credits_release(worker, path, buffer->hop + 1u, 1);
	host = service == 0 ? 0 : onvm_steering_host_of(steering, service, &worker->selector);
	link = host == 0 ? NULL : worker->link_of[host];
	/* A detour is a path of this host alone: peers would not know how to go on. */
	if (link == NULL || (buffer->path != 0 && path->egress >= ONVM_PORTS_MAX)) {
		drop(worker, mbuf, ONVM_DROP_BAD_SERVICE);
		return;
	}
	if (!onvm_credits_take(link)) {
		drop(worker, mbuf, ONVM_DROP_RING_FULL);
		return;
	}
	egress = buffer->path != 0 ? path->egress : buffer->port;
	onvm_note_flow(worker, buffer);
	buffer->path = onvm_steering_detour(steering, host, egress);
	buffer->flags |= ONVM_BUFFER_RESERVED;
	if (buffer->path == 0) {
		onvm_credits_give(link, 1);
		drop(worker, mbuf, ONVM_DROP_NO_INSTANCE);
		return;
	}
	onvm_queue_to_link(worker, link, mbuf, index, buffer, 0);
}

/** A packet that the NF made in a loaned buffer. */
static void
take_originated(struct onvm_worker *worker, struct onvm_link *link, struct rte_mbuf *mbuf,
		uint32_t index, struct onvm_buffer *buffer, const struct onvm_desc *desc)
{
	const uint32_t stage = desc->verdict_stage >> 4;
	const enum onvm_verdict verdict = (enum onvm_verdict)(desc->verdict_stage & 15);

	link->nb_loaned--;
	buffer->flags = 0;
	buffer->path = 0;
	buffer->hop = 0;
	buffer->port = 0;
	buffer->flow = ONVM_FLOW_NONE;
	buffer->flow_hash = desc->flow_hash;
	if (verdict == ONVM_DROP) {
		onvm_worker_free_later(worker,
				       mbuf); /* returned unused: there never was a packet */
		return;
	}
	worker->stats.originated++;
	link->stats.originated[stage]++;
	if (verdict == ONVM_OUT)
		onvm_leave(worker, mbuf, index, buffer, desc->port);
	else if (verdict == ONVM_TO_SERVICE)
		redirect(worker, mbuf, index, buffer, desc->port);
	else
		drop(worker, mbuf, ONVM_DROP_NO_NEXT);
}

/** Carry out an NF's verdict on a packet; its record and bounds have been checked. */
static inline void
obey(struct onvm_worker *worker, struct onvm_link *link, struct rte_mbuf *mbuf, uint32_t index,
     struct onvm_buffer *buffer, const struct onvm_desc *desc)
{
	const struct onvm_path *path = &worker->dp->steering.paths[buffer->path];
	const uint32_t stage = desc->verdict_stage >> 4;

	ONVM_ASSERT(onvm_hop_is_at(path, buffer->hop, link));
	onvm_credits_give(link, 1);
	if (unlikely(buffer->flags & ONVM_BUFFER_SAMPLED)) {
		const uint64_t cycles = rte_rdtsc() - worker->dp->memory.times[index].enqueued;

		onvm_latency_add(&link->stats.latency,
				 (uint64_t)((double)cycles * worker->dp->ns_per_cycle));
	}
	switch ((enum onvm_verdict)(desc->verdict_stage & 15)) {
	case ONVM_NEXT:
		pass_on(worker, mbuf, index, buffer);
		break;
	case ONVM_DROP:
		onvm_credits_release(worker, path, buffer->hop + 1u, 1);
		link->stats.exits[path->is_reverse][stage]++;
		link->stats.drops[stage][desc->port & (ONVM_REASONS_MAX - 1)]++;
		onvm_worker_free_later(worker, mbuf);
		break;
	case ONVM_TO_SERVICE:
		link->stats.exits[path->is_reverse][stage]++;
		redirect(worker, mbuf, index, buffer, desc->port);
		break;
	case ONVM_OUT:
		onvm_credits_release(worker, path, buffer->hop + 1u, 1);
		link->stats.exits[path->is_reverse][stage]++;
		onvm_leave(worker, mbuf, index, buffer, desc->port);
		break;
	case ONVM_HOLD: /* is_possible() refuses it */
		onvm_credits_release(worker, path, buffer->hop + 1u, 1);
		drop(worker, mbuf, ONVM_DROP_BAD_DESCRIPTOR);
		break;
	}
}

void
onvm_take_back(struct onvm_worker *worker, struct onvm_link *link, const struct onvm_desc *desc)
{
	struct onvm_packet_memory *memory = &worker->dp->memory;
	const uint32_t index = desc->buffer;
	struct onvm_buffer *buffer;
	struct rte_mbuf *mbuf;

	if (unlikely(index >= memory->nb_buffers || memory->buffers[index].owner != link->id)) {
		onvm_link_report_fault(worker, link); /* not its own: nothing to take back */
		return;
	}
	buffer = &memory->buffers[index];
	buffer->owner = ONVM_OWNER_NONE;
	mbuf = memory->mbufs[index];
	if (unlikely(!is_possible(link, mbuf, desc))) {
		if (buffer->flags & ONVM_BUFFER_LOANED && (desc->verdict_stage & 15) == ONVM_DROP &&
		    (uint32_t)(desc->verdict_stage >> 4) < link->nb_stages) {
			link->nb_loaned--; /* an unused loan has no length */
			buffer->flags = 0;
			onvm_worker_free_later(worker, mbuf);
			return;
		}
		onvm_link_report_fault(worker, link);
		if (buffer->flags & ONVM_BUFFER_LOANED) {
			link->nb_loaned--;
			onvm_worker_free_later(worker, mbuf);
		} else {
			onvm_credits_release(worker, &worker->dp->steering.paths[buffer->path],
					     buffer->hop, 1);
			drop(worker, mbuf, ONVM_DROP_BAD_DESCRIPTOR);
		}
		return;
	}
	onvm_set_bounds(mbuf, desc);
	if (unlikely(buffer->flags & ONVM_BUFFER_LOANED))
		take_originated(worker, link, mbuf, index, buffer, desc);
	else
		obey(worker, link, mbuf, index, buffer, desc);
}
