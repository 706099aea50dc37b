/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_TCP_TRACK_H_
#define _ONVM_TCP_TRACK_H_

/**
 * @file
 * The state of a TCP connection, as far as a middlebox needs it to choose an idle time.
 *
 * A connection is established once both sides were seen, until one resets it or both have finished.
 * Everything else is transitory (RFC 5382 REQ-5). A reset makes it transitory; a later segment
 * brings it back, because resets are easily forged (RFC 7857 section 2.2). Sequence numbers are not
 * checked.
 */

#include <stdbool.h>
#include <stdint.h>

enum onvm_tcp_flag {
	ONVM_TCP_FIN = 0x01,
	ONVM_TCP_SYN = 0x02,
	ONVM_TCP_RST = 0x04,
	ONVM_TCP_ACK = 0x10,
};

/** Bits of the state byte: zero for a new connection. */
enum onvm_tcp_track {
	ONVM_TCP_TRACK_SEEN = 1, /**< by the initiator; << 1 by its peer */
	ONVM_TCP_TRACK_FIN = 4,	 /**< by the initiator; << 1 by its peer */
	ONVM_TCP_TRACK_RST = 16,
};

static inline bool
onvm_tcp_is_closed(uint8_t state)
{
	return (state & ONVM_TCP_TRACK_RST) != 0 ||
	       (state & 3 * ONVM_TCP_TRACK_FIN) == 3 * ONVM_TCP_TRACK_FIN;
}

static inline bool
onvm_tcp_is_established(uint8_t state)
{
	return (state & 3 * ONVM_TCP_TRACK_SEEN) == 3 * ONVM_TCP_TRACK_SEEN &&
	       !onvm_tcp_is_closed(state);
}

/** A first segment: it begins a connection, also where an old one has been. */
static inline bool
onvm_tcp_is_open(uint8_t flags)
{
	return (flags & (ONVM_TCP_SYN | ONVM_TCP_ACK | ONVM_TCP_RST)) == ONVM_TCP_SYN;
}

/** State after a segment with @p flags; @p from_peer: not from the initiator. */
static inline uint8_t
onvm_tcp_track(uint8_t state, uint8_t flags, bool from_peer)
{
	if (onvm_tcp_is_open(flags) && onvm_tcp_is_closed(state))
		state = 0;
	state &= (uint8_t)~ONVM_TCP_TRACK_RST;
	state |= (uint8_t)(ONVM_TCP_TRACK_SEEN << from_peer);
	if ((flags & ONVM_TCP_FIN) != 0)
		state |= (uint8_t)(ONVM_TCP_TRACK_FIN << from_peer);
	if ((flags & ONVM_TCP_RST) != 0)
		state |= ONVM_TCP_TRACK_RST;
	return state;
}

#endif /* _ONVM_TCP_TRACK_H_ */
