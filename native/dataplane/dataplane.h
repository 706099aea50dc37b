/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_DATAPLANE_H_
#define _ONVM_DATAPLANE_H_

/**
 * @file
 * The interface of the data plane, which the control plane (Python, through cffi) calls. There is
 * one data plane per process, because DPDK has one environment per process.
 *
 * Life: environment, init, then ports, chains and hosts in any order, start; stop; fini. Threads:
 * one control thread for all calls, except onvm_dp_environment() and the reading of counters, which
 * any thread may do. Workers never wait for any of it. Results: 0 or a positive number, or -errno;
 * then onvm_dp_error() has one line for the user.
 */

#include <stdint.h>

#include "drops.h"
#include "latency.h"
#include "port_options.h"
#include "table_sizes.h"

struct onvm_dp_config {
	uint32_t nb_workers;
	uint32_t worker_nodes[ONVM_WORKERS_MAX]; /**< NUMA node of each worker */
	uint32_t nb_nodes;
	uint32_t nodes[ONVM_AREAS_MAX]; /**< those that have packet memory, at least 1 */
	uint32_t nb_buffers;		/**< on each of them */
	uint32_t nb_large_buffers;	/**< for packets of up to 64 KiB, on the first node */
	uint32_t data_bytes;		/**< largest packet a buffer holds */
	uint32_t ring_length;		/**< credits of a link; a power of two */
	uint32_t idle_policy;		/**< enum onvm_idle_policy */
	uint32_t flow_capacity;		/**< flows, each with its reverse */
	uint32_t flow_idle_ms;		/**< life of idle flows, where NFs hold them no longer */
	uint32_t sample_every;		/**< one packet in so many is timed */
	uint32_t use_huge_pages;
	uint32_t high_percent, low_percent; /**< watermarks, of ring_length */
};

/** Counters of one port, all workers together. */
struct onvm_dp_port_stats {
	uint64_t rx, rx_bytes, tx, tx_bytes;
	/** Histogram from port to port; see onvm_dp_latency_bound_ns(). */
	uint64_t latency[ONVM_LATENCY_BUCKETS];
	uint32_t is_finished;
	uint32_t nb_held; /**< received, not yet admitted */
	uint32_t is_gone; /**< its device has been taken away */
	uint32_t is_down; /**< its device has no link */
	/**
	 * Lost in the port or its device, as of the last onvm_dp_read_stats(). Each is among `rx`
	 * or not among `tx`, and a drop: so the sums of both calls agree.
	 */
	uint64_t nb_missed;    /**< before the port: its receive queue was full */
	uint64_t nb_no_buffer; /**< before the port: there was no buffer to receive into */
	uint64_t nb_rx_errors; /**< damaged, or of a kind that the port cannot take in */
	uint64_t nb_refused;   /**< not sent by the device */
	uint64_t nb_large;     /**< not sent: larger than the device's MTU */
	uint64_t nb_down;      /**< not sent: the device was down */
	uint64_t nb_unwritten; /**< not sent: the file could not be written */
	char fault[160];       /**< why its file was not read or written to the end; or "" */
};

/** Counters of one NF host, all workers together. */
struct onvm_dp_host_stats {
	uint64_t rx[2];
	uint64_t exits[2][ONVM_STAGES_MAX];
	uint64_t drops[ONVM_STAGES_MAX][ONVM_REASONS_MAX];
	uint64_t originated[ONVM_STAGES_MAX];
	uint64_t held[ONVM_STAGES_MAX];		/**< as the NF host says */
	uint64_t hold_refused[ONVM_STAGES_MAX]; /**< likewise */
	uint64_t lost, nb_shed, nb_bad, peak;
	uint64_t reserved;			/**< credits taken now */
	uint64_t latency[ONVM_LATENCY_BUCKETS]; /**< histogram, from enqueue to return */
	uint64_t packets[ONVM_STAGES_MAX];	/**< as the NF host says */
	uint64_t busy_cycles[ONVM_STAGES_MAX];	/**< as the NF host says */
	uint64_t idle_cycles, sleeps, loops;	/**< as the NF host says */
	struct onvm_turn_sums turn_sums;	/**< as the NF host says */
	uint64_t counters[ONVM_STAGES_MAX][ONVM_COUNTERS_MAX]; /**< as the NF host says */
	uint32_t fault; /**< 0; 1: broke the rules of rings or descriptors; 2: dropped and may not;
			 * 3: changed the bounds of packets and may not */
};

/** Counters of a generator. */
struct onvm_dp_gen_stats {
	uint64_t sent, received;	    /**< packets */
	uint64_t opened, completed, failed; /**< connections */
	uint64_t tcp, udp, icmp, ipv6;	    /**< connections opened, by kind */
	uint64_t requests, replies;	    /**< packets that want an answer, and answers */
	uint64_t lost;			    /**< requests of ended connections that got no answer */
	uint64_t bad_checksum, bad_payload;
	uint64_t out_of_order;		    /**< came after a later one of their flow (RFC 4737) */
	uint64_t unexpected;		    /**< belong to no connection, or not to its state */
	uint64_t rtt[ONVM_LATENCY_BUCKETS]; /**< histogram; see onvm_dp_latency_bound_ns() */
	uint32_t nb_active; /**< connections open now; of a server: answers not yet fetched */
	uint32_t is_finished;
};

/** Packet memory near one NUMA node. */
struct onvm_dp_area_stats {
	uint32_t numa_node;
	int bind_error; /**< errno with which the kernel refused that node's memory, or 0 */
	uint64_t total, free, with_nfs;
};

struct onvm_dp_stats {
	uint64_t drops[ONVM_DROPS]; /**< by enum onvm_drop */
	uint64_t originated;
	uint64_t new_flows, learned_flows, flow_table_full, flows;
	uint64_t idle_cycles, sleeps;
	uint64_t buffers_total, buffers_free, buffers_with_nfs;
	uint64_t nb_paths;
	uint64_t closed_rx, closed_tx; /**< packets of ports that are no more */
	uint32_t nb_areas;
	struct onvm_dp_area_stats areas[ONVM_AREAS_MAX];
};

struct onvm_dp_chain {
	uint16_t near_port, far_port; /**< of this host; ONVM_PORT_REMOTE + peer: one of a peer */
	uint32_t is_bidirectional;
	uint32_t track_flows;
	uint32_t number;     /**< in the cluster, below 2^23; 0: a chain of this host alone */
	uint32_t by_rules;   /**< only rules lead to it; its ports are bound to another chain */
	uint32_t waits;	     /**< its entry waits while a service has no instance */
	uint32_t is_unbound; /**< no port is bound to it: packets from peers alone take it */
	uint32_t nb_services;
	uint16_t services[ONVM_CHAIN_LENGTH_MAX];
};

/**
 * Flows that take a chain: a packet's 5-tuple as it comes in. Addresses in network order (IPv4:
 * the first 4 bytes), ranges inclusive; packets without ports count as from 0 to 0.
 */
struct onvm_dp_rule {
	uint8_t ip_version; /**< 4, 6, or 0: both, and no prefix */
	uint8_t protocol, any_protocol;
	uint8_t src_prefix, dst_prefix; /**< bits */
	uint8_t src[ONVM_ADDRESS_BYTES], dst[ONVM_ADDRESS_BYTES];
	uint16_t src_port_first, src_port_last, dst_port_first, dst_port_last;
	uint16_t chain;
};

/** One direction of one flow, for display. Addresses in network order. */
struct onvm_dp_flow {
	uint8_t ip_version, protocol, port, is_reverse;
	uint16_t src_port, dst_port, vlan, path, chain;
	/** Service path identifier; of a chain of the cluster, the same on all hosts. */
	uint32_t spi;
	uint16_t nb_hops;
	uint16_t hosts[ONVM_CHAIN_LENGTH_MAX];
	uint32_t idle_ms;
	uint8_t src[ONVM_ADDRESS_BYTES], dst[ONVM_ADDRESS_BYTES];
};

/** A peer, and the data network between it and this host. */
struct onvm_dp_peer_stats {
	uint64_t rx, tx;	   /**< packets */
	uint64_t forged, replayed; /**< datagrams from its address that were dropped as such */
	uint64_t heard_us;	   /**< since its last probe; UINT64_MAX: there was none */
	uint32_t is_down;	   /**< it does not answer; onvm_dp_notice_fd() tells of changes */
	uint32_t bfd_state;	   /**< of the session with it, RFC 5880: 0 to 3 */
};

/** Where packets are captured: a port or an NF host, and which way they go. */
struct onvm_dp_capture_point {
	uint32_t is_host;
	uint32_t id;	 /**< port, or host slot */
	uint32_t is_in;	 /**< received by the port; given to the host */
	uint32_t is_out; /**< sent by the port; taken back from the host */
	char name[ONVM_PORT_NAME_LENGTH];
};

struct onvm_dp_capture_stats {
	uint64_t captured; /**< copied by workers */
	uint64_t overflow; /**< not copied because a ring was full */
	uint64_t written;
	uint64_t followed; /**< packets that it follows, or has followed */
	uint32_t is_full;  /**< the limit is reached */
};

/**
 * Files that a new NF host is to get; the caller closes `area_fd`, the others stay ours. The
 * eventfds are made for this host: one that fills, empties or blocks them harms itself alone.
 */
struct onvm_dp_attach_files {
	int memory_fd;
	int area_fd;
	int event_fds[ONVM_WORKERS_MAX];
	uint32_t nb_workers;
	uint32_t buffer_stride;
	uint32_t nb_buffers;
	uint32_t first_large; /**< index of the first large buffer */
	uint32_t large_bytes;
	uint64_t memory_bytes;
	uint64_t area_bytes;
};

const char *onvm_dp_error(void);
/** Name of a drop reason, as counters and JSON show it; NULL behind the last one. */
const char *onvm_dp_drop_name(uint32_t reason);
/** What a drop reason means, one line. */
const char *onvm_dp_drop_text(uint32_t reason);
/** Lower bound of latency bucket @p bucket, in nanoseconds. */
double onvm_dp_latency_bound_ns(uint32_t bucket);

/** Start DPDK's environment with @p argv, which it keeps. Any thread, before the others' calls. */
int onvm_dp_environment(int argc, char **argv);
/** Memory that a buffer for packets of up to @p data_bytes takes, with its mbuf. */
uint64_t onvm_dp_buffer_bytes(uint32_t data_bytes);
/** Make packet memory and tables. The thread that has called onvm_dp_environment(). */
int onvm_dp_init(const struct onvm_dp_config *config);
/** Start the workers; the caller becomes the control thread. */
int onvm_dp_start(void);
/** Stop the workers; packets still inside count as drop_stopped. */
void onvm_dp_stop(void);
/**
 * Stop the workers, and close files and devices.
 *
 * Memory is left to the end of the process, because rte_free() writes zeros over what it frees: a
 * flow table of which a few pages were ever used would take a second.
 */
void onvm_dp_fini(void);

/*
 * Ports. Each gives the port's ID. Packets are received into memory near the device, or near the
 * worker of the queue where there is no device (generators, captures).
 */
/** Open a port; @p options are those of @p kind. */
int onvm_dp_port_open(const char *name, enum onvm_port_kind kind,
		      const union onvm_port_options *options);
int onvm_dp_port_close(uint32_t port);
/** Stop or resume reading sources; workers go on with the packets that are inside. */
void onvm_dp_pause_sources(uint32_t is_paused);

/* NF hosts. */
/**
 * A slot for a host with @p nb_stages services.
 *
 * @param nb_loaned  empty buffers that each worker lends it
 * @param node       NUMA node whose memory these are from; below 0: the worker's
 * @return the host slot
 */
int onvm_dp_host_add(const uint16_t *services, uint32_t nb_stages, uint32_t nb_loaned, int node,
		     struct onvm_dp_attach_files *files);
/** New flows may come; also when it was draining. */
int onvm_dp_host_activate(uint32_t host);
/** No new flows, but those that it has claimed; running ones stay. */
int onvm_dp_host_drain(uint32_t host);
/**
 * Limit what a host may do to packets; before it serves.
 *
 * @param reads_only  it may not change packets
 * @param no_drops    bit i: its stage i may not drop
 */
int onvm_dp_host_limit(uint32_t host, uint32_t reads_only, uint32_t no_drops);
/**
 * Let no packet enter a path through a draining host, or let them enter again. Packets that arrive
 * for it meanwhile keep their port waiting, so pauses must be short. When `reserved` of its
 * counters has come to 0, its state stands still.
 */
int onvm_dp_host_pause(uint32_t host, uint32_t is_paused);
/**
 * Its flows go to other hosts now, and its claims end. When `reserved` of its counters has come to
 * 0 it has no packet and will get none, so it can end without loss.
 *
 * @param successor  the host, here or at a peer, that takes all its flows where it can; 0: they
 *                   are shared out like new flows
 */
int onvm_dp_host_leave(uint32_t host, uint32_t successor);
/**
 * Its buffers go back to the pool, its flows to other hosts; the slot is free afterwards.
 *
 * @param last  its final counters, or NULL
 */
int onvm_dp_host_remove(uint32_t host, struct onvm_dp_host_stats *last);
/** Make the host look at its socket. */
int onvm_dp_host_attention(uint32_t host);
/** Whether a host shares its CPU with others: then it sleeps although the idle policy is busy. */
int onvm_dp_host_share_cpu(uint32_t host, uint32_t shares_cpu);
/** Capacity that new flows may take, in packets per second. */
int onvm_dp_host_spare_pps(uint32_t host, uint32_t spare_pps);
/** Traffic that belongs to this host alone: ports [first, end) of an address. */
int onvm_dp_host_claim(uint32_t host, uint8_t ip_version, const uint8_t *address, uint8_t protocol,
		       uint32_t first_port, uint32_t end_port);
/** Remove such a claim of the host. */
int onvm_dp_host_unclaim(uint32_t host, uint8_t ip_version, const uint8_t *address,
			 uint8_t protocol, uint32_t first_port, uint32_t end_port);

/* Chains. */
/**
 * Set chain @p id (1 to below ONVM_CHAINS_MAX) and bind its ports; flows of a chain that was there
 * are kept.
 */
int onvm_dp_chain_set(uint32_t id, const struct onvm_dp_chain *chain);
/**
 * Let the ports of chains with @p service give packets as they are on the wire: none merged, checksums
 * complete. For good.
 */
int onvm_dp_service_wire_sized(uint16_t service);
/**
 * How long NFs of @p service hold the state of idle flows, by enum onvm_flow_class: no chain with it
 * forgets them earlier. As long as a service has not told, that is flow_idle_ms.
 */
int onvm_dp_service_lives(uint16_t service, const uint32_t lives_ms[ONVM_FLOW_LIVES]);
/** What decides which instance of @p service a flow gets: enum onvm_affinity. */
int onvm_dp_service_affinity(uint16_t service, uint32_t affinity);
/**
 * Let the ports of chains with @p service show what it wants of datagrams that come in fragments; the
 * greatest wish of a chain counts.
 *
 * @param fragments  enum onvm_fragments
 */
int onvm_dp_service_fragments(uint16_t service, uint32_t fragments);
int onvm_dp_chain_remove(uint32_t id);
/**
 * Let the flows of chain @p id go on in chain @p successor, if that has the same ports: through the
 * NF hosts that they meet now where it has their services. All hosts of a cluster choose the same.
 */
int onvm_dp_chain_succeed(uint32_t id, uint32_t successor);
/**
 * New flows that come in on @p port take the chain of the first rule that they match, else the
 * chain that the port is bound to. Running flows stay. @p nb 0: no rules.
 */
int onvm_dp_port_rules(uint32_t port, const struct onvm_dp_rule *rules, uint32_t nb);

/* Peers: other hosts of a cluster. */
/**
 * Open the port to the peers, and probe them, on this host's address on the data network.
 *
 * @param ip_version  4 or 6; @p address in network order
 * @param vni         of the cluster, 24 bits; what carries another one is dropped as foreign
 * @param security    enum onvm_security; the same on all hosts
 * @return the port's ID
 */
int onvm_dp_tunnel_open(const char *name, uint32_t ip_version, const uint8_t *address, uint32_t vni,
			uint32_t security);
/**
 * Accept packets from this address from now on.
 *
 * @param secret  32 bytes that this host and the peer alone know; zeros without security
 * @return the peer's ID
 */
int onvm_dp_peer_add(uint32_t ip_version, const uint8_t *address, const uint8_t *secret);
/** Remove a peer that has no NF host and no end of a chain. */
int onvm_dp_peer_remove(uint32_t peer);
/** An NF host at a peer, active at once. @return its slot, as of a host here */
int
onvm_dp_remote_add(const uint16_t *services, uint32_t nb_stages, uint32_t peer, uint32_t number);
/**
 * It has ended, or cannot be reached: its flows go to other hosts.
 *
 * @param successor  the slot of the host that takes them all where it can; 0: the one that all
 *                   hosts choose alike
 */
int onvm_dp_remote_remove(uint32_t slot, uint32_t successor);
/** Packets that name NF host @p number, which has ended, go to @p successor, with its state. */
int onvm_dp_number_successor(uint32_t number, uint32_t successor);
/** Number in the cluster of an NF host here; 0: none. */
int onvm_dp_host_number(uint32_t slot, uint32_t number);
int onvm_dp_read_peer(uint32_t peer, struct onvm_dp_peer_stats *stats);

/* Captures: pcapng, while traffic runs. */
/**
 * Begin a capture; the blocks before the first packet are written at once.
 *
 * @param snap_length  bytes kept of each packet; 0: all
 * @param limit        packets in all; 0: endless
 * @param ring_bytes   space for copies not yet written, for each worker
 * @param fd           file, pipe or socket to write to; stays the caller's
 * @param filter       pcap-filter(7), for the bytes of a packet; "": all packets
 * @param nb_followed  0: the filter is asked at each point; else follow so many packets that it
 *                     chooses where they come in by a port, through all points
 * @return the capture's ID
 */
int onvm_dp_capture_start(const struct onvm_dp_capture_point *points, uint32_t nb_points,
			  uint32_t snap_length, uint64_t limit, uint64_t ring_bytes, int fd,
			  const char *filter, uint32_t nb_followed);
/**
 * Whether frames of equal length match a filter.
 *
 * @param matches  set to 1 or 0 for each
 */
int onvm_dp_filter_match(const char *text, const uint8_t *frames, uint32_t frame_bytes,
			 uint32_t nb_frames, uint8_t *matches);
/** Write the captured packets; @return how many. */
int onvm_dp_capture_drain(uint32_t capture);
/** End a capture, write the rest and the statistics. @param last  its counters, or NULL */
int onvm_dp_capture_stop(uint32_t capture, struct onvm_dp_capture_stats *last);
int onvm_dp_read_capture(uint32_t capture, struct onvm_dp_capture_stats *stats);

/* Reading. */
void onvm_dp_read_stats(struct onvm_dp_stats *stats);
int onvm_dp_read_port(uint32_t port, struct onvm_dp_port_stats *stats);
/** Counters of a generator; @p port must be one. */
int onvm_dp_read_gen(uint32_t port, struct onvm_dp_gen_stats *stats);
int onvm_dp_read_host(uint32_t host, struct onvm_dp_host_stats *stats);
/** Flows from position @p *cursor on, which is moved on; @return how many, 0 at the end. */
int onvm_dp_read_flows(uint32_t *cursor, struct onvm_dp_flow *flows, uint32_t nb);
double onvm_dp_cycles_per_second(void);
/** CPU time that worker @p worker has used, in nanoseconds. */
uint64_t onvm_dp_worker_cpu_ns(uint32_t worker);
/** eventfd that becomes readable when a host has broken the rules, or a peer went up or down. */
int onvm_dp_notice_fd(void);

#endif /* _ONVM_DATAPLANE_H_ */
