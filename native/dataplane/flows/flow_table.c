/* SPDX-License-Identifier: Apache-2.0 */
#include "flows/flow_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <rte_errno.h>

#include "packet_memory.h"
#include "steering/recycle.h"

/* ---- keys ---- */

static uint32_t
hash4(const void *key, uint32_t length, uint32_t seed)
{
	(void)length;
	(void)seed;
	return onvm_flow_key_hash4(key);
}

static uint32_t
hash6(const void *key, uint32_t length, uint32_t seed)
{
	(void)length;
	return keyed_hash(key, sizeof(struct onvm_flow_key6), seed);
}

uint32_t
onvm_flow_key_hash6(const struct onvm_flow_key6 *key)
{
	return hash6(key, sizeof(*key), 0);
}

static void
key4_set(struct onvm_flow_key4 *key, const uint8_t *ip, uint8_t protocol, uint16_t src_port,
	 uint16_t dst_port, uint16_t vlan, uint8_t port)
{
	memcpy(&key->src, ip + 12, 4);
	memcpy(&key->dst, ip + 16, 4);
	key->src_port = src_port;
	key->dst_port = dst_port;
	key->vlan = vlan;
	key->port = port;
	key->protocol = protocol;
}

static void
key6_set(struct onvm_flow_key6 *key, const uint8_t *ip, uint8_t protocol, uint16_t src_port,
	 uint16_t dst_port, uint16_t vlan, uint8_t port)
{
	memcpy(key->src, ip + 8, 16);
	memcpy(key->dst, ip + 24, 16);
	key->src_port = src_port;
	key->dst_port = dst_port;
	key->vlan = vlan;
	key->port = port;
	key->protocol = protocol;
	key->pad = 0;
}

static uint16_t
vlan_of(const struct onvm_headers *headers)
{
	return headers->nb_vlans == 0 ? 0 : headers->vlan_tci[0] & 0x0fff;
}

static bool
is_icmp_error(const struct onvm_headers *headers, uint8_t type)
{
	if (headers->protocol == ONVM_PROTO_ICMP)
		return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
	return headers->protocol == ONVM_PROTO_ICMPV6 && type >= 1 && type <= 4;
}

/** Key of the flow whose packet an ICMP error quotes; false when it quotes too little. */
static bool
key_of_quoted(const uint8_t *data, const struct onvm_headers *headers, uint8_t port,
	      union onvm_flow_key *key)
{
	const uint8_t *quoted = data + headers->l4_offset + 8;
	const uint32_t room = headers->l4_length - 8u;
	struct onvm_headers inner;
	union onvm_flow_key forward;
	uint32_t offset;
	uint16_t src_port, dst_port;

	if (headers->l4_status != ONVM_L4_OK)
		return false;
	memset(&inner, 0, sizeof(inner));
	if (headers->ip_version == 4) {
		offset = room < 20 ? 0 : (quoted[0] & 15) * 4u;
		inner.protocol = room < 20 ? 0 : quoted[9];
	} else {
		offset = 40;
		inner.protocol = room < 40 ? 0 : quoted[6];
	}
	/* RFC 792 and 4443: at least 8 bytes of the transport header are quoted. */
	if (offset < 20 || room < offset + 8)
		return false;
	src_port = onvm_load_be16(quoted + offset);
	dst_port = onvm_load_be16(quoted + offset + 2);
	if (inner.protocol == ONVM_PROTO_ICMP || inner.protocol == ONVM_PROTO_ICMPV6)
		src_port = dst_port = onvm_load_be16(quoted + offset + 4);
	if (headers->ip_version == 4) {
		key4_set(&forward.v4, quoted, inner.protocol, src_port, dst_port, vlan_of(headers),
			 port);
		onvm_flow_key_reverse(ONVM_FLOW_KIND_IPV4, &forward, port, key);
	} else {
		key6_set(&forward.v6, quoted, inner.protocol, src_port, dst_port, vlan_of(headers),
			 port);
		onvm_flow_key_reverse(ONVM_FLOW_KIND_IPV6, &forward, port, key);
	}
	return true;
}

enum onvm_flow_kind
onvm_flow_key_make(const uint8_t *data, const struct onvm_headers *headers, uint8_t port,
		   union onvm_flow_key *key)
{
	const uint8_t *ip = data + headers->l3_offset;
	uint16_t src_port = headers->src_port, dst_port = headers->dst_port;

	if (headers->l3_status != ONVM_L3_OK || headers->ip_version == 0)
		return ONVM_FLOW_KIND_NONE;
	if (headers->fragment_offset != 0) {
		(void)onvm_flow_key_fragment(data, headers, port, key);
	} else {
		if (headers->protocol == ONVM_PROTO_ICMP ||
		    headers->protocol == ONVM_PROTO_ICMPV6) {
			if (is_icmp_error(headers, (uint8_t)(src_port >> 8)) &&
			    key_of_quoted(data, headers, port, key))
				return (enum onvm_flow_kind)(headers->ip_version == 4 ?
								     ONVM_FLOW_KIND_IPV4 :
								     ONVM_FLOW_KIND_IPV6);
			src_port = dst_port;
		}
		if (headers->ip_version == 4)
			key4_set(&key->v4, ip, headers->protocol, src_port, dst_port,
				 vlan_of(headers), port);
		else
			key6_set(&key->v6, ip, headers->protocol, src_port, dst_port,
				 vlan_of(headers), port);
	}
	return headers->ip_version == 4 ? ONVM_FLOW_KIND_IPV4 : ONVM_FLOW_KIND_IPV6;
}

uint8_t
onvm_flow_signs(const struct onvm_headers *headers)
{
	uint8_t signs = onvm_headers_is_fragment(headers) ? ONVM_SIGN_FRAGMENT : 0;

	if (headers->fragment_offset != 0)
		return signs;
	if (headers->protocol == ONVM_PROTO_TCP)
		signs |= headers->tcp_flags & ONVM_SIGNS_TCP;
	else if (is_icmp_error(headers, (uint8_t)(headers->src_port >> 8)))
		signs |= ONVM_SIGN_ERROR;
	return signs;
}

bool
onvm_flow_key_fragment(const uint8_t *data, const struct onvm_headers *headers, uint8_t port,
		       union onvm_flow_key *key)
{
	const uint8_t *ip = data + headers->l3_offset;
	const uint16_t vlan = vlan_of(headers) | ONVM_FLOW_VLAN_FRAGMENT;

	if (!onvm_headers_is_fragment(headers))
		return false;
	if (headers->ip_version == 4) {
		key4_set(&key->v4, ip, headers->protocol, onvm_load_be16(ip + 4), 0, vlan, port);
	} else {
		/* Identification: the last four bytes of the fragment header (RFC 8200 4.5). */
		const uint8_t *id = data + headers->fragment_header + 4;

		key6_set(&key->v6, ip, headers->protocol, onvm_load_be16(id),
			 onvm_load_be16(id + 2), vlan, port);
	}
	return true;
}

void
onvm_flow_key_reverse(enum onvm_flow_kind kind, const union onvm_flow_key *key, uint8_t port,
		      union onvm_flow_key *reverse)
{
	*reverse = *key;
	if (kind == ONVM_FLOW_KIND_IPV4) {
		reverse->v4.src = key->v4.dst;
		reverse->v4.dst = key->v4.src;
		reverse->v4.src_port = key->v4.dst_port;
		reverse->v4.dst_port = key->v4.src_port;
		reverse->v4.port = port;
	} else {
		memcpy(reverse->v6.src, key->v6.dst, 16);
		memcpy(reverse->v6.dst, key->v6.src, 16);
		reverse->v6.src_port = key->v6.dst_port;
		reverse->v6.dst_port = key->v6.src_port;
		reverse->v6.port = port;
	}
}

/* ---- tables ---- */

static struct rte_hash *
create_hash(const char *name, uint32_t entries, uint32_t key_bytes, rte_hash_function function,
	    struct rte_rcu_qsbr *qsbr)
{
	const struct rte_hash_parameters parameters = {
		.name = name,
		.entries = entries,
		.key_len = key_bytes,
		.hash_func = function,
		.socket_id = (int)rte_socket_id(),
		.extra_flag = RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF |
			      RTE_HASH_EXTRA_FLAGS_MULTI_WRITER_ADD |
			      RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
	};
	struct rte_hash_rcu_config rcu = {.v = qsbr, .mode = RTE_HASH_QSBR_MODE_DQ};
	struct rte_hash *hash = rte_hash_create(&parameters);

	if (hash != NULL && rte_hash_rcu_qsbr_add(hash, &rcu) != 0) {
		rte_hash_free(hash);
		return NULL;
	}
	return hash;
}

/** Ticks of the usual life, if that is short. */
#define LIFE_TICKS 64
#define TICK_MS_MIN 10
/** So 255 ticks are a minute, in which ageing passes all positions. */
#define TICK_MS_MAX 250
/** Positions for each millisecond of a tick; ageing passes 65,536 in ten. */
#define POSITIONS_PER_MS (1u << 18)

/** Fresh pages: those of positions that are never used are never there. */
static void *
map_positions(uint32_t nb, size_t size)
{
	void *mapped =
		mmap(NULL, nb * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mapped == MAP_FAILED ? NULL : mapped;
}

static void
unmap_positions(void *mapped, uint32_t nb, size_t size)
{
	if (mapped != NULL)
		munmap(mapped, nb * size);
}

static void
set_usual_lives(struct onvm_flow_table *table, uint32_t idle_ms)
{
	for (uint32_t chain = 0; chain < ONVM_CHAINS_MAX; chain++)
		for (uint32_t i = 0; i < ONVM_FLOW_CLASSES; i++)
			table->lives[chain][i] = onvm_flow_ticks_of(table, idle_ms);
}

int
onvm_flow_table_init(struct onvm_flow_table *table, uint32_t capacity, uint32_t idle_ms,
		     struct rte_rcu_qsbr *qsbr)
{
	const uint32_t entries6 = capacity / 2 < 1024 ? 1024 : capacity / 2;
	const int rc = keyed_hash_init();

	if (rc != 0)
		return rc;
	memset(table, 0, sizeof(*table));
	table->hash4 = create_hash("onvm-flows4", capacity * 2, sizeof(struct onvm_flow_key4),
				   hash4, qsbr);
	table->hash6 =
		create_hash("onvm-flows6", entries6, sizeof(struct onvm_flow_key6), hash6, qsbr);
	if (table->hash4 == NULL || table->hash6 == NULL) {
		onvm_flow_table_fini(table);
		return -ENOMEM;
	}
	table->nb4 = (uint32_t)rte_hash_max_key_id(table->hash4) + 1;
	table->nb6 = (uint32_t)rte_hash_max_key_id(table->hash6) + 1;
	table->flows = map_positions(table->nb4 + table->nb6, sizeof(*table->flows));
	table->peers = map_positions(table->nb4 + table->nb6, sizeof(*table->peers));
	table->quiet = map_positions(table->nb4 + table->nb6, sizeof(*table->quiet));
	table->owners = map_positions(table->nb4 + table->nb6, sizeof(*table->owners));
	table->keys4 = map_positions(table->nb4, sizeof(*table->keys4));
	table->keys6 = map_positions(table->nb6, sizeof(*table->keys6));
	table->capacities[0] = capacity * 2;
	table->capacities[1] = entries6;
	table->tick_ms = RTE_MAX(RTE_MIN(RTE_MAX((uint32_t)TICK_MS_MIN, idle_ms / LIFE_TICKS),
					 (uint32_t)TICK_MS_MAX),
				 (table->nb4 + table->nb6) / POSITIONS_PER_MS);
	onvm_flow_table_set_time(table, 0);
	set_usual_lives(table, idle_ms);
	if (onvm_flow_cache_init(&table->cache, table->nb4 + table->nb6) != 0 ||
	    table->flows == NULL || table->peers == NULL || table->quiet == NULL ||
	    table->owners == NULL || table->keys4 == NULL || table->keys6 == NULL) {
		onvm_flow_table_fini(table);
		return -ENOMEM;
	}
	return 0;
}

void
onvm_flow_table_fini(struct onvm_flow_table *table)
{
	rte_hash_free(table->hash4);
	rte_hash_free(table->hash6);
	unmap_positions(table->flows, table->nb4 + table->nb6, sizeof(*table->flows));
	unmap_positions(table->peers, table->nb4 + table->nb6, sizeof(*table->peers));
	unmap_positions(table->quiet, table->nb4 + table->nb6, sizeof(*table->quiet));
	unmap_positions(table->owners, table->nb4 + table->nb6, sizeof(*table->owners));
	unmap_positions(table->keys4, table->nb4, sizeof(*table->keys4));
	unmap_positions(table->keys6, table->nb6, sizeof(*table->keys6));
	onvm_flow_cache_fini(&table->cache);
	memset(table, 0, sizeof(*table));
}

uint32_t
onvm_flow_table_find(const struct onvm_flow_table *table, enum onvm_flow_kind kind,
		     const union onvm_flow_key *key, uint32_t hash)
{
	const struct rte_hash *h = kind == ONVM_FLOW_KIND_IPV4 ? table->hash4 : table->hash6;
	const int32_t position = rte_hash_lookup_with_hash(h, key, hash);

	if (position < 0)
		return ONVM_FLOW_NONE;
	return kind == ONVM_FLOW_KIND_IPV4 ? (uint32_t)position : table->nb4 + (uint32_t)position;
}

/** Note the key of the flow at @p position; if it was another one, it has no path yet. */
static void
note_key(struct onvm_flow_table *table, uint32_t position, enum onvm_flow_kind kind,
	 const union onvm_flow_key *key)
{
	const bool is_v4 = kind == ONVM_FLOW_KIND_IPV4;
	const uint32_t nb = is_v4 ? 2 : 6;
	uint64_t *words = is_v4 ? table->keys4[position] : table->keys6[position - table->nb4];
	uint64_t wanted[6];

	if (onvm_flow_words_are(words, key, nb))
		return;
	/* K3: the path goes before another key comes. One that a flow got while it was deleted may
	 * still be here. */
	if (__atomic_exchange_n(&table->flows[position].path, 0, __ATOMIC_ACQ_REL) != 0)
		onvm_flow_count(table, position, -1);
	memcpy(wanted, key, nb * sizeof(*wanted));
	for (uint32_t i = 0; i < nb; i++)
		__atomic_store_n(&words[i], wanted[i], __ATOMIC_RELAXED);
}

uint32_t
onvm_flow_table_put(struct onvm_flow_table *table, enum onvm_flow_kind kind,
		    const union onvm_flow_key *key, uint32_t hash)
{
	const struct rte_hash *h = kind == ONVM_FLOW_KIND_IPV4 ? table->hash4 : table->hash6;
	const int32_t position = rte_hash_add_key_with_hash(h, key, hash);
	uint32_t place, high;

	if (position < 0)
		return ONVM_FLOW_NONE;
	place = kind == ONVM_FLOW_KIND_IPV4 ? (uint32_t)position : table->nb4 + (uint32_t)position;
	high = __atomic_load_n(&table->high, __ATOMIC_RELAXED);
	while (place >= high && !__atomic_compare_exchange_n(&table->high, &high, place + 1, true,
							     __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	note_key(table, place, kind, key);
	return place;
}

bool
onvm_flow_table_read(const struct onvm_flow_table *table, uint32_t position,
		     enum onvm_flow_kind *kind, union onvm_flow_key *key, struct onvm_flow *flow)
{
	const bool is_v4 = position < table->nb4;
	void *stored;

	if (position >= table->nb4 + table->nb6)
		return false;
	*flow = table->flows[position];
	if (flow->path == 0)
		return false;
	*kind = is_v4 ? ONVM_FLOW_KIND_IPV4 : ONVM_FLOW_KIND_IPV6;
	if (rte_hash_get_key_with_position(is_v4 ? table->hash4 : table->hash6,
					   (int32_t)(is_v4 ? position : position - table->nb4),
					   &stored) != 0)
		return false;
	memcpy(key, stored, is_v4 ? sizeof(key->v4) : sizeof(key->v6));
	return true;
}

void
onvm_flow_table_mark(const struct onvm_flow_table *table, struct onvm_steering *steering)
{
	const uint32_t end = __atomic_load_n(&table->high, __ATOMIC_RELAXED);

	for (uint32_t i = 0; i < end; i++)
		onvm_steering_mark(steering,
				   __atomic_load_n(&table->flows[i].path, __ATOMIC_ACQUIRE));
}
