/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_CAPTURE_H_
#define _ONVM_CAPTURE_H_

/**
 * @file
 * Capture: copies of packets that pass a point, taken while traffic runs.
 *
 * A point is a port or an NF host, and which way packets pass it. A capture has some points and,
 * for each worker, a ring of bytes that only this worker fills and only the control thread
 * empties. When it is full the copy is counted as overflow and left out: a slow reader costs a
 * capture its completeness and traffic nothing.
 *
 * Cost: a worker asks onvm_capture_wants() once a burst, one load and one branch. Only when some
 * capture has a point of this kind does it look which.
 *
 * What is captured: at a port's ingress what was received; at its egress what is handed to the
 * port; to an NF host what is put in its ring, from one what comes back with sound bounds,
 * whatever its verdict.
 *
 * Life: published by the control thread, taken away by it and freed when all workers have seen
 * that (the epoch). Threads: rings are single-producer single-consumer.
 */

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include <onvm/ring.h>

#include "packet_memory.h"
#include "table_sizes.h"

#define ONVM_CAPTURES_MAX 8
#define ONVM_CAPTURE_POINTS_MAX 16

/** Kinds of points; the bits of onvm_captures.kinds. */
enum onvm_capture_kind {
	ONVM_CAPTURE_PORT_IN = 1 << 0,
	ONVM_CAPTURE_PORT_OUT = 1 << 1,
	ONVM_CAPTURE_TO_HOST = 1 << 2,
	ONVM_CAPTURE_FROM_HOST = 1 << 3,
};

struct onvm_capture_point {
	uint16_t id;   /**< port, or host slot */
	uint8_t kinds; /**< enum onvm_capture_kind */
};

/** One copy in a ring, followed by its bytes and padding to 16. */
struct onvm_capture_record {
	uint64_t tsc;
	uint32_t length;     /**< of the packet */
	uint16_t captured;   /**< bytes of it that follow */
	uint8_t point;	     /**< index; ONVM_CAPTURE_SKIP: nothing up to the ring's end */
	uint8_t is_outbound; /**< leaves by the port, or comes from the host */
};
#define ONVM_CAPTURE_SKIP 0xff
static_assert(sizeof(struct onvm_capture_record) == 16, "one unit of a ring");

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
	uint64_t limit;	   /**< packets in all */
	uint64_t nb_taken; /**< atomic: of the limit */
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
void onvm_capture_port(struct onvm_captures *captures, uint32_t worker, uint16_t port,
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
