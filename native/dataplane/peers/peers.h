/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PEERS_H_
#define _ONVM_PEERS_H_

/**
 * @file
 * The other hosts of a cluster, found by the addresses they send from.
 *
 * Threads: the control thread adds and removes; workers read. An address changes only while no
 * worker uses its peer.
 */

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "peers/security/agreement.h"
#include "peers/security/seal.h"
#include "table_sizes.h"

union onvm_sockaddr {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct onvm_peer {
	bool is_used;
	socklen_t address_length;
	union onvm_sockaddr address;	   /**< of its tunnel port */
	uint8_t secret[ONVM_SECRET_BYTES]; /**< that both hosts know; zeros without security */
	struct onvm_peer_keys *keys;	   /**< NULL without security */
};

/** Hosts that have left of late, and seconds for which they may still send probes. */
#define ONVM_LEFT_MAX 64
#define ONVM_LEFT_S 10

/** A host that has left: what it sends until it knows is no stranger's. */
struct onvm_left_peer {
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t secret[ONVM_SECRET_BYTES];
	uint32_t until_s; /**< of CLOCK_MONOTONIC */
};

/** Peers by their addresses; immutable once published. */
struct onvm_peer_index {
	struct onvm_left_peer left[ONVM_LEFT_MAX];
	uint32_t nb_slots; /**< a power of two, at least twice the peers */
	struct {
		uint8_t address[ONVM_ADDRESS_BYTES]; /**< network order; IPv4 as in ::ffff:0:0/96 */
		uint16_t peer;			     /**< 0: free */
	} slots[];
};

struct onvm_peers {
	struct onvm_peer peers[ONVM_PEERS_MAX];
	struct onvm_peer_index *index; /**< atomic */
	struct onvm_left_peer left[ONVM_LEFT_MAX];
	uint32_t nb_left;		 /**< ever; the newest replaces the oldest */
	enum onvm_security security;	 /**< of the tunnel; set before it is open */
	uint8_t own[ONVM_ADDRESS_BYTES]; /**< this host's address; IPv4 as in ::ffff:0:0/96 */
};

/** Whether packets can be sent to @p peer, which is used: without a key it could not believe them. */
static inline bool
onvm_peer_is_ready(const struct onvm_peers *peers, uint16_t peer)
{
	return peers->security == ONVM_SECURITY_NONE ||
	       onvm_keys_out(peers->peers[peer].keys) != NULL;
}

/** The bytes of an address; IPv4 as in ::ffff:0:0/96. */
void onvm_sockaddr_bytes(const union onvm_sockaddr *address, uint8_t *bytes);
/** The peer that has this address; 0: none. */
uint16_t onvm_peers_find(const struct onvm_peer_index *index, const union onvm_sockaddr *address);
/** The host with this address that has left at most ONVM_LEFT_S seconds before @p now_s, or NULL. */
const struct onvm_left_peer *
onvm_peers_find_left(const struct onvm_peer_index *index, const union onvm_sockaddr *address,
		     uint32_t now_s);
/** An index of all peers; NULL: out of memory. */
struct onvm_peer_index *onvm_peers_make_index(const struct onvm_peers *peers);

/**
 * Fill a socket address from @p ip_version 4 or 6, an address in network order and a port in host
 * order; @return its length.
 */
socklen_t onvm_sockaddr_set(union onvm_sockaddr *address, uint8_t ip_version, const uint8_t *bytes,
			    uint16_t port);

#endif /* _ONVM_PEERS_H_ */
