# SPDX-License-Identifier: Apache-2.0
"""The firewall in plain Python: slow and short, the oracle for tests of the C kernel.

Readings chosen:

* A frame without a whole Ethernet header is malformed, not "another protocol". Frames that are no
  IP, or have more VLAN tags than can be read, are kinds with a verdict of their own.
* Rules judge each packet separately. A rule that names ports matches protocols with ports only.
* A connection is a pair of ends, a protocol and the VLANs; for an ICMP query its identifier stands
  for the ports, and its type counts. The first accepted packet opens it, and lets packets pass both
  ways. A packet that begins no conversation (a reply, a segment other than a SYN) is invalid, and
  so is a TCP segment outside the windows; `tcp_model` has the states.
* What opens a connection, changes its TCP state or is an ICMP error must have a good checksum.
* An ICMP error passes if it quotes a packet of a connection and goes to the source of that packet.
  It does not keep the connection alive.
* An idle connection is gone when its time is over. If the table is full, connections
  that are half open, closed or without a reply give way, the oldest first.
* A later fragment has the verdict of the first fragment of its datagram. If that is unknown, rules
  that name no ports judge it, and what these leave open `fragments` decides. It never passes
  if it would overwrite the first fragment (RFC 1858 section 3, RFC 5722).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from onvm_nf_firewall.config import PROTOCOLS_WITH_PORTS, FirewallConfig, Rule
from onvm_nf_firewall.tcp_model import (
    Outcome,
    Segment,
    State,
    TcpConnection,
    is_open,
    is_valid,
)
from onvm_sdk.headers import ICMP, ICMPV6, L3, L4, TCP, UDP, Headers, checksum, read_headers

__all__ = ["FirewallModel"]

_NS = 1_000_000_000
_FRAGMENTS_MAX, _FRAGMENT_NS = 4096, 30 * _NS
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


@dataclass
class _Fragment:
    """The first fragment of a datagram."""

    passed: bool
    end: int
    seen_ns: int


class FirewallModel:
    """`judge` gives each packet's drop reason, or None if it passes."""

    def __init__(self, config: FirewallConfig) -> None:
        self.config = config
        self.connections: dict[_Key, _Connection] = {}
        self.evictable: dict[_Key, None] = {}
        self.fragments: dict[_Key, _Fragment] = {}
        self.is_tracking = config.is_tracking

    def expire(self, now_ns: int) -> None:
        """Remove idle connections."""
        for key, connection in list(self.connections.items()):
            if connection.is_idle(now_ns):
                self._forget(key)

    def judge(
        self, frame: bytes, now_ns: int, *, reverse: bool = False, partial: bool = False
    ) -> str | None:
        """Decide on one packet."""
        h = read_headers(frame)
        if (done := self._sort(frame, h, partial)) is not _UNDECIDED:
            return done
        if h.l4 is L4.FRAGMENT:
            return self._judge_fragment(frame, h, now_ns, reverse)
        reason = self._judge_whole(frame, h, now_ns, reverse, partial)
        if h.more_fragments:
            self._note_fragment(frame, h, now_ns, reason is None)
        return reason

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

    def _judge_whole(
        self, frame: bytes, h: Headers, now_ns: int, reverse: bool, partial: bool
    ) -> str | None:
        if not self.is_tracking:
            return self._by_rules(h, reverse)
        if _is_icmp(h):
            kind = frame[h.l4_offset]
            if kind in _ERRORS[h.protocol]:
                return self._judge_error(frame, h, now_ns, reverse, partial)
            if _query(h, kind) is None:
                reason = self._by_rules(h, reverse)
                return reason or (None if kind in _SINGLE[h.protocol] else "invalid")
        elif h.protocol in (ICMP, ICMPV6):
            return self._by_rules(h, reverse) or "invalid"  # that of the other IP version
        key, source = _key(frame, h)
        connection = self.connections.get(key)
        if connection is not None and connection.is_idle(now_ns):
            self._forget(key)
            connection = None
        if connection is not None:
            outcome = self._follow(frame, h, key, connection, source, now_ns, partial)
            if outcome is not Outcome.RESTARTS:
                return "invalid" if outcome is Outcome.INVALID else None
        return self._by_rules(h, reverse) or self._open(frame, h, key, source, now_ns, partial)

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

    def _open(
        self, frame: bytes, h: Headers, key: _Key, source: _End, now_ns: int, partial: bool
    ) -> str | None:
        text, tcp = self.config.settings, None
        if _is_damaged(frame, h, partial):
            return "invalid"
        if h.protocol == TCP:
            segment = Segment.of(frame, h)
            is_first = is_open(segment.flags) or (
                text.midstream and not segment.flags & (_SYN | _RST)
            )
            if not is_valid(segment.flags) or not is_first:
                return "invalid"
            tcp = TcpConnection.begin(segment, text.liberal)
        elif _is_icmp(h) and frame[h.l4_offset] in _REPLIES[h.protocol]:
            return "invalid"
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
        self.connections[key] = connection = _Connection(address, source, 0, now_ns, tcp=tcp)
        self._use(h, key, connection, now_ns)
        return None

    def _forget(self, key: _Key) -> None:
        self.connections.pop(key, None)
        self.evictable.pop(key, None)

    def _judge_error(
        self, frame: bytes, h: Headers, now_ns: int, reverse: bool, partial: bool
    ) -> str | None:
        key = _quoted_key(frame, h)
        connection = self.connections.get(key) if key is not None else None
        is_known = connection is not None and not connection.is_idle(now_ns)
        if is_known and not _is_damaged(frame, h, partial):
            return None
        return self._by_rules(h, reverse) or "invalid"

    # -- rules

    def _by_rules(self, h: Headers, reverse: bool) -> str | None:
        rule = next((r for r in self.config.rules if _matches(r, h, reverse)), None)
        accepts = self.config.settings.default == "accept" if rule is None else rule.accepts
        if accepts:
            return None
        return "default" if rule is None else "rule"

    # -- fragments behind the first

    def _judge_fragment(self, frame: bytes, h: Headers, now_ns: int, reverse: bool) -> str | None:
        if h.protocol == TCP and h.fragment_offset == 8:
            return "fragment"
        first = self.fragments.get(_datagram(frame, h))
        if first is not None and now_ns - first.seen_ns < _FRAGMENT_NS:
            return None if first.passed and h.fragment_offset >= first.end else "fragment"
        rules = [r for r in self.config.rules if _matches_addresses(r, h, reverse)]
        decisive = next((r for r in rules if not r.names_ports), None)
        if decisive is not None and not decisive.accepts:
            return "rule"
        default_drops = self.config.settings.default == "drop"
        if decisive is None and default_drops and not any(r.accepts for r in rules):
            return "default"
        return None if self.config.settings.fragments == "pass" else "fragment"

    def _note_fragment(self, frame: bytes, h: Headers, now_ns: int, passed: bool) -> None:
        key = _datagram(frame, h)
        start = (
            h.l3_offset + (frame[h.l3_offset] & 15) * 4 if h.version == 4 else h.fragment_header + 8
        )
        end = h.l4_offset + h.l4_length - start
        old = self.fragments.pop(key, None)
        if old is not None and now_ns - old.seen_ns < _FRAGMENT_NS:
            end, passed = max(end, old.end), passed and old.passed
        if len(self.fragments) >= _FRAGMENTS_MAX:
            del self.fragments[next(iter(self.fragments))]
        self.fragments[key] = _Fragment(passed, end, now_ns)


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


def _matches_addresses(rule: Rule, h: Headers, reverse: bool) -> bool:
    return (
        rule.side in ("any", "far" if reverse else "near")
        and rule.holds_for(h.version)
        and (rule.src is None or ip_address(h.src) in rule.src)
        and (rule.dst is None or ip_address(h.dst) in rule.dst)
        and rule.protocol in (None, h.protocol)
        and (not rule.names_ports or h.protocol in PROTOCOLS_WITH_PORTS)
    )


def _matches(rule: Rule, h: Headers, reverse: bool) -> bool:
    return _matches_addresses(rule, h, reverse) and (
        not rule.names_ports or (h.src_port in rule.src_ports and h.dst_port in rule.dst_ports)
    )


def _datagram(frame: bytes, h: Headers) -> _Key:
    """Return what a fragment's datagram is known by (RFC 791, RFC 8200 section 4.5)."""
    if h.version == 4:
        number, protocol = frame[h.l3_offset + 4 : h.l3_offset + 6], h.protocol
    else:
        number, protocol = frame[h.fragment_header + 4 : h.fragment_header + 8], 0
    return h.version, h.src, h.dst, protocol, number, _vids(h)


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
