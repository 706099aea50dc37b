"""A router to test: kernel and model side by side, the hosts around them, and their frames."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from onvm_nf_router.config import load
from onvm_nf_router.interfaces import interfaces_of
from onvm_nf_router.kernel import Kernel as NativeRouter
from onvm_nf_router.model import Arrived, Done, RouterModel
from onvm_nf_router.routes import connected_routes, static_routes
from onvm_nf_router.table import FILE, LINKS, RouteTable

from onvm_sdk._native import local
from onvm_sdk.headers import checksum
from onvm_sdk.nf import Port
from onvm_sdk.testing.frames import ip
from onvm_sdk.verdict import Verdict

REASONS = [
    "malformed", "martian", "loop", "not_ours", "not_ip", "multicast", "no_interface", "ttl",
    "no_route", "blackhole", "too_big", "fragmented", "resolving", "unresolved", "local",
    "consumed",
]  # fmt: skip
NS = 1_000_000_000
F_FIRST, F_LAST = local.WHOLE_WAY & -local.WHOLE_WAY, local.WHOLE_WAY & (local.WHOLE_WAY - 1)
LAN, WAN, DMZ, HOST_PORT = 3, 7, 9, 12
MACS = {port: bytes([2, 0, 0, 0, 1, port]) for port in (LAN, WAN, DMZ)}
MTUS = {LAN: 1500, WAN: 1500, DMZ: 600}
VLAN = 10
LINKS_OF: dict[str, dict[str, object]] = {
    "lan": {"addresses": ["10.0.0.1/24", "2001:db8:1::1/64"]},
    "wan": {"addresses": ["198.51.100.1/24", "2001:db8:2::1/64"]},
    "dmz": {
        "addresses": ["192.0.2.1/28", "2001:db8:3::1/64"],
        "vlans": {str(VLAN): {"addresses": ["192.0.2.129/28", "2001:db8:30::1/64"]}},
    },
}
OTHERS = ["198.51.100.1", "198.51.100.20"]
"""Addresses of other NFs."""
CONFIG: dict[str, object] = {
    "routes": [
        {"prefix": "0.0.0.0/0", "via": ["198.51.100.9", "192.0.2.9"]},
        {"prefix": "::/0", "via": "2001:db8:2::9"},
        {"prefix": "203.0.113.0/24", "kind": "blackhole"},
        {"prefix": "203.0.113.128/25", "kind": "unreachable"},
    ],
    "errors_per_s": 1_000_000,
    "max_routes": 64,
}
PORTS = (LAN, WAN, DMZ)
HOSTS = {
    LAN: ("10.0.0.5", "2001:db8:1::5"),
    WAN: ("198.51.100.9", "2001:db8:2::9"),
    DMZ: ("192.0.2.9", "2001:db8:3::9"),
}
HOST_MACS = {port: bytes([2, 0, 0, 0, 2, port]) for port in PORTS}


def ports_of(*numbers: int) -> list[Port]:
    names = {LAN: "lan", WAN: "wan", DMZ: "dmz"}
    return [
        Port(
            names[number],
            number,
            MTUS[number],
            link={**LINKS_OF[names[number]], "mac": MACS[number].hex(":")},
        )
        for number in numbers
    ]


class Kernel:
    """The kernel in private memory."""

    def __init__(self, config: dict[str, object]) -> None:
        self.router = NativeRouter(load(config).settings)
        self.kernel = self.router.native
        self.table = RouteTable(self.router)
        self.counters = bytearray(8 * 32)
        self.made: list[tuple[int, bytes]] = []
        self.n_loaned = 160

    def run(self, packets: Sequence[Arrived], now_ns: int) -> list[Done]:
        memory = local.LocalMemory(
            [one.data for one in packets], nb_loaned=self.n_loaned, slot_bytes=4096
        )
        for number, packet in enumerate(packets):
            memory.packets[number].port = packet.port
            memory.packets[number].buffer = packet.buffer
            flags = (F_FIRST if packet.first else 0) | (F_LAST if packet.last else 0)
            memory.packets[number].flags = flags
            if packet.largest:
                memory.note_largest_fragment(number, packet.largest)
        slots = list(range(len(packets)))
        ctx = memory.context(self.kernel.state, now_ns, self.counters)
        local.call(self.kernel.function, ctx, memory.packets, slots)
        assert all(memory.is_whole(slot) for slot in (*slots, *memory.made))
        self.made = [
            (memory.packets[slot].destination, memory.frame(slot))
            for slot in memory.made
            if memory.packets[slot].verdict == Verdict.OUT
        ]
        return [self._done(memory, slot) for slot in slots]

    @staticmethod
    def _done(memory: local.LocalMemory, slot: int) -> Done:
        pkt = memory.packets[slot]
        if pkt.verdict == Verdict.DROP:
            return Done(b"", REASONS[pkt.destination])
        out = pkt.destination if pkt.verdict == Verdict.OUT else None
        return Done(memory.frame(slot), out=out)


class Router:
    """Kernel and model side by side; every call compares them."""

    def __init__(self, *, others: Sequence[str] = OTHERS, **changes: object) -> None:
        self.config = {**CONFIG, **changes}
        self.kernel, self.model = Kernel(self.config), RouterModel()
        self.change(*PORTS, others=others)
        self.now_ns = NS
        self.made: list[tuple[int, bytes]] = []

    def change(
        self,
        *numbers: int,
        others: Sequence[str] = OTHERS,
        slow_port: int | None = None,
        **changes: object,
    ) -> None:
        """Let these ports be there; with a slow path beside the last one."""
        self.config |= changes
        config = load(self.config)
        ports = ports_of(*numbers)
        if slow_port is not None:
            ports[-1].link = {**ports[-1].link, "slow_path": "host"}
            ports.append(Port("host", slow_port))
        interfaces = interfaces_of(ports, config.settings, others)
        links, (static, _) = connected_routes(interfaces), static_routes(config.routes, interfaces)
        self.kernel.router.change(config.settings, interfaces)
        self.kernel.table.replace(LINKS, links)
        self.kernel.table.replace(FILE, static)
        by_prefix = {route.prefix: route for route in (*static, *links)}
        self.model.change(config.settings, interfaces, list(by_prefix.values()))

    def run(self, *packets: Arrived) -> list[Done]:
        done = self.kernel.run(packets, self.now_ns)
        assert done == self.model.run(packets, self.now_ns)
        assert sorted(self.kernel.made) == sorted(self.model.made)
        self.made = self.kernel.made
        return done

    def wait(self, seconds: float) -> list[tuple[int, bytes]]:
        """Let time pass; give the packets that were made."""
        made = []
        for _ in range(round(seconds * 10)):
            self.now_ns += NS // 10
            self.run()
            made += self.made
        return made

    def meet(self, *ports: int) -> None:
        """Let the hosts be known."""
        self.wait(4)
        for port in ports or PORTS:
            for host in HOSTS[port]:
                own = HOSTS_GATEWAYS[port][":" in host]
                self.run(Arrived(ask(port, host, own), port))


HOSTS_GATEWAYS = {
    LAN: ("10.0.0.1", "2001:db8:1::1"),
    WAN: ("198.51.100.1", "2001:db8:2::1"),
    DMZ: ("192.0.2.1", "2001:db8:3::1"),
}


def arp(port: int, kind: int, sender: str, target: str, mac: bytes = b"") -> bytes:
    mac = mac or HOST_MACS[port]
    body = struct.pack("!H", kind) + mac + ip_address(sender).packed
    body += (bytes(6) if kind == 1 else MACS[port]) + ip_address(target).packed
    to = b"\xff" * 6 if kind == 1 else MACS[port]
    return to + mac + bytes.fromhex("0806000108000604") + body


def ndp(port: int, kind: int, sender: str, target: str, mac: bytes = b"") -> bytes:
    """A solicitation, or a solicited advertisement."""
    mac = mac or HOST_MACS[port]
    flags = 0x60 if kind == 136 else 0
    about = target if kind == 135 else sender
    option = bytes([1 if kind == 135 else 2, 1]) + mac
    body = bytes([kind, 0, 0, 0, flags, 0, 0, 0]) + ip_address(about).packed + option
    frame = ip(sender, target, 58, body)
    frame = frame[:21] + b"\xff" + frame[22:]
    return MACS[port] + mac + frame[12:]


def ask(port: int, sender: str, target: str) -> bytes:
    return ndp(port, 135, sender, target) if ":" in sender else arp(port, 1, sender, target)


def answer(port: int, sender: str, target: str) -> bytes:
    return ndp(port, 136, sender, target) if ":" in sender else arp(port, 2, sender, target)


def to_router(port: int, frame: bytes, ttl: int = 64) -> bytes:
    """Address a frame to the router."""
    frame = MACS[port] + HOST_MACS[port] + frame[12:]
    if frame[12:14] == b"\x86\xdd":
        return frame[:21] + bytes([ttl]) + frame[22:]
    head = frame[14:22] + bytes([ttl]) + frame[23:24] + b"\0\0" + frame[26:34]
    if frame[14] == 0x45:
        return frame[:14] + head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + frame[34:]
    return frame


PAIRS = list(zip(HOSTS[LAN], HOSTS[WAN], strict=True))
both_versions = pytest.mark.parametrize(("near", "far"), PAIRS)


def first(frame: bytes, port: int, buffer: int = 0) -> Arrived:
    """A packet on its way to other NFs."""
    return Arrived(frame, port, buffer, last=False)


def last(frame: bytes, port: int, buffer: int = 0) -> Arrived:
    """A packet that other NFs have had."""
    return Arrived(frame, port, buffer, first=False)


def tagged(frame: bytes, vlan: int) -> bytes:
    return frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:]


VLAN_HOSTS = ("192.0.2.130", "2001:db8:30::5")
