/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Connections on their way to another instance of the load balancer. They stay with their backends,
 * whatever the other's VIPs have become; those of UDP end if their backend is none there.
 */

#include "lb.h"

#include <errno.h>
#include <string.h>

static void
connection_save(struct lb *lb, int32_t slot, struct lb_saved *saved, uint64_t now_ns)
{
	const struct lb_entry *const entry = onvm_flow_value(lb->connections, slot);

	memset(saved, 0, sizeof(*saved));
	memcpy(&saved->key, onvm_flow_table_key(lb->connections, slot), sizeof(saved->key));
	memcpy(&saved->reply, onvm_flow_table_key(lb->connections, entry->partner),
	       sizeof(saved->reply));
	saved->state = entry->state;
	saved->number = entry->number;
	saved->forward = entry->forward;
	saved->outer_version = entry->outer_version;
	memcpy(saved->address, entry->address, sizeof(saved->address));
	saved->age_ns = now_ns > entry->link.used_ns ? now_ns - entry->link.used_ns : 0;
}

uint32_t
lb_list(struct lb *lb, int32_t *at, struct lb_saved *saved, uint32_t nb, uint64_t now_ns)
{
	int32_t slot = onvm_flow_table_next(lb->connections, *at);
	uint32_t nb_listed = 0;

	for (; slot >= 0 && nb_listed < nb;
	     slot = onvm_flow_table_next(lb->connections, slot + 1)) {
		const struct lb_entry *const entry = onvm_flow_value(lb->connections, slot);

		if (!entry->is_reply && !lb_connection_has_expired(lb, slot, now_ns))
			connection_save(lb, slot, &saved[nb_listed++], now_ns);
	}
	*at = slot;
	return nb_listed;
}

bool
lb_kill(struct lb *lb, const struct lb_key *key)
{
	const int32_t slot = onvm_flow_table_lookup(lb->connections, key);

	if (slot >= 0)
		lb_connection_close(lb, slot);
	return slot >= 0;
}

uint32_t
lb_save(struct lb *lb, struct lb_saved *saved, uint32_t nb, uint64_t now_ns)
{
	uint32_t nb_saved = 0;

	/* in the order of their last use, so that they lie in this order again */
	for (uint32_t life = 0; life < LB_LIVES; life++) {
		int32_t slot = lb->queues[life].first;

		for (; slot >= 0 && nb_saved < nb;
		     slot = onvm_idle_link_of(lb->connections, slot)->after)
			connection_save(lb, slot, &saved[nb_saved++], now_ns);
	}
	return nb_saved;
}

int
lb_restore(struct lb *lb, const struct lb_saved *saved, uint32_t nb, uint64_t now_ns)
{
	if (nb > lb->config.max_connections ||
	    lb_nb_connections(lb) > lb->config.max_connections - nb)
		return -ENOSPC;
	lb->has_pending = true;
	for (uint32_t i = 0; i < nb; i++) {
		const uint64_t used_ns = now_ns > saved[i].age_ns ? now_ns - saved[i].age_ns : 0;
		struct lb_entry *entry;
		int32_t slot;

		/* A connection that is known here, too, is newer. */
		if (onvm_flow_table_lookup(lb->connections, &saved[i].key) >= 0 ||
		    onvm_flow_table_lookup(lb->connections, &saved[i].reply) >= 0)
			continue;
		slot = lb_connection_add(lb, &saved[i].key, &saved[i].reply, LB_NO_BACKEND,
					 saved[i].state, used_ns);
		if (slot < 0)
			continue;
		entry = onvm_flow_value(lb->connections, slot);
		entry->number = saved[i].number;
		if (saved[i].forward != LB_NAT)
			lb_connection_set_forward(lb, slot, saved[i].forward, saved[i].address,
						  saved[i].outer_version);
	}
	return lb_backends_assign(lb, NULL);
}
