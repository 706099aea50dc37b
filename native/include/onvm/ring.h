/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_RING_H_
#define _ONVM_RING_H_

/**
 * @file
 * Single-producer single-consumer ring of descriptors over memory shared with a peer that may be
 * hostile.
 *
 * A handle is private to its side: the mask, the own index and the last index read from the peer
 * are never taken from shared memory, so a peer can at worst stop the flow. A peer's index that
 * claims more than the ring holds marks the handle bad, for good.
 *
 * Memory order:
 *  - R1, the release store of the producer's tail, pairs with R2, the consumer's acquire load: the
 *    consumer sees descriptors and packet data that were written before R1.
 *  - R3, the release store of the consumer's head, pairs with R4, the producer's acquire load: the
 *    producer writes a slot only after the consumer has read it.
 *
 * Threads: one per handle.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <onvm/assert.h>
#include <onvm/wire.h>

#define ONVM_ALWAYS_INLINE inline __attribute__((always_inline))

/** One side's private end of a ring. */
struct onvm_ring {
	struct onvm_ring_shared *shared;
	uint32_t mask;	/**< length - 1 */
	uint32_t local; /**< own index, free running */
	uint32_t peer;	/**< the peer's index as last read */
	bool is_bad;	/**< the peer wrote an impossible index */
};

/** Take an end of a ring that both sides begin empty. @p length is a power of two. */
static inline void
onvm_ring_init(struct onvm_ring *ring, void *shared, uint32_t length)
{
	ONVM_ASSERT(length != 0 && (length & (length - 1)) == 0);
	ring->shared = (struct onvm_ring_shared *)shared;
	ring->mask = length - 1;
	ring->local = 0;
	ring->peer = 0;
	ring->is_bad = false;
}

/** Producer: free slots; asks the peer only when fewer than @p wanted are known to be free. */
static ONVM_ALWAYS_INLINE uint32_t
onvm_ring_free_count(struct onvm_ring *ring, uint32_t wanted)
{
	const uint32_t length = ring->mask + 1;
	uint32_t used = ring->local - ring->peer;

	if (length - used < wanted) {
		/* R4: pairs with the release store R3 in onvm_ring_consume(). */
		ring->peer = __atomic_load_n(&ring->shared->head, __ATOMIC_ACQUIRE);
		used = ring->local - ring->peer;
		if (__builtin_expect(used > length, 0)) {
			ring->is_bad = true;
			ring->peer = ring->local - length;
			return 0;
		}
	}
	return length - used;
}

/** Consumer: filled slots; asks the peer only when fewer than @p wanted are known to be filled. */
static ONVM_ALWAYS_INLINE uint32_t
onvm_ring_count(struct onvm_ring *ring, uint32_t wanted)
{
	uint32_t filled = ring->peer - ring->local;

	if (filled < wanted) {
		/* R2: pairs with the release store R1 in onvm_ring_publish(). */
		ring->peer = __atomic_load_n(&ring->shared->tail, __ATOMIC_ACQUIRE);
		filled = ring->peer - ring->local;
		if (__builtin_expect(filled > ring->mask + 1, 0)) {
			ring->is_bad = true;
			ring->peer = ring->local;
			return 0;
		}
	}
	return filled;
}

/**
 * Slot @p i from the own index on: of a consumer a filled one, of a producer a free one, as far as
 * onvm_ring_count() or onvm_ring_free_count() said. To work in the ring without a copy.
 */
static ONVM_ALWAYS_INLINE struct onvm_desc *
onvm_ring_at(const struct onvm_ring *ring, uint32_t i)
{
	ONVM_ASSERT(i <= ring->mask);
	return &ring->shared->desc[(ring->local + i) & ring->mask];
}

/** Producer: the next @p nb slots are filled. */
static ONVM_ALWAYS_INLINE void
onvm_ring_publish(struct onvm_ring *ring, uint32_t nb)
{
	ONVM_ASSERT(nb <= ring->mask + 1 - (ring->local - ring->peer));
	ring->local += nb;
	/* R1: pairs with the acquire load R2 in onvm_ring_count(). */
	__atomic_store_n(&ring->shared->tail, ring->local, __ATOMIC_RELEASE);
}

/** Consumer: the next @p nb slots have been read. */
static ONVM_ALWAYS_INLINE void
onvm_ring_consume(struct onvm_ring *ring, uint32_t nb)
{
	ONVM_ASSERT(nb <= ring->peer - ring->local);
	ring->local += nb;
	/* R3: pairs with the acquire load R4 in onvm_ring_free_count(). */
	__atomic_store_n(&ring->shared->head, ring->local, __ATOMIC_RELEASE);
}

/** Put as many of @p nb descriptors as there is room for; @return how many. */
static ONVM_ALWAYS_INLINE uint32_t
onvm_ring_enqueue_burst(struct onvm_ring *ring, const struct onvm_desc *descs, uint32_t nb)
{
	const uint32_t nb_free = onvm_ring_free_count(ring, nb);
	const uint32_t first = ring->local & ring->mask;
	uint32_t nb_straight = ring->mask + 1 - first;

	if (nb > nb_free)
		nb = nb_free;
	if (nb == 0)
		return 0;
	if (nb_straight > nb)
		nb_straight = nb;
	memcpy(&ring->shared->desc[first], descs, (size_t)nb_straight * sizeof(*descs));
	if (nb_straight < nb)
		memcpy(ring->shared->desc, descs + nb_straight,
		       (size_t)(nb - nb_straight) * sizeof(*descs));
	onvm_ring_publish(ring, nb);
	return nb;
}

/** Take up to @p nb descriptors; @return how many. */
static ONVM_ALWAYS_INLINE uint32_t
onvm_ring_dequeue_burst(struct onvm_ring *ring, struct onvm_desc *descs, uint32_t nb)
{
	const uint32_t nb_filled = onvm_ring_count(ring, nb);
	const uint32_t first = ring->local & ring->mask;
	uint32_t nb_straight = ring->mask + 1 - first;

	if (nb > nb_filled)
		nb = nb_filled;
	if (nb == 0)
		return 0;
	if (nb_straight > nb)
		nb_straight = nb;
	memcpy(descs, &ring->shared->desc[first], (size_t)nb_straight * sizeof(*descs));
	if (nb_straight < nb)
		memcpy(descs + nb_straight, ring->shared->desc,
		       (size_t)(nb - nb_straight) * sizeof(*descs));
	onvm_ring_consume(ring, nb);
	return nb;
}

#endif /* _ONVM_RING_H_ */
