# SPDX-License-Identifier: Apache-2.0
"""What the load balancer does, in plain Python: slow, short, the oracle of the C kernel.

Readings chosen:

* Permutations are those of the Maglev paper; a backend's offset and skip are BLAKE2b of its name.
  Backends take their turns in the order of their names, so the order of a configuration does not
  matter. A weighted backend takes part in weight / max(weights) of the turns, and in the first.
* A connection is opened by any packet to a VIP and stays with its backend until it is idle, or
  until a SYN follows after both ends have closed it or its backend was removed.
* A TCP connection that begins with a SYN is established when the client acknowledges the number
  of the backend's SYN; others when both ends were heard.
* Connections that are opening or closing, or idle ones of UDP, give way when the table is full;
  the one that was used longest ago goes first.
* One client port that reaches one backend port through two VIPs at a time: replies must differ, so
  the later connection has another client port towards the backend.
* For an address of a VIP nothing passes but NDP, which no router forwards.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b
from itertools import chain

from onvm_nf_lb.config import LbConfig, Vip
from onvm_sdk.headers import ICMP, ICMPV6, L3, L4, TCP, UDP, Headers, checksum, read_headers

__all__ = ["Done", "Drop", "LbModel", "flow_hash", "maglev_fill", "maglev_table", "permutation"]

_NS = 1_000_000_000
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_MASK = (1 << 64) - 1
_End = tuple[bytes, int]
_Key = tuple[tuple[int, ...], int, _End, _End]  # VLANs, protocol, source, destination
_GRAIN_NS = _NS  # how exact the order of the queues is
_HANDSHAKE_WINDOW = 1 << 20
_PORT_TRIES = 64
_EXTENSIONS = (0, 43, 44, 51, 60, 135, 139, 140)


def permutation(name: str, size: int) -> tuple[int, int]:
    """Give offset and skip of a backend in a table of `size` slots."""
    offset, skip = (
        int.from_bytes(blake2b(name.encode(), digest_size=8, person=person).digest(), "little")
        for person in (b"offset", b"skip")
    )
    return offset % size, skip % (size - 1) + 1


def maglev_fill(
    permutations: Sequence[tuple[int, int]], size: int, weights: Sequence[int]
) -> array[int]:
    """Fill a lookup table from (offset, skip) of each backend, in their order."""
    table, position = array("l", [-1]) * size, [offset for offset, _ in permutations]
    most, filled = max(weights), 0
    credit = [most] * len(permutations)  # so that each has a turn in the first round
    while True:
        for i, (_, skip) in enumerate(permutations):
            credit[i] += weights[i]
            if credit[i] < most or weights[i] == 0:
                continue
            credit[i] -= most
            while table[position[i]] >= 0:
                position[i] = (position[i] + skip) % size
            table[position[i]] = i
            filled += 1
            if filled == size:
                return table


def maglev_table(
    backends: Sequence[str], size: int = 65537, weights: Sequence[int] | None = None
) -> array[int]:
    """Spread backends over a consistent-hashing lookup table.

    Args:
        backends: names, unique; their order does not change which name owns a slot.
        size: slots, a prime well above ``len(backends)``.
        weights: one per backend, not all 0; None: all equal.

    Returns:
        `size` entries, each an index into `backends`. With equal weights two
        backends differ by at most one slot.

    Raises:
        ValueError: `backends` is empty or has more names than `size`.

    Source:
        Eisenbud et al., "Maglev", NSDI 2016, section 3.4.
    """
    if not 0 < len(backends) < size:
        raise ValueError(f"expected 1 to {size - 1} backends, got {len(backends)}")
    given = [1] * len(backends) if weights is None else weights
    order = sorted(range(len(backends)), key=backends.__getitem__)
    table = maglev_fill(
        [permutation(backends[i], size) for i in order], size, [given[i] for i in order]
    )
    return array("l", (order[entry] for entry in table))


def flow_hash(src: _End, dst: _End, protocol: int, version: int, by_client: bool) -> int:
    """Hash that chooses the slot: FNV-1a, then the finalizer of MurmurHash3."""
    data = src[0].ljust(16, b"\0")
    if not by_client:
        data += dst[0].ljust(16, b"\0")
        data += src[1].to_bytes(2, "big") + dst[1].to_bytes(2, "big") + bytes((protocol, version))
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & _MASK
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & _MASK
    return value ^ value >> 33


class Drop(Exception):  # noqa: N818  a verdict
    """The packet goes; `args` has the reason."""


@dataclass(frozen=True)
class Done:
    """A packet as it leaves; `is_out`: by the port it came from."""

    data: bytes
    is_out: bool = False


class _Life(IntEnum):
    """What idle time a connection has, in the order in which connections give way."""

    CLOSING = 0
    OPENING = 1
    UDP = 2
    ESTABLISHED = 3


@dataclass(eq=False)
class _Connection:
    key: _Key
    backend: _End
    port: int  # the client's, as the backend sees it
    used_ns: int
    queued_ns: int = 0
    life: _Life = _Life.OPENING
    seen: set[bool] = field(default_factory=set)  # True: the backend
    finished: set[bool] = field(default_factory=set)
    is_reset: bool = False
    is_handshake: bool = False
    number: int = 0  # of the backend's SYN
    is_orphan: bool = False  # its backend was removed

    @property
    def is_closed(self) -> bool:
        return self.is_reset or len(self.finished) == 2

    @property
    def is_direct(self) -> bool:
        return self.backend == self.key[3]

    @property
    def reply(self) -> _Key:
        vlans, protocol, client, _ = self.key
        return vlans, protocol, self.backend, (client[0], self.port)


_NONE = _Connection(((), 0, (b"", 0), (b"", 0)), (b"none", 0), 0, 0)


class LbModel:
    """`balance` says what becomes of a packet."""

    def __init__(self, config: LbConfig) -> None:
        self.there: dict[_Key, _Connection] = {}
        self.back: dict[_Key, _Connection] = {}
        self.queues: dict[_Life, list[_Connection]] = {life: [] for life in _Life}
        self.update(config)

    def update(self, config: LbConfig) -> None:
        """Take other VIPs and backends. Connections stay, but for UDP of removed backends."""
        self.config = config
        self.tables = {
            vip: maglev_table(
                vip.names, config.settings.table_size, [b.weight for b in vip.backends]
            )
            for vip in config.vips
            if any(b.weight for b in vip.backends)
        }
        for connection in list(self.there.values()):
            vip = self._vip(connection.key)
            port = connection.key[3][1]
            ends = [(b.address.packed, b.port or port) for b in vip.backends] if vip else []
            connection.is_orphan = connection.backend not in ends
            if connection.is_orphan and connection.key[1] == UDP:
                self._close(connection)

    def expire(self, now_ns: int) -> None:
        """Forget idle connections."""
        for connection in list(self.there.values()):
            if now_ns - connection.used_ns >= self._idle_s(connection.life) * _NS:
                self._close(connection)

    def balance(self, frame: bytes, now_ns: int) -> Done:
        """Handle one packet."""
        self.expire(now_ns)
        h = read_headers(frame)
        if h.l3 is not L3.OK:
            if h.l3 is L3.NONIP:
                return Done(frame)
            raise Drop("malformed")
        is_vip = self._is_vip(h.dst)
        if h.l4 is not L4.OK or h.is_fragment:
            if not is_vip:
                return Done(frame)
            if h.is_fragment:
                raise Drop("fragment")
            raise Drop("no_service" if h.l4 is L4.NONE else "malformed")
        if h.protocol == (ICMP if h.version == 4 else ICMPV6):
            return self._icmp(frame, h, is_vip)
        if h.protocol in (TCP, UDP):
            return self._transport(frame, h, is_vip, now_ns)
        if is_vip:
            raise Drop("no_service")
        return Done(frame)

    def _transport(self, frame: bytes, h: Headers, is_vip: bool, now_ns: int) -> Done:
        key = _key(frame, h)
        connection = self.there.get(key)
        if connection and (connection.is_closed or connection.is_orphan) and _opens(h):
            self._close(connection)
            connection = None
        if connection is None and key in self.back:
            connection = self.back[key]
            self._use(connection, frame, h, True, now_ns)
            _, _, client, vip_end = connection.key
            return Done(_set_end(_set_end(frame, h, True, vip_end), h, False, client))
        if connection is None:
            vip = self._vip(key)
            if vip is not None:
                connection = self._open(vip, key, h, now_ns)
            elif self._services_at((h.dst, h.dst_port), h.protocol):
                connection = self._open_direct(key, h, now_ns)
            if connection is None and is_vip:
                return self._refuse(frame, h)
            if connection is None:
                ends = self._services_at((h.src, h.src_port), h.protocol)
                is_reply = len(ends) == 1 and not _opens(h)
                return Done(_set_end(frame, h, True, ends.pop()) if is_reply else frame)
        self._use(connection, frame, h, False, now_ns)
        client = key[2][0], connection.port
        return Done(_set_end(_set_end(frame, h, True, client), h, False, connection.backend))

    def _is_vip(self, address: bytes) -> bool:
        return any(vip.address.packed == address for vip in self.config.vips)

    def _vip(self, key: _Key) -> Vip | None:
        _, protocol, _, (address, destination) = key
        for port in (destination, 0):
            for vip in self.config.vips:
                if (vip.address.packed, vip.protocol, vip.port) == (address, protocol, port):
                    return vip
        return None

    def _services_at(self, end: _End, protocol: int) -> set[_End]:
        """The VIPs that have a server at this end."""
        return {
            (vip.address.packed, vip.port)
            for vip in self.config.vips
            for backend in vip.backends
            if vip.port
            and vip.protocol == protocol
            and (backend.address.packed, backend.port or vip.port) == end
        }

    def _open(self, vip: Vip, key: _Key, h: Headers, now_ns: int) -> _Connection:
        if vip not in self.tables:
            raise Drop("no_backend")
        _, protocol, src, dst = key
        table = self.tables[vip]
        slot = flow_hash(src, dst, protocol, h.version, vip.by_client) % len(table)
        chosen = vip.backends[table[slot]]
        backend = (chosen.address.packed, chosen.port or dst[1])
        connection = _Connection(key, backend, src[1], now_ns)
        for port in self._ports(src, dst, protocol, h.version):
            connection.port = port
            if self._is_free(connection.reply):
                break
        else:
            raise Drop("conflict")
        if len(self.there) >= self.config.settings.max_connections:
            self._give_way()
        return self._add(connection, h)

    def _open_direct(self, key: _Key, h: Headers, now_ns: int) -> _Connection | None:
        """A connection to a server itself: its replies are none of a VIP."""
        connection = _Connection(key, key[3], key[2][1], now_ns)
        if connection.reply == key or not self._is_free(connection.reply):
            return None
        if len(self.there) >= self.config.settings.max_connections:
            try:
                self._give_way()
            except Drop:
                return None
        return self._add(connection, h)

    def _add(self, connection: _Connection, h: Headers) -> _Connection:
        connection.is_handshake = _opens(h)
        self.there[connection.key] = self.back[connection.reply] = connection
        connection.queued_ns = connection.used_ns
        self.queues[_Life.OPENING].append(connection)
        return connection

    def _ports(self, src: _End, dst: _End, protocol: int, version: int) -> Iterator[int]:
        first = flow_hash(src, dst, protocol, version, False) >> 32
        return chain([src[1]], (1024 + (first + i) % 64512 for i in range(_PORT_TRIES)))

    def _is_free(self, reply: _Key) -> bool:
        other = self.back.get(reply) or self.there.get(reply)
        if other is not None and other.life is _Life.CLOSING:
            self._close(other)
            return True
        return other is None

    def _give_way(self) -> None:
        for life in (_Life.CLOSING, _Life.OPENING, _Life.UDP):
            if self.queues[life]:
                self._close(self.queues[life][0])
                return
        raise Drop("table_full")

    def _close(self, connection: _Connection) -> None:
        del self.there[connection.key]
        del self.back[connection.reply]
        self.queues[connection.life].remove(connection)

    def _idle_s(self, life: _Life) -> int:
        text = self.config.settings
        return (text.tcp_closing_s, text.opening_s, text.udp_s, text.tcp_established_s)[life]

    def _use(
        self, connection: _Connection, frame: bytes, h: Headers, is_reply: bool, now_ns: int
    ) -> None:
        connection.used_ns = now_ns
        connection.seen.add(is_reply)
        if h.protocol == TCP:
            _track(connection, frame, h, is_reply)
        life = _Life.OPENING
        if h.protocol == TCP and connection.is_closed:
            life = _Life.CLOSING
        elif len(connection.seen) == 2 and not connection.is_handshake:
            life = _Life.ESTABLISHED if h.protocol == TCP else _Life.UDP
        if life is not connection.life or now_ns - connection.queued_ns >= _GRAIN_NS:
            self.queues[connection.life].remove(connection)
            connection.life, connection.queued_ns = life, now_ns
            self.queues[life].append(connection)

    def _icmp(self, frame: bytes, h: Headers, is_vip: bool) -> Done:
        kind, is_4 = frame[h.l4_offset], h.version == 4
        if kind in ((3, 4, 11, 12) if is_4 else (1, 2, 3, 4)):
            return self._error(frame, h, is_vip)
        if not is_vip or (not is_4 and 133 <= kind <= 137):
            return Done(frame)
        if kind == (8 if is_4 else 128) and self._may_answer(h):
            return Done(_echo_reply(frame, h), is_out=True)
        raise Drop("no_service")

    def _error(self, frame: bytes, h: Headers, is_vip: bool) -> Done:
        """An error reaches the end of the connection that sent what it quotes, as that sent it."""
        inner = _embedded(frame, h)
        if inner is None:
            if is_vip:
                raise Drop("malformed")
            return Done(frame)
        vlans, src, dst = _vlans(frame), (inner.src, inner.src_port), (inner.dst, inner.dst_port)
        there = self.there.get((vlans, inner.protocol, dst, src))
        back = self.back.get((vlans, inner.protocol, dst, src))
        if h.dst == inner.src and (there or back or _NONE).is_direct:
            return Done(frame)
        if h.dst == inner.src and there is not None:
            quoted = _set_end(frame, inner, True, there.backend)
            quoted = _set_end(quoted, inner, False, (inner.dst, there.port))
            return Done(_error_done(frame, quoted, h, False, there.backend[0]))
        if h.dst == inner.src and back is not None:
            _, _, client, vip = back.key
            quoted = _set_end(_set_end(frame, inner, False, vip), inner, True, client)
            return Done(_error_done(frame, quoted, h, True, vip[0]))
        if is_vip:
            raise Drop("no_connection")
        return Done(frame)

    def _may_answer(self, h: Headers) -> bool:
        first = h.src[0]
        if h.version == 4:
            is_host = 0 < first < 224 and first != 127
        else:
            is_host = first != 255 and any(h.src)
        return is_host and not self._is_vip(h.src)

    def _refuse(self, frame: bytes, h: Headers) -> Done:
        if not self.config.settings.reject or not self._may_answer(h):
            raise Drop("no_service")
        if h.protocol == TCP:
            if h.tcp_flags & _RST:
                raise Drop("no_service")
            return Done(_reset(frame, h), is_out=True)
        return Done(_unreachable(frame, h), is_out=True)


def _opens(h: Headers) -> bool:
    return h.protocol == TCP and h.tcp_flags & (_SYN | _ACK | _RST) == _SYN


def _vlans(frame: bytes) -> tuple[int, ...]:
    end = read_headers(frame).l3_offset
    vlans = [int.from_bytes(frame[at : at + 2], "big") & 0xFFF for at in range(14, end, 4)]
    return tuple(vlans + [0] * (4 - len(vlans)))


def _key(frame: bytes, h: Headers) -> _Key:
    return _vlans(frame), h.protocol, (h.src, h.src_port), (h.dst, h.dst_port)


def _track(connection: _Connection, frame: bytes, h: Headers, is_reply: bool) -> None:
    """Follow a TCP segment."""
    number, acknowledged = (
        int.from_bytes(frame[h.l4_offset + at : h.l4_offset + at + 4], "big") for at in (4, 8)
    )
    kind = h.tcp_flags & (_SYN | _ACK | _RST)
    if is_reply and kind == _SYN | _ACK:
        connection.number = number
    if (
        not is_reply
        and kind == _ACK
        and True in connection.seen
        and (acknowledged - connection.number) % (1 << 32) < _HANDSHAKE_WINDOW
    ):
        connection.is_handshake = False
    if h.tcp_flags & _FIN:
        connection.finished.add(is_reply)
    connection.is_reset = bool(h.tcp_flags & _RST)


def _replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _updated(data: bytes, at: int, old: bytes, new: bytes) -> bytes:
    """Update the checksum at `at` (RFC 1624 equation 3)."""
    total = 0xFFFF ^ int.from_bytes(data[at : at + 2], "big")
    for i in range(0, len(old), 2):
        total += 0xFFFF ^ int.from_bytes(old[i : i + 2].ljust(2, b"\0"), "big")
        total += int.from_bytes(new[i : i + 2].ljust(2, b"\0"), "big")
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return _replaced(data, at, (0xFFFF ^ total).to_bytes(2, "big"))


def _set_end(data: bytes, h: Headers, is_src: bool, end: _End) -> bytes:
    """Replace one end of the packet whose headers are `h`, with its own checksums."""
    size = len(end[0])
    at = h.l3_offset + (12 if h.version == 4 else 8) + (0 if is_src else size)
    port_at, port = h.l4_offset + (0 if is_src else 2), end[1].to_bytes(2, "big")
    old = data[at : at + size], data[port_at : port_at + 2]
    data = _replaced(_replaced(data, at, end[0]), port_at, port)
    if h.version == 4:
        data = _updated(data, h.l3_offset + 10, old[0], end[0])
    offset = 16 if h.protocol == TCP else 6
    sum_at = h.l4_offset + offset
    if offset + 2 > h.l4_length or (h.protocol == UDP and data[sum_at : sum_at + 2] == b"\0\0"):
        return data
    data = _updated(data, sum_at, b"".join(old), end[0] + port)
    if h.protocol == UDP and data[sum_at : sum_at + 2] == b"\0\0":
        data = _replaced(data, sum_at, b"\xff\xff")
    return data


def _embedded(frame: bytes, h: Headers) -> Headers | None:
    """Read the packet inside an error, if it is one of TCP or UDP."""
    ip = frame[h.l4_offset + 8 : h.l4_offset + h.l4_length]
    if len(ip) < 20 or ip[0] >> 4 != h.version:
        return None
    inner = Headers(version=h.version, l3_offset=h.l4_offset + 8)
    if h.version == 4:
        size, inner.protocol = (ip[0] & 15) * 4, ip[9]
        inner.src, inner.dst = ip[12:16], ip[16:20]
        if size < 20 or int.from_bytes(ip[6:8], "big") & 0x1FFF:
            return None
    else:
        if len(ip) < 40:
            return None
        inner.src, inner.dst = ip[8:24], ip[24:40]
        size, inner.protocol = _behind_extensions(ip)
    l4 = ip[size:]
    if len(l4) < 8 or inner.protocol not in (TCP, UDP):
        return None
    inner.l4_offset, inner.l4_length = inner.l3_offset + size, len(l4)
    inner.src_port, inner.dst_port = (int.from_bytes(l4[i : i + 2], "big") for i in (0, 2))
    return inner


def _behind_extensions(ip: bytes) -> tuple[int, int]:
    """Where the transport header of IPv6 begins, and its protocol."""
    size, protocol = 40, ip[6]
    for _ in range(16):
        if protocol not in _EXTENSIONS or len(ip) < size + 8:
            break
        if protocol == 44 and int.from_bytes(ip[size + 2 : size + 4], "big") & 0xFFF8:
            break  # not the first fragment
        length = 8 if protocol == 44 else (ip[size + 1] + 1) * 8
        if protocol == 51:
            length = (ip[size + 1] + 2) * 4
        size, protocol = size + length, ip[size]
    return size, protocol


def _error_done(before: bytes, after: bytes, h: Headers, is_src: bool, address: bytes) -> bytes:
    """Replace an end of the error itself; its checksum covers what it quotes, which has changed."""
    end, sum_at = h.l4_offset + h.l4_length, h.l4_offset + 2
    at = h.l3_offset + (12 if h.version == 4 else 8) + (0 if is_src else len(address))
    old, after = after[at : at + len(address)], _replaced(after, at, address)
    if h.version == 4:
        after = _updated(after, h.l3_offset + 10, old, address)
    else:
        after = _updated(after, sum_at, old, address)
    return _updated(after, sum_at, before[sum_at + 2 : end], after[sum_at + 2 : end])


def _turned(frame: bytes, h: Headers) -> bytes:
    return frame[6:12] + frame[:6] + frame[12 : h.l3_offset]


def _echo_reply(frame: bytes, h: Headers) -> bytes:
    at, size, icmp = h.l3_offset + (12 if h.version == 4 else 8), len(h.src), h.l4_offset
    ttl_at = h.l3_offset + (8 if h.version == 4 else 7)
    old, data = frame, _turned(frame, h) + frame[h.l3_offset :]
    data = _replaced(_replaced(data, at, h.dst), at + size, h.src)
    data = _replaced(data, ttl_at, bytes([64]))
    if h.version == 4:
        data = _updated(data, h.l3_offset + 10, old[ttl_at : ttl_at + 2], data[ttl_at : ttl_at + 2])
    data = _replaced(data, icmp, bytes([0 if h.version == 4 else 129]))
    return _updated(data, icmp + 2, old[icmp : icmp + 2], data[icmp : icmp + 2])


def _ip(h: Headers, protocol: int, l4: bytes, sum_at: int) -> bytes:
    """An IP packet back to where one came from."""
    pseudo = h.dst + h.src + len(l4).to_bytes(4, "big") + protocol.to_bytes(4, "big")
    value = checksum((b"" if protocol == ICMP else pseudo) + l4)
    l4 = _replaced(l4, sum_at, value.to_bytes(2, "big"))
    if h.version == 6:
        return (
            b"\x60\0\0\0" + len(l4).to_bytes(2, "big") + bytes([protocol, 64]) + h.dst + h.src + l4
        )
    head = (
        b"\x45\0" + (20 + len(l4)).to_bytes(2, "big") + b"\0\0\x40\0" + bytes([64, protocol, 0, 0])
    )
    head += h.dst + h.src
    return _replaced(head, 10, checksum(head).to_bytes(2, "big")) + l4


def _reset(frame: bytes, h: Headers) -> bytes:
    """The answer to a segment for a port that is closed (RFC 9293 section 3.5.2)."""
    l4 = frame[h.l4_offset : h.l4_offset + h.l4_length]
    number, acknowledged = int.from_bytes(l4[4:8], "big"), l4[8:12]
    if h.tcp_flags & _ACK:
        middle, flags = acknowledged + bytes(4), _RST
    else:
        length = len(l4) - (l4[12] >> 4) * 4 + bool(h.tcp_flags & _SYN) + bool(h.tcp_flags & _FIN)
        middle, flags = bytes(4) + ((number + length) % (1 << 32)).to_bytes(4, "big"), _RST | _ACK
    segment = l4[2:4] + l4[:2] + middle + bytes([0x50, flags]) + bytes(6)
    return _turned(frame, h) + _ip(h, TCP, segment, 16)


def _unreachable(frame: bytes, h: Headers) -> bytes:
    """Port unreachable (RFC 792, RFC 4443), with what fits into the smallest packets."""
    most = 548 if h.version == 4 else 1232
    quoted = frame[h.l3_offset : h.l4_offset + h.l4_length][:most]
    kind = b"\x03\x03" if h.version == 4 else b"\x01\x04"
    protocol = ICMP if h.version == 4 else ICMPV6
    return _turned(frame, h) + _ip(h, protocol, kind + bytes(6) + quoted, 2)
