/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: keys of packets, of their reverse, of fragments and of ICMP errors; random frames under
 * the sanitizers; then a table in DPDK's environment: add, find, ageing with its peer, retired
 * paths rewritten or forgotten, a full table. And flows whose keys collide under CRC, as a stranger
 * would send them, meet as few others as any.
 */
#include "flows/ageing.h"
#include "flows/flow_table.h"

#include <string.h>

#include <rte_hash_crc.h>

#include "packet_memory.h"
#include "test_eal.h"

static uint8_t frame[256];

/** Ethernet, IPv4 10.0.0.1 -> 10.0.0.2; the transport header is the caller's. */
static uint32_t
ipv4(uint8_t protocol, uint16_t fragment, const uint8_t *l4, uint32_t l4_length)
{
	memset(frame, 0, sizeof(frame));
	frame[12] = 8;
	frame[14] = 0x45;
	frame[17] = (uint8_t)(20 + l4_length);
	frame[18] = 0x12;
	frame[19] = 0x34;
	frame[20] = (uint8_t)(fragment >> 8);
	frame[21] = (uint8_t)fragment;
	frame[22] = 64;
	frame[23] = protocol;
	frame[26] = frame[30] = 10;
	frame[29] = 1;
	frame[33] = 2;
	memcpy(frame + 34, l4, l4_length);
	return 34 + l4_length;
}

static enum onvm_flow_kind
key_of(uint32_t length, uint8_t port, union onvm_flow_key *key)
{
	struct onvm_headers headers;

	onvm_parse(frame, length, &headers);
	memset(key, 0xee, sizeof(*key));
	return onvm_flow_key_make(frame, &headers, port, key);
}

static const uint8_t udp[8] = {0x10, 0x00, 0x00, 0x35, 0, 8};
static const uint8_t udp_back[8] = {0x00, 0x35, 0x10, 0x00, 0, 8};

static void
swap_addresses(uint8_t *ip)
{
	uint8_t address[4];

	memcpy(address, ip + 12, 4);
	memcpy(ip + 12, ip + 16, 4);
	memcpy(ip + 16, address, 4);
}

static void
test_reply_has_the_reverse_key(void)
{
	union onvm_flow_key there, back, reverse;

	CHECK_EQUAL(key_of(ipv4(17, 0, udp, 8), 1, &there), ONVM_FLOW_KIND_IPV4);
	CHECK_EQUAL(there.v4.src_port, 0x1000);
	CHECK_EQUAL(there.v4.dst_port, 53);
	ipv4(17, 0, udp_back, 8);
	swap_addresses(frame + 14);
	key_of(42, 2, &back);
	onvm_flow_key_reverse(ONVM_FLOW_KIND_IPV4, &there, 2, &reverse);
	CHECK(memcmp(&back.v4, &reverse.v4, sizeof(back.v4)) == 0);
	CHECK_EQUAL(onvm_flow_key_hash(ONVM_FLOW_KIND_IPV4, &back),
		    onvm_flow_key_hash(ONVM_FLOW_KIND_IPV4, &reverse));
}

static void
test_fragments_of_a_datagram_share_a_key(void)
{
	union onvm_flow_key first, second;
	struct onvm_headers headers;

	onvm_parse(frame, ipv4(17, 0x2000, udp, 8), &headers);
	memset(&first, 0, sizeof(first));
	CHECK(onvm_flow_key_fragment(frame, &headers, 1, &first));
	key_of(ipv4(17, 1, udp, 8), 1, &second);
	CHECK(memcmp(&first.v4, &second.v4, sizeof(first.v4)) == 0);
	onvm_parse(frame, ipv4(17, 0, udp, 8), &headers);
	CHECK(!onvm_flow_key_fragment(frame, &headers, 1, &first));
}

static void
test_icmp_error_has_the_key_of_the_flow_it_answers(void)
{
	uint8_t error[8 + 28] = {3, 1};
	union onvm_flow_key answered, back, reverse;

	key_of(ipv4(17, 0, udp, 8), 1, &answered);
	memcpy(error + 8, frame + 14, 28); /* quotes that packet */
	CHECK_EQUAL(key_of(ipv4(1, 0, error, sizeof(error)), 2, &back), ONVM_FLOW_KIND_IPV4);
	onvm_flow_key_reverse(ONVM_FLOW_KIND_IPV4, &answered, 2, &reverse);
	CHECK(memcmp(&back.v4, &reverse.v4, sizeof(back.v4)) == 0);
	/* One that quotes too little is a flow of its own. */
	CHECK_EQUAL(key_of(ipv4(1, 0, error, 8 + 27), 2, &back), ONVM_FLOW_KIND_IPV4);
	CHECK_EQUAL(back.v4.protocol, 1);
}

static void
test_random_frames_stay_inside_their_bounds(void)
{
	static const uint8_t protocols[] = {0, 1, 6, 17, 43, 44, 50, 51, 58, 60, 132};
	uint64_t seed = test_seed(3);

	for (uint32_t round = 0; round < 200000; round++) {
		const uint32_t length = test_random(&seed) % 140;
		uint8_t *exact = malloc(length == 0 ? 1 : length);
		union onvm_flow_key key, fragment;
		struct onvm_headers headers;
		enum onvm_flow_kind kind;

		for (uint32_t i = 0; i < length; i++)
			exact[i] = (uint8_t)test_random(&seed);
		if (length > 54) {
			const bool is_v4 = test_random(&seed) % 2 == 0;
			const uint8_t protocol = protocols[test_random(&seed) % sizeof(protocols)];

			exact[12] = is_v4 ? 0x08 : 0x86;
			exact[13] = is_v4 ? 0x00 : 0xdd;
			exact[14] = is_v4 ? (uint8_t)(0x45 + test_random(&seed) % 3) : 0x60;
			exact[is_v4 ? 16 : 18] = 0;
			exact[is_v4 ? 17 : 19] = (uint8_t)(length - (is_v4 ? 14 : 54));
			exact[is_v4 ? 23 : 20] = protocol;
			if (is_v4 && test_random(&seed) % 2 == 0)
				exact[20] = exact[21] = 0;
			exact[34] = (uint8_t)(test_random(&seed) % 13);
		}
		onvm_parse(exact, length, &headers);
		kind = onvm_flow_key_make(exact, &headers, 1, &key);
		if (kind != ONVM_FLOW_KIND_NONE)
			(void)onvm_flow_key_fragment(exact, &headers, 1, &fragment);
		free(exact);
	}
}

/* ---- the table ---- */

#define LIFE_MS 1000

static struct rte_rcu_qsbr *qsbr;
static struct onvm_flow_table table;
static struct onvm_steering steering;

static uint32_t
put(uint32_t number, uint16_t path)
{
	union onvm_flow_key key;
	uint32_t position;

	memset(&key, 0, sizeof(key));
	key.v4.src = number;
	position = onvm_flow_table_put(&table, ONVM_FLOW_KIND_IPV4, &key,
				       onvm_flow_key_hash(ONVM_FLOW_KIND_IPV4, &key));
	if (position == ONVM_FLOW_NONE)
		return position;
	table.peers[position] = ONVM_FLOW_NONE;
	table.flows[position].seen = table.now;
	onvm_flow_set_path(&table, position, path);
	return position;
}

static uint32_t
find(uint32_t number)
{
	union onvm_flow_key key;

	memset(&key, 0, sizeof(key));
	key.v4.src = number;
	return onvm_flow_table_find(&table, ONVM_FLOW_KIND_IPV4, &key,
				    onvm_flow_key_hash(ONVM_FLOW_KIND_IPV4, &key));
}

static uint64_t clock_ms;

/** Let time pass. */
static void
pass(uint64_t ms)
{
	clock_ms += ms;
	onvm_flow_table_set_time(&table, clock_ms);
}

/** A whole pass of ageing. */
static void
age(const struct onvm_steering *with)
{
	table.cursor = 0;
	onvm_flow_table_age(&table, UINT32_MAX, with);
}

static void
begin(uint32_t capacity)
{
	onvm_flow_table_fini(&table);
	CHECK_EQUAL(onvm_flow_table_init(&table, capacity, LIFE_MS, qsbr), 0);
	pass(1000);
}

static void
test_idle_flow_is_forgotten_unless_its_peer_is_busy(void)
{
	uint32_t flow, peer;

	begin(1024);
	flow = put(1, 5);
	peer = put(2, 6);
	table.peers[flow] = peer;
	table.peers[peer] = flow;
	pass(LIFE_MS + 2 * table.tick_ms);
	table.flows[peer].seen = table.now;
	age(NULL);
	CHECK_EQUAL(find(1), flow);
	CHECK_EQUAL(onvm_flow_table_used(&table), 2);
	pass(LIFE_MS + 2 * table.tick_ms);
	table.flows[peer].seen = table.now;
	table.peers[flow] = put(3, 7); /* that one does not know us */
	age(NULL);
	CHECK_EQUAL(find(1), ONVM_FLOW_NONE);
	CHECK_EQUAL(find(2), peer);
	CHECK_EQUAL(onvm_flow_table_used(&table), 2);
}

static void
test_retired_paths_are_replaced_or_their_flows_forgotten(void)
{
	uint32_t moved, lost, kept;

	begin(1024);
	CHECK_EQUAL(onvm_steering_init(&steering), 0);
	steering.paths[1].state = steering.paths[2].state = ONVM_PATH_RETIRED;
	steering.paths[1].successor = 3;
	steering.paths[3].state = ONVM_PATH_LIVE;
	moved = put(1, 1);
	steering.nb_retired = 2;
	lost = put(2, 2);
	kept = put(3, 3);
	age(&steering);
	CHECK_EQUAL(table.flows[moved].path, 3);
	CHECK_EQUAL(table.flows[kept].path, 3);
	CHECK_EQUAL(table.flows[lost].path, 0);
	CHECK_EQUAL(find(2), ONVM_FLOW_NONE);
	CHECK_EQUAL(onvm_flow_table_used(&table), 2);
	onvm_steering_fini(&steering);
}

static void
test_dead_position_does_not_take_the_living_flow_along(void)
{
	uint32_t dead, living;

	begin(1024);
	dead = put(1, 5);
	pass(LIFE_MS + 2 * table.tick_ms);
	age(NULL);
	onvm_flow_set_path(&table, dead, 5); /* a worker that had looked it up before */
	living = put(1, 6);
	pass(LIFE_MS + 2 * table.tick_ms);
	table.flows[living].seen = table.now;
	age(NULL);
	CHECK_EQUAL(find(1), living);
	CHECK_EQUAL(table.flows[living].path, 6);
}

static void
test_flow_whose_reverse_is_gone_teaches_it_again(void)
{
	uint32_t flow, reverse;

	begin(1024);
	flow = put(1, 5);
	reverse = put(2, 6);
	table.peers[flow] = reverse;
	table.peers[reverse] = flow;
	table.flows[flow].flags = table.flows[reverse].flags = ONVM_FLOW_LEARNED;
	age(NULL);
	CHECK_EQUAL(table.flows[flow].flags, ONVM_FLOW_LEARNED);
	table.flows[reverse].path = 0; /* as when a worker taught what was being forgotten */
	age(NULL);
	CHECK_EQUAL(table.flows[flow].flags, 0);
}

static void
test_path_is_changed_only_from_what_was_seen(void)
{
	uint16_t known = 5;
	uint32_t flow;

	begin(1024);
	flow = put(1, 5);
	CHECK(onvm_flow_change_path(&table, flow, &known, 6));
	CHECK(!onvm_flow_change_path(&table, flow, &known, 7));
	CHECK_EQUAL(known, 6);
}

static void
test_full_table_says_so_and_has_room_again_after_ageing(void)
{
	uint32_t nb = 0, nb_again = 0;

	begin(512);
	while (nb < 100000 && put(nb, 1) != ONVM_FLOW_NONE)
		nb++;
	CHECK(nb >= 1024 && nb < 100000);
	CHECK_EQUAL(onvm_flow_table_used(&table), nb);
	pass(LIFE_MS + 2 * table.tick_ms);
	age(NULL);
	CHECK_EQUAL(onvm_flow_table_used(&table), 0);
	while (nb_again < nb && put(200000 + nb_again, 1) != ONVM_FLOW_NONE)
		nb_again++;
	CHECK(nb_again >= nb / 2);
}

#define NB_COLLIDING 20000u
#define NB_BUCKETS 4096u

/** Flows that a look-up meets, summed up over a look-up of each. */
static uint64_t
nb_probes(const uint32_t *hashes)
{
	static uint32_t nb_in[NB_BUCKETS];
	uint64_t sum = 0;

	memset(nb_in, 0, sizeof(nb_in));
	for (uint32_t i = 0; i < NB_COLLIDING; i++)
		nb_in[hashes[i] % NB_BUCKETS]++;
	for (uint32_t i = 0; i < NB_BUCKETS; i++)
		sum += (uint64_t)nb_in[i] * nb_in[i];
	return sum;
}

static void
test_flows_that_collide_under_crc_do_not_here(void)
{
	static uint32_t crc[NB_COLLIDING], hashes[NB_COLLIDING];
	const uint64_t random = NB_COLLIDING + (uint64_t)NB_COLLIDING * NB_COLLIDING / NB_BUCKETS;

	for (uint32_t i = 0; i < NB_COLLIDING; i++) {
		const uint64_t addresses = (uint64_t)i << 20;
		/* the ports take back what the addresses have done to the register */
		const uint64_t rest = rte_hash_crc_8byte(addresses, 0);

		crc[i] = rte_hash_crc_8byte(rest, rte_hash_crc_8byte(addresses, 0));
		hashes[i] = onvm_flow_words_hash4(addresses, rest);
	}
	CHECK_EQUAL(nb_probes(crc), (uint64_t)NB_COLLIDING * NB_COLLIDING);
	CHECK(nb_probes(hashes) < 2 * random);
}

int
main(int argc, char **argv)
{
	(void)argc;
	RUN(test_reply_has_the_reverse_key);
	RUN(test_fragments_of_a_datagram_share_a_key);
	RUN(test_icmp_error_has_the_key_of_the_flow_it_answers);
	RUN(test_random_frames_stay_inside_their_bounds);
	test_eal_init(argv[0], "128");
	qsbr = aligned_alloc(64, (rte_rcu_qsbr_get_memsize(4) + 63) & ~(size_t)63);
	CHECK_EQUAL(rte_rcu_qsbr_init(qsbr, 4), 0);
	RUN(test_idle_flow_is_forgotten_unless_its_peer_is_busy);
	RUN(test_retired_paths_are_replaced_or_their_flows_forgotten);
	RUN(test_dead_position_does_not_take_the_living_flow_along);
	RUN(test_flow_whose_reverse_is_gone_teaches_it_again);
	RUN(test_path_is_changed_only_from_what_was_seen);
	RUN(test_full_table_says_so_and_has_room_again_after_ageing);
	RUN(test_flows_that_collide_under_crc_do_not_here);
	onvm_flow_table_fini(&table);
	free(qsbr);
	rte_eal_cleanup();
	return 0;
}
