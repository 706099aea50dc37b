/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_OFFLOAD_H_
#define _ONVM_OFFLOAD_H_

/**
 * @file
 * Packets as kernels exchange them: with work left for the device that sends them.
 *
 * A *partial* packet has no transport checksum yet; its field is free for all that pass it on. A
 * *merged* packet is several segments of one TCP or UDP flow in one, up to 64 KiB (GSO, GRO). The
 * work that is left stands in the mbuf, in DPDK's terms, so no NF can change it:
 *
 *	partial   ol_flags RTE_MBUF_F_TX_TCP_CKSUM or RTE_MBUF_F_TX_UDP_CKSUM
 *	merged    also RTE_MBUF_F_TX_TCP_SEG or RTE_MBUF_F_TX_UDP_SEG, and tso_segsz
 *
 * A *reassembled* packet was joined from fragments here and must be cut into such again
 * (fragments/cutting.h). No device does that; ports get the fragments.
 *
 * Where headers are is found when the work is done, since NFs move and rewrite them. The packet as
 * it is now decides: a merged packet that an NF has made short is sent as it is, one that is no
 * TCP or UDP any more has nothing left to do.
 *
 * DPDK's rte_gso cuts TCP over IPv4 only, and into chains of buffers; here packets are whole.
 *
 * Threads: any; a packet by the one that has it.
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <rte_mbuf.h>

#include <onvm/parse.h>

#include "fragments/cutting.h"
#include "packet_memory.h"

#define ONVM_OFFLOAD_MERGED (RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_UDP_SEG)
#define ONVM_OFFLOAD_ANY (RTE_MBUF_F_TX_L4_MASK | ONVM_OFFLOAD_MERGED | ONVM_OFFLOAD_FRAGMENTED)

/** What is left to do for a packet, by its headers of now. */
struct onvm_offload {
	bool is_partial;  /**< needs its transport checksum */
	bool is_merged;	  /**< and must be cut: there is more payload than `segment` bytes */
	uint16_t field;	  /**< of the checksum, from the transport header */
	uint16_t header;  /**< bytes up to the payload */
	uint32_t end;	  /**< bytes up to the end of the payload; padding may follow */
	uint16_t segment; /**< bytes of payload of each packet */
	uint64_t pseudo;  /**< sum of the pseudo-header, for the length of now */
	struct onvm_headers headers;
};

static inline bool
onvm_offload_has(const struct rte_mbuf *mbuf)
{
	return (mbuf->ol_flags & ONVM_OFFLOAD_ANY) != 0;
}

/**
 * Flags of the buffer of a packet that has an offload. NFs find in the slot how long the segments or
 * fragments are: a hint, for what is done with the packet follows from the mbuf.
 */
static inline uint16_t
onvm_offload_flags(const struct rte_mbuf *mbuf)
{
	const uint16_t bytes = mbuf->tso_segsz;

	if ((mbuf->ol_flags & (ONVM_OFFLOAD_MERGED | ONVM_OFFLOAD_FRAGMENTED)) == 0)
		return ONVM_BUFFER_PARTIAL;
	memcpy(mbuf->buf_addr, &bytes, sizeof(bytes));
	return (mbuf->ol_flags & ONVM_OFFLOAD_MERGED) != 0 ?
		       ONVM_BUFFER_PARTIAL | ONVM_BUFFER_MERGED :
		       ONVM_BUFFER_FRAGMENTED;
}

/** Find out what is left to do for a packet that has an offload. */
void onvm_offload_read(const struct rte_mbuf *mbuf, struct onvm_offload *offload);

/** Do it for a packet that is not merged: make its checksum. Then nothing is left. */
void onvm_offload_complete(struct rte_mbuf *mbuf, const struct onvm_offload *offload);

/** Work on a merged packet: the packets that it is cut into come one after the other. */
struct onvm_segmenter {
	struct rte_mbuf *whole; /**< NULL: there is no work */
	struct onvm_offload offload;
	uint32_t next; /**< first byte of payload that is in no packet yet */
	uint32_t nb_made;
};

/** Begin with a merged packet, which belongs to the segmenter from now on. */
static inline void
onvm_segmenter_begin(struct onvm_segmenter *segmenter, struct rte_mbuf *whole,
		     const struct onvm_offload *offload)
{
	segmenter->whole = whole;
	segmenter->offload = *offload;
	segmenter->next = offload->header;
	segmenter->nb_made = 0;
}

/**
 * Make the next packets, complete ones, in buffers of @p pool, or in large ones if they would not
 * fit. With the last of them, `whole` is freed and NULL.
 *
 * @return how many; fewer than @p nb also when there are no more buffers
 */
uint16_t
onvm_segmenter_next(struct onvm_segmenter *segmenter, const struct onvm_packet_memory *memory,
		    struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t nb);

/** Work on packets of all kinds until each is as it is on the wire. */
struct onvm_cutter {
	struct rte_mbuf **mbufs; /**< borrowed */
	uint16_t nb, next;
	bool keeps_offloads; /**< cut reassembled packets alone: a device does the rest */
	struct onvm_segmenter segmenter;
	struct onvm_fragmenter fragmenter;
};

static inline void
onvm_cutter_begin(struct onvm_cutter *cutter, struct rte_mbuf **mbufs, uint16_t nb,
		  bool keeps_offloads)
{
	cutter->mbufs = mbufs;
	cutter->nb = nb;
	cutter->next = 0;
	cutter->keeps_offloads = keeps_offloads;
	cutter->segmenter.whole = NULL;
	cutter->fragmenter.whole = NULL;
}

/** Whether a packet is cut in part. */
static inline bool
onvm_cutter_is_within(const struct onvm_cutter *cutter)
{
	return (cutter->segmenter.whole != NULL && cutter->segmenter.nb_made != 0) ||
	       (cutter->fragmenter.whole != NULL && cutter->fragmenter.nb_made != 0);
}

static inline bool
onvm_cutter_is_done(const struct onvm_cutter *cutter)
{
	return cutter->next == cutter->nb && cutter->segmenter.whole == NULL &&
	       cutter->fragmenter.whole == NULL;
}

/**
 * The next packets, complete ones.
 *
 * @param nb_added  gets the packets that have been made, beyond those given, added to it
 * @return how many; 0 before the end: there are no more buffers
 */
uint16_t onvm_cutter_next(struct onvm_cutter *cutter, const struct onvm_packet_memory *memory,
			  struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t nb,
			  uint32_t *nb_added);

/** Free what has not been worked on; @return how many packets, one that is cut in part included. */
uint32_t onvm_cutter_free(struct onvm_cutter *cutter);

#endif /* _ONVM_OFFLOAD_H_ */
