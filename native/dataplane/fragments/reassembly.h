/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_REASSEMBLY_H_
#define _ONVM_REASSEMBLY_H_

/**
 * @file
 * Reassembly: fragments of IPv4 and IPv6 wait until NFs can be shown more than a fragment.
 *
 * *Reassembly* makes one packet of all fragments of a datagram (RFC 791, RFC 8200 section 4.5). It
 * leaves in pieces again (cutting.h). *Virtual reassembly* leaves the fragments as they are, and
 * tells NFs the ports that stand in the first one: the others wait for it, if they come before.
 *
 * A datagram is known by its addresses and identification, and also by the port and VLANs that its
 * fragments came through, so that the two directions, and networks with the same addresses, do not
 * mix. Strangers choose all of that: the hash has a secret key.
 *
 * Limits: a datagram has at most ONVM_PIECES_MAX fragments and waits for ONVM_REASSEMBLY_NS; the table
 * holds a number of datagrams and of fragments, and the datagram that began first gives way to a new
 * one. A fragment that comes a second time is dropped. One that overlaps another, or says of the
 * length what another does not, ends its datagram: all that has come and will come of it is
 * dropped (RFC 5722), in IPv4 too.
 *
 * DPDK's rte_ip_frag is not used: it is compiled for at most 8 fragments of a datagram, its key has
 * neither port nor VLAN, anyone can make its hash collide, and it keeps nothing for virtual
 * reassembly.
 *
 * Life: made when the first NF wants it, and never freed, like all tables of the data plane. Threads:
 * any number of workers; a lock makes them take turns, and only fragments meet it.
 */

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include <onvm/parse.h>

#include "drops.h"
#include "packet_memory.h"

/** Fragments of one datagram: 64 KiB through an MTU of 576 bytes. */
#define ONVM_PIECES_MAX 128
/** The rest of a datagram must come in this time after its first piece. */
#define ONVM_REASSEMBLY_NS 5000000000ull

struct onvm_reassembly;

/** What becomes of fragments. */
struct onvm_reassembly_out {
	void *arg;
	/** @p mbuf goes on: it is a whole datagram, or its ports are known. */
	void (*ready)(void *arg, struct rte_mbuf *mbuf);
	/** @p nb fragments that came in through @p port are gone. */
	void (*lost)(void *arg, uint16_t port, enum onvm_drop reason, uint32_t nb);
	/** @p nb fragments went on in the datagram that was ready last, beside the one that counts. */
	void (*joined)(void *arg, uint16_t port, uint32_t nb);
};

/** @return NULL without memory, or without a source of random numbers */
struct onvm_reassembly *onvm_reassembly_create(const struct onvm_packet_memory *memory,
					       uint32_t nb_datagrams, uint32_t nb_pieces);
/** For tests: no fragment may be held. */
void onvm_reassembly_free(struct onvm_reassembly *reassembly);

/**
 * Take a fragment.
 *
 * @param headers  of the fragment: onvm_headers_is_fragment(); IP without a mistake
 * @param port     that it came in through
 * @param mode     ONVM_FRAGMENTS_VIRTUAL or ONVM_FRAGMENTS_REASSEMBLE
 * @param pool     of buffers for datagrams that fit into one
 */
void onvm_reassembly_take(struct onvm_reassembly *reassembly, struct rte_mbuf *mbuf,
			  const struct onvm_headers *headers, uint16_t port,
			  enum onvm_fragments mode, struct rte_mempool *pool, uint64_t now_ns,
			  const struct onvm_reassembly_out *out);

/** Drop datagrams whose time is over. */
void onvm_reassembly_expire(struct onvm_reassembly *reassembly, uint64_t now_ns,
			    const struct onvm_reassembly_out *out);
/** Drop the datagrams of a port. */
void onvm_reassembly_forget(struct onvm_reassembly *reassembly, uint16_t port,
			    enum onvm_drop reason, const struct onvm_reassembly_out *out);

/** Fragments that wait, of all ports; a hint for any thread. */
uint32_t onvm_reassembly_count(const struct onvm_reassembly *reassembly);
/** Of one port. */
uint32_t onvm_reassembly_count_of(struct onvm_reassembly *reassembly, uint16_t port);

#endif /* _ONVM_REASSEMBLY_H_ */
