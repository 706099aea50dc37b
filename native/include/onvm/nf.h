/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_NF_H_
#define _ONVM_NF_H_

/**
 * @file
 * The native form of a network function: a kernel.
 *
 * A kernel is one function that is called with a burst of packets:
 *
 * 	void firewall_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);
 *
 * It reads and writes packet data in place and sets each packet's verdict. C functions of a
 * plugin's own cffi module and Python functions compiled by `@kernel` have this same form; the
 * receive loop calls either without entering the interpreter.
 *
 * On entry every packet has the verdict ONVM_NEXT, so a kernel writes only other verdicts. An NF
 * with a timer is also called with nb_pkts 0, at each turn of the timer, and may make packets then.
 *
 * Threads: one thread calls the kernels of an NF host, never two at once.
 * Lifetime: `pkts` and all they point to are valid until the function returns.
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <onvm/wire.h>

/**
 * One packet of a burst. Lies in memory of the NF host; not shared.
 *
 * From `buffer` to `flags` it is the descriptor it came with (struct onvm_desc), so that the
 * runtime copies rather than converts. `headroom` says where `data` is in its slot: the two move
 * together, as onvm_pkt_push() and onvm_pkt_pull() do it.
 */
struct onvm_pkt {
	uint8_t *data;	   /**< first byte of the Ethernet header */
	uint32_t buffer;   /**< slot of packet memory; the runtime's, not to be written */
	uint16_t headroom; /**< bytes before `data` that headers may be pushed into */
	uint16_t length;   /**< bytes from `data` */
	uint32_t flow_hash;
	uint16_t port;	      /**< ingress port */
	uint8_t verdict;      /**< enum onvm_verdict */
	uint8_t flags;	      /**< ONVM_F_REVERSE: from the chain's far end towards its head */
	uint16_t destination; /**< drop reason, service ID or port, as the verdict says */
	uint16_t tailroom;    /**< bytes behind the packet that it may grow into */
	uint16_t worker;      /**< the runtime's, not to be written */
	uint16_t stage;	      /**< the runtime's, not to be written */
};
static_assert(sizeof(struct onvm_pkt) == 32, "two packets per cache line");

/**
 * Bytes of transport payload of each packet in a merged one (ONVM_F_MERGED), as it came in; 0 of
 * others.
 */
static inline uint16_t
onvm_pkt_segment(const struct onvm_pkt *pkt)
{
	uint16_t bytes = 0;

	if ((pkt->flags & ONVM_F_MERGED) != 0)
		memcpy(&bytes, pkt->data - pkt->headroom, sizeof(bytes));
	return bytes;
}

/** What is known of the fragments of a packet's datagram; NULL: it did not come in fragments. */
static inline struct onvm_fragment_note *
onvm_pkt_fragment_note(const struct onvm_pkt *pkt)
{
	return (pkt->flags & ONVM_F_FRAGMENTED) == 0 ?
		       (struct onvm_fragment_note *)0 :
		       (struct onvm_fragment_note *)(pkt->data - pkt->headroom);
}

/** Bytes of the largest fragment of a reassembled packet, from the IP header on; 0 of others. */
static inline uint16_t
onvm_pkt_largest_fragment(const struct onvm_pkt *pkt)
{
	const struct onvm_fragment_note *const note = onvm_pkt_fragment_note(pkt);

	return note == (struct onvm_fragment_note *)0 ? 0 : note->largest;
}

/**
 * Ports of the datagram of a fragment (`fragments = "virtual"`): source, then destination, in network
 * order; NULL: there are none, or they stand in the packet itself. An NF that changes the ports of
 * datagrams changes these: the NFs behind it read them.
 */
static inline uint8_t *
onvm_pkt_fragment_ports(const struct onvm_pkt *pkt)
{
	struct onvm_fragment_note *const note = onvm_pkt_fragment_note(pkt);

	return note == (struct onvm_fragment_note *)0 || note->largest != 0 ? (uint8_t *)0 :
									      note->ports;
}

struct onvm_held;

/** What a kernel is called with, besides packets. */
struct onvm_ctx {
	void *state;	    /**< the NF's own */
	uint64_t now_ns;    /**< CLOCK_MONOTONIC, read once per burst */
	uint64_t *counters; /**< ONVM_COUNTERS_MAX counters, named in the manifest */
	/**
	 * Make a packet: an empty buffer whose `data` has the usual headroom, or NULL when the
	 * loan is used up. It leaves with the burst in which it was made, after the packets that
	 * came in; its verdict must be ONVM_OUT, ONVM_TO_SERVICE or ONVM_NEXT (on from here).
	 * Verdict and length are set last: ONVM_DROP, which it has at first, gives the loan back.
	 */
	struct onvm_pkt *(*originate)(struct onvm_ctx *ctx);
	void *runtime; /**< the runtime's */
	/** Of the NFs of this process, it is the first or last one on the packets' way. */
	bool is_first_stage, is_last_stage;
	/** The manifest has the permission `originate`; without, originate() gives NULL. */
	bool may_originate;
	/**
	 * Keep a packet of the burst beyond it: a shaper, a reassembly. The packet gets the verdict
	 * ONVM_HOLD. What is pushed, pulled or decided afterwards does not count; another verdict
	 * undoes it.
	 *
	 * @return a token that is not 0; 0: the NF holds as many packets as it may (`held_packets`
	 * in the manifest), and nothing has changed
	 */
	uint32_t (*hold)(struct onvm_ctx *ctx, struct onvm_pkt *pkt);
	/** The packet of a token; NULL: it is not held any more. Valid until it is released. */
	struct onvm_pkt *(*held)(struct onvm_ctx *ctx, uint32_t token);
	/**
	 * Let a held packet go, with a verdict and its destination; it leaves after the burst in
	 * work, after those released before.
	 *
	 * @return 0, or -ENOENT when it is not held
	 */
	int (*release)(struct onvm_ctx *ctx, uint32_t token, uint32_t verdict,
		       uint32_t destination);
	struct onvm_held *held_packets; /**< the runtime's */
	uint64_t epoch_ns;		/**< `now_ns` plus this are nanoseconds since 1970 */
};

typedef void (*onvm_kernel)(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts);

/**
 * When the packet was captured, or when the burst began if it comes from a port that is live, in
 * nanoseconds since 1970. An NF that pushes more than 112 bytes writes over the time of a capture.
 */
static inline uint64_t
onvm_pkt_time_ns(const struct onvm_ctx *ctx, const struct onvm_pkt *pkt)
{
	uint64_t ns;

	if ((pkt->flags & ONVM_F_TIMED) == 0)
		return ctx->now_ns + ctx->epoch_ns;
	memcpy(&ns, pkt->data - pkt->headroom + ONVM_SLOT_TIME, sizeof(ns));
	return ns;
}

/** Whether no NF of the chain has had the packet before this one, in the direction it travels. */
static inline bool
onvm_pkt_is_first(const struct onvm_ctx *ctx, const struct onvm_pkt *pkt)
{
	return ctx->is_first_stage && (pkt->flags & ONVM_F_FIRST) != 0;
}

/** Whether the packet leaves the chain behind this NF. */
static inline bool
onvm_pkt_is_last(const struct onvm_ctx *ctx, const struct onvm_pkt *pkt)
{
	return ctx->is_last_stage && (pkt->flags & ONVM_F_LAST) != 0;
}

/** Drop @p pkt for the reason with index @p reason of the manifest's `drop_reasons`. */
static inline void
onvm_pkt_drop(struct onvm_pkt *pkt, uint16_t reason)
{
	pkt->verdict = ONVM_DROP;
	pkt->destination = reason;
}

/** Send @p pkt out of @p port, past the rest of its chain. */
static inline void
onvm_pkt_out(struct onvm_pkt *pkt, uint16_t port)
{
	pkt->verdict = ONVM_OUT;
	pkt->destination = port;
}

/**
 * Make space for @p length bytes before the packet (encapsulation).
 *
 * @return the new first byte, or NULL when the headroom is too small; then nothing has changed
 */
static inline uint8_t *
onvm_pkt_push(struct onvm_pkt *pkt, uint16_t length)
{
	if (length > pkt->headroom || (uint32_t)pkt->length + length > UINT16_MAX)
		return (uint8_t *)0;
	pkt->data -= length;
	pkt->headroom = (uint16_t)(pkt->headroom - length);
	pkt->length = (uint16_t)(pkt->length + length);
	return pkt->data;
}

/** Cut @p length bytes off the front; NULL when the packet is not longer than that. */
static inline uint8_t *
onvm_pkt_pull(struct onvm_pkt *pkt, uint16_t length)
{
	if (length >= pkt->length)
		return (uint8_t *)0;
	pkt->data += length;
	pkt->headroom = (uint16_t)(pkt->headroom + length);
	pkt->length = (uint16_t)(pkt->length - length);
	return pkt->data;
}

/**
 * Make space for @p length bytes behind the packet. They contain anything.
 *
 * Lengths in headers stay; so do checksums, until onvm_checksums_make() (onvm/content.h).
 *
 * @return the first new byte, or NULL when the tailroom is too small; then nothing has changed
 */
static inline uint8_t *
onvm_pkt_append(struct onvm_pkt *pkt, uint16_t length)
{
	uint8_t *end = pkt->data + pkt->length;

	if (length > pkt->tailroom || (uint32_t)pkt->length + length > UINT16_MAX)
		return (uint8_t *)0;
	pkt->length = (uint16_t)(pkt->length + length);
	pkt->tailroom = (uint16_t)(pkt->tailroom - length);
	return end;
}

/** Cut @p length bytes off the end; false when the packet is not longer than that. */
static inline bool
onvm_pkt_trim(struct onvm_pkt *pkt, uint16_t length)
{
	if (length >= pkt->length)
		return false;
	pkt->length = (uint16_t)(pkt->length - length);
	pkt->tailroom = (uint16_t)(pkt->tailroom + length);
	return true;
}

#endif /* _ONVM_NF_H_ */
