/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/generator/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>

#include "latency.h"
#include "ports/generator/packet.h"
#include "ports/generator/request.h"

/** Requests of one connection that may be unanswered. */
#define WINDOW 4

/* ---- connections ---- */

static inline bool
can_send(const struct onvm_gen_client *client, const struct onvm_gen_connection *connection)
{
	switch ((enum onvm_gen_step)connection->step) {
	case ONVM_GEN_CLOSED:
	case ONVM_GEN_AWAIT_SYN_ACK:
	case ONVM_GEN_AWAIT_FIN:
		return false;
	case ONVM_GEN_SEND_SYN:
	case ONVM_GEN_SEND_ACK:
	case ONVM_GEN_SEND_FIN:
	case ONVM_GEN_SEND_LAST_ACK:
	case ONVM_GEN_SEND_RST:
		return true;
	case ONVM_GEN_EXCHANGE:
		return connection->nb_sent < connection->nb_requests &&
		       (client->no_answer || connection->nb_sent - connection->nb_replied < WINDOW);
	}
	return false;
}

/** Let a connection that can send wait for its turn. */
static inline void
make_ready(struct onvm_gen_client *client, struct onvm_gen_connection *connection)
{
	if (connection->is_ready || !can_send(client, connection))
		return;
	connection->is_ready = true;
	client->ready[client->ready_head++ & client->ready_mask] =
		onvm_gen_slot_of(client, connection);
}

static void
open_next(struct onvm_gen_client *client, struct onvm_gen_connection *connection, uint64_t now)
{
	struct onvm_gen_plan plan;
	uint32_t nb_packets;

	connection->step = ONVM_GEN_CLOSED;
	if (client->budget == 0) {
		client->nb_active--;
		return;
	}
	onvm_gen_mix_plan(&client->mix, onvm_gen_slot_of(client, connection),
			  ++connection->generation, &plan);
	nb_packets = onvm_gen_plan_packets(&plan);
	if (nb_packets > client->budget) { /* the last ones: as many datagrams as are left */
		if (plan.kind == ONVM_GEN_TCP)
			plan.kind = ONVM_GEN_STREAM;
		plan.nb_requests = (uint16_t)client->budget;
		nb_packets = plan.nb_requests;
	}
	if (!client->is_endless)
		client->budget -= nb_packets;
	connection->active_at = now;
	connection->dst = plan.dst;
	connection->tag = connection->seq = plan.tag;
	connection->ack = connection->wanted = 0;
	connection->nb_left = nb_packets;
	connection->src_port = plan.src_port;
	connection->dst_port = plan.dst_port;
	connection->nb_requests = plan.nb_requests;
	connection->nb_sent = connection->nb_replied = 0;
	connection->kind = (uint8_t)plan.kind;
	connection->step = plan.kind == ONVM_GEN_TCP ? ONVM_GEN_SEND_SYN : ONVM_GEN_EXCHANGE;
	connection->is_ipv6 = plan.is_ipv6;
	connection->ends_with_reset = plan.ends_with_reset;
	connection->has_failed = connection->is_timed = false;
	client->stats.opened++;
	client->stats.ipv6 += plan.is_ipv6;
	if (plan.kind == ONVM_GEN_TCP)
		client->stats.tcp++;
	else if (plan.kind == ONVM_GEN_ECHO)
		client->stats.icmp++;
	else
		client->stats.udp++;
	make_ready(client, connection);
}

static void
end(struct onvm_gen_client *client, struct onvm_gen_connection *connection, uint64_t now)
{
	client->stats.lost += (uint64_t)connection->nb_sent - connection->nb_replied;
	if (connection->has_failed)
		client->stats.failed++;
	else
		client->stats.completed++;
	if (!client->is_endless)
		client->budget += connection->nb_left;
	open_next(client, connection, now);
}

/** It will not come to its end: a TCP connection that exists is reset, others just end. */
static void
fail(struct onvm_gen_client *client, struct onvm_gen_connection *connection, uint64_t now)
{
	connection->has_failed = true;
	if (connection->kind == ONVM_GEN_TCP && connection->step != ONVM_GEN_AWAIT_SYN_ACK) {
		connection->step = ONVM_GEN_SEND_RST;
		make_ready(client, connection);
	} else {
		end(client, connection, now);
	}
}

/** All requests have been answered. */
static void
finish_exchange(struct onvm_gen_client *client, struct onvm_gen_connection *connection,
		uint64_t now)
{
	if (connection->kind != ONVM_GEN_TCP)
		end(client, connection, now);
	else
		connection->step = connection->ends_with_reset ? ONVM_GEN_SEND_RST :
								 ONVM_GEN_SEND_FIN;
}

void
onvm_gen_client_expire(struct onvm_gen_client *client, uint32_t nb_slots, uint64_t now)
{
	const uint64_t timeout = client->timeout != 0 ?
					 client->timeout :
					 onvm_gen_rtt_timeout(&client->rtt, client->hz);

	nb_slots = RTE_MIN(nb_slots, client->nb_slots);
	for (uint32_t i = 0; i < nb_slots; i++) {
		struct onvm_gen_connection *connection = &client->connections[client->next_expiry];

		if (++client->next_expiry == client->nb_slots)
			client->next_expiry = 0;
		if (connection->step != ONVM_GEN_CLOSED && !connection->is_ready &&
		    (int64_t)(now - connection->active_at) > (int64_t)timeout)
			fail(client, connection, now);
	}
}

/* ---- sending ---- */

/** Make the next packet of a connection that can send. */
static void
send_next(struct onvm_gen_client *client, struct onvm_gen_connection *connection,
	  struct rte_mbuf *mbuf, uint64_t now)
{
	uint8_t *data = rte_pktmbuf_mtod(mbuf, uint8_t *), *l4;
	struct onvm_gen_frame frame = {.l4_header = 20};
	bool is_last = false;

	onvm_gen_put_network(client, connection, data, &frame);
	l4 = data + frame.l4_offset;
	switch ((enum onvm_gen_step)connection->step) {
	case ONVM_GEN_SEND_SYN:
		onvm_gen_put_tcp(connection, l4, ONVM_GEN_SYN, 4);
		onvm_store_be32(l4 + 20, 0x02040000u | (connection->is_ipv6 ? 1440 : 1460));
		frame.l4_header = 24;
		onvm_gen_begin_timing(connection, 0, now);
		connection->seq++;
		connection->step = client->no_answer ? ONVM_GEN_SEND_ACK : ONVM_GEN_AWAIT_SYN_ACK;
		if (client->no_answer)
			connection->ack = connection->wanted =
				onvm_gen_server_isn(connection->tag) + 1;
		break;
	case ONVM_GEN_SEND_ACK:
		onvm_gen_put_tcp(connection, l4, ONVM_GEN_ACK, 0);
		connection->step = ONVM_GEN_EXCHANGE;
		break;
	case ONVM_GEN_EXCHANGE:
		if (connection->kind == ONVM_GEN_TCP)
			onvm_gen_put_tcp_request(client, connection, l4, &frame, now);
		else
			onvm_gen_put_datagram(client, connection, l4, &frame, now);
		connection->nb_sent++;
		client->stats.requests++;
		if (client->no_answer && ++connection->nb_replied == connection->nb_requests) {
			is_last = connection->kind != ONVM_GEN_TCP;
			if (!is_last)
				finish_exchange(client, connection, now);
		}
		break;
	case ONVM_GEN_SEND_FIN:
		onvm_gen_put_tcp(connection, l4, ONVM_GEN_FIN | ONVM_GEN_ACK, 0);
		connection->seq++;
		connection->step = client->no_answer ? ONVM_GEN_SEND_LAST_ACK : ONVM_GEN_AWAIT_FIN;
		if (client->no_answer)
			connection->ack++;
		break;
	case ONVM_GEN_SEND_LAST_ACK:
		onvm_gen_put_tcp(connection, l4, ONVM_GEN_ACK, 0);
		is_last = true;
		break;
	case ONVM_GEN_SEND_RST:
		onvm_gen_put_tcp(connection, l4, ONVM_GEN_RST | ONVM_GEN_ACK, 0);
		is_last = true;
		break;
	case ONVM_GEN_CLOSED:
	case ONVM_GEN_AWAIT_SYN_ACK:
	case ONVM_GEN_AWAIT_FIN:
		break; /* cannot send: never here */
	}
	onvm_gen_seal(mbuf, &frame);
	connection->nb_left--;
	connection->active_at = now;
	client->stats.sent++;
	if (is_last)
		end(client, connection, now);
}

uint32_t
onvm_gen_client_give(struct onvm_gen_client *client, struct rte_mempool *pool,
		     struct rte_mbuf **mbufs, uint32_t nb, uint64_t now)
{
	uint32_t nb_made = 0;

	nb = RTE_MIN(nb, client->ready_head - client->ready_tail);
	if (nb == 0 || rte_pktmbuf_alloc_bulk(pool, mbufs, nb) != 0)
		return 0;
	while (nb_made < nb && client->ready_tail != client->ready_head) {
		struct onvm_gen_connection *connection =
			&client->connections[client->ready[client->ready_tail++ &
							   client->ready_mask]];

		connection->is_ready = false;
		if (unlikely(!can_send(client, connection)))
			continue; /* it has been closed since */
		send_next(client, connection, mbufs[nb_made++], now);
		make_ready(client, connection);
	}
	if (nb_made < nb)
		rte_pktmbuf_free_bulk(&mbufs[nb_made], nb - nb_made);
	return nb_made;
}

/* ---- receiving ---- */

static void
end_timing(struct onvm_gen_client *client, struct onvm_gen_connection *connection, uint32_t answer,
	   uint64_t now)
{
	const uint64_t rtt = now - connection->timed_at;

	if (!connection->is_timed || connection->timed != answer)
		return;
	connection->is_timed = false;
	onvm_latency_add((struct onvm_latency *)client->stats.rtt,
			 (uint64_t)((double)rtt * 1e9 / (double)client->hz));
	onvm_gen_rtt_add(&client->rtt, rtt);
}

/** The connection that a parsed packet answers, or NULL. */
static struct onvm_gen_connection *
find(struct onvm_gen_client *client, const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t *l3 = data + headers->l3_offset;
	const uint32_t port = headers->dst_port - ONVM_GEN_FIRST_PORT;
	struct onvm_gen_connection *connection;
	uint64_t slot;
	uint32_t number;

	if (headers->ip_version == 4) {
		number = onvm_load_be32(l3 + 16) - ONVM_GEN_CLIENT4_BASE;
	} else {
		if (memcmp(l3 + 24, onvm_gen_client6_prefix, sizeof(onvm_gen_client6_prefix)) != 0)
			return NULL;
		number = onvm_load_be32(l3 + 36) - 1;
	}
	slot = (uint64_t)number * ONVM_GEN_SLOTS_PER_CLIENT + port / ONVM_GEN_PORTS_PER_SLOT;
	if (port >= ONVM_GEN_SLOTS_PER_CLIENT * ONVM_GEN_PORTS_PER_SLOT || slot >= client->nb_slots)
		return NULL;
	connection = &client->connections[slot];
	if (connection->step == ONVM_GEN_CLOSED || connection->src_port != headers->dst_port ||
	    connection->is_ipv6 != (headers->ip_version == 6) ||
	    memcmp(connection->dst, l3 + (headers->ip_version == 4 ? 12 : 8),
		   onvm_address_bytes(headers->ip_version)) != 0)
		return NULL;
	if (connection->kind == ONVM_GEN_ECHO)
		return headers->protocol == ONVM_PROTO_ICMP ||
				       headers->protocol == ONVM_PROTO_ICMPV6 ?
			       connection :
			       NULL;
	return headers->src_port == connection->dst_port &&
			       headers->protocol == (connection->kind == ONVM_GEN_TCP ?
							     ONVM_PROTO_TCP :
							     ONVM_PROTO_UDP) ?
		       connection :
		       NULL;
}

/** Count a reply that begins at @p place; the next one begins at @p next. */
static void
take_reply(struct onvm_gen_client *client, struct onvm_gen_connection *connection, uint32_t place,
	   uint32_t next, uint64_t now)
{
	if ((int32_t)(place - connection->ack) < 0)
		client->stats.out_of_order++;
	else
		connection->ack = next;
	client->stats.replies++;
	end_timing(client, connection, place, now);
	if (++connection->nb_replied == connection->nb_requests)
		finish_exchange(client, connection, now);
}

/** false: it does not belong here. */
static bool
take_tcp(struct onvm_gen_client *client, struct onvm_gen_connection *connection, const uint8_t *l4,
	 const struct onvm_headers *headers, uint64_t now)
{
	const uint32_t header = (uint32_t)(l4[12] >> 4) * 4;
	const uint32_t length = headers->l4_length - header;
	const uint32_t seq = onvm_load_be32(l4 + 4), ack = onvm_load_be32(l4 + 8);
	const uint8_t flags = l4[13] & (ONVM_GEN_FIN | ONVM_GEN_SYN | ONVM_GEN_RST | ONVM_GEN_ACK);

	if (flags & ONVM_GEN_RST) {
		connection->has_failed = true;
		end(client, connection, now);
		return true;
	}
	switch ((enum onvm_gen_step)connection->step) {
	case ONVM_GEN_AWAIT_SYN_ACK:
		if (flags != (ONVM_GEN_SYN | ONVM_GEN_ACK) || ack != connection->seq)
			return false;
		connection->ack = connection->wanted = seq + 1;
		connection->step = ONVM_GEN_SEND_ACK;
		end_timing(client, connection, 0, now);
		return true;
	case ONVM_GEN_EXCHANGE:
		if (flags != ONVM_GEN_ACK || length == 0 ||
		    (int32_t)(connection->wanted - (seq + length)) < 0 ||
		    connection->nb_replied >= connection->nb_sent)
			return false;
		if (!onvm_gen_pattern_matches(l4 + header, seq, length))
			client->stats.bad_payload++;
		take_reply(client, connection, seq, seq + length, now);
		return true;
	case ONVM_GEN_AWAIT_FIN:
		if (flags != (ONVM_GEN_FIN | ONVM_GEN_ACK) || seq != connection->ack ||
		    ack != connection->seq)
			return false;
		connection->ack++;
		connection->step = ONVM_GEN_SEND_LAST_ACK;
		return true;
	case ONVM_GEN_CLOSED:
	case ONVM_GEN_SEND_SYN:
	case ONVM_GEN_SEND_ACK:
	case ONVM_GEN_SEND_FIN:
	case ONVM_GEN_SEND_LAST_ACK:
	case ONVM_GEN_SEND_RST:
		return false;
	}
	return false;
}

static bool
take_datagram(struct onvm_gen_client *client, struct onvm_gen_connection *connection,
	      const uint8_t *l4, const struct onvm_headers *headers, uint64_t now)
{
	const uint8_t *payload = l4 + 8;
	const uint32_t length = headers->l4_length - 8u;
	uint16_t index = 0;

	if (connection->kind == ONVM_GEN_ECHO && l4[0] != (connection->is_ipv6 ? 129 : 0))
		return false;
	if (connection->kind == ONVM_GEN_DNS) {
		if (!onvm_gen_dns_answers(payload, length, connection->tag))
			client->stats.bad_payload++;
	} else {
		if (length < ONVM_GEN_UDP_REQUEST)
			return false;
		index = onvm_load_be16(payload + 2);
		if (onvm_load_be32(payload + 4) != connection->tag ||
		    !onvm_gen_pattern_matches(payload + ONVM_GEN_UDP_REQUEST,
					      onvm_gen_datagram_key(connection->tag, index),
					      length - ONVM_GEN_UDP_REQUEST))
			client->stats.bad_payload++;
	}
	if (index >= connection->nb_sent || connection->nb_replied >= connection->nb_sent)
		return false;
	take_reply(client, connection, index, index + 1u, now);
	return true;
}

static void
take_one(struct onvm_gen_client *client, const struct rte_mbuf *mbuf, uint64_t now)
{
	const uint8_t *data = rte_pktmbuf_mtod(mbuf, const uint8_t *);
	struct onvm_gen_connection *connection;
	struct onvm_headers headers;
	bool is_expected;

	if (onvm_parse(data, mbuf->data_len, &headers) != ONVM_L3_OK ||
	    headers.l4_status != ONVM_L4_OK || onvm_headers_is_fragment(&headers)) {
		client->stats.unexpected++;
		return;
	}
	if (!onvm_gen_verify(data, &headers)) {
		client->stats.bad_checksum++;
		return;
	}
	connection = find(client, data, &headers);
	if (connection == NULL || headers.l4_length < 8) {
		client->stats.unexpected++;
		return;
	}
	connection->active_at = now;
	if (connection->kind == ONVM_GEN_TCP)
		is_expected = take_tcp(client, connection, data + headers.l4_offset, &headers, now);
	else
		is_expected =
			take_datagram(client, connection, data + headers.l4_offset, &headers, now);
	if (is_expected)
		make_ready(client, connection);
	else
		client->stats.unexpected++;
}

void
onvm_gen_client_take(struct onvm_gen_client *client, struct rte_mbuf **mbufs, uint32_t nb,
		     uint64_t now)
{
	client->stats.received += nb;
	for (uint32_t i = 0; i < nb; i++)
		take_one(client, mbufs[i], now);
	rte_pktmbuf_free_bulk(mbufs, nb);
}

/* ---- life ---- */

int
onvm_gen_client_init(struct onvm_gen_client *client, const struct onvm_gen_options *options,
		     uint32_t room, char *error, size_t error_size)
{
	const uint64_t now = rte_rdtsc();
	int rc;

	memset(client, 0, sizeof(*client));
	client->nb_slots = options->nb_flows;
	if (client->nb_slots == 0 || client->nb_slots > ONVM_GEN_SLOTS_MAX) {
		snprintf(error, error_size, "flows %u: expected 1 to %u", options->nb_flows,
			 ONVM_GEN_SLOTS_MAX);
		return -EINVAL;
	}
	rc = onvm_gen_mix_init(&client->mix, options, room, error, error_size);
	if (rc != 0)
		return rc;
	client->hz = rte_get_tsc_hz();
	client->timeout = client->hz / 1000 * options->timeout_ms;
	client->no_answer = options->no_answer != 0;
	client->is_endless = options->count == 0;
	client->budget = client->is_endless ? UINT64_MAX : options->count;
	client->ready_mask = rte_align32pow2(client->nb_slots) - 1;
	client->ready = calloc(client->ready_mask + 1ul, sizeof(*client->ready));
	client->connections =
		aligned_alloc(RTE_CACHE_LINE_SIZE, client->nb_slots * sizeof(*client->connections));
	if (client->ready == NULL || client->connections == NULL) {
		onvm_gen_client_free(client);
		return -ENOMEM;
	}
	memset(client->connections, 0, client->nb_slots * sizeof(*client->connections));
	client->nb_active = client->nb_slots;
	for (uint32_t slot = 0; slot < client->nb_slots; slot++)
		open_next(client, &client->connections[slot], now);
	return 0;
}

void
onvm_gen_client_free(struct onvm_gen_client *client)
{
	free(client->ready);
	free(client->connections);
	client->ready = NULL;
	client->connections = NULL;
}
