# SPDX-License-Identifier: Apache-2.0
"""Mappings and sessions: who gets which external port, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from onvm_nf_nat.config import NatConfig
from onvm_nf_nat.model.reading import FIN, RST, Drop, Endpoint, Key, Remote, Vlans, opens
from onvm_nf_nat.model.siphash import siphash
from onvm_sdk.headers import ICMP, TCP, UDP, Headers

__all__ = ["NS", "Mapping", "Session", "Table"]

NS = 1_000_000_000
_WELL_KNOWN_END = 1024
_GRAIN_NS = NS  # how exact the order of the queues is


class Life(IntEnum):
    """What idle time a session has, in the order in which sessions give way."""

    CLOSING = 0
    OPENING = 1
    ICMP = 2
    UDP_NEW = 3
    SURPLUS_UDP = 4
    SURPLUS_TCP = 5
    UDP = 6
    ESTABLISHED = 7


SURPLUS = {Life.UDP: Life.SURPLUS_UDP, Life.ESTABLISHED: Life.SURPLUS_TCP}
WANTED = {surplus: life for life, surplus in SURPLUS.items()}


@dataclass(eq=False)
class Session:
    key: Key
    remote: Remote
    life: Life
    used_ns: int
    queued_ns: int
    seen: set[bool] = field(default_factory=set)  # True: inbound
    finished: set[bool] = field(default_factory=set)
    is_reset: bool = False

    @property
    def is_closed(self) -> bool:
        return self.is_reset or len(self.finished) == 2


@dataclass
class Mapping:
    external: bytes
    port: int
    sessions: dict[Remote, Session] = field(default_factory=dict)
    freed_ns: int = 0
    is_forwarded: bool = False


class Table:
    """The mappings and sessions of one NAT."""

    def __init__(self, config: NatConfig, key: tuple[int, int]) -> None:
        self.config, self.key = config, key
        self.externals = [address.packed for address in config.externals]
        self.mappings: dict[Key, Mapping] = {}
        for one in config.forwards:
            if one.port in config.ports:
                external = self.externals[one.external]
                inside = one.protocol, (0, 0, 0, 0), one.inside.packed, one.inside_port
                self.mappings[inside] = Mapping(external, one.port, is_forwarded=True)
        self.resting: dict[tuple[int, bytes, int], int] = {}  # protocol, external end: freed
        self.queues: dict[Life, list[Session]] = {life: [] for life in Life}
        self.on_mapping_end: Callable[[], None] = lambda: None
        self.realms: dict[Vlans, int] = {}  # numbers for more tags than a key holds

    def expire(self, now_ns: int) -> None:
        """Forget idle sessions and mappings without any."""
        for queue in self.queues.values():
            for session in list(queue):
                if now_ns - session.used_ns >= self._idle_ns(session.life):
                    self.close(session, session.used_ns + self._idle_ns(session.life))

    def behind(self, protocol: int, vlans: Vlans, external: Endpoint) -> tuple[Key, Mapping]:
        for key, mapping in self.mappings.items():
            if key[:2] == (protocol, vlans) and (mapping.external, mapping.port) == external:
                return key, mapping
        raise Drop("no_mapping")

    def external_of(self, vlans: Vlans, address: bytes) -> bytes:
        chosen = siphash((0, 0), address + bytes(6) + self._packed(vlans) + bytes(3))
        return self.externals[chosen % len(self.externals)]

    def _packed(self, vlans: Vlans) -> bytes:
        if vlans[2:] == (0, 0) and vlans[0] != 0xFFF:
            return (vlans[0] << 12 | vlans[1]).to_bytes(3, "big")
        number = self.realms.setdefault(vlans, len(self.realms))
        return (0xFFF000 | number).to_bytes(3, "big")

    def _take_port(self, key: Key, external: bytes, now_ns: int) -> int:
        protocol, vlans, address, wanted = key
        rest_ns = self.config.settings.port_rest_s * NS
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

    def open(self, key: Key, remote: Remote, now_ns: int) -> Mapping:
        protocol, vlans, address, _ = key
        mapping = self.mappings.get(key)
        if mapping is not None and remote in mapping.sessions:
            return mapping
        if mapping is None:
            n_ports = sum(other[:3] == key[:3] for other in self.mappings)
            if n_ports >= self.config.subscriber_ports:
                raise Drop("subscriber_limit")
            external = self.external_of(vlans, address)
            mapping = Mapping(external, self._take_port(key, external, now_ns))
        self.mappings[key] = mapping
        life = {TCP: Life.OPENING, UDP: Life.UDP_NEW, ICMP: Life.ICMP}[protocol]
        session = Session(key, remote, life, now_ns, now_ns)
        mapping.sessions[remote] = session  # it holds its mapping while others give way
        if sum(map(len, self.queues.values())) >= self.config.settings.max_sessions:
            self._give_way(session, now_ns)
        self.queues[life].append(session)
        return mapping

    def _give_way(self, session: Session, now_ns: int) -> None:
        for life in list(Life)[: Life.UDP]:
            if self.queues[life]:
                self.close(self.queues[life][0], now_ns)
                return
        mapping = self.mappings[session.key]
        del mapping.sessions[session.remote]
        if not mapping.sessions and not mapping.is_forwarded:
            del self.mappings[session.key]
        raise Drop("table_full")

    def close(self, session: Session, freed_ns: int) -> None:
        self.queues[session.life].remove(session)
        mapping = self.mappings[session.key]
        mapping.freed_ns = max(mapping.freed_ns, freed_ns)
        del mapping.sessions[session.remote]
        if not mapping.sessions and not mapping.is_forwarded:
            del self.mappings[session.key]
            if session.key[0] != TCP:  # RFC 6888 REQ-8 A
                self.resting[session.key[0], mapping.external, mapping.port] = mapping.freed_ns
            self.on_mapping_end()

    def _idle_ns(self, life: Life) -> int:
        text = self.config.settings
        seconds = {
            Life.CLOSING: text.tcp_closing_s,
            Life.OPENING: text.tcp_opening_s,
            Life.ICMP: text.icmp_s,
            Life.UDP_NEW: text.udp_s,
            Life.SURPLUS_UDP: text.udp_s,
            Life.SURPLUS_TCP: text.tcp_established_s,
            Life.UDP: text.udp_s,
            Life.ESTABLISHED: text.tcp_established_s,
        }
        return seconds[life] * NS

    def use(self, session: Session, h: Headers, is_inbound: bool, now_ns: int) -> None:
        if h.protocol == TCP and opens(h) and session.is_closed:
            session.seen.clear()
            session.finished.clear()
        session.seen.add(is_inbound)
        if h.protocol != TCP and is_inbound and not self.config.settings.inbound_refresh:
            return
        life, is_both = WANTED.get(session.life, session.life), len(session.seen) == 2
        if h.protocol == TCP:
            if h.tcp_flags & FIN:
                session.finished.add(is_inbound)
            session.is_reset = bool(h.tcp_flags & RST)
            life = Life.ESTABLISHED if is_both else Life.OPENING
            if session.is_closed:
                life = Life.CLOSING
        elif h.protocol == UDP and is_both:
            life = Life.UDP
        session.used_ns = now_ns
        if life is not WANTED.get(session.life, session.life):
            self.queues[session.life].remove(session)
            session.life, session.queued_ns = self._within_share(session, life), now_ns
            self.queues[session.life].append(session)
        elif now_ns - session.queued_ns >= _GRAIN_NS:
            self.queues[session.life].remove(session)
            session.queued_ns = now_ns
            self.queues[session.life].append(session)

    def _within_share(self, session: Session, life: Life) -> Life:
        """Sessions of one inside address beyond its share give way."""
        lasting = [s for kept in SURPLUS for s in self.queues[kept]]
        n_own = sum(other.key[1:3] == session.key[1:3] for other in lasting)
        return SURPLUS.get(life, life) if n_own >= self.config.subscriber_sessions else life

    def allows(self, mapping: Mapping, remote: Remote) -> bool:
        filtering = self.config.settings.filtering
        if mapping.is_forwarded:
            return True
        if filtering == "address-dependent":
            return any(address == remote[0] for address, _ in mapping.sessions)
        return remote in mapping.sessions or filtering == "endpoint-independent"
