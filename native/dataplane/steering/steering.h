/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_STEERING_H_
#define _ONVM_STEERING_H_

/**
 * @file
 * Chains of services, the NF hosts that serve them, and the paths rendered from both.
 *
 * A *chain* is an ordered list of services between two ports. For each position of a chain, a flow
 * gets one NF host; a host that runs several services fused covers as many positions. The result is
 * a *rendered path* (RFC 7665) with a service path identifier. Path and reverse path are made
 * together, so both directions of a flow meet the same instances.
 *
 * Paths do not change. When an instance dies its paths are *retired* (retire.c): each names a
 * successor with another instance in its place, and flows follow that pointer. So a death rewrites
 * paths, not millions of flows.
 *
 * Retired paths are used again (recycle.c). A path may still be named by a worker within one turn,
 * by a packet on its way, by an entry of the flow table, or by a path retired before. So
 * housekeeping
 * 1. unlinks retired paths from the intern table and lets every worker take over. Workers mark the
 *    paths of packets on their way; marked paths, and those they lead to, wait for another time;
 * 2. lets two passes of ageing rewrite the flows that name the others;
 * 3. lets every worker take over once more, and frees them.
 * No flow or packet gets onto a retired path after 1, because look-ups follow successors and
 * choices are made among live paths only.
 *
 * Live paths without flows are used again, too, when the table is more than half full (idle.c). Some
 * are unlinked, so that new flows make others; when all workers have taken that over, those that no
 * flow, packet, successor or candidates name are freed, and the rest is linked again.
 *
 * The control thread rebuilds the candidates (struct onvm_candidates) for each change and publishes
 * them with a release store. It frees the old ones when every worker has taken the change over.
 *
 * In a cluster, paths may lead over peers: NF hosts there have slots from ONVM_HOSTS_MAX on, and no
 * link. All hosts render the same paths, and packets name them by numbers that mean the same
 * everywhere (spanning.c).
 *
 * Memory order:
 *  - T1, the release store of state RETIRED after that of the successor, pairs with T2, the acquire
 *    load of the state: a worker that sees a path retired finds its successor.
 *  - I1, the release store that links a path into its bucket, pairs with I2, the acquire load of
 *    the bucket: a worker that finds a path finds it complete.
 *  - N1, the release store of a slot or successor by number, pairs with N2, the acquire load of
 *    workers that resolve a number (spanning.c).
 *
 * Threads: the control thread changes chains and hosts; workers intern paths (a spinlock for new
 * ones, lock-free look-up of known ones).
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <rte_branch_prediction.h>
#include <rte_spinlock.h>

#include <onvm/wire.h>

#include "table_sizes.h"

enum onvm_path_state {
	ONVM_PATH_FREE = 0,
	ONVM_PATH_LIVE = 1,
	ONVM_PATH_RETIRED = 2, /**< follow `successor`, or choose again when that is 0 */
	ONVM_PATH_LEAVING = 3, /**< retired, and unlinked for recycling */
};

struct onvm_hop {
	uint16_t host;
	uint8_t nb_services; /**< by how much the service index falls here */
	uint8_t pad;
	uint32_t generation; /**< of the host slot when the path was rendered */
};

/** A rendered service path. Immutable once live, but for state and successor. */
struct onvm_path {
	uint8_t state; /**< atomic: enum onvm_path_state */
	uint8_t nb_hops;
	uint8_t nb_services; /**< service index at its head (RFC 8300) */
	uint8_t is_reverse;
	uint16_t egress;    /**< port behind the last hop; one of a peer: see ONVM_PORT_REMOTE */
	uint16_t opposite;  /**< path of the other direction; 0: the chain has one direction */
	uint16_t successor; /**< atomic: once retired */
	uint16_t chain;
	uint32_t spi;	   /**< service path identifier, 24 bits; both directions differ */
	uint16_t next;	   /**< atomic: next path of the intern table's bucket */
	uint16_t bucket;   /**< of the intern table */
	uint8_t nb_visits; /**< hops at the host that has most of them */
	uint8_t learns;	   /**< packets that leave teach the other direction: all of it is here */
	uint16_t remotes;  /**< bit i: hop i is at a peer */
	struct onvm_hop hops[ONVM_CHAIN_LENGTH_MAX];
};

/** Of enum onvm_desc_flags, those of a packet's way: at hop @p hop of @p path. */
static inline uint8_t
onvm_path_desc_flags(const struct onvm_path *path, uint32_t hop)
{
	return (uint8_t)((path->is_reverse ? ONVM_F_REVERSE : 0) | (hop == 0 ? ONVM_F_FIRST : 0) |
			 (hop + 1 == path->nb_hops ? ONVM_F_LAST : 0));
}

/** What decides which instance of a service a new flow gets. */
enum onvm_affinity {
	ONVM_AFFINITY_FLOW = 0,	       /**< each flow by itself */
	ONVM_AFFINITY_SOURCE = 1,      /**< the address that packets come from which go forwards */
	ONVM_AFFINITY_DESTINATION = 2, /**< the address that they go to */
};

/** A service of a chain whose instance an address decides. */
struct onvm_address_rule {
	uint16_t service;
	uint8_t affinity; /**< enum onvm_affinity, not FLOW */
	uint8_t position; /**< of the service in the chain */
};

/** NF hosts that a new flow is to get where they can serve it; the first ones count more. */
struct onvm_wishes {
	uint32_t nb;
	uint16_t hosts[1 + ONVM_AFFINITIES_MAX];
};

/** NF hosts that can serve one position of a chain. */
struct onvm_choice {
	uint16_t nb_hosts;
	uint16_t nb_draining; /**< behind them in `hosts`: get only flows they have claimed */
	uint32_t mean_spare;  /**< atomic, with rows: of nb_hosts, in 1/16 packets per second */
	uint16_t *hosts;      /**< behind the choices of its candidates */
};

/** The NF hosts that workers choose from for one chain; immutable once published. */
struct onvm_candidates {
	uint16_t nb_services;
	/** The only path there is, or 0 when there are several or none. */
	uint16_t single_path;
	/** The path of packets that belong to no flow (ARP, …); 0 when a service has no instance. */
	uint16_t default_path;
	uint32_t nb_rows; /**< combinations that may be chosen; 0: all (rows.h) */
	uint16_t *rows;	  /**< by position, then row */
	uint32_t nb_addresses;
	struct onvm_address_rule addresses[ONVM_AFFINITIES_MAX];
	struct onvm_choice choices[];
};

static inline void
onvm_steering_free_candidates(struct onvm_candidates *candidates)
{
	if (candidates != NULL)
		free(candidates->rows);
	free(candidates);
}

struct onvm_chain {
	bool is_used;
	bool is_bidirectional;
	bool track_flows; /**< look flows up even where only one path exists */
	bool by_rules;	  /**< only rules of a port lead here: no port is bound to it */
	uint32_t number;  /**< atomic: in the cluster; 0: a chain of this host alone */
	bool waits;	  /**< atomic: its entry waits while a service has no instance */
	uint8_t nb_services;
	uint16_t services[ONVM_CHAIN_LENGTH_MAX];
	uint16_t near_port; /**< packets received here take the chain forwards */
	uint16_t far_port;  /**< and leave here; what is received here takes it backwards */
	struct onvm_candidates *candidates; /**< atomic */
};

enum onvm_host_state {
	ONVM_HOST_FREE = 0,
	ONVM_HOST_ATTACHED = 1, /**< has its rings, gets no packets yet */
	ONVM_HOST_ACTIVE = 2,
	ONVM_HOST_DRAINING = 3, /**< no new flows */
	ONVM_HOST_DEAD = 4,	/**< workers take their buffers back */
	ONVM_HOST_LEAVING = 5,	/**< its flows have gone elsewhere; it finishes what it holds */
};

/** An NF host as steering sees it. */
struct onvm_host {
	uint8_t state; /**< atomic: enum onvm_host_state */
	uint8_t nb_stages;
	uint16_t services[ONVM_STAGES_MAX];
	uint32_t generation; /**< counts uses of the slot */
	uint32_t spare_pps;  /**< atomic: capacity that new flows may take */
	uint16_t peer;	     /**< where it is; 0: here */
	uint16_t number;     /**< atomic: in the cluster; 0: unknown there */
};

/** State of a worker's choices: smooth weighted round robin, and rows. */
struct onvm_selector {
	int64_t credit[ONVM_SLOTS_MAX];
	uint32_t given[ONVM_SLOTS_MAX]; /**< flows of late, for rows */
	uint32_t nb_given;
	uint64_t random;
};

struct onvm_claims;

struct onvm_steering {
	struct onvm_claims *claims; /**< atomic; NULL without claims */
	struct onvm_chain chains[ONVM_CHAINS_MAX];
	struct onvm_host hosts[ONVM_SLOTS_MAX];
	bool wire_sized[ONVM_SERVICES_MAX];   /**< the control thread's: see ports/offload.h */
	uint8_t affinity[ONVM_SERVICES_MAX];  /**< the control thread's: enum onvm_affinity */
	uint8_t fragments[ONVM_SERVICES_MAX]; /**< the control thread's: enum onvm_fragments */
	uint32_t nb_slots;		      /**< those from here on have never been used */
	uint16_t *slots;		      /**< atomic: by number in the cluster; 0: unknown */
	uint16_t *successors;	   /**< atomic: by number, the host with its state; itself: it has,
					   or none has; 0: never known here */
	uint32_t *unknown_since_s; /**< atomic: by number, when it was first met unknown */
	struct onvm_selector *selector; /**< the control thread's */
	struct onvm_path *paths;	/**< ONVM_PATHS_MAX */
	uint16_t *intern;		/**< buckets of forward paths by chain and hosts */
	uint32_t nb_paths;		/**< atomic: indices ever used, with 0 */
	uint16_t *free_paths;		/**< indices that are free again */
	uint32_t nb_free_paths;		/**< atomic */
	uint32_t nb_retired;		/**< atomic: retired and not yet free */
	uint8_t *marks;			/**< atomic, by path: a packet is on its way on it */
	rte_spinlock_t lock;		/**< of `intern`, `paths` and `free_paths`, for changes */
	pthread_mutex_t changes;	/**< what names paths, besides flows and packets: held while
					   it changes, and while live paths are freed */
	uint8_t *unlinked;		/**< by path: live, and out of the intern table */
	uint32_t idle_cursor;		/**< where the next look for idle paths begins */
};

#define ONVM_INTERN_BUCKETS 65536u

/** Whether no path can be made: the table is full. */
static inline bool
onvm_steering_is_full(const struct onvm_steering *steering)
{
	return __atomic_load_n(&steering->nb_paths, __ATOMIC_RELAXED) >= ONVM_PATHS_MAX &&
	       __atomic_load_n(&steering->nb_free_paths, __ATOMIC_RELAXED) < 2;
}

static inline bool
onvm_path_is_retired(const struct onvm_path *path)
{
	/* T2: pairs with the release store T1 in retire(). */
	return __atomic_load_n(&path->state, __ATOMIC_ACQUIRE) >= ONVM_PATH_RETIRED;
}

/** The path that stands for path @p index now: itself, a successor, or 0. */
static inline uint16_t
onvm_steering_resolve(const struct onvm_steering *steering, uint16_t index)
{
	while (index != 0 && onvm_path_is_retired(&steering->paths[index]))
		index = __atomic_load_n(&steering->paths[index].successor, __ATOMIC_ACQUIRE);
	return index;
}

/** Whether hop @p hop is at a peer. */
static inline bool
onvm_path_is_remote(const struct onvm_path *path, uint32_t hop)
{
	return (path->remotes >> hop & 1) != 0;
}

/** Where a packet that is here at hop @p first leaves this host: a hop at a peer, or the end. */
static inline uint32_t
onvm_path_end_here(const struct onvm_path *path, uint32_t first)
{
	const uint32_t remotes = first < ONVM_CHAIN_LENGTH_MAX ? path->remotes >> first : 0;

	return likely(remotes == 0) ? path->nb_hops : first + (uint32_t)__builtin_ctz(remotes);
}

int onvm_steering_init(struct onvm_steering *steering);
void onvm_steering_fini(struct onvm_steering *steering);
/** Paths that are live or retired. */
uint32_t onvm_steering_nb_paths(const struct onvm_steering *steering);

#endif /* _ONVM_STEERING_H_ */
