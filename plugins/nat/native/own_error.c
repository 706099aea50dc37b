/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Errors of ICMP that the NAT itself sends: a packet that is in the way of nothing else becomes one
 * in place; an error about another packet, or one that comes late, is made in a new one.
 */

#include "nat.h"

#include <string.h>

#include <onvm/answer.h>

#define NS 1000000000ull
#define ERROR_BYTES 28u

static const uint8_t types[][2] = {
	[NAT_ERROR_PORT_UNREACHABLE] = {3, 3},
	[NAT_ERROR_TOO_BIG] = {3, 4},
	[NAT_ERROR_PROHIBITED] = {3, 13},
	[NAT_ERROR_TTL] = {11, 0},
};

/* RFC 1812 4.3.2.8: so many in a second, and so many at once. */
static bool
may_send(struct nat *nat, uint64_t now_ns)
{
	const uint64_t per_s = nat->config.errors_per_s;
	const uint64_t interval = per_s == 0 ? 0 : NS / per_s;
	const uint64_t due_ns = nat->errors_due_ns > now_ns ? nat->errors_due_ns : now_ns;

	if (per_s == 0 || due_ns - now_ns > interval * (per_s - 1)) {
		nat->counters[NAT_ERRORS_LIMITED]++;
		return false;
	}
	nat->errors_due_ns = due_ns + interval;
	nat->counters[NAT_ERRORS_SENT]++;
	return true;
}

/* RFC 1122 3.2.2: about no errors, later fragments, and packets to many. */
static bool
is_answerable(const uint8_t *data, const struct onvm_headers *headers)
{
	if (headers->fragment_offset != 0 || (data[0] & 1) != 0)
		return false;
	return headers->protocol != ONVM_PROTO_ICMP ||
	       nat_icmp_is_query(data[headers->l4_offset]) ||
	       nat_icmp_is_reply(data[headers->l4_offset]);
}

/* The IP and ICMP headers in front of a quote, which lies behind them. */
static void
headers_fill(uint8_t *ip, uint32_t quoted, const uint8_t *source, enum nat_own_error error,
	     uint32_t mtu)
{
	uint8_t ends[8];

	memcpy(ends, ip + ERROR_BYTES + 12, 4);
	memcpy(ends + 4, source, 4);
	onvm_answer_error_headers(ip, 4, ends, quoted, types[error][0], types[error][1],
				  (uint16_t)(error == NAT_ERROR_TOO_BIG ? mtu : 0));
}

static uint32_t
quoted_bytes(const struct onvm_headers *headers)
{
	const uint32_t whole = headers->l4_offset + headers->l4_length - headers->l3_offset;

	return whole < ONVM_ANSWER_QUOTED4_MAX ? whole : ONVM_ANSWER_QUOTED4_MAX;
}

bool
nat_own_error_become(struct nat *nat, struct onvm_pkt *pkt, const struct onvm_headers *headers,
		     const uint8_t *source, enum nat_own_error error, uint32_t mtu, uint64_t now_ns)
{
	const uint32_t quoted = quoted_bytes(headers);
	uint8_t *const before = pkt->data;
	uint8_t *frame;

	/* what is cut behind the chain would be cut out of the error, too */
	if ((pkt->flags & ONVM_F_MERGED) != 0 || !is_answerable(before, headers) ||
	    pkt->headroom < ERROR_BYTES || pkt->length > UINT16_MAX - ERROR_BYTES ||
	    !may_send(nat, now_ns))
		return false;
	frame = onvm_pkt_push(pkt, ERROR_BYTES);
	memmove(frame, before, headers->l3_offset);
	headers_fill(frame + headers->l3_offset, quoted, source, error, mtu);
	pkt->length = (uint16_t)(headers->l3_offset + ERROR_BYTES + quoted);
	return true;
}

struct onvm_pkt *
nat_own_error_send(struct nat *nat, struct onvm_ctx *ctx, const struct nat_offender *about,
		   const uint8_t *source, enum nat_own_error error, uint32_t mtu)
{
	const uint32_t quoted = quoted_bytes(&about->headers);
	const uint32_t l3_offset = about->headers.l3_offset;
	struct onvm_pkt *made;

	if (ctx->originate == NULL || !is_answerable(about->data, &about->headers) ||
	    !may_send(nat, ctx->now_ns))
		return NULL;
	made = ctx->originate(ctx);
	if (made == NULL || made->tailroom < l3_offset + ERROR_BYTES + quoted)
		return NULL;
	memcpy(made->data, about->data, l3_offset);
	memcpy(made->data, about->data + 6, 6);
	memcpy(made->data + 6, about->data, 6);
	memcpy(made->data + l3_offset + ERROR_BYTES, about->data + l3_offset, quoted);
	headers_fill(made->data + l3_offset, quoted, source, error, mtu);
	made->length = (uint16_t)(l3_offset + ERROR_BYTES + quoted);
	onvm_pkt_out(made, about->port);
	return made;
}

uint32_t
nat_sent_bytes(const struct onvm_pkt *pkt, const struct onvm_headers *headers)
{
	const uint32_t l4_offset = headers->l4_offset;
	uint32_t header_bytes = 8;

	/* A datagram that came in fragments leaves in such. */
	if (onvm_pkt_largest_fragment(pkt) != 0)
		return onvm_pkt_largest_fragment(pkt);
	if ((pkt->flags & ONVM_F_MERGED) == 0)
		return l4_offset + headers->l4_length - headers->l3_offset;
	if (headers->protocol == ONVM_PROTO_TCP)
		header_bytes = (pkt->data[l4_offset + 12] >> 4) * 4u;
	return l4_offset + header_bytes + onvm_pkt_segment(pkt) - headers->l3_offset;
}
