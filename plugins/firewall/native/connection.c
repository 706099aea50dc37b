/* SPDX-License-Identifier: Apache-2.0 */
#include "connection.h"

#include <errno.h>

#define SOURCE_BYTES 16
#define EXPIRE_CALLS 10u	/* for the whole table ... */
#define EXPIRE_SLOTS_MAX 65536u /* ... but packets do not wait for more than a fraction of a ms */

/* Idle time of a connection in the state that it has; whether it gives way to others. */
static uint64_t
idle_time(const struct firewall_config *config, uint8_t protocol,
	  const struct connection *connection, bool *gives_way)
{
	*gives_way = !connection->has_reply;
	switch (protocol) {
	case ONVM_PROTO_TCP:
		*gives_way = tcp_gives_way(&connection->tcp);
		switch ((enum firewall_tcp_state)connection->tcp.state) {
		case FIREWALL_TCP_SYN_SENT:
			return config->tcp_syn_ns;
		case FIREWALL_TCP_SYN_RECEIVED:
		case FIREWALL_TCP_PICKED_UP:
			return config->tcp_syn_received_ns;
		case FIREWALL_TCP_ESTABLISHED:
			return config->tcp_established_ns;
		case FIREWALL_TCP_HALF_CLOSED:
			return config->tcp_transitory_ns;
		case FIREWALL_TCP_CLOSING:
		case FIREWALL_TCP_CLOSED:
			break;
		}
		return config->tcp_closing_ns;
	case ONVM_PROTO_UDP:
	case ONVM_PROTO_UDPLITE:
		return connection->has_reply ? config->udp_ns : config->udp_unreplied_ns;
	case ONVM_PROTO_ICMP:
	case ONVM_PROTO_ICMPV6:
		*gives_way = true;
		return config->icmp_ns;
	default:
		return config->other_ns;
	}
}

/* What counts as one source: an IPv4 address, or the /64 of an IPv6 one. */
static void
source_fill(uint8_t source[SOURCE_BYTES], const struct connection_key *key, bool initiator_is_high)
{
	const uint8_t *const end = initiator_is_high ? key->high : key->low;

	memset(source, 0, SOURCE_BYTES);
	memcpy(source, end, key->ip_version == 4 ? 4 : 8);
	source[SOURCE_BYTES - 1] = key->ip_version;
}

static uint32_t *
source_counter(struct firewall *firewall, const struct connection_key *key, bool initiator_is_high,
	       uint64_t now_ns)
{
	uint8_t source[SOURCE_BYTES];
	int32_t slot;

	source_fill(source, key, initiator_is_high);
	slot = onvm_flow_table_add(firewall->sources, source, now_ns);
	return slot < 0 ? NULL : onvm_flow_value(firewall->sources, slot);
}

/* Before a connection goes: its source has one less. */
static void
on_gone(void *arg, int32_t slot)
{
	struct firewall *const firewall = arg;
	const struct connection *const connection = onvm_flow_value(firewall->connections, slot);
	uint8_t source[SOURCE_BYTES];
	uint32_t *count;
	int32_t at;

	if (firewall->sources == NULL)
		return;
	source_fill(source, onvm_flow_table_key(firewall->connections, slot),
		    connection->initiator_is_high);
	at = onvm_flow_table_lookup(firewall->sources, source);
	if (at < 0)
		return;
	count = onvm_flow_value(firewall->sources, at);
	if (--*count == 0)
		onvm_flow_table_delete_slot(firewall->sources, at);
}

void
connection_forget(struct firewall *firewall, int32_t slot)
{
	on_gone(firewall, slot);
	onvm_flow_table_delete_slot(firewall->connections, slot);
}

int32_t
connection_check(struct firewall *firewall, int32_t slot, uint64_t now_ns)
{
	if (slot < 0)
		return slot;
	if (!onvm_flow_is_idle(firewall->connections, slot, now_ns, firewall->config.other_ns))
		return slot;
	connection_forget(firewall, slot);
	return -ENOENT;
}

int32_t
connection_find(struct firewall *firewall, const struct connection_key *key, uint64_t now_ns)
{
	const int32_t slot = onvm_flow_table_lookup(firewall->connections, key);

	return slot >= 0 && onvm_flow_is_idle(firewall->connections, slot, now_ns,
					      firewall->config.other_ns) ?
		       -ENOENT :
		       slot;
}

void
connection_use(struct firewall *firewall, int32_t slot, uint8_t protocol, uint64_t now_ns)
{
	struct onvm_flow_table *const table = firewall->connections;
	const struct connection *const connection = onvm_flow_value(table, slot);
	struct onvm_flow_slot *const times = onvm_flow_slot(table, slot);
	bool gives_way;

	times->idle_ns = idle_time(&firewall->config, protocol, connection, &gives_way);
	times->last_used_ns = now_ns;
	if (gives_way != onvm_flow_gives_way(table, slot))
		onvm_flow_table_set_evictable(table, slot, gives_way);
}

int
connection_count(struct firewall *firewall, int32_t slot)
{
	const struct connection *const connection = onvm_flow_value(firewall->connections, slot);
	uint32_t *count;

	if (firewall->sources == NULL)
		return 0;
	count = source_counter(firewall, onvm_flow_table_key(firewall->connections, slot),
			       connection->initiator_is_high, 0);
	if (count == NULL)
		return -ENOSPC;
	++*count;
	return 0;
}

int32_t
connection_add(struct firewall *firewall, const struct connection_key *key, bool initiator_is_high,
	       uint64_t now_ns)
{
	struct onvm_flow_table *const table = firewall->connections;
	struct connection *connection;
	int32_t slot;

	if (firewall->sources != NULL) {
		uint8_t source[SOURCE_BYTES];
		int32_t at;

		source_fill(source, key, initiator_is_high);
		at = onvm_flow_table_lookup(firewall->sources, source);
		if (at >= 0 && *(uint32_t *)onvm_flow_value(firewall->sources, at) >=
				       firewall->config.max_per_source)
			return -FIREWALL_DROP_SOURCE_LIMIT;
	}
	slot = onvm_flow_table_add(table, key, now_ns);
	if (slot == -ENOSPC && onvm_flow_table_evict(table, on_gone, firewall) == 0)
		slot = onvm_flow_table_add(table, key, now_ns);
	if (slot < 0)
		return -FIREWALL_DROP_TABLE_FULL;
	connection = onvm_flow_value(table, slot);
	connection->initiator_is_high = initiator_is_high;
	connection_count(firewall, slot);
	return slot;
}

uint32_t
connection_sweep(struct firewall *firewall, uint64_t now_ns)
{
	return onvm_flow_table_sweep(firewall->connections, now_ns, firewall->config.other_ns,
				     on_gone, firewall);
}

uint32_t
firewall_expire(struct firewall *firewall, uint64_t now_ns)
{
	const uint32_t part = firewall->config.max_connections / EXPIRE_CALLS + 1;

	if (firewall->connections == NULL)
		return 0;
	return onvm_flow_table_expire(firewall->connections, now_ns, firewall->config.other_ns,
				      part < EXPIRE_SLOTS_MAX ? part : EXPIRE_SLOTS_MAX, on_gone,
				      firewall);
}
