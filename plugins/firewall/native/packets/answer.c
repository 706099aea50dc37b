/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

#include <string.h>

#include <onvm/answer.h>

#include "../rules/bucket.h"
#include "icmp.h"
#include "sorting.h"

#define NS 1000000000ull

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

bool
answer_make(struct firewall *firewall, struct onvm_pkt *pkt, const struct onvm_headers *headers,
	    enum firewall_answer answer, uint64_t now_ns)
{
	const uint32_t rate = firewall->config.reject_rate;
	const bool is_reset = headers->protocol == ONVM_PROTO_TCP &&
			      (answer == FIREWALL_ANSWER_AUTO || answer == FIREWALL_ANSWER_RESET);
	uint8_t ends[2 * ONVM_ADDRESS_BYTES];

	onvm_answer_ends(ends, pkt->data, headers);
	/* what is cut behind the chain would be cut out of the answer, too */
	if (rate == 0 || (pkt->flags & ONVM_F_MERGED) != 0 ||
	    sorting_is_damaged(pkt, headers, false) || !may_answer(pkt, headers, ends) ||
	    (is_reset && (headers->tcp_flags & ONVM_TCP_RST) != 0) ||
	    (!is_reset && (pkt->headroom < onvm_answer_error_bytes(headers) ||
			   pkt->length + onvm_answer_error_bytes(headers) > UINT16_MAX)))
		return false;
	if (!bucket_take(&firewall->answers, NS / rate, NS / rate * rate, now_ns))
		return false;
	if (is_reset)
		onvm_answer_reset(pkt, headers);
	else
		onvm_answer_error(pkt, headers, headers->ip_version == 4 ? 3 : 1,
				  code_of(headers->ip_version, answer), 0);
	onvm_answer_send_back(pkt);
	return true;
}
