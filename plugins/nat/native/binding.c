/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Mappings, sessions and subscribers.
 */

#include "nat.h"

#include <onvm/siphash.h>

#include <errno.h>
#include <string.h>

uint32_t
nat_nb_sessions(const struct nat *nat)
{
	return onvm_flow_table_count(nat->sessions);
}

/* ---- VLANs and subscribers ---- */

bool
nat_vlan_fill(struct nat *nat, const struct onvm_headers *headers, uint8_t *vlan)
{
	uint16_t identifiers[ONVM_VLANS_MAX];
	uint32_t number;
	int32_t slot;

	memset(vlan, 0, 3);
	if (headers->nb_vlans == 0)
		return true;
	for (uint32_t i = 0; i < ONVM_VLANS_MAX; i++)
		identifiers[i] = headers->vlan_tci[i] & 0x0fff;
	number = (uint32_t)identifiers[0] << 12 | identifiers[1];
	if (identifiers[2] != 0 || identifiers[3] != 0 || identifiers[0] == 0xfff) {
		const uint32_t next = onvm_flow_table_count(nat->realms);

		slot = onvm_flow_table_lookup(nat->realms, identifiers);
		if (slot < 0) {
			slot = onvm_flow_table_add(nat->realms, identifiers, 0);
			if (slot < 0)
				return false;
			memcpy(onvm_flow_value(nat->realms, slot), &next, sizeof(next));
		}
		memcpy(&number, onvm_flow_value(nat->realms, slot), sizeof(number));
		number |= 0xfff000;
	}
	vlan[0] = (uint8_t)(number >> 16);
	vlan[1] = (uint8_t)(number >> 8);
	vlan[2] = (uint8_t)number;
	return true;
}

uint32_t
nat_external_of(const struct nat *nat, const uint8_t *address, const uint8_t *vlan)
{
	/* the same in every instance, so no secret */
	static const uint64_t key[2];
	struct nat_endpoint endpoint = {0};

	if (nat->config.nb_externals == 1)
		return 0;
	memcpy(endpoint.address, address, sizeof(endpoint.address));
	memcpy(endpoint.vlan, vlan, sizeof(endpoint.vlan));
	return (uint32_t)(onvm_siphash(key, &endpoint, sizeof(endpoint)) %
			  nat->config.nb_externals);
}

/* NULL: there is no such subscriber, and none was to be made. */
static struct nat_subscription *
subscriber_of(struct nat *nat, const uint8_t *address, const uint8_t *vlan, bool makes)
{
	struct nat_subscriber key = {0};
	int32_t slot;

	memcpy(key.address, address, sizeof(key.address));
	memcpy(key.vlan, vlan, sizeof(key.vlan));
	slot = makes ? onvm_flow_table_add(nat->subscribers, &key, 0) :
		       onvm_flow_table_lookup(nat->subscribers, &key);
	return slot < 0 ? NULL : onvm_flow_value(nat->subscribers, slot);
}

static void
subscriber_join(struct nat *nat, const struct nat_endpoint *endpoint, enum nat_space space)
{
	const uint32_t nb_before = onvm_flow_table_count(nat->subscribers);
	struct nat_subscription *const has =
		subscriber_of(nat, endpoint->address, endpoint->vlan, true);

	if (has == NULL)
		return;
	has->nb_mappings[space]++;
	if (nat_is_stand_in(endpoint->address) &&
	    onvm_flow_table_count(nat->subscribers) != nb_before)
		nat_host_hold(nat, endpoint->address);
}

static void
subscriber_leave(struct nat *nat, const struct nat_endpoint *endpoint, enum nat_space space)
{
	struct nat_subscription *const has =
		subscriber_of(nat, endpoint->address, endpoint->vlan, false);
	struct nat_subscriber key = {0};

	if (has == NULL)
		return;
	has->nb_mappings[space]--;
	for (uint32_t i = 0; i < NAT_SPACES; i++)
		if (has->nb_mappings[i] != 0)
			return;
	memcpy(key.address, endpoint->address, sizeof(key.address));
	memcpy(key.vlan, endpoint->vlan, sizeof(key.vlan));
	onvm_flow_table_delete(nat->subscribers, &key);
	if (nat_is_stand_in(key.address))
		nat_host_release(nat, key.address);
}

/* ---- mappings ---- */

static void
endpoint_fill(struct nat_endpoint *endpoint, const struct nat_session_key *session)
{
	memset(endpoint, 0, sizeof(*endpoint));
	endpoint->protocol = session->protocol;
	memcpy(endpoint->address, session->inside, sizeof(endpoint->address));
	memcpy(endpoint->port, session->inside_port, sizeof(endpoint->port));
	memcpy(endpoint->vlan, session->vlan, sizeof(endpoint->vlan));
}

int32_t
nat_mapping_find(struct nat *nat, const struct nat_session_key *session)
{
	struct nat_endpoint endpoint;

	endpoint_fill(&endpoint, session);
	return onvm_flow_table_lookup(nat->mappings, &endpoint);
}

int32_t
nat_mapping_add(struct nat *nat, const struct nat_endpoint *endpoint, uint32_t external,
		uint32_t port)
{
	const enum nat_space space = nat_space_of(endpoint->protocol);
	const int32_t slot = onvm_flow_table_add(nat->mappings, endpoint, 0);
	struct nat_mapping *mapping;

	if (slot < 0)
		return slot;
	subscriber_join(nat, endpoint, space);
	mapping = onvm_flow_value(nat->mappings, slot);
	mapping->inside = *endpoint;
	onvm_store_be16(mapping->port, (uint16_t)port);
	mapping->space = (uint8_t)space & 15;
	mapping->is_forwarded = 0;
	mapping->external = (uint8_t)external;
	nat->ports[external][space].mapping_of[port] = slot;
	nat->counters[NAT_MAPPINGS_OPENED]++;
	if (nat->events != NULL)
		nat_log_note(nat, mapping, true);
	return slot;
}

int
nat_forwards_add(struct nat *nat)
{
	for (uint32_t i = 0; i < nat->config.nb_forwards; i++) {
		const struct nat_forward *const forward = &nat->config.forwards[i];
		const enum nat_space space = nat_space_of(forward->protocol);
		struct nat_endpoint endpoint = {.protocol = forward->protocol};
		struct nat_mapping *mapping;
		int32_t slot;

		if (space == NAT_SPACES || forward->external >= nat->config.nb_externals)
			return -EINVAL;
		if (!nat_port_is_own(nat, forward->port))
			continue; /* another instance has it */
		memcpy(endpoint.address, forward->inside, sizeof(endpoint.address));
		onvm_store_be16(endpoint.port, forward->inside_port);
		nat_port_use(nat, forward->external, space, forward->port);
		slot = nat_mapping_add(nat, &endpoint, forward->external, forward->port);
		if (slot < 0)
			return -ENOSPC;
		mapping = onvm_flow_value(nat->mappings, slot);
		mapping->is_forwarded = 1;
		nat->has_pending = true;
	}
	return 0;
}

/* Slot of the endpoint's mapping, or -reason - 1. */
static int32_t
mapping_open(struct nat *nat, const struct nat_session_key *session, uint64_t now_ns)
{
	const enum nat_space space = nat_space_of(session->protocol);
	const uint32_t external = nat_external_of(nat, session->inside, session->vlan);
	const struct nat_subscription *has;
	struct nat_endpoint endpoint;
	int32_t slot, port;

	endpoint_fill(&endpoint, session);
	nat_backlog_clear(nat, now_ns);
	slot = onvm_flow_table_lookup(nat->mappings, &endpoint);
	if (slot >= 0)
		return slot;
	has = subscriber_of(nat, endpoint.address, endpoint.vlan, false);
	if (has == NULL ? onvm_flow_table_count(nat->subscribers) >= nat->max_subscribers :
			  has->nb_mappings[space] >= nat->config.subscriber_ports)
		return -NAT_DROP_SUBSCRIBER_LIMIT - 1;
	port = nat_port_take(nat, external, space, &endpoint, now_ns);
	if (port < 0)
		return -NAT_DROP_EXHAUSTED - 1;
	slot = nat_mapping_add(nat, &endpoint, external, (uint32_t)port);
	if (slot < 0) {
		nat_port_give_back(nat, external, space, (uint32_t)port, 0);
		return -NAT_DROP_TABLE_FULL - 1;
	}
	return slot;
}

void
nat_mapping_release(struct nat *nat, int32_t slot, bool rests)
{
	const struct nat_mapping *const mapping = onvm_flow_value(nat->mappings, slot);
	const enum nat_space space = (enum nat_space)mapping->space;

	if (mapping->nb_sessions != 0 || mapping->is_forwarded)
		return;
	if (nat->events != NULL)
		nat_log_note(nat, mapping, false);
	subscriber_leave(nat, onvm_flow_table_key(nat->mappings, slot), space);
	/* RFC 6888 REQ-8 A: a NAT that follows connections may use ports of TCP at once. */
	nat_port_give_back(nat, mapping->external, space, onvm_load_be16(mapping->port),
			   rests && space != NAT_TCP ? mapping->freed_ns : 0);
	onvm_flow_table_delete_slot(nat->mappings, slot);
	nat->counters[NAT_MAPPINGS_CLOSED]++;
}

/* ---- sessions ---- */

/* Count sessions per remote address; needed only when that is what filters. */
static void
peer_count(struct nat *nat, const struct nat_session_key *session, bool is_opening)
{
	struct nat_session_key peer = *session;
	uint32_t *nb_sessions;
	int32_t slot;

	if (nat->peers == NULL)
		return;
	memset(peer.remote_port, 0, sizeof(peer.remote_port));
	/* never full: it holds at most one entry for each session */
	slot = is_opening ? onvm_flow_table_add(nat->peers, &peer, 0) :
			    onvm_flow_table_lookup(nat->peers, &peer);
	if (slot < 0)
		return;
	nb_sessions = onvm_flow_value(nat->peers, slot);
	if (is_opening)
		++*nb_sessions;
	else if (--*nb_sessions == 0)
		onvm_flow_table_delete_slot(nat->peers, slot);
}

static enum nat_life
life_of(uint8_t protocol, uint8_t state)
{
	const uint8_t both = 3 * ONVM_TCP_TRACK_SEEN;

	if (protocol == ONVM_PROTO_ICMP)
		return NAT_QUERY;
	if (protocol == ONVM_PROTO_UDP)
		return (state & both) == both ? NAT_LASTING_UDP : NAT_UDP_NEW;
	if (onvm_tcp_is_closed(state))
		return NAT_CLOSING;
	return onvm_tcp_is_established(state) ? NAT_ESTABLISHED : NAT_OPENING;
}

/* That of life_of() for a session that has come into @p life. */
static enum nat_life
life_wanted(enum nat_life life)
{
	if (life == NAT_SURPLUS_UDP)
		return NAT_LASTING_UDP;
	return life == NAT_SURPLUS_TCP ? NAT_ESTABLISHED : life;
}

/* RFC 6888 REQ-5: what one inside address has beyond its share gives way to others. */
static enum nat_life
life_enter(struct nat *nat, const struct nat_session_key *key, enum nat_life life)
{
	struct nat_subscription *has;

	if (life < NAT_LASTING_UDP)
		return life;
	has = subscriber_of(nat, key->inside, key->vlan, false);
	if (has == NULL || has->nb_lasting >= nat->config.subscriber_sessions)
		return life == NAT_LASTING_UDP ? NAT_SURPLUS_UDP : NAT_SURPLUS_TCP;
	has->nb_lasting++;
	return life;
}

static void
life_leave(struct nat *nat, const struct nat_session_key *key, enum nat_life life)
{
	struct nat_subscription *const has =
		life < NAT_LASTING_UDP ? NULL : subscriber_of(nat, key->inside, key->vlan, false);

	if (has != NULL)
		has->nb_lasting--;
}

bool
nat_session_has_expired(struct nat *nat, int32_t slot, uint64_t now_ns)
{
	const struct nat_session *const session = onvm_flow_value(nat->sessions, slot);

	return onvm_idle_queue_has_expired(&nat->queues[session->life], nat->sessions, slot,
					   now_ns);
}

void
nat_session_close(struct nat *nat, int32_t slot, uint64_t freed_ns)
{
	const struct nat_session *const session = onvm_flow_value(nat->sessions, slot);
	const int32_t mapping_slot = session->mapping;
	struct nat_mapping *const mapping = onvm_flow_value(nat->mappings, mapping_slot);

	onvm_idle_queue_remove(&nat->queues[session->life], nat->sessions, slot);
	life_leave(nat, onvm_flow_table_key(nat->sessions, slot), (enum nat_life)session->life);
	peer_count(nat, onvm_flow_table_key(nat->sessions, slot), false);
	onvm_flow_table_delete_slot(nat->sessions, slot);
	mapping->nb_sessions--;
	if (mapping->freed_ns < freed_ns)
		mapping->freed_ns = freed_ns;
	nat_mapping_release(nat, mapping_slot, true);
}

static void
session_expire(struct nat *nat, int32_t slot)
{
	const struct nat_session *const session = onvm_flow_value(nat->sessions, slot);

	nat_session_close(nat, slot, session->link.used_ns + nat->queues[session->life].idle_ns);
	nat->counters[NAT_SESSIONS_EXPIRED]++;
}

int32_t
nat_session_find(struct nat *nat, const struct nat_session_key *key, uint64_t now_ns)
{
	const int32_t slot = onvm_flow_table_lookup(nat->sessions, key);

	if (slot < 0 || !nat_session_has_expired(nat, slot, now_ns))
		return slot;
	session_expire(nat, slot);
	return -1;
}

void
nat_expire(struct nat *nat, uint64_t now_ns, uint32_t budget)
{
	nat->now_ns = now_ns;
	for (uint32_t life = 0; life < NAT_LIVES; life++) {
		int32_t slot;

		while (budget != 0 &&
		       (slot = onvm_idle_queue_expired(&nat->queues[life], nat->sessions,
						       now_ns)) >= 0) {
			session_expire(nat, slot);
			budget--;
		}
	}
	nat->has_backlog = budget == 0;
}

void
nat_tick(struct nat *nat, uint64_t now_ns)
{
	nat->has_pending = true;
	nat_expire(nat, now_ns, UINT32_MAX);
}

/* Room for one more: by what has expired, else by the oldest that may never have been answered. */
static bool
room_make(struct nat *nat, uint64_t now_ns)
{
	if (nat_nb_sessions(nat) < nat->config.max_sessions)
		return true;
	nat_backlog_clear(nat, now_ns);
	if (nat_nb_sessions(nat) < nat->config.max_sessions)
		return true;
	for (uint32_t life = 0; life < NAT_LASTING_UDP; life++) {
		if (nat->queues[life].first < 0)
			continue;
		nat_session_close(nat, nat->queues[life].first, now_ns);
		nat->counters[NAT_SESSIONS_EVICTED]++;
		return true;
	}
	return false;
}

int32_t
nat_session_add(struct nat *nat, const struct nat_session_key *key, int32_t mapping, uint8_t state,
		uint64_t now_ns)
{
	const int32_t slot = onvm_flow_table_add(nat->sessions, key, now_ns);
	struct nat_mapping *value;
	struct nat_session *session;

	if (slot < 0)
		return slot;
	value = onvm_flow_value(nat->mappings, mapping);
	value->nb_sessions++;
	session = onvm_flow_value(nat->sessions, slot);
	session->mapping = mapping;
	memcpy(session->port, value->port, sizeof(session->port));
	session->external = value->external & 15;
	session->state = state;
	session->life = life_enter(nat, key, life_of(key->protocol, state));
	onvm_idle_queue_push(&nat->queues[session->life], nat->sessions, slot, now_ns);
	peer_count(nat, key, true);
	nat->counters[NAT_SESSIONS_OPENED]++;
	return slot;
}

int32_t
nat_session_open(struct nat *nat, const struct nat_session_key *key, uint64_t now_ns)
{
	const int32_t mapping = mapping_open(nat, key, now_ns);
	struct nat_mapping *value;
	bool has_room;
	int32_t slot = -1;

	if (mapping < 0)
		return mapping;
	/* Its other sessions may give way, but it stays. */
	value = onvm_flow_value(nat->mappings, mapping);
	value->nb_sessions++;
	has_room = room_make(nat, now_ns);
	value->nb_sessions--;
	if (has_room)
		slot = nat_session_add(nat, key, mapping, 0, now_ns);
	if (slot < 0) {
		nat_mapping_release(nat, mapping, false);
		return -NAT_DROP_TABLE_FULL - 1;
	}
	return slot;
}

void
nat_session_use(struct nat *nat, int32_t slot, uint8_t protocol, uint8_t tcp_flags, bool is_inbound,
		uint64_t now_ns)
{
	struct nat_session *const session = onvm_flow_value(nat->sessions, slot);
	const struct nat_session_key *key;
	enum nat_life life;

	if (protocol == ONVM_PROTO_TCP)
		session->state = onvm_tcp_track(session->state, tcp_flags, is_inbound);
	else
		session->state |= (uint8_t)(ONVM_TCP_TRACK_SEEN << is_inbound);
	/* RFC 4787 REQ-6: outbound does; inbound lets strangers keep it open */
	if (protocol != ONVM_PROTO_TCP && is_inbound && !nat->config.refreshes_inbound)
		return;
	life = life_of(protocol, session->state);
	if (life == life_wanted((enum nat_life)session->life)) {
		onvm_idle_queue_touch(&nat->queues[session->life], nat->sessions, slot, now_ns);
		return;
	}
	key = onvm_flow_table_key(nat->sessions, slot);
	onvm_idle_queue_remove(&nat->queues[session->life], nat->sessions, slot);
	life_leave(nat, key, (enum nat_life)session->life);
	session->life = life_enter(nat, key, life);
	onvm_idle_queue_push(&nat->queues[session->life], nat->sessions, slot, now_ns);
}

static bool
is_forwarded(struct nat *nat, const struct nat_session_key *key)
{
	const int32_t slot = nat->config.nb_forwards == 0 ? -1 : nat_mapping_find(nat, key);
	const struct nat_mapping *const mapping = slot < 0 ? NULL :
							     onvm_flow_value(nat->mappings, slot);

	return mapping != NULL && mapping->is_forwarded;
}

bool
nat_filter_allows(struct nat *nat, const struct nat_session_key *key, int32_t session)
{
	struct nat_session_key peer = *key;

	if (nat->config.filtering != NAT_FILTER_NONE && session < 0 && is_forwarded(nat, key))
		return true;
	switch ((enum nat_filtering)nat->config.filtering) {
	case NAT_FILTER_NONE:
		return true;
	case NAT_FILTER_ADDRESS:
		memset(peer.remote_port, 0, sizeof(peer.remote_port));
		return session >= 0 || onvm_flow_table_lookup(nat->peers, &peer) >= 0;
	case NAT_FILTER_ADDRESS_AND_PORT:
		return session >= 0;
	}
	return false;
}
