/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: three hosts that have the same view render the same paths: a packet's numbers lead each of
 * them to the same NF hosts, whatever slots these have there; credits end where a path leaves the
 * host; when an NF host ends, all choose the same substitute, known numbers or not, or the one that
 * has its state; all wait for one that is not known yet; chains of one host alone never leave it.
 */
#include "steering/candidates.h"

#include <string.h>

#include "steering/choose.h"
#include "steering/retire.h"
#include "steering/spanning.h"
#include "test.h"

#define NB_HOSTS 3
#define CHAIN 7

/** One host of the cluster. */
struct view {
	struct onvm_steering steering;
	struct onvm_selector selector;
	uint16_t next_local, next_remote;
	uint32_t id;
};

static struct view views[NB_HOSTS];

/** Let all hosts know NF host @p number of @p service at host @p where. */
static void
add_everywhere(uint32_t where, uint16_t number, uint16_t service)
{
	for (uint32_t i = 0; i < NB_HOSTS; i++) {
		struct view *view = &views[i];
		const uint16_t slot = i == where ? view->next_local++ : view->next_remote++;
		struct onvm_host *host = &view->steering.hosts[slot];

		*host = (struct onvm_host){.state = ONVM_HOST_ACTIVE,
					   .nb_stages = 1,
					   .services = {service},
					   .generation = host->generation,
					   .peer = (uint16_t)(i == where ? 0 : where + 1),
					   .number = number};
		view->steering.slots[number] = slot;
		view->steering.successors[number] = number;
		if (slot >= view->steering.nb_slots)
			view->steering.nb_slots = slot + 1u;
	}
}

static void
rebuild(void)
{
	for (uint32_t i = 0; i < NB_HOSTS; i++) {
		struct onvm_chain *chain = &views[i].steering.chains[1];
		struct onvm_candidates *old = chain->candidates;

		chain->candidates = onvm_steering_candidates(&views[i].steering, 1);
		free(old);
	}
}

static void
end_everywhere(uint16_t number)
{
	for (uint32_t i = 0; i < NB_HOSTS; i++)
		views[i].steering.hosts[views[i].steering.slots[number]].state = ONVM_HOST_DEAD;
	rebuild();
	for (uint32_t i = 0; i < NB_HOSTS; i++) {
		struct onvm_steering *steering = &views[i].steering;
		const uint16_t slot = steering->slots[number];

		onvm_steering_retire_host(steering, slot, 0);
		steering->slots[number] = 0;
		steering->hosts[slot].state = ONVM_HOST_FREE;
		steering->hosts[slot].number = 0;
		steering->hosts[slot].generation++;
	}
}

/** A chain of three services; in at host 0, out at host 2, @p nb instances of each everywhere. */
static void
begin(uint16_t nb)
{
	for (uint32_t i = 0; i < NB_HOSTS; i++) {
		struct onvm_chain *chain;

		onvm_steering_fini(&views[i].steering);
		CHECK_EQUAL(onvm_steering_init(&views[i].steering), 0);
		chain = &views[i].steering.chains[1];
		*chain = (struct onvm_chain){.is_used = true,
					     .is_bidirectional = true,
					     .track_flows = true,
					     .number = CHAIN,
					     .nb_services = 3,
					     .services = {1, 2, 3},
					     .near_port = i == 0 ? 5 : ONVM_PORT_REMOTE | 1,
					     .far_port = i == 2 ? 6 : ONVM_PORT_REMOTE | 3};
		views[i].next_local = (uint16_t)(1 + i); /* slots differ from host to host */
		views[i].next_remote = (uint16_t)(ONVM_HOSTS_MAX + 3 * i);
	}
	for (uint16_t service = 1; service <= 3; service++)
		for (uint16_t k = 0; k < nb; k++)
			add_everywhere((service + k) % NB_HOSTS, (uint16_t)(service * 1000 + k),
				       service);
	rebuild();
}

static uint16_t
choose(uint32_t i)
{
	struct view *view = &views[i];

	return onvm_steering_choose(&view->steering, 1, view->steering.chains[1].candidates,
				    &view->selector);
}

/** Check that the path @p index of host @p i means the same to all others. */
static void
check_same_everywhere(uint32_t i, uint16_t index)
{
	uint16_t numbers[ONVM_SPAN_MAX], others[ONVM_SPAN_MAX];

	onvm_span_numbers(&views[i].steering, &views[i].steering.paths[index], numbers);
	for (uint32_t k = 0; k < NB_HOSTS; k++) {
		struct onvm_steering *steering = &views[k].steering;
		const uint16_t path = onvm_span_path(steering, CHAIN, numbers, 0);

		CHECK(path != 0);
		onvm_span_numbers(steering, &steering->paths[path], others);
		CHECK(memcmp(numbers, others, sizeof(numbers)) == 0);
		onvm_span_numbers(steering, &steering->paths[steering->paths[path].opposite],
				  others);
		CHECK(memcmp(numbers, others, sizeof(numbers)) == 0);
		CHECK_EQUAL(steering->paths[path].spi, CHAIN << 1);
		CHECK_EQUAL(steering->paths[steering->paths[path].opposite].spi, CHAIN << 1 | 1);
	}
}

static void
test_paths_mean_the_same_everywhere(void)
{
	begin(5);
	for (int n = 0; n < 500; n++)
		check_same_everywhere((uint32_t)n % NB_HOSTS, choose((uint32_t)n % NB_HOSTS));
}

static void
test_places_end_where_the_path_leaves(void)
{
	const struct onvm_path *path, *back;

	begin(1); /* service 1 at host 1, 2 at host 2, 3 at host 0 */
	path = &views[0].steering.paths[choose(0)];
	back = &views[0].steering.paths[path->opposite];
	CHECK_EQUAL(path->remotes, 3);
	CHECK_EQUAL(back->remotes, 6);
	CHECK(!path->learns && !back->learns);
	CHECK_EQUAL(onvm_path_end_here(path, 0), 0);
	CHECK_EQUAL(onvm_path_end_here(path, 2), 3);
	CHECK_EQUAL(onvm_path_end_here(path, 3), 3);
	CHECK_EQUAL(onvm_path_end_here(back, 0), 1);
	CHECK_EQUAL(back->egress, 5);
	CHECK(path->egress >= ONVM_PORTS_MAX);
}

static void
test_all_choose_the_same_substitute(void)
{
	uint16_t numbers[ONVM_SPAN_MAX], others[ONVM_SPAN_MAX];

	begin(6);
	for (uint16_t n = 0; n < 300; n++) {
		/* What was chosen at host 0 before number 2000 ended. */
		const uint16_t before[ONVM_SPAN_MAX] = {(uint16_t)(1000 + n % 6), 2000,
							(uint16_t)(3000 + n / 6 % 6)};

		for (uint32_t i = 0; i < NB_HOSTS; i++)
			onvm_span_path(&views[i].steering, CHAIN, before, 0);
	}
	end_everywhere(2000);
	for (uint16_t n = 0; n < 36; n++) {
		const uint16_t before[ONVM_SPAN_MAX] = {(uint16_t)(1000 + n % 6), 2000,
							(uint16_t)(3000 + n / 6)};

		for (uint32_t i = 0; i < NB_HOSTS; i++) {
			struct onvm_steering *steering = &views[i].steering;
			const uint16_t path = onvm_span_path(steering, CHAIN, before, n);

			CHECK(path != 0);
			onvm_span_numbers(steering, &steering->paths[path], others);
			CHECK(others[1] != 2000 && others[1] != 0);
			if (i == 0)
				memcpy(numbers, others, sizeof(numbers));
			CHECK(memcmp(numbers, others, sizeof(numbers)) == 0);
		}
	}
}

/** Successors of retired paths are what packets that still name the dead number lead to. */
static void
test_successor_is_the_substitute(void)
{
	const uint16_t before[ONVM_SPAN_MAX] = {1003, 2000, 3001};
	uint16_t numbers[ONVM_SPAN_MAX], others[ONVM_SPAN_MAX], old[NB_HOSTS];

	begin(6);
	for (uint32_t i = 0; i < NB_HOSTS; i++)
		old[i] = onvm_span_path(&views[i].steering, CHAIN, before, 0);
	end_everywhere(2000);
	for (uint32_t i = 0; i < NB_HOSTS; i++) {
		struct onvm_steering *steering = &views[i].steering;
		const uint16_t now = onvm_steering_resolve(steering, old[i]);

		CHECK(now != 0 && now != old[i]);
		onvm_span_numbers(steering, &steering->paths[now], numbers);
		onvm_span_numbers(steering,
				  &steering->paths[onvm_span_path(steering, CHAIN, before, 0)],
				  others);
		CHECK(memcmp(numbers, others, sizeof(numbers)) == 0);
	}
}

/** Packets that name an NF host whose state has moved go where the state is. */
static void
test_successor_replaces_the_host_that_has_ended(void)
{
	const uint16_t before[ONVM_SPAN_MAX] = {1003, 2000, 3001};
	uint16_t numbers[ONVM_SPAN_MAX];

	for (uint16_t successor = 2001; successor < 2006; successor++) {
		begin(6);
		for (uint32_t i = 0; i < NB_HOSTS; i++) {
			/* From hand to hand. */
			views[i].steering.successors[2000] = successor == 2001 ? 2002 : 2001;
			views[i].steering.successors[successor == 2001 ? 2002 : 2001] = successor;
		}
		end_everywhere(2000);
		end_everywhere(successor == 2001 ? 2002 : 2001);
		for (uint32_t i = 0; i < NB_HOSTS; i++) {
			struct onvm_steering *steering = &views[i].steering;
			const uint16_t path = onvm_span_path(steering, CHAIN, before, 0);

			onvm_span_numbers(steering, &steering->paths[path], numbers);
			CHECK_EQUAL(numbers[1], successor);
		}
	}
	/* A circle is left in the end. */
	for (uint32_t i = 0; i < NB_HOSTS; i++) {
		views[i].steering.successors[2000] = 2001;
		views[i].steering.successors[2001] = 2000;
		CHECK(onvm_span_path(&views[i].steering, CHAIN, before, 0) != 0);
	}
}

static void
test_number_that_was_never_known_is_waited_for(void)
{
	const uint16_t numbers[ONVM_SPAN_MAX] = {1000, 9000, 3000};
	struct onvm_steering *steering = &views[0].steering;

	begin(2);
	CHECK_EQUAL(onvm_span_path(steering, CHAIN, numbers, 0), 0);
	CHECK(steering->unknown_since_s[9000] != 0);
	CHECK_EQUAL(onvm_span_path(steering, CHAIN, numbers, 0), 0);
	/* As if some seconds had passed. */
	steering->unknown_since_s[9000] -= ONVM_UNKNOWN_S + 1;
	CHECK(onvm_span_path(steering, CHAIN, numbers, 0) != 0);
}

static void
test_stand_ins_are_shared_out(void)
{
	uint32_t nb_of[8] = {0};

	begin(8);
	for (uint16_t n = 0; n < 4000; n++) {
		const uint16_t numbers[ONVM_SPAN_MAX] = {(uint16_t)(9000 + n), 9999, 9999};
		const struct onvm_choice *choice =
			&views[0].steering.chains[1].candidates->choices[1];
		const uint16_t slot = onvm_span_substitute(&views[0].steering, choice,
							   onvm_span_seed(numbers), 0);

		nb_of[views[0].steering.hosts[slot].number - 2000]++;
	}
	for (int i = 0; i < 8; i++)
		CHECK(nb_of[i] > 400 && nb_of[i] < 600);
}

static void
test_chain_of_one_host_stays_there(void)
{
	begin(1);
	views[0].steering.chains[1].number = 0;
	views[0].steering.chains[1].near_port = 5;
	views[0].steering.chains[1].far_port = 6;
	rebuild();
	CHECK_EQUAL(choose(0), 0); /* services 1 and 2 are at peers only */
}

static void
test_unknown_chain_has_no_path(void)
{
	const uint16_t numbers[ONVM_SPAN_MAX] = {1000, 2000, 3000};

	begin(1);
	CHECK_EQUAL(onvm_span_path(&views[1].steering, CHAIN + 1, numbers, 0), 0);
	CHECK_EQUAL(onvm_span_path(&views[1].steering, 0, numbers, 0), 0);
}

static void
test_peers_hand_over_where_they_are_before(void)
{
	struct onvm_steering *steering = &views[2].steering;
	const struct onvm_path *path, *back;

	/* Seen from host 2: in at peer 1; service 1 at peer 2, 2 here, 3 at peer 1; out here. */
	begin(1);
	path = &steering->paths[choose(2)];
	back = &steering->paths[path->opposite];
	CHECK(onvm_span_may_hand_over(steering, path, 1, 1)); /* where the path begins */
	CHECK(onvm_span_may_hand_over(steering, path, 1, 2)); /* the hop before */
	CHECK(onvm_span_may_hand_over(steering, path, 3, 2)); /* an NF may skip services */
	CHECK(!onvm_span_may_hand_over(steering, path, 1, 3));
	CHECK(!onvm_span_may_hand_over(steering, path, 3, 3));
	CHECK(onvm_span_may_hand_over(steering, back, 1, 1));
	CHECK(!onvm_span_may_hand_over(steering, back, 1, 2)); /* it is behind */
	CHECK(!onvm_span_may_hand_over(steering, back, 0, 2));
	/* One whose NF host of the service has just ended forwards what came too late. */
	add_everywhere(1, 77, 2);
	steering->hosts[steering->slots[77]].state = ONVM_HOST_FREE;
	CHECK(onvm_span_may_hand_over(steering, back, 1, 2));
	CHECK(!onvm_span_may_hand_over(steering, back, 0, 2));
}

/** A flow keeps the NF hosts whose services the new chain has, and all choose the same others. */
static void
test_flows_go_on_in_the_chain_that_follows(void)
{
	const uint16_t before[ONVM_SPAN_MAX] = {1003, 2001, 3004};
	uint16_t numbers[ONVM_SPAN_MAX], others[ONVM_SPAN_MAX];

	begin(6);
	for (uint16_t service = 4, k = 0; k < 6; k++)
		add_everywhere(k % NB_HOSTS, (uint16_t)(service * 1000 + k), service);
	for (uint32_t i = 0; i < NB_HOSTS; i++) {
		struct onvm_steering *steering = &views[i].steering;
		const uint16_t old = onvm_span_path(steering, CHAIN, before, 0);
		const uint16_t services[] = {3, 4, 1};
		uint16_t now;

		steering->chains[2] = steering->chains[1];
		steering->chains[2].number = CHAIN + 1;
		memcpy(steering->chains[2].services, services, sizeof(services));
		steering->chains[2].candidates = onvm_steering_candidates(steering, 2);
		CHECK(onvm_steering_succeed_chain(steering, 1, 2) != 0);
		now = onvm_steering_resolve(steering, old);
		CHECK_EQUAL(steering->paths[now].spi >> 1, CHAIN + 1);
		CHECK_EQUAL(onvm_steering_resolve(steering, steering->paths[old].opposite),
			    steering->paths[now].opposite);
		onvm_span_numbers(steering, &steering->paths[now], numbers);
		CHECK_EQUAL(numbers[0], 3004);
		CHECK(numbers[1] >= 4000 && numbers[1] < 4006);
		CHECK_EQUAL(numbers[2], 1003);
		if (i == 0)
			memcpy(others, numbers, sizeof(others));
		CHECK(memcmp(numbers, others, sizeof(others)) == 0);
		/* Packets that are on their way still find the former chain. */
		CHECK_EQUAL(steering->paths[onvm_span_path(steering, CHAIN, before, 0)].chain, 1);
		/* Flows choose again where the ports are others. */
		steering->chains[1].near_port = 7;
		CHECK(onvm_steering_succeed_chain(steering, 2, 1) != 0);
		CHECK_EQUAL(onvm_steering_resolve(steering, now), 0);
	}
}

int
main(void)
{
	RUN(test_paths_mean_the_same_everywhere);
	RUN(test_places_end_where_the_path_leaves);
	RUN(test_all_choose_the_same_substitute);
	RUN(test_successor_is_the_substitute);
	RUN(test_successor_replaces_the_host_that_has_ended);
	RUN(test_number_that_was_never_known_is_waited_for);
	RUN(test_stand_ins_are_shared_out);
	RUN(test_chain_of_one_host_stays_there);
	RUN(test_unknown_chain_has_no_path);
	RUN(test_peers_hand_over_where_they_are_before);
	RUN(test_flows_go_on_in_the_chain_that_follows);
	for (uint32_t i = 0; i < NB_HOSTS; i++)
		onvm_steering_fini(&views[i].steering);
	return 0;
}
