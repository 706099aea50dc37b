/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FLOW_TABLE_H_
#define _ONVM_FLOW_TABLE_H_

/**
 * @file
 * The flow table: which rendered path the packets of a flow take.
 *
 * Two rte_hash tables (IPv4 with 16-byte, IPv6 with 48-byte keys) with lock-free readers. A flow
 * and its reverse are two entries that point to each other; traffic of either keeps both alive.
 *
 * Keys: addresses, ports, protocol, the outermost VLAN ID and the port the packet came in on, so
 * that two ports may carry the same addresses. ICMP queries use their identifier as both ports.
 * ICMP errors are looked up as the reverse of the packet they quote, so that they meet the NFs of
 * their flow (RFC 5508 requires that of a NAT). Fragments after the first carry no ports: the first
 * one leaves an entry under the datagram's identification.
 *
 * A small cache of positions (flow_cache.h) answers most look-ups; the hash tables answer the rest.
 * Of each direction a packet then reads the key and four bytes, so that those of many flows stay in
 * the core's cache. The time of the last packet is eight bits of ticks; ageing notes it in full
 * before the ticks come round again, and forgets the flow when its life is over (ageing.h).
 *
 * Memory order: keys are written while the path at their position is 0. K1, the exchange that sets
 * the path, pairs with K2, the acquire load of the path before the key is read: a worker that sees
 * a path sees the key of that flow or of a later one. K3, the exchange that clears the path, comes
 * before the words of another key: its acquire half keeps them behind it.
 *
 * Threads: workers look up and add; one registered non-worker thread expires. Removed slots are
 * reused only after every worker has passed a quiescent state (rte_rcu_qsbr). A worker may meet a
 * flow at the moment of its removal. It then finds path 0, or its compare-and-exchange of the path
 * fails.
 */

#include <stdbool.h>
#include <stdint.h>

#include <string.h>

#include <rte_hash.h>
#include <rte_rcu_qsbr.h>

#include <onvm/assert.h>
#include <onvm/keyed_hash.h>
#include <onvm/parse.h>

#include "flows/flow_cache.h"
#include "steering/steering.h"

enum onvm_flow_flags {
	ONVM_FLOW_LEARNED = 1 << 0, /**< the reverse is in the table, or was a moment ago */
	ONVM_FLOW_REVERSE = 1 << 1, /**< this is the reverse of a flow */
	ONVM_FLOW_TAUGHT = 1 << 2,  /**< by a packet from a peer, which knows the path better */
	/* What NFs have let through; see flow_state.h. */
	ONVM_FLOW_SEEN = 1 << 3,     /**< a packet that does not open, this way */
	ONVM_FLOW_ANSWERED = 1 << 4, /**< such a packet the other way */
	ONVM_FLOW_FIN = 1 << 5,	     /**< this way */
	ONVM_FLOW_CLOSED = 1 << 6,   /**< both ways, or reset */
	ONVM_FLOW_ADDRESS =
		1 << 7, /**< no flow: which instances an address has (worker/affinity.h) */
};

/** What the life of an idle flow depends on; the first ONVM_FLOW_LIVES are told by services. */
enum onvm_flow_class {
	ONVM_FLOW_TCP_OPENING = 0, /**< no packet but SYNs has come through */
	ONVM_FLOW_TCP = 1,	   /**< has come through both ways */
	ONVM_FLOW_TCP_CLOSING = 2, /**< closed both ways, or reset */
	ONVM_FLOW_UDP_OPENING = 3, /**< not answered */
	ONVM_FLOW_UDP = 4,
	ONVM_FLOW_ICMP = 5,
	ONVM_FLOW_OTHER = 6,
	ONVM_FLOW_TCP_ONE_SIDED = 7, /**< one way alone: lives as TCP does, and is worth less */
};

/** A packet that tells of the state of its flow, or is looked up otherwise. */
enum onvm_packet_signs {
	ONVM_SIGN_FIN = 1 << 0, /**< these three as in the header of TCP */
	ONVM_SIGN_SYN = 1 << 1,
	ONVM_SIGN_RST = 1 << 2,
	ONVM_SIGN_ERROR = 1 << 6, /**< an ICMP error: of the flow, and yet no packet of it */
	ONVM_SIGN_FRAGMENT = 1 << 7,
};
#define ONVM_SIGNS_TCP (ONVM_SIGN_FIN | ONVM_SIGN_SYN | ONVM_SIGN_RST)

/** One direction of a flow: what every packet reads, so it is kept small. */
struct onvm_flow {
	uint16_t path; /**< atomic: rendered path; 0: the slot is free, or being taken */
	uint8_t flags; /**< atomic: enum onvm_flow_flags */
	uint8_t seen;  /**< atomic: onvm_flow_table.now at the last packet; 0: see `quiet` */
};
static_assert(sizeof(struct onvm_flow) == 4, "sixteen flows per cache line");

struct onvm_flow_key4 {
	uint32_t src, dst;	     /**< network order */
	uint16_t src_port, dst_port; /**< host order */
	uint16_t vlan; /**< VLAN ID; bit 15: the ports are a datagram's identification */
	uint8_t port;  /**< ingress port */
	uint8_t protocol;
};
static_assert(sizeof(struct onvm_flow_key4) == 16, "two words; rte_hash compares those fastest");

struct onvm_flow_key6 {
	uint8_t src[ONVM_ADDRESS_BYTES], dst[ONVM_ADDRESS_BYTES];
	uint16_t src_port, dst_port;
	uint16_t vlan;
	uint8_t port;
	uint8_t protocol;
	uint64_t pad;
};
static_assert(sizeof(struct onvm_flow_key6) == 48, "six words, and a multiple of 16");

#define ONVM_FLOW_VLAN_FRAGMENT 0x8000
/** In the place of a VLAN ID: the key is an address (as source) and a service (as source port). */
#define ONVM_FLOW_VLAN_ADDRESS 0x4000

/** Which table a packet is looked up in. */
enum onvm_flow_kind {
	ONVM_FLOW_KIND_NONE = 0, /**< no IP: no flow */
	ONVM_FLOW_KIND_IPV4 = 1,
	ONVM_FLOW_KIND_IPV6 = 2,
};

union onvm_flow_key {
	struct onvm_flow_key4 v4;
	struct onvm_flow_key6 v6;
};

/**
 * Position of a flow in either table: IPv4 positions come first, IPv6 behind them.
 */
struct onvm_flow_table {
	struct rte_hash *hash4, *hash6;
	struct onvm_flow_cache cache;
	struct onvm_flow *flows; /**< by position */
	uint64_t (*keys4)[2];	 /**< atomic words; by position */
	uint64_t (*keys6)[6];	 /**< the same, by position less nb4 */
	uint32_t *peers;	 /**< position of the other direction, or ONVM_FLOW_NONE */
	uint32_t *quiet;	 /**< atomic: with `seen` 0, tick of the last packet << 3 | class */
	/** atomic: positions + 1 of the addresses that are kept while the flow lives; 0: none */
	uint32_t (*owners)[ONVM_AFFINITIES_MAX];
	uint32_t nb4, nb6;	/**< positions of each */
	uint32_t capacities[2]; /**< flows for which there is room, by kind */
	uint32_t nb_of[2];	/**< atomic: positions with a path, by kind; rte_hash counts late */
	uint8_t has_owners;	/**< atomic: some flow has one */
	uint32_t tick_ms;
	uint32_t ticks;	 /**< atomic: set by housekeeping */
	uint8_t now;	 /**< atomic: the same, 1..255 */
	uint32_t cursor; /**< housekeeping's: next position to look at */
	uint32_t passes; /**< housekeeping's: whole passes made */
	uint32_t high;	 /**< atomic: positions below this one have been used */
	/** atomic: ticks, by chain of the path and class (ageing.h) */
	uint32_t lives[ONVM_CHAINS_MAX][ONVM_FLOW_CLASSES];
};

/**
 * @param capacity  flows, each with its reverse, of IPv4; a quarter as many of IPv6
 * @param idle_ms   life of an idle flow, where onvm_flow_set_lives() says no other
 * @param qsbr      of the workers
 */
int onvm_flow_table_init(struct onvm_flow_table *table, uint32_t capacity, uint32_t idle_ms,
			 struct rte_rcu_qsbr *qsbr);
void onvm_flow_table_fini(struct onvm_flow_table *table);

/** Key of a packet that came in on @p port. */
enum onvm_flow_kind onvm_flow_key_make(const uint8_t *data, const struct onvm_headers *headers,
				       uint8_t port, union onvm_flow_key *key);
/** Key that the reverse of @p key has when it comes in on @p port. */
void onvm_flow_key_reverse(enum onvm_flow_kind kind, const union onvm_flow_key *key, uint8_t port,
			   union onvm_flow_key *reverse);
/** Key under which the other fragments of the datagram will be looked up; false: no fragment. */
bool onvm_flow_key_fragment(const uint8_t *data, const struct onvm_headers *headers, uint8_t port,
			    union onvm_flow_key *key);

/** What a packet tells besides its key. */
uint8_t onvm_flow_signs(const struct onvm_headers *headers);

uint32_t onvm_flow_key_hash6(const struct onvm_flow_key6 *key);

/** Hash of a key of IPv4, of which these are the words. */
static inline uint32_t
onvm_flow_words_hash4(uint64_t addresses, uint64_t rest)
{
	return keyed_hash_words(addresses, rest);
}

static inline uint32_t
onvm_flow_key_hash4(const struct onvm_flow_key4 *key)
{
	uint64_t words[2];

	memcpy(words, key, sizeof(words));
	return onvm_flow_words_hash4(words[0], words[1]);
}

static inline uint32_t
onvm_flow_key_hash(enum onvm_flow_kind kind, const union onvm_flow_key *key)
{
	return kind == ONVM_FLOW_KIND_IPV4 ? onvm_flow_key_hash4(&key->v4) :
					     onvm_flow_key_hash6(&key->v6);
}

/** Position of the flow, or ONVM_FLOW_NONE. */
uint32_t onvm_flow_table_find(const struct onvm_flow_table *table, enum onvm_flow_kind kind,
			      const union onvm_flow_key *key, uint32_t hash);
/** Position of the flow, added if need be, or ONVM_FLOW_NONE when the table is full. */
uint32_t onvm_flow_table_put(struct onvm_flow_table *table, enum onvm_flow_kind kind,
			     const union onvm_flow_key *key, uint32_t hash);
/** Ticks after which a flow has been idle for @p ms: the last packet came within one of them. */
static inline uint32_t
onvm_flow_ticks_of(const struct onvm_flow_table *table, uint64_t ms)
{
	return (uint32_t)((ms + table->tick_ms - 1) / table->tick_ms) + 1;
}

/** Values of onvm_flow.seen, without 0. */
#define ONVM_SEEN_VALUES 255u

/** Set the time; by housekeeping. */
static inline void
onvm_flow_table_set_time(struct onvm_flow_table *table, uint64_t time_ms)
{
	const uint64_t ticks = time_ms / table->tick_ms;

	__atomic_store_n(&table->ticks, (uint32_t)ticks, __ATOMIC_RELAXED);
	__atomic_store_n(&table->now, (uint8_t)(1 + ticks % ONVM_SEEN_VALUES), __ATOMIC_RELAXED);
}

/** A packet of the flow has come; stores only a new tick, as the line may be another core's. */
static inline void
onvm_flow_touch(struct onvm_flow *flow, uint8_t now)
{
	if (__atomic_load_n(&flow->seen, __ATOMIC_RELAXED) != now)
		__atomic_store_n(&flow->seen, now, __ATOMIC_RELAXED);
}

/** Positions with a path. */
static inline uint32_t
onvm_flow_table_used(const struct onvm_flow_table *table)
{
	return __atomic_load_n(&table->nb_of[0], __ATOMIC_RELAXED) +
	       __atomic_load_n(&table->nb_of[1], __ATOMIC_RELAXED);
}

/** Count a position that has got a path (1), or lost it (-1). */
static inline void
onvm_flow_count(struct onvm_flow_table *table, uint32_t position, int32_t change)
{
	__atomic_add_fetch(&table->nb_of[position >= table->nb4], (uint32_t)change,
			   __ATOMIC_RELAXED);
	if (change > 0)
		onvm_flow_cache_fit(&table->cache, onvm_flow_table_used(table));
}

/** Let the flow at @p position, just put, take @p path, not 0. */
static inline void
onvm_flow_set_path(struct onvm_flow_table *table, uint32_t position, uint16_t path)
{
	ONVM_ASSERT(position < table->nb4 + table->nb6 && path != 0);
	/* K1: pairs with the acquire load K2 in onvm_flow_path_of_key(). */
	if (__atomic_exchange_n(&table->flows[position].path, path, __ATOMIC_ACQ_REL) == 0)
		onvm_flow_count(table, position, 1);
}

/** Whether @p words, which another worker may be writing, are the first @p nb of @p key. */
static __rte_always_inline bool
onvm_flow_words_are(const uint64_t *words, const union onvm_flow_key *key, uint32_t nb)
{
	uint64_t differences = 0;

	for (uint32_t i = 0; i < nb; i++) {
		uint64_t wanted;

		memcpy(&wanted, (const uint8_t *)key + i * sizeof(wanted), sizeof(wanted));
		differences |= wanted ^ __atomic_load_n(&words[i], __ATOMIC_RELAXED);
	}
	return differences == 0;
}

/**
 * Path of the flow with @p key if it is the one at @p position; 0: it is another one, or expired.
 *
 * The path is read first: keys are written while it is 0, so a path other than 0 is followed by the
 * key of that flow or of a later one.
 */
static inline uint16_t
onvm_flow_path_of_key(const struct onvm_flow_table *table, uint32_t position,
		      enum onvm_flow_kind kind, const union onvm_flow_key *key)
{
	/* K2: pairs with the exchange K1 in onvm_flow_set_path(). */
	const uint16_t path = __atomic_load_n(&table->flows[position].path, __ATOMIC_ACQUIRE);
	bool is_it;

	ONVM_ASSERT(position < table->nb4 + table->nb6);
	if (likely(kind == ONVM_FLOW_KIND_IPV4))
		is_it = position < table->nb4 &&
			onvm_flow_words_are(table->keys4[position], key, 2);
	else
		is_it = position >= table->nb4 &&
			onvm_flow_words_are(table->keys6[position - table->nb4], key, 6);
	return likely(is_it) ? path : 0;
}

/**
 * Let the flow at @p position take @p path instead of @p known.
 *
 * @return false: another thread was quicker, and @p known is the path it has now; 0: it expired
 */
static inline bool
onvm_flow_change_path(struct onvm_flow_table *table, uint32_t position, uint16_t *known,
		      uint16_t path)
{
	ONVM_ASSERT(position < table->nb4 + table->nb6);
	return __atomic_compare_exchange_n(&table->flows[position].path, known, path, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/** Let the next packet of the flow at @p position teach the other direction again. */
static inline void
onvm_flow_unlearn(struct onvm_flow_table *table, uint32_t position)
{
	__atomic_and_fetch(&table->flows[position].flags, (uint8_t)~ONVM_FLOW_LEARNED,
			   __ATOMIC_RELAXED);
}

/** Mark the paths of all flows (steering/recycle.h). */
void onvm_flow_table_mark(const struct onvm_flow_table *table, struct onvm_steering *steering);
/** Copy the key at @p position; false when it is free. */
bool
onvm_flow_table_read(const struct onvm_flow_table *table, uint32_t position,
		     enum onvm_flow_kind *kind, union onvm_flow_key *key, struct onvm_flow *flow);

#endif /* _ONVM_FLOW_TABLE_H_ */
