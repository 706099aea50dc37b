# SPDX-License-Identifier: Apache-2.0
"""What the NAT does, in plain Python: slow, short, the oracle of the C kernel.

Readings chosen:

* A mapping is endpoint-independent (RFC 4787 REQ-1) and lives as long as one of its sessions; a
  session is a mapping and one remote endpoint, opened by any outbound packet (RFC 5382 leaves a
  segment without SYN to the NAT).
* The inside port is kept if it is free; else the next free one upwards, around the block's end,
  of the same parity while there is one.
* Outbound packets refresh a session; inbound ones only for TCP, or when configured.
* An ICMP error needs a session (inbound) or a mapping (outbound) and changes no timer.
* Checksums are computed whole here where the kernel updates them; on correct packets both agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import chain

from onvm_nf_nat.config import NatConfig
from onvm_sdk.headers import ICMP, L3, L4, TCP, UDP, Headers, checksum, read_headers

__all__ = ["Drop", "NatModel", "Translated"]

_NS = 1_000_000_000
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_ERRORS = (3, 4, 11, 12)
_Endpoint = tuple[bytes, int]  # address, port or echo identifier
_Remote = tuple[bytes, int]


class Drop(Exception):  # noqa: N818  a verdict
    """The packet goes; `args` has the reason."""


@dataclass(frozen=True)
class Translated:
    """A packet as it leaves; `is_hairpin`: back to where it came from."""

    data: bytes
    is_hairpin: bool = False


@dataclass
class _Session:
    used_ns: int
    idle_ns: int = 0
    seen: set[bool] = field(default_factory=set)  # True: inbound
    finished: set[bool] = field(default_factory=set)
    is_reset: bool = False

    @property
    def is_closed(self) -> bool:
        return self.is_reset or len(self.finished) == 2


@dataclass
class _Mapping:
    port: int
    sessions: dict[_Remote, _Session] = field(default_factory=dict)


class NatModel:
    """`translate` gives a packet as it leaves, or raises `Drop`."""

    def __init__(self, config: NatConfig) -> None:
        self.config = config
        self.external = config.external.packed
        self.mappings: dict[tuple[int, _Endpoint], _Mapping] = {}

    def expire(self, now_ns: int) -> None:
        """Forget idle sessions and mappings without any."""
        for key, mapping in list(self.mappings.items()):
            for remote, session in list(mapping.sessions.items()):
                if now_ns - session.used_ns >= session.idle_ns:
                    del mapping.sessions[remote]
            if not mapping.sessions:
                del self.mappings[key]

    def translate(self, frame: bytes, is_reverse: bool, now_ns: int) -> Translated:
        """Handle one packet."""
        h = read_headers(frame)
        if h.l3 is L3.NONIP or h.version == 6:
            return Translated(frame)
        if h.l3 is not L3.OK:
            raise Drop("malformed")
        if is_reverse and h.dst != self.external:
            if not self._is_inside(h.dst):
                return Translated(frame)
            raise Drop("no_mapping")
        if not is_reverse and not self._is_inside(h.src):
            return Translated(frame)
        if h.l4 in (L4.SHORT, L4.BAD_HEADER):
            raise Drop("malformed")
        if h.is_fragment:
            raise Drop("fragment")
        if h.protocol not in (TCP, UDP, ICMP):
            raise Drop("protocol")
        kind = frame[h.l4_offset]
        is_error = h.protocol == ICMP and kind in _ERRORS
        if h.protocol == ICMP and not is_error and kind not in (0, 8):
            raise Drop("protocol")
        inbound = self._error_in if is_error else self._in
        if is_reverse:
            return Translated(inbound(frame, h, now_ns))
        out = (self._error_out if is_error else self._out)(frame, h, now_ns)
        if h.dst != self.external:
            return Translated(out)
        return Translated(inbound(out, read_headers(out), now_ns), is_hairpin=True)

    def _is_inside(self, address: bytes) -> bool:
        nets = self.config.inside
        return not nets or any(IPv4Address(address) in net for net in nets)

    def _behind(self, protocol: int, port: int) -> tuple[_Endpoint, _Mapping]:
        for (used_protocol, inside), mapping in self.mappings.items():
            if used_protocol == protocol and mapping.port == port:
                return inside, mapping
        raise Drop("no_mapping")

    def _take_port(self, protocol: int, wanted: int) -> int:
        block = self.config.ports
        used = {m.port for (p, _), m in self.mappings.items() if p == protocol}
        start = wanted if wanted in block else block.start + wanted % len(block)
        order = list(chain(range(start, block.stop), range(block.start, start)))
        if self.config.settings.preserve_parity and protocol != ICMP:
            order.sort(key=lambda port: (port - wanted) % 2)  # stable
        free = [port for port in order if port not in used]
        if not free:
            raise Drop("exhausted")
        return free[0]

    def _session(self, protocol: int, inside: _Endpoint, remote: _Remote, now_ns: int) -> _Mapping:
        mapping = self.mappings.get((protocol, inside))
        if mapping is not None and remote in mapping.sessions:
            return mapping
        if mapping is None:
            mapping = _Mapping(self._take_port(protocol, inside[1]))
        if (
            sum(len(m.sessions) for m in self.mappings.values())
            >= self.config.settings.max_sessions
        ):
            raise Drop("table_full")
        self.mappings[protocol, inside] = mapping
        mapping.sessions[remote] = _Session(now_ns)
        return mapping

    def _use(self, session: _Session, h: Headers, is_inbound: bool, now_ns: int) -> None:
        text = self.config.settings
        if h.protocol == TCP:
            if h.tcp_flags & (_SYN | _ACK | _RST) == _SYN and session.is_closed:
                session.seen.clear()
                session.finished.clear()
            session.seen.add(is_inbound)
            if h.tcp_flags & _FIN:
                session.finished.add(is_inbound)
            session.is_reset = bool(h.tcp_flags & _RST)
            established = len(session.seen) == 2 and not session.is_closed
            seconds = text.tcp_established_s if established else text.tcp_transitory_s
        else:
            seconds = text.udp_s if h.protocol == UDP else text.icmp_s
            if is_inbound and not text.inbound_refresh:
                return
        session.used_ns, session.idle_ns = now_ns, seconds * _NS

    def _out(self, frame: bytes, h: Headers, now_ns: int) -> bytes:
        is_icmp = h.protocol == ICMP
        inside = (h.src, h.icmp_id if is_icmp else h.src_port)
        remote = (h.dst, 0 if is_icmp else h.dst_port)
        mapping = self._session(h.protocol, inside, remote, now_ns)
        self._use(mapping.sessions[remote], h, False, now_ns)
        return _rewritten(frame, h, src=(self.external, mapping.port))

    def _in(self, frame: bytes, h: Headers, now_ns: int) -> bytes:
        is_icmp = h.protocol == ICMP
        inside, mapping = self._behind(h.protocol, h.icmp_id if is_icmp else h.dst_port)
        remote = (h.src, 0 if is_icmp else h.src_port)
        filtering = self.config.settings.filtering
        known = remote in mapping.sessions
        if filtering == "address-dependent":
            allowed = any(address == h.src for address, _ in mapping.sessions)
        else:
            allowed = known or filtering == "endpoint-independent"
        if not allowed:
            raise Drop("filtered")
        if known:
            self._use(mapping.sessions[remote], h, True, now_ns)
        return _rewritten(frame, h, dst=inside)

    def _error_in(self, frame: bytes, h: Headers, now_ns: int) -> bytes:
        inner = _embedded(frame, h)
        if inner.protocol not in (TCP, UDP, ICMP) or inner.src != self.external:
            raise Drop("no_mapping")
        inside, mapping = self._behind(inner.protocol, inner.src_port)
        port = 0 if inner.protocol == ICMP else inner.dst_port
        if (inner.dst, port) not in mapping.sessions:
            raise Drop("no_mapping")
        return _error_rewritten(frame, h, inner, src=inside)

    def _error_out(self, frame: bytes, h: Headers, now_ns: int) -> bytes:
        inner = _embedded(frame, h)
        mapping = self.mappings.get((inner.protocol, (inner.dst, inner.dst_port)))
        if mapping is None:
            raise Drop("no_mapping")
        return _error_rewritten(frame, h, inner, dst=(self.external, mapping.port))


def _embedded(frame: bytes, h: Headers) -> Headers:
    """Read the packet inside an ICMP error; ports of an echo are its identifier."""
    end = h.l4_offset + h.l4_length
    if checksum(frame[h.l4_offset : end]) != 0:
        raise Drop("malformed")
    ip = frame[h.l4_offset + 8 : end]
    size = (ip[0] & 15) * 4 if ip else 0
    later = int.from_bytes(ip[6:8], "big") & 0x1FFF
    if len(ip) < 20 or ip[0] >> 4 != 4 or size < 20 or later or len(ip) < size + 8:
        raise Drop("malformed")
    l4, inner = ip[size:], Headers(version=4, protocol=ip[9], src=ip[12:16], dst=ip[16:20])
    inner.l3_offset, inner.l4_offset = h.l4_offset + 8, h.l4_offset + 8 + size
    inner.l4_length = len(l4)
    if inner.protocol == ICMP:
        if l4[0] not in (0, 8):
            raise Drop("malformed")
        inner.src_port = inner.dst_port = int.from_bytes(l4[4:6], "big")
    elif inner.protocol in (TCP, UDP, 136, 132, 33):
        inner.src_port, inner.dst_port = (int.from_bytes(l4[i : i + 2], "big") for i in (0, 2))
    else:
        raise Drop("malformed")
    return inner


def _replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _updated(old_checksum: bytes, old: bytes, new: bytes) -> bytes:
    """RFC 1624 equation 3."""
    total = 0xFFFF ^ int.from_bytes(old_checksum, "big")
    for i in range(0, len(old), 2):
        total += 0xFFFF ^ int.from_bytes(old[i : i + 2], "big")
        total += int.from_bytes(new[i : i + 2], "big")
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (0xFFFF ^ total).to_bytes(2, "big")


def _set_end(data: bytes, h: Headers, end: _Endpoint, is_src: bool) -> bytes:
    """Replace one end of the packet whose headers are `h`, with its own checksums."""
    at = h.l3_offset + (12 if is_src else 16)
    is_icmp = h.protocol == ICMP
    port_at = h.l4_offset + (4 if is_icmp else 0 if is_src else 2)
    address, port = end[0], end[1].to_bytes(2, "big")
    old_address, old_port = data[at : at + 4], data[port_at : port_at + 2]
    data = _replaced(_replaced(data, at, address), port_at, port)
    ip_sum = h.l3_offset + 10
    data = _replaced(data, ip_sum, _updated(data[ip_sum : ip_sum + 2], old_address, address))
    offset = {TCP: 16, UDP: 6, ICMP: 2}[h.protocol]
    l4_sum, old = h.l4_offset + offset, b"" if is_icmp else old_address
    value = data[l4_sum : l4_sum + 2]
    if offset + 2 > h.l4_length or (h.protocol == UDP and value == b"\0\0"):
        return data
    value = _updated(value, old + old_port, (b"" if is_icmp else address) + port)
    if h.protocol == UDP and value == b"\0\0":
        value = b"\xff\xff"
    return _replaced(data, l4_sum, value)


def _rewritten(
    frame: bytes, h: Headers, src: _Endpoint | None = None, dst: _Endpoint | None = None
) -> bytes:
    end = src or dst
    assert end is not None
    return _set_end(frame, h, end, is_src=src is not None)


def _error_rewritten(
    frame: bytes,
    h: Headers,
    inner: Headers,
    src: _Endpoint | None = None,
    dst: _Endpoint | None = None,
) -> bytes:
    """Replace one end of the embedded packet, and the other end of the error itself."""
    end = src or dst
    assert end is not None
    data = _set_end(frame, inner, end, is_src=src is not None)
    at = h.l3_offset + (16 if src else 12)
    old, data = data[at : at + 4], _replaced(data, at, end[0])
    ip_sum = h.l3_offset + 10
    data = _replaced(data, ip_sum, _updated(data[ip_sum : ip_sum + 2], old, end[0]))
    return _replaced(
        data,
        h.l4_offset + 2,
        checksum(
            _replaced(data, h.l4_offset + 2, b"\0\0")[h.l4_offset : h.l4_offset + h.l4_length]
        ).to_bytes(2, "big"),
    )
