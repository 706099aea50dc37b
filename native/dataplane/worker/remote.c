/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Packets from peers: the NSH of a packet names its path and how far it has come, and the packet
 * goes on from there.
 */

#include "worker/remote.h"

#include <string.h>

#include <rte_cycles.h>

#include "peers/tunnel.h"
#include "ports/offload.h"
#include "steering/spanning.h"
#include "worker/credits.h"
#include "worker/egress.h"
#include "worker/fragments.h"

/** Hop of @p path at which @p si services are still to come, with the exit as one; or false. */
static bool
hop_of(const struct onvm_path *path, uint8_t si, uint8_t *hop)
{
	uint32_t left = path->nb_services + 1u;

	for (*hop = 0; left > si && *hop < path->nb_hops; (*hop)++)
		left -= path->hops[*hop].nb_services;
	return left == si;
}

/**
 * What the header of a packet from @p peer means here.
 *
 * @return ONVM_DROPS, or why the packet is dropped
 */
static enum onvm_drop
resolve(struct onvm_worker *worker, const struct onvm_nsh *nsh, uint16_t peer, uint32_t hash,
	uint16_t *path, uint8_t *hop)
{
	struct onvm_steering *steering = &worker->dp->steering;
	struct onvm_resolved *known =
		&worker->resolved[(nsh->numbers[0] ^ nsh->numbers[1] * 5u ^ nsh->numbers[2] * 25u ^
				   nsh->chain ^ nsh->si) %
				  ONVM_RESOLVED_MAX];
	uint16_t index;

	if (likely(known->path != 0 && known->peer == peer && known->nsh.chain == nsh->chain &&
		   known->nsh.is_reverse == nsh->is_reverse && known->nsh.si == nsh->si &&
		   memcmp(known->nsh.numbers, nsh->numbers, sizeof(nsh->numbers)) == 0 &&
		   !onvm_path_is_retired(&steering->paths[known->path]))) {
		*path = known->path;
		*hop = known->hop;
		return ONVM_DROPS;
	}
	index = onvm_span_path(steering, nsh->chain, nsh->numbers, hash);
	if (index != 0 && nsh->is_reverse)
		index = steering->paths[index].opposite;
	if (index == 0)
		return onvm_steering_is_full(steering) ? ONVM_DROP_PATHS_FULL : ONVM_DROP_NO_PATH;
	if (!hop_of(&steering->paths[index], nsh->si, hop))
		return ONVM_DROP_NO_PATH;
	if (!onvm_span_may_hand_over(steering, &steering->paths[index], *hop, peer))
		return ONVM_DROP_WRONG_HOP;
	*path = index;
	if (nsh->numbers[0] != 0) /* else every flow may take another path */
		*known = (struct onvm_resolved){.nsh = *nsh,
						.path = index,
						.hop = *hop,
						.peer = peer};
	return ONVM_DROPS;
}

/** On to a peer without having met an NF here: an instance has moved on, or views differ. */
static void
forward(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint16_t path, uint8_t hop, uint8_t ttl)
{
	if (ttl <= 1)
		onvm_worker_drop(worker, mbuf, ONVM_DROP_NO_PATH);
	else
		onvm_remote_send(worker, mbuf, path, hop, (uint8_t)(ttl - 1));
}

/** Take in one packet of a peer. */
static void
take_in(struct onvm_worker *worker, uint16_t port, struct rte_mbuf *mbuf,
	const struct onvm_tunnel_packet *packet)
{
	const struct onvm_nsh *nsh = &packet->nsh;
	struct onvm_packet_memory *memory = &worker->dp->memory;
	const uint32_t index = onvm_buffer_index(memory, mbuf);
	struct onvm_buffer *buffer = &memory->buffers[index];
	const uint32_t hash = onvm_flow_hash_of(mbuf);
	const struct onvm_path *path;
	struct onvm_link *link;
	enum onvm_drop reason;
	uint16_t path_index;
	uint8_t hop;

	reason = resolve(worker, nsh, packet->peer, hash, &path_index, &hop);
	if (reason != ONVM_DROPS) {
		onvm_worker_drop(worker, mbuf, reason);
		return;
	}
	path = &worker->dp->steering.paths[path_index];
	*buffer = (struct onvm_buffer){.path = path_index,
				       .hop = hop,
				       .flags = ONVM_BUFFER_RESERVED,
				       .port = port,
				       .flow = ONVM_FLOW_NONE,
				       .flow_hash = hash};
	if (unlikely(onvm_offload_has(mbuf)))
		buffer->flags |= onvm_offload_flags(mbuf);
	if (path->opposite != 0 && path->egress < ONVM_PORTS_MAX)
		buffer->flags |= ONVM_BUFFER_TEACH;
	if (hop == path->nb_hops) {
		if (path->egress < ONVM_PORTS_MAX)
			onvm_leave(worker, mbuf, index, buffer, path->egress);
		else
			forward(worker, mbuf, path_index, hop, nsh->ttl);
		return;
	}
	link = onvm_link_of_hop(worker, &path->hops[hop]);
	if (link == NULL) {
		if (onvm_hop_is_remote(worker, path, hop))
			forward(worker, mbuf, path_index, hop, nsh->ttl);
		else
			onvm_worker_drop(worker, mbuf, ONVM_DROP_NO_INSTANCE);
		return;
	}
	if (onvm_credits_available(worker, path, hop, false) == 0) {
		onvm_credits_count_shed(worker, path, hop, 1);
		onvm_worker_drop(worker, mbuf, ONVM_DROP_SHED);
		return;
	}
	onvm_credits_reserve(worker, path, hop, 1);
	if (unlikely(--worker->sample_countdown == 0)) {
		worker->sample_countdown = worker->dp->config.sample_every;
		memory->times[index].received = rte_rdtsc();
		buffer->flags |= ONVM_BUFFER_SAMPLED;
	}
	onvm_queue_to_link(worker, link, mbuf, index, buffer, hop);
}

void
onvm_remote_take_in(struct onvm_worker *worker, struct onvm_worker_port *wport, uint16_t queue,
		    struct rte_mbuf **mbufs, uint16_t nb)
{
	const struct onvm_tunnel_packet *packets = onvm_tunnel_received(wport->port, queue);
	const bool has_fragments = __atomic_load_n(&wport->port->fragments, __ATOMIC_RELAXED) !=
				   ONVM_FRAGMENTS_PASS;

	struct rte_mbuf *ready[ONVM_PIECES_MAX];

	for (uint16_t i = 0; i < nb; i++) {
		uint16_t nb_ready = 1;

		/* What a fragment has made complete takes the way of that fragment. */
		ready[0] = mbufs[i];
		if (unlikely(has_fragments))
			nb_ready = onvm_fragment_take(worker, wport, queue, mbufs[i], ready);
		wport->stats.rx += nb_ready;
		for (uint16_t k = 0; k < nb_ready; k++)
			take_in(worker, wport->port->id, ready[k], &packets[i]);
	}
}
