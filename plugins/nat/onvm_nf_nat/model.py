# SPDX-License-Identifier: Apache-2.0
"""What the NAT does, in plain Python: slow, short, the oracle of the C kernel.

Readings chosen:

* A mapping is endpoint-independent (RFC 4787 REQ-1) and lives as long as one of its sessions; a
  session is a mapping and one remote endpoint, opened by any outbound packet (RFC 5382 leaves a
  segment without SYN to the NAT). The VLANs of a packet belong to its inside endpoint.
* An inside address has one external address, by a hash (paired pooling, RFC 4787 REQ-2).
* The external port is the next free one behind a place that a keyed hash of the inside endpoint
  gives, of the same parity while there is one, and below 1024 if and only if the inside port is,
  while there is one. A freed port rests (RFC 6888 REQ-8).
* Outbound packets refresh a session; inbound ones only for TCP, or when configured.
* ICMP queries go out and their replies come in; nothing else of them.
* Fragments behind the first one follow it, if it came before them less than 30 seconds ago.
* An ICMP error needs a session (inbound) or a mapping (outbound) and changes no timer.
* Without room for a session, the one idle for longest gives way: closed TCP first, then TCP that is
  opening, ICMP, UDP that was not answered, and what an inside address has beyond half of the table.
* Checksums are computed whole here where the kernel updates them; on correct packets both agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address

from onvm_nf_nat.config import NatConfig
from onvm_sdk.headers import ICMP, L3, L4, TCP, UDP, Headers, checksum, read_headers

__all__ = ["Drop", "NatModel", "Translated", "siphash"]

_NS = 1_000_000_000
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_ERRORS = (3, 4, 11, 12)
_QUERIES, _REPLIES = (8, 13, 15, 17, 42), (0, 14, 16, 18, 43)
_WELL_KNOWN_END = 1024
_GRAIN_NS = _NS  # how exact the order of the queues is
_MASK = (1 << 64) - 1
_DATAGRAMS_MAX, _DATAGRAM_NS = 4096, 30 * _NS
# ARP, EAPOL, LLDP, Ethernet's slow protocols, PTP: they carry no IP and do not leave a link
_LINK_TYPES = (0x0806, 0x888E, 0x88CC, 0x8809, 0x88F7)
_Vlans = tuple[int, int, int, int]
_Endpoint = tuple[bytes, int]  # address, port or query identifier
_Key = tuple[int, _Vlans, bytes, int]  # protocol, VLANs, inside address, port
_Remote = tuple[bytes, int]


class Drop(Exception):  # noqa: N818  a verdict
    """The packet goes; `args` has the reason."""


@dataclass(frozen=True)
class Translated:
    """A packet as it leaves; `is_hairpin`: back to where it came from."""

    data: bytes
    is_hairpin: bool = False


class _Life(IntEnum):
    """What idle time a session has, in the order in which sessions give way."""

    CLOSING = 0
    OPENING = 1
    ICMP = 2
    UDP_NEW = 3
    SURPLUS_UDP = 4
    SURPLUS_TCP = 5
    UDP = 6
    ESTABLISHED = 7


_SURPLUS = {_Life.UDP: _Life.SURPLUS_UDP, _Life.ESTABLISHED: _Life.SURPLUS_TCP}
_WANTED = {surplus: life for life, surplus in _SURPLUS.items()}


@dataclass(eq=False)
class _Session:
    key: _Key
    remote: _Remote
    life: _Life
    used_ns: int
    queued_ns: int
    seen: set[bool] = field(default_factory=set)  # True: inbound
    finished: set[bool] = field(default_factory=set)
    is_reset: bool = False

    @property
    def is_closed(self) -> bool:
        return self.is_reset or len(self.finished) == 2


@dataclass
class _Mapping:
    external: bytes
    port: int
    sessions: dict[_Remote, _Session] = field(default_factory=dict)
    freed_ns: int = 0


def siphash(key: tuple[int, int], data: bytes) -> int:
    """SipHash-1-3 of 16 bytes (Aumasson, Bernstein, 2012)."""
    v0, v1, v2, v3 = (
        word ^ key[i & 1]
        for i, word in enumerate(
            (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
        )
    )

    def rotated(value: int, by: int) -> int:
        return (value << by | value >> (64 - by)) & _MASK

    def sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
        v0, v2 = (v0 + v1) & _MASK, (v2 + v3) & _MASK
        v1, v3 = rotated(v1, 13) ^ v0, rotated(v3, 16) ^ v2
        v0 = rotated(v0, 32)
        v2, v0 = (v2 + v1) & _MASK, (v0 + v3) & _MASK
        v1, v3 = rotated(v1, 17) ^ v2, rotated(v3, 21) ^ v0
        return v0, v1, rotated(v2, 32), v3

    words = [int.from_bytes(data[i : i + 8], "little") for i in (0, 8)]
    for word in (*words, len(data) << 56):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3 ^ word)
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(3):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


class NatModel:
    """`translate` gives a packet as it leaves, or raises `Drop`."""

    def __init__(self, config: NatConfig, key: tuple[int, int] = (0, 0)) -> None:
        self.config, self.key = config, key
        self.is_routed = False
        self.externals = [address.packed for address in config.externals]
        self.mappings: dict[_Key, _Mapping] = {}
        self.resting: dict[tuple[int, bytes, int], int] = {}  # protocol, external end: freed
        self.queues: dict[_Life, list[_Session]] = {life: [] for life in _Life}
        # source, destination, identification, protocol, VLANs, inbound -> address, end, time
        self.datagrams: dict[tuple[object, ...], tuple[bytes, int, int]] = {}
        self.realms: dict[_Vlans, int] = {}  # numbers for more tags than a key holds

    def expire(self, now_ns: int) -> None:
        """Forget idle sessions and mappings without any."""
        for queue in self.queues.values():
            for session in list(queue):
                if now_ns - session.used_ns >= self._idle_ns(session.life):
                    self._close(session, session.used_ns + self._idle_ns(session.life))

    def translate(self, frame: bytes, is_reverse: bool, now_ns: int) -> Translated:
        """Handle one packet."""
        self.expire(now_ns)
        h = read_headers(frame)
        if self.is_routed and self.config.inside and h.version == 4 and h.l3 is L3.OK:
            # A router sends the answer to a hairpinned packet the way back.
            is_reverse &= not (self._is_inside(h.src) and h.dst in self.externals)
        if self._passes(frame, h, is_reverse):
            return Translated(frame)
        self._check(frame, h, is_reverse)
        if h.fragment_offset:
            return Translated(self._fragment(frame, h, is_reverse, now_ns))
        if h.protocol == ICMP and frame[h.l4_offset] in _ERRORS:
            if h.more_fragments:
                raise Drop("fragment")
            return self._error(frame, h, is_reverse)
        if is_reverse or h.dst not in self.externals:
            out = (self._in if is_reverse else self._out)(frame, h, now_ns)
            if h.more_fragments:
                self._note_fragment(frame, h, out, is_reverse, now_ns)
            return Translated(out)
        if h.more_fragments:
            raise Drop("fragment")
        self._check_hairpin(frame, h)
        out = self._out(frame, h, now_ns)
        return self._hairpinned(self._in(out, read_headers(out), now_ns))

    def _hairpinned(self, frame: bytes) -> Translated:
        if self.is_routed:
            return Translated(frame)
        return Translated(_turned(frame), is_hairpin=True)

    def _passes(self, frame: bytes, h: Headers, is_reverse: bool) -> bool:
        """Whether it is not the NAT's to translate."""
        if h.l3 is L3.NONIP:
            if len(frame) < 14:
                raise Drop("malformed")
            if not _stays_on_link(frame, h):
                raise Drop("not_ip")
            return True
        if h.version == 6:
            return True
        if h.l3 is not L3.OK:
            raise Drop("malformed")
        if not is_reverse:
            return not self._is_inside(h.src)
        if h.dst not in self.externals and self._is_inside(h.dst):
            raise Drop("no_mapping")
        return h.dst not in self.externals

    def _check(self, frame: bytes, h: Headers, is_reverse: bool) -> None:
        """Whether it can be translated."""
        if _is_no_host(h.src) or _is_no_host(h.dst):
            raise Drop("unroutable")
        if h.more_fragments and not h.fragment_offset and h.l4 in (L4.SHORT, L4.BAD_HEADER):
            raise Drop("fragment")
        if h.l4 in (L4.SHORT, L4.BAD_HEADER):
            raise Drop("malformed")
        if h.protocol not in (TCP, UDP, ICMP):
            raise Drop("protocol")
        kind = frame[h.l4_offset]
        if h.protocol == ICMP and not h.fragment_offset and kind not in _ERRORS:
            if kind not in (*_QUERIES, *_REPLIES):
                raise Drop("protocol")
            if kind not in (_REPLIES if is_reverse else _QUERIES):
                raise Drop("no_mapping")

    def _note_fragment(
        self, frame: bytes, h: Headers, out: bytes, is_reverse: bool, now_ns: int
    ) -> None:
        """Remember what became of a first fragment, for those behind it."""
        key, at = _datagram(frame, h, is_reverse), h.l3_offset + (16 if is_reverse else 12)
        self.datagrams.pop(key, None)
        if len(self.datagrams) == _DATAGRAMS_MAX:
            del self.datagrams[next(iter(self.datagrams))]
        self.datagrams[key] = out[at : at + 4], h.l4_length, now_ns

    def _fragment(self, frame: bytes, h: Headers, is_reverse: bool, now_ns: int) -> bytes:
        address, end, noted_ns = self.datagrams.get(
            _datagram(frame, h, is_reverse), (b"", 0, -_DATAGRAM_NS)
        )
        if now_ns - noted_ns >= _DATAGRAM_NS or h.fragment_offset < end:
            raise Drop("fragment")
        at, ip_sum = h.l3_offset + (16 if is_reverse else 12), h.l3_offset + 10
        value = _updated(frame[ip_sum : ip_sum + 2], frame[at : at + 4], address)
        return _replaced(_replaced(frame, at, address), ip_sum, value)

    def _error(self, frame: bytes, h: Headers, is_reverse: bool) -> Translated:
        if is_reverse:
            return Translated(self._error_in(frame, h))
        out = self._error_out(frame, h)
        if h.dst not in self.externals:
            return Translated(out)
        return self._hairpinned(self._error_in(out, read_headers(out)))

    def _is_inside(self, address: bytes) -> bool:
        nets = self.config.inside
        return not nets or any(IPv4Address(address) in net for net in nets)

    def _behind(self, protocol: int, vlans: _Vlans, external: _Endpoint) -> tuple[_Key, _Mapping]:
        for key, mapping in self.mappings.items():
            if key[:2] == (protocol, vlans) and (mapping.external, mapping.port) == external:
                return key, mapping
        raise Drop("no_mapping")

    def _external_of(self, vlans: _Vlans, address: bytes) -> bytes:
        chosen = siphash((0, 0), address + bytes(6) + self._packed(vlans) + bytes(3))
        return self.externals[chosen % len(self.externals)]

    def _packed(self, vlans: _Vlans) -> bytes:
        if vlans[2:] == (0, 0) and vlans[0] != 0xFFF:
            return (vlans[0] << 12 | vlans[1]).to_bytes(3, "big")
        number = self.realms.setdefault(vlans, len(self.realms))
        return (0xFFF000 | number).to_bytes(3, "big")

    def _take_port(self, key: _Key, external: bytes, now_ns: int) -> int:
        protocol, vlans, address, wanted = key
        rest_ns = self.config.settings.port_rest_s * _NS
        used = {
            m.port
            for (p, *_), m in self.mappings.items()
            if (p, m.external) == (protocol, external)
        }
        used |= {
            port
            for (p, e, port), freed_ns in self.resting.items()
            if (p, e) == (protocol, external) and now_ns - freed_ns < rest_ns
        }
        data = (
            address + wanted.to_bytes(2, "big") + bytes([protocol]) + bytes(3) + self._packed(vlans)
        )
        if (
            self.config.settings.preserve_port
            and wanted in self.config.ports
            and wanted not in used
        ):
            self.resting.pop((protocol, external, wanted), None)
            return wanted
        start = siphash(self.key, data + bytes(3))
        for ports in self._port_ranges(protocol, wanted):
            order = [ports[(start + i) % len(ports)] for i in range(len(ports))]
            if self.config.settings.preserve_parity and protocol != ICMP:
                order.sort(key=lambda port: (port - wanted) % 2)  # stable
            for port in order:
                if port not in used:
                    self.resting.pop((protocol, external, port), None)
                    return port
        raise Drop("exhausted")

    def _port_ranges(self, protocol: int, wanted: int) -> Iterator[range]:
        block = self.config.ports
        low = range(block.start, min(block.stop, _WELL_KNOWN_END))
        high = range(max(block.start, _WELL_KNOWN_END), block.stop)
        if protocol == ICMP or not low or not high:
            yield block
        elif wanted < _WELL_KNOWN_END:
            yield low
            yield high
        else:
            yield high

    def _open(self, key: _Key, remote: _Remote, now_ns: int) -> _Mapping:
        protocol, vlans, address, _ = key
        mapping = self.mappings.get(key)
        if mapping is not None and remote in mapping.sessions:
            return mapping
        if mapping is None:
            n_ports = sum(other[:3] == key[:3] for other in self.mappings)
            if n_ports >= self.config.subscriber_ports:
                raise Drop("subscriber_limit")
            external = self._external_of(vlans, address)
            mapping = _Mapping(external, self._take_port(key, external, now_ns))
        self.mappings[key] = mapping
        life = {TCP: _Life.OPENING, UDP: _Life.UDP_NEW, ICMP: _Life.ICMP}[protocol]
        session = _Session(key, remote, life, now_ns, now_ns)
        mapping.sessions[remote] = session  # it holds its mapping while others give way
        if sum(map(len, self.queues.values())) >= self.config.settings.max_sessions:
            self._give_way(session, now_ns)
        self.queues[life].append(session)
        return mapping

    def _give_way(self, session: _Session, now_ns: int) -> None:
        for life in list(_Life)[: _Life.UDP]:
            if self.queues[life]:
                self._close(self.queues[life][0], now_ns)
                return
        mapping = self.mappings[session.key]
        del mapping.sessions[session.remote]
        if not mapping.sessions:
            del self.mappings[session.key]
        raise Drop("table_full")

    def _close(self, session: _Session, freed_ns: int) -> None:
        self.queues[session.life].remove(session)
        mapping = self.mappings[session.key]
        mapping.freed_ns = max(mapping.freed_ns, freed_ns)
        del mapping.sessions[session.remote]
        if not mapping.sessions:
            del self.mappings[session.key]
            if session.key[0] != TCP:  # RFC 6888 REQ-8 A
                self.resting[session.key[0], mapping.external, mapping.port] = mapping.freed_ns

    def _idle_ns(self, life: _Life) -> int:
        text = self.config.settings
        seconds = {
            _Life.CLOSING: text.tcp_closing_s,
            _Life.OPENING: text.tcp_opening_s,
            _Life.ICMP: text.icmp_s,
            _Life.UDP_NEW: text.udp_s,
            _Life.SURPLUS_UDP: text.udp_s,
            _Life.SURPLUS_TCP: text.tcp_established_s,
            _Life.UDP: text.udp_s,
            _Life.ESTABLISHED: text.tcp_established_s,
        }
        return seconds[life] * _NS

    def _use(self, session: _Session, h: Headers, is_inbound: bool, now_ns: int) -> None:
        if h.protocol == TCP and _opens(h) and session.is_closed:
            session.seen.clear()
            session.finished.clear()
        session.seen.add(is_inbound)
        if h.protocol != TCP and is_inbound and not self.config.settings.inbound_refresh:
            return
        life, is_both = _WANTED.get(session.life, session.life), len(session.seen) == 2
        if h.protocol == TCP:
            if h.tcp_flags & _FIN:
                session.finished.add(is_inbound)
            session.is_reset = bool(h.tcp_flags & _RST)
            life = _Life.ESTABLISHED if is_both else _Life.OPENING
            if session.is_closed:
                life = _Life.CLOSING
        elif h.protocol == UDP and is_both:
            life = _Life.UDP
        session.used_ns = now_ns
        if life is not _WANTED.get(session.life, session.life):
            self.queues[session.life].remove(session)
            session.life, session.queued_ns = self._within_share(session, life), now_ns
            self.queues[session.life].append(session)
        elif now_ns - session.queued_ns >= _GRAIN_NS:
            self.queues[session.life].remove(session)
            session.queued_ns = now_ns
            self.queues[session.life].append(session)

    def _within_share(self, session: _Session, life: _Life) -> _Life:
        """Sessions of one inside address beyond its share give way."""
        lasting = [s for kept in _SURPLUS for s in self.queues[kept]]
        n_own = sum(other.key[1:3] == session.key[1:3] for other in lasting)
        return _SURPLUS.get(life, life) if n_own >= self.config.subscriber_sessions else life

    def _out(self, frame: bytes, h: Headers, now_ns: int) -> bytes:
        key, remote = _out_key(frame, h), (h.dst, h.dst_port if h.has_ports else 0)
        mapping = self._open(key, remote, now_ns)
        self._use(mapping.sessions[remote], h, False, now_ns)
        return _rewritten(frame, h, src=(mapping.external, mapping.port))

    def _in(self, frame: bytes, h: Headers, now_ns: int) -> bytes:
        port = h.dst_port if h.has_ports else _identifier(frame, h)
        key, mapping = self._behind(h.protocol, _vlans(frame, h), (h.dst, port))
        remote = (h.src, h.src_port if h.has_ports else 0)
        if not self._allows(mapping, remote):
            raise Drop("filtered")
        if remote in mapping.sessions:
            self._use(mapping.sessions[remote], h, True, now_ns)
        return _rewritten(frame, h, dst=key[2:])

    def _allows(self, mapping: _Mapping, remote: _Remote) -> bool:
        filtering = self.config.settings.filtering
        if filtering == "address-dependent":
            return any(address == remote[0] for address, _ in mapping.sessions)
        return remote in mapping.sessions or filtering == "endpoint-independent"

    def _check_hairpin(self, frame: bytes, h: Headers) -> None:
        """Whether it will arrive, before anything is opened for it."""
        if h.protocol == ICMP:  # a query has one identifier, that of the end that asks
            raise Drop("no_mapping")
        key = _out_key(frame, h)
        _, target = self._behind(h.protocol, key[1], (h.dst, h.dst_port))
        own = self.mappings.get(key)
        external = own.external if own else self._external_of(key[1], h.src)
        if not self._allows(target, (external, own.port if own else -1)):
            raise Drop("filtered")

    def _error_in(self, frame: bytes, h: Headers) -> bytes:
        inner = _embedded(frame, h)
        if checksum(frame[inner.l3_offset : inner.l4_offset]) != 0:  # RFC 5508 REQ-3a
            raise Drop("malformed")
        if inner.protocol not in (TCP, UDP, ICMP) or inner.src not in self.externals:
            raise Drop("no_mapping")
        end = (inner.src, inner.src_port)
        key, mapping = self._behind(inner.protocol, _vlans(frame, h), end)
        port = 0 if inner.protocol == ICMP else inner.dst_port
        if (inner.dst, port) not in mapping.sessions:
            raise Drop("no_mapping")
        return _error_rewritten(frame, h, inner, src=key[2:])

    def _error_out(self, frame: bytes, h: Headers) -> bytes:
        inner = _embedded(frame, h)
        mapping = self.mappings.get((inner.protocol, _vlans(frame, h), inner.dst, inner.dst_port))
        if mapping is None:
            raise Drop("no_mapping")
        return _error_rewritten(frame, h, inner, dst=(mapping.external, mapping.port))


def _opens(h: Headers) -> bool:
    return h.tcp_flags & (_SYN | _ACK | _RST) == _SYN


def _is_no_host(address: bytes) -> bool:
    first = address[0]
    return first in (0, 127) or 224 <= first < 240 or address == b"\xff\xff\xff\xff"


def _stays_on_link(frame: bytes, h: Headers) -> bool:
    kind = int.from_bytes(frame[h.l3_offset - 2 : h.l3_offset], "big")
    return kind in _LINK_TYPES or (
        kind < 1536 and frame[h.l3_offset : h.l3_offset + 3] == b"\x42\x42\x03"  # spanning tree
    )


def _vlans(frame: bytes, h: Headers) -> _Vlans:
    tags = [int.from_bytes(frame[at : at + 2], "big") & 0xFFF for at in range(14, h.l3_offset, 4)]
    a, b, c, d = tags + [0] * (4 - len(tags))
    return a, b, c, d


def _identifier(frame: bytes, h: Headers) -> int:
    return int.from_bytes(frame[h.l4_offset + 4 : h.l4_offset + 6], "big")


def _out_key(frame: bytes, h: Headers) -> _Key:
    port = h.src_port if h.has_ports else _identifier(frame, h)
    return h.protocol, _vlans(frame, h), h.src, port


def _datagram(frame: bytes, h: Headers, is_reverse: bool) -> tuple[object, ...]:
    """What a datagram is known by while it is in pieces (RFC 791)."""
    identification = frame[h.l3_offset + 4 : h.l3_offset + 6]
    return h.src, h.dst, identification, h.protocol, _vlans(frame, h), is_reverse


def _turned(frame: bytes) -> bytes:
    return frame[6:12] + frame[:6] + frame[12:]


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
        if l4[0] not in (*_QUERIES, *_REPLIES):
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
