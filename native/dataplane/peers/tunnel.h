/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PORT_TUNNEL_H_
#define _ONVM_PORT_TUNNEL_H_

/**
 * @file
 * The port to the other hosts of a cluster: NSH in VXLAN-GPE over UDP sockets.
 *
 * The kernel carries the UDP datagrams, many at once (trains.h). It takes care of routes, neighbours, path MTU and fragments
 * of the outer header; any interface will do, and no privilege is needed. An inner packet that does
 * not fit into the data network's MTU goes out in fragments of the outer header. The peer's kernel
 * puts them together, so NFs always see whole packets.
 *
 * With security each datagram is sealed (security/seal.h). One that is not genuine, or came before, is
 * counted and nothing more.
 *
 * Received packets have their NSH beside them, in private memory. A packet that is sent carries its
 * path, hop and peer in its mbuf, where onvm_tunnel_address() has put them.
 *
 * Threads: queue q belongs to one worker, in both directions.
 */

#include "dataplane.h"
#include "peers/nsh.h"
#include "peers/peers.h"
#include "peers/probe.h"
#include "ports/port.h"
#include "steering/steering.h"

struct onvm_tunnel_options {
	uint8_t ip_version;
	uint8_t address[ONVM_ADDRESS_BYTES]; /**< this host's, network order */
	uint32_t vni;
	bool is_busy;			/**< workers poll without pause */
	const struct onvm_peers *peers; /**< its `security` says how packets are sealed */
	const struct onvm_steering *steering;
	struct onvm_prober *prober; /**< gets the probes that come in */
};

/** Packets from and to a peer. */
struct onvm_tunnel_counters {
	uint64_t rx, tx;
	uint64_t forged, replayed; /**< of rx */
};

/** The headers of a received packet. */
struct onvm_tunnel_packet {
	struct onvm_nsh nsh;
	uint16_t peer;
};

onvm_port_opener onvm_port_tunnel_open; /**< struct onvm_tunnel_options */
/** Headers of the burst that was received last on @p queue, one for each packet. */
const struct onvm_tunnel_packet *onvm_tunnel_received(const struct onvm_port *port, uint16_t queue);
/** Add up what all workers have counted of @p peer. */
void onvm_tunnel_read_peer(const struct onvm_port *port, uint16_t peer,
			   struct onvm_tunnel_counters *counters);

/**
 * Say where a packet goes that is pending to the tunnel: to @p peer, for hop @p hop of @p path. Packets
 * of one @p flow_hash leave by one source port.
 */
static inline void
onvm_tunnel_address(struct rte_mbuf *mbuf, uint16_t peer, uint16_t path, uint8_t hop, uint8_t ttl,
		    uint32_t flow_hash)
{
	mbuf->hash.fdir.lo = path | (uint32_t)hop << 16 | (uint32_t)ttl << 24;
	mbuf->hash.fdir.hi = peer | (flow_hash ^ flow_hash >> 16) << 16;
}

#endif /* _ONVM_PORT_TUNNEL_H_ */
