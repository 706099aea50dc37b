# SPDX-License-Identifier: Apache-2.0
"""The links of the model: interfaces that introduce themselves, and their neighbours."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import ip_address

from onvm_nf_router.config import Address, RouterText
from onvm_nf_router.interfaces import Interface
from onvm_nf_router.model.packets import ARP, IPV6, LINK_LOCAL, NS, Done, Drop, ipv6

__all__ = ["ALL_NODES", "ANNOUNCEMENTS", "Key", "LinkModel", "Neighbour", "RoutedInterface"]

ALL_NODES = ip_address("ff02::1")
BROADCAST = b"\xff" * 6
_TICK_NS = NS // 10
_ASK_TIMES, _WAITING_EACH, _WAITING_MAX, ANNOUNCEMENTS = 3, 512, 2048, 3


@dataclass
class RoutedInterface:
    link: Interface
    announcements: int = ANNOUNCEMENTS
    announce_ns: int = 0
    is_probed: bool = False
    is_solicited: bool = False
    n_advertised: int = 0
    advertise_ns: int = 0
    advertised_ns: int = 0

    @property
    def mac(self) -> bytes:
        return self.link.mac

    @property
    def mtu(self) -> int:
        return self.link.mtu

    @property
    def link_local(self) -> Address:
        mac = bytes([self.mac[0] ^ 2]) + self.mac[1:3] + b"\xff\xfe" + self.mac[3:]
        return ip_address(b"\xfe\x80" + bytes(6) + mac)

    def sent(self, frame: bytes) -> Done:
        """A frame that goes back as an answer."""
        return Done(self.tagged(frame), out=self.link.port)

    def to_host(self, frame: bytes, otherwise: str) -> Done:
        """A frame that the host should have, if there is a slow path."""
        if self.link.slow_port is None:
            raise Drop(otherwise)
        return Done(self.tagged(frame), out=self.link.slow_port)

    def tagged(self, frame: bytes) -> bytes:
        """A frame as it leaves."""
        tag = b"\x81\x00" + self.link.vlan.to_bytes(2, "big") if self.link.vlan else b""
        return frame[:12] + tag + frame[12:]


@dataclass
class Neighbour:
    state: str = "incomplete"
    mac: bytes = bytes(6)
    asked: int = 0
    asked_ns: int = 0
    confirmed_ns: int = 0
    used_ns: int = 0
    waiting: list[bytes] = field(default_factory=list)


Key = tuple[int, Address]
"""Interface and address: of a neighbour, or of the next hop."""


class LinkModel:
    """Interfaces and neighbours; `made` has the packets that are to leave."""

    def __init__(self) -> None:
        self.settings = RouterText()
        self.interfaces: list[RoutedInterface] = []
        self.neighbours: dict[Key, Neighbour] = {}
        self.owners: dict[Address, tuple[int, bool]] = {}
        self.conflicts: list[tuple[Address, int, str]] = []
        self.made: list[tuple[int, bytes]] = []
        self._defended: dict[Address, int] = {}
        self._failed: list[bytes] = []
        self._ready: list[tuple[int, bytes]] = []
        self._tick_ns = 0
        self.now_ns = 0

    def _forget_all(self, number: int) -> None:
        for key in [key for key in self.neighbours if key[0] == number]:
            self._failed += self.neighbours.pop(key).waiting

    def meet(self, number: int, address: Address) -> None:
        """Ask for a neighbour at the next turn."""
        asked = sum(one.state == "incomplete" for one in self.neighbours.values())
        most = self.settings.max_neighbours
        if asked < most // 2 and len(self.neighbours) < most:
            self.neighbours.setdefault((number, address), Neighbour())

    # ---- addresses ----

    def _interface_at(self, port: int, vlan: int) -> int | None:
        places = [(one.link.port, one.link.vlan) for one in self.interfaces]
        return places.index((port, vlan)) if (port, vlan) in places else None

    def _is_on_link(self, number: int, address: Address) -> bool:
        own = self.interfaces[number].link.has_on_link(address)
        return own or address in LINK_LOCAL or self.owners.get(address, (None,))[0] == number

    def _say(self, number: int, frame: bytes) -> None:
        one = self.interfaces[number]
        self.made.append((one.link.port, one.tagged(frame)))

    def _source_on(self, number: int, target: Address) -> Address | None:
        if target in LINK_LOCAL:
            return self.interfaces[number].link_local
        one = self.interfaces[number].link
        own = [link for link in one.links if link.version == target.version]
        near = next((link.ip for link in own if target in link.network), None)
        announced = [other for other in one.announced if other.version == target.version]
        return near or next((link.ip for link in own), None) or next(iter(announced), None)

    # ---- neighbours ----

    def _ask(self, key: Key, neighbour: Neighbour) -> None:
        number, target = key
        neighbour.asked += 1
        neighbour.asked_ns = self.now_ns
        mac = neighbour.mac if neighbour.state == "probed" else None
        source = self._source_on(number, target)
        if source is None:
            return
        if target.version == 4:
            self._say_arp(number, mac or BROADCAST, source, target)
            return
        destination = target
        if mac is None:
            group = ip_address("ff02::1:ff00:0").packed[:13] + target.packed[13:]
            destination = ip_address(group)
        self._say_ndp(number, 135, 0, mac, source, destination, target)

    def _say_arp(self, number: int, mac: bytes, source: Address, target: Address) -> None:
        own = self.interfaces[number].mac
        ends = own + source.packed + bytes(6) + target.packed
        self._say(number, mac + own + ARP + b"\0\1" + ends)

    def _say_ndp(
        self,
        number: int,
        kind: int,
        flags: int,
        mac: bytes | None,
        source: Address,
        destination: Address,
        target: Address,
    ) -> None:
        one = self.interfaces[number]
        to = mac or b"\x33\x33" + destination.packed[12:]
        self._say(number, self._ndp(one, kind, flags, to, source, destination, target))

    @staticmethod
    def _ndp(
        one: RoutedInterface,
        kind: int,
        flags: int,
        to: bytes,
        source: Address,
        destination: Address,
        target: Address,
    ) -> bytes:
        option = bytes([1 if kind == 135 else 2, 1]) + one.mac if int(source) else b""
        body = bytes([kind, 0, 0, 0, flags, 0, 0, 0]) + target.packed + option
        return to + one.mac + IPV6 + ipv6(source, destination, 255, body)

    def _learn(
        self, number: int, address: Address, mac: bytes, *, may_add: bool, is_answer: bool
    ) -> None:
        if mac[0] & 1 or not self._is_on_link(number, address):
            return
        if address in self.owners:
            self._defend(number, address, mac)
            return
        key = (number, address)
        neighbour = self.neighbours.get(key)
        if neighbour is None:
            answered = sum(one.state != "incomplete" for one in self.neighbours.values())
            if not may_add or answered >= self.settings.max_neighbours // 2:
                return
            if len(self.neighbours) >= self.settings.max_neighbours:
                return
            neighbour = self.neighbours[key] = Neighbour(used_ns=self.now_ns)
        if is_answer or neighbour.state in ("incomplete", "failed") or neighbour.mac != mac:
            neighbour.state = "reachable"
            neighbour.asked = 0
            neighbour.confirmed_ns = self.now_ns
        neighbour.mac = mac
        one = self.interfaces[number]
        self._ready += [
            (one.link.port, one.tagged(mac + one.mac + frame[12:])) for frame in neighbour.waiting
        ]
        neighbour.waiting = []

    def _defend(self, number: int, address: Address, mac: bytes) -> None:
        last = self._defended.get(address, 0)
        if self.owners[address][0] != number or (last and self.now_ns - last < 10 * NS):
            return
        self._defended[address] = self.now_ns
        self._announce(number, address)
        self.conflicts.append((address, number, mac.hex(":")))

    def _send_to(self, hop: Key, frame: bytes, *, may_wait: bool = True) -> bytes:
        """The frame as it leaves; or a reason to drop it."""
        number, address = hop
        neighbour = self.neighbours.get(hop)
        if neighbour is None:
            most = self.settings.max_neighbours
            asked = sum(one.state == "incomplete" for one in self.neighbours.values())
            if len(self.neighbours) >= most or asked >= most // 2:
                raise Drop("unresolved")
            neighbour = self.neighbours[number, address] = Neighbour()
            self._ask((number, address), neighbour)
        neighbour.used_ns = self.now_ns
        if neighbour.state == "incomplete":
            is_full = len(neighbour.waiting) == _WAITING_EACH or self._n_waiting >= _WAITING_MAX
            if is_full or not may_wait:
                raise Drop("unresolved")
            neighbour.waiting.append(frame)
            raise Drop("resolving")
        if neighbour.state == "failed":
            raise Drop("unresolved")
        one = self.interfaces[number]
        return one.tagged(neighbour.mac + one.mac + frame[12:])

    @property
    def _n_waiting(self) -> int:
        waiting = sum(len(one.waiting) for one in self.neighbours.values())
        return waiting + len(self._ready) + len(self._failed)

    def _tick(self) -> None:
        if self.now_ns < self._tick_ns:
            return
        self._tick_ns = self.now_ns + _TICK_NS
        for number, one in enumerate(self.interfaces):
            self._introduce(number, one)
            if one.link.advertises:
                self._advertise(number, one)
        for key, neighbour in list(self.neighbours.items()):
            self._turn(key, neighbour)

    def _introduce(self, number: int, one: RoutedInterface) -> None:
        if one.announcements == 0 or self.now_ns < one.announce_ns:
            return
        one.announcements -= 1
        one.announce_ns = self.now_ns + NS
        for address in one.link.own:
            if not one.is_probed:
                self._probe(number, address)
            self._announce(number, address)
        one.is_probed = True

    def _announce(self, number: int, address: Address) -> None:
        if address.version == 4:
            self._say_arp(number, BROADCAST, address, address)
        else:
            self._say_ndp(number, 136, 0xA0, None, address, ALL_NODES, address)

    def _probe(self, number: int, address: Address) -> None:
        if address.version == 4:
            self._say_arp(number, BROADCAST, ip_address(0), address)
            return
        group = ip_address(ip_address("ff02::1:ff00:0").packed[:13] + address.packed[13:])
        self._say_ndp(number, 135, 0, None, ip_address("::"), group, address)

    def _advertise(self, number: int, one: RoutedInterface) -> None:
        if self.now_ns < one.advertise_ns and not one.is_solicited:
            return
        if one.n_advertised and self.now_ns - one.advertised_ns < 3 * NS:
            return
        one.is_solicited, one.advertised_ns = False, self.now_ns
        one.n_advertised = min(one.n_advertised + 1, 3)
        one.advertise_ns = self.now_ns + (16 if one.n_advertised < 3 else 200) * NS
        body = bytes([134, 0, 0, 0, 64, 0]) + (1800).to_bytes(2, "big") + bytes(8)
        body += b"\1\1" + one.mac + struct.pack("!BBHI", 5, 1, 0, one.mtu)
        for link in one.link.links:
            if link.version == 6 and link.network.prefixlen == 64:
                prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 2_592_000, 604_800, 0)
                body += prefix + link.network.network_address.packed
        packet = ipv6(one.link_local, ALL_NODES, 255, body)
        self._say(number, b"\x33\x33\0\0\0\1" + one.mac + IPV6 + packet)

    def _turn(self, key: Key, neighbour: Neighbour) -> None:
        text = self.settings
        since_asked = self.now_ns - neighbour.asked_ns
        if neighbour.state in ("incomplete", "probed"):
            if since_asked < NS:
                return
            if neighbour.asked < _ASK_TIMES:
                self._ask(key, neighbour)
                return
            neighbour.state, neighbour.asked_ns = "failed", self.now_ns
            self._failed += neighbour.waiting
            neighbour.waiting = []
        elif neighbour.state == "failed":
            if since_asked >= NS:
                del self.neighbours[key]
        elif self.now_ns - neighbour.used_ns >= text.forget_s * NS:
            del self.neighbours[key]
        elif (
            self.now_ns - neighbour.confirmed_ns >= text.reachable_s * NS
            and neighbour.used_ns > neighbour.confirmed_ns
        ):
            neighbour.state = "probed"
            self._ask(key, neighbour)
