/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Connections on their way to another instance of the load balancer. They stay with their backends,
 * whatever the other's VIPs have become.
 */

#include "lb.h"

#include <errno.h>
#include <string.h>

uint32_t
lb_nb_connections(const struct lb *lb)
{
	return onvm_flow_table_count(lb->connections) / 2;
}

uint32_t
lb_save(struct lb *lb, struct lb_saved *saved, uint32_t nb, uint64_t now_ns)
{
	int32_t slot = onvm_flow_table_next(lb->connections, 0);
	uint32_t nb_saved = 0;

	for (; slot >= 0 && nb_saved < nb; slot = onvm_flow_table_next(lb->connections, slot + 1)) {
		const struct lb_entry *entry = onvm_flow_table_value(lb->connections, slot);
		const uint64_t used_ns = onvm_flow_table_used_ns(lb->connections, slot);
		struct lb_saved *one;

		if (entry->is_reply)
			continue;
		one = &saved[nb_saved++];
		memset(one, 0, sizeof(*one));
		memcpy(&one->key, onvm_flow_table_key(lb->connections, slot), sizeof(one->key));
		memcpy(&one->reply, onvm_flow_table_key(lb->connections, entry->partner),
		       sizeof(one->reply));
		one->tcp_state = entry->tcp_state;
		one->age_ns = now_ns > used_ns ? now_ns - used_ns : 0;
	}
	return nb_saved;
}

int
lb_restore(struct lb *lb, const struct lb_saved *saved, uint32_t nb, uint64_t now_ns)
{
	if (nb > lb->config.max_connections ||
	    lb_nb_connections(lb) > lb->config.max_connections - nb)
		return -ENOSPC;
	for (uint32_t i = 0; i < nb; i++) {
		const uint64_t used_ns = now_ns > saved[i].age_ns ? now_ns - saved[i].age_ns : 0;

		/* What is known here, too, is newer. */
		if (onvm_flow_table_lookup(lb->connections, &saved[i].key) >= 0 ||
		    onvm_flow_table_lookup(lb->connections, &saved[i].reply) >= 0)
			continue;
		(void)lb_connection_add(lb, &saved[i].key, &saved[i].reply, saved[i].tcp_state,
					used_ns);
	}
	return 0;
}
