/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: one thread plays both sides.
 *  - empty, full, full + 1; a burst larger than the room is taken in part
 *  - order and content across the end of the array, and across the 2^32 wrap of the indices
 *  - a peer that writes impossible indices marks the ring bad; nothing outside is read or written
 */
#include <onvm/ring.h>

#include "test.h"

#define LENGTH 8

static struct onvm_ring_shared *shared;
static struct onvm_ring producer, consumer;

static void
set_up(uint32_t first_index)
{
	free(shared);
	/* exactly as large as it must be, so that the sanitizer sees one descriptor too many */
	shared = aligned_alloc(128, sizeof(*shared) + LENGTH * sizeof(struct onvm_desc));
	CHECK(shared != NULL);
	memset(shared, 0, sizeof(*shared));
	shared->head = shared->tail = first_index;
	onvm_ring_init(&producer, shared, LENGTH);
	onvm_ring_init(&consumer, shared, LENGTH);
	producer.local = producer.peer = consumer.local = consumer.peer = first_index;
}

static uint32_t
put(uint32_t first, uint32_t nb)
{
	struct onvm_desc descs[2 * LENGTH] = {0};

	for (uint32_t i = 0; i < nb; i++)
		descs[i].buffer = first + i;
	return onvm_ring_enqueue_burst(&producer, descs, nb);
}

static void
take_expecting(uint32_t wanted, uint32_t first, uint32_t nb)
{
	struct onvm_desc descs[2 * LENGTH];

	CHECK_EQUAL(onvm_ring_dequeue_burst(&consumer, descs, wanted), nb);
	for (uint32_t i = 0; i < nb; i++)
		CHECK_EQUAL(descs[i].buffer, first + i);
}

static void
test_empty_ring_gives_nothing(void)
{
	set_up(0);
	take_expecting(LENGTH, 0, 0);
	CHECK(!consumer.is_bad);
}

static void
test_full_ring_takes_what_fits(void)
{
	set_up(0);
	CHECK_EQUAL(put(0, LENGTH - 1), LENGTH - 1);
	CHECK_EQUAL(put(LENGTH - 1, 1), 1);
	CHECK_EQUAL(put(LENGTH, 1), 0);
	take_expecting(3, 0, 3);
	CHECK_EQUAL(put(LENGTH, LENGTH), 3);
	take_expecting(2 * LENGTH, 3, LENGTH);
	CHECK(!producer.is_bad && !consumer.is_bad);
}

static void
test_order_survives_both_wraps(void)
{
	uint64_t seed = test_seed(1);
	uint32_t next_in = 0, next_out = 0;

	set_up(UINT32_MAX - 50);
	while (next_out < 1000) {
		const uint32_t nb = onvm_ring_count(&consumer, LENGTH);

		CHECK_EQUAL(nb, next_in - next_out);
		next_in += put(next_in, test_random(&seed) % (2 * LENGTH));
		const uint32_t wanted = test_random(&seed) % (2 * LENGTH);
		const uint32_t held = next_in - next_out;
		const uint32_t got = wanted < held ? wanted : held;

		take_expecting(wanted, next_out, got);
		next_out += got;
	}
	CHECK(!producer.is_bad && !consumer.is_bad);
}

static void
test_forged_tail_marks_the_ring_bad(void)
{
	set_up(0);
	shared->tail = LENGTH + 1;
	take_expecting(LENGTH, 0, 0);
	CHECK(consumer.is_bad);

	set_up(5);
	shared->tail = 4; /* backwards */
	take_expecting(LENGTH, 0, 0);
	CHECK(consumer.is_bad);
}

static void
test_forged_head_marks_the_ring_bad(void)
{
	set_up(0);
	CHECK_EQUAL(put(0, LENGTH), LENGTH);
	shared->head = LENGTH + 1; /* took more than there was */
	CHECK_EQUAL(put(0, 1), 0);
	CHECK(producer.is_bad);
}

int
main(void)
{
	RUN(test_empty_ring_gives_nothing);
	RUN(test_full_ring_takes_what_fits);
	RUN(test_order_survives_both_wraps);
	RUN(test_forged_tail_marks_the_ring_bad);
	RUN(test_forged_head_marks_the_ring_bad);
	free(shared);
	return 0;
}
