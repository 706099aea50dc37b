/* SPDX-License-Identifier: Apache-2.0 */
#include "nat.h"

#include <string.h>

#define CHUNK 32u
#define PREFETCH_AHEAD 4u
#define EXPIRE_BUDGET 4096u
#define RARE __attribute__((cold, noinline)) /* out of the way of the others */

/* How a packet is handled. */
enum handling {
	PASS, /* not ours to translate */
	DROP,
	OUTBOUND,
	INBOUND,
	ERROR_OUT,
	ERROR_IN,
	FRAGMENT_OUT, /* behind the first one */
	FRAGMENT_IN,
	TOO_BIG_OUT,
	TOO_BIG_IN,
	EXPIRED_OUT, /* its hop limit has */
	PAIR_OUT,    /* one-to-one */
	PAIR_IN,
	DONE, /* translated already: it needs no state */
};

/* What is known of the packets of a chunk. */
struct chunk {
	struct onvm_headers headers[CHUNK];
	struct nat_session_key keys[CHUNK]; /* packed: of packets that have one */
	int32_t slots[CHUNK];		    /* of those */
	uint8_t key[CHUNK];		    /* by packet: where its key is */
	uint8_t handling[CHUNK];
	uint8_t external[CHUNK]; /* index of what inbound packets go to */
	uint32_t hosts[CHUNK];	 /* of IPv6, whose packets are in the chunk */
	uint32_t nb_hosts;
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

/*
 * Frames that carry no IP and stay on their link: ARP, EAPOL, LLDP, Ethernet's slow protocols, PTP,
 * and spanning tree. Anything else may have a private address inside that we cannot see.
 */
static bool
stays_on_link(const struct onvm_pkt *pkt, const struct onvm_headers *headers)
{
	static const uint8_t spanning_tree[] = {0x42, 0x42, 0x03};
	const uint32_t offset = headers->l3_offset;

	switch (headers->ethertype) {
	case 0x0806:
	case 0x888e:
	case 0x88cc:
	case 0x8809:
	case 0x88f7:
		return true;
	default:
		return headers->ethertype < 1536 && pkt->length >= offset + 3 &&
		       memcmp(pkt->data + offset, spanning_tree, sizeof(spanning_tree)) == 0;
	}
}

/* Malformed packets, and those that have no ports here. */
static inline enum nat_reason
refuse(const uint8_t *data, const struct onvm_headers *headers)
{
	if (nat_is_no_host(ip_src(data, headers)) || nat_is_no_host(ip_dst(data, headers)))
		return NAT_DROP_UNROUTABLE;
	/* a first fragment needs its whole header: RFC 1858 */
	if (headers->more_fragments && headers->fragment_offset == 0 &&
	    (headers->l4_status == ONVM_L4_SHORT || headers->l4_status == ONVM_L4_BAD_HEADER))
		return NAT_DROP_FRAGMENT;
	if (headers->l4_status == ONVM_L4_SHORT || headers->l4_status == ONVM_L4_BAD_HEADER)
		return NAT_DROP_MALFORMED;
	if ((headers->l4_status != ONVM_L4_OK && headers->fragment_offset == 0) ||
	    nat_space_of(headers->protocol) == NAT_SPACES)
		return NAT_DROP_PROTOCOL;
	return NAT_NO_DROP;
}

/* Queries go out, replies come in (RFC 5508 REQ-1): a reply from inside opens nothing. */
static enum handling
sort_icmp(const uint8_t *data, const struct onvm_headers *headers, bool is_reverse,
	  enum nat_reason *reason)
{
	const uint8_t type = data[headers->l4_offset];

	if (onvm_icmp_is_error(data, headers)) {
		*reason = NAT_DROP_FRAGMENT;
		return headers->more_fragments ? DROP : is_reverse ? ERROR_IN : ERROR_OUT;
	}
	if (is_reverse ? nat_icmp_is_reply(type) : nat_icmp_is_query(type))
		return is_reverse ? INBOUND : OUTBOUND;
	*reason = nat_icmp_is_reply(type) || nat_icmp_is_query(type) ? NAT_DROP_NO_MAPPING :
								       NAT_DROP_PROTOCOL;
	return DROP;
}

/*
 * Whether a packet on its way back comes from inside and goes to an external address: the answer
 * of a host that was reached by its external endpoint. Only a router sends it this way, because
 * it let the packet before leave by the port that it had come by.
 */
static bool
answers_hairpin(const struct nat *nat, const struct onvm_pkt *pkt,
		const struct onvm_headers *headers)
{
	return nat->is_routed && nat->config.nb_inside != 0 &&
	       nat_is_inside(&nat->config, ip_src(pkt->data, headers)) &&
	       (nat_external_find(nat, ip_dst(pkt->data, headers)) >= 0 ||
		nat_one_to_one_find(nat, ip_dst(pkt->data, headers), true) != NULL);
}

/* @p external: of packets that go to an external address, its index. */
static enum handling
sort_ip(const struct nat *nat, const struct onvm_pkt *pkt, const struct onvm_headers *headers,
	uint8_t *external, enum nat_reason *reason)
{
	const bool is_reverse = (pkt->flags & ONVM_F_REVERSE) != 0 &&
				!answers_hairpin(nat, pkt, headers);

	if (nat->pairs != NULL) {
		const uint8_t *const end = is_reverse ? ip_dst(pkt->data, headers) :
							ip_src(pkt->data, headers);

		if (nat_one_to_one_find(nat, end, is_reverse) != NULL) {
			*reason = nat_one_to_one_refuse(pkt->data, headers);
			return *reason != NAT_NO_DROP ? DROP : is_reverse ? PAIR_IN : PAIR_OUT;
		}
	}
	if (is_reverse) {
		const uint8_t *const dst = ip_dst(pkt->data, headers);
		const int32_t found = nat_external_find(nat, dst);

		if (found < 0) {
			/* what was not translated on its way out is not on its way back */
			*reason = NAT_DROP_NO_MAPPING;
			return nat_is_inside(&nat->config, dst) ? DROP : PASS;
		}
		*external = (uint8_t)found;
	} else if (!nat_is_inside(&nat->config, ip_src(pkt->data, headers))) {
		return PASS;
	}
	*reason = refuse(pkt->data, headers);
	if (*reason != NAT_NO_DROP)
		return DROP;
	if (headers->fragment_offset != 0)
		return is_reverse ? FRAGMENT_IN : FRAGMENT_OUT;
	if (headers->protocol == ONVM_PROTO_ICMP)
		return sort_icmp(pkt->data, headers, is_reverse, reason);
	return is_reverse ? INBOUND : OUTBOUND;
}

/* An IPv6 packet: what becomes IPv4 goes on as such. */
RARE static enum handling
sort_ip6(struct nat *nat, struct onvm_pkt *pkt, struct onvm_headers *headers, struct chunk *chunk,
	 enum nat_reason *reason)
{
	uint32_t host = 0;
	const enum nat_ipv6 result = nat_ipv6_translate(nat, pkt, headers, &host, reason);

	if (host != 0)
		chunk->hosts[chunk->nb_hosts++] = host;
	switch (result) {
	case NAT_IPV6_OTHER:
		return PASS;
	case NAT_IPV6_DROP:
		return DROP;
	case NAT_IPV6_DONE:
		return DONE;
	case NAT_IPV6_STAND_IN:
		break;
	}
	if (pkt->data[headers->l3_offset + 8] == 0)
		return EXPIRED_OUT;
	if (nat->link_mtu != 0 && nat_sent_bytes(pkt, headers) > nat->link_mtu)
		return TOO_BIG_OUT;
	if (headers->fragment_offset != 0)
		return FRAGMENT_OUT;
	if (headers->protocol == ONVM_PROTO_ICMP)
		return sort_icmp(pkt->data, headers, false, reason);
	return OUTBOUND;
}

static enum handling
sort_packet(struct nat *nat, struct onvm_pkt *pkt, struct onvm_headers *headers,
	    struct chunk *chunk, uint8_t *external)
{
	enum nat_reason reason = NAT_DROP_MALFORMED;
	enum handling handling = DROP;

	if (headers->l3_status == ONVM_L3_NONIP && pkt->length >= 14) {
		reason = NAT_DROP_NOT_IP;
		handling = stays_on_link(pkt, headers) ? PASS : DROP;
	} else if (headers->ip_version == 6) {
		handling = nat->handles_ipv6 ? sort_ip6(nat, pkt, headers, chunk, &reason) : PASS;
	} else if (headers->l3_status == ONVM_L3_OK) {
		handling = sort_ip(nat, pkt, headers, external, &reason);
	}
	if (handling == DROP)
		onvm_pkt_drop(pkt, (uint16_t)reason);
	return handling;
}

/* RFC 4787 REQ-13: what does not fit and may not be cut. */
RARE static enum handling
size_check(const struct nat *nat, const struct onvm_pkt *pkt, const struct onvm_headers *headers,
	   enum handling handling)
{
	if (handling == PASS || handling == DROP || handling == DONE ||
	    nat_sent_bytes(pkt, headers) <= nat->mtu ||
	    (pkt->data[headers->l3_offset + 6] & 0x40) == 0)
		return handling;
	return handling == INBOUND || handling == ERROR_IN || handling == FRAGMENT_IN ||
			       handling == PAIR_IN ?
		       TOO_BIG_IN :
		       TOO_BIG_OUT;
}

/* false: there are too many different VLANs. */
static inline bool
key_fill_out(struct nat *nat, struct nat_session_key *key, const uint8_t *data,
	     const struct onvm_headers *headers)
{
	const uint8_t *const l4 = data + headers->l4_offset;

	memset(key, 0, sizeof(*key));
	key->protocol = headers->protocol;
	memcpy(key->inside, ip_src(data, headers), 4);
	memcpy(key->remote, ip_dst(data, headers), 4);
	if (headers->protocol == ONVM_PROTO_ICMP) {
		memcpy(key->inside_port, l4 + 4, 2);
	} else {
		memcpy(key->inside_port, l4, 2);
		memcpy(key->remote_port, l4 + 2, 2);
	}
	return nat_vlan_fill(nat, headers, key->vlan);
}

/* false: no mapping has this external port. */
static inline bool
key_fill_in(struct nat *nat, struct nat_session_key *key, const uint8_t *data,
	    const struct onvm_headers *headers, uint32_t external)
{
	const bool is_icmp = headers->protocol == ONVM_PROTO_ICMP;
	const uint8_t *const l4 = data + headers->l4_offset;
	const struct nat_endpoint *inside;

	memset(key, 0, sizeof(*key));
	if (!nat_vlan_fill(nat, headers, key->vlan))
		return false;
	inside = nat_endpoint_behind(nat, external, nat_space_of(headers->protocol),
				     l4 + (is_icmp ? 4 : 2), key->vlan);
	if (inside == NULL)
		return false;
	key->protocol = headers->protocol;
	memcpy(key->inside, inside->address, 4);
	memcpy(key->inside_port, inside->port, 2);
	memcpy(key->remote, ip_src(data, headers), 4);
	if (!is_icmp)
		memcpy(key->remote_port, l4, 2);
	return true;
}

/* Inlined as a whole: with the side and the IP version known, little of it is left. */
__attribute__((flatten, always_inline)) static inline void
rewrite(uint8_t *data, const struct onvm_headers *headers, enum onvm_side side,
	const uint8_t *address, const uint8_t *port)
{
	if (headers->ip_version != 4)
		__builtin_unreachable();
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
	const struct nat_session *const value = onvm_flow_value(nat->sessions, session);

	nat_session_use(nat, session, headers->protocol, headers->tcp_flags, false, now_ns);
	rewrite(data, headers, ONVM_SRC, nat->config.externals[value->external], value->port);
	return NAT_NO_DROP;
}

/*
 * Whether a packet for an external address will arrive: found out before anything is opened for it.
 * @p session: slot of @p key, or below 0.
 */
RARE static enum nat_reason
hairpin_check(struct nat *nat, const uint8_t *data, const struct onvm_headers *headers,
	      const struct nat_session_key *key, int32_t session, uint64_t now_ns)
{
	const int32_t external = nat_external_find(nat, key->remote);
	struct nat_session_key target;
	const struct nat_mapping *own = NULL;
	int32_t slot = -1;

	/* A query has one identifier, that of the end that asks. */
	if (headers->protocol == ONVM_PROTO_ICMP)
		return NAT_DROP_NO_MAPPING;
	nat_backlog_clear(nat, now_ns);
	if (!key_fill_in(nat, &target, data, headers, (uint32_t)external))
		return NAT_DROP_NO_MAPPING;
	if (session >= 0)
		slot = ((struct nat_session *)onvm_flow_value(nat->sessions, session))->mapping;
	else
		slot = nat_mapping_find(nat, key);
	if (slot >= 0)
		own = onvm_flow_value(nat->mappings, slot);
	memcpy(target.remote,
	       nat->config.externals[own != NULL ? own->external :
						   nat_external_of(nat, key->inside, key->vlan)],
	       sizeof(target.remote));
	slot = -1;
	if (own != NULL) {
		memcpy(target.remote_port, own->port, sizeof(target.remote_port));
		slot = nat_session_find(nat, &target, now_ns);
	}
	return nat_filter_allows(nat, &target, slot) ? NAT_NO_DROP : NAT_DROP_FILTERED;
}

/* RFC 4787 REQ-9: an inside host reaches another by its external endpoint. */
RARE static enum nat_reason
hairpin(struct nat *nat, struct onvm_pkt *pkt, bool is_error, uint64_t now_ns)
{
	struct onvm_headers headers;
	struct nat_session_key key;
	enum nat_reason reason = NAT_DROP_NO_MAPPING;

	onvm_parse(pkt->data, pkt->length, &headers);
	if (is_error)
		reason = nat_error_in(nat, pkt->data, &headers, now_ns);
	else if (key_fill_in(nat, &key, pkt->data, &headers,
			     (uint32_t)nat_external_find(nat, ip_dst(pkt->data, &headers))))
		reason = translate_in(nat, pkt->data, &headers, &key,
				      nat_session_find(nat, &key, now_ns), now_ns);
	if (reason != NAT_NO_DROP)
		return reason;
	nat->counters[NAT_HAIRPINNED]++;
	nat_send_inside(nat, pkt);
	return reason;
}

/* RFC 5508 REQ-8: the sender of a flow that cannot be opened learns that. */
RARE static enum nat_reason
flow_refuse(struct nat *nat, struct onvm_pkt *pkt, const struct onvm_headers *headers,
	    const struct nat_session_key *key, enum nat_reason reason, uint64_t now_ns)
{
	const uint8_t *const source =
		nat->config.externals[nat_external_of(nat, key->inside, key->vlan)];

	nat->counters[NAT_FLOWS_REFUSED]++;
	if (!nat_own_error_become(nat, pkt, headers, source, NAT_ERROR_PROHIBITED, 0, now_ns))
		return reason;
	nat_send_inside(nat, pkt);
	return NAT_NO_DROP;
}

/* Tell an inside host about its packet, in place of it where a router knows the way there. */
RARE static enum nat_reason
inside_tell(struct nat *nat, struct onvm_ctx *ctx, const struct onvm_headers *headers,
	    struct onvm_pkt *pkt, enum nat_own_error error, uint32_t mtu)
{
	const struct nat_offender about = {pkt->data, *headers, pkt->port};
	const enum nat_reason reason = error == NAT_ERROR_TTL ? NAT_DROP_TTL : NAT_DROP_TOO_BIG;
	const uint8_t *const src = ip_src(pkt->data, headers);
	const uint8_t *source;
	struct onvm_pkt *made;
	uint8_t vlan[3];

	if (!nat_vlan_fill(nat, headers, vlan))
		return reason;
	source = nat->config.externals[nat_external_of(nat, src, vlan)];
	if (nat->is_routed) {
		if (!nat_own_error_become(nat, pkt, headers, source, error, mtu, ctx->now_ns))
			return reason;
		nat_send_inside(nat, pkt);
		return NAT_NO_DROP;
	}
	made = nat_own_error_send(nat, ctx, &about, source, error, mtu);
	if (made != NULL && nat_is_stand_in(src) && nat64_in(nat, ctx, made) != NAT_NO_DROP)
		made->verdict = ONVM_DROP;
	return reason;
}

RARE static enum nat_reason
handle_too_big(struct nat *nat, struct onvm_ctx *ctx, const struct onvm_headers *headers,
	       struct onvm_pkt *pkt, bool is_inbound)
{
	const struct nat_offender about = {pkt->data, *headers, pkt->port};

	if (!is_inbound)
		return inside_tell(nat, ctx, headers, pkt, NAT_ERROR_TOO_BIG,
				   nat_is_stand_in(ip_src(pkt->data, headers)) ? nat->link_mtu :
										 nat->mtu);
	nat_own_error_send(nat, ctx, &about, ip_dst(pkt->data, headers), NAT_ERROR_TOO_BIG,
			   nat->mtu);
	return NAT_DROP_TOO_BIG;
}

static enum nat_reason
handle_outbound(struct nat *nat, struct onvm_ctx *ctx, struct chunk *chunk, uint32_t at,
		struct onvm_pkt *pkt, bool *has_changed)
{
	const struct onvm_headers *const headers = &chunk->headers[at];
	const struct nat_session_key *const key = &chunk->keys[chunk->key[at]];
	const bool is_hairpin = nat_external_find(nat, key->remote) >= 0;
	int32_t slot = chunk->slots[chunk->key[at]];
	enum nat_reason reason = NAT_NO_DROP;
	uint8_t ends[8];

	memcpy(ends, ip_src(pkt->data, headers), sizeof(ends));
	if (*has_changed || (slot >= 0 && nat_session_has_expired(nat, slot, ctx->now_ns))) {
		slot = nat_session_find(nat, key, ctx->now_ns);
		*has_changed = true;
	}
	if (is_hairpin) {
		*has_changed = true;
		reason = hairpin_check(nat, pkt->data, headers, key, slot, ctx->now_ns);
		if (reason != NAT_NO_DROP)
			return reason;
	}
	if (slot < 0) {
		*has_changed = true;
		slot = nat_session_open(nat, key, ctx->now_ns);
		if (slot < 0)
			return flow_refuse(nat, pkt, headers, key, (enum nat_reason)(-slot - 1),
					   ctx->now_ns);
	}
	reason = translate_out(nat, pkt->data, headers, slot, ctx->now_ns);
	ctx->counters[NAT_TRANSLATED_OUT]++;
	if (is_hairpin)
		reason = hairpin(nat, pkt, false, ctx->now_ns);
	if (headers->more_fragments && reason == NAT_NO_DROP)
		nat_fragment_note(nat, pkt->data, headers, ends, false, ctx->now_ns);
	return reason;
}

static enum nat_reason
handle_inbound(struct nat *nat, struct onvm_ctx *ctx, struct chunk *chunk, uint32_t at,
	       struct onvm_pkt *pkt, bool *has_changed)
{
	const struct onvm_headers *const headers = &chunk->headers[at];
	struct nat_session_key *const key = &chunk->keys[chunk->key[at]];
	int32_t slot = chunk->slots[chunk->key[at]];
	enum nat_reason reason;
	uint8_t ends[8];

	memcpy(ends, ip_src(pkt->data, headers), sizeof(ends));
	if (slot < 0 || *has_changed || nat_session_has_expired(nat, slot, ctx->now_ns)) {
		*has_changed |= nat->has_backlog;
		nat_backlog_clear(nat, ctx->now_ns);
		if (!key_fill_in(nat, key, pkt->data, headers, chunk->external[at])) {
			nat_unsolicited_note(nat, pkt, headers, ctx->now_ns);
			return NAT_DROP_NO_MAPPING;
		}
		slot = nat_session_find(nat, key, ctx->now_ns);
	}
	reason = translate_in(nat, pkt->data, headers, key, slot, ctx->now_ns);
	if (reason != NAT_NO_DROP) {
		nat_unsolicited_note(nat, pkt, headers, ctx->now_ns);
		return reason;
	}
	ctx->counters[NAT_TRANSLATED_IN]++;
	if (headers->more_fragments)
		nat_fragment_note(nat, pkt->data, headers, ends, true, ctx->now_ns);
	return reason;
}

RARE static enum nat_reason
handle_fragment(struct nat *nat, struct onvm_ctx *ctx, const struct onvm_headers *headers,
		struct onvm_pkt *pkt, bool is_inbound)
{
	const bool is_hairpin = !is_inbound &&
				nat_external_find(nat, ip_dst(pkt->data, headers)) >= 0;

	if (!nat_fragment_translate(nat, pkt->data, headers, is_inbound, ctx->now_ns))
		return NAT_DROP_FRAGMENT;
	ctx->counters[is_inbound ? NAT_TRANSLATED_IN : NAT_TRANSLATED_OUT]++;
	if (is_hairpin) {
		nat->counters[NAT_HAIRPINNED]++;
		nat_send_inside(nat, pkt);
	}
	return NAT_NO_DROP;
}

RARE static enum nat_reason
handle_error(struct nat *nat, struct onvm_ctx *ctx, const struct onvm_headers *headers,
	     struct onvm_pkt *pkt, bool is_inbound)
{
	const bool is_hairpin = !is_inbound &&
				nat_external_find(nat, ip_dst(pkt->data, headers)) >= 0;
	enum nat_reason reason = is_inbound ? nat_error_in(nat, pkt->data, headers, ctx->now_ns) :
					      nat_error_out(nat, pkt->data, headers, ctx->now_ns);

	if (reason == NAT_NO_DROP)
		ctx->counters[NAT_ICMP_ERRORS]++;
	if (reason == NAT_NO_DROP && is_hairpin)
		reason = hairpin(nat, pkt, true, ctx->now_ns);
	return reason;
}

/* From a host of a pair to an address of the pool. Others have no port that names a mapping. */
static enum nat_reason
pair_hairpin(struct nat *nat, struct onvm_ctx *ctx, const struct onvm_headers *headers,
	     struct onvm_pkt *pkt)
{
	const bool is_error = onvm_icmp_is_error(pkt->data, headers);

	if (onvm_headers_is_fragment(headers))
		return NAT_DROP_FRAGMENT;
	if (nat_space_of(headers->protocol) == NAT_SPACES)
		return NAT_DROP_PROTOCOL;
	if (headers->protocol == ONVM_PROTO_ICMP && !is_error)
		return NAT_DROP_NO_MAPPING;
	nat_backlog_clear(nat, ctx->now_ns);
	return hairpin(nat, pkt, is_error, ctx->now_ns);
}

RARE static enum nat_reason
handle_pair(struct nat *nat, struct onvm_ctx *ctx, const struct onvm_headers *headers,
	    struct onvm_pkt *pkt, bool is_inbound)
{
	const uint8_t *const end = is_inbound ? ip_dst(pkt->data, headers) :
						ip_src(pkt->data, headers);
	const enum nat_reason reason =
		nat_one_to_one_translate(pkt->data, headers, is_inbound ? ONVM_DST : ONVM_SRC,
					 nat_one_to_one_find(nat, end, is_inbound));

	if (reason != NAT_NO_DROP)
		return reason;
	ctx->counters[is_inbound ? NAT_TRANSLATED_IN : NAT_TRANSLATED_OUT]++;
	if (!is_inbound && nat_external_find(nat, ip_dst(pkt->data, headers)) >= 0)
		return pair_hairpin(nat, ctx, headers, pkt);
	return NAT_NO_DROP;
}

/* What goes to the external address of a pair from inside, and to stand-ins. */
RARE static enum nat_reason
detour(struct nat *nat, struct onvm_ctx *ctx, const struct onvm_headers *headers,
       struct onvm_pkt *pkt, bool is_outbound)
{
	const uint8_t *const dst = ip_dst(pkt->data, headers);
	const uint8_t *const inside = is_outbound ? nat_one_to_one_find(nat, dst, true) : NULL;
	struct onvm_headers now;
	enum nat_reason reason;

	if (inside != NULL) {
		onvm_parse(pkt->data, pkt->length, &now);
		reason = nat_one_to_one_translate(pkt->data, &now, ONVM_DST, inside);
		if (reason != NAT_NO_DROP)
			return reason;
		nat->counters[NAT_HAIRPINNED]++;
		nat_send_inside(nat, pkt);
	}
	return nat_is_stand_in(dst) ? nat64_in(nat, ctx, pkt) : NAT_NO_DROP;
}

/* External port of an inbound packet. */
static inline const uint8_t *
external_port(const uint8_t *data, const struct onvm_headers *headers)
{
	return data + headers->l4_offset + (headers->protocol == ONVM_PROTO_ICMP ? 4 : 2);
}

/* First look at every packet. */
static void
sort(struct nat *nat, struct chunk *chunk, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	for (uint32_t i = 0; i < nb_pkts; i++) {
		struct onvm_headers *const headers = &chunk->headers[i];

		if (i + PREFETCH_AHEAD < nb_pkts)
			__builtin_prefetch(pkts[i + PREFETCH_AHEAD].data);
		onvm_parse(pkts[i].data, pkts[i].length, headers);
		chunk->handling[i] =
			(uint8_t)sort_packet(nat, &pkts[i], headers, chunk, &chunk->external[i]);
		if (__builtin_expect(pkts[i].length > nat->frame_max, 0))
			chunk->handling[i] = (uint8_t)size_check(nat, &pkts[i], headers,
								 (enum handling)chunk->handling[i]);
		if (chunk->handling[i] == INBOUND)
			__builtin_prefetch(nat_mapping_place(nat, chunk->external[i],
							     nat_space_of(headers->protocol),
							     external_port(pkts[i].data, headers)));
	}
}

/* The keys of inbound packets lie in their mappings: have those in the cache soon. */
static void
mappings_fetch(struct nat *nat, const struct chunk *chunk, const struct onvm_pkt *pkts,
	       uint32_t nb_pkts)
{
	for (uint32_t i = 0; i < nb_pkts; i++) {
		const struct onvm_headers *const headers = &chunk->headers[i];
		int32_t slot;

		if (chunk->handling[i] != INBOUND)
			continue;
		slot = *nat_mapping_place(nat, chunk->external[i], nat_space_of(headers->protocol),
					  external_port(pkts[i].data, headers));
		if (slot >= 0)
			onvm_flow_prefetch(nat->mappings, slot);
	}
}

/* Keys of packets that have a session to look up, and the sessions. */
static void
look_up(struct nat *nat, struct chunk *chunk, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	chunk->nb_keys = 0;
	for (uint32_t i = 0; i < nb_pkts; i++) {
		const struct onvm_headers *const headers = &chunk->headers[i];
		struct nat_session_key *const key = &chunk->keys[chunk->nb_keys];

		chunk->key[i] = (uint8_t)chunk->nb_keys;
		if (chunk->handling[i] == OUTBOUND) {
			if (!key_fill_out(nat, key, pkts[i].data, headers)) {
				onvm_pkt_drop(&pkts[i], NAT_DROP_TABLE_FULL);
				chunk->handling[i] = DROP;
				continue;
			}
		} else if (chunk->handling[i] != INBOUND) {
			continue;
		} else if (!key_fill_in(nat, key, pkts[i].data, headers, chunk->external[i])) {
			/* no mapping yet: an unused key, protocol 0 */
			memset(key, 0, sizeof(*key));
		}
		chunk->nb_keys++;
	}
	if (chunk->nb_keys == 0)
		return;
	onvm_flow_table_lookup_bulk(nat->sessions, chunk->keys, chunk->slots, chunk->nb_keys);
	for (uint32_t i = 0; i < chunk->nb_keys; i++)
		if (chunk->slots[i] >= 0)
			onvm_flow_prefetch(nat->sessions, chunk->slots[i]);
}

static void
burst_chunk(struct nat *nat, struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	bool has_changed = false;
	struct chunk chunk;

	chunk.nb_hosts = 0;
	sort(nat, &chunk, pkts, nb_pkts);
	mappings_fetch(nat, &chunk, pkts, nb_pkts);
	look_up(nat, &chunk, pkts, nb_pkts);
	for (uint32_t i = 0; i < nb_pkts; i++) {
		struct onvm_pkt *const pkt = &pkts[i];
		enum nat_reason reason = NAT_NO_DROP;

		switch ((enum handling)chunk.handling[i]) {
		case PASS:
			ctx->counters[NAT_PASSED]++;
			continue;
		case DROP:
		case DONE:
			continue;
		case OUTBOUND:
			reason = handle_outbound(nat, ctx, &chunk, i, pkt, &has_changed);
			break;
		case INBOUND:
			reason = handle_inbound(nat, ctx, &chunk, i, pkt, &has_changed);
			break;
		case ERROR_OUT:
		case ERROR_IN:
			reason = handle_error(nat, ctx, &chunk.headers[i], pkt,
					      chunk.handling[i] == ERROR_IN);
			has_changed = true; /* what it is about may have expired */
			break;
		case FRAGMENT_OUT:
		case FRAGMENT_IN:
			reason = handle_fragment(nat, ctx, &chunk.headers[i], pkt,
						 chunk.handling[i] == FRAGMENT_IN);
			break;
		case TOO_BIG_OUT:
		case TOO_BIG_IN:
			reason = handle_too_big(nat, ctx, &chunk.headers[i], pkt,
						chunk.handling[i] == TOO_BIG_IN);
			break;
		case PAIR_OUT:
		case PAIR_IN:
			reason = handle_pair(nat, ctx, &chunk.headers[i], pkt,
					     chunk.handling[i] == PAIR_IN);
			has_changed = true; /* a hairpin may have opened or ended something */
			break;
		case EXPIRED_OUT:
			reason = inside_tell(nat, ctx, &chunk.headers[i], pkt, NAT_ERROR_TTL, 0);
			break;
		}
		if (nat->has_detours && reason == NAT_NO_DROP)
			reason = detour(nat, ctx, &chunk.headers[i], pkt,
					chunk.handling[i] != INBOUND &&
						chunk.handling[i] != ERROR_IN &&
						chunk.handling[i] != FRAGMENT_IN &&
						chunk.handling[i] != PAIR_IN);
		if (reason != NAT_NO_DROP)
			onvm_pkt_drop(pkt, (uint16_t)reason);
	}
	while (chunk.nb_hosts != 0) {
		uint8_t stand_in[4];

		onvm_store_be32(stand_in, chunk.hosts[--chunk.nb_hosts]);
		nat_host_release(nat, stand_in);
	}
}

void
nat_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct nat *const nat = ctx->state;

	nat->counters = ctx->counters;
	if (nat->has_pending) {
		for (uint32_t i = 0; i < ONVM_COUNTERS_MAX; i++)
			ctx->counters[i] += nat->pending_counters[i];
		memset(nat->pending_counters, 0, sizeof(nat->pending_counters));
		nat->has_pending = false;
	}
	nat_expire(nat, ctx->now_ns, EXPIRE_BUDGET);
	if (nat->nb_unsolicited != 0)
		nat_unsolicited_answer(nat, ctx);
	for (uint32_t first = 0; first < nb_pkts; first += CHUNK)
		burst_chunk(nat, ctx, pkts + first,
			    nb_pkts - first < CHUNK ? nb_pkts - first : CHUNK);
	nat->counters = nat->pending_counters;
}
