/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

void
router_queue_append(struct router *router, uint32_t *first, uint32_t *last, uint32_t index)
{
	router->waiting[index].next = ROUTER_NONE;
	if (*first == ROUTER_NONE)
		*first = index;
	else
		router->waiting[*last].next = index;
	*last = index;
}

uint32_t
router_queue_take(struct router *router, uint32_t *first)
{
	const uint32_t index = *first;

	*first = router->waiting[index].next;
	return index;
}

void
router_waiting_free(struct router *router, uint32_t index)
{
	router->waiting[index].next = router->free_waiting;
	router->free_waiting = index;
}

uint32_t
router_waiting_copy(struct router *router, const struct onvm_pkt *pkt, uint32_t out_interface)
{
	struct router_waiting *waiting;
	uint32_t index;

	if (pkt->length > ROUTER_FRAME_MAX || (pkt->flags & ONVM_F_MERGED) != 0 ||
	    onvm_pkt_largest_fragment(pkt) != 0 || router->free_waiting == ROUTER_NONE)
		return ROUTER_NONE;
	index = router_queue_take(router, &router->free_waiting);
	waiting = &router->waiting[index];
	memcpy(waiting->frame, pkt->data, pkt->length);
	waiting->length = pkt->length;
	waiting->out_interface = (uint8_t)out_interface;
	if ((pkt->flags & ONVM_F_PARTIAL) != 0)
		router_complete_checksum(waiting->frame, waiting->length);
	return index;
}

void
router_release(struct router *router)
{
	while (router->first_ready != ROUTER_NONE) {
		const struct router_waiting *const waiting = &router->waiting[router->first_ready];
		struct onvm_pkt *const pkt = router->ctx->originate(router->ctx);

		if (pkt == NULL)
			return; /* the next turn has buffers */
		if (waiting->length <= pkt->tailroom) {
			memcpy(pkt->data, waiting->frame, waiting->length);
			pkt->length = waiting->length;
			router_out(router, pkt, waiting->out_interface);
			router->ctx->counters[ROUTER_RELEASED]++;
		}
		router_waiting_free(router, router_queue_take(router, &router->first_ready));
	}
}
