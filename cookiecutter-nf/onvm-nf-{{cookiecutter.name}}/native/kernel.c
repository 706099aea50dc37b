#include "kernel.h"

#include <onvm/checksum.h>
#include <onvm/parse.h>

#define UDP 17

/* Decrement the TTL and update the checksum (RFC 1624). */
static void
count_hop(uint8_t *ipv4)
{
	uint8_t *ttl = ipv4 + 8;
	const uint8_t old[2] = {ttl[0], ttl[1]};

	ttl[0]--;
	onvm_checksum_replace(ipv4 + 10, old, ttl, 2);
}

void
kernel_burst(struct onvm_ctx *ctx, struct onvm_pkt *pkts, uint32_t nb_pkts)
{
	const struct kernel_state *state = ctx->state;
	struct onvm_headers headers;

	for (uint32_t i = 0; i < nb_pkts; i++) {
		struct onvm_pkt *pkt = &pkts[i];

		if (onvm_parse(pkt->data, pkt->length, &headers) != ONVM_L3_OK)
			continue;
		if (headers.protocol == UDP && headers.has_ports && headers.dst_port == state->port)
			onvm_pkt_drop(pkt, state->reason);
		if (headers.ip_version == 4)
			count_hop(pkt->data + headers.l3_offset);
	}
}
