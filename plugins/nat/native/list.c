/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What operators see and remove: between bursts, a few entries in each call.
 */

#include "nat.h"

uint32_t
nat_list_sessions(struct nat *nat, int32_t *at, struct nat_saved *saved, uint32_t nb,
		  uint64_t now_ns)
{
	int32_t slot = onvm_flow_table_next(nat->sessions, *at);
	uint32_t nb_listed = 0;

	for (; slot >= 0 && nb_listed < nb; slot = onvm_flow_table_next(nat->sessions, slot + 1))
		if (!nat_session_has_expired(nat, slot, now_ns))
			nat_session_save(nat, slot, &saved[nb_listed++], now_ns);
	*at = slot;
	return nb_listed;
}

uint32_t
nat_list_mappings(struct nat *nat, int32_t *at, struct nat_mapping *mappings, uint32_t nb)
{
	int32_t slot = onvm_flow_table_next(nat->mappings, *at);
	uint32_t nb_listed = 0;

	for (; slot >= 0 && nb_listed < nb; slot = onvm_flow_table_next(nat->mappings, slot + 1))
		mappings[nb_listed++] =
			*(const struct nat_mapping *)onvm_flow_value(nat->mappings, slot);
	*at = slot;
	return nb_listed;
}

bool
nat_kill_session(struct nat *nat, const struct nat_session_key *key, uint64_t now_ns)
{
	const int32_t slot = onvm_flow_table_lookup(nat->sessions, key);

	if (slot < 0)
		return false;
	nat->has_pending = true;
	nat_session_close(nat, slot, now_ns);
	return true;
}

bool
nat_kill_mapping(struct nat *nat, const struct nat_endpoint *inside, uint64_t now_ns)
{
	const int32_t mapping = onvm_flow_table_lookup(nat->mappings, inside);
	int32_t slot = onvm_flow_table_next(nat->sessions, 0);

	if (mapping < 0)
		return false;
	nat->has_pending = true;
	/* the mapping goes with the last of its sessions */
	for (; slot >= 0; slot = onvm_flow_table_next(nat->sessions, slot + 1)) {
		const struct nat_session *const session = onvm_flow_value(nat->sessions, slot);

		if (session->mapping == mapping)
			nat_session_close(nat, slot, now_ns);
	}
	return true;
}
