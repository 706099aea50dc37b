/* SPDX-License-Identifier: Apache-2.0 */
#include <onvm/tables.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_errno.h>
#include <rte_hash.h>

#include <onvm/keyed_hash.h>

#include "tables_priv.h"

#define KEY_BYTES_MAX 64
#define PADDED_BYTES_MAX (KEY_BYTES_MAX + 16)
#define SLOTS_MIN 8u /* rte_hash has no fewer */
#define VALUE_BYTES_MAX 256
#define SWEEP_NS 1000000000ull /* a whole table once a second ... */
#define SWEEP_SLOTS_MAX 8192u  /* ... but never so much that one burst waits long */

#define NO_SLOT (-1)
#define NOT_LISTED (-2)
#define LINE_BYTES 64u

/* One per flow, with its value, so that a use of the flow is one cache line; zero when never used. */
struct slot {
	uint64_t last_used_ns;
	uint64_t idle_ns;     /* 0: the table's */
	int32_t older, newer; /* of those that give way; `older` is NOT_LISTED for others */
	uint8_t value[];
};

struct onvm_flow_table {
	struct rte_hash *hash;
	void *memory;	/* of the slots */
	uint8_t *slots; /* aligned to cache lines */
	uint8_t *is_used;
	uint32_t slot_bytes;
	uint32_t capacity;
	uint32_t count;
	uint32_t key_bytes;
	uint32_t padded_bytes; /* rte_hash compares multiples of 16 with wide registers */
	uint32_t value_bytes;
	uint32_t tweak;		/* of the hash */
	int32_t oldest, newest; /* of the flows that give way */
	uint32_t cursor;	/* where expiry goes on */
	uint64_t swept_ns;	/* when onvm_flow_table_sweep() last went on */
};

static inline struct slot *
slot_at(const struct onvm_flow_table *table, int32_t slot)
{
	return (struct slot *)(table->slots + (size_t)slot * table->slot_bytes);
}

static uint32_t
round_up(uint32_t value, uint32_t multiple)
{
	return (value + multiple - 1) / multiple * multiple;
}

/* The key as rte_hash wants it: @p key itself, or a zero-padded copy in @p space. */
static const void *
key_padded(const struct onvm_flow_table *table, const void *key, uint8_t space[PADDED_BYTES_MAX])
{
	if (table->key_bytes == table->padded_bytes)
		return key;
	memset(space + table->padded_bytes - 16, 0, 16);
	memcpy(space, key, table->key_bytes);
	return space;
}

static struct rte_hash *
hash_create(uint32_t capacity, uint32_t padded_bytes, uint32_t tweak)
{
	char name[ONVM_TABLE_NAME_SIZE];
	const struct rte_hash_parameters params = {
		.name = name,
		.entries = capacity < SLOTS_MIN ? SLOTS_MIN : capacity,
		.key_len = padded_bytes,
		/* rte_hash_get_key_with_position() calls it, and nothing else does */
		.hash_func = keyed_hash,
		.hash_func_init_val = tweak,
		.socket_id = SOCKET_ID_ANY,
		/* without it a bucket can be full long before the table is */
		.extra_flag = RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
	};

	onvm_table_name(name, "flow");
	return rte_hash_create(&params);
}

static inline uint32_t
hash_of(const struct onvm_flow_table *table, const void *padded)
{
	return keyed_hash(padded, table->padded_bytes, table->tweak);
}

static inline int32_t
hash_lookup(const struct onvm_flow_table *table, const void *padded)
{
	return rte_hash_lookup_with_hash(table->hash, padded, hash_of(table, padded));
}

static inline int32_t
hash_add(const struct onvm_flow_table *table, const void *padded)
{
	return rte_hash_add_key_with_hash(table->hash, padded, hash_of(table, padded));
}

static inline int32_t
hash_delete(const struct onvm_flow_table *table, const void *padded)
{
	return rte_hash_del_key_with_hash(table->hash, padded, hash_of(table, padded));
}

/*
 * Fill the slots beyond the capacity with keys that no flow has, because of their last byte: authors
 * use a slot as an index of an array of that length.
 */
static int
slots_fence(const struct onvm_flow_table *table)
{
	uint8_t key[PADDED_BYTES_MAX] = {0};
	uint8_t *const last = &key[table->padded_bytes - 1];

	for (*last = 1; *last <= SLOTS_MIN; ++*last)
		if (hash_add(table, key) < 0)
			return -ENOMEM;
	for (*last = 1; *last <= SLOTS_MIN; ++*last)
		if (hash_lookup(table, key) < (int32_t)table->capacity)
			hash_delete(table, key);
	return 0;
}

/* Half a cache line, a whole one, or more. */
static uint32_t
slot_bytes_of(uint32_t value_bytes)
{
	const uint32_t bytes = (uint32_t)sizeof(struct slot) + value_bytes;

	return bytes <= LINE_BYTES / 2 ? LINE_BYTES / 2 :
	       bytes <= LINE_BYTES     ? LINE_BYTES :
					 round_up(bytes, 8);
}

/* Memory that no flow has used yet costs nothing: it is zero from the start. */
static int
slots_create(struct onvm_flow_table *table)
{
	const size_t nb_slots = (size_t)rte_hash_max_key_id(table->hash) + 1;

	table->memory = calloc(nb_slots * table->slot_bytes + LINE_BYTES, 1);
	table->is_used = calloc(nb_slots, sizeof(*table->is_used));
	if (table->memory == NULL || table->is_used == NULL)
		return -ENOMEM;
	table->slots = (uint8_t *)table->memory + LINE_BYTES -
		       (uintptr_t)table->memory % LINE_BYTES;
	return table->capacity < SLOTS_MIN ? slots_fence(table) : 0;
}

struct onvm_flow_table *
onvm_flow_table_create(uint32_t capacity, uint32_t key_bytes, uint32_t value_bytes)
{
	struct onvm_flow_table *table;
	int rc;

	if (capacity == 0 || capacity > 1u << 28 || key_bytes == 0 || key_bytes > KEY_BYTES_MAX ||
	    value_bytes > VALUE_BYTES_MAX) {
		errno = EINVAL;
		return NULL;
	}
	rc = onvm_tables_init(0);
	if (rc != 0) {
		errno = -rc;
		return NULL;
	}
	table = calloc(1, sizeof(*table));
	if (table == NULL)
		return NULL;
	rc = keyed_hash_draw(&table->tweak);
	if (rc != 0) {
		free(table);
		errno = -rc;
		return NULL;
	}
	table->oldest = table->newest = NO_SLOT;
	table->capacity = capacity;
	table->key_bytes = key_bytes;
	table->padded_bytes = round_up(capacity < SLOTS_MIN ? key_bytes + 1 : key_bytes, 16);
	table->value_bytes = value_bytes;
	table->slot_bytes = slot_bytes_of(value_bytes);
	table->hash = hash_create(capacity, table->padded_bytes, table->tweak);
	if (table->hash == NULL) {
		free(table);
		errno = rte_errno;
		return NULL;
	}
	if (slots_create(table) != 0) {
		onvm_flow_table_free(table);
		errno = ENOMEM;
		return NULL;
	}
	return table;
}

int32_t
onvm_flow_table_lookup(struct onvm_flow_table *table, const void *key)
{
	uint8_t space[PADDED_BYTES_MAX];

	return hash_lookup(table, key_padded(table, key, space));
}

void
onvm_flow_table_lookup_bulk(struct onvm_flow_table *table, const void *keys, int32_t *slots,
			    uint32_t nb)
{
	uint8_t space[ONVM_TABLE_CHUNK][PADDED_BYTES_MAX];
	const void *pointers[ONVM_TABLE_CHUNK];
	uint32_t hashes[ONVM_TABLE_CHUNK];
	const uint8_t *key = keys;

	while (nb != 0) {
		const uint32_t length = nb < ONVM_TABLE_CHUNK ? nb : ONVM_TABLE_CHUNK;

		for (uint32_t i = 0; i < length; i++, key += table->key_bytes) {
			pointers[i] = key_padded(table, key, space[i]);
			hashes[i] = hash_of(table, pointers[i]);
		}
		rte_hash_lookup_with_hash_bulk(table->hash, pointers, hashes, length, slots);
		slots += length;
		nb -= length;
	}
}

uint32_t
onvm_flow_table_hash(const struct onvm_flow_table *table, const void *key)
{
	uint8_t space[PADDED_BYTES_MAX];

	return hash_of(table, key_padded(table, key, space));
}

int32_t
onvm_flow_table_add(struct onvm_flow_table *table, const void *key, uint64_t now_ns)
{
	uint8_t space[PADDED_BYTES_MAX];
	const void *padded = key_padded(table, key, space);
	const uint32_t hash = hash_of(table, padded);
	int32_t slot = rte_hash_lookup_with_hash(table->hash, padded, hash);

	if (slot < 0) {
		if (table->count == table->capacity)
			return -ENOSPC;
		slot = rte_hash_add_key_with_hash(table->hash, padded, hash);
		if (slot < 0)
			return slot;
		table->is_used[slot] = 1;
		table->count++;
		memset(slot_at(table, slot), 0, table->slot_bytes);
		slot_at(table, slot)->older = NOT_LISTED;
	}
	slot_at(table, slot)->last_used_ns = now_ns;
	return slot;
}

void
onvm_flow_table_add_bulk(struct onvm_flow_table *table, const void *keys, int32_t *slots,
			 uint32_t nb, uint64_t now_ns)
{
	const uint8_t *const first = keys;

	onvm_flow_table_lookup_bulk(table, keys, slots, nb);
	for (uint32_t i = 0; i < nb; i++) {
		if (slots[i] >= 0)
			slot_at(table, slots[i])->last_used_ns = now_ns;
		else
			slots[i] = onvm_flow_table_add(table, first + (size_t)i * table->key_bytes,
						       now_ns);
	}
}

/* ---- flows that give way: a list, the oldest first ---- */

static void
list_append(struct onvm_flow_table *table, int32_t slot)
{
	slot_at(table, slot)->older = table->newest;
	slot_at(table, slot)->newer = NO_SLOT;
	if (table->newest == NO_SLOT)
		table->oldest = slot;
	else
		slot_at(table, table->newest)->newer = slot;
	table->newest = slot;
}

static void
list_remove(struct onvm_flow_table *table, int32_t slot)
{
	struct slot *const gone = slot_at(table, slot);

	if (gone->older == NO_SLOT)
		table->oldest = gone->newer;
	else
		slot_at(table, gone->older)->newer = gone->newer;
	if (gone->newer == NO_SLOT)
		table->newest = gone->older;
	else
		slot_at(table, gone->newer)->older = gone->older;
	gone->older = NOT_LISTED;
}

void
onvm_flow_table_set_evictable(struct onvm_flow_table *table, int32_t slot, bool is_evictable)
{
	if (is_evictable == (slot_at(table, slot)->older != NOT_LISTED))
		return;
	if (is_evictable)
		list_append(table, slot);
	else
		list_remove(table, slot);
}

int
onvm_flow_table_evict(struct onvm_flow_table *table, void (*on_evicted)(void *arg, int32_t slot),
		      void *arg)
{
	const int32_t slot = table->oldest;

	if (slot == NO_SLOT)
		return -ENOENT;
	if (on_evicted != NULL)
		on_evicted(arg, slot);
	onvm_flow_table_delete_slot(table, slot); /* the callback may have deleted it */
	return 0;
}

static void
slot_release(struct onvm_flow_table *table, int32_t slot)
{
	onvm_flow_table_set_evictable(table, slot, false);
	table->is_used[slot] = 0;
	table->count--;
}

int
onvm_flow_table_delete(struct onvm_flow_table *table, const void *key)
{
	uint8_t space[PADDED_BYTES_MAX];
	const int32_t slot = hash_delete(table, key_padded(table, key, space));

	if (slot < 0)
		return slot;
	slot_release(table, slot);
	return 0;
}

static bool
slot_is_used(const struct onvm_flow_table *table, int32_t slot)
{
	return slot >= 0 && slot <= rte_hash_max_key_id(table->hash) && table->is_used[slot];
}

int
onvm_flow_table_delete_slot(struct onvm_flow_table *table, int32_t slot)
{
	void *key;

	if (!slot_is_used(table, slot))
		return -ENOENT;
	if (rte_hash_get_key_with_position(table->hash, slot, &key) != 0 ||
	    hash_delete(table, key) != slot)
		return -EIO;
	slot_release(table, slot);
	return 0;
}

void *
onvm_flow_table_value(struct onvm_flow_table *table, int32_t slot)
{
	return slot_at(table, slot)->value;
}

void
onvm_flow_table_prefetch(const struct onvm_flow_table *table, int32_t slot)
{
	__builtin_prefetch(slot_at(table, slot), 1);
}

const void *
onvm_flow_table_key(struct onvm_flow_table *table, int32_t slot)
{
	void *key;

	if (!slot_is_used(table, slot) ||
	    rte_hash_get_key_with_position(table->hash, slot, &key) != 0)
		return NULL;
	return key;
}

int32_t
onvm_flow_table_next(const struct onvm_flow_table *table, int32_t slot)
{
	const int32_t end = rte_hash_max_key_id(table->hash) + 1;

	for (slot = slot < 0 ? 0 : slot; slot < end; slot++)
		if (table->is_used[slot])
			return slot;
	return -ENOENT;
}

uint64_t
onvm_flow_table_used_ns(const struct onvm_flow_table *table, int32_t slot)
{
	return slot_at(table, slot)->last_used_ns;
}

void
onvm_flow_table_touch(struct onvm_flow_table *table, int32_t slot, uint64_t now_ns)
{
	slot_at(table, slot)->last_used_ns = now_ns;
}

void
onvm_flow_table_set_idle(struct onvm_flow_table *table, int32_t slot, uint64_t idle_ns)
{
	slot_at(table, slot)->idle_ns = idle_ns;
}

static bool
slot_is_idle(const struct slot *slot, uint64_t now_ns, uint64_t idle_ns)
{
	if (slot->idle_ns != 0)
		idle_ns = slot->idle_ns;
	return now_ns >= slot->last_used_ns && now_ns - slot->last_used_ns >= idle_ns;
}

bool
onvm_flow_table_is_idle(const struct onvm_flow_table *table, int32_t slot, uint64_t now_ns,
			uint64_t idle_ns)
{
	return slot_is_idle(slot_at(table, (int32_t)slot), now_ns, idle_ns);
}

uint32_t
onvm_flow_table_expire(struct onvm_flow_table *table, uint64_t now_ns, uint64_t idle_ns,
		       uint32_t budget, void (*on_expired)(void *arg, int32_t slot), void *arg)
{
	const uint32_t nb_slots = (uint32_t)rte_hash_max_key_id(table->hash) + 1;
	uint32_t nb_expired = 0;

	if (budget > nb_slots)
		budget = nb_slots;
	for (; budget != 0 && table->count != 0; budget--) {
		const uint32_t slot = table->cursor;

		table->cursor = slot + 1 == nb_slots ? 0 : slot + 1;
		if (!table->is_used[slot] ||
		    !slot_is_idle(slot_at(table, (int32_t)slot), now_ns, idle_ns))
			continue;
		if (on_expired != NULL)
			on_expired(arg, (int32_t)slot);
		/* the callback may have deleted it, or a partner that we meet later */
		nb_expired += onvm_flow_table_delete_slot(table, (int32_t)slot) == 0;
	}
	return nb_expired;
}

uint32_t
onvm_flow_table_sweep(struct onvm_flow_table *table, uint64_t now_ns, uint64_t idle_ns,
		      void (*on_expired)(void *arg, int32_t slot), void *arg)
{
	const uint64_t nb_slots = (uint64_t)rte_hash_max_key_id(table->hash) + 1;
	const uint64_t elapsed_ns = now_ns - table->swept_ns;
	uint64_t budget = nb_slots;

	if (now_ns < table->swept_ns || table->swept_ns == 0) {
		table->swept_ns = now_ns;
		return 0;
	}
	if (elapsed_ns < SWEEP_NS)
		budget = nb_slots * (elapsed_ns >> 10) / (SWEEP_NS >> 10);
	if (budget == 0)
		return 0;
	table->swept_ns = now_ns;
	return onvm_flow_table_expire(table, now_ns, idle_ns,
				      budget < SWEEP_SLOTS_MAX ? (uint32_t)budget : SWEEP_SLOTS_MAX,
				      on_expired, arg);
}

uint32_t
onvm_flow_table_count(const struct onvm_flow_table *table)
{
	return table->count;
}

void
onvm_flow_table_free(struct onvm_flow_table *table)
{
	if (table == NULL)
		return;
	rte_hash_free(table->hash);
	free(table->memory);
	free(table->is_used);
	free(table);
}
