/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_EGRESS_H_
#define _ONVM_EGRESS_H_

/**
 * @file
 * The ways out of a worker: to an NF host, out of a port, to a peer.
 *
 * Packets are put together per link and per port and flushed at the end of a turn, or earlier when
 * ONVM_PENDING_MAX of them are pending. Packets that a port or a ring does not take are dropped and
 * counted.
 *
 * Threads: the worker that owns the links and worker ports.
 */

#include <rte_cycles.h>

#include <onvm/assert.h>

#include "worker/flow_path.h"
#include "worker/worker.h"

/** Send what is pending for an NF host, and wake the host if it sleeps. */
void onvm_link_flush(struct onvm_worker *worker, struct onvm_link *link);
/** Send what is pending for a port. */
void onvm_worker_port_flush(struct onvm_worker *worker, struct onvm_worker_port *wport);
/** Flush all links and ports, and free what onvm_worker_free_later() has collected. */
void onvm_egress_flush(struct onvm_worker *worker);
/** Count an impossible descriptor or index against the link; tell the control thread, once. */
void onvm_link_report(struct onvm_worker *worker, struct onvm_link *link, enum onvm_fault fault);

static inline void
onvm_link_report_fault(struct onvm_worker *worker, struct onvm_link *link)
{
	onvm_link_report(worker, link, ONVM_FAULT_RINGS);
}

/** Send a packet to the peer at which hop @p hop of path @p path is, or to which the path leads. */
void onvm_remote_send(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint16_t path, uint8_t hop,
		      uint8_t ttl);

/**
 * Queue a packet for the NF host behind @p link, as hop @p hop of its path.
 *
 * @param way  onvm_path_desc_flags() of path and hop
 */
static inline void
onvm_queue_on_way(struct onvm_worker *worker, struct onvm_link *link, struct rte_mbuf *mbuf,
		  uint32_t index, struct onvm_buffer *buffer, uint8_t hop, uint8_t way)
{
	struct onvm_desc *desc;

	ONVM_ASSERT(buffer->owner == ONVM_OWNER_NONE);
	ONVM_ASSERT(onvm_hop_is_at(&worker->dp->steering.paths[buffer->path], hop, link));
	if (unlikely(link->nb_pending == ONVM_PENDING_MAX))
		onvm_link_flush(worker, link);
	desc = &link->pending[link->nb_pending++];
	buffer->owner = link->id;
	buffer->hop = hop;
	desc->buffer = index;
	desc->offset = mbuf->data_off;
	desc->length = mbuf->data_len;
	desc->flow_hash = buffer->flow_hash;
	desc->port = buffer->port;
	desc->verdict_stage = ONVM_NEXT;
	desc->flags = (uint8_t)(way | ONVM_DESC_HINTS(buffer->flags));
	link->stats.rx[(way & ONVM_F_REVERSE) != 0]++;
	if (unlikely(buffer->flags & ONVM_BUFFER_SAMPLED))
		worker->dp->memory.times[index].enqueued = rte_rdtsc();
}

/** onvm_queue_on_way() for a hop of the path that the packet's record names. */
static inline void
onvm_queue_to_link(struct onvm_worker *worker, struct onvm_link *link, struct rte_mbuf *mbuf,
		   uint32_t index, struct onvm_buffer *buffer, uint8_t hop)
{
	const struct onvm_path *path = &worker->dp->steering.paths[buffer->path];

	onvm_queue_on_way(worker, link, mbuf, index, buffer, hop, onvm_path_desc_flags(path, hop));
}

/** Queue a packet for @p wport. */
static inline void
onvm_queue_to_port(struct onvm_worker *worker, struct onvm_worker_port *wport,
		   struct rte_mbuf *mbuf)
{
	ONVM_ASSERT(onvm_buffer_is_ours(&worker->dp->memory, mbuf));
	if (unlikely(wport->nb_pending == ONVM_PENDING_MAX))
		onvm_worker_port_flush(worker, wport);
	wport->pending[wport->nb_pending++] = mbuf;
	wport->pending_bytes += mbuf->data_len;
}

/** Let a packet leave through port @p port. */
static inline void
onvm_leave(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint32_t index,
	   struct onvm_buffer *buffer, uint16_t port)
{
	struct onvm_worker_port *wport = port < ONVM_PORTS_MAX ? worker->wport_of[port] : NULL;

	if (unlikely(wport == NULL)) {
		onvm_worker_drop(worker, mbuf, ONVM_DROP_BAD_PORT);
		return;
	}
	if (unlikely(buffer->flags & (ONVM_BUFFER_LEARN | ONVM_BUFFER_TEACH)))
		onvm_learn_reverse(worker, mbuf, buffer, port);
	if (unlikely(buffer->flags & ONVM_BUFFER_SAMPLED)) {
		const uint64_t cycles = rte_rdtsc() - worker->dp->memory.times[index].received;

		onvm_latency_add(&wport->stats.latency,
				 (uint64_t)((double)cycles * worker->dp->ns_per_cycle));
	}
	onvm_queue_to_port(worker, wport, mbuf);
}

/** Free a packet together with others of this turn. */
static inline void
onvm_worker_free_later(struct onvm_worker *worker, struct rte_mbuf *mbuf)
{
	ONVM_ASSERT(onvm_buffer_is_ours(&worker->dp->memory, mbuf));
	worker->free[worker->nb_free++] = mbuf;
	if (worker->nb_free == RTE_DIM(worker->free)) {
		onvm_packets_free(&worker->dp->memory, worker->free, worker->nb_free);
		worker->nb_free = 0;
	}
}

#endif /* _ONVM_EGRESS_H_ */
