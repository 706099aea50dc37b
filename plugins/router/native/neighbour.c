/* SPDX-License-Identifier: Apache-2.0 */
#include "router.h"

#define NS 1000000000ull
#define TICK_NS (NS / 10)
#define ASK_NS NS /* between two questions (RFC 4861 RETRANS_TIMER) */
#define ASK_TIMES 3
#define FAILED_NS NS /* before a neighbour that does not answer is asked again */

static struct router_neighbour *
neighbour_at(struct router *router, int32_t slot)
{
	return onvm_flow_value(router->neighbours, slot);
}

static void
key_fill(struct router_neighbour_key *key, uint32_t interface, uint32_t ip_version,
	 const uint8_t *address)
{
	memset(key, 0, sizeof(*key));
	memcpy(key->address, address, onvm_address_bytes(ip_version));
	key->ip_version = (uint8_t)ip_version;
	key->interface = (uint8_t)interface;
}

/* Keep a copy of a packet until its neighbour has answered. */
static enum router_sent
let_wait(struct router *router, struct router_neighbour *neighbour, const struct onvm_pkt *pkt,
	 uint32_t out_interface)
{
	uint32_t index;

	if (neighbour->nb_waiting == ROUTER_WAITING_EACH)
		return ROUTER_NOT_SENT;
	index = router_waiting_copy(router, pkt, out_interface);
	if (index == ROUTER_NONE)
		return ROUTER_NOT_SENT;
	if (neighbour->nb_waiting++ == 0)
		neighbour->first_waiting = ROUTER_NONE;
	router_queue_append(router, &neighbour->first_waiting, &neighbour->last_waiting, index);
	return ROUTER_WAITS;
}

/* All that waited for a neighbour may leave. */
static void
let_go(struct router *router, struct router_neighbour *neighbour, uint32_t interface)
{
	while (neighbour->nb_waiting != 0) {
		const uint32_t index = router_queue_take(router, &neighbour->first_waiting);
		uint8_t *const frame = router->waiting[index].frame;

		neighbour->nb_waiting--;
		memcpy(frame, neighbour->mac, ROUTER_MAC_BYTES);
		memcpy(frame + ROUTER_MAC_BYTES, router->interfaces[interface].link.mac,
		       ROUTER_MAC_BYTES);
		router_queue_append(router, &router->first_ready, &router->last_ready, index);
	}
}

/* The neighbour does not answer: the senders of what waited are to be told. */
static void
give_up(struct router *router, struct router_neighbour *neighbour)
{
	for (; neighbour->nb_waiting != 0; neighbour->nb_waiting--)
		router_queue_append(router, &router->first_failed, &router->last_failed,
				    router_queue_take(router, &neighbour->first_waiting));
}

/* ---- neighbours ---- */

static void
ask(struct router *router, const struct router_neighbour_key *key,
    struct router_neighbour *neighbour)
{
	const uint8_t *const mac = neighbour->state == ROUTER_PROBED ? neighbour->mac : NULL;

	neighbour->asked_ns = router->ctx->now_ns;
	neighbour->nb_asked++;
	if (key->ip_version == 4)
		router_arp_ask(router, key->interface, key->address, mac);
	else
		router_ndp_ask(router, key->interface, key->address, mac);
}

/* Slot of a neighbour, or below 0. */
static int32_t
find(struct router *router, const struct router_neighbour_key *key)
{
	int32_t *const cached =
		&router->cached[router_hash(key->ip_version, key->address) & (ROUTER_CACHED - 1)];
	const void *const known = onvm_flow_table_key(router->neighbours, *cached);
	int32_t slot;

	if (known != NULL && memcmp(known, key, sizeof(*key)) == 0)
		return *cached;
	slot = onvm_flow_table_lookup(router->neighbours, key);
	if (slot >= 0)
		*cached = slot;
	return slot;
}

/* Add a neighbour that is to be asked. RFC 6583: a scan of a prefix leaves room for others. */
static int32_t
add_incomplete(struct router *router, const struct router_neighbour_key *key, uint64_t now_ns)
{
	int32_t slot;

	if (router->nb_incomplete >= router->config.max_neighbours / 2)
		return -1;
	slot = onvm_flow_table_add(router->neighbours, key, now_ns);
	if (slot < 0)
		return slot;
	neighbour_at(router, slot)->state = ROUTER_INCOMPLETE;
	router->nb_incomplete++;
	return slot;
}

void
router_meet(struct router *router, uint32_t interface, uint32_t ip_version, const uint8_t *address)
{
	struct router_neighbour_key key;

	if (interface >= router->setup.nb_interfaces)
		return;
	key_fill(&key, interface, ip_version, address);
	if (onvm_flow_table_lookup(router->neighbours, &key) < 0)
		add_incomplete(router, &key, 0);
}

enum router_sent
router_address_frame(struct router *router, struct onvm_pkt *pkt, const struct router_hop *hop,
		     uint32_t ip_version)
{
	const struct router_link *const link = &router->interfaces[hop->interface].link;
	const uint64_t now_ns = router->ctx->now_ns;
	struct router_neighbour *neighbour;
	struct router_neighbour_key key;
	int32_t slot;

	key_fill(&key, hop->interface, ip_version, hop->gateway);
	slot = find(router, &key);
	if (slot < 0) {
		slot = add_incomplete(router, &key, now_ns);
		if (slot < 0)
			return ROUTER_NOT_SENT;
		neighbour = neighbour_at(router, slot);
		ask(router, &key, neighbour);
	}
	neighbour = neighbour_at(router, slot);
	neighbour->used_ns = now_ns;
	if (neighbour->state == ROUTER_INCOMPLETE)
		return let_wait(router, neighbour, pkt, hop->interface);
	if (neighbour->state == ROUTER_FAILED)
		return ROUTER_REFUSED;
	memcpy(pkt->data, neighbour->mac, ROUTER_MAC_BYTES);
	memcpy(pkt->data + ROUTER_MAC_BYTES, link->mac, ROUTER_MAC_BYTES);
	return ROUTER_SENT;
}

void
router_neighbour_learn(struct router *router, uint32_t interface, uint32_t ip_version,
		       const uint8_t *address, const uint8_t *mac, bool may_add, bool is_answer)
{
	const uint64_t now_ns = router->ctx->now_ns;
	const struct router_address *own;
	struct router_neighbour *neighbour;
	struct router_neighbour_key key;
	bool was_there = true;
	int32_t slot;

	if ((mac[0] & 1) != 0 || !router_is_on_link(router, interface, ip_version, address))
		return;
	own = router_own_address(router, ip_version, address);
	if (own != NULL) {
		router_defend(router, interface, own, mac);
		return;
	}
	key_fill(&key, interface, ip_version, address);
	slot = onvm_flow_table_lookup(router->neighbours, &key);
	if (slot < 0) {
		/*
		 * Half of the table is for neighbours that packets go to, however many speak; those
		 * that do not answer have no part of the other half.
		 */
		if (!may_add || onvm_flow_table_count(router->neighbours) - router->nb_incomplete >=
					router->config.max_neighbours / 2)
			return;
		slot = onvm_flow_table_add(router->neighbours, &key, now_ns);
		if (slot < 0)
			return; /* it is asked for when it is needed, if there is room then */
		was_there = false;
	}
	neighbour = neighbour_at(router, slot);
	if (!was_there || neighbour->state == ROUTER_INCOMPLETE ||
	    neighbour->state == ROUTER_FAILED) {
		router->ctx->counters[ROUTER_NEIGHBOURS_FOUND]++;
		if (!was_there)
			neighbour->used_ns = now_ns;
		is_answer = true;
	}
	if (was_there && neighbour->state == ROUTER_INCOMPLETE)
		router->nb_incomplete--;
	/* A word that was not asked for changes the address, but says nothing about the way there. */
	if (is_answer || memcmp(neighbour->mac, mac, ROUTER_MAC_BYTES) != 0) {
		neighbour->state = ROUTER_REACHABLE;
		neighbour->nb_asked = 0;
		neighbour->confirmed_ns = now_ns;
	}
	memcpy(neighbour->mac, mac, ROUTER_MAC_BYTES);
	let_go(router, neighbour, interface);
}

static void
forget(struct router *router, int32_t slot)
{
	struct router_neighbour *const neighbour = neighbour_at(router, slot);

	if (neighbour->state == ROUTER_INCOMPLETE)
		router->nb_incomplete--;
	give_up(router, neighbour);
	onvm_flow_table_delete_slot(router->neighbours, slot);
	if (router->ctx != NULL)
		router->ctx->counters[ROUTER_NEIGHBOURS_LOST]++;
}

/* The turn of one neighbour. */
static void
turn(struct router *router, int32_t slot)
{
	const struct router_neighbour_key *const key =
		onvm_flow_table_key(router->neighbours, slot);
	struct router_neighbour *const neighbour = neighbour_at(router, slot);
	const struct router_setup *const setup = &router->setup;
	const uint64_t now_ns = router->ctx->now_ns;

	switch ((enum router_neighbour_state)neighbour->state) {
	case ROUTER_INCOMPLETE:
	case ROUTER_PROBED:
		if (now_ns - neighbour->asked_ns < ASK_NS)
			return;
		if (neighbour->nb_asked < ASK_TIMES) {
			ask(router, key, neighbour);
			return;
		}
		if (neighbour->state == ROUTER_INCOMPLETE)
			router->nb_incomplete--;
		neighbour->state = ROUTER_FAILED;
		neighbour->asked_ns = now_ns;
		give_up(router, neighbour);
		break;
	case ROUTER_REACHABLE:
		if (now_ns - neighbour->used_ns >= setup->forget_ns) {
			forget(router, slot);
		} else if (now_ns - neighbour->confirmed_ns >= setup->reachable_ns &&
			   neighbour->used_ns > neighbour->confirmed_ns) {
			neighbour->state = ROUTER_PROBED;
			ask(router, key, neighbour);
		}
		break;
	case ROUTER_FAILED:
		if (now_ns - neighbour->asked_ns >= FAILED_NS)
			forget(router, slot);
		break;
	}
}

void
router_neighbours_forget(struct router *router, uint32_t interface)
{
	struct onvm_flow_table *const table = router->neighbours;

	for (int32_t slot = onvm_flow_table_next(table, 0); slot >= 0;
	     slot = onvm_flow_table_next(table, slot + 1)) {
		const struct router_neighbour_key *const key = onvm_flow_table_key(table, slot);

		if (key->interface == interface)
			forget(router, slot);
	}
}

void
router_neighbours_tick(struct router *router)
{
	struct onvm_flow_table *const table = router->neighbours;
	const uint64_t now_ns = router->ctx->now_ns;

	if (now_ns < router->tick_ns)
		return;
	router->tick_ns = now_ns + TICK_NS;
	for (int32_t slot = onvm_flow_table_next(table, 0); slot >= 0;
	     slot = onvm_flow_table_next(table, slot + 1))
		turn(router, slot);
}
