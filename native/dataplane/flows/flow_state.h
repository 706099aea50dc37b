/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FLOW_STATE_H_
#define _ONVM_FLOW_STATE_H_

/**
 * @file
 * The state of a flow, from packets that have come through all NFs of their chain.
 *
 * What an NF has dropped says nothing: a forged reset that the firewall knows as such closes nothing
 * here either. So a packet is looked at twice. When it comes in, its signs and what is known of its
 * flow tell what it would change: mostly nothing. When it leaves, that is noted.
 *
 * A TCP connection counts as established when packets other than SYNs have come through both ways.
 * The answer to a SYN is a SYN, so SYNs alone make opening flows and no others.
 *
 * Threads: workers, any number for one flow. Each bit says by itself what it says, and all that is
 * lost when two workers meet is a class for a moment.
 */

#include "flows/flow_table.h"

/** What a packet that leaves tells of its flow. */
enum onvm_flow_note {
	ONVM_NOTE_PACKET = 0,
	ONVM_NOTE_SYN = 1, /**< also for packets that tell nothing */
	ONVM_NOTE_FIN = 2,
	ONVM_NOTE_RST = 3,
};

/** Flags with which most packets of a flow tell nothing new; @p learns: of onvm_path. */
static inline uint8_t
onvm_flow_usual_flags(bool learns)
{
	return learns ? ONVM_FLOW_LEARNED | ONVM_FLOW_SEEN : ONVM_FLOW_SEEN;
}

/** Whether a packet with @p signs of a flow with @p flags may tell something: quick, and often right. */
static inline bool
onvm_flow_may_tell(uint8_t flags, uint8_t signs, uint8_t usual)
{
	const uint8_t looked_at = ONVM_FLOW_LEARNED | ONVM_FLOW_SEEN | ONVM_FLOW_CLOSED;

	return (((flags & looked_at) ^ usual) | signs) != 0;
}

/** Whether it tells something when it leaves. */
static inline bool
onvm_flow_tells(uint8_t flags, uint8_t signs, uint8_t usual)
{
	return (flags & (usual | ONVM_FLOW_CLOSED)) != usual || (signs & ONVM_SIGNS_TCP) != 0;
}

static inline enum onvm_flow_note
onvm_flow_note_of(uint8_t signs)
{
	if ((signs & (ONVM_SIGN_SYN | ONVM_SIGN_ERROR)) != 0)
		return ONVM_NOTE_SYN;
	if ((signs & ONVM_SIGN_RST) != 0)
		return ONVM_NOTE_RST;
	return (signs & ONVM_SIGN_FIN) != 0 ? ONVM_NOTE_FIN : ONVM_NOTE_PACKET;
}

/** Note what a packet of the flow at @p position has told. */
void onvm_flow_note(struct onvm_flow_table *table, uint32_t position, enum onvm_flow_note note);
/** The same of a packet of its reverse, which is not in the table. */
void
onvm_flow_note_answer(struct onvm_flow_table *table, uint32_t position, enum onvm_flow_note note);

#endif /* _ONVM_FLOW_STATE_H_ */
