/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_PROBE_BOX_H_
#define _ONVM_PROBE_BOX_H_

/**
 * @file
 * Probes on their way from the worker that has received them to the probing thread.
 *
 * Threads: one worker puts, the probing thread takes.
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/** Bytes of a probe that tell something; padding is not kept. */
#define ONVM_PROBE_BYTES 138
#define ONVM_PROBE_BOX_LENGTH 512 /**< a power of two */

struct onvm_boxed_probe {
	uint64_t received_ns; /**< CLOCK_MONOTONIC */
	uint32_t length;      /**< of the datagram, with padding */
	uint16_t peer;
	uint8_t data[ONVM_PROBE_BYTES];
};

struct onvm_probe_box {
	_Alignas(64) uint32_t head; /**< atomic: the worker's */
	_Alignas(64) uint32_t tail; /**< atomic: the probing thread's */
	struct onvm_boxed_probe probes[ONVM_PROBE_BOX_LENGTH];
};

/** Room for a probe, to be followed by onvm_probe_box_put(); NULL: full. */
static inline struct onvm_boxed_probe *
onvm_probe_box_room(struct onvm_probe_box *box)
{
	/* X2: pairs with the release store X1 in onvm_probe_box_took(). */
	const uint32_t tail = __atomic_load_n(&box->tail, __ATOMIC_ACQUIRE);

	return box->head - tail == ONVM_PROBE_BOX_LENGTH ?
		       NULL :
		       &box->probes[box->head % ONVM_PROBE_BOX_LENGTH];
}

static inline void
onvm_probe_box_put(struct onvm_probe_box *box)
{
	/* X3: pairs with the acquire load X4 in onvm_probe_box_next(). */
	__atomic_store_n(&box->head, box->head + 1, __ATOMIC_RELEASE);
}

/** The oldest probe, to be followed by onvm_probe_box_took(); NULL: empty. */
static inline const struct onvm_boxed_probe *
onvm_probe_box_next(const struct onvm_probe_box *box)
{
	/* X4: pairs with the release store X3 in onvm_probe_box_put(). */
	const uint32_t head = __atomic_load_n(&box->head, __ATOMIC_ACQUIRE);

	return head == box->tail ? NULL : &box->probes[box->tail % ONVM_PROBE_BOX_LENGTH];
}

static inline void
onvm_probe_box_took(struct onvm_probe_box *box)
{
	/* X1: pairs with the acquire load X2 in onvm_probe_box_room(). */
	__atomic_store_n(&box->tail, box->tail + 1, __ATOMIC_RELEASE);
}

#endif /* _ONVM_PROBE_BOX_H_ */
