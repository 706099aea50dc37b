/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

#include <sys/random.h>

#include <onvm/fragments.h>

enum router_reason
router_fragment(struct router *router, struct onvm_pkt *pkt, const struct router_hop *hop,
		uint16_t mtu)
{
	struct onvm_fragment_plan plan;
	uint32_t id = 0;
	struct onvm_headers headers;

	if ((pkt->flags & ONVM_F_PARTIAL) != 0)
		router_complete_checksum(pkt->data, pkt->length);
	if (onvm_parse(pkt->data, pkt->length, &headers) != ONVM_L3_OK ||
	    (headers.ip_version == 6 && getrandom(&id, sizeof(id), 0) != sizeof(id)) ||
	    !onvm_fragment_plan(pkt->data, &headers, mtu, id, &plan))
		return ROUTER_DROP_TOO_BIG;
	for (uint32_t next = plan.header; next < plan.end; next += plan.piece) {
		struct onvm_pkt *const made = router->ctx->originate(router->ctx);

		if (made == NULL || made->tailroom < onvm_fragment_bytes(&plan))
			return ROUTER_DROP_TOO_BIG;
		made->length = (uint16_t)onvm_fragment_write(&plan, pkt->data, next, made->data);
		made->port = pkt->port;
		router->ctx->counters[ROUTER_FRAGMENTS_MADE]++;
		if (router_address_frame(router, made, hop, headers.ip_version) == ROUTER_SENT)
			router_out(router, made, hop->interface);
	}
	return ROUTER_DROP_FRAGMENTED;
}
