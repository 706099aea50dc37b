/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the load balancer says for its VIPs. Answers are made in the buffer of what they answer and
 * leave by the port it came from.
 */

#include "lb.h"

#include <string.h>

#include <onvm/answer.h>

/* Is the packet from an address that a host can have, and none of ours? */
static bool
may_answer(const struct lb *lb, const uint8_t *data, const struct onvm_headers *headers)
{
	static const uint8_t unspecified[ONVM_ADDRESS_BYTES];
	const uint8_t *const src = data + headers->l3_offset + (headers->ip_version == 4 ? 12 : 8);

	if (headers->ip_version == 4 && (src[0] == 0 || src[0] == 127 || src[0] >= 224))
		return false;
	if (headers->ip_version == 6 &&
	    (src[0] == 0xff || memcmp(src, unspecified, sizeof(unspecified)) == 0))
		return false;
	return !lb_is_vip(lb, headers->ip_version, src);
}

static void
swap(uint8_t *a, uint8_t *b, uint32_t size)
{
	uint8_t kept[ONVM_ADDRESS_BYTES];

	memcpy(kept, a, size);
	memcpy(a, b, size);
	memcpy(b, kept, size);
}

bool
lb_answer_echo(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers)
{
	const bool is_4 = headers->ip_version == 4;
	const uint32_t size = onvm_address_bytes(headers->ip_version);
	uint8_t *const l3 = pkt->data + headers->l3_offset;
	uint8_t *const icmp = pkt->data + headers->l4_offset;
	uint8_t *const addresses = l3 + (is_4 ? 12 : 8);
	uint8_t before[2];

	if (!may_answer(lb, pkt->data, headers))
		return false;
	swap(addresses, addresses + size, size); /* which no checksum sees */
	if (is_4) {
		memcpy(before, l3 + 8, 2);
		l3[8] = ONVM_ANSWER_TTL;
		onvm_checksum_replace(l3 + 10, before, l3 + 8, 2);
	} else {
		l3[7] = ONVM_ANSWER_TTL;
	}
	memcpy(before, icmp, 2);
	icmp[0] = is_4 ? 0 : 129;
	onvm_checksum_replace(icmp + 2, before, icmp, 2);
	onvm_answer_send_back(pkt);
	lb->counters[LB_ECHOES_ANSWERED]++;
	return true;
}

static bool
answered(struct lb *lb, struct onvm_pkt *pkt, enum lb_counter counter)
{
	onvm_answer_send_back(pkt);
	lb->counters[counter]++;
	return true;
}

bool
lb_reset(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers)
{
	if ((headers->tcp_flags & ONVM_TCP_RST) != 0 || !may_answer(lb, pkt->data, headers))
		return false;
	onvm_answer_reset(pkt, headers);
	return answered(lb, pkt, LB_REJECTED);
}

bool
lb_too_big(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers, uint16_t mtu)
{
	const bool is_4 = headers->ip_version == 4;

	/* Without DF only a fragment would help, which is not made here. */
	if ((is_4 && (pkt->data[headers->l3_offset + 6] & 0x40) == 0) ||
	    onvm_icmp_is_error(pkt->data, headers) || !may_answer(lb, pkt->data, headers))
		return false;
	return onvm_answer_error(pkt, headers, is_4 ? 3 : 2, is_4 ? 4 : 0, mtu) &&
	       answered(lb, pkt, LB_TOO_BIG_ANSWERED);
}

bool
lb_reject(struct lb *lb, struct onvm_pkt *pkt, const struct onvm_headers *headers)
{
	const bool is_4 = headers->ip_version == 4;

	if (!lb->config.rejects)
		return false;
	if (headers->protocol == ONVM_PROTO_TCP)
		return lb_reset(lb, pkt, headers);
	if (!may_answer(lb, pkt->data, headers))
		return false;
	return onvm_answer_error(pkt, headers, is_4 ? 3 : 1, is_4 ? 3 : 4, 0) &&
	       answered(lb, pkt, LB_REJECTED);
}
