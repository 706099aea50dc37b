/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_WIRE_H_
#define _ONVM_WIRE_H_

/**
 * @file
 * The interface between the manager and an NF host: the layout of shared memory and the attach
 * messages.
 *
 * Two memory files cross the attach socket.
 *
 * *Packet memory* holds packet data only: `nb_buffers` slots of `buffer_stride` bytes. Buffer i
 * begins at `i * buffer_stride`. From `first_large` on, a buffer has `large_bytes` bytes and spans
 * several slots; it has the index of the first. mbuf headers are private to the manager.
 *
 * The *attach area* belongs to one NF host. It begins with struct onvm_area_control, followed by
 * three rings per worker lcore (enum onvm_ring_kind), each onvm_ring_bytes() long:
 *
 * 	control | worker 0: to NF, from NF, loan | worker 1: to NF, from NF, loan | ...
 *
 * Life: the NF host connects, sends struct onvm_attach_hello, receives struct onvm_attach_reply
 * with the file descriptors (packet memory, attach area, one eventfd per worker), maps both and
 * sends an ONVM_MSG_READY. When the socket closes, the manager takes back every buffer the NF host
 * held; it reads nothing in shared memory for that.
 *
 * Trust: neither side trusts an index that the other one wrote. Each keeps sizes and masks
 * privately. A peer's ring index is range-checked (ring.h); a returned descriptor is checked for
 * index, ownership and bounds (native/dataplane/worker/return.c).
 *
 * Sleep: a side that wants to sleep stores its word, then looks at its rings once more; a side that
 * enqueues then looks at the word. A full fence stands between the two steps on both sides, so at
 * least one of them sees the other. S1 (NF host) pairs with S2 (worker), S3 (worker) with S4 (NF
 * host).
 *
 * All integers are of host byte order; both sides run on one host.
 */

#include <assert.h>
#include <stdint.h>

#include <onvm/address.h>

#define ONVM_WIRE_MAGIC 0x4d564e4fu /* "ONVM" */
#define ONVM_WIRE_VERSION 4u

#define ONVM_STAGES_MAX 16		/* NFs fused in one NF host */
#define ONVM_WORKERS_MAX 16		/* worker lcores of a manager */
#define ONVM_REASONS_MAX 16		/* drop reasons an NF may name */
#define ONVM_COUNTERS_MAX 16		/* counters an NF may name */
#define ONVM_NAME_LENGTH 32		/* bytes of a name, with its final 0 */
#define ONVM_SECRET_LENGTH 64		/* bytes of a launch secret, with its final 0 */
#define ONVM_ERROR_LENGTH 512		/* bytes of the reason of a refusal, with its final 0 */
#define ONVM_HEADROOM 128		/* bytes before a packet that enters, for headers */
#define ONVM_SLOT_TIME 8		/* where in its slot a packet's time is, in ns since 1970 */
#define ONVM_BURST_MAX 2048		/* packets an NF may ask for at once */
#define ONVM_HELD_MAX 65536		/* packets that an NF may hold */
#define ONVM_MESSAGE_MAX 16384		/* bytes of one message on the attach socket */
#define ONVM_STATE_BYTES_MAX (64 << 20) /* state that an NF host hands over */

/** The decision of an NF for a packet. */
enum onvm_verdict {
	ONVM_NEXT = 0,	     /**< on to the next service of the chain */
	ONVM_DROP = 1,	     /**< free; the descriptor's `port` holds the drop reason, 0..15 */
	ONVM_TO_SERVICE = 2, /**< to the service ID in the descriptor's `port` */
	ONVM_OUT = 3,	     /**< out of the port in the descriptor's `port` */
	ONVM_HOLD = 4,	     /**< stays in the NF host for now; never in a descriptor */
};

/** Bits of onvm_desc.flags and onvm_pkt.flags. */
enum onvm_desc_flags {
	ONVM_F_REVERSE = 1 << 0,    /**< to the NF: the packet travels its chain backwards */
	ONVM_F_ORIGINATED = 1 << 1, /**< from the NF: made by it, in a buffer of the loan ring */
	/** to the NF: the transport checksum is made behind the chain; what the NF writes is ignored */
	ONVM_F_PARTIAL = 1 << 2,
	/**
	 * to the NF: several packets of one flow in one, cut behind the chain (GSO); also PARTIAL.
	 * The first two bytes of the slot have the bytes of payload of each.
	 */
	ONVM_F_MERGED = 1 << 3,
	/** to the NF: the packet has a time, at ONVM_SLOT_TIME of its slot; see onvm_pkt_time_ns() */
	ONVM_F_TIMED = 1 << 4,
	/** to the NF host: it is the first host of the packet's path; the last one. See nf.h */
	ONVM_F_FIRST = 1 << 5,
	ONVM_F_LAST = 1 << 6,
	/**
	 * to the NF: its datagram came in fragments, and leaves in fragments. The slot begins with
	 * what is known of them: struct onvm_fragment_note.
	 */
	ONVM_F_FRAGMENTED = 1 << 7,
};

/** The form in which an NF gets datagrams in fragments; the greatest of a chain counts. */
enum onvm_fragments {
	ONVM_FRAGMENTS_PASS = 0,       /**< the fragments, as they come */
	ONVM_FRAGMENTS_VIRTUAL = 1,    /**< the fragments, each with the ports of the first */
	ONVM_FRAGMENTS_REASSEMBLE = 2, /**< the datagram */
};

/** First bytes of the slot of a packet with ONVM_F_FRAGMENTED. */
struct onvm_fragment_note {
	uint16_t largest; /**< bytes of the largest fragment, from the IP header on; 0: it is one */
	uint8_t ports[4]; /**< of one: source and destination port, as in the first; 0: none */
};
static_assert(sizeof(struct onvm_fragment_note) == 6,
	      "it begins like the bytes of a merged packet");

/** Names one buffer in a ring. */
struct onvm_desc {
	uint32_t buffer;       /**< index of the slot in packet memory */
	uint16_t offset;       /**< first byte of the packet, from the start of the slot */
	uint16_t length;       /**< bytes of the packet */
	uint32_t flow_hash;    /**< RSS or software hash of the flow; 0 if none was needed */
	uint16_t port;	       /**< to the NF: ingress port. From it: see enum onvm_verdict */
	uint8_t verdict_stage; /**< low 4 bits: enum onvm_verdict, high 4: stage that decided */
	uint8_t flags;	       /**< enum onvm_desc_flags */
};
static_assert(sizeof(struct onvm_desc) == 16, "descriptor is 16 bytes");

/** A single-producer single-consumer ring as it lies in shared memory; ring.h has the calls. */
struct onvm_ring_shared {
	_Alignas(128) uint32_t tail; /**< written by the producer: next slot to fill */
	_Alignas(128) uint32_t head; /**< written by the consumer: next slot to take */
	_Alignas(128) struct onvm_desc desc[];
};
static_assert(sizeof(struct onvm_ring_shared) == 256, "two index lines, then descriptors");

/** Written by the NF host only, one per stage. Readers treat them as hints: an NF may lie. */
struct onvm_stage_stats {
	_Alignas(128) uint64_t packets;	      /**< packets the stage has seen */
	uint64_t busy_cycles;		      /**< TSC cycles spent in it */
	uint64_t counters[ONVM_COUNTERS_MAX]; /**< the NF's own, named in its manifest */
	uint64_t held;			      /**< packets that it holds now */
	uint64_t hold_refused;		      /**< packets that it could not hold any more */
};
static_assert(sizeof(struct onvm_stage_stats) == 256, "held packets lie where nothing was before");

/**
 * Turns of an NF host's loop that had packets: sums from which the manager computes the cost of a
 * turn and of a packet (least squares). Cycles are those from the look into the ring until the
 * packets lie in the other, but for waking a worker that sleeps.
 */
struct onvm_turn_sums {
	uint64_t turns;
	uint64_t packets;
	uint64_t packets_squared;
	uint64_t cycles;
	uint64_t cycles_by_packets; /**< cycles of each turn times its packets */
};

/** Head of the attach area. One writer per cache line. */
struct onvm_area_control {
	/** NF host: 1 before it waits on this futex. Manager: 0, then wake. */
	_Alignas(128) uint32_t sleeping;
	/** Manager: raised when a message waits on the socket. */
	_Alignas(128) uint32_t attention;
	/** Manager: 1 while the NF host shares its CPU: then it sleeps, whatever the idle policy. */
	uint32_t shares_cpu;
	/** Manager: worker w sets word w before it sleeps; an NF host that sees it writes eventfd w. */
	_Alignas(128) uint32_t worker_sleeping[ONVM_WORKERS_MAX];
	/** NF host: TSC cycles in which it had nothing to do, times it slept. */
	_Alignas(128) uint64_t idle_cycles;
	uint64_t sleeps;
	uint64_t loops; /**< turns of the receive loop: progress */
	struct onvm_turn_sums sums;
	struct onvm_stage_stats stage[ONVM_STAGES_MAX];
};

enum onvm_ring_kind {
	ONVM_RING_TO_NF = 0,   /**< packets to work on; produced by the worker */
	ONVM_RING_FROM_NF = 1, /**< packets with verdicts; produced by the NF host */
	ONVM_RING_LOAN = 2, /**< empty buffers for packets the NF makes; produced by the worker */
	ONVM_RING_KINDS = 3,
};

/** Bytes of one ring of @p ring_length descriptors (a power of two). */
static inline uint64_t
onvm_ring_bytes(uint32_t ring_length)
{
	return sizeof(struct onvm_ring_shared) + (uint64_t)ring_length * sizeof(struct onvm_desc) +
	       128;
}

/** Offset of a ring in the attach area. */
static inline uint64_t
onvm_ring_offset(uint32_t ring_length, uint32_t worker, enum onvm_ring_kind kind)
{
	return sizeof(struct onvm_area_control) +
	       (uint64_t)(worker * ONVM_RING_KINDS + (uint32_t)kind) * onvm_ring_bytes(ring_length);
}

/** Bytes of the attach area, a multiple of the page size. */
static inline uint64_t
onvm_area_bytes(uint32_t ring_length, uint32_t nb_workers)
{
	return (onvm_ring_offset(ring_length, nb_workers, ONVM_RING_TO_NF) + 4095) & ~4095ull;
}

/** One NF of the host that attaches. Strings end with 0. */
struct onvm_stage_hello {
	char service[ONVM_NAME_LENGTH];
	char instance[ONVM_NAME_LENGTH];		    /**< empty: the manager makes one */
	char reasons[ONVM_REASONS_MAX][ONVM_NAME_LENGTH];   /**< names of its drop reasons */
	char counters[ONVM_COUNTERS_MAX][ONVM_NAME_LENGTH]; /**< names of its counters */
	uint32_t fragments;				    /**< enum onvm_fragments */
};

/** First message of an NF host. */
struct onvm_attach_hello {
	uint32_t magic;
	uint32_t version;
	uint32_t nb_stages;  /**< 1..ONVM_STAGES_MAX */
	uint32_t nb_loaned;  /**< empty buffers wanted for packets it makes; 0: none */
	uint32_t burst_size; /**< packets it likes to get at once */
	uint32_t pid;
	uint32_t wire_sized; /**< wants no merged and no partial packets (enum onvm_desc_flags) */
	char secret[ONVM_SECRET_LENGTH]; /**< from the environment at launch; empty without one */
	struct onvm_stage_hello stage[ONVM_STAGES_MAX];
};

/** The manager's answer; status 0 comes with the file descriptors. */
struct onvm_attach_reply {
	uint32_t magic;
	uint32_t version;
	int32_t status; /**< 0, or -errno and the reason in `error` */
	uint32_t nb_workers;
	uint32_t ring_length;
	uint32_t nb_buffers;
	uint32_t buffer_stride; /**< bytes */
	uint32_t first_large;	/**< index of the first large buffer; nb_buffers: there is none */
	uint32_t large_bytes;
	uint32_t instance_id; /**< of stage 0; stage k has instance_id + k */
	uint64_t memory_bytes;
	uint64_t area_bytes;
	uint32_t idle_policy; /**< enum onvm_idle_policy */
	uint32_t nb_loaned;   /**< granted */
	uint16_t service_id[ONVM_STAGES_MAX];
	char error[ONVM_ERROR_LENGTH];
};

enum onvm_idle_policy {
	ONVM_IDLE_ADAPTIVE = 0, /**< spin briefly, then sleep */
	ONVM_IDLE_BUSY = 1,	/**< never sleep; for NF hosts with a CPU of their own */
};

/** Messages after the attach, both ways. */
enum onvm_message_type {
	ONVM_MSG_READY = 1,   /**< NF: mapped and set up; packets may come */
	ONVM_MSG_STOP = 2,    /**< manager: finish what you hold, then leave */
	ONVM_MSG_DRAIN = 3,   /**< manager: no new flows will come; leave when your state may go */
	ONVM_MSG_DRAINED = 4, /**< NF: nothing held any more */
	ONVM_MSG_USER = 5, /**< either: payload of the author's; `peer` names whom from / whom to */
	ONVM_MSG_DETACH = 6, /**< manager: you are detached; the payload is the reason */
	ONVM_MSG_CLAIM =
		7, /**< NF: traffic that belongs to this instance alone (struct onvm_claim) */
	ONVM_MSG_UNCLAIM = 8,	/**< NF: gives such a claim up */
	ONVM_MSG_RESUME = 9,	/**< manager: new flows come again, the draining is over */
	ONVM_MSG_OFFER = 10,	/**< manager: can you hand your state over? NF: yes */
	ONVM_MSG_SNAPSHOT = 11, /**< manager: give the state of all your NFs; no packets come now */
	ONVM_MSG_RESTORE = 12,	/**< manager: the state of `peer` follows: take it over */
	ONVM_MSG_STATE = 13, /**< either: a piece of the state of `stage`; an empty one ends it */
	ONVM_MSG_RESTORED = 14, /**< NF: the state of `peer` is mine now */
	ONVM_MSG_REFUSED = 15,	/**< NF: it is not; or I cannot give mine. The payload says why */
	ONVM_MSG_RELEASED = 16, /**< NF: nothing of what I have taken over is in use any more */
	ONVM_MSG_PORTS = 17, /**< manager: all ports there are now (struct onvm_port_entry each) */
	/* In these, `peer` is the number of the change. */
	ONVM_MSG_CONFIG = 18,	/**< manager: a piece of a configuration; an empty one ends it */
	ONVM_MSG_PREPARED = 19, /**< NF: `stage` could use it from the next burst on */
	ONVM_MSG_APPLY = 20,	/**< manager: use what all your NFs have prepared */
	ONVM_MSG_APPLIED = 21,	/**< NF: done */
	ONVM_MSG_DECLINED = 22, /**< NF: refused, the payload says why; without: it never can */
	ONVM_MSG_CANCEL = 23,	/**< manager: forget what you have prepared */

	ONVM_MSG_LINK = 24, /**< manager: addresses and VLANs of the port `peer`, as JSON; a
			      *   message about the ports follows */
	ONVM_MSG_OWN_ADDRESSES = 25, /**< NF: all addresses that it answers for, a line each */
	ONVM_MSG_ADDRESSES = 26,     /**< manager: those of all NFs */
	ONVM_MSG_RELEASE = 27,	     /**< manager: release all packets that you hold */
	ONVM_MSG_SERVICES = 28,	     /**< manager: all services, a line each: ID, space, name */
	ONVM_MSG_ASK = 29,   /**< manager: like ONVM_MSG_USER; `peer` is the number of a question */
	ONVM_MSG_REPLY = 30, /**< NF: to a question; a byte and the text, or nothing: no reply */

	/* In these, `peer` is the number of the question. */
	ONVM_MSG_QUESTION = 31, /**< manager: what is in a list of `stage`, as JSON */
	ONVM_MSG_ANSWER = 32,	/**< NF: a piece of the answer, JSON; an empty one ends it */

	/** NF: what decides the instance of a flow, and how long it holds idle flows, in ms; words */
	ONVM_MSG_STEERING = 33,
};

struct onvm_message_header {
	uint32_t type;
	uint32_t length;	     /**< bytes of payload that follow */
	uint32_t stage;		     /**< NF of the host that it is from or for */
	char peer[ONVM_NAME_LENGTH]; /**< service or instance at the other end; "" is the manager */
};

/** A port of the manager, as NFs are told of it: before the first packet, and at each change. */
struct onvm_port_entry {
	char name[ONVM_NAME_LENGTH];
	uint32_t number; /**< that of onvm_pkt.port and of ONVM_OUT */
	uint32_t mtu;	 /**< of its interface; 0: it has none, or it cannot be seen */
	uint8_t mac[6];	 /**< likewise */
	uint8_t pad[2];
};
static_assert(sizeof(struct onvm_port_entry) == 48, "entries lie one behind the other");

/** A range of one address's ports (half-open) that belongs to one NF instance. */
struct onvm_claim {
	uint8_t address[ONVM_ADDRESS_BYTES];
	uint8_t ip_version; /**< 4 or 6 */
	uint8_t protocol;   /**< 0: TCP, UDP and ICMP identifiers alike */
	uint16_t pad;
	uint32_t first_port;
	uint32_t end_port;
};

#endif /* _ONVM_WIRE_H_ */
