/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: the tables of NFs, under sanitizers; that DPDK's answers are right is tests/tables'
 * subject.
 *  - one look-up is the bulk's: ACL and LPM of both IP versions, at random
 *  - a tuple of another IP version matches no rule
 *  - slots are below the capacity and flows keep what is theirs, in tables of every size and key
 *  - adding in bulk is adding one by one
 */
#include <onvm/tables.h>

#include <errno.h>
#include <string.h>

#include <onvm/checksum.h>

#include "test.h"

#define NB 200u

static uint64_t seed;

static void
fill(uint8_t *bytes, uint32_t nb, uint8_t mask)
{
	for (uint32_t i = 0; i < nb; i++)
		bytes[i] = (uint8_t)(test_random(&seed) & mask);
}

static void
test_one_tuple_is_found_as_many_are(uint8_t version)
{
	struct onvm_acl_rule rules[NB];
	struct onvm_tuple tuples[NB];
	uint32_t values[NB], nb_found = 0;
	struct onvm_acl *acl;

	for (uint32_t i = 0; i < NB; i++) {
		rules[i] = (struct onvm_acl_rule){.dst_prefix = 9,
						  .src_port_last = UINT16_MAX,
						  .dst_port_last = UINT16_MAX,
						  .priority = (int32_t)i + 1,
						  .value = i + 1};
		fill(rules[i].dst, 2, 0xff);
		tuples[i] = (struct onvm_tuple){.ip_version = i % 5 == 0 ? 10 - version : version};
		fill(tuples[i].dst, 2, 0xff);
	}
	acl = onvm_acl_create(version, rules, NB);
	CHECK(acl != NULL);
	CHECK_EQUAL(onvm_acl_lookup(acl, tuples, values, NB), 0);
	for (uint32_t i = 0; i < NB; i++) {
		CHECK_EQUAL(onvm_acl_find(acl, &tuples[i]), values[i]);
		CHECK(tuples[i].ip_version == version || values[i] == 0);
		nb_found += values[i] != 0;
	}
	CHECK(nb_found > NB / 10);
	onvm_acl_free(acl);
}

static void
test_one_address_is_found_as_many_are(uint8_t version)
{
	const uint32_t size = version == 4 ? 4 : 16;
	uint8_t addresses[NB][16], packed[NB * 16];
	uint32_t values[NB], nb_found = 0;
	struct onvm_lpm *lpm = onvm_lpm_create(version, NB);

	CHECK(lpm != NULL);
	memset(addresses, 0, sizeof(addresses));
	for (uint32_t i = 0; i < NB; i++) {
		fill(addresses[i], size, 3);
		if (i < NB / 2)
			CHECK_EQUAL(onvm_lpm_add(lpm, addresses[i], (uint8_t)(8 + i % 17), i), 0);
		memcpy(packed + i * size, addresses[i], size);
	}
	CHECK_EQUAL(onvm_lpm_lookup(lpm, packed, values, NB), 0);
	for (uint32_t i = 0; i < NB; i++) {
		const uint8_t *a = addresses[i];
		const uint64_t high = (uint64_t)onvm_load_be32(a) << 32 | onvm_load_be32(a + 4);
		const uint64_t low = (uint64_t)onvm_load_be32(a + 8) << 32 | onvm_load_be32(a + 12);

		CHECK_EQUAL(version == 4 ? onvm_lpm_find4(lpm, onvm_load_be32(a)) :
					   onvm_lpm_find6(lpm, high, low),
			    values[i]);
		/* of the other version there is nothing, and nothing bad happens */
		CHECK_EQUAL(version == 4 ? onvm_lpm_find6(lpm, high, low) :
					   onvm_lpm_find4(lpm, onvm_load_be32(a)),
			    ONVM_TABLE_MISS);
		nb_found += values[i] != ONVM_TABLE_MISS;
	}
	CHECK(nb_found > NB / 4);
	onvm_lpm_free(lpm);
}

static void
test_slots_are_below_the_capacity(uint32_t capacity, uint32_t key_bytes)
{
	struct onvm_flow_table *table = onvm_flow_table_create(capacity, key_bytes, 3);
	uint8_t keys[NB * 64];
	int32_t slots[NB];
	uint32_t nb_full = 0;

	CHECK(table != NULL);
	for (uint32_t round = 0; round < 20; round++) {
		fill(keys, NB * key_bytes, 7);
		onvm_flow_table_add_bulk(table, keys, slots, NB, round);
		for (uint32_t i = 0; i < NB; i++) {
			const uint8_t *key = keys + i * key_bytes;

			CHECK_EQUAL(onvm_flow_table_lookup(table, key),
				    slots[i] < 0 ? -ENOENT : slots[i]);
			if (slots[i] < 0) {
				CHECK_EQUAL(slots[i], -ENOSPC);
				nb_full++;
				continue;
			}
			CHECK((uint32_t)slots[i] < capacity);
			CHECK_EQUAL(onvm_flow_table_add(table, key, round), slots[i]);
			CHECK_EQUAL(memcmp(onvm_flow_table_key(table, slots[i]), key, key_bytes),
				    0);
			CHECK_EQUAL(onvm_flow_table_used_ns(table, slots[i]), round);
			memset(onvm_flow_table_value(table, slots[i]), 0xff, 3);
		}
		CHECK(onvm_flow_table_count(table) <= capacity);
		onvm_flow_table_expire(table, round + 1, 1, test_random(&seed) % (2 * capacity) + 1,
				       NULL, NULL);
	}
	CHECK(nb_full != 0 || capacity >= NB || key_bytes < 3);
	onvm_flow_table_free(table);
}

int
main(void)
{
	static const uint32_t capacities[] = {1, 2, 7, 8, 9, 100};
	static const uint32_t sizes[] = {1, 15, 16, 17, 40, 63, 64};

	seed = test_seed(11);
	test_one_tuple_is_found_as_many_are(4);
	test_one_tuple_is_found_as_many_are(6);
	test_one_address_is_found_as_many_are(4);
	test_one_address_is_found_as_many_are(6);
	for (uint32_t i = 0; i < sizeof(capacities) / sizeof(capacities[0]); i++)
		for (uint32_t j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++)
			test_slots_are_below_the_capacity(capacities[i], sizes[j]);
	return 0;
}
