/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/generator/packet.h"

#include <string.h>

#include <rte_byteorder.h>

#define NB_WINDOWS 1024
#define PATTERN_BYTES (NB_WINDOWS * 2 + ONVM_GEN_PAYLOAD_MAX)

/* DNS, RFC 1035 section 4.1: header, question, answer. */
#define DNS_HEADER 12
#define DNS_NAME 21 /* 8 hexadecimal digits, "bench", "test", root */
#define DNS_QUERY (DNS_HEADER + DNS_NAME + 4)

static uint8_t pattern[PATTERN_BYTES];
/** prefix[i]: sum of the first i 16-bit words of the pattern. */
static uint32_t prefix[PATTERN_BYTES / 2 + 1];

void
onvm_gen_pattern_init(void)
{
	if (prefix[1] != 0)
		return;
	for (uint32_t i = 0; i < PATTERN_BYTES; i += 8) {
		const uint64_t random = onvm_gen_mix64((i + 1) * 0x9e3779b97f4a7c15u);

		memcpy(pattern + i, &random, 8);
	}
	for (uint32_t i = 0; i < PATTERN_BYTES / 2; i++) {
		uint16_t word;

		memcpy(&word, pattern + i * 2, 2);
		prefix[i + 1] = prefix[i] + word;
	}
}

/** Where window @p key begins: an even offset. */
static inline uint32_t
window(uint32_t key)
{
	return (key * 2654435761u >> 22) * 2;
}

uint64_t
onvm_gen_pattern_put(uint8_t *to, uint32_t key, uint32_t length)
{
	const uint32_t begin = window(key), end = begin + length;
	uint64_t sum = prefix[end / 2] - prefix[begin / 2];

	memcpy(to, pattern + begin, length);
	if (length % 2 != 0)
		sum = onvm_checksum_add(sum, pattern + end - 1, 1);
	return sum;
}

bool
onvm_gen_pattern_matches(const uint8_t *data, uint32_t key, uint32_t length)
{
	return length <= ONVM_GEN_PAYLOAD_MAX && memcmp(data, pattern + window(key), length) == 0;
}

/* ---- checksums ---- */

/** Sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1); ICMP has none. */
static inline uint64_t
pseudo_sum(const uint8_t *l3, uint8_t ip_version, uint8_t protocol, uint32_t l4_length)
{
	const uint64_t sum = (uint64_t)rte_cpu_to_be_16((uint16_t)l4_length) +
			     rte_cpu_to_be_16(protocol);

	if (ip_version == 6)
		return onvm_checksum_add(sum, l3 + 8, 32);
	return protocol == ONVM_PROTO_ICMP ? 0 : onvm_checksum_add(sum, l3 + 12, 8);
}

static inline uint32_t
checksum_offset(uint8_t protocol)
{
	return protocol == ONVM_PROTO_TCP ? 16 : protocol == ONVM_PROTO_UDP ? 6 : 2;
}

static inline void
store_checksum(uint8_t *field, uint64_t sum)
{
	const uint16_t checksum = (uint16_t)~onvm_checksum_fold(sum);

	memcpy(field, &checksum, 2);
}

void
onvm_gen_seal(struct rte_mbuf *mbuf, const struct onvm_gen_frame *frame)
{
	uint8_t *data = rte_pktmbuf_mtod(mbuf, uint8_t *);
	uint8_t *l3 = data + frame->l3_offset, *l4 = data + frame->l4_offset;
	uint8_t *field = l4 + checksum_offset(frame->protocol);
	const uint32_t l3_header = (uint32_t)frame->l4_offset - frame->l3_offset;
	const uint32_t l4_length = (uint32_t)frame->l4_header + frame->payload;
	uint32_t length = frame->l4_offset + l4_length;

	if (frame->ip_version == 4) {
		onvm_store_be16(l3 + 2, (uint16_t)(l3_header + l4_length));
		memset(l3 + 10, 0, 2);
		store_checksum(l3 + 10, onvm_checksum_add(0, l3, l3_header));
	} else {
		onvm_store_be16(l3 + 4, (uint16_t)(l3_header - 40 + l4_length));
	}
	if (frame->protocol == ONVM_PROTO_UDP)
		onvm_store_be16(l4 + 4, (uint16_t)l4_length);
	memset(field, 0, 2);
	store_checksum(field, pseudo_sum(l3, frame->ip_version, frame->protocol, l4_length) +
				      onvm_checksum_add(frame->payload_sum, l4, frame->l4_header));
	if (frame->protocol == ONVM_PROTO_UDP && field[0] == 0 && field[1] == 0)
		memset(field, 0xff, 2); /* RFC 768: zero would mean that there is none */
	if (length < ONVM_GEN_FRAME_MIN) {
		memset(data + length, 0, ONVM_GEN_FRAME_MIN - length);
		length = ONVM_GEN_FRAME_MIN;
	}
	mbuf->data_len = (uint16_t)length;
	mbuf->pkt_len = length;
}

bool
onvm_gen_verify(const uint8_t *data, const struct onvm_headers *headers)
{
	const uint8_t *l3 = data + headers->l3_offset, *l4 = data + headers->l4_offset;
	const uint32_t l3_header = (uint32_t)headers->l4_offset - headers->l3_offset;

	if (headers->ip_version == 4 &&
	    onvm_checksum_fold(onvm_checksum_add(0, l3, l3_header)) != 0xffff)
		return false;
	if (headers->protocol == ONVM_PROTO_UDP && headers->ip_version == 4 && l4[6] == 0 &&
	    l4[7] == 0)
		return true;
	return onvm_checksum_fold(
		       onvm_checksum_add(pseudo_sum(l3, headers->ip_version, headers->protocol,
						    headers->l4_length),
					 l4, headers->l4_length)) == 0xffff;
}

/* ---- DNS ---- */

uint32_t
onvm_gen_dns_query(uint8_t *to, uint32_t tag)
{
	static const uint8_t rest[] = "\5bench\4test\0\0\1\0"; /* ..., type A, class IN */

	memset(to, 0, DNS_HEADER);
	onvm_store_be16(to, (uint16_t)tag);
	to[2] = 1; /* recursion desired */
	to[5] = 1; /* one question */
	to[DNS_HEADER] = 8;
	for (int i = 0; i < 8; i++)
		to[DNS_HEADER + 1 + i] = (uint8_t)"0123456789abcdef"[tag >> (28 - 4 * i) & 15];
	memcpy(to + DNS_HEADER + 9, rest, sizeof(rest));
	to[DNS_QUERY - 1] = 1;
	return DNS_QUERY;
}

uint32_t
onvm_gen_dns_answer(uint8_t *message, uint32_t length)
{
	/* The name at offset 12, type A, class IN, 60 s, 4 bytes: 198.18.0.53. */
	static const uint8_t answer[ONVM_GEN_DNS_ANSWER] = {0xc0, 12, 0, 1, 0,	 1,  0, 0,
							    0,	  60, 0, 4, 198, 18, 0, 53};

	if (length < DNS_HEADER + 5 || (message[2] & 0x80) != 0 || message[5] != 1 ||
	    message[11] != 0)
		return 0;
	message[2] |= 0x80;
	message[3] = 0x80; /* recursion available, no error */
	message[7] = 1;
	memcpy(message + length, answer, ONVM_GEN_DNS_ANSWER);
	return length + ONVM_GEN_DNS_ANSWER;
}

bool
onvm_gen_dns_answers(const uint8_t *message, uint32_t length, uint32_t tag)
{
	uint8_t query[DNS_QUERY + 2];

	onvm_gen_dns_query(query, tag);
	return length == DNS_QUERY + ONVM_GEN_DNS_ANSWER && message[0] == query[0] &&
	       message[1] == query[1] && (message[2] & 0x80) != 0 && message[7] == 1 &&
	       memcmp(message + DNS_HEADER, query + DNS_HEADER, DNS_QUERY - DNS_HEADER) == 0;
}
