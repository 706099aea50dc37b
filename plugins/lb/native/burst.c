/* SPDX-License-Identifier: Apache-2.0 */
#include "lb.h"

#include <string.h>

#define CHUNK 32u
#define PREFETCH_AHEAD 4u

/* What is known of the packets of a chunk that may belong to a connection. */
struct candidates {
	struct onvm_headers headers[CHUNK];
	struct lb_key keys[CHUNK];
	int32_t slots[CHUNK];
	uint8_t packet[CHUNK];
	uint32_t nb;
};

/* VIP of an address, or address and port; NULL if it is none. @p protocol 0: the address alone. */
static const struct lb_vip *
vip_find(struct lb *lb, uint8_t ip_version, const uint8_t *address, uint8_t protocol,
	 const uint8_t *port)
{
	struct lb_vip_key key = {.protocol = protocol, .ip_version = ip_version};
	int32_t slot;
	uint32_t index;

	memcpy(key.address, address, onvm_address_bytes(ip_version));
	memcpy(key.port, port, sizeof(key.port));
	slot = onvm_flow_table_lookup(lb->vips, &key);
	if (slot < 0 && protocol != 0) {
		memset(key.port, 0, sizeof(key.port));
		slot = onvm_flow_table_lookup(lb->vips, &key);
	}
	if (slot < 0)
		return NULL;
	memcpy(&index, onvm_flow_table_value(lb->vips, slot), sizeof(index));
	return &lb->config.vips[index];
}

static uint64_t
idle_time(const struct lb_config *config, uint8_t protocol, uint8_t tcp_state)
{
	if (protocol != ONVM_PROTO_TCP)
		return config->udp_ns;
	return onvm_tcp_is_established(tcp_state) ? config->tcp_established_ns :
						    config->tcp_transitory_ns;
}

/* Both directions have one timer and one state, kept in the entry from the client. */
static void
connection_use(struct lb *lb, int32_t slot, const struct onvm_headers *headers, uint64_t now_ns)
{
	struct lb_entry *const entry = onvm_flow_table_value(lb->connections, slot);
	struct lb_entry *const partner = onvm_flow_table_value(lb->connections, entry->partner);
	struct lb_entry *const first = entry->is_reply ? partner : entry;

	if (headers->protocol == ONVM_PROTO_TCP) {
		const uint8_t state =
			onvm_tcp_track(first->tcp_state, headers->tcp_flags, entry->is_reply);
		const uint64_t idle_ns = idle_time(&lb->config, ONVM_PROTO_TCP, state);

		if (state != first->tcp_state) {
			first->tcp_state = state;
			onvm_flow_table_set_idle(lb->connections, slot, idle_ns);
			onvm_flow_table_set_idle(lb->connections, entry->partner, idle_ns);
		}
	}
	onvm_flow_table_touch(lb->connections, slot, now_ns);
	onvm_flow_table_touch(lb->connections, entry->partner, now_ns);
}

static void
entry_fill(struct lb *lb, int32_t slot, const uint8_t *address, const uint8_t *port, bool is_reply,
	   int32_t partner, uint64_t idle_ns)
{
	struct lb_entry *const entry = onvm_flow_table_value(lb->connections, slot);

	memcpy(entry->address, address, sizeof(entry->address));
	memcpy(entry->port, port, sizeof(entry->port));
	entry->is_reply = is_reply;
	entry->partner = partner;
	onvm_flow_table_set_idle(lb->connections, slot, idle_ns);
}

int32_t
lb_connection_add(struct lb *lb, const struct lb_key *key, const struct lb_key *reply,
		  uint8_t tcp_state, uint64_t now_ns)
{
	const uint64_t idle_ns = idle_time(&lb->config, key->protocol, tcp_state);
	const int32_t there = onvm_flow_table_add(lb->connections, key, now_ns);
	struct lb_entry *entry;
	int32_t back;

	if (there < 0)
		return there;
	back = onvm_flow_table_add(lb->connections, reply, now_ns);
	if (back < 0) {
		onvm_flow_table_delete_slot(lb->connections, there);
		return back;
	}
	entry_fill(lb, there, reply->src, reply->src_port, false, back, idle_ns);
	entry_fill(lb, back, key->dst, key->dst_port, true, there, idle_ns);
	entry = onvm_flow_table_value(lb->connections, there);
	entry->tcp_state = tcp_state;
	lb->counters[LB_CONNECTIONS_OPENED]++;
	return there;
}

/* Slot of the new connection's entry from the client, or -reason - 1. */
static int32_t
connection_open(struct lb *lb, const struct lb_vip *vip, const struct lb_key *key, uint64_t now_ns)
{
	struct lb_key reply = {.protocol = key->protocol, .ip_version = key->ip_version};
	const struct lb_backend *backend;
	const uint8_t *port;
	int32_t slot;

	if (vip->nb_backends == 0)
		return -LB_DROP_NO_BACKEND - 1;
	backend = &lb->config.backends[vip->first_backend +
				       vip->table[lb_hash(key, vip->by_client) % vip->table_size]];
	port = onvm_load_be16(backend->port) != 0 ? backend->port : key->dst_port;
	memcpy(reply.src, backend->address, sizeof(reply.src));
	memcpy(reply.src_port, port, sizeof(reply.src_port));
	memcpy(reply.dst, key->src, sizeof(reply.dst));
	memcpy(reply.dst_port, key->src_port, sizeof(reply.dst_port));
	/* the same client end talks to this backend through another VIP: replies would be ambiguous */
	if (onvm_flow_table_lookup(lb->connections, &reply) >= 0)
		return -LB_DROP_CONFLICT - 1;
	slot = lb_connection_add(lb, key, &reply, 0, now_ns);
	return slot < 0 ? -LB_DROP_TABLE_FULL - 1 : slot;
}

static void
connection_expired(void *arg, int32_t slot)
{
	struct lb *const lb = arg;
	const struct lb_entry *const entry = onvm_flow_table_value(lb->connections, slot);

	onvm_flow_table_delete_slot(lb->connections, entry->partner);
	lb->counters[LB_CONNECTIONS_EXPIRED]++;
}

/* A SYN on a connection that both sides have closed begins a new one, perhaps elsewhere. */
static bool
connection_restarts(struct lb *lb, int32_t slot, const struct onvm_headers *headers)
{
	const struct lb_entry *const entry = onvm_flow_table_value(lb->connections, slot);

	return headers->protocol == ONVM_PROTO_TCP && !entry->is_reply &&
	       onvm_tcp_is_open(headers->tcp_flags) && onvm_tcp_is_closed(entry->tcp_state);
}

/* Packets to a VIP that have no transport header we could use. */
static enum lb_reason
refuse(struct lb *lb, const uint8_t *data, const struct onvm_headers *headers)
{
	static const uint8_t no_port[2];
	const uint32_t dst = headers->l3_offset + (headers->ip_version == 4 ? 16 : 24);

	if (headers->l4_status == ONVM_L4_OK && !onvm_headers_is_fragment(headers))
		return LB_NO_DROP;
	if (headers->l4_status == ONVM_L4_NONE ||
	    vip_find(lb, headers->ip_version, data + dst, 0, no_port) == NULL)
		return LB_NO_DROP;
	return onvm_headers_is_fragment(headers) ? LB_DROP_FRAGMENT : LB_DROP_MALFORMED;
}

static inline bool
is_candidate(const struct onvm_headers *headers)
{
	return headers->l3_status == ONVM_L3_OK && headers->l4_status == ONVM_L4_OK &&
	       (headers->protocol == ONVM_PROTO_TCP || headers->protocol == ONVM_PROTO_UDP) &&
	       !onvm_headers_is_fragment(headers);
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
}

/* Slot of a new connection in place of @p slot, if the packet goes to a VIP; else -LB_NO_DROP - 1. */
static int32_t
connection_of(struct lb *lb, const struct lb_key *key, int32_t slot, uint64_t now_ns)
{
	const struct lb_vip *vip;

	if (slot >= 0) {
		connection_expired(lb, slot);
		onvm_flow_table_delete_slot(lb->connections, slot);
	}
	vip = vip_find(lb, key->ip_version, key->dst, key->protocol, key->dst_port);
	return vip == NULL ? -LB_NO_DROP - 1 : connection_open(lb, vip, key, now_ns);
}

static void
handle(struct lb *lb, struct onvm_ctx *ctx, struct candidates *all, uint32_t at,
       struct onvm_pkt *pkt, bool *has_changed)
{
	const struct onvm_headers *const headers = &all->headers[at];
	const struct lb_entry *entry;
	int32_t slot = all->slots[at];
	bool restarts;

	if (*has_changed)
		slot = onvm_flow_table_lookup(lb->connections, &all->keys[at]);
	restarts = slot >= 0 && connection_restarts(lb, slot, headers);
	if (slot < 0 || restarts) {
		slot = connection_of(lb, &all->keys[at], slot, ctx->now_ns);
		*has_changed |= restarts || slot >= 0;
	}
	if (slot == -LB_NO_DROP - 1) {
		ctx->counters[LB_PASSED]++;
		return;
	}
	if (slot < 0) {
		onvm_pkt_drop(pkt, (uint16_t)(-slot - 1));
		return;
	}
	connection_use(lb, slot, headers, ctx->now_ns);
	entry = onvm_flow_table_value(lb->connections, slot);
	onvm_rewrite_end(pkt->data, headers, entry->is_reply ? ONVM_SRC : ONVM_DST, entry->address,
			 entry->port);
	ctx->counters[entry->is_reply ? LB_FROM_BACKEND : LB_TO_BACKEND]++;
}

static void
burst_chunk(struct lb *lb, struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct candidates all;
	bool has_changed = false;

	all.nb = 0;
	for (uint32_t i = 0; i < nb_pkts; i++) {
		struct onvm_headers *const headers = &all.headers[all.nb];
		enum lb_reason reason = LB_NO_DROP;

		if (i + PREFETCH_AHEAD < nb_pkts)
			__builtin_prefetch(pkts[i + PREFETCH_AHEAD].data);
		onvm_parse(pkts[i].data, pkts[i].length, headers);
		if (is_candidate(headers)) {
			all.packet[all.nb] = (uint8_t)i;
			key_fill(&all.keys[all.nb], pkts[i].data, headers);
			all.nb++;
			continue;
		}
		if (headers->l3_status == ONVM_L3_OK)
			reason = refuse(lb, pkts[i].data, headers);
		else if (headers->l3_status != ONVM_L3_NONIP)
			reason = LB_DROP_MALFORMED;
		if (reason != LB_NO_DROP)
			onvm_pkt_drop(&pkts[i], (uint16_t)reason);
		else
			ctx->counters[LB_PASSED]++;
	}
	if (all.nb != 0)
		onvm_flow_table_lookup_bulk(lb->connections, all.keys, all.slots, all.nb);
	for (uint32_t at = 0; at < all.nb; at++)
		handle(lb, ctx, &all, at, &pkts[all.packet[at]], &has_changed);
}

void
lb_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct lb *const lb = ctx->state;

	lb->counters = ctx->counters;
	onvm_flow_table_sweep(lb->connections, ctx->now_ns, lb->config.udp_ns, connection_expired,
			      lb);
	for (uint32_t first = 0; first < nb_pkts; first += CHUNK)
		burst_chunk(lb, ctx, pkts + first,
			    nb_pkts - first < CHUNK ? nb_pkts - first : CHUNK);
}
