/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_TABLES_H_
#define _ONVM_TABLES_H_

/**
 * @file
 * DPDK's lookup algorithms for NFs, in an unprivileged process without huge pages.
 *
 * onvm_tables_init() starts DPDK's environment once per process, with ordinary memory; the
 * create functions call it themselves. A process that uses no table never starts it.
 *
 * Results: create functions return NULL and leave the reason in errno; others 0 or -errno.
 * Threads: changes by one thread; look-ups by the same thread, unless a table says otherwise.
 */

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <onvm/address.h>

#define ONVM_TABLE_MISS UINT32_MAX
#define ONVM_TABLE_CHUNK 64u /* look-ups that DPDK overlaps; longer bulks are cut */

#if defined(__GNUC__)
#define ONVM_EXPORT __attribute__((visibility("default")))
#else
#define ONVM_EXPORT
#endif

/**
 * Start DPDK's environment with @p megabytes of memory; 0 takes the default (1024).
 *
 * It is address space of this process: pages cost memory when a table first touches them.
 * A second call, whatever it asks for, changes nothing.
 */
ONVM_EXPORT int onvm_tables_init(uint32_t megabytes);
/**
 * Memory for a large array, zero, in huge pages where the system has transparent ones. It costs nothing
 * before it is used. NULL: there is none.
 */
ONVM_EXPORT void *onvm_memory_create(size_t bytes);
/** Free it; @p bytes as it was created with. */
ONVM_EXPORT void onvm_memory_free(void *memory, size_t bytes);
/** CLOCK_MONOTONIC, a few milliseconds late and therefore cheap: when a flow was used. */
ONVM_EXPORT uint64_t onvm_tables_now_ns(void);

/* ---- ACL: first match by priority over 5-tuples (rte_acl) ---- */

struct onvm_acl;

/** A rule. Addresses in network order (IPv4: the first 4 bytes); ranges are inclusive. */
struct onvm_acl_rule {
	uint8_t src[ONVM_ADDRESS_BYTES], dst[ONVM_ADDRESS_BYTES];
	uint8_t src_prefix, dst_prefix;	 /**< bits */
	uint8_t protocol, protocol_mask; /**< mask 0: any, 0xff: exactly `protocol` */
	uint16_t src_port_first, src_port_last;
	uint16_t dst_port_first, dst_port_last;
	int32_t priority; /**< higher wins; 1..2^29-1 */
	uint32_t value;	  /**< result of a look-up; 1..2^32-2 */
};

/**
 * The key of a look-up: 40 bytes, network order. IPv4 uses the first 4 bytes of each address; in the
 * key of a flow the others are 0. onvm/tuple.h reads that of a packet.
 */
struct onvm_tuple {
	uint8_t protocol;
	uint8_t ip_version; /**< 4 or 6; 0: not IP */
	uint8_t pad[2];
	uint8_t src[ONVM_ADDRESS_BYTES], dst[ONVM_ADDRESS_BYTES];
	uint8_t src_port[2], dst_port[2];
};

/**
 * Build a table from @p nb_rules rules (at least one) of one IP version (4 or 6).
 *
 * Ten thousand rules take a fraction of a second and about 120 MB while they are built.
 * errno is EINVAL for a rule outside the ranges above, ENOMEM when memory does not suffice. Which
 * of two matching rules of one priority wins is not defined.
 */
ONVM_EXPORT struct onvm_acl *
onvm_acl_create(uint32_t ip_version, const struct onvm_acl_rule *rules, uint32_t nb_rules);
/** Value of the best match of each tuple; 0: none, or a tuple of another IP version. */
ONVM_EXPORT int onvm_acl_lookup(const struct onvm_acl *acl, const struct onvm_tuple *tuples,
				uint32_t *values, uint32_t nb);
/** onvm_acl_lookup() of one tuple. */
ONVM_EXPORT uint32_t onvm_acl_find(const struct onvm_acl *acl, const struct onvm_tuple *tuple);
ONVM_EXPORT void onvm_acl_free(struct onvm_acl *acl);

/* ---- LPM: longest prefix match (rte_fib, rte_fib6) ---- */

struct onvm_lpm;

/**
 * The first level takes 64 MiB.
 *
 * @param max_routes  prefixes it must hold, 1..2^24. Second-level tables are limited (65536 for
 *                    IPv4, 131072 for IPv6); an add that needs one more gives -ENOSPC.
 *                    rte_fib6 (22.11) does not count those of deleted IPv6 routes as free again
 */
ONVM_EXPORT struct onvm_lpm *onvm_lpm_create(uint32_t ip_version, uint32_t max_routes);
/** @param value  result of a look-up, 0..2^31-2 */
ONVM_EXPORT int
onvm_lpm_add(struct onvm_lpm *lpm, const uint8_t *prefix, uint8_t depth, uint32_t value);
ONVM_EXPORT int onvm_lpm_delete(struct onvm_lpm *lpm, const uint8_t *prefix, uint8_t depth);
/** @param addresses  nb times 4 or 16 bytes, network order; misses give ONVM_TABLE_MISS */
ONVM_EXPORT int onvm_lpm_lookup(const struct onvm_lpm *lpm, const uint8_t *addresses,
				uint32_t *values, uint32_t nb);
/** onvm_lpm_lookup() of one address, given as numbers in host order. */
ONVM_EXPORT uint32_t onvm_lpm_find4(const struct onvm_lpm *lpm, uint32_t address);
ONVM_EXPORT uint32_t onvm_lpm_find6(const struct onvm_lpm *lpm, uint64_t high, uint64_t low);
ONVM_EXPORT void onvm_lpm_free(struct onvm_lpm *lpm);

/*
 * ---- Flow table: exact match with values and idle expiry (rte_hash) ----
 *
 * Strangers choose the keys of flows. So the hash has a secret key, drawn for each table, and a
 * table that is full can give up flows that its owner has called evictable, the oldest first.
 */

struct onvm_flow_table;

/** How a table begins: where its values are, so that kernels reach them without a call. */
struct onvm_flow_values {
	uint8_t *first;
	uint32_t slot_bytes; /**< from one to the next */
};

/** What lies before each value. */
struct onvm_flow_slot {
	uint64_t last_used_ns;
	uint64_t idle_ns;     /**< 0: the table's */
	int32_t older, newer; /**< the table's: of those that give way, or are free */
};

#define ONVM_FLOW_NOT_LISTED (-2) /* `older` of a flow that does not give way */

/** onvm_flow_table_value() in line. */
static inline void *
onvm_flow_value(const struct onvm_flow_table *table, int32_t slot)
{
	const struct onvm_flow_values *const values = (const struct onvm_flow_values *)table;

	return values->first + (size_t)slot * values->slot_bytes;
}

static inline struct onvm_flow_slot *
onvm_flow_slot(const struct onvm_flow_table *table, int32_t slot)
{
	return (struct onvm_flow_slot *)onvm_flow_value(table, slot) - 1;
}

/** onvm_flow_table_prefetch() in line. */
static inline void
onvm_flow_prefetch(const struct onvm_flow_table *table, int32_t slot)
{
	__builtin_prefetch(onvm_flow_value(table, slot), 1);
}

/** Whether the flow is evictable. */
static inline bool
onvm_flow_gives_way(const struct onvm_flow_table *table, int32_t slot)
{
	return onvm_flow_slot(table, slot)->older != ONVM_FLOW_NOT_LISTED;
}

/** onvm_flow_table_is_idle() in line. */
static inline bool
onvm_flow_is_idle(const struct onvm_flow_table *table, int32_t slot, uint64_t now_ns,
		  uint64_t idle_ns)
{
	const struct onvm_flow_slot *const times = onvm_flow_slot(table, slot);

	if (times->idle_ns != 0)
		idle_ns = times->idle_ns;
	return now_ns >= times->last_used_ns && now_ns - times->last_used_ns >= idle_ns;
}

/**
 * @param capacity     flows; an add beyond it gives -ENOSPC
 * @param key_bytes    1..64
 * @param value_bytes  0..256, kept beside each flow and zero when added
 */
ONVM_EXPORT struct onvm_flow_table *
onvm_flow_table_create(uint32_t capacity, uint32_t key_bytes, uint32_t value_bytes);
/**
 * The same for an owner that keeps times itself, as idle_queue.h does: less memory for each flow.
 *
 * Only these calls are for it: those to look up, add and delete, _value(), _key(), _next(), _prefetch(),
 * _hash(), _count() and _free().
 *
 * @param value_bytes  4..256
 */
ONVM_EXPORT struct onvm_flow_table *
onvm_flow_table_create_plain(uint32_t capacity, uint32_t key_bytes, uint32_t value_bytes);
/** Slot of the flow, 0..capacity-1, or -ENOENT. A slot stays the flow's until it is deleted. */
ONVM_EXPORT int32_t onvm_flow_table_lookup(struct onvm_flow_table *table, const void *key);
/** onvm_flow_table_lookup() for @p nb keys that lie one behind the other. */
ONVM_EXPORT void onvm_flow_table_lookup_bulk(struct onvm_flow_table *table, const void *keys,
					     int32_t *slots, uint32_t nb);
/** Slot of the flow, added if it was not there; -ENOSPC when full. */
ONVM_EXPORT int32_t onvm_flow_table_add(struct onvm_flow_table *table, const void *key,
					uint64_t now_ns);
/** onvm_flow_table_add() for @p nb keys that lie one behind the other; -ENOSPC where it is full. */
ONVM_EXPORT void onvm_flow_table_add_bulk(struct onvm_flow_table *table, const void *keys,
					  int32_t *slots, uint32_t nb, uint64_t now_ns);
ONVM_EXPORT int onvm_flow_table_delete(struct onvm_flow_table *table, const void *key);
/** Delete the flow of @p slot; -ENOENT when the slot is free. */
ONVM_EXPORT int onvm_flow_table_delete_slot(struct onvm_flow_table *table, int32_t slot);
ONVM_EXPORT void *onvm_flow_table_value(struct onvm_flow_table *table, int32_t slot);
/** Have the value and the times of the flow in the cache soon. */
ONVM_EXPORT void onvm_flow_table_prefetch(const struct onvm_flow_table *table, int32_t slot);
/** The key, zero-padded to a multiple of 16 bytes; NULL when the slot is free. */
ONVM_EXPORT const void *onvm_flow_table_key(struct onvm_flow_table *table, int32_t slot);
/** First slot with a flow, from @p slot on; -ENOENT: there is none. To walk over all flows. */
ONVM_EXPORT int32_t onvm_flow_table_next(const struct onvm_flow_table *table, int32_t slot);
/** When the flow was used last. */
ONVM_EXPORT uint64_t onvm_flow_table_used_ns(const struct onvm_flow_table *table, int32_t slot);
/** Say that the flow was used at @p now_ns. */
ONVM_EXPORT void
onvm_flow_table_touch(struct onvm_flow_table *table, int32_t slot, uint64_t now_ns);
/** Give this flow an idle time of its own; the table's default is given to _expire(). */
ONVM_EXPORT void
onvm_flow_table_set_idle(struct onvm_flow_table *table, int32_t slot, uint64_t idle_ns);
/**
 * Delete flows idle for @p idle_ns (or for their own idle time), looking at up to @p budget slots
 * from where the last call ended.
 *
 * A flow is idle for as long as @p now_ns is past its last use; it goes when that reaches the
 * idle time.
 *
 * @param on_expired  called before a flow goes, or NULL; it may delete flows of this table
 * @return flows deleted
 */
ONVM_EXPORT uint32_t onvm_flow_table_expire(struct onvm_flow_table *table, uint64_t now_ns,
					    uint64_t idle_ns, uint32_t budget,
					    void (*on_expired)(void *arg, int32_t slot), void *arg);
/**
 * onvm_flow_table_expire() paced by the clock: all slots about once a second, at most 8192 of them
 * in one call. Meant to be called with every burst; a flow goes at most one round after its time.
 */
ONVM_EXPORT uint32_t onvm_flow_table_sweep(struct onvm_flow_table *table, uint64_t now_ns,
					   uint64_t idle_ns,
					   void (*on_expired)(void *arg, int32_t slot), void *arg);
/** Whether _expire() would delete the flow now: no look-up needs to believe it. */
ONVM_EXPORT bool onvm_flow_table_is_idle(const struct onvm_flow_table *table, int32_t slot,
					 uint64_t now_ns, uint64_t idle_ns);
/**
 * Say whether the flow may give way when the table is full; a new flow may not.
 *
 * Meant for what a stranger makes with one packet: half-open connections, and closed ones.
 */
ONVM_EXPORT void
onvm_flow_table_set_evictable(struct onvm_flow_table *table, int32_t slot, bool is_evictable);
/**
 * Delete the flow that has been evictable for the longest time.
 *
 * @param on_evicted  called before it goes, or NULL; it may delete flows of this table
 * @return 0, or -ENOENT: no flow gives way
 */
ONVM_EXPORT int onvm_flow_table_evict(struct onvm_flow_table *table,
				      void (*on_evicted)(void *arg, int32_t slot), void *arg);
/** The hash of a key: the same key has another one in another table. */
ONVM_EXPORT uint32_t onvm_flow_table_hash(const struct onvm_flow_table *table, const void *key);
ONVM_EXPORT uint32_t onvm_flow_table_count(const struct onvm_flow_table *table);
ONVM_EXPORT void onvm_flow_table_free(struct onvm_flow_table *table);

#endif /* _ONVM_TABLES_H_ */
