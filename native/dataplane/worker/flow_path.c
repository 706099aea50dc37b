/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The path of a packet's flow: known, or chosen for the first packet of a new one; and the reverse
 * flow, learned when a packet leaves.
 */

#include "worker/flow_path.h"

#include <rte_byteorder.h>

#include "flows/chain_rules.h"
#include "flows/flow_state.h"
#include "steering/choose.h"
#include "steering/claims.h"
#include "worker/affinity.h"

/** NF host that has claimed the destination of packet @p i; 0: none has. */
static uint16_t
claimed_by(const struct onvm_worker *worker, const struct onvm_burst *burst, uint32_t i)
{
	/* P2: pairs with the release store P1 of the claims in control/claims.c. */
	const struct onvm_claims *claims =
		__atomic_load_n(&worker->dp->steering.claims, __ATOMIC_ACQUIRE);
	const union onvm_flow_key *key = &burst->keys[i];

	if (likely(claims == NULL))
		return 0;
	if (burst->kinds[i] == ONVM_FLOW_KIND_IPV4)
		return onvm_claims_find(claims, 4, (const uint8_t *)&key->v4.dst, key->v4.protocol,
					key->v4.dst_port);
	return onvm_claims_find(claims, 6, key->v6.dst, key->v6.protocol, key->v6.dst_port);
}

/** The chain entry of a new flow: by the rules of its port, else that of the port's chain. */
static struct onvm_chain_entry
entry_of(const struct onvm_worker *worker, const struct onvm_worker_port *wport, uint32_t i,
	 const struct onvm_chain_entry *bound)
{
	/* P2: pairs with the release store P1 in onvm_dp_port_rules(). */
	const struct onvm_chain_rules *rules =
		__atomic_load_n(&wport->port->rules, __ATOMIC_ACQUIRE);
	const enum onvm_flow_kind kind = (enum onvm_flow_kind)wport->burst.kinds[i];
	const struct onvm_chain *chain;
	struct onvm_chain_entry entry;

	if (likely(rules == NULL) || kind == ONVM_FLOW_KIND_NONE)
		return *bound;
	entry.chain = onvm_chain_rules_find(rules, kind, &wport->burst.keys[i]);
	chain = &worker->dp->steering.chains[entry.chain];
	/* P2: pairs with the release store P1 in onvm_swap_candidates(). */
	entry.candidates = __atomic_load_n(&chain->candidates, __ATOMIC_ACQUIRE);
	if (entry.chain == 0 || entry.candidates == NULL)
		return *bound;
	entry.is_far = chain->near_port != wport->port->id;
	return entry;
}

uint16_t
onvm_chain_of(const struct onvm_worker *worker, const struct onvm_worker_port *wport,
	      const struct onvm_chain_entry *bound, uint32_t i)
{
	return entry_of(worker, wport, i, bound).chain;
}

/** Wish for the instance that has claimed the destination, and those that the addresses have. */
static void
wish(const struct onvm_worker *worker, const struct onvm_burst *burst, uint32_t i,
     const struct onvm_chain_entry *entry, struct onvm_wishes *wishes, struct onvm_owners *owners)
{
	wishes->nb = 0;
	wishes->hosts[0] = claimed_by(worker, burst, i);
	if (unlikely(wishes->hosts[0] != 0))
		wishes->nb = 1;
	if (unlikely(entry->candidates->nb_addresses != 0))
		onvm_affinity_wishes(worker, burst, i, entry, wishes, owners);
}

/**
 * Path of a flow for which the table has no room: a hash decides, so that all of its packets take
 * the same one, and those of its reverse, unless NFs translate it.
 */
static uint16_t
path_without_entry(struct onvm_worker *worker, const struct onvm_burst *burst, uint32_t i,
		   const struct onvm_chain_entry *entry)
{
	const enum onvm_flow_kind kind = (enum onvm_flow_kind)burst->kinds[i];
	struct onvm_owners owners = {.is_full = true};
	union onvm_flow_key key, reverse;
	struct onvm_wishes wishes;
	uint16_t path;

	onvm_flow_key_reverse(kind, &burst->keys[i], 0, &reverse);
	onvm_flow_key_reverse(kind, &reverse, 0, &key);
	wish(worker, burst, i, entry, &wishes, &owners);
	path = onvm_steering_choose_by_hash(&worker->dp->steering, entry->chain, entry->candidates,
					    &wishes,
					    (uint64_t)onvm_flow_key_hash(kind, &key) +
						    onvm_flow_key_hash(kind, &reverse));
	return entry->is_far && path != 0 ? worker->dp->steering.paths[path].opposite : path;
}

/**
 * Choose the path of a flow seen for the first time: through the instance that has claimed its
 * destination, whichever way it goes; through those that its addresses have; else through any.
 *
 * @param owners  set to the addresses that decided
 */
static uint16_t
choose_path(struct onvm_worker *worker, const struct onvm_burst *burst, uint32_t i,
	    const struct onvm_chain_entry *entry, struct onvm_owners *owners)
{
	struct onvm_steering *steering = &worker->dp->steering;
	struct onvm_wishes wishes;
	uint16_t path;

	owners->nb = 0;
	owners->is_full = false;
	if (burst->kinds[i] == ONVM_FLOW_KIND_NONE) {
		path = entry->candidates->default_path;
		return entry->is_far && path != 0 ? steering->paths[path].opposite : path;
	}
	do {
		wish(worker, burst, i, entry, &wishes, owners);
		path = onvm_steering_choose_with(steering, entry->chain, entry->candidates,
						 &worker->selector, &wishes);
		if (path == 0 && wishes.nb != 0) /* the table of paths is full */
			path = onvm_steering_choose(steering, entry->chain, entry->candidates,
						    &worker->selector);
	} while (path != 0 && unlikely(!onvm_affinity_keep(worker, owners, path)));
	return entry->is_far && path != 0 ? steering->paths[path].opposite : path;
}

static void
flow_set(struct onvm_flow_table *table, uint32_t position, uint16_t path, uint8_t flags)
{
	struct onvm_flow *flow = &table->flows[position];

	__atomic_store_n(&flow->seen, __atomic_load_n(&table->now, __ATOMIC_RELAXED),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&table->peers[position], ONVM_FLOW_NONE, __ATOMIC_RELAXED);
	__atomic_store_n(&flow->flags, flags, __ATOMIC_RELAXED);
	if (unlikely(__atomic_load_n(&table->has_owners, __ATOMIC_RELAXED)))
		__atomic_store_n(&table->owners[position][0], 0, __ATOMIC_RELAXED);
	onvm_flow_set_path(table, position, path);
}

/** Put a new flow into the table; @return its position. */
static uint32_t
flow_add(struct onvm_worker *worker, const struct onvm_burst *burst, uint32_t i, uint16_t path,
	 bool is_far, const struct onvm_owners *owners)
{
	struct onvm_flow_table *table = &worker->dp->flows;
	const uint32_t position = onvm_flow_table_put(table, (enum onvm_flow_kind)burst->kinds[i],
						      &burst->keys[i], burst->hashes[i]);

	if (position == ONVM_FLOW_NONE) {
		worker->stats.flow_table_full++;
		return position;
	}
	worker->stats.new_flows++;
	flow_set(table, position, path, is_far ? ONVM_FLOW_REVERSE : 0);
	if (unlikely(owners->nb != 0))
		onvm_affinity_own(table, position, owners);
	return position;
}

/** Let the other fragments of a datagram follow its first one. */
static void
fragment_add(struct onvm_worker *worker, const struct onvm_worker_port *wport,
	     struct rte_mbuf *mbuf, uint16_t path)
{
	const uint8_t *data = rte_pktmbuf_mtod(mbuf, const uint8_t *);
	struct onvm_headers headers;
	union onvm_flow_key key;
	enum onvm_flow_kind kind;
	uint32_t position;

	onvm_parse(data, mbuf->data_len, &headers);
	if (headers.fragment_offset != 0 ||
	    !onvm_flow_key_fragment(data, &headers, (uint8_t)wport->port->id, &key))
		return;
	kind = headers.ip_version == 4 ? ONVM_FLOW_KIND_IPV4 : ONVM_FLOW_KIND_IPV6;
	position =
		onvm_flow_table_put(&worker->dp->flows, kind, &key, onvm_flow_key_hash(kind, &key));
	if (position != ONVM_FLOW_NONE)
		flow_set(&worker->dp->flows, position, path, ONVM_FLOW_LEARNED | ONVM_FLOW_SEEN);
}

/** Path of the flow of packet @p i; 0 when it has expired, is just being added, or cannot go on. */
static uint16_t
path_of_known(struct onvm_worker *worker, const struct onvm_worker_port *wport,
	      const struct onvm_chain_entry *bound, uint32_t i)
{
	const uint32_t position = wport->burst.positions[i];
	struct onvm_flow_table *flows = &worker->dp->flows;
	struct onvm_flow *flow = &flows->flows[position];
	/* A guess may have become another flow's position since it was looked at. */
	uint16_t known = onvm_flow_path_of_key(flows, position,
					       (enum onvm_flow_kind)wport->burst.kinds[i],
					       &wport->burst.keys[i]);

	while (known != 0) {
		uint16_t path = onvm_steering_resolve(&worker->dp->steering, known);

		if (unlikely(path == 0)) { /* without successor */
			const struct onvm_chain_entry entry = entry_of(worker, wport, i, bound);
			struct onvm_owners owners;

			path = choose_path(worker, &wport->burst, i, &entry, &owners);
		}
		if (unlikely(path != known)) {
			if (path == 0)
				return 0;
			if (!onvm_flow_change_path(flows, position, &known, path))
				continue;
			onvm_flow_unlearn(flows, position); /* its reverse is on the old path */
		}
		onvm_flow_touch(flow, __atomic_load_n(&flows->now, __ATOMIC_RELAXED));
		return path;
	}
	return 0;
}

uint16_t
onvm_path_of(struct onvm_worker *worker, struct onvm_worker_port *wport,
	     const struct onvm_chain_entry *bound, struct rte_mbuf *mbuf, uint32_t i)
{
	struct onvm_burst *burst = &wport->burst;
	const bool has_flow = burst->kinds[i] != ONVM_FLOW_KIND_NONE;
	uint16_t path = 0;

	/* An earlier packet of this burst may have added the flow. */
	if (burst->positions[i] == ONVM_FLOW_NONE && has_flow)
		burst->positions[i] = onvm_flow_table_find(&worker->dp->flows,
							   (enum onvm_flow_kind)burst->kinds[i],
							   &burst->keys[i], burst->hashes[i]);
	if (burst->positions[i] != ONVM_FLOW_NONE)
		path = path_of_known(worker, wport, bound, i);
	if (path == 0) {
		const struct onvm_chain_entry entry = entry_of(worker, wport, i, bound);
		struct onvm_owners owners;

		path = choose_path(worker, burst, i, &entry, &owners);
		if (path != 0 && has_flow)
			burst->positions[i] =
				flow_add(worker, burst, i, path, entry.is_far, &owners);
		if (unlikely(path != 0 && has_flow && burst->positions[i] == ONVM_FLOW_NONE)) {
			const uint16_t other = path_without_entry(worker, burst, i, &entry);

			path = other != 0 ? other : path;
		}
	}
	if (unlikely(path != 0 && (burst->signs[i] & ONVM_SIGN_FRAGMENT) != 0))
		fragment_add(worker, wport, mbuf, path);
	return path;
}

/**
 * Position of the reverse of a packet that leaves through @p port, put in if need be; NONE: it has
 * none. One that is expected to be there is looked for first: that is a third of the work.
 *
 * @param signs  set to the packet's, or NULL
 */
static uint32_t
put_reverse(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint16_t port, bool is_expected,
	    uint8_t *signs)
{
	struct onvm_flow_table *flows = &worker->dp->flows;
	const uint8_t *data = rte_pktmbuf_mtod(mbuf, const uint8_t *);
	struct onvm_headers headers;
	union onvm_flow_key key, reverse;
	uint32_t position = ONVM_FLOW_NONE, hash;
	enum onvm_flow_kind kind;

	onvm_parse(data, mbuf->data_len, &headers);
	kind = onvm_flow_key_make(data, &headers, (uint8_t)port, &key);
	if (kind == ONVM_FLOW_KIND_NONE)
		return ONVM_FLOW_NONE;
	if (signs != NULL)
		*signs = onvm_flow_signs(&headers);
	onvm_flow_key_reverse(kind, &key, (uint8_t)port, &reverse);
	hash = onvm_flow_key_hash(kind, &reverse);
	if (is_expected)
		position = onvm_flow_table_find(flows, kind, &reverse, hash);
	if (position == ONVM_FLOW_NONE)
		position = onvm_flow_table_put(flows, kind, &reverse, hash);
	if (position == ONVM_FLOW_NONE)
		worker->stats.flow_table_full++;
	return position;
}

/**
 * A packet whose flow a peer knows leaves here: put its reverse in, or keep it alive. The path that
 * the peer has chosen counts, except for flows whose path was chosen here.
 */
static void
teach_reverse(struct onvm_worker *worker, struct rte_mbuf *mbuf, const struct onvm_buffer *buffer,
	      uint16_t port, uint16_t opposite)
{
	struct onvm_flow_table *flows = &worker->dp->flows;
	const bool is_forward = !worker->dp->steering.paths[buffer->path].is_reverse;
	uint8_t signs = 0;
	const uint32_t position = put_reverse(worker, mbuf, port, true, &signs);
	struct onvm_flow *flow;
	uint16_t known;

	if (position == ONVM_FLOW_NONE)
		return;
	flow = &flows->flows[position];
	known = __atomic_load_n(&flow->path, __ATOMIC_ACQUIRE);
	if (known == 0) {
		flow_set(flows, position, opposite,
			 (uint8_t)(ONVM_FLOW_TAUGHT | (is_forward ? ONVM_FLOW_REVERSE : 0)));
		worker->stats.learned_flows++;
	} else if (known != opposite && flow->flags & ONVM_FLOW_TAUGHT) {
		onvm_flow_change_path(flows, position, &known, opposite);
	}
	onvm_flow_note_answer(flows, position, onvm_flow_note_of(signs));
}

/** Put the reverse of the flow of a packet into the table, and let the two know each other. */
static void
learn_reverse(struct onvm_worker *worker, struct rte_mbuf *mbuf, const struct onvm_buffer *buffer,
	      uint16_t port, uint16_t opposite)
{
	struct onvm_flow_table *flows = &worker->dp->flows;
	struct onvm_flow *flow = &flows->flows[buffer->flow];
	const uint32_t position = put_reverse(worker, mbuf, port, false, NULL);

	if (position == ONVM_FLOW_NONE)
		return;
	flow_set(flows, position, opposite,
		 (uint8_t)(ONVM_FLOW_LEARNED |
			   (flow->flags & ONVM_FLOW_REVERSE ? 0 : ONVM_FLOW_REVERSE) |
			   (flow->flags & ONVM_FLOW_SEEN ? ONVM_FLOW_ANSWERED : 0)));
	__atomic_store_n(&flows->peers[position], buffer->flow, __ATOMIC_RELAXED);
	__atomic_store_n(&flows->peers[buffer->flow], position, __ATOMIC_RELAXED);
	__atomic_or_fetch(&flow->flags, ONVM_FLOW_LEARNED, __ATOMIC_RELAXED);
	worker->stats.learned_flows++;
}

void
onvm_note_flow(struct onvm_worker *worker, const struct onvm_buffer *buffer)
{
	struct onvm_flow_table *flows = &worker->dp->flows;

	/* Another path: the position may belong to another flow by now; the next packet tells. */
	if ((buffer->flags & ONVM_BUFFER_LEARN) != 0 && buffer->flow != ONVM_FLOW_NONE &&
	    __atomic_load_n(&flows->flows[buffer->flow].path, __ATOMIC_ACQUIRE) == buffer->path)
		onvm_flow_note(flows, buffer->flow,
			       (enum onvm_flow_note)ONVM_NOTE_OF_BUFFER(buffer->flags));
}

void
onvm_learn_reverse(struct onvm_worker *worker, struct rte_mbuf *mbuf,
		   const struct onvm_buffer *buffer, uint16_t port)
{
	struct onvm_dataplane *dp = worker->dp;
	const uint16_t opposite =
		onvm_steering_resolve(&dp->steering, dp->steering.paths[buffer->path].opposite);
	struct onvm_flow *flow;

	if ((buffer->flags & ONVM_BUFFER_LEARN) == 0) {
		if (opposite != 0)
			teach_reverse(worker, mbuf, buffer, port, opposite);
		return;
	}
	if (opposite == 0 || buffer->flow == ONVM_FLOW_NONE)
		return;
	flow = &dp->flows.flows[buffer->flow];
	if (__atomic_load_n(&flow->path, __ATOMIC_ACQUIRE) != buffer->path)
		return; /* it may belong to another flow by now; the next packet learns */
	onvm_note_flow(worker, buffer);
	if ((__atomic_load_n(&flow->flags, __ATOMIC_RELAXED) & ONVM_FLOW_LEARNED) == 0)
		learn_reverse(worker, mbuf, buffer, port, opposite);
}
