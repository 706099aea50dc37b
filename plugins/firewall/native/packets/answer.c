/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

#include <string.h>

#include <onvm/checksum.h>

#include "../rules/bucket.h"
#include "icmp.h"
#include "sorting.h"

#define NS 1000000000ull
#define TTL 64
#define QUOTED4_MAX 548u  /* RFC 1812 4.3.2.3: 576 bytes in all */
#define QUOTED6_MAX 1232u /* RFC 4443 2.4: 1280 bytes in all */
#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10

/* No address of one host: a group, a broadcast, or none at all. */
static bool
is_group(uint8_t ip_version, const uint8_t *address)
{
	static const uint8_t unspecified[ONVM_ADDRESS_BYTES];

	if (ip_version == 4)
		return address[0] == 0 || address[0] >= 224;
	return address[0] == 0xff || memcmp(address, unspecified, sizeof(unspecified)) == 0;
}

/* RFC 1122 3.2.2, RFC 4443 2.4. */
static bool
may_answer(const struct onvm_pkt *pkt, const struct onvm_headers *headers, const uint8_t *ends)
{
	const uint8_t *const l4 = pkt->data + headers->l4_offset;
	const bool is_icmp = headers->protocol ==
			     (headers->ip_version == 4 ? ONVM_PROTO_ICMP : ONVM_PROTO_ICMPV6);

	if (onvm_headers_is_fragment(headers) || ((pkt->data[0] | pkt->data[6]) & 1) != 0 ||
	    is_group(headers->ip_version, ends) ||
	    is_group(headers->ip_version, ends + onvm_address_bytes(headers->ip_version)))
		return false;
	if (!is_icmp)
		return true;
	if (headers->l4_status != ONVM_L4_OK)
		return false;
	if (headers->ip_version == 6)
		return l4[0] >= 128 && l4[0] != 137;
	return l4[0] == 0 || l4[0] == 8 || (l4[0] >= 13 && l4[0] <= 18);
}

/* An IP header at @p ip; @p ends: source and destination of what is answered. */
static void
ip_fill(uint8_t *ip, uint8_t ip_version, uint8_t protocol, uint32_t l4_length, const uint8_t *ends)
{
	const uint32_t size = onvm_address_bytes(ip_version);
	uint8_t *const addresses = ip + (ip_version == 4 ? 12 : 8);
	uint16_t checksum;

	memset(ip, 0, ip_version == 4 ? 20 : 40);
	memcpy(addresses, ends + size, size);
	memcpy(addresses + size, ends, size);
	if (ip_version == 6) {
		ip[0] = 0x60;
		onvm_store_be16(ip + 4, (uint16_t)l4_length);
		ip[6] = protocol;
		ip[7] = TTL;
		return;
	}
	ip[0] = 0x45;
	onvm_store_be16(ip + 2, (uint16_t)(20 + l4_length));
	ip[6] = 0x40; /* don't fragment, so it needs no identification */
	ip[8] = TTL;
	ip[9] = protocol;
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(0, ip, 20));
	memcpy(ip + 10, &checksum, 2);
}

/* The checksum of a transport header at @p l4, whose field at @p field is 0. */
static void
checksum_fill(uint8_t *l4, uint32_t field, uint8_t protocol, uint32_t length, const uint8_t *ends,
	      uint32_t address_bytes)
{
	uint8_t pseudo[4] = {0, protocol};
	uint64_t sum = 0;
	uint16_t checksum;

	if (protocol != ONVM_PROTO_ICMP) {
		onvm_store_be16(pseudo + 2, (uint16_t)length);
		sum = onvm_checksum_add(0, ends, 2 * address_bytes);
		sum = onvm_checksum_add(sum, pseudo, sizeof(pseudo));
	}
	checksum = (uint16_t)~onvm_checksum_fold(onvm_checksum_add(sum, l4, length));
	memcpy(l4 + field, &checksum, 2);
}

/* RFC 9293 3.10.7.1: what a closed port answers to a segment that is no reset. */
static void
reset_make(struct onvm_pkt *pkt, const struct onvm_headers *headers, const uint8_t *ends)
{
	const uint32_t ip_bytes = headers->ip_version == 4 ? 20 : 40;
	const uint8_t *const old = pkt->data + headers->l4_offset;
	uint8_t *const ip = pkt->data + headers->l3_offset;
	const uint8_t flags = headers->tcp_flags;
	const uint32_t taken = headers->l4_length - (uint32_t)(old[12] >> 4) * 4 +
			       ((flags & SYN) != 0) + ((flags & FIN) != 0);
	uint8_t segment[20] = {old[2], old[3], old[0], old[1]};

	segment[12] = 0x50;
	segment[13] = RST;
	if ((flags & ACK) != 0) {
		memcpy(segment + 4, old + 8, 4);
	} else {
		onvm_store_be32(segment + 8, onvm_load_be32(old + 4) + taken);
		segment[13] |= ACK;
	}
	checksum_fill(segment, 16, ONVM_PROTO_TCP, sizeof(segment), ends,
		      onvm_address_bytes(headers->ip_version));
	ip_fill(ip, headers->ip_version, ONVM_PROTO_TCP, sizeof(segment), ends);
	memcpy(ip + ip_bytes, segment, sizeof(segment));
	pkt->length = (uint16_t)(headers->l3_offset + ip_bytes + sizeof(segment));
}

static uint8_t
code_of(uint8_t ip_version, enum firewall_answer answer)
{
	switch (answer) {
	case FIREWALL_ANSWER_HOST:
		return ip_version == 4 ? 1 : 3;
	case FIREWALL_ANSWER_NET:
		return 0;
	case FIREWALL_ANSWER_ADMIN:
		return ip_version == 4 ? 13 : 1;
	case FIREWALL_ANSWER_AUTO:
	case FIREWALL_ANSWER_RESET:
	case FIREWALL_ANSWER_PORT:
		break;
	}
	return ip_version == 4 ? 3 : 4;
}

static uint32_t
error_bytes(const struct onvm_headers *headers)
{
	return headers->ip_version == 4 ? 28 : 48;
}

/* RFC 792, RFC 4443: destination unreachable, in front of what it quotes. */
static void
error_make(struct onvm_pkt *pkt, const struct onvm_headers *headers, const uint8_t *ends,
	   uint8_t code)
{
	const bool is_4 = headers->ip_version == 4;
	const uint32_t most = is_4 ? QUOTED4_MAX : QUOTED6_MAX;
	const uint32_t whole = headers->l4_offset + headers->l4_length - headers->l3_offset;
	const uint32_t quoted = whole < most ? whole : most;
	const uint8_t protocol = is_4 ? ONVM_PROTO_ICMP : ONVM_PROTO_ICMPV6;
	uint8_t *const old = pkt->data, *const l2 = onvm_pkt_push(pkt, error_bytes(headers));
	uint8_t *const ip = l2 + headers->l3_offset, *const icmp = ip + error_bytes(headers) - 8;

	memmove(l2, old, headers->l3_offset);
	memset(icmp, 0, 8);
	icmp[0] = is_4 ? 3 : 1;
	icmp[1] = code;
	checksum_fill(icmp, 2, protocol, 8 + quoted, ends, onvm_address_bytes(headers->ip_version));
	ip_fill(ip, headers->ip_version, protocol, 8 + quoted, ends);
	pkt->length = (uint16_t)(headers->l3_offset + error_bytes(headers) + quoted);
}

bool
answer_make(struct firewall *firewall, struct onvm_pkt *pkt, const struct onvm_headers *headers,
	    enum firewall_answer answer, uint64_t now_ns)
{
	const uint32_t rate = firewall->config.reject_rate;
	const bool is_reset = headers->protocol == ONVM_PROTO_TCP &&
			      (answer == FIREWALL_ANSWER_AUTO || answer == FIREWALL_ANSWER_RESET);
	uint8_t ends[2 * ONVM_ADDRESS_BYTES] = {0}, mac[6];

	memcpy(ends, pkt->data + headers->l3_offset + (headers->ip_version == 4 ? 12 : 8),
	       2 * onvm_address_bytes(headers->ip_version));
	/* what is cut behind the chain would be cut out of the answer, too */
	if (rate == 0 || (pkt->flags & ONVM_F_MERGED) != 0 ||
	    sorting_is_damaged(pkt, headers, false) || !may_answer(pkt, headers, ends) ||
	    (is_reset && (headers->tcp_flags & RST) != 0) ||
	    (!is_reset && (pkt->headroom < error_bytes(headers) ||
			   pkt->length + error_bytes(headers) > UINT16_MAX)))
		return false;
	if (!bucket_take(&firewall->answers, NS / rate, NS / rate * rate, now_ns))
		return false;
	if (is_reset)
		reset_make(pkt, headers, ends);
	else
		error_make(pkt, headers, ends, code_of(headers->ip_version, answer));
	memcpy(mac, pkt->data, 6);
	memcpy(pkt->data, pkt->data + 6, 6);
	memcpy(pkt->data + 6, mac, 6);
	onvm_pkt_out(pkt, pkt->port);
	return true;
}
