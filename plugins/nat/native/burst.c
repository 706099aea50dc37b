/* SPDX-License-Identifier: Apache-2.0 */
#include "nat.h"

#include <string.h>

#define CHUNK 32u
#define PREFETCH_AHEAD 4u

/* How a packet is handled. */
enum handling {
	PASS, /* not ours to translate */
	DROP,
	OUTBOUND,
	INBOUND,
	ERROR_OUT,
	ERROR_IN,
};

/* What is known of the packets of a chunk. */
struct chunk {
	struct onvm_headers headers[CHUNK];
	struct nat_session_key keys[CHUNK]; /* packed: of packets that have one */
	int32_t slots[CHUNK];		    /* of those */
	uint8_t key[CHUNK];		    /* by packet: where its key is */
	uint8_t handling[CHUNK];
	uint32_t nb_keys;
};

static inline const uint8_t *
ip_src(const uint8_t *data, const struct onvm_headers *headers)
{
	return data + headers->l3_offset + 12;
}

static inline const uint8_t *
ip_dst(const uint8_t *data, const struct onvm_headers *headers)
{
	return data + headers->l3_offset + 16;
}

static bool
is_inside(const struct nat_config *config, const uint8_t *address)
{
	const uint32_t value = onvm_load_be32(address);

	for (uint32_t i = 0; i < config->nb_inside; i++)
		if ((value & config->inside[i].mask) == config->inside[i].address)
			return true;
	return config->nb_inside == 0;
}

static inline bool
is_echo(const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t type = data[headers->l4_offset];

	return type == 8 || type == 0;
}

/* Malformed packets, and those that have no ports here. */
static inline enum nat_reason
refuse(const struct onvm_headers *headers)
{
	if (headers->l4_status == ONVM_L4_SHORT || headers->l4_status == ONVM_L4_BAD_HEADER)
		return NAT_DROP_MALFORMED;
	/* RFC 4787 REQ-14 is not kept: without reassembly a later fragment has no ports */
	if (onvm_headers_is_fragment(headers))
		return NAT_DROP_FRAGMENT;
	if (headers->l4_status != ONVM_L4_OK || nat_space_of(headers->protocol) == NAT_SPACES)
		return NAT_DROP_PROTOCOL;
	return NAT_NO_DROP;
}

static enum handling
sort_packet(const struct nat *nat, struct onvm_pkt *pkt, const struct onvm_headers *headers)
{
	const bool is_reverse = (pkt->flags & ONVM_F_REVERSE) != 0;
	enum nat_reason reason;

	if (headers->l3_status == ONVM_L3_NONIP || headers->ip_version == 6)
		return PASS;
	if (headers->l3_status != ONVM_L3_OK) {
		onvm_pkt_drop(pkt, NAT_DROP_MALFORMED);
		return DROP;
	}
	if (is_reverse) {
		const uint8_t *const dst = ip_dst(pkt->data, headers);

		if (memcmp(dst, nat->config.external, 4) != 0) {
			/* what was not translated on its way out is not on its way back */
			if (!is_inside(&nat->config, dst))
				return PASS;
			onvm_pkt_drop(pkt, NAT_DROP_NO_MAPPING);
			return DROP;
		}
	} else if (!is_inside(&nat->config, ip_src(pkt->data, headers))) {
		return PASS;
	}
	reason = refuse(headers);
	if (reason == NAT_NO_DROP && headers->protocol == ONVM_PROTO_ICMP) {
		if (onvm_icmp_is_error(pkt->data, headers))
			return is_reverse ? ERROR_IN : ERROR_OUT;
		if (!is_echo(pkt->data, headers))
			reason = NAT_DROP_PROTOCOL;
	}
	if (reason != NAT_NO_DROP) {
		onvm_pkt_drop(pkt, reason);
		return DROP;
	}
	return is_reverse ? INBOUND : OUTBOUND;
}

static inline void
key_fill_out(struct nat_session_key *key, const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t *const l4 = data + headers->l4_offset;

	memset(key, 0, sizeof(*key));
	key->protocol = headers->protocol;
	memcpy(key->inside, ip_src(data, headers), 4);
	memcpy(key->remote, ip_dst(data, headers), 4);
	if (headers->protocol == ONVM_PROTO_ICMP) {
		memcpy(key->inside_port, l4 + 4, 2);
		return;
	}
	memcpy(key->inside_port, l4, 2);
	memcpy(key->remote_port, l4 + 2, 2);
}

/* false: no mapping has this external port. */
static inline bool
key_fill_in(struct nat *nat, struct nat_session_key *key, const uint8_t *data,
	    const struct onvm_headers *headers)
{
	const bool is_icmp = headers->protocol == ONVM_PROTO_ICMP;
	const uint8_t *const l4 = data + headers->l4_offset;
	const struct nat_endpoint *const inside =
		nat_endpoint_behind(nat, nat_space_of(headers->protocol), l4 + (is_icmp ? 4 : 2));

	if (inside == NULL)
		return false;
	memset(key, 0, sizeof(*key));
	key->protocol = headers->protocol;
	memcpy(key->inside, inside->address, 4);
	memcpy(key->inside_port, inside->port, 2);
	memcpy(key->remote, ip_src(data, headers), 4);
	if (!is_icmp)
		memcpy(key->remote_port, l4, 2);
	return true;
}

static void
rewrite(uint8_t *data, const struct onvm_headers *headers, enum onvm_side side,
	const uint8_t *address, const uint8_t *port)
{
	onvm_rewrite_end(data, headers, side, address, port);
	if (headers->protocol == ONVM_PROTO_ICMP)
		onvm_rewrite_icmp_id(data, headers, port);
}

/* @p session: slot of @p key, or below 0. */
static enum nat_reason
translate_in(struct nat *nat, uint8_t *data, const struct onvm_headers *headers,
	     const struct nat_session_key *key, int32_t session, uint64_t now_ns)
{
	if (!nat_filter_allows(nat, key, session))
		return NAT_DROP_FILTERED;
	if (session >= 0)
		nat_session_use(nat, session, headers->protocol, headers->tcp_flags, true, now_ns);
	rewrite(data, headers, ONVM_DST, key->inside, key->inside_port);
	return NAT_NO_DROP;
}

static enum nat_reason
translate_out(struct nat *nat, uint8_t *data, const struct onvm_headers *headers, int32_t session,
	      uint64_t now_ns)
{
	const struct nat_session *const value = onvm_flow_table_value(nat->sessions, session);
	const struct nat_mapping *const mapping =
		onvm_flow_table_value(nat->mappings, value->mapping);

	nat_session_use(nat, session, headers->protocol, headers->tcp_flags, false, now_ns);
	rewrite(data, headers, ONVM_SRC, nat->config.external, mapping->port);
	return NAT_NO_DROP;
}

/* RFC 4787 REQ-9: an inside host reaches another by its external endpoint. */
static enum nat_reason
hairpin(struct nat *nat, struct onvm_pkt *pkt, bool is_error, uint64_t now_ns)
{
	struct onvm_headers headers;
	struct nat_session_key key;
	enum nat_reason reason = NAT_DROP_NO_MAPPING;

	onvm_parse(pkt->data, pkt->length, &headers);
	if (is_error)
		reason = nat_error_in(nat, pkt->data, &headers);
	else if (key_fill_in(nat, &key, pkt->data, &headers))
		reason = translate_in(nat, pkt->data, &headers, &key,
				      onvm_flow_table_lookup(nat->sessions, &key), now_ns);
	if (reason == NAT_NO_DROP) {
		onvm_pkt_out(pkt, pkt->port);
		nat->counters[NAT_HAIRPINNED]++;
	}
	return reason;
}

static enum nat_reason
handle_outbound(struct nat *nat, struct onvm_ctx *ctx, struct chunk *chunk, uint32_t at,
		struct onvm_pkt *pkt, bool *has_changed)
{
	const struct onvm_headers *const headers = &chunk->headers[at];
	const struct nat_session_key *const key = &chunk->keys[chunk->key[at]];
	const bool is_hairpin = memcmp(key->remote, nat->config.external, 4) == 0;
	int32_t slot = chunk->slots[chunk->key[at]];
	enum nat_reason reason;

	if (slot < 0 && *has_changed)
		slot = onvm_flow_table_lookup(nat->sessions, key);
	if (slot < 0) {
		slot = nat_session_open(nat, key, ctx->now_ns);
		if (slot < 0)
			return (enum nat_reason)(-slot - 1);
		*has_changed = true;
	}
	reason = translate_out(nat, pkt->data, headers, slot, ctx->now_ns);
	ctx->counters[NAT_TRANSLATED_OUT]++;
	return is_hairpin ? hairpin(nat, pkt, false, ctx->now_ns) : reason;
}

static enum nat_reason
handle_inbound(struct nat *nat, struct onvm_ctx *ctx, struct chunk *chunk, uint32_t at,
	       struct onvm_pkt *pkt, bool has_changed)
{
	const struct onvm_headers *const headers = &chunk->headers[at];
	struct nat_session_key *const key = &chunk->keys[chunk->key[at]];
	int32_t slot = chunk->slots[chunk->key[at]];
	enum nat_reason reason;

	if (slot < 0 && (has_changed || key->protocol == 0)) {
		if (!key_fill_in(nat, key, pkt->data, headers))
			return NAT_DROP_NO_MAPPING;
		slot = onvm_flow_table_lookup(nat->sessions, key);
	}
	reason = translate_in(nat, pkt->data, headers, key, slot, ctx->now_ns);
	if (reason == NAT_NO_DROP)
		ctx->counters[NAT_TRANSLATED_IN]++;
	return reason;
}

static enum nat_reason
handle_error(struct nat *nat, struct onvm_ctx *ctx, const struct onvm_headers *headers,
	     struct onvm_pkt *pkt, bool is_inbound)
{
	const bool is_hairpin = !is_inbound &&
				memcmp(ip_dst(pkt->data, headers), nat->config.external, 4) == 0;
	enum nat_reason reason = is_inbound ? nat_error_in(nat, pkt->data, headers) :
					      nat_error_out(nat, pkt->data, headers);

	if (reason == NAT_NO_DROP)
		ctx->counters[NAT_ICMP_ERRORS]++;
	if (reason == NAT_NO_DROP && is_hairpin)
		reason = hairpin(nat, pkt, true, ctx->now_ns);
	return reason;
}

/* First look at every packet; keys of those that have a session to look up. */
static void
prepare(struct nat *nat, struct chunk *chunk, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	chunk->nb_keys = 0;
	for (uint32_t i = 0; i < nb_pkts; i++) {
		struct onvm_headers *const headers = &chunk->headers[i];
		struct nat_session_key *const key = &chunk->keys[chunk->nb_keys];

		if (i + PREFETCH_AHEAD < nb_pkts)
			__builtin_prefetch(pkts[i + PREFETCH_AHEAD].data);
		onvm_parse(pkts[i].data, pkts[i].length, headers);
		chunk->handling[i] = (uint8_t)sort_packet(nat, &pkts[i], headers);
		chunk->key[i] = (uint8_t)chunk->nb_keys;
		if (chunk->handling[i] == OUTBOUND)
			key_fill_out(key, pkts[i].data, headers);
		else if (chunk->handling[i] != INBOUND)
			continue;
		/* no mapping yet: an unused key, protocol 0 */
		else if (!key_fill_in(nat, key, pkts[i].data, headers))
			memset(key, 0, sizeof(*key));
		chunk->nb_keys++;
	}
	if (chunk->nb_keys != 0)
		onvm_flow_table_lookup_bulk(nat->sessions, chunk->keys, chunk->slots,
					    chunk->nb_keys);
}

static void
burst_chunk(struct nat *nat, struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	bool has_changed = false;
	struct chunk chunk;

	prepare(nat, &chunk, pkts, nb_pkts);
	for (uint32_t i = 0; i < nb_pkts; i++) {
		struct onvm_pkt *const pkt = &pkts[i];
		enum nat_reason reason = NAT_NO_DROP;

		switch ((enum handling)chunk.handling[i]) {
		case PASS:
			ctx->counters[NAT_PASSED]++;
			continue;
		case DROP:
			continue;
		case OUTBOUND:
			reason = handle_outbound(nat, ctx, &chunk, i, pkt, &has_changed);
			break;
		case INBOUND:
			reason = handle_inbound(nat, ctx, &chunk, i, pkt, has_changed);
			break;
		case ERROR_OUT:
		case ERROR_IN:
			reason = handle_error(nat, ctx, &chunk.headers[i], pkt,
					      chunk.handling[i] == ERROR_IN);
			break;
		}
		if (reason != NAT_NO_DROP)
			onvm_pkt_drop(pkt, (uint16_t)reason);
	}
}

void
nat_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct nat *const nat = ctx->state;

	nat->counters = ctx->counters;
	nat_expire(nat, ctx->now_ns);
	for (uint32_t first = 0; first < nb_pkts; first += CHUNK)
		burst_chunk(nat, ctx, pkts + first,
			    nb_pkts - first < CHUNK ? nb_pkts - first : CHUNK);
}
