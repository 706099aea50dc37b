/* SPDX-License-Identifier: Apache-2.0 */
#include "tcp.h"

#define ACK_LAG 66000u /* an acknowledgement may be as old, however small the window is */
#define SCALE_MAX 14   /* RFC 7323 2.3 */
#define OPTION_END 0
#define OPTION_NONE 1
#define OPTION_SCALE 3

static inline bool
is_after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static inline uint32_t
later(uint32_t a, uint32_t b)
{
	return is_after(a, b) ? a : b;
}

static inline uint32_t
load_be32(const uint8_t *bytes)
{
	return (uint32_t)onvm_load_be16(bytes) << 16 | onvm_load_be16(bytes + 2);
}

static uint8_t
scale_read(const uint8_t *options, uint32_t nb)
{
	for (uint32_t at = 0; at < nb && options[at] != OPTION_END;) {
		if (options[at] == OPTION_NONE) {
			at++;
			continue;
		}
		if (at + 1 >= nb || options[at + 1] < 2 || at + options[at + 1] > nb)
			break;
		if (options[at] == OPTION_SCALE && options[at + 1] == 3)
			return options[at + 2] < SCALE_MAX ? options[at + 2] : SCALE_MAX;
		at += options[at + 1];
	}
	return TCP_NO_SCALE;
}

void
tcp_segment_read(const uint8_t *data, const struct onvm_headers *headers,
		 struct tcp_segment *segment)
{
	const uint8_t *const l4 = data + headers->l4_offset;
	const uint32_t offset = (l4[12] >> 4) * 4u;
	/* the header of a first fragment may go on in the next one */
	const uint32_t head = offset < headers->l4_length ? offset : headers->l4_length;

	segment->seq = load_be32(l4 + 4);
	segment->ack = load_be32(l4 + 8);
	segment->window = onvm_load_be16(l4 + 14);
	segment->flags = l4[13] & FIREWALL_TCP_FLAGS;
	segment->nb_bytes = headers->l4_length - head;
	segment->end = segment->seq + segment->nb_bytes + ((l4[13] & FIREWALL_TCP_SYN) != 0) +
		       ((l4[13] & FIREWALL_TCP_FIN) != 0);
	segment->scale = (l4[13] & FIREWALL_TCP_SYN) != 0 ? scale_read(l4 + 20, head - 20) :
							    TCP_NO_SCALE;
	segment->is_cut = headers->more_fragments;
}

static void
side_start(struct tcp_connection *tcp, int side, const struct tcp_segment *segment)
{
	struct tcp_side *const sender = &tcp->sides[side];

	sender->end = sender->max_end = segment->end;
	sender->max_window = segment->window != 0 ? segment->window : 1;
	tcp->scale[side] = segment->scale;
}

void
tcp_begin(struct tcp_connection *tcp, const struct tcp_segment *segment, bool is_liberal)
{
	tcp->scale[1] = TCP_NO_SCALE;
	tcp->is_liberal = is_liberal || segment->is_cut;
	side_start(tcp, 0, segment);
	if (tcp_is_open(segment->flags)) {
		tcp->state = FIREWALL_TCP_SYN_SENT;
		tcp->sides[1].acked = segment->seq + 1;
		return;
	}
	tcp->state = FIREWALL_TCP_PICKED_UP;
	tcp->is_liberal = true; /* how windows are scaled was said before */
	tcp->sides[0].acked = tcp->sides[1].end = tcp->sides[1].max_end = segment->ack;
	tcp->sides[1].acked = segment->seq;
	tcp->finished = (segment->flags & FIREWALL_TCP_FIN) != 0;
}

/* Does it acknowledge the SYN of the other end, and nothing beyond what that has sent? */
static bool
answers(const struct tcp_connection *tcp, const struct tcp_segment *segment, int side)
{
	const uint32_t first = tcp->sides[side].acked - 1;

	return segment->ack - first <= tcp->sides[1 - side].end - first;
}

static enum tcp_outcome
follow_syn(struct tcp_connection *tcp, const struct tcp_segment *segment, int side)
{
	struct tcp_side *const sender = &tcp->sides[side], *const receiver = &tcp->sides[1 - side];
	const bool is_again = segment->seq + 1 == receiver->acked;

	if (tcp->state == FIREWALL_TCP_CLOSING || tcp->state == FIREWALL_TCP_CLOSED)
		return TCP_RESTARTS;
	if (tcp->state == FIREWALL_TCP_SYN_SENT && side == 0) {
		if (!is_again)
			return TCP_RESTARTS;
		sender->end = later(segment->end, sender->end);
		return TCP_FOLLOWED;
	}
	if (tcp->state == FIREWALL_TCP_SYN_SENT) { /* both open at once (RFC 9293 3.5) */
		side_start(tcp, side, segment);
		receiver->acked = segment->seq + 1;
		tcp->state = FIREWALL_TCP_SYN_RECEIVED;
		return TCP_FOLLOWED;
	}
	if (side == 1 && !(tcp->state == FIREWALL_TCP_SYN_RECEIVED && is_again))
		return TCP_INVALID;
	return TCP_IGNORED;
}

static enum tcp_outcome
follow_synack(struct tcp_connection *tcp, const struct tcp_segment *segment, int side)
{
	struct tcp_side *const receiver = &tcp->sides[1 - side];

	switch ((enum firewall_tcp_state)tcp->state) {
	case FIREWALL_TCP_CLOSING:
	case FIREWALL_TCP_CLOSED:
	case FIREWALL_TCP_PICKED_UP:
		return TCP_INVALID;
	case FIREWALL_TCP_ESTABLISHED:
	case FIREWALL_TCP_HALF_CLOSED:
		return side == 1 ? TCP_IGNORED : TCP_INVALID;
	case FIREWALL_TCP_SYN_SENT:
	case FIREWALL_TCP_SYN_RECEIVED:
		break;
	}
	if ((side == 0 && tcp->state == FIREWALL_TCP_SYN_SENT) || !answers(tcp, segment, side))
		return TCP_INVALID;
	if (side == 0)
		return TCP_IGNORED;
	side_start(tcp, side, segment);
	receiver->acked = segment->seq + 1;
	receiver->max_end =
		later(segment->ack + (segment->window != 0 ? segment->window : 1), receiver->end);
	tcp->state = FIREWALL_TCP_SYN_RECEIVED;
	return TCP_FOLLOWED;
}

/* Compare a segment with the windows: what is too old is ignored. */
static enum tcp_outcome
place(const struct tcp_connection *tcp, const struct tcp_segment *segment, int side)
{
	const struct tcp_side *const sender = &tcp->sides[side];
	const struct tcp_side *const receiver = &tcp->sides[1 - side];
	const uint32_t lag = sender->max_window > ACK_LAG ? sender->max_window : ACK_LAG;
	const bool is_over = is_after(segment->seq, sender->max_end);
	uint32_t ack = segment->ack;
	bool acks_old;

	if ((segment->flags & FIREWALL_TCP_RST) != 0 &&
	    ((segment->flags & FIREWALL_TCP_ACK) == 0 || ack == 0))
		ack = receiver->end;
	acks_old = is_after(receiver->end - lag, ack);
	if (is_after(ack, receiver->end) ||
	    (is_over && (acks_old || segment->end - sender->max_end + 1 > receiver->max_window)))
		return TCP_INVALID;
	return acks_old || is_after(sender->end - receiver->max_window, segment->end) ?
		       TCP_IGNORED :
		       TCP_FOLLOWED;
}

static enum tcp_outcome
follow_reset(struct tcp_connection *tcp, const struct tcp_segment *segment, int side)
{
	const struct tcp_side *const sender = &tcp->sides[side];
	const struct tcp_side *const receiver = &tcp->sides[1 - side];
	const bool is_exact = segment->seq == receiver->acked || segment->seq == sender->end;
	enum tcp_outcome outcome;

	if (tcp->state == FIREWALL_TCP_SYN_SENT && side == 1) {
		if ((segment->flags & FIREWALL_TCP_ACK) == 0 || !answers(tcp, segment, side))
			return TCP_INVALID;
		tcp->state = FIREWALL_TCP_CLOSED;
		return TCP_FOLLOWED;
	}
	if (tcp->state == FIREWALL_TCP_SYN_SENT &&
	    !is_exact) /* does it answer an older connection? */
		return segment->seq == receiver->max_end &&
				       (segment->flags & FIREWALL_TCP_ACK) == 0 ?
			       TCP_IGNORED :
			       TCP_INVALID;
	if (sender->max_window == 0 || tcp->is_liberal)
		outcome = is_exact || tcp->is_liberal ? TCP_FOLLOWED : TCP_INVALID;
	else if (is_after(receiver->acked, segment->seq))
		outcome = TCP_INVALID;
	else
		outcome = place(tcp, segment, side);
	if (outcome != TCP_FOLLOWED)
		return outcome;
	if (!is_exact || tcp->state == FIREWALL_TCP_CLOSED)
		return TCP_IGNORED;
	tcp->state = FIREWALL_TCP_CLOSED;
	return TCP_FOLLOWED;
}

static enum tcp_outcome
follow_data(struct tcp_connection *tcp, const struct tcp_segment *segment, int side)
{
	struct tcp_side *const sender = &tcp->sides[side], *const receiver = &tcp->sides[1 - side];
	uint32_t window = segment->window;

	if (tcp->state == FIREWALL_TCP_SYN_SENT) {
		/* a host that knows an older connection answers a SYN so (RFC 5961 4) */
		if (side == 0 || segment->nb_bytes != 0 || (segment->flags & FIREWALL_TCP_FIN) != 0)
			return TCP_INVALID;
		sender->max_end = segment->ack;
		return TCP_IGNORED;
	}
	if (tcp->state == FIREWALL_TCP_SYN_RECEIVED && side == 0 && !answers(tcp, segment, side))
		return TCP_INVALID;
	if (tcp->state == FIREWALL_TCP_PICKED_UP && side == 1) {
		side_start(tcp, side, segment);
		tcp->state = FIREWALL_TCP_ESTABLISHED;
	} else if (!tcp->is_liberal) {
		const enum tcp_outcome outcome = place(tcp, segment, side);

		if (outcome != TCP_FOLLOWED)
			return outcome;
	}
	if (tcp->state == FIREWALL_TCP_CLOSED)
		return TCP_IGNORED;
	tcp->is_liberal |= segment->is_cut;
	if (tcp->scale[0] != TCP_NO_SCALE && tcp->scale[1] != TCP_NO_SCALE)
		window <<= tcp->scale[side];
	if (window > sender->max_window)
		sender->max_window = window;
	if (is_after(segment->end, sender->max_end)) /* the window was larger than we know */
		receiver->max_window += segment->end - sender->max_end;
	sender->end = later(segment->end, sender->end);
	sender->acked = later(segment->ack, sender->acked);
	receiver->max_end = later(segment->ack + (window != 0 ? window : 1), receiver->max_end);
	if (tcp->state == FIREWALL_TCP_SYN_RECEIVED && side == 0)
		tcp->state = FIREWALL_TCP_ESTABLISHED;
	if ((segment->flags & FIREWALL_TCP_FIN) != 0)
		tcp->finished |= (uint8_t)(1 << side) & 3;
	if (tcp->finished == 3)
		tcp->state = FIREWALL_TCP_CLOSING;
	else if (tcp->finished != 0 && tcp->state == FIREWALL_TCP_ESTABLISHED)
		tcp->state = FIREWALL_TCP_HALF_CLOSED;
	return TCP_FOLLOWED;
}

enum tcp_outcome
tcp_follow(struct tcp_connection *tcp, const struct tcp_segment *segment, int side)
{
	if ((segment->flags & FIREWALL_TCP_RST) != 0)
		return follow_reset(tcp, segment, side);
	if ((segment->flags & FIREWALL_TCP_SYN) == 0)
		return follow_data(tcp, segment, side);
	if ((segment->flags & FIREWALL_TCP_ACK) != 0)
		return follow_synack(tcp, segment, side);
	return follow_syn(tcp, segment, side);
}
