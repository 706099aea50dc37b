/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/generator/server.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>

#include "ports/generator/packet.h"

int
onvm_gen_server_init(struct onvm_gen_server *server, uint32_t nb_buffers, uint32_t room)
{
	const uint32_t length = rte_align32pow2(nb_buffers);

	memset(server, 0, sizeof(*server));
	server->answers = calloc(length, sizeof(*server->answers));
	if (server->answers == NULL)
		return -ENOMEM;
	server->mask = length - 1;
	server->room = room;
	return 0;
}

void
onvm_gen_server_free(struct onvm_gen_server *server)
{
	while (server->tail != server->head)
		rte_pktmbuf_free(server->answers[server->tail++ & server->mask]);
	free(server->answers);
	server->answers = NULL;
}

/** Exchange @p length bytes, at most 16. */
static inline void
swap(uint8_t *a, uint8_t *b, uint32_t length)
{
	uint8_t held[16];

	memcpy(held, a, length);
	memcpy(a, b, length);
	memcpy(b, held, length);
}

/** Payload length of the answer: as requested, as far as a frame holds it. */
static inline uint16_t
clamp(const struct onvm_gen_server *server, uint32_t begin, uint32_t length)
{
	length = RTE_MIN(length, (uint32_t)ONVM_GEN_PAYLOAD_MAX);
	return (uint16_t)RTE_MIN(length, server->room - begin);
}

/** Move a packet that NFs have moved back to where its answer fits. */
static uint8_t *
make_room(struct rte_mbuf *mbuf)
{
	uint8_t *begin = (uint8_t *)mbuf->buf_addr + RTE_PKTMBUF_HEADROOM;

	if (unlikely(mbuf->data_off > RTE_PKTMBUF_HEADROOM)) {
		memmove(begin, rte_pktmbuf_mtod(mbuf, uint8_t *), mbuf->data_len);
		mbuf->data_off = RTE_PKTMBUF_HEADROOM;
	}
	return rte_pktmbuf_mtod(mbuf, uint8_t *);
}

static bool
answer_tcp(struct onvm_gen_server *server, uint8_t *l4, const struct onvm_headers *headers,
	   struct onvm_gen_frame *frame)
{
	const uint32_t header = (uint32_t)(l4[12] >> 4) * 4;
	const uint32_t length = headers->l4_length - header;
	const uint32_t seq = onvm_load_be32(l4 + 4);
	uint8_t flags = ONVM_GEN_ACK;
	uint32_t answer_seq = onvm_load_be32(l4 + 8);
	uint32_t answer_ack = seq + length;

	if (l4[13] & ONVM_GEN_RST)
		return false;
	if (l4[13] & ONVM_GEN_SYN) {
		flags |= ONVM_GEN_SYN;
		answer_seq = onvm_gen_server_isn(seq);
		answer_ack++;
	} else if (length >= ONVM_GEN_TCP_REQUEST) {
		flags |= ONVM_GEN_PSH;
		if (!onvm_gen_pattern_matches(l4 + header + ONVM_GEN_TCP_REQUEST, seq,
					      length - ONVM_GEN_TCP_REQUEST))
			server->stats.bad_payload++;
		answer_seq = onvm_load_be32(l4 + header + 2);
		frame->payload =
			clamp(server, headers->l4_offset + 20u, onvm_load_be16(l4 + header));
		frame->payload_sum = onvm_gen_pattern_put(l4 + 20, answer_seq, frame->payload);
	} else if (l4[13] & ONVM_GEN_FIN) {
		flags |= ONVM_GEN_FIN;
		answer_ack++;
	} else {
		return false; /* an acknowledgement of sent data */
	}
	frame->l4_header = 20;
	if (flags & ONVM_GEN_SYN) { /* maximum segment size, RFC 9293 section 3.7.1 */
		onvm_store_be32(l4 + 20, 0x02040000u | (headers->ip_version == 4 ? 1460 : 1440));
		frame->l4_header = 24;
	}
	onvm_store_be32(l4 + 4, answer_seq);
	onvm_store_be32(l4 + 8, answer_ack);
	l4[12] = (uint8_t)(frame->l4_header << 2);
	l4[13] = flags;
	onvm_store_be16(l4 + 14, 0xffff);
	memset(l4 + 18, 0, 2);
	swap(l4, l4 + 2, 2);
	return true;
}

static bool
answer_udp(struct onvm_gen_server *server, uint8_t *l4, const struct onvm_headers *headers,
	   struct onvm_gen_frame *frame)
{
	const uint32_t length = headers->l4_length - 8u;
	uint8_t *payload = l4 + 8;

	if (headers->dst_port == ONVM_GEN_DNS_PORT) {
		if (headers->l4_offset + 8 + length + ONVM_GEN_DNS_ANSWER <= server->room)
			frame->payload = (uint16_t)onvm_gen_dns_answer(payload, length);
		frame->payload_sum = onvm_checksum_add(0, payload, frame->payload);
	} else if (length >= ONVM_GEN_UDP_REQUEST) {
		const uint32_t key = onvm_gen_datagram_key(onvm_load_be32(payload + 4),
							   onvm_load_be16(payload + 2));

		if (!onvm_gen_pattern_matches(payload + ONVM_GEN_UDP_REQUEST, key,
					      length - ONVM_GEN_UDP_REQUEST))
			server->stats.bad_payload++;
		frame->payload = clamp(server, headers->l4_offset + 8u, onvm_load_be16(payload));
		if (frame->payload < ONVM_GEN_UDP_REQUEST)
			frame->payload = ONVM_GEN_UDP_REQUEST;
		frame->payload_sum =
			onvm_gen_pattern_put(payload + ONVM_GEN_UDP_REQUEST, key,
					     frame->payload - (uint32_t)ONVM_GEN_UDP_REQUEST);
		frame->payload_sum =
			onvm_checksum_add(frame->payload_sum, payload, ONVM_GEN_UDP_REQUEST);
	}
	if (frame->payload == 0) {
		server->stats.unexpected++;
		return false;
	}
	frame->l4_header = 8;
	swap(l4, l4 + 2, 2);
	return true;
}

static bool
answer_echo(struct onvm_gen_server *server, uint8_t *l4, const struct onvm_headers *headers,
	    struct onvm_gen_frame *frame)
{
	const uint8_t request = headers->protocol == ONVM_PROTO_ICMP ? 8 : 128;

	if (l4[0] != request || headers->l4_length < 8) {
		server->stats.unexpected++;
		return false;
	}
	l4[0] = request == 8 ? 0 : 129;
	frame->l4_header = 8;
	frame->payload = (uint16_t)(headers->l4_length - 8);
	frame->payload_sum = onvm_checksum_add(0, l4 + 8, frame->payload);
	return true;
}

/** Make the answer in place; false: there is none. */
static bool
answer(struct onvm_gen_server *server, struct rte_mbuf *mbuf)
{
	uint8_t *data = make_room(mbuf);
	uint8_t *l3, *l4;
	struct onvm_gen_frame frame = {0};
	struct onvm_headers headers;
	bool has_answer = false;

	if (onvm_parse(data, mbuf->data_len, &headers) != ONVM_L3_OK ||
	    headers.l4_status != ONVM_L4_OK || onvm_headers_is_fragment(&headers)) {
		server->stats.unexpected++;
		return false;
	}
	if (!onvm_gen_verify(data, &headers)) {
		server->stats.bad_checksum++;
		return false;
	}
	l3 = data + headers.l3_offset;
	l4 = data + headers.l4_offset;
	frame.l3_offset = headers.l3_offset;
	frame.l4_offset = headers.l4_offset;
	frame.ip_version = headers.ip_version;
	frame.protocol = headers.protocol;
	if (headers.protocol == ONVM_PROTO_TCP)
		has_answer = answer_tcp(server, l4, &headers, &frame);
	else if (headers.protocol == ONVM_PROTO_UDP)
		has_answer = answer_udp(server, l4, &headers, &frame);
	else if (headers.protocol == ONVM_PROTO_ICMP || headers.protocol == ONVM_PROTO_ICMPV6)
		has_answer = answer_echo(server, l4, &headers, &frame);
	else
		server->stats.unexpected++;
	if (!has_answer)
		return false;
	swap(data, data + 6, 6);
	if (headers.ip_version == 4) {
		swap(l3 + 12, l3 + 16, 4);
		l3[8] = 64;
	} else {
		swap(l3 + 8, l3 + 24, 16);
		l3[7] = 64;
	}
	onvm_gen_seal(mbuf, &frame);
	return true;
}

void
onvm_gen_server_take(struct onvm_gen_server *server, struct rte_mbuf **mbufs, uint32_t nb)
{
	server->stats.received += nb;
	for (uint32_t i = 0; i < nb; i++) {
		if (answer(server, mbufs[i]))
			server->answers[server->head++ & server->mask] = mbufs[i];
		else
			rte_pktmbuf_free(mbufs[i]);
	}
}

uint32_t
onvm_gen_server_give(struct onvm_gen_server *server, struct rte_mbuf **mbufs, uint32_t nb)
{
	nb = RTE_MIN(nb, server->head - server->tail);
	for (uint32_t i = 0; i < nb; i++)
		mbufs[i] = server->answers[server->tail++ & server->mask];
	server->stats.sent += nb;
	return nb;
}
