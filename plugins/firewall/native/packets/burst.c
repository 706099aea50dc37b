/* SPDX-License-Identifier: Apache-2.0 */
#include "../firewall.h"

#include "../connection.h"
#include "../rules/matching.h"
#include "../rules/rules.h"
#include "answer.h"
#include "icmp.h"
#include "sorting.h"

#define CHUNK 32u
#define PREFETCH_AHEAD 4u
#define GROUPS 4u /* tables of rules: by IP version and side */
#define PASSES (-1)
#define ANSWERED (-2) /* an answer leaves in its place */

/* A packet that rules, or connections decide about. */
struct candidate {
	struct onvm_headers headers;
	struct onvm_pkt *pkt;
	uint32_t value; /* of its rule; meaningful with has_value */
	uint8_t kind;	/* enum icmp_kind */
	bool is_later_fragment;
	bool has_key; /* it may belong to a connection */
	bool src_is_high;
	bool has_value;
	bool takes_invalid; /* its rule lets it pass without a connection */
};

/* The packets of a chunk, and what holds for all of them. */
struct chunk {
	struct firewall *firewall;
	struct onvm_ctx *ctx;
	struct candidate candidates[CHUNK];
	struct connection_key keys[CHUNK];
	int32_t slots[CHUNK];
	uint32_t nb;
	bool has_changed; /* slots do not hold any more */
};

/* ---- connections ---- */

/* The key of the connection that a packet may belong to. */
static inline void
key_fill(struct chunk *chunk, uint32_t at)
{
	struct candidate *const one = &chunk->candidates[at];
	const struct onvm_headers *const headers = &one->headers;
	const uint8_t *const data = one->pkt->data, *const l4 = data + headers->l4_offset;
	const uint8_t *const src = data + headers->l3_offset + (headers->ip_version == 4 ? 12 : 8);
	const uint8_t *const dst = src + onvm_address_bytes(headers->ip_version);
	struct connection_key *const key = &chunk->keys[at];
	uint8_t query;

	one->kind = ICMP_KIND_NONE;
	if (headers->protocol == ONVM_PROTO_ICMP || headers->protocol == ONVM_PROTO_ICMPV6) {
		if (!one->is_later_fragment)
			one->kind =
				icmp_kind_of(headers->ip_version, headers->protocol, l4[0], &query);
		one->has_key = one->kind == ICMP_KIND_QUERY || one->kind == ICMP_KIND_REPLY;
		if (one->has_key)
			connection_key_fill_query(key, headers, headers->ip_version,
						  headers->protocol, src, dst,
						  onvm_load_be16(l4 + 4), query,
						  one->kind == ICMP_KIND_REPLY);
		else
			memset(key, 0, sizeof(*key));
		one->src_is_high = one->kind == ICMP_KIND_REPLY;
		return;
	}
	one->has_key = !one->is_later_fragment;
	one->src_is_high = connection_key_fill(key, headers, headers->ip_version, headers->protocol,
					       src, dst, headers->has_ports ? headers->src_port : 0,
					       headers->has_ports ? headers->dst_port : 0);
}

static int
side_of(const struct candidate *one, const struct connection *connection)
{
	return one->src_is_high != connection->initiator_is_high;
}

/* A segment of a known connection. */
static enum tcp_outcome
tcp_take(const struct candidate *one, struct connection *connection)
{
	struct tcp_segment segment;

	tcp_segment_read(one->pkt->data, &one->headers, &segment);
	if (!tcp_flags_are_valid(segment.flags))
		return TCP_INVALID;
	if (((segment.flags & (FIREWALL_TCP_SYN | FIREWALL_TCP_FIN | FIREWALL_TCP_RST)) != 0 ||
	     connection->tcp.state <= FIREWALL_TCP_SYN_RECEIVED) &&
	    sorting_is_damaged(one->pkt, &one->headers, false))
		return TCP_INVALID;
	return tcp_follow(&connection->tcp, &segment, side_of(one, connection));
}

static enum tcp_outcome
connection_take(struct chunk *chunk, uint32_t at, int32_t slot)
{
	struct firewall *const firewall = chunk->firewall;
	struct connection *const connection = onvm_flow_value(firewall->connections, slot);
	const struct candidate *const one = &chunk->candidates[at];

	if (one->headers.protocol == ONVM_PROTO_TCP) {
		const enum tcp_outcome outcome = tcp_take(one, connection);

		if (outcome != TCP_FOLLOWED)
			return outcome;
	}
	connection->has_reply |= side_of(one, connection) != 0;
	connection_use(firewall, slot, one->headers.protocol, chunk->ctx->now_ns);
	return TCP_FOLLOWED;
}

/* Whether a packet may open a connection: whether it is new, and not invalid. */
static bool
may_open(const struct firewall *firewall, const struct candidate *one)
{
	struct tcp_segment segment;

	if (sorting_is_damaged(one->pkt, &one->headers, false))
		return false;
	if (one->headers.protocol == ONVM_PROTO_ICMP || one->headers.protocol == ONVM_PROTO_ICMPV6)
		return one->kind == ICMP_KIND_QUERY;
	if (one->headers.protocol != ONVM_PROTO_TCP)
		return true;
	tcp_segment_read(one->pkt->data, &one->headers, &segment);
	return tcp_flags_are_valid(segment.flags) &&
	       (tcp_is_open(segment.flags) ||
		(firewall->config.is_midstream &&
		 (segment.flags & (FIREWALL_TCP_SYN | FIREWALL_TCP_RST)) == 0));
}

/* Open a connection with a packet that the rules accept. @return a reason or PASSES */
static int
connection_open(struct chunk *chunk, uint32_t at)
{
	struct firewall *const firewall = chunk->firewall;
	const struct candidate *const one = &chunk->candidates[at];
	int32_t slot;

	if (!may_open(firewall, one))
		return one->takes_invalid ? PASSES : FIREWALL_DROP_INVALID;
	chunk->has_changed = true;
	slot = onvm_flow_table_lookup(firewall->connections, &chunk->keys[at]);
	if (slot >= 0) /* it was closed, and begins again */
		connection_forget(firewall, slot);
	slot = connection_add(firewall, &chunk->keys[at], one->src_is_high, chunk->ctx->now_ns);
	if (slot < 0)
		return -slot;
	if (one->headers.protocol == ONVM_PROTO_TCP) {
		struct connection *const connection = onvm_flow_value(firewall->connections, slot);
		struct tcp_segment segment;

		tcp_segment_read(one->pkt->data, &one->headers, &segment);
		tcp_begin(&connection->tcp, &segment, firewall->config.is_liberal);
	}
	connection_use(firewall, slot, one->headers.protocol, chunk->ctx->now_ns);
	chunk->ctx->counters[FIREWALL_CONNECTIONS_OPENED]++;
	return PASSES;
}

/* ---- rules ---- */

static inline uint32_t
group_of(const struct firewall *firewall, const struct candidate *one)
{
	const uint32_t far = firewall->rules.has_sides && (one->pkt->flags & ONVM_F_REVERSE) != 0;

	return (one->headers.ip_version == 6) * 2u + far;
}

static inline void
tuple_fill(const struct candidate *one, struct onvm_tuple *tuple)
{
	const struct onvm_headers *const headers = &one->headers;

	rules_tuple_fill(tuple, headers->ip_version, headers->protocol,
			 one->pkt->data + headers->l3_offset + (headers->ip_version == 4 ? 12 : 8),
			 headers->has_ports ? headers->src_port : 0,
			 headers->has_ports ? headers->dst_port : 0);
}

/* The rules of packets that belong to no connection, together. */
static void
rules_look_up(struct chunk *chunk)
{
	struct firewall_rules *const rules = &chunk->firewall->rules;
	struct onvm_tuple tuples[GROUPS][CHUNK];
	uint32_t values[CHUNK], nb[GROUPS] = {0};
	uint8_t owners[GROUPS][CHUNK];

	for (uint32_t at = 0; at < chunk->nb; at++) {
		struct candidate *const one = &chunk->candidates[at];
		const uint32_t group = group_of(chunk->firewall, one);

		one->has_value = chunk->slots[at] < 0 && !one->is_later_fragment;
		one->value = 0;
		if (!one->has_value || rules->whole[group / 2][group % 2] == NULL)
			continue;
		owners[group][nb[group]] = (uint8_t)at;
		tuple_fill(one, &tuples[group][nb[group]++]);
	}
	for (uint32_t group = 0; group < GROUPS; group++) {
		if (nb[group] == 0)
			continue;
		onvm_acl_lookup(rules->whole[group / 2][group % 2], tuples[group], values,
				nb[group]);
		for (uint32_t i = 0; i < nb[group]; i++)
			chunk->candidates[owners[group][i]].value = values[i];
	}
}

static uint32_t
rule_find(struct onvm_acl *const acls[2][2], uint32_t group, const struct candidate *one)
{
	const struct onvm_acl *const acl = acls[group / 2][group % 2];
	struct onvm_tuple tuple;

	if (acl == NULL)
		return 0;
	tuple_fill(one, &tuple);
	return onvm_acl_find(acl, &tuple);
}

/*
 * The conditional entries before the match @p value of the ACL, and what they leave of it.
 *
 * @param has_chance  gets whether one would accept the later fragment, if its ports fit
 */
static uint32_t
ask_conditional(struct chunk *chunk, struct candidate *one, uint32_t value, bool *has_chance)
{
	struct firewall *const firewall = chunk->firewall;
	const struct firewall_rules *const rules = &firewall->rules;
	struct question question = {
		.pkt = one->pkt,
		.headers = &one->headers,
		.now_ns = chunk->ctx->now_ns,
		.end = value == 0 || value > rules->nb ? matching_size(rules->matching) :
							 rules->entries[value - 1].next,
		.is_far = (one->pkt->flags & ONVM_F_REVERSE) != 0,
		.is_fragment = one->is_later_fragment,
	};
	uint32_t found;

	if (firewall->connections != NULL && !one->is_later_fragment &&
	    matching_asks_state(rules->matching))
		question.state = may_open(firewall, one) ? FIREWALL_NEW : FIREWALL_INVALID;
	found = matching_find(firewall, chunk->ctx->counters, &question);
	*has_chance = question.has_chance;
	return found != 0 ? found : value;
}

/* What an entry with a verdict says. @return a reason, PASSES or ANSWERED */
static int
carry_out(struct chunk *chunk, struct candidate *one, uint32_t value)
{
	struct firewall_rules *const rules = &chunk->firewall->rules;
	const struct firewall_entry *const entry = &rules->entries[value - 1];

	rules->hits[entry->rule]++;
	one->takes_invalid = entry->takes_invalid != 0;
	if (entry->action == FIREWALL_ACCEPT)
		return PASSES;
	if (entry->action != FIREWALL_REJECT)
		return FIREWALL_DROP_RULE;
	/* what an NF before has rewritten means nothing to the sender */
	if (!chunk->firewall->config.answers_behind && !onvm_pkt_is_first(chunk->ctx, one->pkt))
		return FIREWALL_DROP_RULE;
	if (!answer_make(chunk->firewall, one->pkt, &one->headers, entry->answer,
			 chunk->ctx->now_ns))
		return FIREWALL_DROP_RULE;
	return ANSWERED;
}

/* Rules, then the default. @param decided_by  gets the counter of a packet that passes */
static int
judge_by_rules(struct chunk *chunk, struct candidate *one, enum firewall_counter *decided_by)
{
	struct firewall_rules *const rules = &chunk->firewall->rules;
	bool has_chance;

	if (!one->has_value)
		one->value = rule_find(rules->whole, group_of(chunk->firewall, one), one);
	if (rules->matching != NULL)
		one->value = ask_conditional(chunk, one, one->value, &has_chance);
	if (one->value == 0) {
		*decided_by = FIREWALL_BY_DEFAULT;
		return chunk->firewall->config.default_accepts ? PASSES : FIREWALL_DROP_DEFAULT;
	}
	*decided_by = FIREWALL_BY_RULE;
	return carry_out(chunk, one, one->value);
}

/* ---- packets ---- */

/* RFC 5508 and common sense: an error goes to the source of what it quotes, and that is known. */
static bool
is_related(struct chunk *chunk, const struct candidate *one)
{
	struct firewall *const firewall = chunk->firewall;
	const struct onvm_headers *const headers = &one->headers;
	const uint8_t *const data = one->pkt->data;
	const uint32_t size = onvm_address_bytes(headers->ip_version);
	const uint32_t src_at = headers->ip_version == 4 ? 12 : 8;
	const uint8_t *const outer_dst = data + headers->l3_offset + src_at + size;
	struct onvm_embedded embedded;
	struct connection_key key;
	const uint8_t *src, *l4;
	enum icmp_kind kind;
	uint8_t query;

	if (!onvm_embedded_locate(data, headers, &embedded))
		return false;
	src = data + embedded.l3_offset + src_at;
	l4 = data + embedded.l4_offset;
	if (memcmp(outer_dst, src, size) != 0)
		return false;
	if (embedded.protocol == ONVM_PROTO_ICMP || embedded.protocol == ONVM_PROTO_ICMPV6) {
		kind = icmp_kind_of(embedded.ip_version, embedded.protocol, l4[0], &query);
		if (kind != ICMP_KIND_QUERY && kind != ICMP_KIND_REPLY)
			return false;
		connection_key_fill_query(&key, headers, embedded.ip_version, embedded.protocol,
					  src, src + size, onvm_load_be16(l4 + 4), query,
					  kind == ICMP_KIND_REPLY);
	} else {
		const bool has_ports = onvm_protocol_has_ports(embedded.protocol);

		connection_key_fill(&key, headers, embedded.ip_version, embedded.protocol, src,
				    src + size, has_ports ? onvm_load_be16(l4) : 0,
				    has_ports ? onvm_load_be16(l4 + 2) : 0);
	}
	return connection_find(firewall, &key, chunk->ctx->now_ns) >= 0 &&
	       !sorting_is_damaged(one->pkt, headers, false);
}

/* A later fragment that the data plane has not put together with the others, as it does usually. */
static int
judge_fragment(struct chunk *chunk, struct candidate *one, enum firewall_counter *decided_by)
{
	struct firewall *const firewall = chunk->firewall;
	const struct firewall_rules *const rules = &firewall->rules;
	bool has_chance = false;
	uint32_t value;

	*decided_by = FIREWALL_BY_DEFAULT;
	/* RFC 1858 3: it would overwrite the TCP flags that were judged */
	if (one->headers.protocol == ONVM_PROTO_TCP && one->headers.fragment_offset == 8)
		return FIREWALL_DROP_FRAGMENT;
	value = rule_find(rules->fragments, group_of(firewall, one), one);
	if (rules->matching != NULL)
		value = ask_conditional(chunk, one, value, &has_chance);
	if (value == 0 && !has_chance && !firewall->config.default_accepts)
		return FIREWALL_DROP_DEFAULT;
	if (value != 0 && value != rules_value_of_chance(rules)) {
		*decided_by = FIREWALL_BY_RULE;
		if (carry_out(chunk, one, value) != PASSES)
			return FIREWALL_DROP_RULE;
	}
	return firewall->config.passes_fragments ? PASSES : FIREWALL_DROP_FRAGMENT;
}

/* A packet that may belong to a connection. */
static int
judge_tracked(struct chunk *chunk, uint32_t at, enum firewall_counter *decided_by)
{
	struct firewall *const firewall = chunk->firewall;
	struct candidate *const one = &chunk->candidates[at];
	int32_t slot = chunk->slots[at];
	int reason;

	if (chunk->has_changed)
		slot = onvm_flow_table_lookup(firewall->connections, &chunk->keys[at]);
	if (slot >= 0 && connection_check(firewall, slot, chunk->ctx->now_ns) < 0) {
		chunk->has_changed = true;
		slot = -1;
	}
	if (slot >= 0) {
		*decided_by = FIREWALL_BY_CONNECTION;
		switch (connection_take(chunk, at, slot)) {
		case TCP_FOLLOWED:
		case TCP_IGNORED:
			return PASSES;
		case TCP_INVALID:
			return FIREWALL_DROP_INVALID;
		case TCP_RESTARTS:
			break;
		}
	}
	reason = judge_by_rules(chunk, one, decided_by);
	return reason != PASSES ? reason : connection_open(chunk, at);
}

static int
judge(struct chunk *chunk, uint32_t at, enum firewall_counter *decided_by)
{
	struct candidate *const one = &chunk->candidates[at];
	int reason;

	if (one->is_later_fragment)
		return judge_fragment(chunk, one, decided_by);
	if (chunk->firewall->connections == NULL)
		return judge_by_rules(chunk, one, decided_by);
	if (one->has_key)
		return judge_tracked(chunk, at, decided_by);
	if (one->kind == ICMP_KIND_ERROR && is_related(chunk, one)) {
		*decided_by = FIREWALL_RELATED;
		return PASSES;
	}
	reason = judge_by_rules(chunk, one, decided_by);
	return reason != PASSES || one->kind == ICMP_KIND_SINGLE || one->takes_invalid ?
		       reason :
		       FIREWALL_DROP_INVALID;
}

/* In order: an earlier packet of the chunk may have opened or closed a connection. */
static void
decide(struct chunk *chunk)
{
	struct firewall *const firewall = chunk->firewall;

	if (firewall->connections != NULL) {
		onvm_flow_table_lookup_bulk(firewall->connections, chunk->keys, chunk->slots,
					    chunk->nb);
		for (uint32_t at = 0; at < chunk->nb; at++)
			if (chunk->slots[at] >= 0)
				onvm_flow_prefetch(firewall->connections, chunk->slots[at]);
	}
	rules_look_up(chunk);
	for (uint32_t at = 0; at < chunk->nb; at++) {
		struct candidate *const one = &chunk->candidates[at];
		enum firewall_counter decided_by = FIREWALL_BY_DEFAULT;
		const int reason = judge(chunk, at, &decided_by);

		if (reason == PASSES)
			chunk->ctx->counters[decided_by]++;
		else if (reason == ANSWERED)
			chunk->ctx->counters[FIREWALL_REJECTED]++;
		else
			onvm_pkt_drop(one->pkt, (uint16_t)reason);
	}
}

static void
candidate_complete(struct chunk *chunk, struct onvm_pkt *pkt)
{
	const uint32_t at = chunk->nb++;
	struct candidate *const one = &chunk->candidates[at];

	one->pkt = pkt;
	one->takes_invalid = false;
	one->kind = ICMP_KIND_NONE;
	one->is_later_fragment = one->headers.l4_status == ONVM_L4_FRAGMENT;
	if (chunk->firewall->connections != NULL)
		key_fill(chunk, at);
	else
		chunk->slots[at] = -1;
}

static void
burst_chunk(struct firewall *firewall, struct onvm_ctx *ctx, struct onvm_pkt *pkts,
	    uint32_t nb_pkts)
{
	struct chunk chunk;

	chunk.firewall = firewall;
	chunk.ctx = ctx;
	chunk.nb = 0;
	chunk.has_changed = false;
	for (uint32_t i = 0; i < nb_pkts; i++) {
		struct onvm_headers *const headers = &chunk.candidates[chunk.nb].headers;
		uint16_t reason;

		if (i + PREFETCH_AHEAD < nb_pkts)
			__builtin_prefetch(pkts[i + PREFETCH_AHEAD].data);
		onvm_parse(pkts[i].data, pkts[i].length, headers);
		switch (sorting_decide(&firewall->config, &pkts[i], headers, &reason)) {
		case SORT_CANDIDATE:
			candidate_complete(&chunk, &pkts[i]);
			break;
		case SORT_PASS:
			break;
		case SORT_DROP:
			onvm_pkt_drop(&pkts[i], reason);
			break;
		}
	}
	if (chunk.nb != 0)
		decide(&chunk);
}

void
firewall_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct firewall *const firewall = ctx->state;

	if (firewall->connections != NULL)
		ctx->counters[FIREWALL_CONNECTIONS_EXPIRED] +=
			connection_sweep(firewall, ctx->now_ns);
	for (uint32_t first = 0; first < nb_pkts; first += CHUNK)
		burst_chunk(firewall, ctx, pkts + first,
			    nb_pkts - first < CHUNK ? nb_pkts - first : CHUNK);
}
