# SPDX-License-Identifier: Apache-2.0
"""TCP connections in plain Python: states and windows, as a middlebox sees them.

Readings chosen:

* A connection begins with a SYN. It is established when the initiator has acknowledged the SYN of
  its peer, and no earlier. An acknowledgement of exactly the initial number is let through, too: a
  stranger who guesses has two chances in 2^32 instead of one.
* Windows are those of Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001),
  which RFC 9293's receiver would accept, with window scaling (RFC 7323). As in Linux, a segment may
  go beyond its window by as much as the window is: some senders do when a window shrinks. A segment
  that is too old passes and changes nothing: its receiver answers it. An acknowledgement of what
  was not sent is invalid; one may lag behind by `_ACK_LAG` bytes, however small the window is.
* A reset ends a connection at exactly the number that its receiver expects (RFC 5961 section 3):
  what the receiver has acknowledged last, or what the sender would send next. Another one inside
  the window passes, so that the receiver can challenge it, and changes nothing. An acknowledgement
  in it must be known, except 0, which some hosts send.
* A SYN of the initiator inside a connection passes and changes nothing (RFC 5961 section 4). A SYN
  of the peer is invalid there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum

from onvm_sdk.headers import Headers

__all__ = ["Outcome", "Segment", "State", "TcpConnection", "is_open", "is_valid"]

_FIN, _SYN, _RST, _ACK, _URG = 1, 2, 4, 16, 32
_VALID = {
    _SYN, _SYN | _URG, _SYN | _ACK, _RST, _RST | _ACK,
    _FIN | _ACK, _FIN | _ACK | _URG, _ACK, _ACK | _URG,
}  # fmt: skip
_ACK_LAG = 66_000
_SCALE_MAX = 14


class State(IntEnum):
    """``enum firewall_tcp_state``."""

    SYN_SENT = 0
    SYN_RECEIVED = 1
    ESTABLISHED = 2
    HALF_CLOSED = 3
    CLOSING = 4
    CLOSED = 5
    PICKED_UP = 6


class Outcome(Enum):
    """What becomes of a segment."""

    FOLLOWED = "followed"  # and the connection was used
    IGNORED = "ignored"  # it passes and changes nothing
    INVALID = "invalid"
    RESTARTS = "restarts"  # the rules decide again


@dataclass
class Segment:
    """One segment; the window is not scaled."""

    flags: int
    seq: int
    ack: int
    window: int
    length: int
    scale: int | None
    is_cut: bool  # a first fragment: the length is not known

    @classmethod
    def of(cls, frame: bytes, h: Headers) -> Segment:
        """Read the segment of a frame with a whole TCP header."""
        l4 = frame[h.l4_offset : h.l4_offset + h.l4_length]
        head = (l4[12] >> 4) * 4
        return cls(
            l4[13] & 63 & ~8,
            int.from_bytes(l4[4:8], "big"),
            int.from_bytes(l4[8:12], "big"),
            int.from_bytes(l4[14:16], "big"),
            max(0, len(l4) - head),
            _scale(l4[20:head]) if l4[13] & _SYN else None,
            h.more_fragments,
        )

    @property
    def end(self) -> int:
        """The number behind the segment."""
        return _wrap(self.seq + self.length + bool(self.flags & _SYN) + bool(self.flags & _FIN))


def _scale(options: bytes) -> int | None:
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2 or at + options[at + 1] > len(options):
            return None
        if options[at] == 3 and options[at + 1] == 3:
            return min(options[at + 2], _SCALE_MAX)
        at += options[at + 1]
    return None


def _wrap(number: int) -> int:
    return number & 0xFFFF_FFFF


def _after(a: int, b: int) -> bool:
    """Whether sequence number `a` is behind `b`."""
    return 0 < _wrap(a - b) < 1 << 31


def _later(a: int, b: int) -> int:
    return a if _after(a, b) else b


@dataclass
class _Side:
    """One end of a connection, as a sender."""

    end: int = 0  # behind the last byte that it has sent
    max_end: int = 0  # what the other end's window allows
    max_window: int = 0  # the largest it has offered; 0: it was not seen
    acked: int = 0  # the highest number that it has acknowledged, or must
    scale: int | None = None  # None: its SYN offered none

    def start(self, segment: Segment) -> None:
        self.end = self.max_end = segment.end
        self.max_window = max(segment.window, 1)
        self.scale = segment.scale


def is_valid(flags: int) -> bool:
    """Whether any sender sets these flags together."""
    return flags in _VALID


def is_open(flags: int) -> bool:
    """Whether a segment begins a connection."""
    return flags & (_SYN | _ACK | _RST) == _SYN


@dataclass
class TcpConnection:
    """A connection; side 0 is the initiator's."""

    is_liberal: bool
    state: State = State.SYN_SENT
    finished: set[int] = field(default_factory=set)
    sides: tuple[_Side, _Side] = field(default_factory=lambda: (_Side(), _Side()))

    @classmethod
    def begin(cls, segment: Segment, is_liberal: bool) -> TcpConnection:
        """Make the connection of a first segment."""
        made = cls(is_liberal or segment.is_cut)
        near, far = made.sides
        if is_open(segment.flags):
            near.start(segment)
            far.acked = _wrap(segment.seq + 1)
            return made
        made.state, made.is_liberal = State.PICKED_UP, True
        near.start(segment)
        near.acked = far.end = far.max_end = segment.ack
        far.acked = segment.seq
        if segment.flags & _FIN:
            made.finished.add(0)
        return made

    @property
    def may_give_way(self) -> bool:
        """Whether a full table may forget it."""
        return self.state not in (State.ESTABLISHED, State.HALF_CLOSED)

    def follow(self, segment: Segment, side: int) -> Outcome:
        """Take a segment of one side into account."""
        if segment.flags & _RST:
            return self._reset(segment, side)
        if segment.flags & _SYN:
            return self._synack(segment, side) if segment.flags & _ACK else self._syn(segment, side)
        return self._data(segment, side)

    def _syn(self, segment: Segment, side: int) -> Outcome:
        sender, receiver = self.sides[side], self.sides[1 - side]
        is_again = _wrap(segment.seq + 1) == receiver.acked
        if self.state in (State.CLOSING, State.CLOSED):
            return Outcome.RESTARTS
        if self.state is State.SYN_SENT and side == 0:
            if not is_again:
                return Outcome.RESTARTS
            sender.end = _later(segment.end, sender.end)
            return Outcome.FOLLOWED
        if self.state is State.SYN_SENT:  # both open at once (RFC 9293 section 3.5)
            sender.start(segment)
            receiver.acked = _wrap(segment.seq + 1)
            self.state = State.SYN_RECEIVED
            return Outcome.FOLLOWED
        if side == 1 and not (self.state is State.SYN_RECEIVED and is_again):
            return Outcome.INVALID
        return Outcome.IGNORED

    def _synack(self, segment: Segment, side: int) -> Outcome:
        sender, receiver = self.sides[side], self.sides[1 - side]
        if self.state in (State.CLOSING, State.CLOSED, State.PICKED_UP):
            return Outcome.INVALID
        if self.state in (State.ESTABLISHED, State.HALF_CLOSED):
            return Outcome.IGNORED if side == 1 else Outcome.INVALID
        if side == 0:
            if self.state is State.SYN_SENT or not self._answers(segment, side):
                return Outcome.INVALID
            return Outcome.IGNORED
        if not self._answers(segment, side):
            return Outcome.INVALID
        sender.start(segment)
        receiver.acked = _wrap(segment.seq + 1)
        receiver.max_end = _later(_wrap(segment.ack + max(segment.window, 1)), receiver.end)
        self.state = State.SYN_RECEIVED
        return Outcome.FOLLOWED

    def _answers(self, segment: Segment, side: int) -> bool:
        """Whether it acknowledges the SYN of the other end, and nothing beyond what that sent."""
        first = _wrap(self.sides[side].acked - 1)
        return _wrap(segment.ack - first) <= _wrap(self.sides[1 - side].end - first)

    def _reset(self, segment: Segment, side: int) -> Outcome:
        sender, receiver = self.sides[side], self.sides[1 - side]
        if self.state is State.SYN_SENT and side == 1:
            if not segment.flags & _ACK or not self._answers(segment, side):
                return Outcome.INVALID
            self.state = State.CLOSED
            return Outcome.FOLLOWED
        is_exact = segment.seq in (receiver.acked, sender.end)
        if self.state is State.SYN_SENT and not is_exact:
            # It answers what an older connection has said.
            is_answer = segment.seq == receiver.max_end and not segment.flags & _ACK
            return Outcome.IGNORED if is_answer else Outcome.INVALID
        if sender.max_window == 0 or self.is_liberal:
            place = Outcome.FOLLOWED if is_exact or self.is_liberal else Outcome.INVALID
        elif _after(receiver.acked, segment.seq):
            place = Outcome.INVALID
        else:
            place = self._place(segment, side)
        if place is not Outcome.FOLLOWED:
            return place
        if not is_exact or self.state is State.CLOSED:
            return Outcome.IGNORED
        self.state = State.CLOSED
        return Outcome.FOLLOWED

    def _data(self, segment: Segment, side: int) -> Outcome:
        sender, receiver = self.sides[side], self.sides[1 - side]
        if self.state is State.SYN_SENT:
            # A host that knows an older connection answers a SYN so (RFC 5961 section 4).
            if side == 0 or segment.length or segment.flags & _FIN:
                return Outcome.INVALID
            sender.max_end = segment.ack
            return Outcome.IGNORED
        if self.state is State.SYN_RECEIVED and side == 0 and not self._answers(segment, side):
            return Outcome.INVALID
        if self.state is State.PICKED_UP and side == 1:
            sender.start(segment)
            self.state = State.ESTABLISHED
        elif not self.is_liberal:
            place = self._place(segment, side)
            if place is not Outcome.FOLLOWED:
                return place
        if self.state is State.CLOSED:
            return Outcome.IGNORED
        self.is_liberal |= segment.is_cut
        scales = sender.scale is not None and receiver.scale is not None
        window = segment.window << (sender.scale or 0) * scales
        sender.max_window = max(sender.max_window, window)
        if _after(segment.end, sender.max_end):  # the window was larger than we know
            receiver.max_window += _wrap(segment.end - sender.max_end)
        sender.end = _later(segment.end, sender.end)
        sender.acked = _later(segment.ack, sender.acked)
        receiver.max_end = _later(_wrap(segment.ack + max(window, 1)), receiver.max_end)
        if self.state is State.SYN_RECEIVED and side == 0:
            self.state = State.ESTABLISHED
        if segment.flags & _FIN:
            self.finished.add(side)
        if len(self.finished) == 2:
            self.state = State.CLOSING
        elif self.finished and self.state is State.ESTABLISHED:
            self.state = State.HALF_CLOSED
        return Outcome.FOLLOWED

    def _place(self, segment: Segment, side: int) -> Outcome:
        """Compare a segment with the windows: what is too old is ignored."""
        sender, receiver = self.sides[side], self.sides[1 - side]
        says_nothing = segment.flags & _RST and not (segment.flags & _ACK and segment.ack)
        ack = receiver.end if says_nothing else segment.ack
        is_over = _after(segment.seq, sender.max_end)
        overshoot = _wrap(segment.end - sender.max_end + 1)
        acks_old = _after(_wrap(receiver.end - max(sender.max_window, _ACK_LAG)), ack)
        is_old = _after(_wrap(sender.end - receiver.max_window), segment.end)
        if _after(ack, receiver.end) or (is_over and (overshoot > receiver.max_window or acks_old)):
            return Outcome.INVALID
        return Outcome.IGNORED if acks_old or is_old else Outcome.FOLLOWED
