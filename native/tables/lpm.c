/* SPDX-License-Identifier: Apache-2.0 */
#include <onvm/tables.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_errno.h>
#include <rte_fib.h>
#include <rte_fib6.h>
#include <rte_memory.h>
#include <rte_rib.h>
#include <rte_rib6.h>
#include <rte_version.h>

#include <onvm/checksum.h>

#include "tables_priv.h"

/* Next hops are 31 bits wide: the table keeps one bit of four bytes for itself. */
#define DEFAULT_HOP ((uint64_t)INT32_MAX)
/*
 * A second-level table is 1 KiB. IPv4 takes at most one for a prefix beyond /24, IPv6 up to 14; a
 * route to a /48 under none that is near takes 3. Large tables have room for such routes, if there
 * is memory for it.
 */
#define V4_TBL8_MAX 65536u
#define V6_TBL8_ENOUGH 131072u
#define V6_TBL8_MAX (1u << 21)
#define V6_LEVELS 14u
#define V6_LEVELS_MEAN 3u

/* Sixteen bytes, as DPDK wants to be given them: a type of its own since 24.11. */
#if RTE_VERSION >= RTE_VERSION_NUM(24, 11, 0, 0)
#define IPV6(bytes) ((const struct rte_ipv6_addr *)(bytes))
#else
#define IPV6(bytes) (bytes)
#endif

struct onvm_lpm {
	struct rte_fib *fib;   /* IPv4 */
	struct rte_fib6 *fib6; /* IPv6 */
	/*
	 * The route of length 0, kept here: rte_fib (22.11) takes the end of its range, 2^32, for 0
	 * and leaves or overwrites what lies between longer prefixes.
	 */
	uint32_t default_value;
};

static uint32_t
clamp(uint64_t value, uint32_t low, uint32_t high)
{
	return value < low ? low : value > high ? high : (uint32_t)value;
}

static bool
lpm_create_v4(struct onvm_lpm *lpm, const char *name, uint32_t max_routes)
{
	struct rte_fib_conf conf = {
		.type = RTE_FIB_DIR24_8,
		.default_nh = DEFAULT_HOP,
		.max_routes = (int)max_routes,
		.dir24_8 =
			{
				.nh_sz = RTE_FIB_DIR24_8_4B,
				.num_tbl8 = clamp(max_routes, 256, V4_TBL8_MAX),
			},
	};

	lpm->fib = rte_fib_create(name, SOCKET_ID_ANY, &conf);
	return lpm->fib != NULL;
}

static bool
lpm_create_v6(struct onvm_lpm *lpm, const char *name, uint32_t max_routes)
{
	struct rte_fib6_conf conf = {
		.type = RTE_FIB6_TRIE,
		.default_nh = DEFAULT_HOP,
		.max_routes = (int)max_routes,
		.trie =
			{
				.nh_sz = RTE_FIB6_TRIE_4B,
				.num_tbl8 = clamp((uint64_t)max_routes * V6_LEVELS, 256,
						  clamp((uint64_t)max_routes * V6_LEVELS_MEAN,
							V6_TBL8_ENOUGH, V6_TBL8_MAX)),
			},
	};

	lpm->fib6 = rte_fib6_create(name, SOCKET_ID_ANY, &conf);
	while (lpm->fib6 == NULL && rte_errno == ENOMEM && conf.trie.num_tbl8 > V6_TBL8_ENOUGH) {
		conf.trie.num_tbl8 = clamp(conf.trie.num_tbl8 / 2, V6_TBL8_ENOUGH, V6_TBL8_MAX);
		lpm->fib6 = rte_fib6_create(name, SOCKET_ID_ANY, &conf);
	}
	return lpm->fib6 != NULL;
}

struct onvm_lpm *
onvm_lpm_create(uint32_t ip_version, uint32_t max_routes)
{
	char name[ONVM_TABLE_NAME_SIZE];
	struct onvm_lpm *lpm;
	int rc;

	if ((ip_version != 4 && ip_version != 6) || max_routes == 0 || max_routes > 1u << 24) {
		errno = EINVAL;
		return NULL;
	}
	rc = onvm_tables_init(0);
	if (rc != 0) {
		errno = -rc;
		return NULL;
	}
	lpm = calloc(1, sizeof(*lpm));
	if (lpm == NULL)
		return NULL;
	lpm->default_value = ONVM_TABLE_MISS;
	onvm_table_name(name, "lpm");
	if (!(ip_version == 4 ? lpm_create_v4(lpm, name, max_routes) :
				lpm_create_v6(lpm, name, max_routes))) {
		free(lpm);
		errno = rte_errno;
		return NULL;
	}
	return lpm;
}

static bool
has_route(const struct onvm_lpm *lpm, const uint8_t *prefix, uint8_t depth)
{
	if (lpm->fib != NULL)
		return rte_rib_lookup_exact(rte_fib_get_rib(lpm->fib), onvm_load_be32(prefix),
					    depth) != NULL;
	return rte_rib6_lookup_exact(rte_fib6_get_rib(lpm->fib6), IPV6(prefix), depth) != NULL;
}

static int
route_add(struct onvm_lpm *lpm, const uint8_t *prefix, uint8_t depth, uint32_t value)
{
	if (lpm->fib != NULL)
		return rte_fib_add(lpm->fib, onvm_load_be32(prefix), depth, value);
	return rte_fib6_add(lpm->fib6, IPV6(prefix), depth, value);
}

int
onvm_lpm_add(struct onvm_lpm *lpm, const uint8_t *prefix, uint8_t depth, uint32_t value)
{
	if (value >= DEFAULT_HOP || depth > (lpm->fib != NULL ? 32 : 128))
		return -EINVAL;
	if (depth == 0) {
		lpm->default_value = value;
		return 0;
	}
	/*
	 * rte_fib (22.11) does not count the second-level tables of a new route whose parent has the
	 * same next hop, yet takes them off when it goes: the count falls below zero and every
	 * later add gives -ENOSPC. So a new route begins with a value no other has.
	 */
	if (depth > 24 && !has_route(lpm, prefix, depth)) {
		const int rc = route_add(lpm, prefix, depth, DEFAULT_HOP);

		if (rc != 0)
			return rc;
	}
	return route_add(lpm, prefix, depth, value);
}

int
onvm_lpm_delete(struct onvm_lpm *lpm, const uint8_t *prefix, uint8_t depth)
{
	if (depth > (lpm->fib != NULL ? 32 : 128))
		return -EINVAL;
	if (depth == 0) {
		const bool was_there = lpm->default_value != ONVM_TABLE_MISS;

		lpm->default_value = ONVM_TABLE_MISS;
		return was_there ? 0 : -ENOENT;
	}
	if (lpm->fib != NULL)
		return rte_fib_delete(lpm->fib, onvm_load_be32(prefix), depth);
	return rte_fib6_delete(lpm->fib6, IPV6(prefix), depth);
}

static int
lookup_chunk(const struct onvm_lpm *lpm, const uint8_t *addresses, uint64_t *hops, uint32_t nb)
{
	uint32_t v4[ONVM_TABLE_CHUNK];
	uint8_t v6[ONVM_TABLE_CHUNK][ONVM_ADDRESS_BYTES];

	if (lpm->fib != NULL) {
		for (uint32_t i = 0; i < nb; i++)
			v4[i] = onvm_load_be32(addresses + 4 * i);
		return rte_fib_lookup_bulk(lpm->fib, v4, hops, (int)nb);
	}
	memcpy(v6, addresses, (size_t)nb * sizeof(v6[0]));
	return rte_fib6_lookup_bulk(lpm->fib6, IPV6(v6), hops, (int)nb);
}

static uint32_t
value_of(const struct onvm_lpm *lpm, uint64_t hop)
{
	return hop == DEFAULT_HOP ? lpm->default_value : (uint32_t)hop;
}

int
onvm_lpm_lookup(const struct onvm_lpm *lpm, const uint8_t *addresses, uint32_t *values, uint32_t nb)
{
	const uint32_t address_size = onvm_address_bytes(lpm->fib != NULL ? 4 : 6);
	uint64_t hops[ONVM_TABLE_CHUNK];

	for (uint32_t first = 0; first < nb; first += ONVM_TABLE_CHUNK) {
		const uint32_t length = clamp(nb - first, 0, ONVM_TABLE_CHUNK);
		const int rc =
			lookup_chunk(lpm, addresses + (size_t)first * address_size, hops, length);

		if (rc != 0)
			return rc;
		for (uint32_t i = 0; i < length; i++)
			values[first + i] = value_of(lpm, hops[i]);
	}
	return 0;
}

uint32_t
onvm_lpm_find4(const struct onvm_lpm *lpm, uint32_t address)
{
	uint64_t hop;

	if (lpm->fib == NULL || rte_fib_lookup_bulk(lpm->fib, &address, &hop, 1) != 0)
		return ONVM_TABLE_MISS;
	return value_of(lpm, hop);
}

uint32_t
onvm_lpm_find6(const struct onvm_lpm *lpm, uint64_t high, uint64_t low)
{
	uint8_t address[1][ONVM_ADDRESS_BYTES];
	uint64_t hop;

	onvm_store_be32(address[0], (uint32_t)(high >> 32));
	onvm_store_be32(address[0] + 4, (uint32_t)high);
	onvm_store_be32(address[0] + 8, (uint32_t)(low >> 32));
	onvm_store_be32(address[0] + 12, (uint32_t)low);
	if (lpm->fib6 == NULL || rte_fib6_lookup_bulk(lpm->fib6, IPV6(address), &hop, 1) != 0)
		return ONVM_TABLE_MISS;
	return value_of(lpm, hop);
}

void
onvm_lpm_free(struct onvm_lpm *lpm)
{
	if (lpm == NULL)
		return;
	rte_fib_free(lpm->fib);
	rte_fib6_free(lpm->fib6);
	free(lpm);
}
