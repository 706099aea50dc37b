/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_WORKER_H_
#define _ONVM_WORKER_H_

/**
 * @file
 * A worker lcore: takes packets from ports, steers them, moves them between NFs, sends them.
 *
 * One turn of the loop: admit what was received in the last turn, receive and classify (ingress.c),
 * take back from NF hosts and pass on
 * (return.c), flush what was pending for links and ports, and now and then look at what the
 * control thread has changed. Without packets for a while it sleeps on its eventfd until the
 * earliest of: a wake-up by an NF host or the control thread, the next packet of a paced source,
 * the next look at a port that must be polled.
 *
 * Threads: a worker owns its worker ports and links. The control thread publishes changes and raises
 * onvm_dataplane.epoch; the worker acts on them between two turns and copies the epoch to `seen`.
 */

#include <stdint.h>

#include "dataplane.h"
#include "flows/classify.h"
#include "flows/flow_table.h"
#include "packet_memory.h"
#include "peers/nsh.h"
#include "peers/peers.h"
#include "peers/probe.h"
#include "ports/capture.h"
#include "ports/port.h"
#include "steering/steering.h"
#include "worker/link.h"

/** Counters of one port on one worker. */
struct onvm_worker_port_stats {
	uint64_t rx, rx_bytes;
	uint64_t tx, tx_bytes;
	struct onvm_latency latency; /**< of sampled packets, from port to port */
};

/** One port as one worker uses it. */
struct onvm_worker_port {
	struct onvm_port *port;
	uint16_t nb_queues; /**< receive queues that this worker serves */
	uint16_t queues[16];
	uint16_t next_queue; /**< index into `queues` */
	uint16_t waits_for;  /**< path that had no room for the first packet held; 0: none */
	uint16_t nb_held;    /**< received, not yet admitted */
	uint32_t nb_pending;
	uint64_t pending_bytes;
	struct onvm_worker_port_stats stats;
	bool is_classified; /**< `burst` is of what is held */
	struct onvm_burst burst;
	struct rte_mbuf *held[ONVM_BURST_SIZE];
	struct rte_mbuf *pending[ONVM_PENDING_MAX];
};

struct onvm_worker_stats {
	uint64_t drops[ONVM_DROPS];
	uint64_t originated;
	uint64_t new_flows;
	uint64_t learned_flows;
	uint64_t flow_table_full;
	uint64_t busy_cycles, idle_cycles, sleeps;
};

/** What NSH headers that came lately mean here. */
struct onvm_resolved {
	struct onvm_nsh nsh;
	uint16_t path; /**< 0: nothing is remembered */
	uint8_t hop;   /**< nb_hops: out of the path's egress */
};
#define ONVM_RESOLVED_MAX 64

struct onvm_worker {
	struct onvm_dataplane *dp;
	uint32_t index;
	int event_fd; /**< the control thread wakes it with; private to the manager */
	/**
	 * epoll: event_fd and those of the links, edge-triggered, so that none is ever read. An NF
	 * host shares its own with us alone: filled, blocking or emptied, it harms itself.
	 */
	int poll_fd;
	uint32_t seen; /**< atomic: epoch whose changes have been taken over */
	uint32_t nb_links;
	struct onvm_link *links[ONVM_HOSTS_MAX];   /**< of living hosts */
	struct onvm_link *link_of[ONVM_SLOTS_MAX]; /**< by host slot; NULL of those at peers */
	uint32_t nb_wports;
	struct onvm_worker_port *wports[ONVM_PORTS_MAX];   /**< of open ports */
	struct onvm_worker_port *wport_of[ONVM_PORTS_MAX]; /**< by port ID */
	struct onvm_worker_port *tunnel; /**< to the peers; NULL without a cluster */
	struct onvm_selector selector;
	struct onvm_resolved resolved[ONVM_RESOLVED_MAX]; /**< valid until the next change */
	struct onvm_worker_stats stats;
	uint32_t sample_countdown;
	uint32_t nb_free; /**< mbufs in `free` */
	struct rte_mbuf *free[ONVM_BURST_SIZE * 4];
	struct rte_rcu_qsbr *qsbr;
	uint8_t is_running; /**< atomic */
};

struct onvm_dataplane {
	struct onvm_dp_config config;
	struct onvm_packet_memory memory;
	struct onvm_steering steering;
	struct onvm_flow_table flows;
	struct onvm_peers peers;
	struct onvm_prober prober;
	struct onvm_captures captures;
	struct rte_rcu_qsbr *qsbr;
	struct onvm_port ports[ONVM_PORTS_MAX];
	struct onvm_worker_port *wports[ONVM_WORKERS_MAX][ONVM_PORTS_MAX];
	struct onvm_link *links[ONVM_WORKERS_MAX][ONVM_HOSTS_MAX];
	struct onvm_worker workers[ONVM_WORKERS_MAX];
	struct {
		uint8_t wants_marks; /**< atomic: workers mark the paths of their packets */
		bool is_waiting;     /**< the housekeeper's: paths are leaving since pass */
		uint32_t since;
	} recycling;
	uint32_t epoch;		       /**< atomic: counts changes that workers must take over */
	uint8_t must_stop;	       /**< atomic */
	uint8_t sources_paused;	       /**< atomic: workers receive nothing */
	int notice_fd;		       /**< eventfd: something for the control thread to look at */
	uint64_t closed_rx, closed_tx; /**< packets of ports that are no more */
	uint64_t hz;
	double ns_per_cycle;
};

/** Run worker @p worker until onvm_dataplane.must_stop; the body of an lcore. */
int onvm_worker_run(void *worker);

/* ---- between the worker's files ---- */

static inline void
onvm_worker_drop(struct onvm_worker *worker, struct rte_mbuf *mbuf, enum onvm_drop reason)
{
	worker->stats.drops[reason]++;
	rte_pktmbuf_free(mbuf);
}

/** Packets that may enter @p path at hop @p first; updates the watermark state of its links. */
uint32_t onvm_credits_available(struct onvm_worker *worker, const struct onvm_path *path,
				uint32_t first, bool can_wait);
/** Take @p nb places on the links from hop @p first on. */
void onvm_credits_reserve(struct onvm_worker *worker, const struct onvm_path *path, uint32_t first,
			  uint32_t nb);
/** Count @p nb packets shed against the link from hop @p first on that had no room. */
void onvm_credits_count_shed(struct onvm_worker *worker, const struct onvm_path *path,
			     uint32_t first, uint32_t nb);
/** Admit a burst to the only path; @return how many packets are done with (admitted or dropped). */
uint32_t onvm_admit_direct(struct onvm_worker *worker, struct onvm_worker_port *wport,
			   uint16_t path_index, struct rte_mbuf **mbufs, uint32_t nb);
/** Admit packets by their flows; @return how many are done with (admitted or dropped). */
uint32_t
onvm_admit_flows(struct onvm_worker *worker, struct onvm_worker_port *wport, uint32_t binding,
		 const struct onvm_candidates *candidates, struct rte_mbuf **mbufs, uint32_t nb);
/** Where the new flows of a port go: a chain, and from which of its ends. */
struct onvm_chain_entry {
	uint16_t chain;
	bool is_far;
	const struct onvm_candidates *candidates;
};

/**
 * Path of the flow of packet @p i of the worker port's burst, chosen if it is a new one, and the flow's
 * position in the burst. @p bound is the way of the chain that the port is bound to; 0: a service
 * has no instance.
 */
uint16_t onvm_path_of(struct onvm_worker *worker, struct onvm_worker_port *wport,
		      const struct onvm_chain_entry *bound, struct rte_mbuf *mbuf, uint32_t i);
/** Chain that packet @p i of the worker port's burst would take as the first of a flow. */
uint16_t onvm_chain_of(const struct onvm_worker *worker, const struct onvm_worker_port *wport,
		       const struct onvm_chain_entry *bound, uint32_t i);
/** Admit what the last turn has received and classified; @return packets admitted. */
uint32_t onvm_ingress_admit(struct onvm_worker *worker);
/** Receive on all worker ports; @return packets received. */
uint32_t onvm_ingress_receive(struct onvm_worker *worker);
/** Take back from one NF host and pass on; @return packets taken. */
uint32_t onvm_return_poll(struct onvm_worker *worker, struct onvm_link *link);
/** Take back what one descriptor from an NF host names, whatever it is, and obey or accuse it. */
void
onvm_take_back(struct onvm_worker *worker, struct onvm_link *link, const struct onvm_desc *desc);
/** Install the reverse of the flow of a packet that leaves through @p port. */
void onvm_learn_reverse(struct onvm_worker *worker, struct rte_mbuf *mbuf,
			const struct onvm_buffer *buffer, uint16_t port);
/** Let a packet leave through port @p port. */
void onvm_leave(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint32_t index,
		struct onvm_buffer *buffer, uint16_t port);
/** Send a packet to where hop @p hop of its path is: a peer. */
void onvm_remote_send(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint16_t path, uint8_t hop,
		      uint8_t ttl);
/** Take in what peers have sent: @p nb packets of @p worker port's queue @p queue. */
void onvm_remote_take_in(struct onvm_worker *worker, struct onvm_worker_port *wport, uint16_t queue,
			 struct rte_mbuf **mbufs, uint16_t nb);

/** Mark the link bad and tell the control thread, once. */
void onvm_link_report_fault(struct onvm_worker *worker, struct onvm_link *link);
void onvm_link_flush(struct onvm_worker *worker, struct onvm_link *link);
void onvm_worker_port_flush(struct onvm_worker *worker, struct onvm_worker_port *wport);

/** Put a packet on the way to the NF host behind @p link, as hop @p hop of its path. */
static inline void
onvm_queue_to_link(struct onvm_worker *worker, struct onvm_link *link, struct rte_mbuf *mbuf,
		   uint32_t index, struct onvm_buffer *buffer, uint8_t hop, bool is_reverse)
{
	struct onvm_desc *desc;

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
	desc->flags = is_reverse ? ONVM_F_REVERSE : 0;
	link->stats.rx[is_reverse]++;
	if (unlikely(buffer->flags & ONVM_BUFFER_SAMPLED))
		worker->dp->memory.times[index].enqueued = rte_rdtsc();
}

/** Put a packet on the way out of @p port. */
static inline void
onvm_queue_to_port(struct onvm_worker *worker, struct onvm_worker_port *wport,
		   struct rte_mbuf *mbuf)
{
	if (unlikely(wport->nb_pending == ONVM_PENDING_MAX))
		onvm_worker_port_flush(worker, wport);
	wport->pending[wport->nb_pending++] = mbuf;
	wport->pending_bytes += mbuf->data_len;
}

/** The worker's link to the host of @p hop, or NULL when that host is not the same any more. */
static inline struct onvm_link *
onvm_link_of_hop(const struct onvm_worker *worker, const struct onvm_hop *hop)
{
	struct onvm_link *link = worker->link_of[hop->host];

	return likely(link != NULL && link->generation == hop->generation) ? link : NULL;
}

/** Whether hop @p hop is at a peer, at an NF host that has not ended. */
static inline bool
onvm_hop_is_remote(const struct onvm_worker *worker, const struct onvm_path *path, uint32_t hop)
{
	return onvm_path_is_remote(path, hop) &&
	       worker->dp->steering.hosts[path->hops[hop].host].generation ==
		       path->hops[hop].generation;
}

/** Smallest packet that an NF may make: an Ethernet header. */
#define ONVM_PACKET_MIN 14

/** Let an mbuf be what an NF made of its packet; the bounds have been checked. */
static inline void
onvm_set_bounds(struct rte_mbuf *mbuf, const struct onvm_desc *desc)
{
	mbuf->data_off = desc->offset;
	mbuf->data_len = desc->length;
	mbuf->pkt_len = desc->length;
}

/** Give up the places that a packet holds on the hops from @p first on, as far as they are here. */
static inline void
onvm_credits_release(const struct onvm_worker *worker, const struct onvm_path *path, uint32_t first)
{
	const uint32_t end = onvm_path_end_here(path, first);

	for (uint32_t i = first; i < end; i++) {
		struct onvm_link *link = onvm_link_of_hop(worker, &path->hops[i]);

		if (link != NULL)
			link->reserved--;
	}
}

#endif /* _ONVM_WORKER_H_ */
