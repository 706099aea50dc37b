/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_WORKER_H_
#define _ONVM_WORKER_H_

/**
 * @file
 * The types of a worker lcore, which takes packets from ports, steers them, moves them between NFs
 * and sends them.
 *
 * One turn of the loop (loop.c): admit the packets of the last turn, receive and classify
 * (ingress.c), take packets back from NF hosts and pass them on (return_poll.c), flush the pending
 * packets of links and ports (egress.c), and now and then look for changes by the control thread. A
 * worker without packets sleeps on its eventfd until the earliest of: a wake-up by an NF host or
 * the control thread, the next packet of a paced source, the next look at a port that must be
 * polled.
 *
 * Threads: a worker owns its worker ports and links. The control thread publishes changes and
 * raises onvm_dataplane.epoch; the worker acts on them between two turns and copies the epoch to
 * `seen`.
 */

#include <stdint.h>

#include <onvm/assert.h>

#include "dataplane.h"
#include "drops.h"
#include "flows/classify.h"
#include "flows/flow_table.h"
#include "fragments/reassembly.h"
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
	uint16_t queues[ONVM_WORKERS_MAX];
	uint16_t next_queue; /**< index into `queues` */
	uint16_t waits_for;  /**< path that lacked credits for the first packet held; 0: none */
	uint16_t nb_held;    /**< received, not yet admitted */
	uint16_t nb_ready;   /**< complete, and not counted as received yet */
	uint32_t nb_pending;
	uint64_t pending_bytes;
	struct onvm_worker_port_stats stats;
	bool is_classified; /**< `burst` describes the held packets */
	struct onvm_burst burst;
	struct rte_mbuf *held[ONVM_BURST_SIZE];
	struct rte_mbuf *pending[ONVM_PENDING_MAX];
	struct rte_mbuf *ready[2 * ONVM_PIECES_MAX]; /**< that fragments have made complete */
};

struct onvm_worker_stats {
	uint64_t drops[ONVM_DROPS];
	uint64_t originated;
	uint64_t new_flows;
	uint64_t learned_flows;
	uint64_t flow_table_full;
	uint64_t busy_cycles, idle_cycles, sleeps;
};

/** A recent NSH header and its meaning here. */
struct onvm_resolved {
	struct onvm_nsh nsh;
	uint16_t path; /**< 0: the entry is empty */
	uint8_t hop;   /**< nb_hops: out of the path's egress */
	uint16_t peer; /**< that may hand it over there */
};
#define ONVM_RESOLVED_MAX 64

struct onvm_worker {
	struct onvm_dataplane *dp;
	uint32_t index;
	int event_fd; /**< to wake it by the control thread; private to the manager */
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

/** Packets that there may be with work left to do for them (ports/offload.h). */
enum onvm_has_offloads {
	ONVM_HAS_PARTIAL = 1 << 0, /**< partial and merged ones: some port receives them */
	ONVM_HAS_FRAGMENTED = 1 << 1,
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
		bool is_waiting;     /**< housekeeping's: paths are leaving since pass */
		uint32_t since;
	} recycling;
	uint32_t epoch;		/**< atomic: counts changes that workers must take over */
	uint8_t must_stop;	/**< atomic */
	uint8_t sources_paused; /**< atomic: workers receive nothing */
	uint8_t has_offloads;	/**< atomic: enum onvm_has_offloads */
	uint8_t has_times;	/**< atomic: some port receives packets with a time */
	struct onvm_reassembly *reassembly; /**< atomic: NULL until an NF wants it */
	int notice_fd;		       /**< eventfd: something for the control thread to look at */
	uint64_t closed_rx, closed_tx; /**< packets of ports that are no more */
	uint64_t closed_drops[ONVM_DROPS]; /**< by ports that are no more */
	uint64_t hz;
	double ns_per_cycle;
};

/** Free a packet and count it. */
static inline void
onvm_worker_drop(struct onvm_worker *worker, struct rte_mbuf *mbuf, enum onvm_drop reason)
{
	ONVM_ASSERT(onvm_buffer_is_ours(&worker->dp->memory, mbuf));
	worker->stats.drops[reason]++;
	rte_pktmbuf_free(mbuf);
}

/** The worker's link to the host of @p hop, or NULL when that host is not the same any more. */
static inline struct onvm_link *
onvm_link_of_hop(const struct onvm_worker *worker, const struct onvm_hop *hop)
{
	struct onvm_link *link = worker->link_of[hop->host];

	return likely(link != NULL && link->generation == hop->generation) ? link : NULL;
}

/** Whether hop @p hop of a path is at the host behind @p link, the same one as when rendered. */
static inline bool
onvm_hop_is_at(const struct onvm_path *path, uint32_t hop, const struct onvm_link *link)
{
	return hop < path->nb_hops && path->hops[hop].host == link->host &&
	       path->hops[hop].generation == link->generation;
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

/** Set the bounds that an NF gave its packet; they have been checked. */
static inline void
onvm_set_bounds(struct rte_mbuf *mbuf, const struct onvm_desc *desc)
{
	mbuf->data_off = desc->offset;
	mbuf->data_len = desc->length;
	mbuf->pkt_len = desc->length;
}

#endif /* _ONVM_WORKER_H_ */
