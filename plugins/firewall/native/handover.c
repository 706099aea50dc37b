/* SPDX-License-Identifier: Apache-2.0 */

/* Connections on their way to another instance of the firewall. */

#include "firewall.h"

#include <errno.h>
#include <string.h>

#include "connection.h"

uint32_t
firewall_nb_connections(const struct firewall *firewall)
{
	return firewall->connections == NULL ? 0 : onvm_flow_table_count(firewall->connections);
}

static void
connection_save(struct firewall *firewall, int32_t slot, struct firewall_saved *saved,
		uint64_t now_ns)
{
	struct onvm_flow_table *const table = firewall->connections;
	const uint64_t used_ns = onvm_flow_table_used_ns(table, slot);

	memcpy(&saved->key, onvm_flow_table_key(table, slot), sizeof(saved->key));
	memcpy(&saved->connection, onvm_flow_value(table, slot), sizeof(saved->connection));
	saved->age_ns = now_ns > used_ns ? now_ns - used_ns : 0;
}

uint32_t
firewall_save(struct firewall *firewall, struct firewall_saved *saved, uint32_t nb, uint64_t now_ns)
{
	struct onvm_flow_table *const table = firewall->connections;
	int32_t slot = table == NULL ? -1 : onvm_flow_table_next(table, 0);
	uint32_t nb_saved = 0;

	for (; slot >= 0 && nb_saved < nb; slot = onvm_flow_table_next(table, slot + 1))
		connection_save(firewall, slot, &saved[nb_saved++], now_ns);
	return nb_saved;
}

uint32_t
firewall_list(struct firewall *firewall, int32_t *at, struct firewall_saved *saved, uint32_t nb,
	      uint64_t now_ns)
{
	struct onvm_flow_table *const table = firewall->connections;
	int32_t slot = table == NULL ? -1 : onvm_flow_table_next(table, *at);
	uint32_t nb_listed = 0;

	for (; slot >= 0 && nb_listed < nb; slot = onvm_flow_table_next(table, slot + 1))
		if (!onvm_flow_is_idle(table, slot, now_ns, firewall->config.other_ns))
			connection_save(firewall, slot, &saved[nb_listed++], now_ns);
	*at = slot;
	return nb_listed;
}

bool
firewall_kill(struct firewall *firewall, const struct connection_key *key)
{
	const int32_t slot = firewall->connections == NULL ?
				     -1 :
				     onvm_flow_table_lookup(firewall->connections, key);

	if (slot >= 0)
		connection_forget(firewall, slot);
	return slot >= 0;
}

int
firewall_restore(struct firewall *firewall, const struct firewall_saved *saved, uint32_t nb,
		 uint64_t now_ns)
{
	struct onvm_flow_table *const table = firewall->connections;
	const uint32_t max = firewall->config.max_connections;

	if (table == NULL)
		return 0; /* nothing that could be dropped depends on connections */
	if (nb > max || onvm_flow_table_count(table) > max - nb)
		return -ENOSPC;
	for (uint32_t i = 0; i < nb; i++) {
		const uint64_t used_ns = now_ns > saved[i].age_ns ? now_ns - saved[i].age_ns : 0;
		int32_t slot;

		if (onvm_flow_table_lookup(table, &saved[i].key) >= 0)
			continue; /* it is known here, too, and newer */
		slot = onvm_flow_table_add(table, &saved[i].key, used_ns);
		if (slot < 0)
			continue;
		memcpy(onvm_flow_value(table, slot), &saved[i].connection,
		       sizeof(saved[i].connection));
		connection_count(firewall, slot);
		connection_use(firewall, slot, saved[i].key.protocol, used_ns);
	}
	return 0;
}
