/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: one thread puts flows and forgets them, so that each position belongs to one flow after
 * another; two ask the cache for positions and the positions for paths. The path that a key gets is
 * that key's or none; ThreadSanitizer sees whether reading keys while they are written is in order.
 */
#include "flows/ageing.h"
#include "flows/flow_table.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "packet_memory.h"
#include "test_eal.h"

#define NB_KEYS 1000u
#define NB_ROUNDS 1000u
#define NB_READERS 2
/** Each reader is to have met so many: on busy cores it may get none of the rounds' time. */
#define NB_MET 10000u

static struct rte_rcu_qsbr *qsbr;
static struct onvm_flow_table table;
static uint64_t clock_ms;
static uint32_t must_stop;
static uint64_t nb_met[NB_READERS]; /* atomic */

static union onvm_flow_key
key_of(uint32_t number)
{
	return (union onvm_flow_key){.v4 = {.src = number, .dst = ~number, .src_port = 5}};
}

static uint16_t
path_of(uint32_t number)
{
	return (uint16_t)(number + 1);
}

static void *
ask(void *arg)
{
	const uint32_t index = *(const uint32_t *)arg;
	uint64_t seed = test_seed(100 + index);

	rte_rcu_qsbr_thread_register(qsbr, index);
	rte_rcu_qsbr_thread_online(qsbr, index);
	while (!__atomic_load_n(&must_stop, __ATOMIC_ACQUIRE)) {
		const uint32_t number = (uint32_t)(test_random(&seed) % NB_KEYS);
		const union onvm_flow_key key = key_of(number);
		const uint32_t hash = onvm_flow_key_hash4(&key.v4);
		const uint32_t guess = onvm_flow_cache_find(&table.cache, hash);
		uint16_t path = 0;

		if (guess != ONVM_FLOW_NONE)
			path = onvm_flow_path_of_key(&table, guess, ONVM_FLOW_KIND_IPV4, &key);
		CHECK(path == 0 || path == path_of(number));
		if (path != 0)
			__atomic_add_fetch(&nb_met[index], 1, __ATOMIC_RELAXED);
		rte_rcu_qsbr_quiescent(qsbr, index);
	}
	rte_rcu_qsbr_thread_offline(qsbr, index);
	rte_rcu_qsbr_thread_unregister(qsbr, index);
	return NULL;
}

/** Put flows until there is no place, then forget them all. @return flows put */
static uint32_t
turn_over(uint64_t *seed)
{
	uint32_t nb;

	for (nb = 0; nb < 512; nb++) {
		const uint32_t number = (uint32_t)(test_random(seed) % NB_KEYS);
		const union onvm_flow_key key = key_of(number);
		const uint32_t hash = onvm_flow_key_hash4(&key.v4);
		const uint32_t position =
			onvm_flow_table_put(&table, ONVM_FLOW_KIND_IPV4, &key, hash);

		if (position == ONVM_FLOW_NONE)
			break;
		__atomic_store_n(&table.peers[position], ONVM_FLOW_NONE, __ATOMIC_RELAXED);
		onvm_flow_set_path(&table, position, path_of(number));
		onvm_flow_cache_put(&table.cache, hash, position);
	}
	clock_ms += 1100;
	onvm_flow_table_set_time(&table, clock_ms);
	table.cursor = 0;
	onvm_flow_table_age(&table, UINT32_MAX, NULL);
	return nb;
}

static bool
readers_have_met_enough(void)
{
	for (uint32_t i = 0; i < NB_READERS; i++)
		if (__atomic_load_n(&nb_met[i], __ATOMIC_RELAXED) < NB_MET)
			return false;
	return true;
}

/** DPDK has put this thread on one core, and threads start where their maker is. */
static void
use_all_cores(void)
{
	cpu_set_t all;

	CPU_ZERO(&all);
	for (int i = 0; i < CPU_SETSIZE; i++)
		CPU_SET(i, &all);
	CHECK_EQUAL(sched_setaffinity(0, sizeof(all), &all), 0);
}

static void
test_a_key_never_gets_another_flows_path(void)
{
	static const uint32_t indices[NB_READERS] = {0, 1};
	pthread_t readers[NB_READERS];
	uint64_t seed = test_seed(5);
	uint32_t round = 0;

	use_all_cores();
	for (uint32_t i = 0; i < NB_READERS; i++)
		CHECK_EQUAL(pthread_create(&readers[i], NULL, ask, (void *)(uintptr_t)&indices[i]),
			    0);
	while (round < NB_ROUNDS || !readers_have_met_enough()) {
		/* no place: a reader was stopped with a position in its hand, and is to go on */
		if (turn_over(&seed) != 0)
			round++;
		else
			sched_yield();
	}
	__atomic_store_n(&must_stop, 1, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < NB_READERS; i++)
		CHECK_EQUAL(pthread_join(readers[i], NULL), 0);
}

int
main(int argc, char **argv)
{
	(void)argc;
	test_eal_init(argv[0], "64");
	qsbr = aligned_alloc(64, (rte_rcu_qsbr_get_memsize(4) + 63) & ~(size_t)63);
	CHECK_EQUAL(rte_rcu_qsbr_init(qsbr, 4), 0);
	CHECK_EQUAL(onvm_flow_table_init(&table, 256, 1000, qsbr), 0);
	RUN(test_a_key_never_gets_another_flows_path);
	onvm_flow_table_fini(&table);
	free(qsbr);
	rte_eal_cleanup();
	return 0;
}
