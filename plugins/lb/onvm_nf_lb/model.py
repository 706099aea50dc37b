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
* A connection to a backend that is down begins again with a SYN, or with any packet of UDP. Where
  the VIP resets, the next segment of the client is answered by a reset instead.
* A backend fails a client if it resets a connection before it has accepted it, or if the client
  repeats its SYN half a second or more after the last one. Its SYN ends a row of failures.
* Where packets are not translated, replies are the reverse of the client's tuple and pass as they
  are. They need not come by, so such a connection is established by any packet of the client but a
  SYN, and closed by the client's FIN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain

from onvm_nf_lb.config import Backend, LbConfig, Vip
from onvm_nf_lb.model_frames import (
    End,
    echo_reply,
    embedded,
    encapsulated,
    error_done,
    may_be_too_big,
    reset,
    set_end,
    too_big,
    unreachable,
)
from onvm_nf_lb.model_maglev import flow_hash, maglev_table
from onvm_nf_lb.shares import Health, Shares, initial_shares
from onvm_sdk.headers import ICMP, ICMPV6, L3, L4, TCP, UDP, Headers, read_headers

__all__ = ["Done", "Drop", "LbModel", "Usage"]

_NS = 1_000_000_000
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_Key = tuple[tuple[int, ...], int, End, End]  # VLANs, protocol, source, destination
_GRAIN_NS = _NS  # how exact the order of the queues is
_HANDSHAKE_WINDOW = 1 << 20
_PORT_TRIES = 64
_RETRY_NS = _NS // 2


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
class Usage:
    """What a backend of a VIP carries, and its failures in a row."""

    health: Health = Health.UP
    opened: int = 0
    packets: list[int] = field(default_factory=lambda: [0, 0])
    size: list[int] = field(default_factory=lambda: [0, 0])
    failures: int = 0
    failing_ns: int = 0
    is_failing: bool = False


@dataclass(eq=False)
class _Connection:
    key: _Key
    backend: End
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
    usage: Usage | None = None
    forward: str = "nat"
    outer: bytes = b""  # the backend's address, where packets are not translated

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
        self.usages: dict[tuple[tuple[bytes, int, int], Backend], Usage] = {}
        self.update(config)

    def update(self, config: LbConfig, shares: Shares | None = None) -> None:
        """Take other VIPs and backends. Connections stay, but for UDP of removed backends."""
        self.config = config
        self.usages = {
            name: self.usages.get(name, Usage())
            for name in (_name(vip, b) for vip in config.vips for b in vip.backends)
        }
        self.set_health(initial_shares(config) if shares is None else shares)
        for connection in list(self.there.values()):
            vip = self._vip(connection.key)
            connection.usage = self._usage(vip, connection) if vip else None
            connection.is_orphan = connection.usage is None
            if connection.is_orphan and connection.key[1] == UDP:
                self._close(connection)

    def set_health(self, shares: Shares) -> None:
        """Take other weights for new connections, and which backends are down."""
        self.tables = {}
        for vip, listed in zip(self.config.vips, shares, strict=True):
            weights = [share.weight for share in listed]
            if any(weights):
                size = self.config.settings.table_size
                self.tables[vip] = maglev_table(vip.names, size, weights)
            for backend, share in zip(vip.backends, listed, strict=True):
                self.usages[_name(vip, backend)].health = share.health

    def current(self, usage: Usage) -> int:
        """Connections to a backend."""
        return sum(connection.usage is usage for connection in self.there.values())

    def take_failing(self) -> list[Usage]:
        """Give the backends that have failed too often, once."""
        found = [usage for usage in self.usages.values() if usage.is_failing]
        for usage in found:
            usage.is_failing = False
        return found

    def _usage(self, vip: Vip, connection: _Connection) -> Usage | None:
        address, port = connection.backend
        if vip.forward != connection.forward:
            return None
        if connection.forward != "nat":
            address = connection.outer
        for wanted in (port, 0 if port == connection.key[3][1] else port):
            for backend in vip.backends:
                if (backend.address.packed, backend.port) == (address, wanted):
                    return self.usages[_name(vip, backend)]
        return None

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
        if connection and _restarts(connection, h):
            self._close(connection)
            connection = None
        if connection is None and key in self.back:
            connection = self.back[key]
            self._note_failure(connection, h, True, now_ns)
            self._count(connection, frame, True)
            self._use(connection, frame, h, True, now_ns)
            _, _, client, vip_end = connection.key
            return Done(set_end(set_end(frame, h, True, vip_end), h, False, client))
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
                return Done(set_end(frame, h, True, ends.pop()) if is_reply else frame)
        if connection.usage and connection.usage.health is Health.DOWN_RESET:
            self._close(connection)
            if h.tcp_flags & _RST or not self._may_answer(h):
                raise Drop("no_backend")
            return Done(reset(frame, h), is_out=True)
        self._note_failure(connection, h, False, now_ns)
        self._count(connection, frame, False)
        self._use(connection, frame, h, False, now_ns)
        if connection.forward != "nat":
            return self._forward(frame, h, connection, key)
        client = key[2][0], connection.port
        return Done(set_end(set_end(frame, h, True, client), h, False, connection.backend))

    def _is_vip(self, address: bytes) -> bool:
        return any(vip.address.packed == address for vip in self.config.vips)

    def _vip(self, key: _Key) -> Vip | None:
        _, protocol, _, (address, destination) = key
        for port in (destination, 0):
            for vip in self.config.vips:
                if (vip.address.packed, vip.protocol, vip.port) == (address, protocol, port):
                    return vip
        return None

    def _services_at(self, end: End, protocol: int) -> set[End]:
        """The VIPs that have a server at this end."""
        return {
            (vip.address.packed, vip.port)
            for vip in self.config.vips
            for backend in vip.backends
            if vip.port
            and vip.forward == "nat"
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
        if vip.forward != "nat":
            connection.backend, connection.forward = dst, vip.forward
            connection.outer = chosen.address.packed
            if connection.reply == key or not self._is_free(connection.reply):
                raise Drop("conflict")
        else:
            self._choose_port(connection, h)
        if len(self.there) >= self.config.settings.max_connections:
            self._give_way()
        connection.usage = self.usages[_name(vip, chosen)]
        connection.usage.opened += 1
        return self._add(connection, h)

    def _choose_port(self, connection: _Connection, h: Headers) -> None:
        _, protocol, src, dst = connection.key
        for port in self._ports(src, dst, protocol, h.version):
            connection.port = port
            if self._is_free(connection.reply):
                return
        raise Drop("conflict")

    def _forward(self, frame: bytes, h: Headers, connection: _Connection, key: _Key) -> Done:
        """Send a packet of a client to its backend without translation."""
        text = self.config.settings
        vip = self._vip(connection.key)
        backend = next(
            (
                backend
                for backend in (vip.backends if vip else ())
                if vip and self.usages.get(_name(vip, backend)) is connection.usage
            ),
            None,
        )
        if connection.forward == "dsr" and backend is None:
            raise Drop("no_backend")
        if connection.forward != "dsr":
            source = self.config.tunnel_sources[len(connection.outer)]
            port = 0xC000 | flow_hash(key[2], key[3], key[1], h.version, False) >> 32 & 0x3FFF
            ports = (port, text.gue_port) if connection.forward == "gue" else None
            added = (40 if len(connection.outer) == 16 else 20) + (8 if ports else 0)
            if h.l4_offset + h.l4_length - h.l3_offset + added > text.tunnel_mtu:
                if not self._may_answer(h) or not may_be_too_big(frame, h):
                    raise Drop("too_big")
                return Done(too_big(frame, h, text.tunnel_mtu - added), is_out=True)
            frame = encapsulated(frame, h, source, connection.outer, ports)
        mac = backend.mac if backend else b""
        return Done((mac or frame[:6]) + frame[6:])

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

    def _ports(self, src: End, dst: End, protocol: int, version: int) -> Iterator[int]:
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

    def _count(self, connection: _Connection, frame: bytes, is_reply: bool) -> None:
        if connection.usage is not None:
            connection.usage.packets[is_reply] += 1
            connection.usage.size[is_reply] += len(frame)

    def _note_failure(
        self, connection: _Connection, h: Headers, is_reply: bool, now_ns: int
    ) -> None:
        usage, vip = connection.usage, self._vip(connection.key)
        kind = h.tcp_flags & (_SYN | _ACK | _RST)
        if h.protocol != TCP or usage is None or True in connection.seen:
            return
        if not connection.is_handshake:
            return
        if is_reply and kind == _SYN | _ACK:
            usage.failures = 0
        is_repeated = (
            kind == _SYN and False in connection.seen and now_ns - connection.used_ns >= _RETRY_NS
        )
        if vip is None or vip.passive is None or not (kind & _RST if is_reply else is_repeated):
            return
        if usage.failures and now_ns - usage.failing_ns >= vip.passive.window_s * _NS:
            usage.failures = 0
        if usage.failures == 0:
            usage.failing_ns = now_ns
        usage.failures += 1
        if usage.failures == vip.passive.failures:
            usage.failures, usage.is_failing = 0, True

    def _idle_s(self, life: _Life) -> int:
        text = self.config.settings
        return (text.tcp_closing_s, text.opening_s, text.udp_s, text.tcp_established_s)[life]

    def _use(
        self, connection: _Connection, frame: bytes, h: Headers, is_reply: bool, now_ns: int
    ) -> None:
        connection.used_ns = now_ns
        connection.seen.add(is_reply)
        if connection.forward != "nat":
            _track_one_way(connection, h)
        elif h.protocol == TCP:
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
            return Done(echo_reply(frame, h), is_out=True)
        raise Drop("no_service")

    def _error(self, frame: bytes, h: Headers, is_vip: bool) -> Done:
        """An error reaches the end of the connection that sent what it quotes, as that sent it."""
        inner = embedded(frame, h)
        if inner is None:
            if is_vip:
                raise Drop("malformed")
            return Done(frame)
        vlans, src, dst = _vlans(frame), (inner.src, inner.src_port), (inner.dst, inner.dst_port)
        there = self.there.get((vlans, inner.protocol, dst, src))
        back = self.back.get((vlans, inner.protocol, dst, src))
        if h.dst == inner.src and there is not None and there.forward != "nat":
            return self._forward(frame, h, there, there.key)
        if h.dst == inner.src and (there or back or _NONE).is_direct:
            return Done(frame)
        if h.dst == inner.src and there is not None:
            quoted = set_end(frame, inner, True, there.backend)
            quoted = set_end(quoted, inner, False, (inner.dst, there.port))
            return Done(error_done(frame, quoted, h, False, there.backend[0]))
        if h.dst == inner.src and back is not None:
            _, _, client, vip = back.key
            quoted = set_end(set_end(frame, inner, False, vip), inner, True, client)
            return Done(error_done(frame, quoted, h, True, vip[0]))
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
            return Done(reset(frame, h), is_out=True)
        return Done(unreachable(frame, h), is_out=True)


def _name(vip: Vip, backend: Backend) -> tuple[tuple[bytes, int, int], Backend]:
    service = (vip.address.packed, vip.protocol, vip.port)
    return service, Backend(backend.address, backend.port)


def _restarts(connection: _Connection, h: Headers) -> bool:
    is_down = connection.usage is not None and connection.usage.health is not Health.UP
    if h.protocol == UDP:
        return is_down
    return _opens(h) and (connection.is_closed or connection.is_orphan or is_down)


def _opens(h: Headers) -> bool:
    return h.protocol == TCP and h.tcp_flags & (_SYN | _ACK | _RST) == _SYN


def _vlans(frame: bytes) -> tuple[int, ...]:
    end = read_headers(frame).l3_offset
    vlans = [int.from_bytes(frame[at : at + 2], "big") & 0xFFF for at in range(14, end, 4)]
    return tuple(vlans + [0] * (4 - len(vlans)))


def _key(frame: bytes, h: Headers) -> _Key:
    return _vlans(frame), h.protocol, (h.src, h.src_port), (h.dst, h.dst_port)


def _track_one_way(connection: _Connection, h: Headers) -> None:
    """Follow a packet where replies may take another way."""
    if h.protocol != TCP or not h.tcp_flags & _SYN:
        connection.seen |= {False, True}
        connection.is_handshake = False
    if h.tcp_flags & _FIN:
        connection.finished |= {False, True}
    connection.is_reset = h.protocol == TCP and bool(h.tcp_flags & _RST)


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
