/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PROBE_H_
#define _ONVM_PROBE_H_

/**
 * @file
 * Probes: a BFD session with each peer tells whether the peer answers on the data network. They
 * have a thread of their own.
 *
 * The prober knows nothing of ZooKeeper or of any agent. A peer that is silent for
 * ONVM_PROBE_DETECT_MS counts as down until it answers again. A peer that has never answered counts
 * as down from ONVM_PROBE_GRACE_MS after it was added.
 *
 * Sessions that are not up send as often as those that are. RFC 5880 wants a second between their
 * packets, but the data network is the cluster's own, and a host that comes back should serve soon.
 *
 * Threads: the control thread begins, ends, adds and removes; the probing thread writes states and
 * raises onvm_dataplane.notice_fd when one has changed; any thread may read them.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane.h"
#include "peers/bfd.h"
#include "peers/peers.h"

#define ONVM_PROBE_INTERVAL_MS 30
#define ONVM_PROBE_MULTIPLIER 4
#define ONVM_PROBE_DETECT_MS (ONVM_PROBE_INTERVAL_MS * ONVM_PROBE_MULTIPLIER)
#define ONVM_PROBE_GRACE_MS 1000

/** The state of one peer. */
struct onvm_probed {
	bool is_used;
	uint8_t is_down; /**< atomic */
	struct onvm_bfd session;
	union onvm_sockaddr address;
	socklen_t address_length;
	uint64_t added_ns;
	uint64_t heard_ns; /**< atomic: CLOCK_MONOTONIC of the last packet; 0: none came yet */
	uint64_t due_ns;   /**< of the next packet to it */
	bool was_up;
};

struct onvm_prober {
	pthread_t thread;
	pthread_mutex_t lock; /**< of everything below, between the two threads */
	bool is_running;
	uint8_t must_stop; /**< atomic */
	int fd;
	int stop_fd;
	int notice_fd;
	uint64_t seed; /**< of jitter */
	const struct onvm_peers *peers;
	struct onvm_probed probed[ONVM_PEERS_MAX];
};

/** Probe from this address (network order) on; @return 0 or -errno. */
int onvm_prober_start(struct onvm_prober *prober, uint8_t ip_version, const uint8_t *address,
		      const struct onvm_peers *peers, int notice_fd);
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
