/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CAPTURE_H_
#define _ONVM_CAPTURE_H_

/**
 * @file
 * Capture: copies of packets that pass a point, taken while traffic runs.
 *
 * A point is a port or an NF host, and the direction in which packets pass it. A capture has some
 * points and one ring of bytes for each worker. Only this worker fills the ring, and only the
 * control thread empties it. When the ring is full, the copy is left out and counted as overflow: a
 * slow reader costs a capture its completeness and traffic nothing.
 *
 * Cost: a worker calls onvm_capture_wants() once a burst, one load and one branch. It compares
 * points only when some capture has a point of this kind.
 *
 * A *filter* (BPF) chooses packets by their bytes as they pass. A capture that *follows* asks its
 * filter only where packets come in by a port: those it chooses get a number, and are captured at
 * every other point until they leave, whatever NFs make of them.
 *
 * Captured packets are: at a port's ingress, those received; at its egress, those given to the
 * port; to an NF host, those put into its ring; from an NF host, those that come back with sound
 * bounds, whatever their verdict.
 *
 * Life: the control thread publishes a capture, takes it away and frees it when all workers have
 * seen that (the epoch). Threads: rings have one producer and one consumer. Memory order: C1 to C4
 * in capture.c.
 */

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include <onvm/ring.h>

#include "packet_memory.h"
#include "table_sizes.h"

#define ONVM_CAPTURES_MAX 8
#define ONVM_CAPTURE_POINTS_MAX 64

/** Kinds of points; the bits of onvm_captures.kinds. */
enum onvm_capture_kind {
	ONVM_CAPTURE_PORT_IN = 1 << 0,
	ONVM_CAPTURE_PORT_OUT = 1 << 1,
	ONVM_CAPTURE_TO_HOST = 1 << 2,
	ONVM_CAPTURE_FROM_HOST = 1 << 3,
};

struct bpf_program;

struct onvm_capture_point {
	uint16_t id;   /**< port, or host slot */
	uint8_t kinds; /**< enum onvm_capture_kind */
};

/** One copy in a ring, followed by its bytes and padding to ONVM_CAPTURE_UNIT. */
struct onvm_capture_record {
	uint64_t tsc;
	uint32_t length;       /**< of the packet */
	uint16_t captured;     /**< bytes of it that follow */
	uint8_t point;	       /**< index; ONVM_CAPTURE_SKIP: nothing up to the ring's end */
	uint8_t is_outbound;   /**< leaves by the port, or comes from the host */
	uint32_t number;       /**< of a followed packet, from 1; else 0 */
	uint16_t destination;  /**< of the verdict */
	uint8_t verdict_stage; /**< as in the descriptor, if it comes from a host; else 0xff */
	uint8_t unused[9];
};
#define ONVM_CAPTURE_SKIP 0xff
#define ONVM_CAPTURE_NO_VERDICT 0xff
/** Records and gaps begin at multiples of this, so that each gap holds a record. */
#define ONVM_CAPTURE_UNIT 32
static_assert(sizeof(struct onvm_capture_record) == ONVM_CAPTURE_UNIT, "a gap holds a record");

struct onvm_capture_ring {
	uint8_t *bytes;
	uint64_t size;			   /**< a power of two */
	uint64_t head __rte_cache_aligned; /**< atomic, the worker's: bytes ever written */
	uint64_t nb_captured, nb_overflow; /**< the worker's */
	uint64_t tail __rte_cache_aligned; /**< atomic, the reader's: bytes ever read */
};

struct onvm_capture {
	uint32_t nb_points;
	struct onvm_capture_point points[ONVM_CAPTURE_POINTS_MAX];
	uint32_t snap_length;
	uint64_t limit;		    /**< packets in all */
	uint64_t nb_taken;	    /**< atomic: of the limit */
	struct bpf_program *filter; /**< NULL: all packets */
	uint32_t *numbers;	    /**< if it follows: of the packet in each buffer; 0: none */
	uint32_t nb_numbers;
	uint32_t nb_followed; /**< atomic: the last number */
	uint32_t nb_followed_max;
	uint32_t nb_rings;
	struct onvm_capture_ring rings[ONVM_WORKERS_MAX];
};

/** All captures of a data plane. */
struct onvm_captures {
	uint32_t kinds; /**< atomic: enum onvm_capture_kind of all points together */
	struct onvm_capture *list[ONVM_CAPTURES_MAX]; /**< atomic; NULL where none is */
} __rte_cache_aligned;

/** Whether any capture has a point of kind @p kind. */
static inline bool
onvm_capture_wants(const struct onvm_captures *captures, enum onvm_capture_kind kind)
{
	return unlikely(__atomic_load_n(&captures->kinds, __ATOMIC_RELAXED) & kind);
}

/* ---- the worker's side; all of it off the usual path ---- */

/** Copy a burst that has come in by, or is about to leave by, port @p port. */
void onvm_capture_port(struct onvm_captures *captures, uint32_t worker,
		       const struct onvm_packet_memory *memory, uint16_t port,
		       enum onvm_capture_kind kind, struct rte_mbuf *const *mbufs, uint32_t nb);
/** Copy a burst that is about to go to, or has come from, host @p host; it holds the buffers. */
void onvm_capture_host(struct onvm_captures *captures, uint32_t worker,
		       const struct onvm_packet_memory *memory, uint16_t host, uint16_t owner,
		       enum onvm_capture_kind kind, const struct onvm_desc *descs, uint32_t nb);

/* ---- the reader's side ---- */

/** @return a capture with rings of @p ring_bytes (rounded up), or NULL. */
struct onvm_capture *onvm_capture_create(uint32_t nb_workers, uint64_t ring_bytes);
void onvm_capture_free(struct onvm_capture *capture);
/** The oldest copy in any ring, or NULL; valid until onvm_capture_next(). */
const struct onvm_capture_record *onvm_capture_peek(struct onvm_capture *capture, uint32_t *ring);
void onvm_capture_next(struct onvm_capture *capture, uint32_t ring);

#endif /* _ONVM_CAPTURE_H_ */
