/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_GEN_REQUEST_H_
#define _ONVM_GEN_REQUEST_H_

/**
 * @file
 * Writing a connection's next packet: headers, and requests that describe their replies.
 *
 * A request over TCP carries the length of its reply and the sequence number at which it begins; a
 * datagram carries its reply's length, its own index and its flow's tag. onvm_gen_seal() fills in
 * lengths and checksums of headers.
 */

#include <stdint.h>

#include "ports/generator/connection.h"
#include "ports/generator/packet.h"

#define ONVM_GEN_CLIENT4_BASE 0x0a100001u /* 10.16.0.1 */

/** Addresses of IPv6 clients: this, then their number from 1. */
extern const uint8_t onvm_gen_client6_prefix[12];

static inline uint32_t
onvm_gen_slot_of(const struct onvm_gen_client *client, const struct onvm_gen_connection *connection)
{
	return (uint32_t)(connection - client->connections);
}

/** Measure the RTT with this request unless another is on its way. */
static inline void
onvm_gen_begin_timing(struct onvm_gen_connection *connection, uint32_t answer, uint64_t now)
{
	if (connection->is_timed)
		return;
	connection->is_timed = true;
	connection->timed = answer;
	connection->timed_at = now;
}

/** Write Ethernet and IP headers but for lengths and checksum. */
void
onvm_gen_put_network(struct onvm_gen_client *client, const struct onvm_gen_connection *connection,
		     uint8_t *data, struct onvm_gen_frame *frame);
/** Write a TCP header with @p flags; @p options bytes of options will follow it. */
void onvm_gen_put_tcp(const struct onvm_gen_connection *connection, uint8_t *l4, uint8_t flags,
		      uint32_t options);
/** Write header and payload of the next request of a TCP connection. */
void
onvm_gen_put_tcp_request(struct onvm_gen_client *client, struct onvm_gen_connection *connection,
			 uint8_t *l4, struct onvm_gen_frame *frame, uint64_t now);
/** Write header and payload of the next datagram, query or echo request. */
void onvm_gen_put_datagram(struct onvm_gen_client *client, struct onvm_gen_connection *connection,
			   uint8_t *l4, struct onvm_gen_frame *frame, uint64_t now);

#endif /* _ONVM_GEN_REQUEST_H_ */
