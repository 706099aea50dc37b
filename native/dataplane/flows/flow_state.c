/* SPDX-License-Identifier: Apache-2.0 */
#include "flows/flow_state.h"

#include "packet_memory.h"

/** Position of the other direction, or ONVM_FLOW_NONE. */
static uint32_t
other_of(const struct onvm_flow_table *table, uint32_t position)
{
	const uint32_t peer = __atomic_load_n(&table->peers[position], __ATOMIC_RELAXED);

	if (peer == ONVM_FLOW_NONE ||
	    __atomic_load_n(&table->peers[peer], __ATOMIC_RELAXED) != position)
		return ONVM_FLOW_NONE;
	return peer;
}

static uint8_t
flags_at(const struct onvm_flow_table *table, uint32_t position)
{
	return position == ONVM_FLOW_NONE ?
		       0 :
		       __atomic_load_n(&table->flows[position].flags, __ATOMIC_RELAXED);
}

/** Set and clear flags, and let ageing look at the flow again. */
static void
change(struct onvm_flow_table *table, uint32_t position, uint8_t set, uint8_t cleared)
{
	struct onvm_flow *flow;

	if (position == ONVM_FLOW_NONE)
		return;
	flow = &table->flows[position];
	if (cleared != 0)
		__atomic_and_fetch(&flow->flags, (uint8_t)~cleared, __ATOMIC_RELAXED);
	if (set != 0)
		__atomic_or_fetch(&flow->flags, set, __ATOMIC_RELAXED);
	onvm_flow_touch(flow, __atomic_load_n(&table->now, __ATOMIC_RELAXED));
}

void
onvm_flow_note(struct onvm_flow_table *table, uint32_t position, enum onvm_flow_note note)
{
	const uint32_t other = other_of(table, position);
	const uint8_t known = flags_at(table, position);
	const uint8_t state = ONVM_FLOW_SEEN | ONVM_FLOW_ANSWERED | ONVM_FLOW_FIN |
			      ONVM_FLOW_CLOSED;
	bool both_fin;

	switch (note) {
	case ONVM_NOTE_SYN:
		/* A new connection; NFs may give it another translation, so it is learned again. */
		if ((known & ONVM_FLOW_CLOSED) != 0) {
			change(table, position, 0, state | ONVM_FLOW_LEARNED);
			change(table, other, 0, state);
		}
		break;
	case ONVM_NOTE_RST:
		change(table, position, ONVM_FLOW_CLOSED, 0);
		change(table, other, ONVM_FLOW_CLOSED, 0);
		break;
	case ONVM_NOTE_FIN:
		both_fin = (flags_at(table, other) & ONVM_FLOW_FIN) != 0;
		change(table, position,
		       (uint8_t)(ONVM_FLOW_SEEN | ONVM_FLOW_FIN |
				 (both_fin ? ONVM_FLOW_CLOSED : 0)),
		       0);
		change(table, other,
		       (uint8_t)(ONVM_FLOW_ANSWERED | (both_fin ? ONVM_FLOW_CLOSED : 0)), 0);
		break;
	case ONVM_NOTE_PACKET:
		/* What goes on after a reset was not reset: NFs may hold it for longer (RFC 7857 2). */
		both_fin = (known & flags_at(table, other) & ONVM_FLOW_FIN) != 0;
		change(table, position, ONVM_FLOW_SEEN, both_fin ? 0 : ONVM_FLOW_CLOSED);
		change(table, other, ONVM_FLOW_ANSWERED, both_fin ? 0 : ONVM_FLOW_CLOSED);
		break;
	}
}

void
onvm_flow_note_answer(struct onvm_flow_table *table, uint32_t position, enum onvm_flow_note note)
{
	const bool has_fin = (flags_at(table, position) & ONVM_FLOW_FIN) != 0;

	switch (note) {
	case ONVM_NOTE_SYN:
		change(table, position, 0, 0);
		break;
	case ONVM_NOTE_RST:
		change(table, position, ONVM_FLOW_CLOSED, 0);
		break;
	case ONVM_NOTE_FIN:
		change(table, position,
		       (uint8_t)(ONVM_FLOW_ANSWERED | (has_fin ? ONVM_FLOW_CLOSED : 0)), 0);
		break;
	case ONVM_NOTE_PACKET:
		change(table, position, ONVM_FLOW_ANSWERED, has_fin ? 0 : ONVM_FLOW_CLOSED);
		break;
	}
}
