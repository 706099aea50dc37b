/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: workers choose paths and keep some for a while, as packets on their way do, while one thread
 * frees paths that nothing names. A path that a worker keeps is never free
 * and stays the one that it was; ThreadSanitizer sees whether all of that is in order.
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "steering/candidates.h"
#include "steering/choose.h"
#include "steering/idle.h"
#include "steering/recycle.h"
#include "test.h"

#define NB_WORKERS 2
#define NB_HOSTS 40u /* of each of two services: 1,600 paths each way */
#define NB_KEPT 8u
#define NB_ROUNDS 60u

static struct onvm_steering steering;
/** What onvm_publish() does: workers take over between two turns. */
static uint32_t epoch, wants_marks, must_stop; /* atomic */

struct worker {
	uint32_t seen; /* atomic */
	uint32_t nb_chosen;
	uint16_t kept[NB_KEPT];
	uint16_t first_hosts[NB_KEPT]; /**< of the paths that it keeps */
	struct onvm_selector selector;
	pthread_t thread;
};

static struct worker workers[NB_WORKERS];

/** What a worker does between two turns. */
static void
take_over(struct worker *worker)
{
	const uint32_t now = __atomic_load_n(&epoch, __ATOMIC_ACQUIRE);

	if (worker->seen == now)
		return;
	if (__atomic_load_n(&wants_marks, __ATOMIC_ACQUIRE))
		for (uint32_t i = 0; i < NB_KEPT; i++)
			onvm_steering_mark(&steering, worker->kept[i]);
	__atomic_store_n(&worker->seen, now, __ATOMIC_RELEASE);
}

/** A packet comes, and takes the place of one that leaves. */
static void
choose(struct worker *worker, uint64_t *seed)
{
	const uint32_t place = (uint32_t)(test_random(seed) % NB_KEPT);
	const struct onvm_wishes wishes = {.nb = 2,
					   .hosts = {(uint16_t)(1 + test_random(seed) % NB_HOSTS),
						     (uint16_t)(1 + NB_HOSTS +
								test_random(seed) % NB_HOSTS)}};
	const uint16_t path = onvm_steering_choose_with(
		&steering, 1, __atomic_load_n(&steering.chains[1].candidates, __ATOMIC_ACQUIRE),
		&worker->selector, &wishes);

	CHECK(path != 0);
	worker->kept[place] = path;
	worker->first_hosts[place] = wishes.hosts[0];
	worker->nb_chosen++;
}

static void *
work(void *arg)
{
	struct worker *worker = arg;
	uint64_t seed = test_seed(20 + (uint64_t)(worker - workers));

	while (!__atomic_load_n(&must_stop, __ATOMIC_ACQUIRE)) {
		take_over(worker);
		for (uint32_t turn = 0; turn < 16; turn++)
			choose(worker, &seed);
		for (uint32_t i = 0; i < NB_KEPT; i++) {
			const struct onvm_path *path = &steering.paths[worker->kept[i]];

			if (worker->kept[i] == 0)
				continue;
			CHECK_EQUAL(__atomic_load_n(&path->state, __ATOMIC_ACQUIRE),
				    ONVM_PATH_LIVE);
			CHECK_EQUAL(path->hops[0].host, worker->first_hosts[i]);
			CHECK_EQUAL(steering.paths[path->opposite].opposite, worker->kept[i]);
		}
	}
	/* Others wait for it no longer. */
	__atomic_store_n(&worker->seen, UINT32_MAX, __ATOMIC_RELEASE);
	return NULL;
}

static void
publish(void)
{
	const uint32_t now = __atomic_add_fetch(&epoch, 1, __ATOMIC_ACQ_REL);

	for (uint32_t i = 0; i < NB_WORKERS; i++)
		while (__atomic_load_n(&workers[i].seen, __ATOMIC_ACQUIRE) < now)
			sched_yield();
}

static void
mark_packets(void)
{
	__atomic_store_n(&wants_marks, 1, __ATOMIC_RELEASE);
	publish();
	__atomic_store_n(&wants_marks, 0, __ATOMIC_RELEASE);
}

static void
begin(void)
{
	CHECK_EQUAL(onvm_steering_init(&steering), 0);
	for (uint16_t slot = 1; slot <= 2 * NB_HOSTS; slot++)
		steering.hosts[slot] = (struct onvm_host){
			.state = ONVM_HOST_ACTIVE,
			.nb_stages = 1,
			.services = {slot <= NB_HOSTS ? 1 : 2},
		};
	steering.chains[1] = (struct onvm_chain){.is_used = true,
						 .is_bidirectional = true,
						 .nb_services = 2,
						 .services = {1, 2},
						 .near_port = 1,
						 .far_port = 2};
	steering.chains[1].candidates = onvm_steering_candidates(&steering, 1);
	CHECK(steering.chains[1].candidates != NULL);
}

static void
test_a_path_that_a_packet_is_on_is_never_free(void)
{
	uint32_t nb_freed = 0;

	begin();
	for (uint32_t i = 0; i < NB_WORKERS; i++)
		CHECK_EQUAL(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	for (uint32_t round = 0; round < NB_ROUNDS; round++) {
		pthread_mutex_lock(&steering.changes);
		if (onvm_idle_unlink(&steering, 500) != 0) {
			mark_packets();
			mark_packets();
			nb_freed += onvm_idle_free(&steering);
		}
		pthread_mutex_unlock(&steering.changes);
		publish();
	}
	__atomic_store_n(&must_stop, 1, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < NB_WORKERS; i++) {
		CHECK_EQUAL(pthread_join(workers[i].thread, NULL), 0);
		CHECK(workers[i].nb_chosen > NB_ROUNDS);
	}
	CHECK(nb_freed > 3000);
	/* None was lost: without packets, the one that the chain names is all that stays. */
	onvm_idle_unlink(&steering, UINT32_MAX);
	onvm_idle_free(&steering);
	CHECK_EQUAL(onvm_steering_nb_paths(&steering), 2);
	onvm_steering_fini(&steering);
}

int
main(void)
{
	RUN(test_a_path_that_a_packet_is_on_is_never_free);
	return 0;
}
