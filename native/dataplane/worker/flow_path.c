/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The path of a packet's flow: known, or chosen for the first packet of a new one; and the reverse
 * flow, learned when a packet leaves.
 */

#include "worker/flow_path.h"

#include <rte_byteorder.h>

#include "flows/chain_rules.h"
#include "steering/choose.h"
#include "steering/claims.h"

/** The path of a packet whose destination an NF instance has claimed; 0: nobody has. */
static uint16_t
claimed_path(struct onvm_worker *worker, const struct onvm_burst *burst, uint32_t i,
	     const struct onvm_chain_entry *entry)
{
	/* P2: pairs with the release store P1 of the claims in control/claims.c. */
	const struct onvm_claims *claims =
		__atomic_load_n(&worker->dp->steering.claims, __ATOMIC_ACQUIRE);
	const union onvm_flow_key *key = &burst->keys[i];
	uint16_t host;

	if (likely(claims == NULL) || burst->kinds[i] == ONVM_FLOW_KIND_NONE)
		return 0;
	if (burst->kinds[i] == ONVM_FLOW_KIND_IPV4)
		host = onvm_claims_find(claims, 4, (const uint8_t *)&key->v4.dst, key->v4.protocol,
					key->v4.dst_port);
	else
		host = onvm_claims_find(claims, 6, key->v6.dst, key->v6.protocol, key->v6.dst_port);
	if (host == 0)
		return 0;
	return onvm_steering_choose_with(&worker->dp->steering, entry->chain, entry->candidates,
					 &worker->selector, host);
}

/** The way of a new flow: what the rules of its port say, else that of the port's chain. */
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

/** Choose the path of a flow seen for the first time. */
static uint16_t
choose_path(struct onvm_worker *worker, const struct onvm_burst *burst, uint32_t i,
	    const struct onvm_chain_entry *entry)
{
	struct onvm_steering *steering = &worker->dp->steering;
	uint16_t path = 0;

	if (burst->kinds[i] == ONVM_FLOW_KIND_NONE)
		path = entry->candidates->default_path;
	else if (entry->is_far)
		path = claimed_path(worker, burst, i, entry);
	if (path == 0)
		path = onvm_steering_choose(steering, entry->chain, entry->candidates,
					    &worker->selector);
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
	onvm_flow_set_path(table, position, path);
}

/** Remember a new flow; @return its position. */
static uint32_t
flow_add(struct onvm_worker *worker, const struct onvm_burst *burst, uint32_t i, uint16_t path,
	 bool is_far)
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
		flow_set(&worker->dp->flows, position, path, ONVM_FLOW_LEARNED);
}

/** Path of the flow at @p position; 0 when it is forgotten, just being added, or has nowhere to go. */
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

			path = choose_path(worker, &wport->burst, i, &entry);
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

		path = choose_path(worker, burst, i, &entry);
		if (path != 0 && has_flow)
			burst->positions[i] = flow_add(worker, burst, i, path, entry.is_far);
	}
	if (unlikely(path != 0 && burst->is_fragment[i]))
		fragment_add(worker, wport, mbuf, path);
	return path;
}

/**
 * Position of the reverse of a packet that leaves through @p port, put in if need be; NONE: it has
 * none. One that is expected to be there is looked for first: that is a third of the work.
 */
static uint32_t
put_reverse(struct onvm_worker *worker, struct rte_mbuf *mbuf, uint16_t port, bool is_expected)
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
 * A packet whose flow a peer knows leaves here: its reverse is put in, or kept alive. The peer that
 * has chosen the path is believed; what was chosen here is not changed.
 */
static void
teach_reverse(struct onvm_worker *worker, struct rte_mbuf *mbuf, const struct onvm_buffer *buffer,
	      uint16_t port, uint16_t opposite)
{
	struct onvm_flow_table *flows = &worker->dp->flows;
	const bool is_forward = !worker->dp->steering.paths[buffer->path].is_reverse;
	const uint32_t position = put_reverse(worker, mbuf, port, true);
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
		return;
	}
	if (known != opposite && flow->flags & ONVM_FLOW_TAUGHT)
		onvm_flow_change_path(flows, position, &known, opposite);
	onvm_flow_touch(flow, __atomic_load_n(&flows->now, __ATOMIC_RELAXED));
}

void
onvm_learn_reverse(struct onvm_worker *worker, struct rte_mbuf *mbuf,
		   const struct onvm_buffer *buffer, uint16_t port)
{
	struct onvm_dataplane *dp = worker->dp;
	const uint16_t opposite =
		onvm_steering_resolve(&dp->steering, dp->steering.paths[buffer->path].opposite);
	struct onvm_flow *flow;
	uint32_t position;

	if (opposite == 0)
		return;
	if (buffer->flags & ONVM_BUFFER_TEACH) {
		teach_reverse(worker, mbuf, buffer, port, opposite);
		return;
	}
	if (buffer->flow == ONVM_FLOW_NONE)
		return;
	flow = &dp->flows.flows[buffer->flow];
	/* Another path: the position may belong to another flow by now; the next packet learns. */
	if (flow->flags & ONVM_FLOW_LEARNED ||
	    __atomic_load_n(&flow->path, __ATOMIC_ACQUIRE) != buffer->path)
		return;
	position = put_reverse(worker, mbuf, port, false);
	if (position == ONVM_FLOW_NONE)
		return;
	flow_set(&dp->flows, position, opposite,
		 (uint8_t)(ONVM_FLOW_LEARNED |
			   (flow->flags & ONVM_FLOW_REVERSE ? 0 : ONVM_FLOW_REVERSE)));
	__atomic_store_n(&dp->flows.peers[position], buffer->flow, __ATOMIC_RELAXED);
	__atomic_store_n(&dp->flows.peers[buffer->flow], position, __ATOMIC_RELAXED);
	__atomic_or_fetch(&flow->flags, ONVM_FLOW_LEARNED, __ATOMIC_RELAXED);
	worker->stats.learned_flows++;
}
