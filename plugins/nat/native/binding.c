/* SPDX-License-Identifier: Apache-2.0 */
#include "nat.h"

#include <string.h>

#define EVEN_PORTS 0x5555555555555555ull
#define ALL_PORTS UINT64_MAX

/* First free port of [first, end) whose bit is in @p mask, or -1. */
static int32_t
free_port_find(const uint64_t *used, uint32_t first, uint32_t end, uint64_t mask)
{
	for (uint32_t port = first; port < end; port = (port | 63) + 1) {
		const uint64_t from_here = UINT64_MAX << (port & 63);
		const uint64_t free = ~used[port >> 6] & mask & from_here;

		if (free != 0) {
			const uint32_t found = (port & ~63u) + (uint32_t)__builtin_ctzll(free);

			return found < end ? (int32_t)found : -1;
		}
	}
	return -1;
}

static int32_t
free_port_find_around(const struct nat *nat, enum nat_space space, uint32_t start, uint64_t mask)
{
	const uint64_t *const used = nat->used[space];
	const int32_t port = free_port_find(used, start, nat->config.end_port, mask);

	return port >= 0 ? port : free_port_find(used, nat->config.first_port, start, mask);
}

/*
 * Take an external port: the inside port itself if it is free, else the next free one, of the same
 * parity while there is one (RFC 4787 REQ-4). Never one that another endpoint has (REQ-3).
 */
static int32_t
port_take(struct nat *nat, enum nat_space space, uint16_t wanted)
{
	const uint32_t first = nat->config.first_port, end = nat->config.end_port;
	const uint32_t start = wanted >= first && wanted < end ? wanted :
								 first + wanted % (end - first);
	int32_t port = -1;

	if (nat->nb_used[space] == end - first)
		return -1;
	if (nat->config.keeps_parity && space != NAT_ICMP)
		port = free_port_find_around(nat, space, start, EVEN_PORTS << (wanted & 1));
	if (port < 0)
		port = free_port_find_around(nat, space, start, ALL_PORTS);
	nat->used[space][port >> 6] |= 1ull << (port & 63);
	nat->nb_used[space]++;
	return port;
}

static void
port_give_back(struct nat *nat, enum nat_space space, uint32_t port)
{
	nat->used[space][port >> 6] &= ~(1ull << (port & 63));
	if (nat_port_is_own(nat, port))
		nat->nb_used[space]--;
	else
		nat->nb_inherited--;
	nat->mapping_of[space][port] = -1;
}

static int32_t
mapping_open(struct nat *nat, const struct nat_session_key *session, uint64_t now_ns)
{
	const enum nat_space space = nat_space_of(session->protocol);
	struct nat_endpoint endpoint = {.protocol = session->protocol};
	struct nat_mapping *mapping;
	int32_t slot, port;

	memcpy(endpoint.address, session->inside, sizeof(endpoint.address));
	memcpy(endpoint.port, session->inside_port, sizeof(endpoint.port));
	slot = onvm_flow_table_lookup(nat->mappings, &endpoint);
	if (slot >= 0)
		return slot;
	port = port_take(nat, space, onvm_load_be16(endpoint.port));
	if (port < 0)
		return -NAT_DROP_EXHAUSTED - 1;
	slot = onvm_flow_table_add(nat->mappings, &endpoint, now_ns);
	if (slot < 0) {
		port_give_back(nat, space, (uint32_t)port);
		return -NAT_DROP_TABLE_FULL - 1;
	}
	mapping = onvm_flow_table_value(nat->mappings, slot);
	onvm_store_be16(mapping->port, (uint16_t)port);
	mapping->space = (uint8_t)space;
	nat->mapping_of[space][port] = slot;
	nat->counters[NAT_MAPPINGS_OPENED]++;
	return slot;
}

void
nat_mapping_release(struct nat *nat, int32_t slot)
{
	struct nat_mapping *const mapping = onvm_flow_table_value(nat->mappings, slot);

	if (mapping->nb_sessions != 0)
		return;
	port_give_back(nat, (enum nat_space)mapping->space, onvm_load_be16(mapping->port));
	onvm_flow_table_delete_slot(nat->mappings, slot);
	nat->counters[NAT_MAPPINGS_CLOSED]++;
}

/* Count sessions per remote address; needed only when that is what filters. */
static void
peer_count(struct nat *nat, const struct nat_session_key *session, bool is_opening, uint64_t now_ns)
{
	struct nat_session_key peer = *session;
	uint32_t *nb_sessions;
	int32_t slot;

	if (nat->peers == NULL)
		return;
	memset(peer.remote_port, 0, sizeof(peer.remote_port));
	/* never full: it holds at most one entry for each session */
	slot = is_opening ? onvm_flow_table_add(nat->peers, &peer, now_ns) :
			    onvm_flow_table_lookup(nat->peers, &peer);
	if (slot < 0)
		return;
	nb_sessions = onvm_flow_table_value(nat->peers, slot);
	if (is_opening)
		++*nb_sessions;
	else if (--*nb_sessions == 0)
		onvm_flow_table_delete_slot(nat->peers, slot);
}

static uint64_t
idle_time(const struct nat_config *config, uint8_t protocol, uint8_t tcp_state)
{
	if (protocol == ONVM_PROTO_UDP)
		return config->udp_ns;
	if (protocol == ONVM_PROTO_ICMP)
		return config->icmp_ns;
	/* RFC 5382 REQ-5 */
	return onvm_tcp_is_established(tcp_state) ? config->tcp_established_ns :
						    config->tcp_transitory_ns;
}

int32_t
nat_session_add(struct nat *nat, const struct nat_session_key *key, int32_t mapping,
		uint8_t tcp_state, uint64_t now_ns)
{
	const int32_t slot = onvm_flow_table_add(nat->sessions, key, now_ns);
	struct nat_mapping *value;
	struct nat_session *session;

	if (slot < 0)
		return slot;
	value = onvm_flow_table_value(nat->mappings, mapping);
	value->nb_sessions++;
	session = onvm_flow_table_value(nat->sessions, slot);
	session->mapping = mapping;
	session->tcp_state = tcp_state;
	onvm_flow_table_set_idle(nat->sessions, slot,
				 idle_time(&nat->config, key->protocol, tcp_state));
	peer_count(nat, key, true, now_ns);
	nat->counters[NAT_SESSIONS_OPENED]++;
	return slot;
}

int32_t
nat_session_open(struct nat *nat, const struct nat_session_key *key, uint64_t now_ns)
{
	const int32_t mapping = mapping_open(nat, key, now_ns);
	int32_t slot;

	if (mapping < 0)
		return mapping;
	slot = nat_session_add(nat, key, mapping, 0, now_ns);
	if (slot < 0) {
		nat_mapping_release(nat, mapping);
		return -NAT_DROP_TABLE_FULL - 1;
	}
	return slot;
}

void
nat_session_use(struct nat *nat, int32_t slot, uint8_t protocol, uint8_t tcp_flags, bool is_inbound,
		uint64_t now_ns)
{
	struct nat_session *const session = onvm_flow_table_value(nat->sessions, slot);

	if (protocol == ONVM_PROTO_TCP) {
		const uint8_t state = onvm_tcp_track(session->tcp_state, tcp_flags, is_inbound);

		if (state != session->tcp_state) {
			session->tcp_state = state;
			onvm_flow_table_set_idle(nat->sessions, slot,
						 idle_time(&nat->config, protocol, state));
		}
	} else if (is_inbound && !nat->config.refreshes_inbound) {
		return; /* RFC 4787 REQ-6: outbound does; inbound lets strangers keep it open */
	}
	onvm_flow_table_touch(nat->sessions, slot, now_ns);
}

static void
session_expired(void *arg, int32_t slot)
{
	struct nat *const nat = arg;
	const struct nat_session *const session = onvm_flow_table_value(nat->sessions, slot);
	struct nat_mapping *const mapping = onvm_flow_table_value(nat->mappings, session->mapping);

	peer_count(nat, onvm_flow_table_key(nat->sessions, slot), false, 0);
	mapping->nb_sessions--;
	nat_mapping_release(nat, session->mapping);
}

void
nat_expire(struct nat *nat, uint64_t now_ns)
{
	nat->counters[NAT_SESSIONS_EXPIRED] += onvm_flow_table_sweep(nat->sessions, now_ns,
								     nat->config.udp_ns,
								     session_expired, nat);
}

bool
nat_filter_allows(struct nat *nat, const struct nat_session_key *key, int32_t session)
{
	struct nat_session_key peer = *key;

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
