/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_BFD_H_
#define _ONVM_BFD_H_

/**
 * @file
 * Bidirectional Forwarding Detection (RFC 5880): one session, without clock and socket.
 *
 * Asynchronous mode; no demand, echo or authentication. The caller feeds the session received
 * packets and asks it which packet to send.
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <onvm/checksum.h>

#define ONVM_BFD_PORT 4784 /**< multihop, RFC 5883 */
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
	uint32_t local, remote; /**< discriminators; remote 0: not known yet */
	uint32_t interval_us;	/**< between packets, both ways */
	uint8_t multiplier;	/**< packets that may be missed */
};

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

/** Take in a packet of the other end; @return false: it is none of this session, and discarded. */
static inline bool
onvm_bfd_receive(struct onvm_bfd *session, const uint8_t *data, uint32_t length)
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
	if (ours == 0 ? state > ONVM_BFD_DOWN : ours != session->local)
		return false;
	session->remote = theirs;
	if (state == ONVM_BFD_ADMIN_DOWN) {
		if (session->state > ONVM_BFD_DOWN)
			onvm_bfd_go_down(session, ONVM_BFD_NEIGHBOUR_DOWN);
		return true;
	}
	onvm_bfd_step(session, state);
	return true;
}

#endif /* _ONVM_BFD_H_ */
