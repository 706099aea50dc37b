/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Connections: two entries of one table each, and queues by idle time.
 */

#include "lb.h"

#include <string.h>

#define PORT_TRIES 64
#define FREE_PORTS_FIRST 1024u
#define FREE_PORTS 64512u
#define HANDSHAKE_WINDOW (1u << 20)
#define TICK_BUDGET (1u << 20)

uint32_t
lb_nb_connections(const struct lb *lb)
{
	return onvm_flow_table_count(lb->connections) / 2;
}

struct lb_entry *
lb_connection_first(struct lb *lb, int32_t slot)
{
	struct lb_entry *const entry = onvm_flow_value(lb->connections, slot);

	return entry->is_reply ? onvm_flow_value(lb->connections, entry->partner) : entry;
}

/* Slot of the entry from the client. */
static int32_t
first_slot(struct lb *lb, int32_t slot)
{
	const struct lb_entry *const entry = onvm_flow_value(lb->connections, slot);

	return entry->is_reply ? entry->partner : slot;
}

bool
lb_connection_has_expired(struct lb *lb, int32_t slot, uint64_t now_ns)
{
	const int32_t first = first_slot(lb, slot);
	const struct lb_entry *const entry = onvm_flow_value(lb->connections, first);

	return onvm_idle_queue_has_expired(&lb->queues[entry->life], lb->connections, first,
					   now_ns);
}

void
lb_connection_close(struct lb *lb, int32_t slot)
{
	const int32_t first = first_slot(lb, slot);
	const struct lb_entry *const entry = onvm_flow_value(lb->connections, first);
	const int32_t partner = entry->partner;

	if (entry->backend != LB_NO_BACKEND)
		lb->usages[entry->backend].current--;
	onvm_idle_queue_remove(&lb->queues[entry->life], lb->connections, first);
	onvm_flow_table_delete_slot(lb->connections, partner);
	onvm_flow_table_delete_slot(lb->connections, first);
}

static void
connection_expire(struct lb *lb, int32_t slot)
{
	lb_connection_close(lb, slot);
	lb->counters[LB_CONNECTIONS_EXPIRED]++;
}

int32_t
lb_connection_find(struct lb *lb, const struct lb_key *key, uint64_t now_ns)
{
	const int32_t slot = onvm_flow_table_lookup(lb->connections, key);

	if (slot < 0 || !lb_connection_has_expired(lb, slot, now_ns))
		return slot;
	connection_expire(lb, slot);
	return -1;
}

void
lb_expire(struct lb *lb, uint64_t now_ns, uint32_t budget)
{
	for (uint32_t life = 0; life < LB_LIVES; life++) {
		int32_t slot;

		while (budget != 0 &&
		       (slot = onvm_idle_queue_expired(&lb->queues[life], lb->connections,
						       now_ns)) >= 0) {
			connection_expire(lb, slot);
			budget--;
		}
	}
}

void
lb_tick(struct lb *lb, uint64_t now_ns)
{
	lb->has_pending = true;
	lb_expire(lb, now_ns, TICK_BUDGET);
}

/* Room for one more: by what has expired, else by the oldest that does not matter much. */
static bool
room_make(struct lb *lb, uint64_t now_ns)
{
	if (lb_nb_connections(lb) < lb->config.max_connections)
		return true;
	lb_expire(lb, now_ns, 1);
	if (lb_nb_connections(lb) < lb->config.max_connections)
		return true;
	for (uint32_t life = 0; life < LB_ESTABLISHED; life++) {
		if (lb->queues[life].first < 0)
			continue;
		lb_connection_close(lb, lb->queues[life].first);
		lb->counters[LB_CONNECTIONS_EVICTED]++;
		return true;
	}
	return false;
}

static enum lb_life
life_of(uint8_t protocol, uint8_t state)
{
	const bool is_closed = (state & LB_RST) != 0 || (state & 3 * LB_FIN) == 3 * LB_FIN;

	if (protocol == ONVM_PROTO_TCP && is_closed)
		return LB_CLOSING;
	if ((state & 3 * LB_SEEN) != 3 * LB_SEEN || (state & LB_HANDSHAKE) != 0)
		return LB_OPENING;
	return protocol == ONVM_PROTO_TCP ? LB_ESTABLISHED : LB_UDP;
}

static void
entry_fill(struct lb_entry *entry, const uint8_t *address, const uint8_t *port,
	   const uint8_t *client_port, bool is_reply, int32_t partner)
{
	memcpy(entry->address, address, sizeof(entry->address));
	memcpy(entry->port, port, sizeof(entry->port));
	memcpy(entry->client_port, client_port, sizeof(entry->client_port));
	entry->is_reply = is_reply;
	entry->partner = partner;
}

int32_t
lb_connection_add(struct lb *lb, const struct lb_key *key, const struct lb_key *reply,
		  uint32_t backend, uint8_t state, uint64_t now_ns)
{
	const bool is_direct = memcmp(key->dst, reply->src, sizeof(key->dst)) == 0 &&
			       memcmp(key->dst_port, reply->src_port, 2) == 0;
	const int32_t there = onvm_flow_table_add(lb->connections, key, now_ns);
	struct lb_entry *entry;
	int32_t back;

	if (there < 0)
		return there;
	back = onvm_flow_table_add(lb->connections, reply, now_ns);
	if (back < 0) {
		onvm_flow_table_delete_slot(lb->connections, there);
		return back;
	}
	entry = onvm_flow_value(lb->connections, back);
	entry_fill(entry, key->dst, key->dst_port, key->src_port, true, there);
	entry->is_direct = is_direct;
	entry->backend = backend;
	entry = onvm_flow_value(lb->connections, there);
	entry->is_direct = is_direct;
	entry->backend = backend;
	entry_fill(entry, reply->src, reply->src_port, reply->dst_port, false, back);
	entry->state = state;
	entry->life = (uint8_t)life_of(key->protocol, state);
	onvm_idle_queue_push(&lb->queues[entry->life], lb->connections, there, now_ns);
	lb->counters[LB_CONNECTIONS_OPENED]++;
	return there;
}

void
lb_connection_set_forward(struct lb *lb, int32_t slot, uint8_t forward, const uint8_t *address,
			  uint8_t outer_version)
{
	struct lb_entry *const entry = onvm_flow_value(lb->connections, slot);
	struct lb_entry *const reply = onvm_flow_value(lb->connections, entry->partner);

	memcpy(entry->address, address, sizeof(entry->address));
	entry->forward = reply->forward = forward;
	entry->outer_version = outer_version;
}

/* A tuple that nothing uses. A connection that is closed gives way. */
static bool
tuple_is_free(struct lb *lb, const struct lb_key *reply, uint64_t now_ns)
{
	const int32_t slot = lb_connection_find(lb, reply, now_ns);

	if (slot < 0)
		return true;
	if (lb_connection_first(lb, slot)->life != LB_CLOSING)
		return false;
	lb_connection_close(lb, slot);
	return true;
}

/*
 * The client's port towards the backend: its own, or another one if it reaches the same port of the
 * same backend through another VIP at this time.
 */
static bool
client_port_take(struct lb *lb, const struct lb_key *key, struct lb_key *reply, uint64_t now_ns)
{
	uint32_t first;

	memcpy(reply->dst_port, key->src_port, sizeof(reply->dst_port));
	if (tuple_is_free(lb, reply, now_ns))
		return true;
	first = (uint32_t)((lb_hash(key, false) >> 32) % FREE_PORTS);
	for (uint32_t i = 0; i < PORT_TRIES; i++) {
		onvm_store_be16(reply->dst_port,
				(uint16_t)(FREE_PORTS_FIRST + (first + i) % FREE_PORTS));
		if (tuple_is_free(lb, reply, now_ns))
			return true;
	}
	return false;
}

/* Replies that are not translated: their tuple is just the reverse. */
static bool
reverse_take(struct lb *lb, const struct lb_key *key, struct lb_key *reply, uint64_t now_ns)
{
	memcpy(reply->dst_port, key->src_port, sizeof(reply->dst_port));
	return memcmp(reply, key, sizeof(*key)) != 0 && tuple_is_free(lb, reply, now_ns);
}

int32_t
lb_connection_open(struct lb *lb, const struct lb_vip *vip, const struct lb_key *key,
		   bool is_handshake, uint64_t now_ns)
{
	struct lb_key reply = {.protocol = key->protocol, .ip_version = key->ip_version};
	const struct lb_backend *backend;
	const uint8_t *port;
	uint32_t index;
	int32_t slot;

	if (vip->table == NULL)
		return -LB_DROP_NO_BACKEND - 1;
	index = vip->first_backend + vip->table[lb_hash(key, vip->by_client) % vip->table_size];
	backend = &lb->config.backends[index];
	port = onvm_load_be16(backend->port) != 0 ? backend->port : key->dst_port;
	memcpy(reply.src, vip->forward == LB_NAT ? backend->address : key->dst, sizeof(reply.src));
	memcpy(reply.src_port, port, sizeof(reply.src_port));
	memcpy(reply.dst, key->src, sizeof(reply.dst));
	memcpy(reply.vlans, key->vlans, sizeof(reply.vlans));
	if (vip->forward == LB_NAT ? !client_port_take(lb, key, &reply, now_ns) :
				     !reverse_take(lb, key, &reply, now_ns))
		return -LB_DROP_CONFLICT - 1;
	if (!room_make(lb, now_ns))
		return -LB_DROP_TABLE_FULL - 1;
	slot = lb_connection_add(lb, key, &reply, index, is_handshake ? LB_HANDSHAKE : 0, now_ns);
	if (slot < 0)
		return -LB_DROP_TABLE_FULL - 1;
	if (vip->forward != LB_NAT)
		lb_connection_set_forward(lb, slot, vip->forward, backend->address,
					  backend->ip_version);
	lb->usages[index].opened++;
	lb->usages[index].current++;
	return slot;
}

int32_t
lb_connection_open_direct(struct lb *lb, const struct lb_key *key, bool is_handshake,
			  uint64_t now_ns)
{
	struct lb_key reply = *key;

	memcpy(reply.src, key->dst, sizeof(reply.src));
	memcpy(reply.dst, key->src, sizeof(reply.dst));
	memcpy(reply.src_port, key->dst_port, sizeof(reply.src_port));
	memcpy(reply.dst_port, key->src_port, sizeof(reply.dst_port));
	if (memcmp(&reply, key, sizeof(reply)) == 0 || !tuple_is_free(lb, &reply, now_ns) ||
	    !room_make(lb, now_ns))
		return -1;
	return lb_connection_add(lb, key, &reply, LB_NO_BACKEND, is_handshake ? LB_HANDSHAKE : 0,
				 now_ns);
}

/*
 * A forger of a client's address never sees the number of the backend's SYN, so a connection is
 * not established before the client has acknowledged it, or what followed it closely.
 */
static void
track(struct lb_entry *entry, const uint8_t *l4, uint8_t flags, bool is_reply)
{
	const uint8_t kind = flags & (ONVM_TCP_SYN | ONVM_TCP_ACK | ONVM_TCP_RST);

	if (is_reply && kind == (ONVM_TCP_SYN | ONVM_TCP_ACK))
		entry->number = onvm_load_be32(l4 + 4);
	if (!is_reply && kind == ONVM_TCP_ACK && (entry->state & LB_SEEN << 1) != 0 &&
	    onvm_load_be32(l4 + 8) - entry->number < HANDSHAKE_WINDOW)
		entry->state &= (uint8_t)~LB_HANDSHAKE;
	if ((flags & ONVM_TCP_FIN) != 0)
		entry->state |= (uint8_t)(LB_FIN << is_reply);
	entry->state &= (uint8_t)~LB_RST;
	if ((flags & ONVM_TCP_RST) != 0)
		entry->state |= LB_RST;
}

/* Where replies take another way, the client has to be believed. */
static void
track_one_way(struct lb_entry *entry, const struct onvm_headers *headers)
{
	const uint8_t flags = headers->tcp_flags;

	if (headers->protocol != ONVM_PROTO_TCP || (flags & ONVM_TCP_SYN) == 0) {
		entry->state |= 3 * LB_SEEN;
		entry->state &= (uint8_t)~LB_HANDSHAKE;
	}
	if ((flags & ONVM_TCP_FIN) != 0)
		entry->state |= 3 * LB_FIN;
	entry->state &= (uint8_t)~LB_RST;
	if ((flags & ONVM_TCP_RST) != 0)
		entry->state |= LB_RST;
}

void
lb_connection_use(struct lb *lb, int32_t slot, const uint8_t *data,
		  const struct onvm_headers *headers, uint64_t now_ns)
{
	const struct lb_entry *const used = onvm_flow_value(lb->connections, slot);
	const int32_t first = first_slot(lb, slot);
	struct lb_entry *const entry = onvm_flow_value(lb->connections, first);
	enum lb_life life;

	entry->state |= (uint8_t)(LB_SEEN << used->is_reply);
	if (entry->forward != LB_NAT)
		track_one_way(entry, headers);
	else if (headers->protocol == ONVM_PROTO_TCP)
		track(entry, data + headers->l4_offset, headers->tcp_flags, used->is_reply != 0);
	life = life_of(headers->protocol, entry->state);
	if (life == entry->life) {
		onvm_idle_queue_touch(&lb->queues[life], lb->connections, first, now_ns);
		return;
	}
	onvm_idle_queue_remove(&lb->queues[entry->life], lb->connections, first);
	entry->life = (uint8_t)life;
	onvm_idle_queue_push(&lb->queues[life], lb->connections, first, now_ns);
}
