/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: chains, hosts and paths without workers: what is found again and what is made; retirement
 * and successors; fused hosts; a host that serves several positions; shares of flows by weight;
 * a draining host takes what it has claimed, and leaves all to its successor;
 * recycling: what is marked waits with all it leads to, 100,000 deaths do not use up the paths;
 * rows: 1,000 NF hosts in a chain of five without a drop, all in use, shares by spare capacity, the
 * same ones everywhere, few for claims; a full table leaves what is there to new flows;
 * live paths without flows: those that something names stay.
 */
#include "steering/candidates.h"

#include <string.h>

#include "steering/choose.h"
#include "steering/idle.h"
#include "steering/recycle.h"
#include "steering/retire.h"
#include "steering/rows.h"
#include "test.h"

static struct onvm_steering steering;
static struct onvm_selector selector;

static void
set_host(uint16_t slot, uint8_t nb_stages, const uint16_t *services)
{
	struct onvm_host *host = &steering.hosts[slot];

	host->state = ONVM_HOST_ACTIVE;
	host->nb_stages = nb_stages;
	memset(host->services, 0, sizeof(host->services));
	memcpy(host->services, services, nb_stages * sizeof(*services));
}

static void
set_chain(uint8_t nb_services)
{
	struct onvm_chain *chain = &steering.chains[1];

	chain->is_used = chain->is_bidirectional = true;
	chain->nb_services = nb_services;
	for (uint8_t i = 0; i < nb_services; i++)
		chain->services[i] = (uint16_t)(i + 1);
	chain->near_port = 3;
	chain->far_port = 4;
}

/** What the control thread does after a change. */
static void
rebuild(void)
{
	struct onvm_candidates *old = steering.chains[1].candidates;

	steering.chains[1].candidates = onvm_steering_candidates(&steering, 1);
	CHECK(steering.chains[1].candidates != NULL);
	onvm_steering_free_candidates(old);
}

static uint16_t
choose(void)
{
	return onvm_steering_choose(&steering, 1, steering.chains[1].candidates, &selector);
}

static uint16_t
choose_with(uint16_t wished)
{
	const struct onvm_wishes wishes = {.nb = 1, .hosts = {wished}};

	return onvm_steering_choose_with(&steering, 1, steering.chains[1].candidates, &selector,
					 &wishes);
}

static void
kill_host(uint16_t slot)
{
	steering.hosts[slot].state = ONVM_HOST_DEAD;
	rebuild();
	onvm_steering_retire_host(&steering, slot, 0);
	steering.hosts[slot].state = ONVM_HOST_FREE;
	steering.hosts[slot].generation++;
}

/** A whole round of recycling in which the packets on path @p marked are seen. */
static uint32_t
recycle(uint16_t marked)
{
	onvm_steering_unlink_retired(&steering);
	if (marked != 0)
		onvm_steering_mark(&steering, marked);
	onvm_steering_hold_marked(&steering);
	return onvm_steering_free_leaving(&steering);
}

static void
begin(uint8_t nb_services)
{
	onvm_steering_fini(&steering);
	memset(&selector, 0, sizeof(selector));
	CHECK_EQUAL(onvm_steering_init(&steering), 0);
	set_chain(nb_services);
	for (uint16_t i = 1; i <= nb_services; i++)
		set_host(i, 1, &i);
	rebuild();
}

static void
test_paths_are_found_again_with_their_reverse(void)
{
	const struct onvm_path *path, *back;
	uint16_t index;

	begin(3);
	index = choose();
	path = &steering.paths[index];
	back = &steering.paths[path->opposite];
	CHECK(index != 0 && choose() == index);
	CHECK_EQUAL(steering.chains[1].candidates->single_path, index);
	CHECK_EQUAL(onvm_steering_nb_paths(&steering), 2);
	CHECK_EQUAL(path->nb_hops, 3);
	CHECK_EQUAL(path->egress, 4);
	CHECK_EQUAL(back->egress, 3);
	CHECK_EQUAL(back->opposite, index);
	CHECK(back->is_reverse && back->spi != path->spi);
	for (int i = 0; i < 3; i++)
		CHECK_EQUAL(path->hops[i].host, back->hops[2 - i].host);
}

static void
test_draining_host_takes_only_what_it_has_claimed(void)
{
	const struct onvm_candidates *candidates;
	uint16_t path;

	begin(1);
	set_host(2, 1, &(uint16_t){1});
	set_host(3, 1, &(uint16_t){1});
	steering.hosts[2].state = ONVM_HOST_DRAINING;
	rebuild();
	candidates = steering.chains[1].candidates;
	CHECK_EQUAL(candidates->choices[0].nb_hosts, 2);
	for (int i = 0; i < 20; i++)
		CHECK(steering.paths[choose()].hops[0].host != 2);
	path = choose_with(2);
	CHECK_EQUAL(steering.paths[path].hops[0].host, 2);
	steering.hosts[1].state = steering.hosts[3].state = ONVM_HOST_LEAVING;
	rebuild();
	candidates = steering.chains[1].candidates;
	CHECK_EQUAL(choose(), 0);
	path = choose_with(2);
	CHECK_EQUAL(steering.paths[path].hops[0].host, 2);
}

static void
test_all_flows_of_a_leaving_host_go_to_its_heir(void)
{
	uint16_t paths[2];

	begin(2);
	set_host(3, 1, &(uint16_t){1});
	set_host(4, 1, &(uint16_t){1});
	set_host(5, 1, &(uint16_t){2});
	rebuild();
	for (uint16_t i = 0; i < 2; i++) { /* host 1 with either host of the second service */
		steering.hosts[i == 0 ? 5 : 2].state = ONVM_HOST_DRAINING;
		rebuild();
		paths[i] = choose_with(1);
		steering.hosts[i == 0 ? 5 : 2].state = ONVM_HOST_ACTIVE;
	}
	rebuild();
	CHECK(paths[0] != paths[1]);
	steering.hosts[1].state = ONVM_HOST_LEAVING;
	rebuild();
	CHECK_EQUAL(onvm_steering_retire_host(&steering, 1, 4), 2);
	for (uint16_t i = 0; i < 2; i++) {
		const struct onvm_path *old = &steering.paths[paths[i]];
		const struct onvm_path *now =
			&steering.paths[onvm_steering_resolve(&steering, paths[i])];

		CHECK_EQUAL(now->hops[0].host, 4);
		CHECK_EQUAL(now->hops[1].host, old->hops[1].host);
	}
}

static void
test_chain_without_instance_has_no_path(void)
{
	begin(2);
	kill_host(2);
	CHECK_EQUAL(choose(), 0);
	CHECK_EQUAL(steering.chains[1].candidates->default_path, 0);
}

static void
test_fused_host_covers_its_positions(void)
{
	const uint16_t fused[] = {2, 3};
	uint16_t index;

	begin(3);
	kill_host(2);
	kill_host(3);
	set_host(7, 2, fused);
	rebuild();
	index = choose();
	CHECK_EQUAL(steering.paths[index].nb_hops, 2);
	CHECK_EQUAL(steering.paths[index].hops[1].host, 7);
	CHECK_EQUAL(steering.paths[index].hops[1].nb_services, 2);
	CHECK_EQUAL(steering.paths[index].nb_services, 3);
	/* The rest of the chain after position 1 has no host for service 3 alone. */
	kill_host(7);
	set_host(8, 1, fused);
	rebuild();
	CHECK_EQUAL(choose(), 0);
}

static void
test_host_that_serves_two_positions_is_counted_twice(void)
{
	begin(3);
	steering.chains[1].services[2] = 1;
	rebuild();
	CHECK_EQUAL(steering.paths[choose()].nb_visits, 2);
}

static void
test_retired_path_leads_to_its_successor(void)
{
	const uint16_t service = 2;
	uint16_t first, second, third;

	begin(3);
	first = choose();
	set_host(9, 1, &service);
	rebuild();
	kill_host(2);
	second = onvm_steering_resolve(&steering, first);
	CHECK(second != first);
	CHECK_EQUAL(steering.paths[second].hops[1].host, 9);
	CHECK_EQUAL(onvm_steering_resolve(&steering, steering.paths[first].opposite),
		    steering.paths[second].opposite);
	set_host(2, 1, &service); /* the slot again, for another host */
	rebuild();
	kill_host(9);
	third = onvm_steering_resolve(&steering, first);
	CHECK(third != first && third != second);
	CHECK_EQUAL(steering.paths[third].hops[1].host, 2);
	CHECK_EQUAL(steering.paths[third].hops[1].generation, 1);
}

static void
test_change_of_services_retires_only_other_paths(void)
{
	uint16_t index;

	begin(3);
	index = choose();
	CHECK_EQUAL(onvm_steering_retire_chain(&steering, 1), 0);
	set_chain(2);
	rebuild();
	CHECK_EQUAL(onvm_steering_retire_chain(&steering, 1), 1);
	CHECK_EQUAL(onvm_steering_resolve(&steering, index), 0);
	CHECK_EQUAL(steering.paths[choose()].nb_hops, 2);
}

static void
test_flows_are_shared_by_spare_capacity(void)
{
	const uint16_t service = 1;
	uint32_t nb[3] = {0};

	begin(1);
	set_host(2, 1, &service);
	rebuild();
	steering.hosts[1].spare_pps = 2999999;
	steering.hosts[2].spare_pps = 999999;
	for (int i = 0; i < 4000; i++)
		nb[steering.paths[choose()].hops[0].host]++;
	CHECK(nb[1] >= 2999 && nb[1] <= 3001);
	/* Weights fall to nothing: both must be chosen soon and equally. */
	steering.hosts[1].spare_pps = steering.hosts[2].spare_pps = 0;
	nb[1] = nb[2] = 0;
	for (int i = 0; i < 100; i++)
		nb[steering.paths[choose()].hops[0].host]++;
	CHECK(nb[1] >= 45 && nb[2] >= 45);
}

static void
test_marked_paths_wait_with_all_they_lead_to(void)
{
	const uint16_t service = 1;
	uint16_t first, second;

	begin(1);
	first = choose();
	set_host(2, 1, &service);
	rebuild();
	kill_host(1);
	second = onvm_steering_resolve(&steering, first);
	set_host(3, 1, &service);
	rebuild();
	kill_host(2);
	CHECK_EQUAL(recycle(steering.paths[first].opposite), 0);
	CHECK_EQUAL(steering.paths[onvm_steering_resolve(&steering, first)].hops[0].host, 3);
	CHECK_EQUAL(recycle(second), 2); /* nothing leads from the second to the first */
	CHECK_EQUAL(steering.paths[first].state, ONVM_PATH_FREE);
	CHECK_EQUAL(recycle(0), 2);
	CHECK_EQUAL(onvm_steering_nb_paths(&steering), 2);
	CHECK_EQUAL(steering.nb_retired, 0);
}

static void
test_paths_are_not_used_up(void)
{
	const uint16_t service = 2;

	begin(3);
	for (uint32_t i = 0; i < 100000; i++) {
		set_host(9, 1, &service);
		rebuild();
		kill_host(i % 2 == 0 ? 2 : 9);
		if (i % 2 != 0)
			set_host(2, 1, &service);
		else
			kill_host(9), set_host(2, 1, &service);
		rebuild();
		CHECK(choose() != 0);
		if (i % 100 == 0)
			recycle(0);
	}
	recycle(0);
	CHECK_EQUAL(onvm_steering_nb_paths(&steering), 2);
	CHECK(steering.nb_paths < 2000);
}

/** @p nb NF hosts for each of @p nb_services services, with slots and numbers from 300 on. */
static void
begin_with_many(uint8_t nb_services, uint16_t nb)
{
	begin(nb_services);
	for (uint16_t i = 1; i <= nb_services; i++)
		steering.hosts[i].state = ONVM_HOST_FREE;
	steering.nb_slots = (uint32_t)(300 + nb_services * nb);
	steering.chains[1].number = 1;
	for (uint16_t i = 0; i < nb_services * nb; i++) {
		set_host((uint16_t)(300 + i), 1, &(uint16_t){(uint16_t)(1 + i / nb)});
		steering.hosts[300 + i].peer = 1;
		steering.hosts[300 + i].number = (uint16_t)(300 + i);
		steering.hosts[300 + i].spare_pps = 1000;
	}
	rebuild();
}

static uint32_t flows_of[ONVM_SLOTS_MAX];

/** Choose for so many flows; none may be without a path. */
static void
choose_many(uint32_t nb)
{
	memset(flows_of, 0, sizeof(flows_of));
	for (uint32_t i = 0; i < nb; i++) {
		const struct onvm_path *path = &steering.paths[choose()];

		CHECK(path->nb_hops != 0);
		for (uint32_t hop = 0; hop < path->nb_hops; hop++)
			flows_of[path->hops[hop].host]++;
	}
}

static void
test_thousand_hosts_in_a_chain_of_five_drop_nothing(void)
{
	begin_with_many(5, 200);
	choose_many(400000);
	for (uint32_t host = 300; host < 1300; host++)
		CHECK(flows_of[host] > 1900 && flows_of[host] < 2100);
	CHECK(onvm_steering_nb_paths(&steering) <= 2 * ONVM_ROWS_MAX);
}

static void
test_few_combinations_are_all_chosen(void)
{
	begin_with_many(3, 20);
	CHECK_EQUAL(steering.chains[1].candidates->nb_rows, 0);
	begin_with_many(5, 9);
	CHECK(steering.chains[1].candidates->nb_rows != 0);
	choose_many(400000);
}

static void
test_rows_follow_spare_capacity(void)
{
	begin_with_many(5, 40);
	for (uint32_t host = 340; host < 350; host++)
		steering.hosts[host].spare_pps = 4000;
	steering.hosts[379].spare_pps = 0;
	choose_many(200000);
	for (uint32_t host = 340; host < 379; host++) {
		const uint32_t fair = 200000 / 69 * (host < 350 ? 4 : 1);

		CHECK(flows_of[host] > fair * 9 / 10 && flows_of[host] < fair * 11 / 10);
	}
	CHECK(flows_of[379] < 2000);
}

static void
test_rows_are_the_same_on_all_hosts(void)
{
	uint16_t rows[1024];
	const struct onvm_candidates *candidates;

	begin_with_many(5, 9);
	candidates = steering.chains[1].candidates;
	CHECK(candidates->nb_rows <= RTE_DIM(rows));
	for (uint32_t i = 0; i < candidates->nb_rows; i++)
		rows[i] = steering.hosts[candidates->rows[i]].number;
	/* Elsewhere, the same numbers have other slots. */
	for (uint32_t i = 0; i < 9; i++)
		steering.hosts[300 + i].number = (uint16_t)(308 - i);
	rebuild();
	candidates = steering.chains[1].candidates;
	for (uint32_t i = 0; i < candidates->nb_rows; i++)
		CHECK_EQUAL(steering.hosts[candidates->rows[i]].number, rows[i]);
}

/** Paths by hash: equal hashes get the same one, and all hosts are used. */
static void
check_paths_by_hash(uint32_t nb_hashes)
{
	static uint32_t nb_of[ONVM_SLOTS_MAX];
	const struct onvm_candidates *candidates = steering.chains[1].candidates;
	const struct onvm_choice *choice = &candidates->choices[0];

	memset(nb_of, 0, sizeof(nb_of));
	for (uint64_t hash = 0; hash < nb_hashes; hash++) {
		const uint16_t path =
			onvm_steering_choose_by_hash(&steering, 1, candidates, NULL, hash);

		CHECK(path != 0);
		CHECK_EQUAL(onvm_steering_choose_by_hash(&steering, 1, candidates, NULL, hash),
			    path);
		nb_of[steering.paths[path].hops[0].host]++;
	}
	for (uint32_t i = 0; i < choice->nb_hosts; i++)
		CHECK(nb_of[choice->hosts[i]] > nb_hashes / choice->nb_hosts / 2);
}

static uint16_t
host_by_hash(uint64_t hash, const struct onvm_wishes *wishes)
{
	const uint16_t path = onvm_steering_choose_by_hash(&steering, 1,
							   steering.chains[1].candidates, wishes,
							   hash);

	return steering.paths[path].hops[0].host;
}

static void
test_hash_decides_alike(void)
{
	const struct onvm_wishes wishes = {.nb = 1, .hosts = {3}};
	uint16_t before[200];
	uint32_t nb_moved = 0;

	begin(2);
	set_host(3, 1, &(uint16_t){1});
	set_host(4, 1, &(uint16_t){1});
	rebuild();
	check_paths_by_hash(1000);
	for (uint64_t hash = 0; hash < 200; hash++) {
		CHECK_EQUAL(host_by_hash(hash, &wishes), 3);
		before[hash] = host_by_hash(hash, NULL);
	}
	/* Flows of others stay where they are when one leaves. */
	steering.hosts[4].state = ONVM_HOST_DRAINING;
	rebuild();
	for (uint64_t hash = 0; hash < 200; hash++) {
		CHECK(before[hash] == 4 || host_by_hash(hash, NULL) == before[hash]);
		nb_moved += before[hash] == 4;
	}
	CHECK(nb_moved > 30);
	begin_with_many(5, 9);
	check_paths_by_hash(1000);
}

static void
test_claims_use_few_rows(void)
{
	begin_with_many(5, 9);
	for (uint32_t i = 0; i < 10000; i++) {
		const uint16_t path = choose_with(310);

		CHECK_EQUAL(steering.paths[path].hops[1].host, 310);
	}
	CHECK(onvm_steering_nb_paths(&steering) <= 2 * (16 + 2));
}

static void
test_full_table_leaves_its_paths_to_new_flows(void)
{
	begin_with_many(5, 9);
	choose_many(100);
	steering.nb_paths = ONVM_PATHS_MAX;
	CHECK(onvm_steering_is_full(&steering));
	choose_many(20000);
}

static void
test_idle_paths_are_used_again(void)
{
	uint16_t named, passed;
	uint32_t nb;

	begin_with_many(5, 9);
	choose_many(20000);
	nb = onvm_steering_nb_paths(&steering);
	named = choose();
	passed = choose();
	while (passed == named || passed == steering.chains[1].candidates->default_path)
		passed = choose();
	/* A flow names the one, a packet is on its way back on the other. */
	CHECK(onvm_idle_unlink(&steering, UINT32_MAX) > 1000);
	onvm_steering_mark(&steering, named);
	onvm_steering_mark(&steering, steering.paths[passed].opposite);
	CHECK(choose() != 0); /* one that was unlinked is made again */
	CHECK(onvm_idle_free(&steering) >= nb - 8);
	CHECK_EQUAL(steering.paths[named].state, ONVM_PATH_LIVE);
	CHECK_EQUAL(steering.paths[passed].state, ONVM_PATH_LIVE);
	CHECK_EQUAL(steering.paths[steering.paths[passed].opposite].state, ONVM_PATH_LIVE);
	CHECK_EQUAL(steering.paths[steering.chains[1].candidates->default_path].state,
		    ONVM_PATH_LIVE);
	choose_many(20000);
	CHECK(onvm_steering_nb_paths(&steering) <= nb + 8);
	/* Those that were linked again are retired with their host, and found no more. */
	kill_host(steering.paths[named].hops[0].host);
	CHECK_EQUAL(steering.paths[named].state, ONVM_PATH_RETIRED);
	onvm_idle_unlink(&steering, UINT32_MAX);
	onvm_idle_free(&steering);
	CHECK_EQUAL(steering.paths[steering.paths[named].successor].state, ONVM_PATH_LIVE);
}

int
main(void)
{
	RUN(test_paths_are_found_again_with_their_reverse);
	RUN(test_draining_host_takes_only_what_it_has_claimed);
	RUN(test_all_flows_of_a_leaving_host_go_to_its_heir);
	RUN(test_chain_without_instance_has_no_path);
	RUN(test_fused_host_covers_its_positions);
	RUN(test_host_that_serves_two_positions_is_counted_twice);
	RUN(test_retired_path_leads_to_its_successor);
	RUN(test_change_of_services_retires_only_other_paths);
	RUN(test_flows_are_shared_by_spare_capacity);
	RUN(test_marked_paths_wait_with_all_they_lead_to);
	RUN(test_paths_are_not_used_up);
	RUN(test_thousand_hosts_in_a_chain_of_five_drop_nothing);
	RUN(test_few_combinations_are_all_chosen);
	RUN(test_rows_follow_spare_capacity);
	RUN(test_rows_are_the_same_on_all_hosts);
	RUN(test_hash_decides_alike);
	RUN(test_claims_use_few_rows);
	RUN(test_full_table_leaves_its_paths_to_new_flows);
	RUN(test_idle_paths_are_used_again);
	onvm_steering_fini(&steering);
	return 0;
}
