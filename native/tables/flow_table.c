/* SPDX-License-Identifier: Apache-2.0 */
#include <onvm/tables.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_errno.h>
#include <rte_hash.h>

#include <onvm/keyed_hash.h>

#include "memory.h"
#include "tables_priv.h"

#define KEY_BYTES_MAX 64
#define PADDED_BYTES_MAX (KEY_BYTES_MAX + 16)
#define ENTRIES_MIN 8u /* rte_hash has no fewer */
#define VALUE_BYTES_MAX 256
#define SWEEP_NS 1000000000ull /* a whole table once a second ... */
#define SWEEP_SLOTS_MAX 8192u  /* ... but never so much that one burst waits long */

#define NO_SLOT (-1)
#define LINE_BYTES 64u
#define HASH_REST_BYTES ((size_t)1 << 20) /* more than its other parts take */

/*
 * Slots are numbered here and not by rte_hash, which has more entries than there are slots. The
 * number of a flow's slot lies beside its key, as rte_hash's data.
 */
struct onvm_flow_table {
	struct onvm_flow_values values; /* first: aligned to cache lines */
	struct rte_hash *hash;
	struct memory_heap heap; /* of the hash */
	void *memory;		 /* of the slots, of `memory_bytes` */
	size_t memory_bytes;
	const void **keys;    /* in the hash, by slot; NULL: the slot is free */
	int32_t next_free;    /* slots that were used before, by `newer`; NO_SLOT: none */
	uint32_t nb_fresh;    /* slots from here on were never used */
	uint32_t times_bytes; /* before each value; 0 of a plain table */
	uint32_t capacity;
	uint32_t count;
	uint32_t key_bytes;
	uint32_t padded_bytes;	/* rte_hash compares multiples of 16 with wide registers */
	uint32_t tweak;		/* of the hash */
	int32_t oldest, newest; /* of the flows that give way */
	uint32_t cursor;	/* where expiry goes on */
	uint64_t swept_ns;	/* when onvm_flow_table_sweep() last went on */
};

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

/* A ninth of the entries stays free: a table of buckets that is full moves keys around for each one
 * that it adds, and chains them. */
static uint32_t
entries_of(uint32_t capacity)
{
	const uint32_t entries = capacity + capacity / 8 + 1;

	return entries < ENTRIES_MIN ? ENTRIES_MIN : entries;
}

/*
 * What rte_hash takes: keys with a pointer each, buckets of eight entries and as many to extend
 * them, a ring of the keys' places and one of those buckets.
 */
static size_t
hash_bytes(uint32_t capacity, uint32_t padded_bytes)
{
	const size_t entries = entries_of(capacity), places = rte_align64pow2(entries + 1);
	const size_t keys = (entries + 1) * round_up(padded_bytes + sizeof(void *), 16);
	const size_t buckets = places / 8 * (2 * LINE_BYTES + 2 * sizeof(uint32_t));

	return keys + buckets + places * sizeof(uint32_t) + HASH_REST_BYTES;
}

static struct rte_hash *
hash_create(uint32_t capacity, uint32_t padded_bytes, uint32_t tweak,
	    const struct memory_heap *heap)
{
	char name[ONVM_TABLE_NAME_SIZE];
	const struct rte_hash_parameters params = {
		.name = name,
		.entries = entries_of(capacity),
		.key_len = padded_bytes,
		/* rte_hash_get_key_with_position() calls it, and nothing else does */
		.hash_func = keyed_hash,
		.hash_func_init_val = tweak,
		.socket_id = heap->socket,
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

/* Slot of a key, or -ENOENT. */
static inline int32_t
slot_find(const struct onvm_flow_table *table, const void *padded, uint32_t hash)
{
	void *data;
	const int32_t position = rte_hash_lookup_with_hash_data(table->hash, padded, hash, &data);

	return position < 0 ? position : (int32_t)(uintptr_t)data;
}

/* Half a cache line, a whole one, or more. */
static uint32_t
slot_bytes_of(uint32_t bytes)
{
	return bytes <= LINE_BYTES / 2 ? LINE_BYTES / 2 :
	       bytes <= LINE_BYTES     ? LINE_BYTES :
					 round_up(bytes, 8);
}

static int
slots_create(struct onvm_flow_table *table)
{
	const size_t nb_slots = table->capacity;
	const uint32_t slot_bytes = table->values.slot_bytes;
	uint8_t *slots;

	table->memory_bytes = nb_slots * slot_bytes + LINE_BYTES;
	table->memory = onvm_memory_create(table->memory_bytes);
	table->keys = onvm_memory_create(nb_slots * sizeof(*table->keys));
	if (table->memory == NULL || table->keys == NULL)
		return -ENOMEM;
	slots = (uint8_t *)table->memory + LINE_BYTES - (uintptr_t)table->memory % LINE_BYTES;
	table->values.first = slots + table->times_bytes;
	return 0;
}

static struct onvm_flow_table *
table_create(uint32_t capacity, uint32_t key_bytes, uint32_t value_bytes, uint32_t times_bytes)
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
	table->oldest = table->newest = table->next_free = NO_SLOT;
	table->capacity = capacity;
	table->key_bytes = key_bytes;
	table->padded_bytes = round_up(key_bytes, 16);
	table->times_bytes = times_bytes;
	table->values.slot_bytes = slot_bytes_of(times_bytes + value_bytes);
	memory_heap_create(&table->heap, hash_bytes(capacity, table->padded_bytes));
	table->hash = hash_create(capacity, table->padded_bytes, table->tweak, &table->heap);
	if (table->hash == NULL) {
		memory_heap_free(&table->heap);
		free(table);
		errno = ENOMEM;
		return NULL;
	}
	if (slots_create(table) != 0) {
		onvm_flow_table_free(table);
		errno = ENOMEM;
		return NULL;
	}
	return table;
}

struct onvm_flow_table *
onvm_flow_table_create(uint32_t capacity, uint32_t key_bytes, uint32_t value_bytes)
{
	return table_create(capacity, key_bytes, value_bytes, sizeof(struct onvm_flow_slot));
}

struct onvm_flow_table *
onvm_flow_table_create_plain(uint32_t capacity, uint32_t key_bytes, uint32_t value_bytes)
{
	if (value_bytes < sizeof(int32_t)) {
		errno = EINVAL;
		return NULL;
	}
	return table_create(capacity, key_bytes, value_bytes, 0);
}

int32_t
onvm_flow_table_lookup(struct onvm_flow_table *table, const void *key)
{
	uint8_t space[PADDED_BYTES_MAX];
	const void *const padded = key_padded(table, key, space);

	return slot_find(table, padded, hash_of(table, padded));
}

void
onvm_flow_table_lookup_bulk(struct onvm_flow_table *table, const void *keys, int32_t *slots,
			    uint32_t nb)
{
	uint8_t space[ONVM_TABLE_CHUNK][PADDED_BYTES_MAX];
	const void *pointers[ONVM_TABLE_CHUNK];
	void *data[ONVM_TABLE_CHUNK];
	uint32_t hashes[ONVM_TABLE_CHUNK];
	const uint8_t *key = keys;
	uint64_t is_hit;

	while (nb != 0) {
		const uint32_t length = nb < ONVM_TABLE_CHUNK ? nb : ONVM_TABLE_CHUNK;

		for (uint32_t i = 0; i < length; i++, key += table->key_bytes) {
			pointers[i] = key_padded(table, key, space[i]);
			hashes[i] = hash_of(table, pointers[i]);
		}
		rte_hash_lookup_with_hash_bulk_data(table->hash, pointers, hashes, length, &is_hit,
						    data);
		for (uint32_t i = 0; i < length; i++)
			slots[i] = (is_hit >> i & 1) != 0 ? (int32_t)(uintptr_t)data[i] : -ENOENT;
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

static inline uint8_t *
slot_start(const struct onvm_flow_table *table, int32_t slot)
{
	return (uint8_t *)onvm_flow_value(table, slot) - table->times_bytes;
}

/* Where a slot that is free names the next one. */
static inline int32_t *
free_link(const struct onvm_flow_table *table, int32_t slot)
{
	return (int32_t *)slot_start(table, slot);
}

/* A slot that is free; there is one. The one that was freed last is the likeliest in a cache. */
static int32_t
slot_take(struct onvm_flow_table *table)
{
	const int32_t slot = table->next_free;

	if (slot == NO_SLOT)
		return (int32_t)table->nb_fresh++;
	table->next_free = *free_link(table, slot);
	return slot;
}

static void
slot_put(struct onvm_flow_table *table, int32_t slot)
{
	*free_link(table, slot) = table->next_free;
	table->next_free = slot;
	table->keys[slot] = NULL;
}

static int
entry_add(struct onvm_flow_table *table, int32_t slot, const void *padded, uint32_t hash)
{
	int rc =
		rte_hash_add_key_with_hash_data(table->hash, padded, hash, (void *)(uintptr_t)slot);
	void *key;

	if (rc != 0)
		return rc;
	rc = rte_hash_get_key_with_position(table->hash,
					    rte_hash_lookup_with_hash(table->hash, padded, hash),
					    &key);
	if (rc != 0)
		rte_hash_del_key_with_hash(table->hash, padded, hash);
	table->keys[slot] = rc == 0 ? key : NULL;
	return rc;
}

int32_t
onvm_flow_table_add(struct onvm_flow_table *table, const void *key, uint64_t now_ns)
{
	uint8_t space[PADDED_BYTES_MAX];
	const void *padded = key_padded(table, key, space);
	const uint32_t hash = hash_of(table, padded);
	int32_t slot = slot_find(table, padded, hash);

	if (slot < 0) {
		int rc;

		if (table->count == table->capacity)
			return -ENOSPC;
		slot = slot_take(table);
		rc = entry_add(table, slot, padded, hash);
		if (rc != 0) {
			slot_put(table, slot);
			return rc;
		}
		table->count++;
		memset(slot_start(table, slot), 0, table->values.slot_bytes);
		if (table->times_bytes != 0)
			onvm_flow_slot(table, slot)->older = ONVM_FLOW_NOT_LISTED;
	}
	if (table->times_bytes != 0)
		onvm_flow_slot(table, slot)->last_used_ns = now_ns;
	return slot;
}

void
onvm_flow_table_add_bulk(struct onvm_flow_table *table, const void *keys, int32_t *slots,
			 uint32_t nb, uint64_t now_ns)
{
	const uint8_t *const first = keys;

	onvm_flow_table_lookup_bulk(table, keys, slots, nb);
	for (uint32_t i = 0; i < nb; i++) {
		if (slots[i] >= 0 && table->times_bytes != 0)
			onvm_flow_slot(table, slots[i])->last_used_ns = now_ns;
		else if (slots[i] < 0)
			slots[i] = onvm_flow_table_add(table, first + (size_t)i * table->key_bytes,
						       now_ns);
	}
}

/* ---- flows that give way: a list, the oldest first ---- */

static void
list_append(struct onvm_flow_table *table, int32_t slot)
{
	onvm_flow_slot(table, slot)->older = table->newest;
	onvm_flow_slot(table, slot)->newer = NO_SLOT;
	if (table->newest == NO_SLOT)
		table->oldest = slot;
	else
		onvm_flow_slot(table, table->newest)->newer = slot;
	table->newest = slot;
}

static void
list_remove(struct onvm_flow_table *table, int32_t slot)
{
	struct onvm_flow_slot *const gone = onvm_flow_slot(table, slot);

	if (gone->older == NO_SLOT)
		table->oldest = gone->newer;
	else
		onvm_flow_slot(table, gone->older)->newer = gone->newer;
	if (gone->newer == NO_SLOT)
		table->newest = gone->older;
	else
		onvm_flow_slot(table, gone->newer)->older = gone->older;
	gone->older = ONVM_FLOW_NOT_LISTED;
}

void
onvm_flow_table_set_evictable(struct onvm_flow_table *table, int32_t slot, bool is_evictable)
{
	if (is_evictable == onvm_flow_gives_way(table, slot))
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

static bool
slot_is_used(const struct onvm_flow_table *table, int32_t slot)
{
	return slot >= 0 && (uint32_t)slot < table->nb_fresh && table->keys[slot] != NULL;
}

/* Delete the flow of a slot, whose key is @p padded. */
static int
slot_delete(struct onvm_flow_table *table, int32_t slot, const void *padded, uint32_t hash)
{
	if (rte_hash_del_key_with_hash(table->hash, padded, hash) < 0)
		return -EIO;
	if (table->times_bytes != 0)
		onvm_flow_table_set_evictable(table, slot, false);
	slot_put(table, slot);
	table->count--;
	return 0;
}

int
onvm_flow_table_delete(struct onvm_flow_table *table, const void *key)
{
	uint8_t space[PADDED_BYTES_MAX];
	const void *const padded = key_padded(table, key, space);
	const uint32_t hash = hash_of(table, padded);
	const int32_t slot = slot_find(table, padded, hash);

	return slot < 0 ? slot : slot_delete(table, slot, padded, hash);
}

int
onvm_flow_table_delete_slot(struct onvm_flow_table *table, int32_t slot)
{
	if (!slot_is_used(table, slot))
		return -ENOENT;
	return slot_delete(table, slot, table->keys[slot], hash_of(table, table->keys[slot]));
}

void *
onvm_flow_table_value(struct onvm_flow_table *table, int32_t slot)
{
	return onvm_flow_value(table, slot);
}

void
onvm_flow_table_prefetch(const struct onvm_flow_table *table, int32_t slot)
{
	onvm_flow_prefetch(table, slot);
}

const void *
onvm_flow_table_key(struct onvm_flow_table *table, int32_t slot)
{
	return slot_is_used(table, slot) ? table->keys[slot] : NULL;
}

int32_t
onvm_flow_table_next(const struct onvm_flow_table *table, int32_t slot)
{
	for (slot = slot < 0 ? 0 : slot; (uint32_t)slot < table->nb_fresh; slot++)
		if (table->keys[slot] != NULL)
			return slot;
	return -ENOENT;
}

uint64_t
onvm_flow_table_used_ns(const struct onvm_flow_table *table, int32_t slot)
{
	return onvm_flow_slot(table, slot)->last_used_ns;
}

void
onvm_flow_table_touch(struct onvm_flow_table *table, int32_t slot, uint64_t now_ns)
{
	onvm_flow_slot(table, slot)->last_used_ns = now_ns;
}

void
onvm_flow_table_set_idle(struct onvm_flow_table *table, int32_t slot, uint64_t idle_ns)
{
	onvm_flow_slot(table, slot)->idle_ns = idle_ns;
}

bool
onvm_flow_table_is_idle(const struct onvm_flow_table *table, int32_t slot, uint64_t now_ns,
			uint64_t idle_ns)
{
	return onvm_flow_is_idle(table, slot, now_ns, idle_ns);
}

uint32_t
onvm_flow_table_expire(struct onvm_flow_table *table, uint64_t now_ns, uint64_t idle_ns,
		       uint32_t budget, void (*on_expired)(void *arg, int32_t slot), void *arg)
{
	const uint32_t nb_slots = table->nb_fresh;
	uint32_t nb_expired = 0;

	if (budget > nb_slots)
		budget = nb_slots;
	for (; budget != 0 && table->count != 0; budget--) {
		const uint32_t slot = table->cursor;

		table->cursor = slot + 1 == nb_slots ? 0 : slot + 1;
		if (table->keys[slot] == NULL ||
		    !onvm_flow_is_idle(table, (int32_t)slot, now_ns, idle_ns))
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
	const uint64_t nb_slots = table->nb_fresh;
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
	memory_heap_free(&table->heap);
	onvm_memory_free(table->memory, table->memory_bytes);
	onvm_memory_free(table->keys, table->capacity * sizeof(*table->keys));
	free(table);
}
