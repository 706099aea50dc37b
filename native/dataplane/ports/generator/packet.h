/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_GEN_PACKET_H_
#define _ONVM_GEN_PACKET_H_

/**
 * @file
 * Packets of the generator: payload pattern, lengths and checksums.
 *
 * A payload is a window of one pseudo-random table that is the same everywhere. The window begins
 * at a key that the receiver knows too (a TCP sequence number, a flow's tag and index). So a server
 * without state can make a payload, a client can check it, and its checksum is a difference of two
 * prefix sums.
 *
 * Frames are counted without the frame check sequence: IMIX's 64, 594 and 1518 bytes are 60,
 * 590 and 1514 bytes in a buffer, and the largest fits an MTU of 1500.
 *
 * Threads: the control thread writes the table once, before it is used.
 */

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include <onvm/parse.h>

#define ONVM_GEN_CRC_BYTES 4
#define ONVM_GEN_FRAME_MIN 60
/** Bytes of a request that describe its reply: length, then sequence number or index. */
#define ONVM_GEN_TCP_REQUEST 6
#define ONVM_GEN_UDP_REQUEST 8
#define ONVM_GEN_DNS_PORT 53
#define ONVM_GEN_DNS_ANSWER 16	   /**< bytes that an answer adds to its query */
#define ONVM_GEN_PAYLOAD_MAX 16384 /**< of one packet */

enum onvm_gen_tcp_flags {
	ONVM_GEN_FIN = 1,
	ONVM_GEN_SYN = 2,
	ONVM_GEN_RST = 4,
	ONVM_GEN_PSH = 8,
	ONVM_GEN_ACK = 16,
};

void onvm_gen_pattern_init(void);
/**
 * Write @p length bytes, at most ONVM_GEN_PAYLOAD_MAX, of window @p key.
 *
 * @return their sum, for onvm_gen_seal()
 */
uint64_t onvm_gen_pattern_put(uint8_t *to, uint32_t key, uint32_t length);
bool onvm_gen_pattern_matches(const uint8_t *data, uint32_t key, uint32_t length);

/** splitmix64's output function: a number from a counter. */
static inline uint64_t
onvm_gen_mix64(uint64_t value)
{
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
	value = (value ^ value >> 27) * 0x94d049bb133111ebu;
	return value ^ value >> 31;
}

/** Sequence number with which a server answers the SYN that has @p seq. */
static inline uint32_t
onvm_gen_server_isn(uint32_t seq)
{
	return seq * 2654435761u + 0x5bd1e995u;
}

/** Key of the payload of datagram @p index of the flow @p tag. */
static inline uint32_t
onvm_gen_datagram_key(uint32_t tag, uint16_t index)
{
	return tag + index * 97u;
}

/** A packet whose headers lack only what onvm_gen_seal() fills in. */
struct onvm_gen_frame {
	uint16_t l3_offset;
	uint16_t l4_offset;
	uint8_t ip_version;
	uint8_t protocol;
	uint16_t l4_header; /**< bytes */
	uint16_t payload;   /**< bytes */
	uint64_t payload_sum;
};

/** Set lengths and checksums, and pad to the shortest frame of Ethernet. */
void onvm_gen_seal(struct rte_mbuf *mbuf, const struct onvm_gen_frame *frame);
/** Whether the checksums of a parsed packet (whole, not a fragment) are right. */
bool onvm_gen_verify(const uint8_t *data, const struct onvm_headers *headers);

/** Query for "<tag>.bench.test", an address; @return its length. */
uint32_t onvm_gen_dns_query(uint8_t *to, uint32_t tag);
/** Make the answer of a query of one question in place; @return its length, 0: not a query. */
uint32_t onvm_gen_dns_answer(uint8_t *message, uint32_t length);
/** Whether @p message answers the query with @p tag. */
bool onvm_gen_dns_answers(const uint8_t *message, uint32_t length, uint32_t tag);

#endif /* _ONVM_GEN_PACKET_H_ */
