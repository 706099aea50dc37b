/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: bursts of random frames, common and strange ones. Keys, kinds and hashes are those that the
 * parser gives; the path of each flow is the one that the hash table has, whatever the cache of
 * positions has guessed, while flows are put, forgotten and put again at positions of others. Most
 * guesses are right, also after the cache has grown.
 */
#include "flows/ageing.h"
#include "flows/classify.h"

#include <string.h>

#include "test_eal.h"

#define FRAME_BYTES 96
#define NB_FLOWS 3000u

static struct rte_rcu_qsbr *qsbr;
static struct onvm_flow_table table;
static uint64_t clock_ms;
static struct onvm_burst burst;
static uint8_t frames[ONVM_BURST_SIZE][FRAME_BYTES];
static struct rte_mbuf mbufs[ONVM_BURST_SIZE];
static struct rte_mbuf *pointers[ONVM_BURST_SIZE];
static uint64_t seed;

static uint32_t
below(uint32_t limit)
{
	return (uint32_t)(test_random(&seed) % limit);
}

/** UDP or TCP over IPv4 or IPv6; one in four has something that is not as usual. */
static uint16_t
make_frame(uint8_t *frame, uint32_t flow)
{
	const bool is_v6 = flow % 5 == 0;
	const uint8_t protocol = flow % 2 == 0 ? 6 : 17;
	uint8_t *ip = frame + 14;
	uint8_t *l4 = ip + (is_v6 ? 40 : 20);

	memset(frame, 0, FRAME_BYTES);
	frame[12] = is_v6 ? 0x86 : 0x08;
	frame[13] = is_v6 ? 0xdd : 0x00;
	ip[0] = is_v6 ? 0x60 : 0x45;
	ip[is_v6 ? 5 : 3] = is_v6 ? 20 : 40;
	ip[is_v6 ? 6 : 9] = protocol;
	ip[is_v6 ? 23 : 15] = (uint8_t)flow;
	ip[is_v6 ? 39 : 19] = (uint8_t)(flow >> 8);
	l4[0] = (uint8_t)(flow >> 4);
	l4[3] = (uint8_t)flow;
	l4[12] = 0x50;
	if (below(4) == 0)
		frame[12 + below(40)] ^= (uint8_t)(1u << below(8));
	return (uint16_t)(is_v6 ? 74 : below(8) == 0 ? below(54) : 54);
}

static void
test_keys_are_those_of_the_parser(void)
{
	for (uint32_t round = 0; round < 5000; round++) {
		for (uint32_t i = 0; i < ONVM_BURST_SIZE; i++)
			mbufs[i].data_len = make_frame(frames[i], below(1u << 16));
		onvm_classify(&table, 7, pointers, ONVM_BURST_SIZE, &burst);
		for (uint32_t i = 0; i < ONVM_BURST_SIZE; i++) {
			struct onvm_headers headers;
			union onvm_flow_key key;
			enum onvm_flow_kind kind;

			onvm_parse(frames[i], mbufs[i].data_len, &headers);
			kind = onvm_flow_key_make(frames[i], &headers, 7, &key);
			CHECK_EQUAL(burst.kinds[i], kind);
			CHECK_EQUAL(burst.signs[i], onvm_flow_signs(&headers));
			if (kind == ONVM_FLOW_KIND_NONE) {
				CHECK_EQUAL(burst.positions[i], ONVM_FLOW_NONE);
				continue;
			}
			CHECK(memcmp(&burst.keys[i], &key,
				     kind == ONVM_FLOW_KIND_IPV4 ? sizeof(key.v4) :
								   sizeof(key.v6)) == 0);
			CHECK_EQUAL(burst.hashes[i], onvm_flow_key_hash(kind, &key));
		}
	}
}

static uint16_t
path_in_table(uint32_t i)
{
	const uint32_t position = onvm_flow_table_find(&table, (enum onvm_flow_kind)burst.kinds[i],
						       &burst.keys[i], burst.hashes[i]);

	return position == ONVM_FLOW_NONE ? 0 : table.flows[position].path;
}

static void
put(uint32_t i)
{
	const uint32_t position = onvm_flow_table_put(&table, (enum onvm_flow_kind)burst.kinds[i],
						      &burst.keys[i], burst.hashes[i]);

	if (position == ONVM_FLOW_NONE)
		return;
	if (table.flows[position].path != 0)
		return;
	table.flows[position].seen = table.now;
	table.peers[position] = ONVM_FLOW_NONE;
	onvm_flow_set_path(&table, position, (uint16_t)(1 + below(60000)));
}

static void
test_a_guess_is_never_another_flows_path(void)
{
	uint32_t nb_known = 0, nb_guessed = 0;

	for (uint32_t round = 0; round < 20000; round++) {
		const uint32_t first = below(NB_FLOWS);

		for (uint32_t i = 0; i < ONVM_BURST_SIZE; i++)
			mbufs[i].data_len = make_frame(frames[i], (first + below(200)) % NB_FLOWS);
		onvm_classify(&table, 7, pointers, ONVM_BURST_SIZE, &burst);
		for (uint32_t i = 0; i < ONVM_BURST_SIZE; i++) {
			const uint16_t path = onvm_burst_path(&table, &burst, i);

			if (burst.kinds[i] == ONVM_FLOW_KIND_NONE)
				continue;
			/* After a wrong guess a flow counts as not known. */
			CHECK(path == 0 || path == path_in_table(i));
			nb_known += path_in_table(i) != 0;
			nb_guessed += path != 0;
		}
		for (uint32_t i = 0; i < ONVM_BURST_SIZE; i++)
			if (burst.kinds[i] != ONVM_FLOW_KIND_NONE &&
			    onvm_burst_path(&table, &burst, i) == 0 && below(4) != 0)
				put(i);
		if (round % 50 == 49) {
			clock_ms += 1100;
			onvm_flow_table_set_time(&table, clock_ms);
			table.cursor = 0;
			onvm_flow_table_age(&table, UINT32_MAX, NULL);
		}
	}
	CHECK(nb_known > 100000);
	CHECK(nb_guessed > nb_known / 10 * 9);
}

/** Share of flows that the cache finds again, in percent. */
static uint32_t
found_again(uint32_t nb_flows)
{
	uint32_t nb_found = 0;

	for (uint32_t round = 0; round < 3; round++) {
		nb_found = 0;
		for (uint32_t flow = 0; flow < nb_flows; flow++) {
			union onvm_flow_key key = {.v4 = {.src = flow, .dst = flow * 31}};
			const uint32_t hash = onvm_flow_key_hash4(&key.v4);
			const uint32_t guess = onvm_flow_cache_find(&table.cache, hash);
			const uint32_t position =
				onvm_flow_table_put(&table, ONVM_FLOW_KIND_IPV4, &key, hash);

			CHECK(position != ONVM_FLOW_NONE);
			onvm_flow_set_path(&table, position, 1);
			nb_found += guess == position;
			onvm_flow_cache_put(&table.cache, hash, position);
		}
	}
	return nb_found * 100 / nb_flows;
}

static void
test_the_cache_grows_with_the_flows(void)
{
	onvm_flow_table_fini(&table);
	CHECK_EQUAL(onvm_flow_table_init(&table, 1u << 16, 1000, qsbr), 0);
	CHECK_EQUAL(table.cache.mask, ONVM_FLOW_CACHE_SETS_MIN - 1);
	CHECK(found_again(1000) >= 95);
	CHECK_EQUAL(table.cache.mask, ONVM_FLOW_CACHE_SETS_MIN - 1);
	CHECK(found_again(60000) >= 80);
	CHECK_EQUAL(table.cache.mask, 65536 - 1);
}

int
main(int argc, char **argv)
{
	(void)argc;
	seed = test_seed(11);
	test_eal_init(argv[0], "128");
	qsbr = aligned_alloc(64, (rte_rcu_qsbr_get_memsize(4) + 63) & ~(size_t)63);
	CHECK_EQUAL(rte_rcu_qsbr_init(qsbr, 4), 0);
	CHECK_EQUAL(onvm_flow_table_init(&table, 2048, 1000, qsbr), 0);
	for (uint32_t i = 0; i < ONVM_BURST_SIZE; i++) {
		mbufs[i].buf_addr = frames[i];
		pointers[i] = &mbufs[i];
	}
	RUN(test_keys_are_those_of_the_parser);
	RUN(test_a_guess_is_never_another_flows_path);
	RUN(test_the_cache_grows_with_the_flows);
	onvm_flow_table_fini(&table);
	free(qsbr);
	rte_eal_cleanup();
	return 0;
}
