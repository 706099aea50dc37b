/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Admission: from a burst that was received to the first NF of a path.
 *
 * A port whose chain has one possible path needs no look-up: its bursts are admitted whole
 * (onvm_admit_direct). Others have been looked up in bulk and are admitted one by one
 * (onvm_admit_flows).
 */

#include "worker/admit.h"

#include <string.h>

#include <rte_byteorder.h>
#include <rte_cycles.h>
#include <rte_prefetch.h>

#include "flows/flow_state.h"
#include "ports/offload.h"
#include "ports/packet_time.h"
#include "worker/credits.h"
#include "worker/egress.h"
#include "worker/flow_path.h"

/** Whether a host on the path is paused: packets for it wait. */
static bool
path_is_paused(const struct onvm_worker *worker, const struct onvm_path *path)
{
	const uint32_t end = onvm_path_end_here(path, 0);

	for (uint32_t i = 0; i < end; i++) {
		const struct onvm_link *link = onvm_link_of_hop(worker, &path->hops[i]);

		if (link != NULL && __atomic_load_n(&link->is_paused, __ATOMIC_RELAXED))
			return true;
	}
	return false;
}

/** Drop reason of a chain's packets while there is no path for them. */
static enum onvm_drop
no_instance(const struct onvm_worker *worker, uint16_t chain)
{
	/* P2: pairs with the release store P1 in onvm_swap_candidates(). */
	const struct onvm_candidates *candidates =
		__atomic_load_n(&worker->dp->steering.chains[chain].candidates, __ATOMIC_ACQUIRE);

	if (onvm_steering_is_full(&worker->dp->steering) && candidates != NULL &&
	    (candidates->nb_services == 0 || candidates->choices[0].nb_hosts != 0))
		return ONVM_DROP_PATHS_FULL;
	return __atomic_load_n(&worker->dp->steering.chains[chain].waits, __ATOMIC_RELAXED) ?
		       ONVM_DROP_WAITING :
		       ONVM_DROP_NO_INSTANCE;
}

/* ---- one packet in ---- */

static inline uint8_t
sample(struct onvm_worker *worker, uint32_t index)
{
	if (likely(--worker->sample_countdown != 0))
		return 0;
	worker->sample_countdown = worker->dp->config.sample_every;
	worker->dp->memory.times[index].received = rte_rdtsc();
	return ONVM_BUFFER_SAMPLED;
}

static inline bool
may_have_hints(const struct onvm_worker *worker)
{
	return (__atomic_load_n(&worker->dp->has_offloads, __ATOMIC_RELAXED) |
		__atomic_load_n(&worker->dp->has_times, __ATOMIC_RELAXED)) != 0;
}

/** Tell NFs, in the slot, of what is left to do, and of the time of a capture. */
static uint16_t
write_hints(const struct rte_mbuf *mbuf)
{
	uint16_t flags = 0;

	if (onvm_packet_has_time(mbuf)) {
		const uint64_t ns = onvm_packet_time(mbuf);

		memcpy((uint8_t *)mbuf->buf_addr + ONVM_SLOT_TIME, &ns, sizeof(ns));
		flags = ONVM_BUFFER_TIMED;
	}
	if (onvm_offload_has(mbuf))
		flags |= onvm_offload_flags(mbuf);
	return flags;
}

/**
 * Flags for what is left to do, and for times.
 *
 * @param has_hints  there may be such packets; asked once for a burst
 */
static inline uint16_t
hints_of(const struct rte_mbuf *mbuf, bool has_hints)
{
	return likely(!has_hints) ? 0 : write_hints(mbuf);
}

/**
 * Fill a packet's record and send it to the first hop, or out when the path has none.
 *
 * @param way  onvm_path_desc_flags() of the first hop
 */
static inline void
enter(struct onvm_worker *worker, const struct onvm_path *path, uint16_t path_index,
      struct onvm_link *first, struct rte_mbuf *mbuf, uint16_t port, uint32_t flow,
      uint32_t flow_hash, uint16_t flags, uint8_t way, bool has_hints)
{
	struct onvm_packet_memory *memory = &worker->dp->memory;
	const uint32_t index = onvm_buffer_index(memory, mbuf);
	struct onvm_buffer *buffer = &memory->buffers[index];

	buffer->path = path_index;
	buffer->flags = (uint16_t)(flags | ONVM_BUFFER_RESERVED | sample(worker, index) |
				   hints_of(mbuf, has_hints));
	buffer->port = port;
	buffer->flow = flow;
	buffer->flow_hash = flow_hash;
	if (likely(first != NULL)) {
		onvm_queue_on_way(worker, first, mbuf, index, buffer, 0, way);
		return;
	}
	if (path->remotes != 0 || path->egress >= ONVM_PORTS_MAX)
		onvm_remote_send(worker, mbuf, path_index, 0, ONVM_NSH_TTL);
	else
		onvm_leave(worker, mbuf, index, buffer, path->egress);
}

static inline uint32_t
rss_of(const struct rte_mbuf *mbuf)
{
	return mbuf->ol_flags & RTE_MBUF_F_RX_RSS_HASH ? mbuf->hash.rss : 0;
}

/* ---- bursts on the only path ---- */

/**
 * enter() for a burst without flows: the same records and descriptors, but counters and ring space
 * are looked at once.
 */
static inline void
enter_burst(struct onvm_worker *worker, const struct onvm_path *path, uint16_t path_index,
	    struct onvm_link *first, struct rte_mbuf **mbufs, uint32_t nb, uint16_t port)
{
	struct onvm_packet_memory *memory = &worker->dp->memory;
	struct onvm_desc *desc;
	const uint8_t desc_flags = onvm_path_desc_flags(path, 0);
	const bool has_hints = may_have_hints(worker);
	uint32_t next_sample = worker->sample_countdown - 1;

	ONVM_ASSERT(onvm_hop_is_at(path, 0, first));
	if (unlikely(first->nb_pending + nb > ONVM_PENDING_MAX))
		onvm_link_flush(worker, first);
	desc = &first->pending[first->nb_pending];
	for (uint32_t i = 0; i < nb; i++) {
		struct rte_mbuf *mbuf = mbufs[i];
		const uint32_t index = onvm_buffer_index(memory, mbuf);
		const uint32_t flow_hash = rss_of(mbuf);
		const uint16_t hints = hints_of(mbuf, has_hints);

		ONVM_ASSERT(memory->buffers[index].owner == ONVM_OWNER_NONE);
		memory->buffers[index] = (struct onvm_buffer){
			.owner = first->id,
			.path = path_index,
			.hop = 0,
			.flags = (uint16_t)(ONVM_BUFFER_RESERVED | hints),
			.port = port,
			.flow = ONVM_FLOW_NONE,
			.flow_hash = flow_hash,
		};
		desc[i] = (struct onvm_desc){
			.buffer = index,
			.offset = mbuf->data_off,
			.length = mbuf->data_len,
			.flow_hash = flow_hash,
			.port = port,
			.verdict_stage = ONVM_NEXT,
			.flags = (uint8_t)(desc_flags | ONVM_DESC_HINTS(hints)),
		};
	}
	for (; next_sample < nb; next_sample += worker->dp->config.sample_every) {
		const uint32_t index = desc[next_sample].buffer;

		memory->buffers[index].flags |= ONVM_BUFFER_SAMPLED;
		memory->times[index].received = rte_rdtsc();
		memory->times[index].enqueued = memory->times[index].received;
	}
	worker->sample_countdown = next_sample - nb + 1;
	first->nb_pending += nb;
	first->stats.rx[path->is_reverse] += nb;
}

/** Let a burst leave that no NF and no peer gets: nothing asks for its records. */
static inline void
leave_burst(struct onvm_worker *worker, struct onvm_worker_port *wport, struct rte_mbuf **mbufs,
	    uint32_t nb)
{
	const uint32_t sample_every = worker->dp->config.sample_every;
	const uint64_t began = rte_rdtsc();
	uint32_t next_sample = worker->sample_countdown - 1;

	for (uint32_t i = 0; i < nb; i++)
		onvm_queue_to_port(worker, wport, mbufs[i]);
	for (; next_sample < nb; next_sample += sample_every)
		onvm_latency_add(&wport->stats.latency, (uint64_t)((double)(rte_rdtsc() - began) *
								   worker->dp->ns_per_cycle));
	worker->sample_countdown = next_sample - nb + 1;
}

uint32_t
onvm_admit_direct(struct onvm_worker *worker, struct onvm_worker_port *wport, uint16_t path_index,
		  struct rte_mbuf **mbufs, uint32_t nb)
{
	const struct onvm_path *path = &worker->dp->steering.paths[path_index];
	struct onvm_link *first = path->nb_hops == 0 ? NULL :
						       onvm_link_of_hop(worker, &path->hops[0]);
	const uint32_t available = onvm_credits_available(worker, path, 0, wport->port->can_wait);
	const bool has_hints = may_have_hints(worker);
	uint32_t nb_in = nb < available ? nb : available;

	onvm_credits_reserve(worker, path, 0, nb_in);
	if (likely(first != NULL))
		enter_burst(worker, path, path_index, first, mbufs, nb_in, wport->port->id);
	else if (path->remotes == 0 && path->egress < ONVM_PORTS_MAX &&
		 likely(worker->wport_of[path->egress] != NULL))
		leave_burst(worker, worker->wport_of[path->egress], mbufs, nb_in);
	else
		for (uint32_t i = 0; i < nb_in; i++)
			enter(worker, path, path_index, NULL, mbufs[i], wport->port->id,
			      ONVM_FLOW_NONE, rss_of(mbufs[i]), 0, 0, has_hints);
	if (likely(nb_in == nb) || wport->port->can_wait)
		return nb_in;
	onvm_credits_count_shed(worker, path, 0, nb - nb_in);
	for (; nb_in < nb; nb_in++)
		onvm_worker_drop(worker, mbufs[nb_in],
				 path->nb_hops != 0 && first == NULL ?
					 no_instance(worker, path->chain) :
					 ONVM_DROP_SHED);
	return nb;
}

/* ---- bursts that are looked up ---- */

/** Paths of a burst, with credits taken in advance: links are looked at once a path. */
#define RESERVATIONS 8

struct reservation {
	uint16_t path;	     /**< live when the reservation was made, in this burst */
	uint8_t usual;	     /**< onvm_flow_usual_flags() */
	uint8_t way;	     /**< onvm_path_desc_flags() of its first hop */
	uint32_t nb_credits; /**< taken and not yet used */
	struct onvm_link *first;
};

static void
give_back(struct onvm_worker *worker, struct reservation *reservation)
{
	if (reservation->nb_credits == 0)
		return;
	onvm_credits_release(worker, &worker->dp->steering.paths[reservation->path], 0,
			     reservation->nb_credits);
	reservation->nb_credits = 0;
}

/** A reservation on path @p index; without credits where a link has none left. */
static inline struct reservation *
reserve(struct onvm_worker *worker, struct reservation *reservations, uint16_t index,
	uint32_t nb_wanted, bool can_wait)
{
	struct reservation *reservation = &reservations[index % RESERVATIONS];
	const struct onvm_path *path;
	uint32_t available;

	if (likely(reservation->path == index && reservation->nb_credits != 0))
		return reservation;
	give_back(worker, reservation);
	path = &worker->dp->steering.paths[index];
	available = onvm_credits_available(worker, path, 0, can_wait);
	reservation->path = index;
	reservation->way = onvm_path_desc_flags(path, 0);
	reservation->usual = onvm_flow_usual_flags(path->learns != 0);
	reservation->nb_credits = available < nb_wanted ? available : nb_wanted;
	reservation->first = path->nb_hops == 0 ? NULL : onvm_link_of_hop(worker, &path->hops[0]);
	onvm_credits_reserve(worker, path, 0, reservation->nb_credits);
	return reservation;
}

/** The reservation for a known flow, if an earlier packet of the burst made one; else NULL. */
static inline struct reservation *
reservation_of_known(struct onvm_flow_table *flows, struct onvm_burst *burst, uint32_t i,
		     struct reservation *reservations, uint8_t now)
{
	const uint16_t path = onvm_burst_path(flows, burst, i);
	struct reservation *reservation = &reservations[path % RESERVATIONS];

	if (path == 0 || reservation->path != path || reservation->nb_credits == 0 ||
	    unlikely((burst->signs[i] & ONVM_SIGN_FRAGMENT) != 0))
		return NULL;
	onvm_flow_touch(&flows->flows[burst->positions[i]], now);
	return reservation;
}

/** Flags of a packet that may tell something of its flow when it leaves here, or tells it now. */
static uint16_t
note_later(struct onvm_dataplane *dp, const struct reservation *reservation, uint32_t position,
	   uint8_t signs)
{
	const enum onvm_flow_note note = onvm_flow_note_of(signs);

	if (position == ONVM_FLOW_NONE ||
	    !onvm_flow_tells(dp->flows.flows[position].flags, signs, reservation->usual))
		return 0;
	if ((reservation->usual & ONVM_FLOW_LEARNED) != 0)
		return ONVM_BUFFER_LEARN | ONVM_BUFFER_OF_NOTE(note);
	onvm_flow_note(&dp->flows, position, note); /* it leaves elsewhere */
	return 0;
}

uint32_t
onvm_admit_flows(struct onvm_worker *worker, struct onvm_worker_port *wport, uint32_t binding,
		 const struct onvm_candidates *candidates, struct rte_mbuf **mbufs, uint32_t nb)
{
	const struct onvm_chain_entry bound = {(uint16_t)binding, (binding & ONVM_BINDING_FAR) != 0,
					       candidates};
	struct onvm_dataplane *dp = worker->dp;
	const bool can_wait = wport->port->can_wait;
	struct reservation reservations[RESERVATIONS] = {{0}};
	struct onvm_burst *burst = &wport->burst;
	const uint8_t now = __atomic_load_n(&dp->flows.now, __ATOMIC_RELAXED);
	const bool has_hints = may_have_hints(worker);
	uint32_t nb_done;

	if (!wport->is_classified)
		onvm_classify(&dp->flows, (uint8_t)wport->port->id, mbufs, nb, burst);
	wport->is_classified = false;
	for (nb_done = 0; nb_done < nb; nb_done++) {
		const uint32_t i = nb_done;
		struct reservation *reservation =
			reservation_of_known(&dp->flows, burst, i, reservations, now);
		uint32_t position;
		uint16_t index;
		uint16_t flags = 0;

		if (unlikely(reservation == NULL)) {
			index = onvm_path_of(worker, wport, &bound, mbufs[i], i);
			if (unlikely(index == 0)) {
				const uint16_t chain = onvm_chain_of(worker, wport, &bound, i);
				const enum onvm_drop reason = no_instance(worker, chain);

				if (can_wait && reason == ONVM_DROP_WAITING) {
					wport->waits_for = 0; /* looked up again in each turn */
					break;
				}
				onvm_worker_drop(worker, mbufs[i], reason);
				continue;
			}
			reservation = reserve(worker, reservations, index, nb - i, can_wait);
		}
		index = reservation->path;
		if (unlikely(reservation->nb_credits == 0)) {
			if (can_wait ||
			    unlikely(path_is_paused(worker, &dp->steering.paths[index]))) {
				wport->waits_for = index;
				break;
			}
			onvm_credits_count_shed(worker, &dp->steering.paths[index], 0, 1);
			onvm_worker_drop(worker, mbufs[i], ONVM_DROP_SHED);
			continue;
		}
		reservation->nb_credits--;
		position = burst->positions[i];
		if (position != ONVM_FLOW_NONE &&
		    unlikely(onvm_flow_may_tell(dp->flows.flows[position].flags, burst->signs[i],
						reservation->usual)))
			flags = note_later(dp, reservation, position, burst->signs[i]);
		enter(worker, &dp->steering.paths[index], index, reservation->first, mbufs[i],
		      wport->port->id, position, burst->hashes[i], flags, reservation->way,
		      has_hints);
	}
	for (uint32_t i = 0; i < RESERVATIONS; i++)
		give_back(worker, &reservations[i]);
	return nb_done;
}
