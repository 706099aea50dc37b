# SPDX-License-Identifier: Apache-2.0
"""The model of the router: bursts that arrive, are forwarded, and errors about them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network

from onvm_nf_router.config import Address, RouterText
from onvm_nf_router.interfaces import Interface
from onvm_nf_router.model.links import ALL_NODES, ANNOUNCEMENTS, Key, LinkModel, RoutedInterface
from onvm_nf_router.model.packets import (
    ARP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    LINK_LOCAL,
    NS,
    Arrived,
    Done,
    Drop,
    blanked,
    clamped,
    ends,
    flow_hash,
    ip_length,
    ipv4,
    ipv6,
    is_martian,
    is_unspeakable,
    pseudo_header,
    read,
    read_again,
    untagged,
    with_ipv4_checksum,
)
from onvm_nf_router.routes import Route
from onvm_sdk.headers import L3, L4, checksum, read_headers

__all__ = ["RouterModel"]

_ERRORS = {
    "ttl": ((11, 0), (3, 0)),
    "net": ((3, 0), (1, 0)),
    "host": ((3, 1), (1, 3)),
    "port": ((3, 3), (1, 4)),
    "size": ((3, 4), (2, 0)),
}
"""Type and code over IPv4 and IPv6."""
_LINK_GROUPS = ip_network("224.0.0.0/24")


class RouterModel(LinkModel):
    """`run` gives the packets of a burst after it; `made` has those that the router has made."""

    def __init__(self) -> None:
        super().__init__()
        self.routes: list[Route] = []
        self._originals: dict[int, tuple[bytes, int]] = {}
        self._tokens = 0
        self._tokens_ns = 0

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
                before = RoutedInterface(link)
            elif (before.link.own, before.link.announced) != (link.own, link.announced):
                before.announcements, before.announce_ns = ANNOUNCEMENTS, 0
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
                done[number] = result = self._arrive(packet) if packet.first else read_again(packet)
                if result.out is None and packet.last:
                    inside.append((number, replace(packet, data=result.data)))
            except Drop as drop:
                done[number] = Done(b"", drop.args[0])
        for version in (IPV4, IPV6):
            for number, packet in inside:
                if packet.data[12:14] == version:
                    try:
                        done[number] = self._forward(packet)
                    except Drop as drop:
                        done[number] = Done(b"", drop.args[0])
        self.made += self._ready
        self._ready = []
        return [one for one in done if one is not None]

    # ---- errors ----

    def _take_token(self) -> bool:
        per_s = self.settings.errors_per_s
        full = max(per_s // 10, 1)
        elapsed = self.now_ns - self._tokens_ns
        new = full if elapsed >= NS else elapsed * per_s // NS
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
        h = read(frame)
        if is_unspeakable(frame, h):
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
            packet = ipv4(source, sender, 64, body)
        else:
            packet = ipv6(source, sender, 64, struct.pack("!BBHI", type_, code, 0, mtu) + quote)
        ethertype = IPV4 if version == 4 else IPV6
        if hop is None:
            self._say(place, frame[6:12] + self.interfaces[place].mac + ethertype + packet)
            return
        with suppress(Drop):  # it waits, or cannot be sent
            made = self._send_to(hop, bytes(12) + ethertype + packet)
            self.made.append((self.interfaces[place].link.port, made))

    def _is_kept(self, frame: bytes, buffer: int) -> bool:
        """Whether the sender knows the packet otherwise: NFs may have translated it."""
        kept, length = self._originals.get(buffer, (b"", 0))[0], ip_length(frame)
        is_same = kept[12:14] == frame[12:14] and ip_length(kept) == length
        return is_same and length > self._smallest_mtu

    @property
    def _smallest_mtu(self) -> int:
        return min((one.mtu for one in self.interfaces), default=0xFFFF)

    # ---- arriving ----

    def _arrive(self, packet: Arrived) -> Done:
        for one in self.interfaces:
            if packet.port == one.link.slow_port:
                return Done(packet.data, out=one.link.port)
        packet, vlan = untagged(packet)
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

    def _arrive_arp(self, packet: Arrived, number: int, one: RoutedInterface) -> Done:
        data = packet.data
        if len(data) < 42 or data[12:20] != ARP:
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
        answer = ARP + b"\0\2" + one.mac + target.packed + mac + sender.packed
        return one.sent(mac + one.mac + answer + data[42:])

    def _arrive_ipv6(self, packet: Arrived, number: int, one: RoutedInterface) -> Done:
        data = packet.data
        h = read_headers(data)
        if len(data) < 54 or data[14] >> 4 != 6 or h.l3 is L3.BAD_LENGTH:
            raise Drop("malformed")
        length = int.from_bytes(data[18:20], "big")
        if data[20] == ICMPV6 and length >= 8 and 133 <= data[54] <= 137:
            return self._arrive_ndp(packet, number, one, length)
        if data[38] == 0xFF or data[0] & 1:
            if data[38:40] == b"\xff\x02":
                return one.to_host(data, "multicast")
            raise Drop("multicast")
        return self._arrive_ip(packet, number)

    def _arrive_ndp(self, packet: Arrived, number: int, one: RoutedInterface, length: int) -> Done:
        data = packet.data
        body = data[54 : 54 + length]
        if body[0] == 133 and data[21] == 255:
            one.is_solicited = True
        if body[0] not in (135, 136):
            return one.to_host(data, "consumed")
        source, destination = ip_address(data[22:38]), ip_address(data[38:54])
        if data[21] != 255 or body[1] or length < 24 or body[8] == 0xFF:
            raise Drop("malformed")
        if checksum(pseudo_header(source, destination, body) + body):
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
            to, asker, flags = b"\x33\x33\0\0\0\1", ALL_NODES, 0xA0
        else:
            to, asker, flags = mac or data[6:12], source, 0xE0
        return one.sent(self._ndp(one, 136, flags, to, target, asker, target))

    def _arrive_ip(self, packet: Arrived, number: int) -> Done:
        data = packet.data
        if data[12:14] == IPV4:
            h = read_headers(data)
            ihl = (data[14] & 15) * 4 if len(data) > 14 else 0
            if len(data) < 34 or h.l3 is not L3.OK or checksum(data[14 : 14 + ihl]):
                raise Drop("malformed")
        source, destination = ends(data)
        if source.version == 4 and (int(destination) >= 0xE0000000 or data[0] & 1):
            if destination in _LINK_GROUPS or int(destination) == 0xFFFFFFFF:
                return self.interfaces[number].to_host(data, "multicast")
            raise Drop("multicast")
        if is_martian(source) or is_martian(destination) or source in self.owners:
            raise Drop("martian")
        if source not in LINK_LOCAL and not self._comes_right(number, source):
            raise Drop("martian")
        owner = self.owners.get(destination)
        if (owner and not owner[1]) or destination == self.interfaces[number].link_local:
            return self._receive(data, packet.buffer, number)
        if source.version == 6 and (source in LINK_LOCAL or destination in LINK_LOCAL):
            raise Drop("martian")
        at = 22 if source.version == 4 else 21
        if data[at] <= 1:
            self._error("ttl", data, number, packet.buffer)
            raise Drop("ttl")
        if ip_length(data) > self._smallest_mtu:
            self._originals[packet.buffer] = data[:128], number
        lower = data[:at] + bytes([data[at] - 1]) + data[at + 1 :]
        return Done(with_ipv4_checksum(lower) if source.version == 4 else lower)

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
        icmp, request, answer = (ICMP, 8, 0) if h.version == 4 else (ICMPV6, 128, 129)
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
            return self.interfaces[number].sent(with_ipv4_checksum(head + body))
        head = head[:21] + b"\x40" + h.dst + h.src + head[54:]
        return self.interfaces[number].sent(head + body)

    # ---- forwarding ----

    def _route_to(self, address: Address) -> Route | None:
        for route in self.routes:
            if route.prefix.version == address.version and address in route.prefix:
                return route
        return None

    def _hop_to(self, address: Address, data: bytes = b"") -> Key | None:
        route = self._route_to(address)
        if route is None or route.kind not in ("connected", "unicast"):
            return None
        return self._choose(route, address, data)

    def _choose(self, route: Route, address: Address, data: bytes) -> Key:
        if route.kind == "connected":
            return route.hops[0].interface, address
        place = flow_hash(data) * sum(hop.weight for hop in route.hops) >> 32 if data else 0
        for hop in route.hops:
            if place < hop.weight:
                break
            place -= hop.weight
        assert hop.gateway is not None
        return hop.interface, hop.gateway

    def _forward(self, packet: Arrived) -> Done:
        data, buffer = packet.data, packet.buffer
        _, destination = ends(data)
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
            data = clamped(data, one.mtu)
        length = ip_length(data)
        if length > one.mtu and packet.largest:
            length = packet.largest  # it leaves in such pieces
        if length > one.mtu:
            if destination.version == 4 and not data[20] & 0x40:
                self._fragment(data, hop, one, one.mtu)
                raise Drop("fragmented")
            self._error("size", data, None, buffer, one.mtu)
            raise Drop("too_big")
        try:
            may_wait = not packet.largest
            return Done(self._send_to(hop, data, may_wait=may_wait), out=one.link.port)
        except Drop:
            neighbour = self.neighbours.get(hop)
            if neighbour is not None and neighbour.state == "failed":
                self._error("host", data, None, buffer)
            elif packet.largest and destination.version == 4:  # its fragments wait
                self._fragment(data, hop, one, packet.largest)
                raise Drop("fragmented") from None
            raise

    def _fragment(self, data: bytes, hop: Key, one: RoutedInterface, most: int) -> None:
        ihl = (data[14] & 15) * 4
        head, body = data[: 14 + ihl], data[14 + ihl : 14 + ip_length(data)]
        if most < ihl + 8:
            raise Drop("too_big")
        piece = (most - ihl) & ~7
        flags = int.from_bytes(data[20:22], "big")
        for at in range(0, len(body), piece):
            part = body[at : at + piece]
            more = 0x2000 if at + len(part) < len(body) else flags & 0x2000
            own = head if at == 0 else head[:34] + blanked(head[34:])
            place = ((flags & 0x1FFF) + at // 8) | more
            own = own[:16] + struct.pack("!H", ihl + len(part)) + own[18:]
            frame = with_ipv4_checksum(own[:20] + struct.pack("!H", place) + own[22:] + part)
            with suppress(Drop):  # it waits, or cannot be sent
                self.made.append((one.link.port, self._send_to(hop, frame)))
