/* SPDX-License-Identifier: Apache-2.0 */

/*
 * SYNs from outside that nothing waits for. RFC 5382 REQ-4: the NAT says nothing for 6 seconds. An
 * inside host that opens the same connection meanwhile makes it a simultaneous open, and nothing is
 * said at all; else the sender learns that the port is unreachable. When more come than can be
 * remembered, those get no answer.
 */

#include "nat.h"

#include <stdlib.h>
#include <string.h>

#define WAIT_NS 6000000000ull
#define FRAME_BYTES 128u /* up to four VLAN tags, IP options, and eight bytes of TCP */
#define QUOTED_L4_BYTES 8u

struct nat_unsolicited {
	uint64_t came_ns;
	uint16_t port;
	uint16_t length;
	uint8_t frame[FRAME_BYTES];
};

struct nat_unsolicited *
nat_unsolicited_create(void)
{
	return calloc(NAT_UNSOLICITED_MAX, sizeof(struct nat_unsolicited));
}

void
nat_unsolicited_note(struct nat *nat, const struct onvm_pkt *pkt,
		     const struct onvm_headers *headers, uint64_t now_ns)
{
	const uint32_t at = (nat->first_unsolicited + nat->nb_unsolicited) % NAT_UNSOLICITED_MAX;
	struct nat_unsolicited *const one = &nat->unsolicited[at];
	const uint32_t length = headers->l4_offset + QUOTED_L4_BYTES;

	if (headers->protocol != ONVM_PROTO_TCP || !onvm_tcp_is_open(headers->tcp_flags) ||
	    nat->config.errors_per_s == 0 || nat->is_tagged ||
	    nat->nb_unsolicited == NAT_UNSOLICITED_MAX || length > FRAME_BYTES)
		return;
	nat->nb_unsolicited++;
	one->came_ns = now_ns;
	one->port = pkt->port;
	one->length = (uint16_t)length;
	memcpy(one->frame, pkt->data, length);
}

static bool
has_session(struct nat *nat, const struct nat_offender *syn, uint64_t now_ns)
{
	const struct onvm_headers *const headers = &syn->headers;
	const uint8_t *const ip = syn->data + headers->l3_offset;
	const uint8_t *const l4 = syn->data + headers->l4_offset;
	const int32_t external = nat_external_find(nat, ip + 16);
	struct nat_session_key key = {.protocol = ONVM_PROTO_TCP};
	const struct nat_endpoint *inside;

	if (external < 0 || !nat_vlan_fill(nat, headers, key.vlan))
		return false;
	inside = nat_endpoint_behind(nat, (uint32_t)external, NAT_TCP, l4 + 2, key.vlan);
	if (inside == NULL)
		return false;
	memcpy(key.inside, inside->address, sizeof(key.inside));
	memcpy(key.inside_port, inside->port, sizeof(key.inside_port));
	memcpy(key.remote, ip + 12, sizeof(key.remote));
	memcpy(key.remote_port, l4, sizeof(key.remote_port));
	return nat_session_find(nat, &key, now_ns) >= 0;
}

void
nat_unsolicited_answer(struct nat *nat, struct onvm_ctx *ctx)
{
	while (nat->nb_unsolicited != 0) {
		struct nat_unsolicited *const one = &nat->unsolicited[nat->first_unsolicited];
		struct nat_offender syn = {.data = one->frame, .port = one->port};
		const uint8_t *ip;

		if (ctx->now_ns < one->came_ns + WAIT_NS)
			return;
		nat->first_unsolicited = (nat->first_unsolicited + 1) % NAT_UNSOLICITED_MAX;
		nat->nb_unsolicited--;
		onvm_parse(one->frame, UINT16_MAX, &syn.headers);
		syn.headers.l4_length = QUOTED_L4_BYTES;
		ip = one->frame + syn.headers.l3_offset;
		if (!has_session(nat, &syn, ctx->now_ns))
			nat_own_error_send(nat, ctx, &syn, ip + 16, NAT_ERROR_PORT_UNREACHABLE, 0);
	}
}
