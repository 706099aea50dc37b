/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The tunnel, peers, and NF hosts at peers.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/hosts.h"
#include "control/numbers.h"
#include "control/ports.h"
#include "control/publish.h"
#include "peers/tunnel.h"

/** The open tunnel, or NULL. */
static const struct onvm_port *
tunnel_of(const struct onvm_dataplane *dp)
{
	for (uint32_t id = 0; id < ONVM_PORTS_MAX; id++)
		if (dp->ports[id].state == ONVM_PORT_OPEN && dp->ports[id].is_tunnel)
			return &dp->ports[id];
	return NULL;
}

/** Give a peer that has a secret its keys, none of them set; 0 or -ENOMEM. */
static int
give_keys(struct onvm_peer *peer)
{
	if (posix_memalign((void **)&peer->keys, 64, sizeof(*peer->keys)) != 0) {
		peer->keys = NULL;
		return -ENOMEM;
	}
	memset(peer->keys, 0, sizeof(*peer->keys));
	return 0;
}

static bool
has_secret(const struct onvm_peer *peer)
{
	static const uint8_t none[ONVM_SECRET_BYTES];

	return memcmp(peer->secret, none, sizeof(none)) != 0;
}

/** Say how the datagrams of a tunnel are sealed that is to be opened. */
static int
set_security(struct onvm_dataplane *dp, uint32_t security)
{
	int rc;

	if (security > ONVM_SECURITY_ENCRYPT)
		return onvm_fail(-EINVAL, "security %u of the tunnel", security);
	dp->peers.security = (enum onvm_security)security;
	if (security == ONVM_SECURITY_NONE)
		return 0;
	rc = onvm_crypto_init();
	if (rc != 0)
		return onvm_fail(rc, "security of the tunnel: %s", strerror(-rc));
	for (uint16_t id = 1; id < ONVM_PEERS_MAX; id++) {
		struct onvm_peer *peer = &dp->peers.peers[id];

		if (!peer->is_used)
			continue;
		if (!has_secret(peer))
			return onvm_fail(-EINVAL, "peer %u has no secret", id);
		/* Keys of an earlier tunnel end with it: its streams begin again. */
		memset(peer->keys, 0, sizeof(*peer->keys));
	}
	return 0;
}

int
onvm_dp_tunnel_open(const char *name, uint32_t ip_version, const uint8_t *address, uint32_t vni,
		    uint32_t security)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_tunnel_options options = {.ip_version = (uint8_t)ip_version,
					      .vni = vni,
					      .is_busy = dp->config.idle_policy == ONVM_IDLE_BUSY,
					      .peers = &dp->peers,
					      .steering = &dp->steering,
					      .prober = &dp->prober};
	struct onvm_prober_options probes = {.ip_version = (uint8_t)ip_version,
					     .vni = vni,
					     .nb_workers = dp->config.nb_workers,
					     .peers = &dp->peers,
					     .notice_fd = dp->notice_fd};
	union onvm_sockaddr own;
	int rc;

	if (tunnel_of(dp) != NULL)
		return onvm_fail(-EEXIST, "port %s: there is a tunnel already", name);
	if ((ip_version != 4 && ip_version != 6) || vni >= 1u << 24)
		return onvm_fail(-EINVAL, "port %s: IPv%u, VNI %u", name, ip_version, vni);
	rc = set_security(dp, security);
	if (rc != 0)
		return rc;
	memcpy(options.address, address, onvm_address_bytes(ip_version));
	memcpy(probes.address, options.address, sizeof(probes.address));
	onvm_sockaddr_set(&own, options.ip_version, address, ONVM_VXLAN_GPE_PORT);
	onvm_sockaddr_bytes(&own, dp->peers.own);
	rc = onvm_prober_start(&dp->prober, &probes);
	if (rc != 0)
		return onvm_fail(rc, "port %s: a UDP port of the data address: %s", name,
				 strerror(-rc));
	rc = onvm_port_open(dp, name, onvm_port_tunnel_open, &options);
	if (rc < 0) {
		onvm_prober_stop(&dp->prober);
		return rc;
	}
	for (uint16_t peer = 1; peer < ONVM_PEERS_MAX; peer++)
		if (dp->peers.peers[peer].is_used)
			onvm_prober_add(&dp->prober, peer);
	return rc;
}

/* ---- peers ---- */

/** Let workers know peers by the addresses that they have now. */
static int
publish_peers(struct onvm_dataplane *dp)
{
	struct onvm_peer_index *index = onvm_peers_make_index(&dp->peers);
	struct onvm_peer_index *old = dp->peers.index;

	if (index == NULL)
		return onvm_fail(-ENOMEM, "peers: out of memory");
	/* P1: pairs with the acquire loads P2 in tunnel.c and probe.c. */
	__atomic_store_n(&dp->peers.index, index, __ATOMIC_RELEASE);
	onvm_publish(dp);
	onvm_prober_pass(&dp->prober);
	free(old);
	return 0;
}

int
onvm_dp_peer_add(uint32_t ip_version, const uint8_t *address, const uint8_t *secret)
{
	struct onvm_dataplane *dp = &onvm_dp;
	union onvm_sockaddr wanted;
	struct onvm_peer *peer;
	uint16_t id;
	int rc;

	if (ip_version != 4 && ip_version != 6)
		return onvm_fail(-EINVAL, "peer of IPv%u", ip_version);
	onvm_sockaddr_set(&wanted, (uint8_t)ip_version, address, ONVM_VXLAN_GPE_PORT);
	if (onvm_peers_find(dp->peers.index, &wanted) != 0)
		return onvm_fail(-EEXIST, "two peers of one address");
	for (id = 1; id < ONVM_PEERS_MAX; id++)
		if (!dp->peers.peers[id].is_used)
			break;
	if (id == ONVM_PEERS_MAX)
		return onvm_fail(-ENOSPC, "all %u slots for peers are taken", ONVM_PEERS_MAX - 1);
	peer = &dp->peers.peers[id];
	peer->address_length = onvm_sockaddr_set(&peer->address, (uint8_t)ip_version, address,
						 ONVM_VXLAN_GPE_PORT);
	memcpy(peer->secret, secret, sizeof(peer->secret));
	if (tunnel_of(dp) != NULL && dp->peers.security != ONVM_SECURITY_NONE && !has_secret(peer))
		return onvm_fail(-EINVAL, "expected a secret of the peer");
	if (give_keys(peer) != 0)
		return onvm_fail(-ENOMEM, "peers: out of memory");
	peer->is_used = true;
	rc = publish_peers(dp);
	if (rc != 0) {
		peer->is_used = false;
		free(peer->keys);
		return rc;
	}
	onvm_prober_add(&dp->prober, id);
	return id;
}

/** Remember a peer that is removed, for the probes that it sends until it knows. */
static void
note_left(struct onvm_peers *peers, const struct onvm_peer *peer)
{
	struct onvm_left_peer *left = &peers->left[peers->nb_left++ % ONVM_LEFT_MAX];
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	onvm_sockaddr_bytes(&peer->address, left->address);
	memcpy(left->secret, peer->secret, sizeof(left->secret));
	left->until_s = (uint32_t)now.tv_sec + ONVM_LEFT_S;
}

static bool
is_peer_needed(const struct onvm_dataplane *dp, uint32_t peer)
{
	const struct onvm_steering *steering = &dp->steering;

	for (uint32_t slot = ONVM_HOSTS_MAX; slot < steering->nb_slots; slot++)
		if (steering->hosts[slot].state != ONVM_HOST_FREE &&
		    steering->hosts[slot].peer == peer)
			return true;
	for (uint32_t id = 1; id < ONVM_CHAINS_MAX; id++)
		if (steering->chains[id].is_used &&
		    (steering->chains[id].near_port == (ONVM_PORT_REMOTE | peer) ||
		     steering->chains[id].far_port == (ONVM_PORT_REMOTE | peer)))
			return true;
	return false;
}

int
onvm_dp_peer_remove(uint32_t peer)
{
	struct onvm_dataplane *dp = &onvm_dp;
	int rc;

	if (peer == 0 || peer >= ONVM_PEERS_MAX || !dp->peers.peers[peer].is_used)
		return onvm_fail(-ENOENT, "there is no peer %u", peer);
	if (is_peer_needed(dp, peer))
		return onvm_fail(-EBUSY, "peer %u has NF hosts, or an end of a chain", peer);
	onvm_prober_remove(&dp->prober, (uint16_t)peer);
	dp->peers.peers[peer].is_used = false;
	note_left(&dp->peers, &dp->peers.peers[peer]);
	rc = publish_peers(dp);
	if (rc != 0)
		return rc;
	free(dp->peers.peers[peer].keys); /* no worker has them any more */
	memset(&dp->peers.peers[peer], 0, sizeof(dp->peers.peers[peer]));
	return 0;
}

int
onvm_dp_read_peer(uint32_t peer, struct onvm_dp_peer_stats *stats)
{
	const struct onvm_port *tunnel = tunnel_of(&onvm_dp);

	memset(stats, 0, sizeof(*stats));
	if (peer == 0 || peer >= ONVM_PEERS_MAX || !onvm_dp.peers.peers[peer].is_used)
		return onvm_fail(-ENOENT, "there is no peer %u", peer);
	if (tunnel != NULL) {
		struct onvm_tunnel_counters counters;

		onvm_tunnel_read_peer(tunnel, (uint16_t)peer, &counters);
		stats->rx = counters.rx;
		stats->tx = counters.tx;
		stats->forged = counters.forged;
		stats->replayed = counters.replayed;
	}
	onvm_prober_read(&onvm_dp.prober, (uint16_t)peer, stats);
	return 0;
}

/* ---- NF hosts ---- */

int
onvm_dp_remote_add(const uint16_t *services, uint32_t nb_stages, uint32_t peer, uint32_t number)
{
	struct onvm_dataplane *dp = &onvm_dp;
	struct onvm_steering *steering = &dp->steering;
	struct onvm_host *host;
	uint32_t slot;

	if (nb_stages == 0 || nb_stages > ONVM_STAGES_MAX || number == 0 ||
	    number >= ONVM_NUMBERS_MAX)
		return onvm_fail(-EINVAL, "NF host %u at a peer: %u stages", number, nb_stages);
	if (peer == 0 || peer >= ONVM_PEERS_MAX || !dp->peers.peers[peer].is_used)
		return onvm_fail(-ENOENT, "there is no peer %u", peer);
	if (steering->slots[number] != 0)
		return onvm_fail(-EEXIST, "two NF hosts of number %u", number);
	for (slot = ONVM_HOSTS_MAX; slot < ONVM_SLOTS_MAX; slot++)
		if (steering->hosts[slot].state == ONVM_HOST_FREE)
			break;
	if (slot == ONVM_SLOTS_MAX)
		return onvm_fail(-ENOSPC, "all %u slots for NF hosts at peers are taken",
				 ONVM_SLOTS_MAX - ONVM_HOSTS_MAX);
	host = &steering->hosts[slot];
	host->nb_stages = (uint8_t)nb_stages;
	memset(host->services, 0, sizeof(host->services));
	memcpy(host->services, services, nb_stages * sizeof(*services));
	host->spare_pps = 0;
	host->peer = (uint16_t)peer;
	if (slot >= steering->nb_slots)
		steering->nb_slots = slot + 1;
	__atomic_store_n(&host->state, ONVM_HOST_ACTIVE, __ATOMIC_RELEASE);
	onvm_host_set_number(dp, slot, (uint16_t)number);
	if (onvm_publish_candidates(dp) != 0) {
		onvm_dp_remote_remove(slot, 0);
		return -ENOMEM;
	}
	return (int)slot;
}

int
onvm_dp_remote_remove(uint32_t slot, uint32_t successor)
{
	struct onvm_dataplane *dp = &onvm_dp;

	if (slot < ONVM_HOSTS_MAX || slot >= ONVM_SLOTS_MAX || successor >= ONVM_SLOTS_MAX ||
	    dp->steering.hosts[slot].state == ONVM_HOST_FREE)
		return onvm_fail(-ENOENT, "there is no NF host %u at a peer", slot);
	onvm_host_end(dp, slot, successor);
	onvm_host_free_slot(dp, slot);
	return 0;
}
