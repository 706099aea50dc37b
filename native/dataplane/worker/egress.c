/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/egress.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "peers/tunnel.h"
#include "ports/offload.h"
#include "worker/credits.h"

void
onvm_link_report(struct onvm_worker *worker, struct onvm_link *link, enum onvm_fault fault)
{
	const uint64_t one = 1;

	link->stats.nb_bad++;
	if (link->fault != ONVM_FAULT_NONE)
		return;
	__atomic_store_n(&link->fault, (uint8_t)fault, __ATOMIC_RELEASE);
	if (write(worker->dp->notice_fd, &one, sizeof(one)) < 0)
		return; /* it has been told already */
}

static void
wake_host(struct onvm_link *link)
{
	uint32_t *word = &link->control->sleeping;

	/* S2: pairs with the fence S1 in the NF host: it sets the word, then looks at the ring. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (likely(__atomic_load_n(word, __ATOMIC_RELAXED) == 0))
		return;
	__atomic_store_n(word, 0, __ATOMIC_RELAXED);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void
onvm_link_flush(struct onvm_worker *worker, struct onvm_link *link)
{
	struct onvm_packet_memory *memory = &worker->dp->memory;
	const uint32_t nb = link->nb_pending;
	uint32_t nb_sent;

	if (onvm_capture_wants(&worker->dp->captures, ONVM_CAPTURE_TO_HOST))
		onvm_capture_host(&worker->dp->captures, worker->index, &worker->dp->memory,
				  link->host, link->id, ONVM_CAPTURE_TO_HOST, link->pending, nb);
	nb_sent = onvm_ring_enqueue_burst(&link->to_nf, link->pending, nb);
	link->nb_pending = 0;
	/* Reservations leave room for all; only a host that lies about its index gets here. */
	for (uint32_t i = nb_sent; unlikely(i < nb); i++) {
		const uint32_t index = link->pending[i].buffer;
		struct onvm_buffer *buffer = &memory->buffers[index];
		const struct onvm_path *path = &worker->dp->steering.paths[buffer->path];

		onvm_link_report_fault(worker, link);
		/* It guessed the index and has "returned" it before it was sent. */
		if (buffer->owner != link->id)
			continue;
		buffer->owner = ONVM_OWNER_NONE;
		link->stats.rx[path->is_reverse]--;
		onvm_credits_release(worker, path, buffer->hop, 1);
		onvm_worker_drop(worker, memory->mbufs[index], ONVM_DROP_BAD_DESCRIPTOR);
	}
	/*
	 * A host that has just been told to sleep spins before it does: packets of a flush that did
	 * not see the word yet have arrived by then.
	 */
	if (worker->dp->config.idle_policy == ONVM_IDLE_ADAPTIVE ||
	    __atomic_load_n(&link->control->shares_cpu, __ATOMIC_RELAXED) != 0)
		wake_host(link);
}

/** Send packets to a port that does not take all of them as they are: make checksums, and cut. */
static void
flush_complete(struct onvm_worker *worker, struct onvm_worker_port *wport)
{
	struct onvm_port *port = wport->port;
	struct rte_mbuf *mbufs[ONVM_BURST_SIZE];
	struct onvm_cutter cutter;
	uint32_t nb_added = 0;
	bool is_cut;

	onvm_cutter_begin(&cutter, wport->pending, (uint16_t)wport->nb_pending,
			  port->takes_offloads);
	while (!onvm_cutter_is_done(&cutter)) {
		const uint16_t nb = onvm_cutter_next(&cutter, &worker->dp->memory, port->pools[0],
						     mbufs, ONVM_BURST_SIZE, &nb_added);
		uint16_t nb_tx;

		if (nb == 0)
			break;
		for (uint16_t i = 0; i < nb; i++)
			wport->stats.tx_bytes += mbufs[i]->data_len;
		nb_tx = port->ops->tx_burst(port, (uint16_t)worker->index, mbufs, nb);
		wport->stats.tx += nb_tx;
		for (uint16_t i = nb_tx; i < nb; i++) {
			wport->stats.tx_bytes -= mbufs[i]->data_len;
			onvm_worker_drop(worker, mbufs[i], ONVM_DROP_TX_FULL);
		}
	}
	/* Without buffers to cut into: of one that is cut in part, the rest is one more packet. */
	is_cut = onvm_cutter_is_within(&cutter);
	worker->stats.drops[ONVM_DROP_TX_FULL] += onvm_cutter_free(&cutter);
	worker->stats.originated += nb_added + (is_cut ? 1u : 0u);
	wport->nb_pending = 0;
	wport->pending_bytes = 0;
}

void
onvm_worker_port_flush(struct onvm_worker *worker, struct onvm_worker_port *wport)
{
	const uint8_t has_offloads = __atomic_load_n(&worker->dp->has_offloads, __ATOMIC_RELAXED);
	struct onvm_port *port = wport->port;
	const uint16_t nb = (uint16_t)wport->nb_pending;
	uint64_t nb_bytes = wport->pending_bytes;
	uint16_t nb_tx;

	if (onvm_capture_wants(&worker->dp->captures, ONVM_CAPTURE_PORT_OUT))
		onvm_capture_port(&worker->dp->captures, worker->index, &worker->dp->memory,
				  port->id, ONVM_CAPTURE_PORT_OUT, wport->pending, nb);
	if (unlikely((has_offloads & ONVM_HAS_FRAGMENTED) != 0 ||
		     (has_offloads != 0 && !port->takes_offloads))) {
		flush_complete(worker, wport);
		return;
	}
	nb_tx = port->ops->tx_burst(port, (uint16_t)worker->index, wport->pending, nb);
	for (uint16_t i = nb_tx; unlikely(i < nb); i++) {
		nb_bytes -= wport->pending[i]->data_len;
		onvm_worker_drop(worker, wport->pending[i], ONVM_DROP_TX_FULL);
	}
	wport->stats.tx += nb_tx;
	wport->stats.tx_bytes += nb_bytes;
	wport->nb_pending = 0;
	wport->pending_bytes = 0;
}

void
onvm_egress_flush(struct onvm_worker *worker)
{
	for (uint32_t i = 0; i < worker->nb_links; i++)
		if (worker->links[i]->nb_pending != 0)
			onvm_link_flush(worker, worker->links[i]);
	for (uint32_t i = 0; i < worker->nb_wports; i++)
		if (worker->wports[i]->nb_pending != 0)
			onvm_worker_port_flush(worker, worker->wports[i]);
	if (worker->nb_free != 0) {
		onvm_packets_free(&worker->dp->memory, worker->free, worker->nb_free);
		worker->nb_free = 0;
	}
}

void
onvm_remote_send(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint16_t index, uint8_t hop,
		 uint8_t ttl)
{
	const struct onvm_steering *steering = &worker->dp->steering;
	const struct onvm_path *path = &steering->paths[index];
	const uint16_t peer = hop < path->nb_hops ? steering->hosts[path->hops[hop].host].peer :
						    path->egress & (ONVM_PORT_REMOTE - 1);
	uint32_t flow_hash =
		worker->dp->memory.buffers[onvm_buffer_index(&worker->dp->memory, mbuf)].flow_hash;

	if (unlikely(worker->tunnel == NULL || peer >= ONVM_PEERS_MAX ||
		     !worker->dp->peers.peers[peer].is_used)) {
		onvm_worker_drop(worker, mbuf, ONVM_DROP_NO_INSTANCE);
		return;
	}
	if (unlikely(!onvm_peer_is_ready(&worker->dp->peers, peer))) {
		onvm_worker_drop(worker, mbuf, ONVM_DROP_NO_KEY);
		return;
	}
	/* Packets of a chain whose flows are not remembered may have none yet. */
	if (unlikely(flow_hash == 0))
		flow_hash = onvm_flow_hash_of(mbuf);
	onvm_tunnel_address(mbuf, peer, index, hop, ttl, flow_hash);
	onvm_queue_to_port(worker, worker->tunnel, mbuf);
}
