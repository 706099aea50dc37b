# SPDX-License-Identifier: Apache-2.0
"""The firewall in plain Python: slow and short, the oracle for tests of the C kernel.

Readings chosen:

* A frame without a whole Ethernet header is malformed, not "another protocol".
* Rules judge each packet separately. Packets without ports count as port 0.
* A connection is a pair of ends and a protocol, an ICMP echo's identifier standing for ports. It is
  opened by the first accepted packet, whatever its TCP flags, and lets packets pass both ways.
* TCP idle times follow RFC 5382 REQ-5; a SYN on a closed connection is judged by the rules again.
* ICMP errors about a packet of a connection pass with it and do not keep it alive.
* Later fragments carry no ports and pass or not as configured, save those that would overwrite
  TCP flags (RFC 1858 section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

from onvm_nf_firewall.config import FirewallConfig, Rule
from onvm_sdk.headers import ICMP, ICMPV6, L3, L4, TCP, UDP, Headers, read_headers

__all__ = ["FirewallModel"]

_NS = 1_000_000_000
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_WITH_PORTS = {6, 17, 136, 132, 33}
_End = tuple[bytes, int]
_Key = tuple[int, frozenset[_End]]


@dataclass
class _Connection:
    initiator: _End
    idle_ns: int
    used_ns: int
    seen: set[bool] = field(default_factory=set)  # True: the initiator, False: its peer
    finished: set[bool] = field(default_factory=set)
    is_reset: bool = False

    @property
    def is_closed(self) -> bool:
        return self.is_reset or len(self.finished) == 2

    @property
    def is_established(self) -> bool:
        return len(self.seen) == 2 and not self.is_closed


class FirewallModel:
    """`judge` gives each packet's drop reason, or None if it passes."""

    def __init__(self, config: FirewallConfig) -> None:
        self.config = config
        self.connections: dict[_Key, _Connection] = {}
        self.is_tracking = config.settings.stateful and (
            config.settings.default == "drop" or not all(r.accepts for r in config.rules)
        )

    def expire(self, now_ns: int) -> None:
        """Remove idle connections."""
        for key, connection in list(self.connections.items()):
            if now_ns - connection.used_ns >= connection.idle_ns:
                del self.connections[key]

    def judge(self, frame: bytes, now_ns: int) -> str | None:
        """Decide on one packet."""
        h, text = read_headers(frame), self.config.settings
        if h.l3 is L3.NONIP and len(frame) >= 14:
            return None if text.non_ip == "pass" else "non_ip"
        if h.l3 is not L3.OK or h.l4 in (L4.SHORT, L4.BAD_HEADER):
            return "malformed"
        if h.l4 is L4.FRAGMENT:
            overwrites = h.protocol == TCP and h.fragment_offset == 8
            return None if text.fragments == "pass" and not overwrites else "fragment"
        if self.is_tracking and self._passes_by_connection(frame, h, now_ns):
            return None
        return self._judge_by_rules(frame, h, now_ns)

    def _judge_by_rules(self, frame: bytes, h: Headers, now_ns: int) -> str | None:
        rule = next((r for r in self.config.rules if _matches(r, h)), None)
        accepts = self.config.settings.default == "accept" if rule is None else rule.accepts
        if not accepts:
            return "default" if rule is None else "rule"
        if self.is_tracking and _is_trackable(frame, h):
            if len(self.connections) >= self.config.settings.max_connections:
                return "table_full"
            ends = _ends(h)
            self.connections[h.protocol, frozenset(ends)] = _Connection(ends[0], 0, now_ns)
            self._use(h, now_ns)
        return None

    def _passes_by_connection(self, frame: bytes, h: Headers, now_ns: int) -> bool:
        if not _is_trackable(frame, h):
            key = _embedded_key(frame, h)
            return key is not None and key in self.connections
        key = (h.protocol, frozenset(_ends(h)))
        connection = self.connections.get(key)
        if connection is None:
            return False
        if h.protocol == TCP and _opens(h) and connection.is_closed:
            del self.connections[key]
            return False
        self._use(h, now_ns)
        return True

    def _use(self, h: Headers, now_ns: int) -> None:
        ends, text = _ends(h), self.config.settings
        connection = self.connections[h.protocol, frozenset(ends)]
        connection.used_ns = now_ns
        if h.protocol == TCP:
            is_initiator = ends[0] == connection.initiator
            connection.seen.add(is_initiator)
            if h.tcp_flags & _FIN:
                connection.finished.add(is_initiator)
            connection.is_reset = bool(h.tcp_flags & _RST)
            established = connection.is_established
            seconds = text.tcp_established_s if established else text.tcp_transitory_s
        elif h.protocol in (UDP, 136):
            seconds = text.udp_s
        elif h.protocol in (ICMP, ICMPV6):
            seconds = text.icmp_s
        else:
            seconds = text.other_s
        connection.idle_ns = seconds * _NS


def _opens(h: Headers) -> bool:
    return h.tcp_flags & (_SYN | _ACK | _RST) == _SYN


def _matches(rule: Rule, h: Headers) -> bool:
    src_port, dst_port = (h.src_port, h.dst_port) if h.has_ports else (0, 0)
    return (
        rule.holds_for(h.version)
        and (rule.src is None or ip_address(h.src) in rule.src)
        and (rule.dst is None or ip_address(h.dst) in rule.dst)
        and rule.protocol in (None, h.protocol)
        and src_port in rule.src_ports
        and dst_port in rule.dst_ports
    )


def _ends(h: Headers) -> tuple[_End, _End]:
    ports = (h.src_port, h.dst_port) if h.has_ports else (h.icmp_id, h.icmp_id)
    return (h.src, ports[0]), (h.dst, ports[1])


def _is_trackable(frame: bytes, h: Headers) -> bool:
    if h.protocol not in (ICMP, ICMPV6):
        return True
    echoes = {(4, ICMP): (8, 0), (6, ICMPV6): (128, 129)}
    return frame[h.l4_offset] in echoes.get((h.version, h.protocol), ())


def _embedded_key(frame: bytes, h: Headers) -> _Key | None:
    """Return the connection that an ICMP error is about."""
    errors = {(4, ICMP): (3, 4, 11, 12), (6, ICMPV6): (1, 2, 3, 4)}
    if frame[h.l4_offset] not in errors.get((h.version, h.protocol), ()):
        return None
    ip = frame[h.l4_offset + 8 : h.l4_offset + h.l4_length]
    if len(ip) < 20 or ip[0] >> 4 != h.version:
        return None
    size = (ip[0] & 15) * 4 if h.version == 4 else 40
    later = h.version == 4 and int.from_bytes(ip[6:8], "big") & 0x1FFF
    if size < 20 or later or len(ip) < size + 8:
        return None
    l4, protocol = ip[size:], ip[9] if h.version == 4 else ip[6]
    src, dst = (ip[12:16], ip[16:20]) if h.version == 4 else (ip[8:24], ip[24:40])
    if protocol in _WITH_PORTS:
        ports = int.from_bytes(l4[0:2], "big"), int.from_bytes(l4[2:4], "big")
    elif (protocol, l4[0]) in {(ICMP, 8), (ICMP, 0), (ICMPV6, 128), (ICMPV6, 129)}:
        ports = (int.from_bytes(l4[4:6], "big"),) * 2
    else:
        return None
    return protocol, frozenset({(src, ports[0]), (dst, ports[1])})
