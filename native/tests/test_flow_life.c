/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: with a clock of its own, how long flows of each class stay, as packets that came through
 * have told; a connection and its reverse stay together; what a flood of opening connections takes
 * from those that are established (nothing), and from newcomers (at most one of a hundred); an
 * address stays as long as a flow names it.
 */
#include "flows/ageing.h"

#include <string.h>

#include "flows/flow_state.h"
#include "packet_memory.h"
#include "test_eal.h"

#define IDLE_MS 300000
/** Ageing looks at all positions several times in a second; here once in one. */
#define PASS_MS 1000

static const uint32_t lives[ONVM_FLOW_LIVES] = {
	[ONVM_FLOW_TCP_OPENING] = 60000, [ONVM_FLOW_TCP] = 7440000, [ONVM_FLOW_TCP_CLOSING] = 30000,
	[ONVM_FLOW_UDP_OPENING] = 40000, [ONVM_FLOW_UDP] = 300000,  [ONVM_FLOW_ICMP] = 50000,
	[ONVM_FLOW_OTHER] = 600000,
};

static struct rte_rcu_qsbr *qsbr;
static struct onvm_flow_table table;
static uint64_t clock_ms;

static void
begin(uint32_t capacity)
{
	onvm_flow_table_fini(&table);
	CHECK_EQUAL(onvm_flow_table_init(&table, capacity, IDLE_MS, qsbr), 0);
	onvm_flow_set_lives(&table, 0, lives);
	clock_ms = 12345678;
	onvm_flow_table_set_time(&table, clock_ms);
}

/** Let time pass, with ageing in between; @return flows forgotten. */
static uint32_t
wait(uint64_t ms)
{
	uint32_t nb = 0;

	for (const uint64_t end = clock_ms + ms; clock_ms < end;) {
		clock_ms = clock_ms + PASS_MS < end ? clock_ms + PASS_MS : end;
		onvm_flow_table_set_time(&table, clock_ms);
		table.cursor = 0;
		nb += onvm_flow_table_age(&table, UINT32_MAX, NULL);
	}
	return nb;
}

static union onvm_flow_key
key_of(uint32_t number, uint8_t protocol)
{
	return (union onvm_flow_key){.v4 = {.src = number, .protocol = protocol}};
}

static uint32_t
put(uint32_t number, uint8_t protocol)
{
	const union onvm_flow_key key = key_of(number, protocol);
	const uint32_t position = onvm_flow_table_put(&table, ONVM_FLOW_KIND_IPV4, &key,
						      onvm_flow_key_hash4(&key.v4));

	if (position == ONVM_FLOW_NONE)
		return position;
	table.peers[position] = ONVM_FLOW_NONE;
	table.flows[position].flags = 0;
	table.flows[position].seen = table.now;
	onvm_flow_set_path(&table, position, 1);
	return position;
}

static bool
is_there(uint32_t number, uint8_t protocol)
{
	const union onvm_flow_key key = key_of(number, protocol);

	return onvm_flow_table_find(&table, ONVM_FLOW_KIND_IPV4, &key,
				    onvm_flow_key_hash4(&key.v4)) != ONVM_FLOW_NONE;
}

static uint32_t there, back;

/** Flow 1 and its reverse, flow 2. */
static void
connect(uint8_t protocol)
{
	begin(1024);
	there = put(1, protocol);
	back = put(2, protocol);
	table.peers[there] = back;
	table.peers[back] = there;
}

static void
note(uint32_t position, uint8_t signs)
{
	onvm_flow_touch(&table.flows[position], table.now);
	onvm_flow_note(&table, position, onvm_flow_note_of(signs));
}

static void
handshake(void)
{
	connect(ONVM_PROTO_TCP);
	note(there, ONVM_SIGN_SYN);
	note(back, ONVM_SIGN_SYN);
	note(there, 0);
	note(back, 0);
}

/** Whether both directions stay for @p ms and then leave, whichever packet was the last. */
static void
check_life(uint8_t protocol, uint64_t ms)
{
	CHECK_EQUAL(wait(ms - PASS_MS), 0);
	CHECK(is_there(1, protocol) && is_there(2, protocol));
	CHECK_EQUAL(wait(3 * PASS_MS), 2);
	CHECK_EQUAL(onvm_flow_table_used(&table), 0);
}

static void
test_connection_lives_as_its_packets_tell(void)
{
	connect(ONVM_PROTO_TCP);
	note(there, ONVM_SIGN_SYN);
	note(back, ONVM_SIGN_SYN);
	check_life(ONVM_PROTO_TCP, lives[ONVM_FLOW_TCP_OPENING]);

	handshake();
	check_life(ONVM_PROTO_TCP, lives[ONVM_FLOW_TCP]);

	handshake();
	note(there, ONVM_SIGN_FIN); /* may still receive for as long as it likes */
	check_life(ONVM_PROTO_TCP, lives[ONVM_FLOW_TCP]);

	handshake();
	note(there, ONVM_SIGN_FIN);
	note(back, ONVM_SIGN_FIN);
	note(there, 0);
	check_life(ONVM_PROTO_TCP, lives[ONVM_FLOW_TCP_CLOSING]);

	handshake();
	note(back, ONVM_SIGN_RST);
	check_life(ONVM_PROTO_TCP, lives[ONVM_FLOW_TCP_CLOSING]);

	handshake();
	note(back, ONVM_SIGN_RST);
	note(there, 0); /* it was not for this connection */
	check_life(ONVM_PROTO_TCP, lives[ONVM_FLOW_TCP]);
}

static void
test_new_connection_of_closed_ports_begins_anew(void)
{
	handshake();
	table.flows[there].flags |= ONVM_FLOW_LEARNED;
	note(there, ONVM_SIGN_SYN);
	CHECK((table.flows[there].flags & ONVM_FLOW_LEARNED) != 0);
	note(there, ONVM_SIGN_RST);
	note(there, ONVM_SIGN_SYN);
	CHECK_EQUAL(table.flows[there].flags, 0);
	CHECK_EQUAL(table.flows[back].flags, 0);
	check_life(ONVM_PROTO_TCP, lives[ONVM_FLOW_TCP_OPENING]);
}

static void
test_other_protocols_have_lives_of_their_own(void)
{
	connect(ONVM_PROTO_UDP);
	note(there, 0);
	check_life(ONVM_PROTO_UDP, lives[ONVM_FLOW_UDP_OPENING]);
	connect(ONVM_PROTO_UDP);
	note(there, 0);
	note(back, 0);
	check_life(ONVM_PROTO_UDP, lives[ONVM_FLOW_UDP]);
	connect(ONVM_PROTO_ICMP);
	check_life(ONVM_PROTO_ICMP, lives[ONVM_FLOW_ICMP]);
	connect(132);
	check_life(132, lives[ONVM_FLOW_OTHER]);
}

static void
test_packets_of_one_direction_keep_both(void)
{
	handshake();
	for (uint32_t i = 0; i < 5; i++) {
		CHECK_EQUAL(wait(lives[ONVM_FLOW_TCP] - 2 * PASS_MS), 0);
		onvm_flow_touch(&table.flows[back], table.now);
	}
	check_life(ONVM_PROTO_TCP, lives[ONVM_FLOW_TCP]);
}

static void
test_flow_of_another_chain_has_its_life(void)
{
	static struct onvm_steering steering;
	uint32_t shorter[ONVM_FLOW_LIVES] = {0};

	CHECK_EQUAL(onvm_steering_init(&steering), 0);
	steering.paths[1].chain = 7;
	handshake();
	shorter[ONVM_FLOW_TCP] = 20000;
	onvm_flow_set_lives(&table, 7, shorter);
	for (uint32_t i = 0; i < 2; i++) {
		clock_ms += 21000 * i;
		onvm_flow_table_set_time(&table, clock_ms);
		table.cursor = 0;
		CHECK_EQUAL(onvm_flow_table_age(&table, UINT32_MAX, &steering), 2 * i);
	}
	onvm_steering_fini(&steering);
}

#define CAPACITY 8192u
#define NB_ESTABLISHED (CAPACITY / 2)

/** Put connections whose handshake is complete, each with its reverse. */
static void
establish(uint32_t nb)
{
	for (uint32_t i = 0; i < nb; i++) {
		const uint32_t one = put(2 * i, ONVM_PROTO_TCP);
		const uint32_t other = put(2 * i + 1, ONVM_PROTO_TCP);

		table.peers[one] = other;
		table.peers[other] = one;
		note(one, 0);
		note(other, 0);
	}
}

static void
test_flood_takes_nothing_from_the_established(void)
{
	/* twice what would fill half of the table in the life of an opening connection */
	const uint32_t nb_a_pass = 2 * CAPACITY * PASS_MS / lives[ONVM_FLOW_TCP_OPENING];
	uint32_t number = 1u << 20, nb_refused = 0;

	begin(CAPACITY);
	establish(NB_ESTABLISHED);
	for (uint32_t pass = 0; pass < 300; pass++) {
		for (uint32_t i = 0; i < nb_a_pass; i++)
			nb_refused += put(number++, ONVM_PROTO_TCP) == ONVM_FLOW_NONE;
		wait(PASS_MS);
	}
	CHECK(nb_refused <= 300 * nb_a_pass / 100);
	for (uint32_t i = 0; i < 2 * NB_ESTABLISHED; i++)
		CHECK(is_there(i, ONVM_PROTO_TCP));
	/* Where nothing presses, a half-open connection lives as it should. */
	CHECK(is_there(number - 1, ONVM_PROTO_TCP));
	wait(lives[ONVM_FLOW_TCP_OPENING] + 3 * PASS_MS);
	CHECK_EQUAL(onvm_flow_table_used(&table), 2 * NB_ESTABLISHED);
}

static void
test_address_stays_while_a_flow_names_it(void)
{
	uint32_t address;

	handshake();
	address = put(77, 0);
	table.flows[address].flags = ONVM_FLOW_ADDRESS;
	table.owners[there][0] = address + 1;
	table.has_owners = 1;
	wait(lives[ONVM_FLOW_TCP] - PASS_MS);
	CHECK(is_there(77, 0));
	CHECK_EQUAL(wait(3 * PASS_MS), 2);
	CHECK(is_there(77, 0));
	CHECK_EQUAL(wait(15 * PASS_MS), 1);
	CHECK_EQUAL(onvm_flow_table_used(&table), 0);
}

int
main(int argc, char **argv)
{
	(void)argc;
	test_eal_init(argv[0], "128");
	qsbr = aligned_alloc(64, (rte_rcu_qsbr_get_memsize(4) + 63) & ~(size_t)63);
	CHECK_EQUAL(rte_rcu_qsbr_init(qsbr, 4), 0);
	RUN(test_connection_lives_as_its_packets_tell);
	RUN(test_new_connection_of_closed_ports_begins_anew);
	RUN(test_other_protocols_have_lives_of_their_own);
	RUN(test_packets_of_one_direction_keep_both);
	RUN(test_flow_of_another_chain_has_its_life);
	RUN(test_flood_takes_nothing_from_the_established);
	RUN(test_address_stays_while_a_flow_names_it);
	onvm_flow_table_fini(&table);
	free(qsbr);
	rte_eal_cleanup();
	return 0;
}
