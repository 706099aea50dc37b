/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PROBE_H_
#define _ONVM_PROBE_H_

/**
 * @file
 * Probes: a BFD session with each peer tells whether packets reach it. They have a thread of their own.
 *
 * The prober knows nothing of ZooKeeper or of any agent. A peer that is silent for
 * ONVM_PROBE_MULTIPLIER intervals counts as down until it answers again. A peer that has never
 * answered counts as down from ONVM_PROBE_GRACE_MS after it was added. The interval is
 * ONVM_PROBE_INTERVAL_MS, and longer where there are many peers, so that probes never take more
 * than a small share of a core. Each end says which interval it wants (RFC 5880 section 6.8.7).
 *
 * Probes travel as packets do: to the same UDP port, and on the other side through a worker. A worker
 * that stands still hears no probe; so its host finds all peers down, says so, and they know. But a
 * worker that waits for its CPU is no dead path: while datagrams lie in its socket, a peer is
 * not silent, for ONVM_PROBE_STALL_MS more. Once
 * a second a probe has the size of a full packet. A peer that gets the small ones alone is down, too.
 *
 * A peer that goes up and down again and again must stay up for a while before it counts as up: twice
 * as long each time, from the third time in a minute on.
 *
 * With security, probes also carry the agreement on keys (agreement.h). Workers check their tags, the
 * prober that they are fresh; what is neither changes nothing.
 *
 * Sessions that are not up send as often as those that are. RFC 5880 wants a second between their
 * packets, but the data network is the cluster's own, and a host that comes back should serve soon.
 *
 * Threads: the control thread begins, ends, adds and removes; workers put probes into boxes; the
 * probing thread writes states and raises onvm_dataplane.notice_fd when one has changed; any thread
 * may read them.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane.h"
#include "peers/bfd.h"
#include "peers/peers.h"
#include "peers/probe_box.h"
#include "peers/security/agreement.h"

#define ONVM_PROBE_INTERVAL_MS 30
#define ONVM_PROBE_MULTIPLIER 4
/**
 * For each peer the interval is at least this: 250 ms with 100 peers. Measured on loopback with 100
 * peers: 1.7 to 1.8 % of a core, 0.7 % of it to send.
 */
#define ONVM_PROBE_PEER_US 2500
#define ONVM_PROBE_GRACE_MS 1000
#define ONVM_PROBE_STALL_MS 1000

/** The state of one peer. */
struct onvm_probed {
	bool is_used;
	uint8_t is_down; /**< atomic */
	struct onvm_bfd session;
	struct onvm_agreement agreement;
	uint64_t added_ns;
	uint64_t heard_ns;	/**< atomic: CLOCK_MONOTONIC of the last probe; 0: none came yet */
	uint64_t due_ns;	/**< of the next probe to it */
	uint64_t full_due_ns;	/**< of the next one of full size */
	uint64_t full_heard_ns; /**< of the last one of full size from it; 0: none */
	uint64_t up_ns;		/**< since when the session is up; 0: it is not */
	uint64_t agreed_ns;	/**< of the newest keys */
	uint64_t went_down_ns;	/**< last time */
	uint32_t nb_downs;	/**< times that it went down, without a quiet minute between */
	bool was_up;
	bool is_cut; /**< it says that it gets small probes alone */
};

struct onvm_prober {
	pthread_t thread;
	pthread_mutex_t lock; /**< of everything below, between the two threads */
	bool is_running;
	uint8_t must_stop; /**< atomic */
	uint8_t is_eager;  /**< atomic: wake the thread for each probe that comes in */
	int fd;		   /**< probes go out by it */
	int wake_fd;	   /**< eventfd of the thread */
	int notice_fd;
	uint32_t vni;
	uint32_t nb_peers;
	uint64_t seed;	   /**< of jitter */
	uint64_t sequence; /**< of the last probe sent */
	struct onvm_peers *peers;
	uint32_t nb_boxes;
	struct onvm_probe_box *boxes; /**< by worker; once made they stay */
	int in_fds[ONVM_WORKERS_MAX]; /**< by worker: where probes come in; -1: not yet */
	struct onvm_probed probed[ONVM_PEERS_MAX];
};

struct onvm_prober_options {
	uint8_t ip_version;
	uint8_t address[ONVM_ADDRESS_BYTES]; /**< of this host, network order */
	uint32_t vni;
	uint32_t nb_workers;
	struct onvm_peers *peers;
	int notice_fd;
};

/** Probe peers from now on; @return 0 or -errno. */
int onvm_prober_start(struct onvm_prober *prober, const struct onvm_prober_options *options);
/** Worker @p worker receives on @p fd. */
void onvm_prober_listen(struct onvm_prober *prober, uint32_t worker, int fd);
/** Give the probing thread a probe that worker @p worker has received from @p peer. */
void onvm_prober_put(struct onvm_prober *prober, uint32_t worker, uint16_t peer,
		     const uint8_t *data, uint32_t length);
/** Tell the peers that this was it, and end the thread. */
void onvm_prober_stop(struct onvm_prober *prober);
/** Return when the thread no longer uses the peers published before. */
void onvm_prober_pass(struct onvm_prober *prober);
/** Fill in the state of @p peer. */
void
onvm_prober_read(const struct onvm_prober *prober, uint16_t peer, struct onvm_dp_peer_stats *stats);
void onvm_prober_add(struct onvm_prober *prober, uint16_t peer);
void onvm_prober_remove(struct onvm_prober *prober, uint16_t peer);

#endif /* _ONVM_PROBE_H_ */
