/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: a producer and a consumer thread, bursts of random length. Each descriptor names a payload
 * slot that was written, without atomics, before the descriptor was sent; ThreadSanitizer sees
 * whether the ring's release and acquire order those writes (A-B and C-D in ring.h), and the sum
 * shows whether anything was lost, doubled or reordered.
 */
#include <onvm/ring.h>

#include <pthread.h>
#include <sched.h>

#include "test.h"

#define LENGTH 64
#define NB_DESCS 200000u
#define BURST_MAX 48

static struct onvm_ring_shared *shared;
static uint32_t payload[LENGTH];

static void *
produce(void *arg)
{
	struct onvm_ring ring;
	struct onvm_desc descs[BURST_MAX] = {0};
	uint64_t seed = test_seed(7);
	uint32_t sent = 0;

	(void)arg;
	onvm_ring_init(&ring, shared, LENGTH);
	while (sent < NB_DESCS) {
		uint32_t nb = 1 + test_random(&seed) % BURST_MAX;
		const uint32_t nb_free = onvm_ring_free_count(&ring, nb);

		nb = nb < nb_free ? nb : nb_free;
		nb = nb < NB_DESCS - sent ? nb : NB_DESCS - sent;
		if (nb == 0) {
			sched_yield();
			continue;
		}
		for (uint32_t i = 0; i < nb; i++) {
			descs[i].buffer = (sent + i) % LENGTH;
			payload[descs[i].buffer] = sent + i;
		}
		CHECK_EQUAL(onvm_ring_enqueue_burst(&ring, descs, nb), nb);
		sent += nb;
	}
	CHECK(!ring.is_bad);
	return NULL;
}

static void *
consume(void *arg)
{
	struct onvm_ring ring;
	struct onvm_desc descs[BURST_MAX];
	uint64_t seed = test_seed(9);
	uint32_t received = 0;

	(void)arg;
	onvm_ring_init(&ring, shared, LENGTH);
	while (received < NB_DESCS) {
		const uint32_t wanted = 1 + test_random(&seed) % BURST_MAX;
		uint32_t nb = onvm_ring_count(&ring, wanted);

		nb = nb < wanted ? nb : wanted;
		if (nb == 0) {
			sched_yield();
			continue;
		}
		/* payload is read before the slots are given back */
		for (uint32_t i = 0; i < nb; i++)
			CHECK_EQUAL(payload[(received + i) % LENGTH], received + i);
		CHECK_EQUAL(onvm_ring_dequeue_burst(&ring, descs, nb), nb);
		for (uint32_t i = 0; i < nb; i++)
			CHECK_EQUAL(descs[i].buffer, (received + i) % LENGTH);
		received += nb;
	}
	CHECK(!ring.is_bad);
	return NULL;
}

static void
test_nothing_is_lost_doubled_or_reordered(void)
{
	pthread_t producer, consumer;

	shared = aligned_alloc(128, sizeof(*shared) + LENGTH * sizeof(struct onvm_desc));
	CHECK(shared != NULL);
	memset(shared, 0, sizeof(*shared));
	CHECK_EQUAL(pthread_create(&consumer, NULL, consume, NULL), 0);
	CHECK_EQUAL(pthread_create(&producer, NULL, produce, NULL), 0);
	pthread_join(producer, NULL);
	pthread_join(consumer, NULL);
	free(shared);
}

int
main(void)
{
	RUN(test_nothing_is_lost_doubled_or_reordered);
	return 0;
}
