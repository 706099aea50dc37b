# SPDX-License-Identifier: Apache-2.0
"""The firewall in plain Python: slow and short, the oracle for tests of the C kernel.

Readings chosen:

* A frame without a whole Ethernet header is malformed, not "another protocol". Frames that are no
  IP, or have more VLAN tags than can be read, are kinds with a verdict of their own.
* Rules judge each packet separately; `rule_model` has their readings, `reject_model` those of the
  answers to rejected packets.
* A connection is a pair of ends, a protocol and the VLANs; for an ICMP query its identifier stands
  for the ports, and its type counts. The first accepted packet opens it, and lets packets pass both
  ways. A packet that begins no conversation (a reply, a segment other than a SYN) is invalid, and
  so is a TCP segment outside the windows; `tcp_model` has the states.
* What opens a connection, changes its TCP state or is an ICMP error must have a good checksum.
* An ICMP error passes if it quotes a packet of a connection and goes to the source of that packet.
  It does not keep the connection alive.
* An idle connection is gone when its time is over. If the table is full, connections
  that are half open, closed or without a reply give way, the oldest first.
* Datagrams come whole. A later fragment that comes alone is judged by rules that name no ports, and
  what these leave open `fragments` decides. It never passes if it would overwrite the flags of
  TCP (RFC 1858 section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from onvm_nf_firewall.config import FirewallConfig
from onvm_nf_firewall.names import PROTOCOLS_WITH_PORTS, STATES
from onvm_nf_firewall.reject_model import answer
from onvm_nf_firewall.rule_model import Decision, Question, RuleModel
from onvm_nf_firewall.tcp_model import (
    Outcome,
    Segment,
    State,
    TcpConnection,
    is_open,
    is_valid,
)
from onvm_sdk.headers import ICMP, ICMPV6, L3, L4, TCP, UDP, Headers, checksum, read_headers

__all__ = ["REJECTED", "FirewallModel"]

REJECTED = "rejected"
"""In place of a drop reason: an answer leaves."""

_NS = 1_000_000_000
_SYN, _RST, _ACK = 2, 4, 16
_VLANS = (0x8100, 0x88A8, 0x9100, 0x9200)
_KINDS = {0x0806: "arp", 0x8863: "pppoe", 0x8864: "pppoe", 0x8847: "mpls", 0x8848: "mpls"}
_REPLIES = {ICMP: {0: 8, 14: 13, 16: 15, 18: 17}, ICMPV6: {129: 128}}
_ERRORS = {ICMP: (3, 4, 11, 12), ICMPV6: (1, 2, 3, 4)}
# Messages that are neither queries nor errors, and that rules may let pass one by one: redirects,
# mobile IPv6 (RFC 4890 section 4.3).
_SINGLE = {ICMP: (5,), ICMPV6: (137, 144, 145, 146, 147)}
# Neighbour and multicast listener discovery (RFC 4890 section 4.4.1).
_NDP = (130, 131, 132, 133, 134, 135, 136, 141, 142, 143, 148, 149, 151, 152, 153)
_EXTENSIONS = (0, 43, 60, 135, 139, 140, 51)
_End = tuple[bytes, int]
_Key = tuple[object, ...]


@dataclass
class _Connection:
    source: bytes
    initiator: _End
    idle_ns: int
    used_ns: int
    has_reply: bool = False
    tcp: TcpConnection | None = None

    def is_idle(self, now_ns: int) -> bool:
        return now_ns - self.used_ns >= self.idle_ns


@dataclass(frozen=True)
class _Packet:
    """A packet with all that comes with it."""

    frame: bytes
    headers: Headers
    now_ns: int
    is_reverse: bool
    is_partial: bool
    is_merged: bool
    is_first: bool
    port: str


class FirewallModel:
    """`judge` gives each packet's drop reason, or None if it passes.

    For `REJECTED`, `answer` is the frame that goes back. `decision` is what the rules have said
    about the last packet that they judged.
    """

    def __init__(self, config: FirewallConfig) -> None:
        self.config = config
        self.connections: dict[_Key, _Connection] = {}
        self.evictable: dict[_Key, None] = {}
        self.is_tracking = config.is_tracking
        self.rules = RuleModel(config)
        self.answer: bytes | None = None
        self.decision: Decision | None = None
        self.answers_saved: tuple[int, int] | None = None

    def expire(self, now_ns: int) -> None:
        """Remove idle connections."""
        for key, connection in list(self.connections.items()):
            if connection.is_idle(now_ns):
                self._forget(key)

    def judge(
        self,
        frame: bytes,
        now_ns: int,
        *,
        reverse: bool = False,
        partial: bool = False,
        merged: bool = False,
        first: bool = True,
        port: str = "",
    ) -> str | None:
        """Decide on one packet.

        Args:
            first: no NF of the chain has had it before.
            port: the name of the one it came in by.
        """
        h = read_headers(frame)
        self.answer = self.decision = None
        if (done := self._sort(frame, h, partial)) is not _UNDECIDED:
            return done
        packet = _Packet(frame, h, now_ns, reverse, partial, merged, first, port)
        if h.l4 is L4.FRAGMENT:
            return self._judge_fragment(packet)
        return self._judge_whole(packet)

    def _sort(self, frame: bytes, h: Headers, partial: bool) -> str | None:
        """Decide what needs neither rules nor connections; otherwise `_UNDECIDED`."""
        text = self.config.settings
        if h.l3 is L3.NONIP and len(frame) >= 14:
            verdict = getattr(text, _kind(h.ethertype))
            accepts = text.default == "accept" if verdict == "default" else verdict == "pass"
            return None if accepts else "non_ip"
        if h.l3 is not L3.OK or h.l4 in (L4.SHORT, L4.BAD_HEADER):
            return "malformed"
        has_options, has_route = _options(frame, h)
        if (has_options and text.ip_options == "drop") or (
            has_route and text.source_route == "drop"
        ):
            return "options"
        if text.verify_checksums and _is_damaged(frame, h, partial, header=True):
            return "invalid"
        is_ndp = h.protocol == ICMPV6 and h.version == 6 and h.l4 is L4.OK
        if is_ndp and not h.is_fragment and frame[h.l4_offset] in _NDP and text.ndp == "pass":
            return None
        return _UNDECIDED

    # -- packets with a transport header

    def _judge_whole(self, p: _Packet) -> str | None:
        if not self.is_tracking:
            return self._by_rules(p)[0]
        if not _is_icmp(p.headers):
            # ICMP of the other IP version belongs to no connection
            is_single, may_pass = p.headers.protocol in (ICMP, ICMPV6), False
        else:
            kind = p.frame[p.headers.l4_offset]
            if kind in _ERRORS[p.headers.protocol]:
                return self._judge_error(p)
            is_single = _query(p.headers, kind) is None
            may_pass = kind in _SINGLE[p.headers.protocol]
        return self._judge_single(p, may_pass) if is_single else self._judge_tracked(p)

    def _judge_tracked(self, p: _Packet) -> str | None:
        """Judge a packet that may belong to a connection."""
        frame, h = p.frame, p.headers
        key, source = _key(frame, h)
        connection = self.connections.get(key)
        if connection is not None and connection.is_idle(p.now_ns):
            self._forget(key)
            connection = None
        if connection is not None:
            outcome = self._follow(frame, h, key, connection, source, p.now_ns, p.is_partial)
            if outcome is not Outcome.RESTARTS:
                return "invalid" if outcome is Outcome.INVALID else None
        reason, takes_invalid = self._by_rules(p)
        if reason is not None or (takes_invalid and not self._may_open(p)):
            return reason
        return self._open(p, key, source)

    def _follow(
        self,
        frame: bytes,
        h: Headers,
        key: _Key,
        connection: _Connection,
        source: _End,
        now_ns: int,
        partial: bool,
    ) -> Outcome:
        side = int(source != connection.initiator)
        if _is_icmp(h):
            side = int(frame[h.l4_offset] in _REPLIES[h.protocol])
        if connection.tcp is not None:
            segment = Segment.of(frame, h)
            if not is_valid(segment.flags):
                return Outcome.INVALID
            changes = segment.flags & 7 or connection.tcp.state <= State.SYN_RECEIVED
            if changes and _is_damaged(frame, h, partial):
                return Outcome.INVALID
            outcome = connection.tcp.follow(segment, side)
            if outcome is not Outcome.FOLLOWED:
                return outcome
        connection.has_reply |= bool(side)
        self._use(h, key, connection, now_ns)
        return Outcome.FOLLOWED

    def _use(self, h: Headers, key: _Key, connection: _Connection, now_ns: int) -> None:
        text = self.config.settings
        connection.used_ns = now_ns
        gives_way = not connection.has_reply
        if connection.tcp is not None:
            gives_way = connection.tcp.may_give_way
            seconds = {
                State.SYN_SENT: text.tcp_syn_s,
                State.SYN_RECEIVED: text.tcp_syn_received_s,
                State.ESTABLISHED: text.tcp_established_s,
                State.HALF_CLOSED: text.tcp_transitory_s,
                State.CLOSING: text.tcp_closing_s,
                State.CLOSED: text.tcp_closing_s,
                State.PICKED_UP: text.tcp_syn_received_s,
            }[connection.tcp.state]
        elif h.protocol in (UDP, 136):
            seconds = text.udp_s if connection.has_reply else text.udp_unreplied_s
        elif _is_icmp(h):
            seconds, gives_way = text.icmp_s, True
        else:
            seconds = text.other_s
        connection.idle_ns = seconds * _NS
        if not gives_way:
            self.evictable.pop(key, None)
        elif key not in self.evictable:
            self.evictable[key] = None

    def _may_open(self, p: _Packet) -> bool:
        """Whether a packet may open a connection: whether it is new, and not invalid."""
        frame, h, text = p.frame, p.headers, self.config.settings
        if _is_damaged(frame, h, p.is_partial):
            return False
        if h.protocol == TCP:
            flags = Segment.of(frame, h).flags
            is_first = is_open(flags) or (text.midstream and not flags & (_SYN | _RST))
            return is_valid(flags) and is_first
        if h.protocol in (ICMP, ICMPV6):
            return _is_icmp(h) and frame[h.l4_offset] in _REPLIES[h.protocol].values()
        return True

    def _open(self, p: _Packet, key: _Key, source: _End) -> str | None:
        h, text, tcp = p.headers, self.config.settings, None
        if not self._may_open(p):
            return "invalid"
        if h.protocol == TCP:
            tcp = TcpConnection.begin(Segment.of(p.frame, h), text.liberal)
        self._forget(key)
        address = h.src if h.version == 4 else h.src[:8]
        if text.max_per_source:
            count = sum(c.source == address for c in self.connections.values())
            if count >= text.max_per_source:
                return "source_limit"
        if len(self.connections) >= text.max_connections:
            if not self.evictable:
                return "table_full"
            self._forget(next(iter(self.evictable)))
        self.connections[key] = connection = _Connection(address, source, 0, p.now_ns, tcp=tcp)
        self._use(h, key, connection, p.now_ns)
        return None

    def _forget(self, key: _Key) -> None:
        self.connections.pop(key, None)
        self.evictable.pop(key, None)

    def _judge_error(self, p: _Packet) -> str | None:
        key = _quoted_key(p.frame, p.headers)
        connection = self.connections.get(key) if key is not None else None
        is_known = connection is not None and not connection.is_idle(p.now_ns)
        if is_known and not _is_damaged(p.frame, p.headers, p.is_partial):
            return None
        return self._judge_single(p, False)

    def _judge_single(self, p: _Packet, may_pass: bool) -> str | None:
        """Judge a packet that can belong to no connection."""
        reason, takes_invalid = self._by_rules(p)
        return reason or (None if may_pass or takes_invalid else "invalid")

    # -- rules

    def _ask(self, p: _Packet) -> Decision:
        state = 0
        if self.is_tracking and p.headers.l4 is not L4.FRAGMENT:
            state = STATES["new" if self._may_open(p) else "invalid"]
        question = Question(p.frame, p.headers, p.is_reverse, p.port, state, p.now_ns)
        self.decision = self.rules.decide(question)
        return self.decision

    def _by_rules(self, p: _Packet) -> tuple[str | None, bool]:
        """Return a reason, and whether an accepted packet passes though it is invalid."""
        decision = self._ask(p)
        if decision.rule is None:
            return None if self.config.settings.default == "accept" else "default", False
        if decision.rule.accepts:
            return None, decision.takes_invalid
        if decision.rule.action == "reject":
            return self._reject(p, decision.rule.reject), False
        return "rule", False

    def _reject(self, p: _Packet, kind: str) -> str:
        """Make an answer, if one may leave."""
        rate = self.config.settings.reject_rate
        is_as_sent = p.is_first or self.config.settings.answer_behind
        if (
            rate == 0
            or p.is_merged
            or not is_as_sent
            or _is_damaged(p.frame, p.headers, p.is_partial)
        ):
            return "rule"
        made = answer(p.frame, p.headers, kind)
        if made is None:
            return "rule"
        cost_ns = _NS // rate
        saved, seen_ns = self.answers_saved or (cost_ns * rate, p.now_ns)
        saved = min(cost_ns * rate, saved + p.now_ns - seen_ns)
        self.answers_saved = (saved, p.now_ns)
        if saved < cost_ns:
            return "rule"
        self.answers_saved, self.answer = (saved - cost_ns, p.now_ns), made
        return REJECTED

    # -- fragments behind the first

    def _judge_fragment(self, p: _Packet) -> str | None:
        h, text = p.headers, self.config.settings
        if h.protocol == TCP and h.fragment_offset == 8:
            return "fragment"
        decision = self._ask(p)
        if decision.rule is not None and not decision.rule.accepts:
            return "rule"
        if decision.rule is None and text.default == "drop" and not decision.has_chance:
            return "default"
        return None if text.fragments == "pass" else "fragment"


_UNDECIDED = "undecided"


def _kind(ethertype: int) -> str:
    if ethertype in _VLANS:
        return "vlan_stack"
    return "llc" if ethertype < 0x600 else _KINDS.get(ethertype, "non_ip")


def _is_icmp(h: Headers) -> bool:
    return (h.version, h.protocol) in ((4, ICMP), (6, ICMPV6))


def _query(h: Headers, kind: int) -> int | None:
    """Return the type of the query that a message is, or answers."""
    replies = _REPLIES[h.protocol]
    return kind if kind in replies.values() else replies.get(kind)


def _vids(h: Headers) -> tuple[int, ...]:
    return tuple(tci & 0xFFF for tci in h.vlans if tci & 0xFFF)


def _key(frame: bytes, h: Headers) -> tuple[_Key, _End]:
    """Return the key of the packet's connection, and the end that it comes from."""
    kind = 0
    ports = (h.src_port, h.dst_port) if h.has_ports else (0, 0)
    if _is_icmp(h):
        number = int.from_bytes(frame[h.l4_offset + 4 : h.l4_offset + 6], "big")
        ports, kind = (number, number), _query(h, frame[h.l4_offset]) or 0
    source, peer = (h.src, ports[0]), (h.dst, ports[1])
    ends: object = frozenset((source, peer))
    if kind:  # a query in the other direction is another conversation
        ends = (source, peer) if frame[h.l4_offset] == kind else (peer, source)
    return (h.version, h.protocol, kind, _vids(h), ends), source


def _options(frame: bytes, h: Headers) -> tuple[bool, bool]:
    """Return whether there are options of IPv4, and whether the sender chose the route."""
    if h.version == 4:
        kinds = _option_kinds(frame[h.l3_offset + 20 : h.l3_offset + (frame[h.l3_offset] & 15) * 4])
        return bool(kinds), bool(kinds & {131, 137})
    at, protocol = h.l3_offset + 40, frame[h.l3_offset + 6]
    while at + 8 <= h.l4_offset:
        if protocol == 43 and frame[at + 2] == 0:
            return False, True
        size = {44: 8, 51: (frame[at + 1] + 2) * 4}.get(protocol, (frame[at + 1] + 1) * 8)
        protocol, at = frame[at], at + size
    return False, False


def _option_kinds(options: bytes) -> set[int]:
    kinds, at = set(), 0
    while at < len(options) and options[at] != 0:
        if options[at] != 1:
            kinds.add(options[at])
            if at + 1 >= len(options) or options[at + 1] < 2:
                break
        at += 1 if options[at] == 1 else options[at + 1]
    return kinds


def _is_damaged(frame: bytes, h: Headers, partial: bool, header: bool = False) -> bool:
    """Whether a checksum is wrong: that of the transport, and of the IPv4 `header`."""
    if header and h.version == 4:
        size = (frame[h.l3_offset] & 15) * 4
        if checksum(frame[h.l3_offset : h.l3_offset + size]) != 0:
            return True
    if partial or h.l4 is not L4.OK or h.is_fragment:
        return False
    l4 = frame[h.l4_offset : h.l4_offset + h.l4_length]
    if h.protocol == UDP:
        if l4[6:8] == b"\0\0":
            return h.version == 6
        l4 = l4[: int.from_bytes(l4[4:6], "big")]
    if h.protocol not in (TCP, UDP, ICMP, ICMPV6):
        return False
    pseudo = b""
    if h.protocol != ICMP:
        src, dst = _final_addresses(frame, h)
        pseudo = src + dst + len(l4).to_bytes(4, "big") + h.protocol.to_bytes(4, "big")
    return checksum(pseudo + l4) != 0


def _final_addresses(frame: bytes, h: Headers) -> tuple[bytes, bytes]:
    """Return the addresses of the pseudo-header: routing headers and home addresses count."""
    src, dst = h.src, h.dst
    if h.version == 4:
        return src, dst
    at, protocol = h.l3_offset + 40, frame[h.l3_offset + 6]
    while at + 8 <= h.l4_offset:
        size = {44: 8, 51: (frame[at + 1] + 2) * 4}.get(protocol, (frame[at + 1] + 1) * 8)
        if protocol == 43 and frame[at + 3] != 0 and size >= 24:
            if frame[at + 2] == 4:
                dst = frame[at + 8 : at + 24]
            elif frame[at + 2] in (0, 2):
                dst = frame[at + size - 16 : at + size]
        elif protocol == 60:
            option = at + 2
            while option + 2 <= at + size:
                if frame[option] == 201 and frame[option + 1] == 16 and option + 18 <= at + size:
                    src = frame[option + 2 : option + 18]
                option += 1 if frame[option] == 0 else frame[option + 1] + 2
        protocol, at = frame[at], at + size
    return src, dst


def _quoted_transport(ip: bytes, version: int) -> tuple[int, int] | None:
    """Return the protocol of a packet inside an error, and where its transport header begins."""
    if version == 4:
        protocol, at = ip[9], (ip[0] & 15) * 4
        is_readable = at >= 20 and not int.from_bytes(ip[6:8], "big") & 0x1FFF
        return (protocol, at) if is_readable else None
    protocol, at = (ip[6], 40) if len(ip) >= 40 else (0, len(ip))
    for _ in range(17):
        if protocol not in (*_EXTENSIONS, 44):
            return protocol, at
        is_later = protocol == 44 and int.from_bytes(ip[at + 2 : at + 4], "big") & 0xFFF8
        if is_later or len(ip) < at + 8:
            break
        size = {44: 8, 51: (ip[at + 1] + 2) * 4}.get(protocol, (ip[at + 1] + 1) * 8)
        protocol, at = ip[at], at + size
    return None


def _quoted_key(frame: bytes, h: Headers) -> _Key | None:
    """Return the connection that an ICMP error is about, if it goes to the source of its packet."""
    ip = frame[h.l4_offset + 8 : h.l4_offset + h.l4_length]
    if len(ip) < 20 or ip[0] >> 4 != h.version:
        return None
    found = _quoted_transport(ip, h.version)
    if found is None or len(ip) < found[1] + 8:
        return None
    protocol, at = found
    src, dst = (ip[12:16], ip[16:20]) if h.version == 4 else (ip[8:24], ip[24:40])
    ports = [int.from_bytes(ip[at + i : at + i + 2], "big") for i in (0, 2)]
    inner = Headers(
        version=h.version,
        vlans=h.vlans,
        protocol=protocol,
        src=src,
        dst=dst,
        l4_offset=at,
        has_ports=protocol in PROTOCOLS_WITH_PORTS,
        src_port=ports[0],
        dst_port=ports[1],
    )
    is_icmp = protocol in (ICMP, ICMPV6)
    if h.dst != src or (is_icmp and (not _is_icmp(inner) or _query(inner, ip[at]) is None)):
        return None
    return _key(ip, inner)[0]
