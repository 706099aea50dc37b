# SPDX-License-Identifier: Apache-2.0
"""What the router does, in plain Python: slow, short, the oracle of the C kernel.

Readings chosen:

* All packets of a burst arrive before the first one is forwarded; IPv4 is forwarded before IPv6.
* The TTL falls where a packet arrives, so that the error about it has the packet as its sender
  knows it, whatever NFs translate on the way. An error goes back to the MAC address from which
  the packet came (RFC 1812 4.3.2.4 asks for the route back, which is the same on a link).
* A neighbour is remembered if packets are to go to it, or if it asks for an address of ours and
  the table is not half full. An answer, or a new address, confirms it (RFC 4861 7.3.3 has more
  states). One that is in use and not confirmed for `reachable_s` is asked three times, a second
  apart, and used meanwhile.
* Packets to a neighbour that is asked for wait as copies, 512 each; the error comes when it is
  given up. After that it is not asked for a second.
* Half of the table of neighbours is for those that have not answered (RFC 6583).
* Errors have a bucket of a tenth of a second's.
* An address is used at once, and asked for at the same time: a router does not wait for the end of
  duplicate address detection, and defends what it has, once in ten seconds (RFC 5227 2.4 (c)).
* A VLAN tag goes where a packet arrives and comes where it leaves; a mere priority counts as none.
* Router advertisements go to all nodes, every 200 seconds and three times sooner at first. A
  solicitation brings the next one forward (RFC 4861 6.2.6), to three seconds after the last.
* The slow path of an interface gets what is for its addresses, but for echo requests; answers of
  neighbours, router discovery, and IP packets to the groups of a link and to all hosts.
* The reverse path of a packet counts the default route, too.

Merged and partial packets are the kernel's alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from onvm_nf_router.config import Address, RouterText
from onvm_nf_router.interfaces import Interface
from onvm_nf_router.routes import Route
from onvm_sdk.headers import L3, L4, Headers, checksum, read_headers

__all__ = ["Arrived", "Done", "RouterModel"]

_NS = 1_000_000_000
_TICK_NS = _NS // 10
_ASK_TIMES, _WAITING_EACH, _WAITING_MAX, _ANNOUNCEMENTS = 3, 512, 2048, 3
_BROADCAST = b"\xff" * 6
_ALL_NODES = ip_address("ff02::1")
_ARP = bytes.fromhex("0806000108000604")
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_ICMP, _ICMPV6 = 1, 58
_ERRORS = {
    "ttl": ((11, 0), (3, 0)),
    "net": ((3, 0), (1, 0)),
    "host": ((3, 1), (1, 3)),
    "port": ((3, 3), (1, 4)),
    "size": ((3, 4), (2, 0)),
}
"""Type and code over IPv4 and IPv6."""
_MARTIANS = [ip_network(net) for net in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16")]
_LINK_LOCAL = ip_network("fe80::/10")
_LINK_GROUPS = ip_network("224.0.0.0/24")


class Drop(Exception):  # noqa: N818  a verdict
    """The packet goes; `args` has the reason."""


@dataclass(frozen=True)
class Arrived:
    """A packet before the router.

    Attributes:
        buffer: tells packets apart that are inside.
        first: the router is the first NF on its way.
        last: the router is the last one.
    """

    data: bytes
    port: int
    buffer: int = 0
    first: bool = True
    last: bool = True


@dataclass(frozen=True)
class Done:
    """A packet after it: dropped for a reason, out of a port, or on along the chain.

    The data of a packet that is dropped is b"".
    """

    data: bytes
    reason: str = ""
    out: int | None = None


@dataclass
class _Interface:
    link: Interface
    announcements: int = _ANNOUNCEMENTS
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
class _Neighbour:
    state: str = "incomplete"
    mac: bytes = bytes(6)
    asked: int = 0
    asked_ns: int = 0
    confirmed_ns: int = 0
    used_ns: int = 0
    waiting: list[bytes] = field(default_factory=list)


_Key = tuple[int, Address]
_Hop = tuple[int, Address]
"""Interface and address."""


class RouterModel:
    """`run` gives the packets of a burst after it; `made` has those that the router has made."""

    def __init__(self) -> None:
        self.settings = RouterText()
        self.interfaces: list[_Interface] = []
        self.neighbours: dict[_Key, _Neighbour] = {}
        self.routes: list[Route] = []
        self.owners: dict[Address, tuple[int, bool]] = {}
        self.conflicts: list[tuple[Address, int, str]] = []
        self.made: list[tuple[int, bytes]] = []
        self._defended: dict[Address, int] = {}
        self._originals: dict[int, tuple[bytes, int]] = {}
        self._failed: list[bytes] = []
        self._ready: list[tuple[int, bytes]] = []
        self._tokens = 0
        self._tokens_ns = 0
        self._tick_ns = 0
        self.now_ns = 0

    def change(
        self, settings: RouterText, links: Sequence[Interface], routes: Sequence[Route]
    ) -> None:
        """Change all that may change."""
        known = self.interfaces
        self.settings, self.interfaces = settings, []
        for number, link in enumerate(links):
            before = known[number] if number < len(known) else None
            if before is None or (before.link.port, before.link.vlan, before.mac) != (
                link.port,
                link.vlan,
                link.mac,
            ):
                self._forget_all(number)
                before = _Interface(link)
            elif (before.link.own, before.link.announced) != (link.own, link.announced):
                before.announcements, before.announce_ns = _ANNOUNCEMENTS, 0
                before.is_probed = False
            before.link = link
            self.interfaces.append(before)
        for number in range(len(links), len(known)):
            self._forget_all(number)
        self.routes = sorted(routes, key=lambda route: -route.prefix.prefixlen)
        self.owners = {
            address: (number, address in link.announced)
            for number, link in enumerate(links)
            for address in link.own
        }
        self._defended = {}

    def _forget_all(self, number: int) -> None:
        for key in [key for key in self.neighbours if key[0] == number]:
            self._failed += self.neighbours.pop(key).waiting

    def meet(self, number: int, address: Address) -> None:
        """Ask for a neighbour at the next turn."""
        asked = sum(one.state == "incomplete" for one in self.neighbours.values())
        most = self.settings.max_neighbours
        if asked < most // 2 and len(self.neighbours) < most:
            self.neighbours.setdefault((number, address), _Neighbour())

    def run(self, packets: Sequence[Arrived], now_ns: int) -> list[Done]:
        """Let a burst pass, 32 packets at most."""
        self.now_ns = now_ns
        self.made = []
        self._tick()
        failed, self._failed = self._failed, []
        for frame in failed:
            self._error("host", frame, None, None)
        done: list[Done | None] = [None] * len(packets)
        inside: list[tuple[int, Arrived]] = []
        for number, packet in enumerate(packets):
            try:
                done[number] = result = (
                    self._arrive(packet) if packet.first else _read_again(packet)
                )
                if result.out is None and packet.last:
                    inside.append((number, replace(packet, data=result.data)))
            except Drop as drop:
                done[number] = Done(b"", drop.args[0])
        for version in (_IPV4, _IPV6):
            for number, packet in inside:
                if packet.data[12:14] == version:
                    try:
                        done[number] = self._forward(packet)
                    except Drop as drop:
                        done[number] = Done(b"", drop.args[0])
        self.made += self._ready
        self._ready = []
        return [one for one in done if one is not None]

    # ---- addresses ----

    def _interface_at(self, port: int, vlan: int) -> int | None:
        places = [(one.link.port, one.link.vlan) for one in self.interfaces]
        return places.index((port, vlan)) if (port, vlan) in places else None

    def _is_on_link(self, number: int, address: Address) -> bool:
        own = self.interfaces[number].link.has_on_link(address)
        return own or address in _LINK_LOCAL or self.owners.get(address, (None,))[0] == number

    def _say(self, number: int, frame: bytes) -> None:
        one = self.interfaces[number]
        self.made.append((one.link.port, one.tagged(frame)))

    def _source_on(self, number: int, target: Address) -> Address | None:
        if target in _LINK_LOCAL:
            return self.interfaces[number].link_local
        one = self.interfaces[number].link
        own = [link for link in one.links if link.version == target.version]
        near = next((link.ip for link in own if target in link.network), None)
        announced = [other for other in one.announced if other.version == target.version]
        return near or next((link.ip for link in own), None) or next(iter(announced), None)

    # ---- neighbours ----

    def _ask(self, key: _Key, neighbour: _Neighbour) -> None:
        number, target = key
        neighbour.asked += 1
        neighbour.asked_ns = self.now_ns
        mac = neighbour.mac if neighbour.state == "probed" else None
        source = self._source_on(number, target)
        if source is None:
            return
        if target.version == 4:
            self._say_arp(number, mac or _BROADCAST, source, target)
            return
        destination = target
        if mac is None:
            group = ip_address("ff02::1:ff00:0").packed[:13] + target.packed[13:]
            destination = ip_address(group)
        self._say_ndp(number, 135, 0, mac, source, destination, target)

    def _say_arp(self, number: int, mac: bytes, source: Address, target: Address) -> None:
        own = self.interfaces[number].mac
        ends = own + source.packed + bytes(6) + target.packed
        self._say(number, mac + own + _ARP + b"\0\1" + ends)

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
        one: _Interface,
        kind: int,
        flags: int,
        to: bytes,
        source: Address,
        destination: Address,
        target: Address,
    ) -> bytes:
        option = bytes([1 if kind == 135 else 2, 1]) + one.mac if int(source) else b""
        body = bytes([kind, 0, 0, 0, flags, 0, 0, 0]) + target.packed + option
        return to + one.mac + _IPV6 + _ipv6(source, destination, 255, body)

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
            neighbour = self.neighbours[key] = _Neighbour(used_ns=self.now_ns)
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
        if self.owners[address][0] != number or (last and self.now_ns - last < 10 * _NS):
            return
        self._defended[address] = self.now_ns
        self._announce(number, address)
        self.conflicts.append((address, number, mac.hex(":")))

    def _send_to(self, hop: _Hop, frame: bytes) -> bytes:
        """The frame as it leaves; or a reason to drop it."""
        number, address = hop
        neighbour = self.neighbours.get(hop)
        if neighbour is None:
            most = self.settings.max_neighbours
            asked = sum(one.state == "incomplete" for one in self.neighbours.values())
            if len(self.neighbours) >= most or asked >= most // 2:
                raise Drop("unresolved")
            neighbour = self.neighbours[number, address] = _Neighbour()
            self._ask((number, address), neighbour)
        neighbour.used_ns = self.now_ns
        if neighbour.state == "incomplete":
            if len(neighbour.waiting) == _WAITING_EACH or self._n_waiting >= _WAITING_MAX:
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

    def _introduce(self, number: int, one: _Interface) -> None:
        if one.announcements == 0 or self.now_ns < one.announce_ns:
            return
        one.announcements -= 1
        one.announce_ns = self.now_ns + _NS
        for address in one.link.own:
            if not one.is_probed:
                self._probe(number, address)
            self._announce(number, address)
        one.is_probed = True

    def _announce(self, number: int, address: Address) -> None:
        if address.version == 4:
            self._say_arp(number, _BROADCAST, address, address)
        else:
            self._say_ndp(number, 136, 0xA0, None, address, _ALL_NODES, address)

    def _probe(self, number: int, address: Address) -> None:
        if address.version == 4:
            self._say_arp(number, _BROADCAST, ip_address(0), address)
            return
        group = ip_address(ip_address("ff02::1:ff00:0").packed[:13] + address.packed[13:])
        self._say_ndp(number, 135, 0, None, ip_address("::"), group, address)

    def _advertise(self, number: int, one: _Interface) -> None:
        if self.now_ns < one.advertise_ns and not one.is_solicited:
            return
        if one.n_advertised and self.now_ns - one.advertised_ns < 3 * _NS:
            return
        one.is_solicited, one.advertised_ns = False, self.now_ns
        one.n_advertised = min(one.n_advertised + 1, 3)
        one.advertise_ns = self.now_ns + (16 if one.n_advertised < 3 else 200) * _NS
        body = bytes([134, 0, 0, 0, 64, 0]) + (1800).to_bytes(2, "big") + bytes(8)
        body += b"\1\1" + one.mac + struct.pack("!BBHI", 5, 1, 0, one.mtu)
        for link in one.link.links:
            if link.version == 6 and link.network.prefixlen == 64:
                prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 2_592_000, 604_800, 0)
                body += prefix + link.network.network_address.packed
        packet = _ipv6(one.link_local, _ALL_NODES, 255, body)
        self._say(number, b"\x33\x33\0\0\0\1" + one.mac + _IPV6 + packet)

    def _turn(self, key: _Key, neighbour: _Neighbour) -> None:
        text = self.settings
        since_asked = self.now_ns - neighbour.asked_ns
        if neighbour.state in ("incomplete", "probed"):
            if since_asked < _NS:
                return
            if neighbour.asked < _ASK_TIMES:
                self._ask(key, neighbour)
                return
            neighbour.state, neighbour.asked_ns = "failed", self.now_ns
            self._failed += neighbour.waiting
            neighbour.waiting = []
        elif neighbour.state == "failed":
            if since_asked >= _NS:
                del self.neighbours[key]
        elif self.now_ns - neighbour.used_ns >= text.forget_s * _NS:
            del self.neighbours[key]
        elif (
            self.now_ns - neighbour.confirmed_ns >= text.reachable_s * _NS
            and neighbour.used_ns > neighbour.confirmed_ns
        ):
            neighbour.state = "probed"
            self._ask(key, neighbour)

    # ---- errors ----

    def _take_token(self) -> bool:
        per_s = self.settings.errors_per_s
        full = max(per_s // 10, 1)
        elapsed = self.now_ns - self._tokens_ns
        new = full if elapsed >= _NS else elapsed * per_s // _NS
        if new:
            self._tokens = min(self._tokens + new, full)
            self._tokens_ns = self.now_ns
        if per_s == 0 or self._tokens == 0:
            return False
        self._tokens -= 1
        return True

    def _error(
        self, kind: str, frame: bytes, number: int | None, buffer: int | None, mtu: int = 0
    ) -> None:
        """Tell the sender; `number`: the interface at which the frame has just come in."""
        if number is None and buffer is not None and self._is_kept(frame, buffer):
            frame, number = self._originals[buffer]
        h = _read(frame)
        if _is_unspeakable(frame, h):
            return
        sender = ip_address(h.src)
        hop = self._hop_to(sender) if number is None else None
        place = number if hop is None else hop[0]
        if place is None or place >= len(self.interfaces):
            return
        source = self._source_on(place, sender)
        if source is None or not self._take_token():
            return
        version = sender.version
        quote = frame[14:][: 576 - 28 if version == 4 else 1280 - 48]
        type_, code = _ERRORS[kind][version == 6]
        if version == 4:
            body = struct.pack("!BBHHH", type_, code, 0, 0, mtu) + quote
            packet = _ipv4(source, sender, 64, body)
        else:
            packet = _ipv6(source, sender, 64, struct.pack("!BBHI", type_, code, 0, mtu) + quote)
        ethertype = _IPV4 if version == 4 else _IPV6
        if hop is None:
            self._say(place, frame[6:12] + self.interfaces[place].mac + ethertype + packet)
            return
        with suppress(Drop):  # it waits, or cannot be sent
            made = self._send_to(hop, bytes(12) + ethertype + packet)
            self.made.append((self.interfaces[place].link.port, made))

    def _is_kept(self, frame: bytes, buffer: int) -> bool:
        """Whether the sender knows the packet otherwise: NFs may have translated it."""
        kept, length = self._originals.get(buffer, (b"", 0))[0], _ip_length(frame)
        is_same = kept[12:14] == frame[12:14] and _ip_length(kept) == length
        return is_same and length > self._smallest_mtu

    @property
    def _smallest_mtu(self) -> int:
        return min((one.mtu for one in self.interfaces), default=0xFFFF)

    # ---- arriving ----

    def _arrive(self, packet: Arrived) -> Done:
        for one in self.interfaces:
            if packet.port == one.link.slow_port:
                return Done(packet.data, out=one.link.port)
        packet, vlan = _untagged(packet)
        data = packet.data
        number = self._interface_at(packet.port, vlan)
        if number is None:
            raise Drop("no_interface")
        one = self.interfaces[number]
        if len(data) < 14:
            raise Drop("malformed")
        if data[6:12] == one.mac:
            raise Drop("loop")
        if not data[0] & 1 and data[:6] != one.mac:
            raise Drop("not_ours")
        match data[12:14]:
            case b"\x08\x06":
                return self._arrive_arp(packet, number, one)
            case b"\x08\x00":
                return self._arrive_ip(packet, number)
            case b"\x86\xdd":
                return self._arrive_ipv6(packet, number, one)
            case _:
                raise Drop("not_ip")

    def _arrive_arp(self, packet: Arrived, number: int, one: _Interface) -> Done:
        data = packet.data
        if len(data) < 42 or data[12:20] != _ARP:
            raise Drop("malformed")
        operation = int.from_bytes(data[20:22], "big")
        mac, sender, target = data[22:28], ip_address(data[28:32]), ip_address(data[38:42])
        is_ours = self.owners.get(target, (None,))[0] == number
        if int(sender):
            self._learn(
                number,
                sender,
                mac,
                may_add=operation == 1 and is_ours,
                is_answer=operation == 2 and is_ours,
            )
        if operation == 2 and is_ours:
            return one.to_host(data, "consumed")
        if operation != 1 or not is_ours or mac[0] & 1:
            raise Drop("consumed")
        answer = _ARP + b"\0\2" + one.mac + target.packed + mac + sender.packed
        return one.sent(mac + one.mac + answer + data[42:])

    def _arrive_ipv6(self, packet: Arrived, number: int, one: _Interface) -> Done:
        data = packet.data
        h = read_headers(data)
        if len(data) < 54 or data[14] >> 4 != 6 or h.l3 is L3.BAD_LENGTH:
            raise Drop("malformed")
        length = int.from_bytes(data[18:20], "big")
        if data[20] == _ICMPV6 and length >= 8 and 133 <= data[54] <= 137:
            return self._arrive_ndp(packet, number, one, length)
        if data[38] == 0xFF or data[0] & 1:
            if data[38:40] == b"\xff\x02":
                return one.to_host(data, "multicast")
            raise Drop("multicast")
        return self._arrive_ip(packet, number)

    def _arrive_ndp(self, packet: Arrived, number: int, one: _Interface, length: int) -> Done:
        data = packet.data
        body = data[54 : 54 + length]
        if body[0] == 133 and data[21] == 255:
            one.is_solicited = True
        if body[0] not in (135, 136):
            return one.to_host(data, "consumed")
        source, destination = ip_address(data[22:38]), ip_address(data[38:54])
        if data[21] != 255 or body[1] or length < 24 or body[8] == 0xFF:
            raise Drop("malformed")
        if checksum(_pseudo(source, destination, body) + body):
            raise Drop("malformed")
        options, at = {}, 24
        while at < len(body):
            size = 8 * body[at + 1] if at + 2 <= len(body) else 0
            if size == 0 or at + size > len(body):
                raise Drop("malformed")
            options.setdefault(body[at], body[at + 2 : at + 8])
            at += size
        target = ip_address(body[8:24])
        is_ours = self.owners.get(target, (None,))[0] == number or target == one.link_local
        if body[0] == 136:
            if 2 in options:
                solicited = bool(body[4] & 0x40)
                self._learn(number, target, options[2], may_add=False, is_answer=solicited)
            return one.to_host(data, "consumed")
        mac, is_probe = options.get(1), not int(source)
        if mac is not None and not is_probe:
            self._learn(number, source, mac, may_add=is_ours, is_answer=False)
        if not is_ours:
            raise Drop("consumed")
        if is_probe:
            to, asker, flags = b"\x33\x33\0\0\0\1", _ALL_NODES, 0xA0
        else:
            to, asker, flags = mac or data[6:12], source, 0xE0
        return one.sent(self._ndp(one, 136, flags, to, target, asker, target))

    def _arrive_ip(self, packet: Arrived, number: int) -> Done:
        data = packet.data
        if data[12:14] == _IPV4:
            h = read_headers(data)
            ihl = (data[14] & 15) * 4 if len(data) > 14 else 0
            if len(data) < 34 or h.l3 is not L3.OK or checksum(data[14 : 14 + ihl]):
                raise Drop("malformed")
        source, destination = _ends(data)
        if source.version == 4 and (int(destination) >= 0xE0000000 or data[0] & 1):
            if destination in _LINK_GROUPS or int(destination) == 0xFFFFFFFF:
                return self.interfaces[number].to_host(data, "multicast")
            raise Drop("multicast")
        if _is_martian(source) or _is_martian(destination) or source in self.owners:
            raise Drop("martian")
        if source not in _LINK_LOCAL and not self._comes_right(number, source):
            raise Drop("martian")
        owner = self.owners.get(destination)
        if (owner and not owner[1]) or destination == self.interfaces[number].link_local:
            return self._receive(data, packet.buffer, number)
        if source.version == 6 and (source in _LINK_LOCAL or destination in _LINK_LOCAL):
            raise Drop("martian")
        at = 22 if source.version == 4 else 21
        if data[at] <= 1:
            self._error("ttl", data, number, packet.buffer)
            raise Drop("ttl")
        if _ip_length(data) > self._smallest_mtu:
            self._originals[packet.buffer] = data[:128], number
        lower = data[:at] + bytes([data[at] - 1]) + data[at + 1 :]
        return Done(_with_ipv4_checksum(lower) if source.version == 4 else lower)

    def _comes_right(self, number: int, source: Address) -> bool:
        mode = self.interfaces[number].link.reverse_path
        if mode == "off":
            return True
        route = self._route_to(source)
        if route is None or route.kind not in ("connected", "unicast"):
            return False
        return mode == "loose" or any(hop.interface == number for hop in route.hops)

    def _receive(self, data: bytes, buffer: int, number: int | None) -> Done:
        h = read_headers(data)
        if h.l3 is not L3.OK:
            raise Drop("malformed")
        icmp, request, answer = (_ICMP, 8, 0) if h.version == 4 else (_ICMPV6, 128, 129)
        is_echo = h.protocol == icmp and h.l4 is L4.OK and data[h.l4_offset] == request
        if not is_echo or h.is_fragment or number is None:
            if number is not None and self.interfaces[number].link.slow_port is not None:
                return self.interfaces[number].to_host(data, "")
            if h.protocol == 17 and h.l4 is L4.OK:
                self._error("port", data, number, buffer)
            raise Drop("local")
        before = int.from_bytes(data[h.l4_offset + 2 : h.l4_offset + 4], "big") ^ 0xFFFF
        total = (before + ((request ^ 0xFF) << 8 | 0xFF) + (answer << 8)) % 0xFFFF or 0xFFFF
        value = (total ^ 0xFFFF).to_bytes(2, "big")
        body = bytes([answer, data[h.l4_offset + 1]]) + value + data[h.l4_offset + 4 :]
        head = data[6:12] + data[:6] + data[12 : h.l4_offset]
        if h.version == 4:
            head = head[:22] + b"\x40" + head[23:26] + h.dst + h.src + head[34:]
            return self.interfaces[number].sent(_with_ipv4_checksum(head + body))
        head = head[:21] + b"\x40" + h.dst + h.src + head[54:]
        return self.interfaces[number].sent(head + body)

    # ---- forwarding ----

    def _route_to(self, address: Address) -> Route | None:
        for route in self.routes:
            if route.prefix.version == address.version and address in route.prefix:
                return route
        return None

    def _hop_to(self, address: Address, data: bytes = b"") -> _Hop | None:
        route = self._route_to(address)
        if route is None or route.kind not in ("connected", "unicast"):
            return None
        return self._choose(route, address, data)

    def _choose(self, route: Route, address: Address, data: bytes) -> _Hop:
        if route.kind == "connected":
            return route.hops[0].interface, address
        place = _flow_hash(data) * sum(hop.weight for hop in route.hops) >> 32 if data else 0
        for hop in route.hops:
            if place < hop.weight:
                break
            place -= hop.weight
        assert hop.gateway is not None
        return hop.interface, hop.gateway

    def _forward(self, packet: Arrived) -> Done:
        data, buffer = packet.data, packet.buffer
        _, destination = _ends(data)
        route = self._route_to(destination)
        if route is not None and route.kind == "local":
            return self._receive(data, buffer, None)
        if route is not None and route.kind == "blackhole":
            raise Drop("blackhole")
        if route is None or route.kind == "unreachable":
            self._error("net" if route is None else "host", data, None, buffer)
            raise Drop("no_route")
        hop = self._choose(route, destination, data)
        one = self.interfaces[hop[0]]
        if self.settings.clamp_mss:
            data = _clamped(data, one.mtu)
        if _ip_length(data) > one.mtu:
            if destination.version == 4 and not data[20] & 0x40:
                self._fragment(data, hop, one)
                raise Drop("fragmented")
            self._error("size", data, None, buffer, one.mtu)
            raise Drop("too_big")
        try:
            return Done(self._send_to(hop, data), out=one.link.port)
        except Drop:
            neighbour = self.neighbours.get(hop)
            if neighbour is not None and neighbour.state == "failed":
                self._error("host", data, None, buffer)
            raise

    def _fragment(self, data: bytes, hop: _Hop, one: _Interface) -> None:
        ihl = (data[14] & 15) * 4
        head, body = data[: 14 + ihl], data[14 + ihl : 14 + _ip_length(data)]
        if one.mtu < ihl + 8:
            raise Drop("too_big")
        piece = (one.mtu - ihl) & ~7
        flags = int.from_bytes(data[20:22], "big")
        for at in range(0, len(body), piece):
            part = body[at : at + piece]
            more = 0x2000 if at + len(part) < len(body) else flags & 0x2000
            own = head if at == 0 else head[:34] + _blanked(head[34:])
            place = ((flags & 0x1FFF) + at // 8) | more
            own = own[:16] + struct.pack("!H", ihl + len(part)) + own[18:]
            frame = _with_ipv4_checksum(own[:20] + struct.pack("!H", place) + own[22:] + part)
            with suppress(Drop):  # it waits, or cannot be sent
                self.made.append((one.link.port, self._send_to(hop, frame)))


# ---- packets ----


def _untagged(packet: Arrived) -> tuple[Arrived, int]:
    """A packet without its VLAN tag, and the VLAN."""
    data = packet.data
    if len(data) < 18 or data[12:14] != b"\x81\x00":
        return packet, 0
    vlan = int.from_bytes(data[14:16], "big") & 0xFFF
    return replace(packet, data=data[:12] + data[16:]), vlan


def _read_again(packet: Arrived) -> Done:
    """A packet that other NFs have had."""
    h = read_headers(packet.data)
    if h.l3 is not L3.OK or h.l3_offset != 14:
        raise Drop("malformed")
    return Done(packet.data)


def _read(frame: bytes) -> Headers:
    """Headers of a frame that may be cut off."""
    h = Headers()
    h.version = 4 if frame[12:14] == _IPV4 else 6
    h.src, h.dst = (frame[26:30], frame[30:34]) if h.version == 4 else (frame[22:38], frame[38:54])
    h.protocol = frame[23] if h.version == 4 else frame[20]
    h.l4_offset = 14 + ((frame[14] & 15) * 4 if h.version == 4 else 40)
    return h


def _ends(data: bytes) -> tuple[Address, Address]:
    h = _read(data)
    return ip_address(h.src), ip_address(h.dst)


def _ip_length(data: bytes) -> int:
    is_v4 = data[12:14] == _IPV4
    return int.from_bytes(data[16:18], "big") if is_v4 else 40 + int.from_bytes(data[18:20], "big")


def _is_martian(address: Address) -> bool:
    if address.version == 4:
        return int(address) >= 0xE0000000 or any(address in net for net in _MARTIANS)
    return int(address) <= 1 or address.packed[0] == 0xFF


def _is_unspeakable(frame: bytes, h: Headers) -> bool:
    type_ = frame[h.l4_offset] if len(frame) > h.l4_offset else 0
    if h.version == 4:
        is_error = h.protocol == _ICMP and type_ not in (0, 8) and type_ < 13
        later = int.from_bytes(frame[20:22], "big") & 0x1FFF
        return bool(later) or h.src[0] >= 224 or h.src[0] in (0, 127) or is_error
    is_error = h.protocol == _ICMPV6 and type_ < 128
    return h.src[0] == 0xFF or h.src[:2] == b"\0\0" or is_error


def _pseudo(source: Address, destination: Address, body: bytes) -> bytes:
    return source.packed + destination.packed + struct.pack("!II", len(body), _ICMPV6)


def _with_checksum(body: bytes, pseudo: bytes = b"") -> bytes:
    body = body[:2] + b"\0\0" + body[4:]
    return body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]


def _ipv4(source: Address, destination: Address, ttl: int, body: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0xC0, 20 + len(body), 0, 0, ttl, _ICMP, 0)
    head += source.packed + destination.packed
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return head + _with_checksum(body)


def _ipv6(source: Address, destination: Address, hops: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, hops)
    pseudo = _pseudo(source, destination, body)
    return head + source.packed + destination.packed + _with_checksum(body, pseudo)


def _with_ipv4_checksum(data: bytes) -> bytes:
    ihl = (data[14] & 15) * 4
    head = data[14:24] + b"\0\0" + data[26 : 14 + ihl]
    return data[:24] + checksum(head).to_bytes(2, "big") + data[26:]


def _blanked(options: bytes) -> bytes:
    """Options of a later fragment: those that are not copied become "no operation"."""
    out, at = bytearray(options), 0
    while at < len(options) and options[at]:
        size = 1 if options[at] == 1 or at + 1 == len(options) else options[at + 1]
        if size == 0 or at + size > len(options):
            break
        if not options[at] & 0x80:
            out[at : at + size] = b"\1" * size
        at += size
    return bytes(out)


def _flow_hash(data: bytes) -> int:
    h = read_headers(data)
    value = h.protocol
    if h.has_ports and not h.is_fragment:
        value ^= (h.src_port ^ h.dst_port) << 8
    both = h.src + h.dst
    for at in range(0, len(both), 4):
        value ^= int.from_bytes(both[at : at + 4], "big")
    value = value * 0x9E3779B1 & 0xFFFFFFFF
    return value ^ value >> 15


def _clamped(data: bytes, mtu: int) -> bytes:
    """A SYN whose MSS fits through the MTU."""
    h = read_headers(data)
    if h.protocol != 6 or h.l4 is not L4.OK or not h.tcp_flags & 2 or mtu < 100:
        return data
    tcp = bytearray(data[h.l4_offset : h.l4_offset + h.l4_length])
    most, at = mtu - (40 if h.version == 4 else 60), 20
    end = min((tcp[12] >> 4) * 4, len(tcp)) & ~3
    while at + 4 <= end and tcp[at]:
        if tcp[at] == 2 and tcp[at + 1] == 4:
            if int.from_bytes(tcp[at + 2 : at + 4], "big") <= most:
                return data
            first, before = (at + 2) & ~1, int.from_bytes(tcp[16:18], "big") ^ 0xFFFF
            size = 4 if at & 1 else 2
            total = before - _words(tcp[first : first + size])
            tcp[at + 2 : at + 4] = most.to_bytes(2, "big")
            total += _words(tcp[first : first + size])
            tcp[16:18] = ((total % 0xFFFF or 0xFFFF) ^ 0xFFFF).to_bytes(2, "big")
            return data[: h.l4_offset] + bytes(tcp) + data[h.l4_offset + h.l4_length :]
        if tcp[at] != 1 and tcp[at + 1] < 2:
            return data
        at += 1 if tcp[at] == 1 else tcp[at + 1]
    return data


def _words(data: bytes) -> int:
    return sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
