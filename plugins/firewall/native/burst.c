/* SPDX-License-Identifier: Apache-2.0 */
#include "firewall.h"

#include <string.h>

#include "connection.h"

#define CHUNK 32u
#define PREFETCH_AHEAD 4u

/* What is known of the packets of a chunk that rules and connections decide about. */
struct candidates {
	struct onvm_headers headers[CHUNK];
	struct connection_key keys[CHUNK];
	struct onvm_tuple tuples[2][CHUNK]; /* packed per IP version: 4, 6 */
	uint32_t values[2][CHUNK];
	int32_t slots[CHUNK];
	uint8_t packet[CHUNK]; /* index into the chunk's packets */
	uint8_t tuple[CHUNK];  /* index into tuples of its version */
	bool src_is_high[CHUNK];
	uint32_t nb;
	uint32_t nb_tuples[2];
};

enum sorting {
	SORT_CANDIDATE,
	SORT_PASS,
	SORT_DROP,
};

/* Which packets never reach the rules; sets the reason of a drop. */
static inline enum sorting
sort_packet(const struct firewall *firewall, const struct onvm_headers *headers, uint16_t *reason)
{
	switch ((enum onvm_l3_status)headers->l3_status) {
	case ONVM_L3_OK:
		break;
	case ONVM_L3_NONIP:
		if (headers->l3_offset == 0) { /* no whole Ethernet header */
			*reason = FIREWALL_DROP_MALFORMED;
			return SORT_DROP;
		}
		*reason = FIREWALL_DROP_NON_IP;
		return firewall->config.passes_non_ip ? SORT_PASS : SORT_DROP;
	case ONVM_L3_SHORT:
	case ONVM_L3_BAD_VERSION:
	case ONVM_L3_BAD_IHL:
	case ONVM_L3_BAD_LENGTH:
		*reason = FIREWALL_DROP_MALFORMED;
		return SORT_DROP;
	}
	switch ((enum onvm_l4_status)headers->l4_status) {
	case ONVM_L4_OK:
	case ONVM_L4_NONE:
		return SORT_CANDIDATE;
	case ONVM_L4_FRAGMENT:
		*reason = FIREWALL_DROP_FRAGMENT;
		/* RFC 1858 3: it would overwrite the TCP flags that were judged */
		if (headers->protocol == ONVM_PROTO_TCP && headers->fragment_offset == 8)
			return SORT_DROP;
		return firewall->config.passes_fragments ? SORT_PASS : SORT_DROP;
	case ONVM_L4_SHORT:
	case ONVM_L4_BAD_HEADER:
		*reason = FIREWALL_DROP_MALFORMED;
		return SORT_DROP;
	}
	*reason = FIREWALL_DROP_MALFORMED;
	return SORT_DROP;
}

static inline bool
is_echo(const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t type = data[headers->l4_offset];

	if (headers->ip_version == 4)
		return headers->protocol == ONVM_PROTO_ICMP && (type == 8 || type == 0);
	return headers->protocol == ONVM_PROTO_ICMPV6 && (type == 128 || type == 129);
}

/* ICMP other than echo has nothing that tells one conversation from another. */
static inline bool
is_trackable(const uint8_t *data, const struct onvm_headers *headers)
{
	if (headers->protocol == ONVM_PROTO_ICMP || headers->protocol == ONVM_PROTO_ICMPV6)
		return headers->l4_status == ONVM_L4_OK && is_echo(data, headers);
	return true;
}

/* Note a candidate: its tuple for the rules and its key for the connections. */
static inline void
candidate_add(const struct firewall *firewall, struct candidates *all, uint8_t packet,
	      const uint8_t *data)
{
	const uint32_t at = all->nb++;
	const struct onvm_headers *const headers = &all->headers[at];
	const uint32_t version = headers->ip_version == 6;
	const uint32_t size = version ? 16 : 4;
	const uint8_t *const src = data + headers->l3_offset + (version ? 8 : 12);

	all->packet[at] = packet;
	if ((version ? firewall->acl6 : firewall->acl4) != NULL) {
		struct onvm_tuple *tuple = &all->tuples[version][all->nb_tuples[version]];

		all->tuple[at] = (uint8_t)all->nb_tuples[version]++;
		tuple->protocol = headers->protocol;
		tuple->ip_version = headers->ip_version;
		memcpy(tuple->src, src, size);
		memcpy(tuple->dst, src + size, size);
		onvm_store_be16(tuple->src_port, headers->has_ports ? headers->src_port : 0);
		onvm_store_be16(tuple->dst_port, headers->has_ports ? headers->dst_port : 0);
	}
	if (firewall->connections != NULL) {
		const bool has_ports = headers->has_ports;

		/* an echo's identifier stands for both ports */
		all->src_is_high[at] =
			connection_key_fill(&all->keys[at], headers->ip_version, headers->protocol,
					    src, src + size,
					    has_ports ? headers->src_port : headers->dst_port,
					    headers->dst_port);
	}
}

uint64_t
firewall_idle_time(const struct firewall_config *config, uint8_t protocol, uint8_t tcp_state)
{
	switch (protocol) {
	case ONVM_PROTO_TCP:
		return onvm_tcp_is_established(tcp_state) ? config->tcp_established_ns :
							    config->tcp_transitory_ns;
	case ONVM_PROTO_UDP:
	case ONVM_PROTO_UDPLITE:
		return config->udp_ns;
	case ONVM_PROTO_ICMP:
	case ONVM_PROTO_ICMPV6:
		return config->icmp_ns;
	default:
		return config->other_ns;
	}
}

static inline void
connection_use(const struct firewall *firewall, int32_t slot, const struct candidates *all,
	       uint32_t at, uint64_t now_ns)
{
	struct connection *const connection = onvm_flow_table_value(firewall->connections, slot);
	const struct onvm_headers *const headers = &all->headers[at];
	const bool from_peer = all->src_is_high[at] != connection->initiator_is_high;

	if (headers->protocol == ONVM_PROTO_TCP) {
		const uint8_t state =
			onvm_tcp_track(connection->tcp_state, headers->tcp_flags, from_peer);

		if (state != connection->tcp_state) {
			connection->tcp_state = state;
			onvm_flow_table_set_idle(firewall->connections, slot,
						 firewall_idle_time(&firewall->config,
								    ONVM_PROTO_TCP, state));
		}
	}
	onvm_flow_table_touch(firewall->connections, slot, now_ns);
}

/* Does the packet restart a closed connection? Then the rules decide again. */
static inline bool
connection_restarts(const struct firewall *firewall, int32_t slot,
		    const struct onvm_headers *headers)
{
	const struct connection *const connection =
		onvm_flow_table_value(firewall->connections, slot);

	return headers->protocol == ONVM_PROTO_TCP && onvm_tcp_is_open(headers->tcp_flags) &&
	       onvm_tcp_is_closed(connection->tcp_state);
}

static bool
connection_open(struct firewall *firewall, const struct candidates *all, uint32_t at,
		uint64_t now_ns)
{
	const int32_t slot = onvm_flow_table_add(firewall->connections, &all->keys[at], now_ns);
	struct connection *connection;

	if (slot < 0)
		return false;
	connection = onvm_flow_table_value(firewall->connections, slot);
	connection->initiator_is_high = all->src_is_high[at];
	onvm_flow_table_set_idle(firewall->connections, slot,
				 firewall_idle_time(&firewall->config, all->headers[at].protocol,
						    0));
	connection_use(firewall, slot, all, at, now_ns);
	return true;
}

/* RFC 5508 and common sense: an error about a packet of a connection belongs to it. */
static bool
is_related(struct firewall *firewall, const uint8_t *data, const struct onvm_headers *headers)
{
	struct onvm_embedded embedded;
	struct connection_key key;
	const uint8_t *src;

	if (!onvm_icmp_is_error(data, headers) || !onvm_parse_embedded(data, headers, &embedded))
		return false;
	src = data + embedded.l3_offset + (embedded.ip_version == 4 ? 12 : 8);
	connection_key_fill(&key, embedded.ip_version, embedded.protocol, src,
			    src + onvm_address_bytes(embedded.ip_version), embedded.src_port,
			    embedded.dst_port);
	return onvm_flow_table_lookup(firewall->connections, &key) >= 0;
}

/* Rules, then the default. */
static void
judge(struct firewall *firewall, struct onvm_ctx *ctx, const struct candidates *all, uint32_t at,
      struct onvm_pkt *pkt)
{
	const struct onvm_headers *const headers = &all->headers[at];
	const uint32_t version = headers->ip_version == 6;
	const bool has_rules = (version ? firewall->acl6 : firewall->acl4) != NULL;
	const uint32_t value = has_rules ? all->values[version][all->tuple[at]] : 0;
	bool accepts = firewall->config.default_accepts;

	if (value != 0) {
		firewall->hits[value - 1]++;
		accepts = firewall->accepts[value - 1];
	}
	if (!accepts) {
		onvm_pkt_drop(pkt, value != 0 ? FIREWALL_DROP_RULE : FIREWALL_DROP_DEFAULT);
		return;
	}
	if (firewall->connections != NULL && is_trackable(pkt->data, headers)) {
		if (!connection_open(firewall, all, at, ctx->now_ns)) {
			onvm_pkt_drop(pkt, FIREWALL_DROP_TABLE_FULL);
			return;
		}
		ctx->counters[FIREWALL_CONNECTIONS_OPENED]++;
	}
	ctx->counters[value != 0 ? FIREWALL_BY_RULE : FIREWALL_BY_DEFAULT]++;
}

/* Connections, in order: an earlier packet of the chunk may have opened or closed one. */
static bool
passes_by_connection(struct firewall *firewall, struct onvm_ctx *ctx, struct candidates *all,
		     uint32_t at, const uint8_t *data, bool has_changed)
{
	const struct onvm_headers *const headers = &all->headers[at];
	int32_t slot = all->slots[at];

	if (!is_trackable(data, headers)) {
		if (!is_related(firewall, data, headers))
			return false;
		ctx->counters[FIREWALL_RELATED]++;
		return true;
	}
	if (has_changed)
		slot = onvm_flow_table_lookup(firewall->connections, &all->keys[at]);
	if (slot < 0)
		return false;
	if (connection_restarts(firewall, slot, headers)) {
		onvm_flow_table_delete(firewall->connections, &all->keys[at]);
		return false;
	}
	connection_use(firewall, slot, all, at, ctx->now_ns);
	ctx->counters[FIREWALL_BY_CONNECTION]++;
	return true;
}

static void
decide(struct firewall *firewall, struct onvm_ctx *ctx, struct onvm_pkt *pkts,
       struct candidates *all)
{
	bool has_changed = false;

	if (all->nb_tuples[0] != 0)
		onvm_acl_lookup(firewall->acl4, all->tuples[0], all->values[0], all->nb_tuples[0]);
	if (all->nb_tuples[1] != 0)
		onvm_acl_lookup(firewall->acl6, all->tuples[1], all->values[1], all->nb_tuples[1]);
	if (firewall->connections != NULL)
		onvm_flow_table_lookup_bulk(firewall->connections, all->keys, all->slots, all->nb);
	for (uint32_t at = 0; at < all->nb; at++) {
		struct onvm_pkt *const pkt = &pkts[all->packet[at]];

		if (firewall->connections != NULL &&
		    passes_by_connection(firewall, ctx, all, at, pkt->data, has_changed))
			continue;
		judge(firewall, ctx, all, at, pkt);
		has_changed = true;
	}
}

static void
burst_chunk(struct firewall *firewall, struct onvm_ctx *ctx, struct onvm_pkt *pkts,
	    uint32_t nb_pkts)
{
	struct candidates all;

	all.nb = all.nb_tuples[0] = all.nb_tuples[1] = 0;
	for (uint32_t i = 0; i < nb_pkts; i++) {
		uint16_t reason = 0;

		if (i + PREFETCH_AHEAD < nb_pkts)
			__builtin_prefetch(pkts[i + PREFETCH_AHEAD].data);
		onvm_parse(pkts[i].data, pkts[i].length, &all.headers[all.nb]);
		switch (sort_packet(firewall, &all.headers[all.nb], &reason)) {
		case SORT_CANDIDATE:
			candidate_add(firewall, &all, (uint8_t)i, pkts[i].data);
			break;
		case SORT_PASS:
			break;
		case SORT_DROP:
			onvm_pkt_drop(&pkts[i], reason);
			break;
		}
	}
	decide(firewall, ctx, pkts, &all);
}

void
firewall_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	struct firewall *const firewall = ctx->state;

	if (firewall->connections != NULL)
		ctx->counters[FIREWALL_CONNECTIONS_EXPIRED] +=
			onvm_flow_table_sweep(firewall->connections, ctx->now_ns,
					      firewall->config.other_ns, NULL, NULL);
	for (uint32_t first = 0; first < nb_pkts; first += CHUNK)
		burst_chunk(firewall, ctx, pkts + first,
			    nb_pkts - first < CHUNK ? nb_pkts - first : CHUNK);
}
