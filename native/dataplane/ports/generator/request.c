/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/generator/request.h"

#include <string.h>

const uint8_t onvm_gen_client6_prefix[12] = {0x20, 0x01, 0, 2, 0, 0, 0, 1};
static const uint8_t ethernet[12] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1};

void
onvm_gen_put_network(struct onvm_gen_client *client, const struct onvm_gen_connection *connection,
		     uint8_t *data, struct onvm_gen_frame *frame)
{
	const uint32_t number = onvm_gen_slot_of(client, connection) / ONVM_GEN_SLOTS_PER_CLIENT;
	uint8_t *l3 = data + 14;

	memcpy(data, ethernet, sizeof(ethernet));
	frame->l3_offset = 14;
	frame->protocol = connection->kind == ONVM_GEN_TCP ? ONVM_PROTO_TCP : ONVM_PROTO_UDP;
	if (connection->is_ipv6) {
		if (connection->kind == ONVM_GEN_ECHO)
			frame->protocol = ONVM_PROTO_ICMPV6;
		frame->ip_version = 6;
		frame->l4_offset = 54;
		onvm_store_be16(data + 12, ONVM_ETHERTYPE_IPV6);
		onvm_store_be32(l3, 0x60000000u | (connection->tag & 0xfffff));
		l3[6] = frame->protocol;
		l3[7] = 64;
		memcpy(l3 + 8, onvm_gen_client6_prefix, sizeof(onvm_gen_client6_prefix));
		onvm_store_be32(l3 + 20, number + 1);
		memcpy(l3 + 24, connection->dst, 16);
		return;
	}
	if (connection->kind == ONVM_GEN_ECHO)
		frame->protocol = ONVM_PROTO_ICMP;
	frame->ip_version = 4;
	frame->l4_offset = 34;
	onvm_store_be16(data + 12, ONVM_ETHERTYPE_IPV4);
	onvm_store_be16(l3, 0x4500);
	onvm_store_be16(l3 + 4, client->ip_id++);
	onvm_store_be16(l3 + 6, 0x4000); /* do not fragment */
	l3[8] = 64;
	l3[9] = frame->protocol;
	onvm_store_be32(l3 + 12, ONVM_GEN_CLIENT4_BASE + number);
	memcpy(l3 + 16, connection->dst, 4);
}

/** Payload for a frame of @p size bytes with @p headers bytes of headers. */
static inline uint32_t
payload_of(uint32_t size, uint32_t headers, uint32_t least)
{
	const uint32_t length = size > headers + least ? size - headers : least;

	return RTE_MIN(length, (uint32_t)ONVM_GEN_PAYLOAD_MAX);
}

void
onvm_gen_put_tcp(const struct onvm_gen_connection *connection, uint8_t *l4, uint8_t flags,
		 uint32_t options)
{
	onvm_store_be16(l4, connection->src_port);
	onvm_store_be16(l4 + 2, connection->dst_port);
	onvm_store_be32(l4 + 4, connection->seq);
	onvm_store_be32(l4 + 8, flags & ONVM_GEN_ACK ? connection->ack : 0);
	l4[12] = (uint8_t)((20 + options) << 2);
	l4[13] = flags;
	onvm_store_be16(l4 + 14, 0xffff);
	memset(l4 + 18, 0, 2);
}

void
onvm_gen_put_tcp_request(struct onvm_gen_client *client, struct onvm_gen_connection *connection,
			 uint8_t *l4, struct onvm_gen_frame *frame, uint64_t now)
{
	const uint32_t headers = frame->l4_offset + 20u;
	uint8_t *payload = l4 + 20;
	uint32_t request, reply;

	onvm_gen_mix_sizes(&client->mix, connection->tag, connection->nb_sent, &request, &reply);
	request = payload_of(request, headers, ONVM_GEN_TCP_REQUEST);
	reply = payload_of(reply, headers, 1);
	onvm_gen_put_tcp(connection, l4, ONVM_GEN_PSH | ONVM_GEN_ACK, 0);
	onvm_store_be16(payload, (uint16_t)reply);
	onvm_store_be32(payload + 2, connection->wanted);
	frame->payload = (uint16_t)request;
	frame->payload_sum = onvm_checksum_add(onvm_gen_pattern_put(payload + ONVM_GEN_TCP_REQUEST,
								    connection->seq,
								    request - ONVM_GEN_TCP_REQUEST),
					       payload, ONVM_GEN_TCP_REQUEST);
	onvm_gen_begin_timing(connection, connection->wanted, now);
	connection->seq += request;
	connection->wanted += reply;
	if (client->no_answer)
		connection->ack = connection->wanted;
}

void
onvm_gen_put_datagram(struct onvm_gen_client *client, struct onvm_gen_connection *connection,
		      uint8_t *l4, struct onvm_gen_frame *frame, uint64_t now)
{
	const uint16_t index = connection->nb_sent;
	const uint32_t key = onvm_gen_datagram_key(connection->tag, index);
	uint8_t *payload = l4 + 8;
	uint32_t request, reply;

	onvm_gen_begin_timing(connection, index, now);
	frame->l4_header = 8;
	if (connection->kind == ONVM_GEN_DNS) {
		frame->payload = (uint16_t)onvm_gen_dns_query(payload, connection->tag);
		frame->payload_sum = onvm_checksum_add(0, payload, frame->payload);
	} else {
		onvm_gen_mix_sizes(&client->mix, connection->tag, index, &request, &reply);
		frame->payload =
			(uint16_t)payload_of(request, frame->l4_offset + 8u, ONVM_GEN_UDP_REQUEST);
		reply = payload_of(reply, frame->l4_offset + 8u, ONVM_GEN_UDP_REQUEST);
		onvm_store_be16(payload, (uint16_t)reply);
		onvm_store_be16(payload + 2, index);
		onvm_store_be32(payload + 4, connection->tag);
		frame->payload_sum = onvm_checksum_add(
			onvm_gen_pattern_put(payload + ONVM_GEN_UDP_REQUEST, key,
					     frame->payload - (uint32_t)ONVM_GEN_UDP_REQUEST),
			payload, ONVM_GEN_UDP_REQUEST);
	}
	if (connection->kind == ONVM_GEN_ECHO) {
		onvm_store_be16(l4, connection->is_ipv6 ? 0x8000 : 0x0800);
		onvm_store_be16(l4 + 4, connection->src_port);
		onvm_store_be16(l4 + 6, index);
	} else {
		onvm_store_be16(l4, connection->src_port);
		onvm_store_be16(l4 + 2, connection->dst_port);
	}
}
