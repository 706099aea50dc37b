/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_BFD_H_
#define _ONVM_BFD_H_

/**
 * @file
 * Bidirectional Forwarding Detection (RFC 5880): one session, without clock and socket.
 *
 * Asynchronous mode; no demand or echo. The caller feeds the session received packets and asks it
 * which packet to send. Authentication is the caller's: probe_packet.h.
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <onvm/checksum.h>

#define ONVM_BFD_PORT 3784 /**< single hop (RFC 5881), within the tunnel (RFC 8971) */
#define ONVM_BFD_BYTES 24
#define ONVM_BFD_VERSION 1

enum onvm_bfd_state {
	ONVM_BFD_ADMIN_DOWN = 0,
	ONVM_BFD_DOWN = 1,
	ONVM_BFD_INIT = 2,
	ONVM_BFD_UP = 3,
};

enum onvm_bfd_diagnostic {
	ONVM_BFD_NONE = 0,
	ONVM_BFD_EXPIRED = 1,	     /**< nothing came for the detection time */
	ONVM_BFD_NEIGHBOUR_DOWN = 3, /**< the other end says that the session is down */
	ONVM_BFD_CLOSED = 7,	     /**< administratively down */
};

struct onvm_bfd {
	enum onvm_bfd_state state;
	enum onvm_bfd_diagnostic diagnostic;
	uint32_t local, remote;		   /**< discriminators; remote 0: not known yet */
	uint32_t interval_us;		   /**< between packets, as we want it both ways */
	uint8_t multiplier;		   /**< packets that may be missed */
	uint32_t their_tx_us, their_rx_us; /**< as they want it; 0: not known yet */
	uint8_t their_multiplier;
};

/** Time between the packets that we send: neither end wants less (section 6.8.7). */
static inline uint32_t
onvm_bfd_tx_us(const struct onvm_bfd *session)
{
	return session->their_rx_us > session->interval_us ? session->their_rx_us :
							     session->interval_us;
}

/** Silence after which the other end is down (section 6.8.4). */
static inline uint64_t
onvm_bfd_detect_us(const struct onvm_bfd *session)
{
	const uint64_t interval = session->their_tx_us > session->interval_us ?
					  session->their_tx_us :
					  session->interval_us;

	return interval *
	       (session->their_multiplier == 0 ? session->multiplier : session->their_multiplier);
}

/** Write the packet that says how the session is; ONVM_BFD_BYTES. */
static inline void
onvm_bfd_write(const struct onvm_bfd *session, uint8_t *data)
{
	data[0] = (uint8_t)(ONVM_BFD_VERSION << 5 | session->diagnostic);
	data[1] = (uint8_t)(session->state << 6);
	data[2] = session->multiplier;
	data[3] = ONVM_BFD_BYTES;
	onvm_store_be32(data + 4, session->local);
	onvm_store_be32(data + 8, session->remote);
	onvm_store_be32(data + 12, session->interval_us);
	onvm_store_be32(data + 16, session->interval_us);
	onvm_store_be32(data + 20, 0);
}

static inline void
onvm_bfd_go_down(struct onvm_bfd *session, enum onvm_bfd_diagnostic diagnostic)
{
	session->state = ONVM_BFD_DOWN;
	session->diagnostic = diagnostic;
	session->remote = 0;
}

/** The state machine of section 6.8.6. */
static inline void
onvm_bfd_step(struct onvm_bfd *session, enum onvm_bfd_state theirs)
{
	switch (session->state) {
	case ONVM_BFD_DOWN:
		if (theirs == ONVM_BFD_DOWN)
			session->state = ONVM_BFD_INIT;
		else if (theirs == ONVM_BFD_INIT)
			session->state = ONVM_BFD_UP;
		break;
	case ONVM_BFD_INIT:
		if (theirs == ONVM_BFD_INIT || theirs == ONVM_BFD_UP)
			session->state = ONVM_BFD_UP;
		break;
	case ONVM_BFD_UP:
		if (theirs == ONVM_BFD_DOWN)
			onvm_bfd_go_down(session, ONVM_BFD_NEIGHBOUR_DOWN);
		break;
	case ONVM_BFD_ADMIN_DOWN:
		break;
	}
	if (session->state == ONVM_BFD_UP)
		session->diagnostic = ONVM_BFD_NONE;
}

/**
 * Take in a packet of the other end.
 *
 * A packet that names no session of ours (discriminator 0) comes from an end that has just begun.
 * Any stranger can write one, so while the session is up it changes nothing, unless the packet is
 * known to be fresh: an end that has begun again is found out by its silence.
 *
 * @param is_fresh  the peer has made it just now: that has been proved
 * @return false: it is none of this session, and discarded
 */
static inline bool
onvm_bfd_receive(struct onvm_bfd *session, const uint8_t *data, uint32_t length, bool is_fresh)
{
	const uint32_t theirs = length < ONVM_BFD_BYTES ? 0 : onvm_load_be32(data + 4);
	const uint32_t ours = length < ONVM_BFD_BYTES ? 0 : onvm_load_be32(data + 8);
	enum onvm_bfd_state state;

	/* No authentication, no multipoint; a multiplier and a discriminator. */
	if (length < ONVM_BFD_BYTES || data[0] >> 5 != ONVM_BFD_VERSION ||
	    data[3] < ONVM_BFD_BYTES || data[3] > length || data[2] == 0 || theirs == 0 ||
	    (data[1] & 5) != 0)
		return false;
	state = (enum onvm_bfd_state)(data[1] >> 6);
	if (ours == 0 ? state > ONVM_BFD_DOWN || (session->state == ONVM_BFD_UP && !is_fresh) :
			ours != session->local)
		return false;
	session->remote = theirs;
	session->their_multiplier = data[2];
	session->their_tx_us = onvm_load_be32(data + 12);
	session->their_rx_us = onvm_load_be32(data + 16);
	if (state == ONVM_BFD_ADMIN_DOWN) {
		if (session->state > ONVM_BFD_DOWN)
			onvm_bfd_go_down(session, ONVM_BFD_NEIGHBOUR_DOWN);
		return true;
	}
	onvm_bfd_step(session, state);
	return true;
}

#endif /* _ONVM_BFD_H_ */
