/* SPDX-License-Identifier: Apache-2.0 */
#include "flows/ageing.h"

#include <stddef.h>

#include <rte_byteorder.h>

#include "packet_memory.h"

/** A flow that has been idle for so many ticks is quiet: few of 255, and many, for to say so
 * writes to a line that a worker reads. */
#define QUIET_TICKS 40
/** The same when the table becomes full. */
#define QUIET_TICKS_FULL 2
#define CLASS_BITS 3
#define TICK_MASK (UINT32_MAX >> CLASS_BITS)
static_assert(ONVM_FLOW_CLASSES <= 1u << CLASS_BITS, "a class beside the ticks");

/** Life of an address that no flow names: longer than ageing takes to pass all flows. */
#define ADDRESS_MS 10000

/** Parts of a life that are left when the table is full: of 1. */
#define WHOLE_LIFE 256u

/** What flows are worth: the least valuable go first. */
enum worth {
	WORTH_LITTLE = 0, /**< not answered, or closed */
	WORTH_SOME = 1,
	WORTH_MOST = 2,
	NB_WORTHS = 3,
};

static const uint8_t worth_of[ONVM_FLOW_CLASSES] = {
	[ONVM_FLOW_TCP_OPENING] = WORTH_LITTLE, [ONVM_FLOW_TCP] = WORTH_MOST,
	[ONVM_FLOW_TCP_CLOSING] = WORTH_LITTLE, [ONVM_FLOW_UDP_OPENING] = WORTH_LITTLE,
	[ONVM_FLOW_UDP] = WORTH_MOST,		[ONVM_FLOW_ICMP] = WORTH_LITTLE,
	[ONVM_FLOW_OTHER] = WORTH_SOME,		[ONVM_FLOW_TCP_ONE_SIDED] = WORTH_SOME,
};

/** What one pass of ageing works with. */
struct pass {
	struct onvm_flow_table *table;
	const struct onvm_steering *steering;
	bool resolves;	 /**< some paths have retired */
	bool has_owners; /**< some flow has one */
	uint32_t ticks;
	uint8_t now;
	uint32_t shares[2][NB_WORTHS]; /**< of a life, in 1/WHOLE_LIFE; by kind of flow */
	uint32_t quiet_ticks[2];       /**< by kind of flow */
};

void
onvm_flow_set_lives(struct onvm_flow_table *table, uint16_t chain,
		    const uint32_t ms[ONVM_FLOW_LIVES])
{
	uint32_t *lives = table->lives[chain];

	for (uint32_t i = 0; i < ONVM_FLOW_LIVES; i++)
		__atomic_store_n(&lives[i], onvm_flow_ticks_of(table, ms[i]), __ATOMIC_RELAXED);
	__atomic_store_n(&lives[ONVM_FLOW_TCP_ONE_SIDED], lives[ONVM_FLOW_TCP], __ATOMIC_RELAXED);
}

/** Share that is left at @p used, when it falls from all at @p first to nothing at @p last. */
static uint32_t
share_of(uint64_t used, uint64_t first, uint64_t last)
{
	if (used <= first)
		return WHOLE_LIFE;
	return used >= last ? 0 : (uint32_t)(WHOLE_LIFE * (last - used) / (last - first));
}

static void
set_shares(struct pass *pass, uint32_t kind)
{
	const uint64_t capacity = pass->table->capacities[kind];
	const uint64_t used = __atomic_load_n(&pass->table->nb_of[kind], __ATOMIC_RELAXED);

	pass->shares[kind][WORTH_LITTLE] = share_of(used, capacity * 7 / 8, capacity * 31 / 32);
	pass->shares[kind][WORTH_SOME] = share_of(used, capacity * 31 / 32, capacity * 63 / 64);
	pass->shares[kind][WORTH_MOST] = WHOLE_LIFE;
	pass->quiet_ticks[kind] = pass->shares[kind][WORTH_LITTLE] == WHOLE_LIFE ? QUIET_TICKS :
										   QUIET_TICKS_FULL;
}

static uint32_t
peer_of(const struct onvm_flow_table *table, uint32_t position)
{
	return __atomic_load_n(&table->peers[position], __ATOMIC_RELAXED);
}

/** Position of the other direction, if it is in the table and knows us; else ONVM_FLOW_NONE. */
static uint32_t
living_peer_of(const struct onvm_flow_table *table, uint32_t position)
{
	const uint32_t peer = peer_of(table, position);

	if (peer == ONVM_FLOW_NONE || peer_of(table, peer) != position ||
	    __atomic_load_n(&table->flows[peer].path, __ATOMIC_ACQUIRE) == 0)
		return ONVM_FLOW_NONE;
	return peer;
}

static enum onvm_flow_class
class_of(const struct onvm_flow_table *table, uint32_t position, uint8_t flags)
{
	/* Ports, VLAN, ingress port and protocol: in both kinds of keys one word of the same form. */
	const uint64_t word = __atomic_load_n(position < table->nb4 ?
						      &table->keys4[position][1] :
						      &table->keys6[position - table->nb4][4],
					      __ATOMIC_RELAXED);
	const uint16_t vlan = (uint16_t)(word >> 32);

	switch ((uint8_t)(word >> 56)) {
	case ONVM_PROTO_TCP:
		if ((vlan & ONVM_FLOW_VLAN_FRAGMENT) != 0)
			return ONVM_FLOW_UDP_OPENING;
		if ((flags & ONVM_FLOW_CLOSED) != 0)
			return ONVM_FLOW_TCP_CLOSING;
		if ((flags & (ONVM_FLOW_SEEN | ONVM_FLOW_ANSWERED)) == 0)
			return ONVM_FLOW_TCP_OPENING;
		return (flags & ONVM_FLOW_SEEN) != 0 && (flags & ONVM_FLOW_ANSWERED) != 0 ?
			       ONVM_FLOW_TCP :
			       ONVM_FLOW_TCP_ONE_SIDED;
	case ONVM_PROTO_ICMP:
	case ONVM_PROTO_ICMPV6:
		return ONVM_FLOW_ICMP;
	case 0: /* an address */
	case ONVM_PROTO_UDP:
		return (flags & ONVM_FLOW_ANSWERED) != 0 && (flags & ONVM_FLOW_SEEN) != 0 ?
			       ONVM_FLOW_UDP :
			       ONVM_FLOW_UDP_OPENING;
	default:
		return ONVM_FLOW_OTHER;
	}
}
static_assert(offsetof(struct onvm_flow_key4, vlan) == 8 + 4 &&
		      offsetof(struct onvm_flow_key4, protocol) == 8 + 7 &&
		      offsetof(struct onvm_flow_key6, vlan) == 4 * 8 + 4 &&
		      offsetof(struct onvm_flow_key6, protocol) == 4 * 8 + 7 &&
		      RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN,
	      "class_of() takes VLAN and protocol from a word");

/** Ticks since @p seen, a time of onvm_flow_table.now, not 0. */
static uint32_t
ticks_since(uint8_t now, uint8_t seen)
{
	return now >= seen ? (uint32_t)(now - seen) : now + ONVM_SEEN_VALUES - seen;
}

/** Ticks between two times of `quiet`. */
static uint32_t
ticks_between(uint32_t before, uint32_t after)
{
	return (after - before) & TICK_MASK;
}

/** Ticks since the last packet of the flow at @p position. */
static uint32_t
age_of(const struct onvm_flow_table *table, uint32_t position, uint32_t ticks, uint8_t now)
{
	const uint8_t seen = __atomic_load_n(&table->flows[position].seen, __ATOMIC_RELAXED);

	if (seen != 0)
		return ticks_since(now, seen);
	return ticks_between(__atomic_load_n(&table->quiet[position], __ATOMIC_RELAXED) >>
				     CLASS_BITS,
			     ticks);
}

uint32_t
onvm_flow_idle_ticks(const struct onvm_flow_table *table, uint32_t position)
{
	return age_of(table, position, __atomic_load_n(&table->ticks, __ATOMIC_RELAXED),
		      __atomic_load_n(&table->now, __ATOMIC_RELAXED));
}

/** Keep the addresses that own the flow at @p position, and as long as it is worth something. */
static void
touch_owners(const struct pass *pass, uint32_t position, uint8_t flags)
{
	const uint8_t both = ONVM_FLOW_SEEN | ONVM_FLOW_ANSWERED;

	for (uint32_t i = 0; i < ONVM_AFFINITIES_MAX; i++) {
		const uint32_t owner =
			__atomic_load_n(&pass->table->owners[position][i], __ATOMIC_RELAXED);
		struct onvm_flow *address;
		uint8_t known;

		if (owner == 0)
			return;
		address = &pass->table->flows[owner - 1];
		known = __atomic_load_n(&address->flags, __ATOMIC_RELAXED);
		if ((known & ONVM_FLOW_ADDRESS) == 0)
			continue; /* its position has been given to a flow since */
		onvm_flow_touch(address, pass->now);
		if ((flags & both) == both && (known & both) != both)
			__atomic_or_fetch(&address->flags, both, __ATOMIC_RELAXED);
	}
}

/**
 * Whether the flow at @p position is quiet. Notes when it became so; a flow that becomes quiet gets
 * the class that its packets have given it.
 */
static bool
is_quiet(const struct pass *pass, uint32_t position, uint8_t flags)
{
	struct onvm_flow_table *table = pass->table;
	uint8_t seen = __atomic_load_n(&table->flows[position].seen, __ATOMIC_RELAXED);
	uint32_t age;

	if (seen == 0)
		return true;
	age = ticks_since(pass->now, seen);
	if (age < pass->quiet_ticks[position >= table->nb4])
		return false;
	__atomic_store_n(&table->quiet[position],
			 (pass->ticks - age) << CLASS_BITS |
				 (uint32_t)class_of(table, position, flags),
			 __ATOMIC_RELAXED);
	return __atomic_compare_exchange_n(&table->flows[position].seen, &seen, 0, false,
					   __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/** Life of the flow at @p position, with @p path and of @p class, in ticks. */
static uint32_t
life_of(const struct pass *pass, uint32_t position, uint16_t path, uint8_t flags, uint32_t class)
{
	const struct onvm_flow_table *table = pass->table;
	const uint16_t chain = pass->steering == NULL ? 0 : pass->steering->paths[path].chain;
	const uint64_t life =
		(flags & ONVM_FLOW_ADDRESS) != 0 ?
			onvm_flow_ticks_of(table, ADDRESS_MS) :
			__atomic_load_n(&table->lives[chain][class], __ATOMIC_RELAXED);

	return (uint32_t)(life * pass->shares[position >= table->nb4][worth_of[class]] /
			  WHOLE_LIFE);
}

/** Whether the flow and its other direction have been idle for long enough. */
static bool
is_forgettable(const struct pass *pass, uint32_t position, uint16_t path, uint8_t flags)
{
	struct onvm_flow_table *table = pass->table;
	uint32_t word, age, life, peer;

	if (!is_quiet(pass, position, flags))
		return false;
	word = __atomic_load_n(&table->quiet[position], __ATOMIC_RELAXED);
	age = ticks_between(word >> CLASS_BITS, pass->ticks);
	life = life_of(pass, position, path, flags, word & ((1u << CLASS_BITS) - 1));
	if (age < life)
		return false;
	peer = living_peer_of(table, position);
	if (peer == ONVM_FLOW_NONE)
		return true;
	age = age_of(table, peer, pass->ticks, pass->now);
	if (age >= life)
		return true;
	/* Not to be asked again before the other direction has been idle for long enough. */
	__atomic_store_n(&table->quiet[position],
			 (pass->ticks - age) << CLASS_BITS | (word & ((1u << CLASS_BITS) - 1)),
			 __ATOMIC_RELAXED);
	return false;
}

/** Whether the other direction, which was in the table, is there no more. */
static bool
has_lost_peer(const struct onvm_flow_table *table, uint32_t position, uint8_t flags)
{
	return (flags & ONVM_FLOW_LEARNED) != 0 && peer_of(table, position) != ONVM_FLOW_NONE &&
	       living_peer_of(table, position) == ONVM_FLOW_NONE;
}

/** Take the flow at @p position out of the table, unless its path is @p known no more. */
static bool
forget(struct onvm_flow_table *table, uint32_t position, uint16_t known)
{
	struct onvm_flow *flow = &table->flows[position];
	union onvm_flow_key key;
	enum onvm_flow_kind kind;
	struct onvm_flow copy;
	uint32_t peer;
	const bool has_key = onvm_flow_table_read(table, position, &kind, &key, &copy);

	/* A worker has given it another one: it lives. */
	if (!onvm_flow_change_path(table, position, &known, 0))
		return false;
	onvm_flow_count(table, position, -1);
	if (!has_key)
		return true;
	peer = peer_of(table, position);
	if (peer != ONVM_FLOW_NONE && peer_of(table, peer) == position)
		onvm_flow_unlearn(table, peer);
	rte_hash_del_key(kind == ONVM_FLOW_KIND_IPV4 ? table->hash4 : table->hash6, &key);
	/* A worker may have put the key again before it was deleted; then it is put once more by
	 * the next packet, and this position must not keep a path. */
	if (__atomic_exchange_n(&flow->path, 0, __ATOMIC_ACQ_REL) != 0)
		onvm_flow_count(table, position, -1);
	return true;
}

/** Look at the flow at @p position, whose path is not 0; @return whether it was forgotten. */
static bool
look_at(const struct pass *pass, uint32_t position, uint16_t path)
{
	struct onvm_flow_table *table = pass->table;
	const uint8_t flags = __atomic_load_n(&table->flows[position].flags, __ATOMIC_RELAXED);
	const uint16_t resolved = pass->resolves ? onvm_steering_resolve(pass->steering, path) :
						   path;

	if (resolved == 0 || is_forgettable(pass, position, path, flags)) {
		if (forget(table, position, path))
			return true;
	} else if (resolved != path) { /* a worker that is quicker has resolved it, too */
		onvm_flow_change_path(table, position, &path, resolved);
	}
	if (has_lost_peer(table, position, flags))
		onvm_flow_unlearn(table, position);
	if (pass->has_owners)
		touch_owners(pass, position, flags);
	return false;
}

uint32_t
onvm_flow_table_age(struct onvm_flow_table *table, uint32_t budget,
		    const struct onvm_steering *steering)
{
	const uint32_t end = __atomic_load_n(&table->high, __ATOMIC_RELAXED);
	struct pass pass = {
		.table = table,
		.steering = steering,
		.resolves = steering != NULL &&
			    __atomic_load_n(&steering->nb_retired, __ATOMIC_ACQUIRE) != 0,
		.has_owners = __atomic_load_n(&table->has_owners, __ATOMIC_RELAXED) != 0,
		.ticks = __atomic_load_n(&table->ticks, __ATOMIC_RELAXED),
		.now = __atomic_load_n(&table->now, __ATOMIC_RELAXED),
	};
	uint32_t nb_forgotten = 0;

	set_shares(&pass, 0);
	set_shares(&pass, 1);
	for (; budget != 0; budget--) {
		uint16_t path;

		if (table->cursor >= end) {
			table->cursor = 0;
			table->passes++;
			break;
		}
		path = __atomic_load_n(&table->flows[table->cursor].path, __ATOMIC_ACQUIRE);
		if (path != 0)
			nb_forgotten += look_at(&pass, table->cursor, path);
		table->cursor++;
	}
	return nb_forgotten;
}
