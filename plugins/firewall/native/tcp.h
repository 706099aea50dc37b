/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _ONVM_FIREWALL_TCP_H_
#define _ONVM_FIREWALL_TCP_H_

/**
 * @file
 * States and windows of a TCP connection, as a middlebox sees them.
 *
 * A connection begins with a SYN and is established by the acknowledgement of the peer's SYN. Windows
 * are those of van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001), with window scaling
 * (RFC 7323). Resets and SYN inside a connection are treated as RFC 5961 asks. tcp_model.py says
 * which readings were chosen.
 *
 * Side 0 is that of the initiator.
 */

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include <onvm/parse.h>

enum firewall_tcp_flag {
	FIREWALL_TCP_FIN = 0x01,
	FIREWALL_TCP_SYN = 0x02,
	FIREWALL_TCP_RST = 0x04,
	FIREWALL_TCP_ACK = 0x10,
	FIREWALL_TCP_URG = 0x20,
	FIREWALL_TCP_FLAGS = 0x37, /**< all of these: PSH, ECE and CWR say nothing here */
};

enum firewall_tcp_state {
	FIREWALL_TCP_SYN_SENT,
	FIREWALL_TCP_SYN_RECEIVED,
	FIREWALL_TCP_ESTABLISHED,
	FIREWALL_TCP_HALF_CLOSED,
	FIREWALL_TCP_CLOSING, /**< both ends have finished */
	FIREWALL_TCP_CLOSED,  /**< reset */
	FIREWALL_TCP_PICKED_UP,
};

/** What becomes of a segment. */
enum tcp_outcome {
	TCP_FOLLOWED, /**< it passes, and the connection was used */
	TCP_IGNORED,  /**< it passes and changes nothing */
	TCP_INVALID,
	TCP_RESTARTS, /**< the rules decide again */
};

#define TCP_NO_SCALE 0xff

/** One end, as a sender. Sequence numbers are of host order. */
struct tcp_side {
	uint32_t end;	     /**< behind the last byte that it has sent */
	uint32_t max_end;    /**< what the other end's window allows */
	uint32_t max_window; /**< the largest it has offered; 0: it was not seen */
	uint32_t acked;	     /**< the highest number that it has acknowledged, or must */
};

struct tcp_connection {
	struct tcp_side sides[2];
	uint8_t scale[2]; /**< of the windows that it offers; TCP_NO_SCALE: its SYN had none */
	uint8_t state : 4;
	uint8_t finished : 2; /**< a bit per side */
	uint8_t is_liberal : 1;
	uint8_t pad;
};
static_assert(sizeof(struct tcp_connection) == 36, "it lies in snapshots");

struct tcp_segment {
	uint32_t seq, ack;
	uint32_t end; /**< the number behind it */
	uint32_t nb_bytes;
	uint16_t window; /**< not scaled */
	uint8_t flags;	 /**< enum firewall_tcp_flag */
	uint8_t scale;	 /**< that of a SYN */
	bool is_cut;	 /**< a first fragment: its length is not known */
};

/** Read the segment at a whole TCP header; also one of 64 KiB that a port has merged. */
void tcp_segment_read(const uint8_t *data, const struct onvm_headers *headers,
		      struct tcp_segment *segment);

/** Whether any sender sets these flags together. */
static inline bool
tcp_flags_are_valid(uint8_t flags)
{
	switch (flags & ~FIREWALL_TCP_URG) {
	case FIREWALL_TCP_SYN:
	case FIREWALL_TCP_ACK:
	case FIREWALL_TCP_FIN | FIREWALL_TCP_ACK:
		return true;
	case FIREWALL_TCP_SYN | FIREWALL_TCP_ACK:
	case FIREWALL_TCP_RST:
	case FIREWALL_TCP_RST | FIREWALL_TCP_ACK:
		return (flags & FIREWALL_TCP_URG) == 0;
	default:
		return false;
	}
}

/** Whether a segment begins a connection. */
static inline bool
tcp_is_open(uint8_t flags)
{
	return (flags & (FIREWALL_TCP_SYN | FIREWALL_TCP_ACK | FIREWALL_TCP_RST)) ==
	       FIREWALL_TCP_SYN;
}

/** Whether a full table may forget it. */
static inline bool
tcp_gives_way(const struct tcp_connection *tcp)
{
	return tcp->state != FIREWALL_TCP_ESTABLISHED && tcp->state != FIREWALL_TCP_HALF_CLOSED;
}

/** Fill a zeroed @p tcp from its first segment; one without SYN picks it up in midstream. */
void tcp_begin(struct tcp_connection *tcp, const struct tcp_segment *segment, bool is_liberal);
/** Take a segment of @p side (0 or 1) into account. */
enum tcp_outcome
tcp_follow(struct tcp_connection *tcp, const struct tcp_segment *segment, int side);

#endif /* _ONVM_FIREWALL_TCP_H_ */
