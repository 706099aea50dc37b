/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: the tables of NFs, under sanitizers; that DPDK's answers are right is tests/tables'
 * subject.
 *  - one look-up is the bulk's: ACL and LPM of both IP versions, at random
 *  - a tuple of another IP version matches no rule
 *  - slots are below the capacity and flows keep what is theirs, in tables of every size and key
 *  - adding in bulk is adding one by one
 *  - a plain table keeps the values of its flows, and a new flow finds zeros
 *  - flows that may give way do so in the order in which they were said to, and no others
 *  - keys that collide under CRC meet as few others as random ones, with either keyed hash
 *  - SipHash-1-3 is that of Python (PYTHONHASHSEED=0 python3 -c 'print(hash(bytes(range(16))))')
 */
#include <onvm/tables.h>

#include <errno.h>
#include <string.h>

#include <rte_hash_crc.h>

#include <onvm/checksum.h>
#include <onvm/keyed_hash.h>

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

static void
test_plain_tables_keep_values(uint32_t capacity)
{
	struct onvm_flow_table *table = onvm_flow_table_create_plain(capacity, 16, 32);
	uint32_t key[4] = {0}, *value;

	CHECK(table != NULL);
	CHECK(onvm_flow_table_create_plain(capacity, 16, 3) == NULL);
	for (uint32_t round = 1; round < 4; round++) {
		for (key[0] = 0; key[0] < capacity; key[0]++) {
			const int32_t slot = onvm_flow_table_add(table, key, round);

			CHECK(slot >= 0 && (uint32_t)slot < capacity);
			value = onvm_flow_value(table, slot);
			CHECK_EQUAL(value[0], 0);
			value[0] = value[7] = key[0] * round + 1;
		}
		CHECK_EQUAL(onvm_flow_table_add(table, key, round), -ENOSPC);
		for (key[0] = 0; key[0] < capacity; key[0]++) {
			const int32_t slot = onvm_flow_table_lookup(table, key);

			value = onvm_flow_value(table, slot);
			CHECK_EQUAL(value[0], key[0] * round + 1);
			CHECK_EQUAL(value[7], key[0] * round + 1);
			CHECK_EQUAL(onvm_flow_table_delete_slot(table, slot), 0);
			CHECK_EQUAL(onvm_flow_table_delete_slot(table, slot), -ENOENT);
		}
		CHECK_EQUAL(onvm_flow_table_next(table, 0), -ENOENT);
	}
	onvm_flow_table_free(table);
}

static void
test_flows_give_way_in_order(void)
{
	struct onvm_flow_table *table = onvm_flow_table_create(NB, 4, 0);
	uint32_t nb_left = 0;

	CHECK(table != NULL);
	for (uint32_t key = 0; key < NB; key++)
		CHECK(onvm_flow_table_add(table, &key, 1) >= 0);
	for (uint32_t i = 0; i < NB; i++) {
		const uint32_t key = i * 7 % NB;

		onvm_flow_table_set_evictable(table, onvm_flow_table_lookup(table, &key), true);
		onvm_flow_table_set_evictable(table, onvm_flow_table_lookup(table, &key), true);
	}
	for (uint32_t key = 0; key < NB; key += 3) /* one is kept, one goes otherwise */
		onvm_flow_table_set_evictable(table, onvm_flow_table_lookup(table, &key), false);
	for (uint32_t key = 1; key < NB; key += 3)
		CHECK_EQUAL(onvm_flow_table_delete(table, &key), 0);
	for (uint32_t i = 0; i < NB; i++) {
		const uint32_t key = i * 7 % NB;

		if (key % 3 != 2) {
			nb_left += key % 3 == 0;
			continue;
		}
		CHECK(onvm_flow_table_lookup(table, &key) >= 0);
		CHECK_EQUAL(onvm_flow_table_evict(table, NULL, NULL), 0);
		CHECK_EQUAL(onvm_flow_table_lookup(table, &key), -ENOENT);
	}
	CHECK_EQUAL(onvm_flow_table_evict(table, NULL, NULL), -ENOENT);
	CHECK_EQUAL(onvm_flow_table_count(table), nb_left);
	onvm_flow_table_free(table);
}

#define NB_KEYS 20000u
#define NB_BUCKETS 4096u /* of 8 entries, as a table for as many flows has them */

typedef uint32_t (*hash_function)(const void *data, uint32_t bytes, uint32_t tweak);

/** Keys that a look-up meets, summed up over a look-up of each. */
static uint64_t
nb_probes(const uint64_t (*keys)[2], hash_function hash)
{
	static uint32_t nb_in[NB_BUCKETS];
	uint64_t sum = 0;

	memset(nb_in, 0, sizeof(nb_in));
	for (uint32_t i = 0; i < NB_KEYS; i++)
		nb_in[hash(keys[i], 16, 0) % NB_BUCKETS]++;
	for (uint32_t i = 0; i < NB_BUCKETS; i++)
		sum += (uint64_t)nb_in[i] * nb_in[i];
	return sum;
}

static uint32_t
crc(const void *data, uint32_t bytes, uint32_t tweak)
{
	return rte_hash_crc(data, bytes, tweak);
}

static void
test_keys_that_collide_under_crc(void)
{
	static uint64_t colliding[NB_KEYS][2], random[NB_KEYS][2];

	for (uint32_t i = 0; i < NB_KEYS; i++) {
		/* the second word takes back what the first has done to the register */
		colliding[i][0] = (uint64_t)i << 20;
		colliding[i][1] = rte_hash_crc(&colliding[i][0], 8, 0);
		fill((uint8_t *)random[i], 16, 0xff);
	}
	CHECK_EQUAL(nb_probes(colliding, crc), (uint64_t)NB_KEYS * NB_KEYS);
	CHECK(nb_probes(colliding, keyed_hash) < 2 * nb_probes(random, keyed_hash));
	CHECK(nb_probes(colliding, keyed_hash_siphash) < 2 * nb_probes(random, keyed_hash_siphash));
}

static void
test_siphash(void)
{
	struct keyed_hash_secret kept = keyed_hash_secret;
	uint8_t data[48];

	for (uint32_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	memset(&keyed_hash_secret, 0, sizeof(keyed_hash_secret));
	CHECK_EQUAL(keyed_hash_siphash(data, 16, 0), 0xbad7dd33u);
	CHECK_EQUAL(keyed_hash_siphash(data, 48, 0), 0x444f073au);
	keyed_hash_secret = kept;
}

static void
test_tables_differ(void)
{
	static const uint8_t key[16];
	struct onvm_flow_table *one = onvm_flow_table_create(8, 16, 0);
	struct onvm_flow_table *other = onvm_flow_table_create(8, 16, 0);

	CHECK(one != NULL && other != NULL);
	CHECK(onvm_flow_table_hash(one, key) != onvm_flow_table_hash(other, key));
	onvm_flow_table_free(one);
	onvm_flow_table_free(other);
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
	test_plain_tables_keep_values(1);
	test_plain_tables_keep_values(20000); /* with memory of its own */
	RUN(test_flows_give_way_in_order);
	RUN(test_keys_that_collide_under_crc);
	RUN(test_siphash);
	RUN(test_tables_differ);
	return 0;
}
