/* SPDX-License-Identifier: Apache-2.0 */
#include "lb.h"

#include <string.h>

#define CHUNK 32u
#define PREFETCH_AHEAD 4u
#define EXPIRE_BUDGET 256u

/* What is known of the packets of a chunk. */
struct chunk {
	struct onvm_headers headers[CHUNK];
	struct lb_key keys[CHUNK]; /* packed: of packets that may belong to a connection */
	int32_t slots[CHUNK];	   /* of those */
	bool has_key[CHUNK];	   /* by packet */
	uint32_t nb_keys;
};

static inline bool
is_transport(const struct onvm_headers *headers)
{
	return headers->l3_status == ONVM_L3_OK && headers->l4_status == ONVM_L4_OK &&
	       (headers->protocol == ONVM_PROTO_TCP || headers->protocol == ONVM_PROTO_UDP) &&
	       !onvm_headers_is_fragment(headers);
}

static inline void
vlans_read(uint16_t *vlans, const struct onvm_headers *headers)
{
	for (uint32_t i = 0; i < ONVM_VLANS_MAX; i++)
		vlans[i] = headers->vlan_tci[i] & 0x0fff;
}

static inline void
key_fill(struct lb_key *key, const uint8_t *data, const struct onvm_headers *headers)
{
	const uint32_t size = onvm_address_bytes(headers->ip_version);
	const uint8_t *const src = data + headers->l3_offset + (headers->ip_version == 4 ? 12 : 8);

	memset(key, 0, sizeof(*key));
	memcpy(key->src, src, size);
	memcpy(key->dst, src + size, size);
	memcpy(key->src_port, data + headers->l4_offset, 2);
	memcpy(key->dst_port, data + headers->l4_offset + 2, 2);
	key->protocol = headers->protocol;
	key->ip_version = headers->ip_version;
	vlans_read(key->vlans, headers);
}

static inline bool
is_opening(const struct onvm_headers *headers)
{
	return headers->protocol == ONVM_PROTO_TCP && onvm_tcp_is_open(headers->tcp_flags);
}

static inline enum lb_health
health_of(const struct lb *lb, const struct lb_entry *entry)
{
	return entry->backend == LB_NO_BACKEND ? LB_UP :
						 (enum lb_health)lb->usages[entry->backend].health;
}

/*
 * A SYN on a connection that is closed, or whose backend was removed or is down, begins a new one.
 * So does any packet of UDP to a backend that is down.
 */
static inline bool
connection_restarts(struct lb *lb, int32_t slot, const struct onvm_headers *headers)
{
	const struct lb_entry *const entry = onvm_flow_value(lb->connections, slot);

	if (entry->is_reply)
		return false;
	if (headers->protocol == ONVM_PROTO_UDP)
		return health_of(lb, entry) != LB_UP;
	return is_opening(headers) &&
	       (entry->life == LB_CLOSING || entry->is_orphan || health_of(lb, entry) != LB_UP);
}

/* What is counted of each packet of a connection to a VIP. */
static inline void
usage_count(struct lb *lb, const struct lb_entry *entry, uint32_t length)
{
	struct lb_usage *usage;

	if (entry->backend == LB_NO_BACKEND)
		return;
	usage = &lb->usages[entry->backend];
	usage->packets[entry->is_reply]++;
	usage->bytes[entry->is_reply] += length;
}

static void
rewrite(uint8_t *data, const struct onvm_headers *headers, const struct lb_entry *entry)
{
	const enum onvm_side side = entry->is_reply ? ONVM_SRC : ONVM_DST;
	const uint32_t size = onvm_address_bytes(headers->ip_version);
	const uint8_t *const l4 = data + headers->l4_offset;
	const uint8_t *const client_port = l4 + (entry->is_reply ? 2 : 0);

	onvm_rewrite_end(data, headers, side, entry->address, entry->port);
	if (memcmp(client_port, entry->client_port, 2) != 0) {
		const uint8_t *const client = data + headers->l3_offset +
					      (headers->ip_version == 4 ? 12 : 8) +
					      (entry->is_reply ? size : 0);
		uint8_t kept[ONVM_ADDRESS_BYTES];

		memcpy(kept, client, size);
		onvm_rewrite_end(data, headers, entry->is_reply ? ONVM_DST : ONVM_SRC, kept,
				 entry->client_port);
	}
}

/* TCP or UDP of no connection that begins none. */
static enum lb_reason
stray(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers,
      const struct lb_key *key)
{
	const struct lb_vip *vip;

	if (lb_is_vip(lb, key->ip_version, key->dst))
		return lb_reject(lb, pkt, headers) ? LB_NO_DROP : LB_DROP_NO_SERVICE;
	vip = is_opening(headers) ? NULL : lb_vip_of_server(lb, key);
	if (vip == NULL) {
		lb->counters[LB_PASSED]++;
		return LB_NO_DROP;
	}
	onvm_rewrite_end(pkt->data, headers, ONVM_SRC, vip->address, vip->port);
	lb->counters[LB_FROM_BACKEND]++;
	return LB_NO_DROP;
}

static enum lb_reason
handle(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers,
       const struct lb_key *key, int32_t slot, uint64_t now_ns, bool *has_changed)
{
	const struct lb_entry *entry;

	if (*has_changed)
		slot = lb_connection_find(lb, key, now_ns);
	else if (slot >= 0 && lb_connection_has_expired(lb, slot, now_ns))
		slot = lb_connection_find(lb, key, now_ns), *has_changed = true;
	if (slot >= 0 && connection_restarts(lb, slot, headers)) {
		lb_connection_close(lb, slot);
		slot = -1;
		*has_changed = true;
	}
	if (slot < 0) {
		const struct lb_vip *const vip =
			lb_vip_find(lb, key->ip_version, key->dst, key->protocol, key->dst_port);

		if (vip == NULL && !lb_is_for_server(lb, key))
			return stray(lb, pkt, headers, key);
		*has_changed = true;
		if (vip == NULL) {
			slot = lb_connection_open_direct(lb, key, is_opening(headers), now_ns);
			if (slot < 0)
				return stray(lb, pkt, headers, key);
		} else {
			slot = lb_connection_open(lb, vip, key, is_opening(headers), now_ns);
			if (slot < 0)
				return (enum lb_reason)(-slot - 1);
		}
	}
	entry = onvm_flow_value(lb->connections, slot);
	if (!entry->is_reply && health_of(lb, entry) == LB_DOWN_RESET) {
		lb_connection_close(lb, slot);
		*has_changed = true;
		return lb_reset(lb, pkt, headers) ? LB_NO_DROP : LB_DROP_NO_BACKEND;
	}
	if ((headers->tcp_flags & (ONVM_TCP_SYN | ONVM_TCP_RST)) != 0)
		lb_failures_note(lb, key, entry, headers->tcp_flags, now_ns);
	lb_connection_use(lb, slot, pkt->data, headers, now_ns);
	usage_count(lb, entry, pkt->length);
	if (entry->forward != LB_NAT && !entry->is_reply)
		return lb_forward(lb, pkt, headers, entry, lb_hash(key, false));
	if (entry->is_direct && entry->forward == LB_NAT) {
		lb->counters[LB_PASSED]++;
		return LB_NO_DROP;
	}
	if (!entry->is_direct)
		rewrite(pkt->data, headers, entry);
	lb->counters[entry->is_reply ? LB_FROM_BACKEND : LB_TO_BACKEND]++;
	return LB_NO_DROP;
}

static inline bool
is_neighbour_discovery(uint8_t protocol, uint8_t type)
{
	return protocol == ONVM_PROTO_ICMPV6 && type >= 133 && type <= 137;
}

static enum lb_reason
handle_icmp(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers, bool is_vip,
	    uint64_t now_ns)
{
	const uint8_t type = pkt->data[headers->l4_offset];

	if (onvm_icmp_is_error(pkt->data, headers)) {
		uint16_t vlans[ONVM_VLANS_MAX];

		vlans_read(vlans, headers);
		return lb_error(lb, pkt, headers, vlans, is_vip, now_ns);
	}
	if (!is_vip || is_neighbour_discovery(headers->protocol, type)) {
		lb->counters[LB_PASSED]++;
		return LB_NO_DROP;
	}
	if (type == (headers->ip_version == 4 ? 8 : 128) && lb_answer_echo(lb, pkt, headers))
		return LB_NO_DROP;
	return LB_DROP_NO_SERVICE;
}

/* Neither TCP nor UDP. For the address of a VIP, none of it passes. */
static enum lb_reason
handle_other(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers,
	     uint64_t now_ns)
{
	const uint32_t dst = headers->l3_offset + (headers->ip_version == 4 ? 16 : 24);
	const bool is_ip = headers->l3_status == ONVM_L3_OK;
	const bool is_vip = is_ip && lb_is_vip(lb, headers->ip_version, pkt->data + dst);
	const bool is_whole = headers->l4_status == ONVM_L4_OK &&
			      !onvm_headers_is_fragment(headers);

	if (!is_ip && headers->l3_status != ONVM_L3_NONIP)
		return LB_DROP_MALFORMED;
	if (is_ip && is_whole &&
	    headers->protocol == (headers->ip_version == 4 ? ONVM_PROTO_ICMP : ONVM_PROTO_ICMPV6))
		return handle_icmp(lb, pkt, headers, is_vip, now_ns);
	if (!is_vip) {
		lb->counters[LB_PASSED]++;
		return LB_NO_DROP;
	}
	if (onvm_headers_is_fragment(headers))
		return LB_DROP_FRAGMENT;
	if (headers->l4_status == ONVM_L4_SHORT || headers->l4_status == ONVM_L4_BAD_HEADER)
		return LB_DROP_MALFORMED;
	return LB_DROP_NO_SERVICE;
}

/* Entries of the packets, and those of the clients' side, in the cache soon. */
static void
entries_look_up(struct lb *lb, struct chunk *chunk)
{
	onvm_flow_table_lookup_bulk(lb->connections, chunk->keys, chunk->slots, chunk->nb_keys);
	for (uint32_t i = 0; i < chunk->nb_keys; i++)
		if (chunk->slots[i] >= 0)
			onvm_flow_prefetch(lb->connections, chunk->slots[i]);
	for (uint32_t i = 0; i < chunk->nb_keys; i++) {
		const struct lb_entry *entry;

		if (chunk->slots[i] < 0)
			continue;
		entry = onvm_flow_value(lb->connections, chunk->slots[i]);
		if (entry->is_reply)
			onvm_flow_prefetch(lb->connections, entry->partner);
	}
}

static void
burst_chunk(struct lb *lb, struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct chunk chunk;
	bool has_changed = false;
	uint32_t at = 0;

	chunk.nb_keys = 0;
	for (uint32_t i = 0; i < nb_pkts; i++) {
		struct onvm_headers *const headers = &chunk.headers[i];

		if (i + PREFETCH_AHEAD < nb_pkts)
			__builtin_prefetch(pkts[i + PREFETCH_AHEAD].data);
		onvm_parse(pkts[i].data, pkts[i].length, headers);
		chunk.has_key[i] = is_transport(headers);
		if (chunk.has_key[i])
			key_fill(&chunk.keys[chunk.nb_keys++], pkts[i].data, headers);
	}
	if (chunk.nb_keys != 0)
		entries_look_up(lb, &chunk);
	for (uint32_t i = 0; i < nb_pkts; i++) {
		const struct onvm_headers *const headers = &chunk.headers[i];
		enum lb_reason reason;

		if (chunk.has_key[i]) {
			reason = handle(lb, &pkts[i], headers, &chunk.keys[at], chunk.slots[at],
					ctx->now_ns, &has_changed);
			at++;
		} else {
			reason = handle_other(lb, &pkts[i], headers, ctx->now_ns);
			has_changed = true; /* what an error is about may have expired */
		}
		if (reason != LB_NO_DROP)
			onvm_pkt_drop(&pkts[i], (uint16_t)reason);
	}
}

void
lb_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct lb *const lb = ctx->state;

	lb->counters = ctx->counters;
	if (lb->has_pending) {
		for (uint32_t i = 0; i < ONVM_COUNTERS_MAX; i++)
			ctx->counters[i] += lb->pending_counters[i];
		memset(lb->pending_counters, 0, sizeof(lb->pending_counters));
		lb->has_pending = false;
	}
	lb_expire(lb, ctx->now_ns, EXPIRE_BUDGET);
	for (uint32_t first = 0; first < nb_pkts; first += CHUNK)
		burst_chunk(lb, ctx, pkts + first,
			    nb_pkts - first < CHUNK ? nb_pkts - first : CHUNK);
	lb->counters = lb->pending_counters;
}
