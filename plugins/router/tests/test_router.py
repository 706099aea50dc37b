# SPDX-License-Identifier: Apache-2.0
"""The router: what it does as cases, and the C kernel against the model."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onvm_nf_router import Router as Plugin
from onvm_nf_router.config import load
from onvm_nf_router.interfaces import interfaces_of, mac_for
from onvm_nf_router.kernel import Kernel as NativeRouter
from onvm_nf_router.model import Arrived, Done, RouterModel
from onvm_nf_router.routes import Hop, connected_routes, static_routes
from onvm_nf_router.table import FILE, HOST, LINKS, RouteTable

from onvm_sdk._native import local
from onvm_sdk.errors import ConfigError
from onvm_sdk.headers import checksum, read_headers
from onvm_sdk.nf import Port
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import ACK, SYN, echo, icmp_error, ip, is_sound, tcp, udp
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


@both_versions
def test_first_packet_waits_and_arrives(near: str, far: str) -> None:
    router = Router()
    router.wait(4)
    frame = to_router(LAN, udp(near, 5, far, 6, b"x"))
    assert router.run(Arrived(frame, LAN))[0].reason == "resolving"
    ((port, question),) = router.made
    assert port == WAN
    assert question[:1] in (b"\xff", b"\x33")
    own = HOSTS_GATEWAYS[WAN][":" in far]
    assert router.run(Arrived(answer(WAN, far, own), WAN))[0].reason == "consumed"
    ((port, sent),) = router.made
    assert port == WAN
    assert sent[:12] == HOST_MACS[WAN] + MACS[WAN]
    assert is_sound(sent)
    assert read_headers(sent).dst == ip_address(far).packed


@both_versions
def test_known_neighbour_gets_packets_at_once(near: str, far: str) -> None:
    router = Router()
    router.meet()
    (done,) = router.run(Arrived(to_router(LAN, tcp(near, 5, far, 6, SYN)), LAN))
    assert done.out == WAN
    assert done.data[:12] == HOST_MACS[WAN] + MACS[WAN]
    assert done.data[22 if ":" not in near else 21] == 63
    assert is_sound(done.data)


def first(frame: bytes, port: int, buffer: int = 0) -> Arrived:
    """A packet on its way to other NFs."""
    return Arrived(frame, port, buffer, last=False)


def last(frame: bytes, port: int, buffer: int = 0) -> Arrived:
    """A packet that other NFs have had."""
    return Arrived(frame, port, buffer, first=False)


@both_versions
def test_two_visits_have_the_chain_between_them(near: str, far: str) -> None:
    router = Router()
    router.meet()
    frame = to_router(LAN, tcp(near, 5, far, 6, SYN))
    (done,) = router.run(first(frame, LAN))
    assert (done.out, done.reason) == (None, "")
    assert done.data[:12] == frame[:12], "an NF that answers it reaches the sender"
    (sent,) = router.run(last(done.data, LAN))
    assert sent.out == WAN
    (between,) = router.run(Arrived(done.data, LAN, first=False, last=False))
    assert between == Done(done.data)


def test_what_other_nfs_have_broken_is_not_forwarded() -> None:
    router = Router()
    for frame in (b"", bytes(60), to_router(LAN, udp("10.0.0.5", 5, "8.8.8.8", 6))[:40]):
        assert router.run(last(frame, LAN))[0].reason == "malformed"


def test_packets_to_addresses_of_other_nfs_go_on() -> None:
    router = Router()
    router.meet()
    frame = to_router(WAN, echo("198.51.100.9", "198.51.100.1", 4))
    assert router.run(first(frame, WAN))[0].reason == "", "the NAT's"
    (done,) = router.run(Arrived(arp(WAN, 1, "198.51.100.9", "198.51.100.20"), WAN))
    assert done.data[20:22] == b"\0\2", "and its ARP is answered"


@pytest.mark.parametrize("host", HOSTS[LAN])
def test_echo_to_an_own_address_is_answered(host: str) -> None:
    router = Router()
    own = HOSTS_GATEWAYS[LAN][":" in host]
    (done,) = router.run(Arrived(to_router(LAN, echo(host, own, 7)), LAN))
    assert done.out == LAN
    assert is_sound(done.data)
    h = read_headers(done.data)
    assert (h.src, h.dst, h.icmp_id) == (ip_address(own).packed, ip_address(host).packed, 7)
    assert done.data[:12] == HOST_MACS[LAN] + MACS[LAN]


@both_versions
def test_ttl_ends_with_an_error_to_the_sender(near: str, far: str) -> None:
    router = Router()
    router.meet()
    frame = to_router(LAN, udp(near, 5, far, 33434), ttl=1)
    assert router.run(Arrived(frame, LAN))[0].reason == "ttl"
    ((port, error),) = router.made
    assert port == LAN
    assert is_sound(error)
    h = read_headers(error)
    assert error[h.l4_offset] == (3 if ":" in near else 11)
    assert h.dst == ip_address(near).packed
    assert error[h.l4_offset + 8 :] == frame[14:]


def test_nothing_is_said_about_errors_and_later_fragments() -> None:
    router = Router()
    about = udp("198.51.100.9", 5, "10.0.0.5", 6)
    for frame in (
        icmp_error("10.0.0.5", "198.51.100.9", about),
        icmp_error("2001:db8:1::5", "2001:db8:2::9", udp("2001:db8:2::9", 5, "2001:db8:1::5", 6)),
        ip("10.0.0.5", "198.51.100.9", 17, bytes(16), 5),
    ):
        assert router.run(Arrived(to_router(LAN, frame, ttl=1), LAN))[0].reason == "ttl"
        assert [made for made in router.made if read_headers(made[1]).protocol in (1,)] == []


def test_errors_are_limited() -> None:
    router = Router(errors_per_s=100)
    router.meet()
    frame = to_router(LAN, udp("10.0.0.5", 5, "198.51.100.9", 6), ttl=1)
    sent = 0
    for _ in range(20):
        router.run(*[Arrived(frame, LAN)] * 8)
        sent += len(router.made)
    assert sent == 10, "a tenth of a second's"
    router.now_ns += NS // 20
    router.run(*[Arrived(frame, LAN)] * 8)
    assert len(router.made) == 5


@pytest.mark.parametrize("far", HOSTS[DMZ])
def test_packet_too_big_is_told_as_it_arrived(far: str) -> None:
    router = Router()
    router.meet()
    near = HOSTS[LAN][":" in far]
    frame = to_router(LAN, udp(near, 5, far, 6, bytes(700)))
    if ":" not in far:
        frame = to_router(LAN, ip(near, far, 17, frame[34:], 0x4000))
    (done,) = router.run(first(frame, LAN, 77))
    # A NAT between both visits changes the source.
    at = 26 if ":" not in far else 22
    other = ip_address("198.51.100.20" if ":" not in far else "2001:db8:2::77").packed
    data = done.data[:at] + other + done.data[at + len(other) :]
    (end,) = router.run(last(data, LAN, 77))
    assert end.reason == "too_big"
    ((port, error),) = router.made
    h = read_headers(error)
    assert (port, h.dst) == (LAN, ip_address(near).packed)
    assert is_sound(error)
    assert int.from_bytes(error[h.l4_offset + 4 : h.l4_offset + 8], "big") == 600
    assert error[h.l4_offset + 8 :] == frame[14:128]


def test_packets_that_may_be_cut_are() -> None:
    router = Router()
    router.meet()
    whole = udp("10.0.0.5", 5, "192.0.2.9", 6, bytes(range(250)) * 5)
    (done,) = router.run(Arrived(to_router(LAN, whole), LAN))
    assert done.reason == "fragmented"
    pieces = sorted((frame for _, frame in router.made), key=lambda f: f[20:22][1])
    assert len(pieces) == 3
    assert all(len(piece) <= 600 + 14 for piece in pieces)
    assert all(checksum(piece[14:34]) == 0 for piece in pieces)
    places = {int.from_bytes(piece[20:22], "big") & 0x1FFF: piece for piece in pieces}
    assert b"".join(places[at][34:] for at in sorted(places)) == whole[34:]


def test_later_fragments_have_only_the_options_that_are_copied() -> None:
    router = Router()
    router.meet()
    options = bytes([7, 3, 4, 1, 0x94, 4, 0, 0])  # record route, router alert
    frame = ip("10.0.0.5", "192.0.2.9", 17, bytes(900), options=options)
    head = MACS[LAN] + HOST_MACS[LAN]
    (done,) = router.run(Arrived(head + frame[12:], LAN))
    assert done.reason == "fragmented"
    head, tail = (frame for _, frame in router.made)
    assert head[34:42] == options
    assert tail[34:42] == bytes([1, 1, 1, 1, 0x94, 4, 0, 0])


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (to_router(LAN, udp("127.0.0.1", 5, "198.51.100.9", 6)), "martian"),
        (to_router(LAN, udp("10.0.0.5", 5, "127.0.0.1", 6)), "martian"),
        (to_router(LAN, udp("10.0.0.1", 5, "198.51.100.9", 6)), "martian"),
        (to_router(LAN, udp("169.254.0.9", 5, "198.51.100.9", 6)), "martian"),
        (to_router(LAN, udp("fe80::5", 5, "2001:db8:2::9", 6)), "martian"),
        (to_router(LAN, udp("::1", 5, "2001:db8:2::9", 6)), "martian"),
        (to_router(LAN, udp("10.0.0.5", 5, "224.0.0.9", 6)), "multicast"),
        (to_router(LAN, udp("10.0.0.5", 5, "255.255.255.255", 6)), "multicast"),
        (MACS[LAN] + MACS[LAN] + udp("10.0.0.5", 5, "198.51.100.9", 6)[12:], "loop"),
        (to_router(WAN, udp("10.0.0.5", 5, "198.51.100.9", 6)), "not_ours"),
        (to_router(LAN, bytes(12) + b"\x88\xcc" + bytes(46)), "not_ip"),
        (to_router(LAN, tcp("10.0.0.5", 5, "10.0.0.1", 6, SYN)), "local"),
        (b"", "malformed"),
    ],
)
def test_packets_that_are_no_ones(frame: bytes, reason: str) -> None:
    assert Router().run(Arrived(frame, LAN))[0].reason == reason


def test_port_without_interface() -> None:
    assert Router().run(Arrived(bytes(60), 200))[0].reason == "no_interface"


@pytest.mark.parametrize(
    ("far", "reason", "code"),
    [("203.0.113.5", "blackhole", None), ("203.0.113.200", "no_route", 1)],
)
def test_routes_that_lead_nowhere(far: str, reason: str, code: int | None) -> None:
    router = Router()
    router.meet()
    assert router.run(Arrived(to_router(LAN, udp("10.0.0.5", 5, far, 6)), LAN))[0].reason == reason
    errors = [error[35] for _, error in router.made]
    assert errors == ([] if code is None else [code])


@both_versions
def test_neighbour_that_does_not_answer(near: str, far: str) -> None:
    router = Router()
    router.meet(LAN)
    router.kernel.n_loaned = 600  # the errors come at once
    frame = to_router(LAN, udp(near, 5, far, 6))
    for number in range(0, 520, 8):
        reasons = [done.reason for done in router.run(*[Arrived(frame, LAN)] * 8)]
        assert reasons == ["resolving" if number < 512 else "unresolved"] * 8
        assert len(router.made) == (number == 0), "no error: it may still answer"
    made = [frame for port, frame in router.wait(3.2) if port == WAN]
    assert len(made) == 2, "asked three times in all"
    assert router.run(Arrived(frame, LAN))[0].reason == "unresolved", "for a second"
    router.wait(1.2)
    assert router.run(Arrived(frame, LAN))[0].reason == "resolving", "asked again"


@both_versions
def test_neighbour_in_use_is_asked_whether_it_is_there(near: str, far: str) -> None:
    router = Router()
    router.meet()
    frame = to_router(LAN, udp(near, 5, far, 6))
    router.now_ns += 29 * NS
    assert router.run(Arrived(frame, LAN))[0].out == WAN
    made = [frame for port, frame in router.wait(2.5) if port == WAN]
    assert len(made) == 2
    assert made[0][:6] == HOST_MACS[WAN], "it alone"
    assert router.run(Arrived(frame, LAN))[0].out == WAN, "and used meanwhile"
    own = HOSTS_GATEWAYS[WAN][":" in far]
    router.run(Arrived(answer(WAN, far, own), WAN))
    assert router.wait(5) == []


@both_versions
def test_neighbour_with_a_new_address_gets_packets_there(near: str, far: str) -> None:
    router = Router()
    router.meet()
    other = bytes([2, 0, 0, 0, 9, 9])
    own = HOSTS_GATEWAYS[WAN][":" in far]
    make = ndp if ":" in far else arp
    kind = 136 if ":" in far else 2
    router.run(Arrived(make(WAN, kind, far, own, other), WAN))
    (done,) = router.run(Arrived(to_router(LAN, udp(near, 5, far, 6)), LAN))
    assert done.data[:6] == other


def test_spoofed_and_unasked_words_are_not_learned() -> None:
    router = Router()
    router.wait(4)
    for frame in (
        arp(WAN, 1, "198.51.100.1", "198.51.100.1"),  # the router's own address
        arp(WAN, 2, "198.51.100.50", "198.51.100.1"),  # unasked
        arp(WAN, 1, "10.0.0.5", "198.51.100.1"),  # of another link
        arp(WAN, 1, "198.51.100.9", "198.51.100.1", b"\x03" + bytes(5)),  # a group
    ):
        router.run(Arrived(frame, WAN))
    assert router.model.neighbours == {}


def test_flood_of_hosts_leaves_room_for_those_that_packets_go_to() -> None:
    router = Router(max_neighbours=32)
    router.meet()
    for number in range(100, 200):
        router.run(Arrived(arp(LAN, 1, f"10.0.0.{number}", "10.0.0.1"), LAN))
    assert router.kernel.router.neighbours == 16
    reasons = [
        router.run(Arrived(to_router(WAN, udp("198.51.100.9", 5, f"10.0.0.{number}", 6)), WAN))
        for number in range(50, 80)
    ]
    assert [done[0].reason for done in reasons] == ["resolving"] * 16 + ["unresolved"] * 14
    (done,) = router.run(Arrived(to_router(LAN, udp("10.0.0.5", 5, "198.51.100.9", 6)), LAN))
    assert done.out == WAN, "who is known stays known"


def test_interfaces_announce_themselves() -> None:
    made = Router().wait(5)
    assert len(made) == (1 + 3) * 9, "each address is asked for once, and told three times"
    assert made[0][1][28:32] == bytes(4), "a probe of RFC 5227"
    assert made[1][1][28:32] == made[1][1][38:42], "gratuitous ARP"


def test_flows_are_spread_over_gateways_both_ways_alike() -> None:
    router = Router()
    router.meet()
    outs = set()
    for sport in range(40):
        frame = to_router(LAN, udp("10.0.0.5", 1000 + sport, "8.8.8.8", 53))
        one, other = router.run(Arrived(frame, LAN), Arrived(frame, LAN))
        assert one.out == other.out
        outs.add(one.out)
    assert outs == {WAN, DMZ}


def test_mss_is_clamped() -> None:
    router = Router(clamp_mss=True)
    router.meet()
    for options in (b"\2\4\5\xb4", b"\1\2\4\5\xb4\1\1\1", b"\1\1\2\4\5\xb4\1\1"):
        words = 5 + len(options) // 4
        head = struct.pack("!HHIIBBHHH", 5, 6, 1, 1, words << 4, SYN, 512, 0, 0) + options
        frame = to_router(LAN, ip("10.0.0.5", "192.0.2.9", 6, head))
        (done,) = router.run(Arrived(frame, LAN))
        assert is_sound(done.data)
        at = done.data.index(b"\2\4", 54) + 2
        assert int.from_bytes(done.data[at : at + 2], "big") == 560


def test_interface_without_port_sends_nothing() -> None:
    router = Router(routes=[])
    router.meet()
    router.change(LAN)
    frame = to_router(LAN, udp("10.0.0.5", 5, "198.51.100.9", 6))
    assert router.run(Arrived(frame, LAN))[0].reason == "no_route"
    frame = ask(WAN, "198.51.100.9", "198.51.100.1")
    assert router.run(Arrived(frame, WAN))[0].reason == "no_interface"


# ---- VLANs ----


def tagged(frame: bytes, vlan: int) -> bytes:
    return frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:]


VLAN_HOSTS = ("192.0.2.130", "2001:db8:30::5")


@pytest.mark.parametrize(
    ("near", "far", "own"),
    list(zip(VLAN_HOSTS, HOSTS[LAN], ("192.0.2.129", "2001:db8:30::1"), strict=True)),
)
def test_tag_goes_and_comes(near: str, far: str, own: str) -> None:
    router = Router()
    router.meet()
    (done,) = router.run(Arrived(tagged(ask(DMZ, near, own), VLAN), DMZ))
    assert done.out == DMZ
    assert done.data[12:16] == b"\x81\x00" + VLAN.to_bytes(2, "big"), "the answer has the tag"
    frame = to_router(DMZ, udp(near, 5, far, 6))
    (done,) = router.run(Arrived(tagged(frame, VLAN), DMZ))
    assert (done.out, done.data[12:14]) == (LAN, frame[12:14])
    (back,) = router.run(Arrived(to_router(LAN, udp(far, 6, near, 5)), LAN))
    assert back.out == DMZ
    assert back.data[12:16] == b"\x81\x00" + VLAN.to_bytes(2, "big")
    (echoed,) = router.run(Arrived(tagged(to_router(DMZ, echo(near, own, 20)), VLAN), DMZ))
    assert echoed.data[12:14] == b"\x81\x00"
    (ended,) = router.run(Arrived(tagged(to_router(DMZ, udp(near, 5, far, 6), 1), VLAN), DMZ))
    assert ended.reason == "ttl"
    assert router.made[0][1][12:16] == b"\x81\x00" + VLAN.to_bytes(2, "big"), "so has the error"


def test_vlans_of_one_port_are_routed_between() -> None:
    router = Router()
    router.meet()
    router.run(Arrived(tagged(ask(DMZ, VLAN_HOSTS[0], "192.0.2.129"), VLAN), DMZ))
    (done,) = router.run(Arrived(to_router(DMZ, udp("192.0.2.9", 5, VLAN_HOSTS[0], 6)), DMZ))
    assert (done.out, done.data[12:16]) == (DMZ, b"\x81\x00" + VLAN.to_bytes(2, "big"))


def test_frame_of_another_vlan_has_no_interface() -> None:
    router = Router()
    frame = to_router(DMZ, echo(VLAN_HOSTS[0], "192.0.2.129", 20))
    assert router.run(Arrived(tagged(frame, 11), DMZ))[0].reason == "no_interface"
    assert router.run(Arrived(tagged(frame, VLAN), LAN))[0].reason == "no_interface"
    # A mere priority is no VLAN.
    frame = tagged(to_router(LAN, echo(HOSTS[LAN][0], "10.0.0.1", 20)), 5 << 13)
    assert router.run(Arrived(frame, LAN))[0].out == LAN


# ---- the slow path ----


@pytest.mark.parametrize(("near", "own"), list(zip(HOSTS[DMZ], HOSTS_GATEWAYS[DMZ], strict=True)))
def test_host_gets_what_is_for_its_addresses(near: str, own: str) -> None:
    router = Router()
    router.change(*PORTS, slow_port=HOST_PORT)
    router.meet()
    for frame in (
        to_router(DMZ, tcp(near, 5, own, 22, SYN)),
        to_router(DMZ, udp(near, 5, own, 179)),
        answer(DMZ, near, own),
    ):
        (done,) = router.run(Arrived(frame, DMZ))
        assert (done.out, done.data) == (HOST_PORT, frame)
        (back,) = router.run(Arrived(frame, HOST_PORT))
        assert (back.out, back.data) == (DMZ, frame), "as the host has made it"
    (done,) = router.run(Arrived(to_router(DMZ, echo(near, own, 20)), DMZ))
    assert done.out == DMZ, "an echo is answered here"
    (done,) = router.run(Arrived(to_router(LAN, tcp(HOSTS[LAN][0], 5, "10.0.0.1", 22, SYN)), LAN))
    assert done.reason == "local", "no slow path there"


def test_host_gets_packets_to_all_hosts_and_groups_of_the_link() -> None:
    router = Router()
    router.change(*PORTS, slow_port=HOST_PORT)
    router.meet()
    for source, group, is_given in (
        ("192.0.2.9", "224.0.0.5", True),
        ("0.0.0.0", "255.255.255.255", True),
        ("192.0.2.9", "239.1.1.1", False),
        ("fe80::5", "ff02::5", True),
        ("fe80::5", "ff05::5", False),
    ):
        frame = b"\x01\0\x5e\0\0\5" + to_router(DMZ, udp(source, 5, group, 6))[6:]
        (done,) = router.run(Arrived(frame, DMZ))
        assert (done.out == HOST_PORT) == is_given, group
        assert is_given or done.reason == "multicast"
    (tagged_one,) = router.run(
        Arrived(tagged(to_router(DMZ, tcp(VLAN_HOSTS[0], 5, "192.0.2.129", 22)), VLAN), DMZ)
    )
    assert tagged_one.out == HOST_PORT
    assert tagged_one.data[12:14] == b"\x81\x00"


# ---- addresses ----


def test_spoofed_words_are_defended_against_and_logged() -> None:
    router = Router()
    router.wait(4)
    liar = arp(LAN, 2, "10.0.0.1", "10.0.0.5")
    router.run(Arrived(liar, LAN))
    ((port, said),) = router.made
    assert (port, said[6:12], said[28:32]) == (LAN, MACS[LAN], bytes([10, 0, 0, 1]))
    router.run(*(Arrived(liar, LAN) for _ in range(32)))
    assert not router.made, "once in ten seconds"
    router.now_ns += 10 * NS
    router.run(Arrived(liar, LAN))
    assert len(router.made) == 1
    told = router.kernel.router.conflicts()
    assert told == [(ip_address("10.0.0.1"), 0, HOST_MACS[LAN].hex(":"))] * 2
    assert told == router.model.conflicts
    assert router.kernel.router.conflicts() == []


def test_scan_of_a_link_leaves_room_for_hosts_that_are_there() -> None:
    router = Router(max_neighbours=32)
    router.meet(WAN)
    reasons = []
    for number in range(50, 80):
        frame = to_router(WAN, udp("198.51.100.9", 5, f"10.0.0.{number}", 6))
        reasons.append(router.run(Arrived(frame, WAN))[0].reason)
    assert reasons == ["resolving"] * 16 + ["unresolved"] * 14
    router.run(Arrived(ask(DMZ, "192.0.2.9", "192.0.2.1"), DMZ))
    (done,) = router.run(Arrived(to_router(WAN, udp("198.51.100.9", 5, "192.0.2.9", 6)), WAN))
    assert done.out == DMZ


def test_gateway_is_asked_for_before_there_are_packets() -> None:
    router = Router()
    router.wait(4)
    gateway = ip_address("198.51.100.9")
    for one in (router.kernel.router, router.model):
        one.meet(1, gateway)
    ((port, question),) = router.wait(0.1)
    assert (port, question[38:42]) == (WAN, gateway.packed)
    router.run(Arrived(answer(WAN, "198.51.100.9", "198.51.100.1"), WAN))
    frame = to_router(LAN, udp("10.0.0.5", 5, "198.51.100.9", 6))
    assert router.run(Arrived(frame, LAN))[0].out == WAN, "no packet has to wait"


def test_address_of_another_nf_is_answered_for_once_it_is_told() -> None:
    router = Router(others=[])
    router.meet()
    question = Arrived(ask(WAN, "198.51.100.9", "198.51.100.20"), WAN)
    assert router.run(question)[0].reason == "consumed"
    router.change(*PORTS, others=["198.51.100.20", "203.0.113.77"])
    assert router.run(question)[0].out == WAN
    frame = to_router(WAN, udp("198.51.100.9", 5, "198.51.100.20", 6))
    assert router.run(first(frame, WAN))[0].out is None, "it goes on along the chain"


def test_changes_keep_neighbours_of_what_stays() -> None:
    router = Router()
    router.meet()
    known = router.kernel.router.neighbours
    router.change(*PORTS, others=[], clamp_mss=True)
    assert router.kernel.router.neighbours == known
    assert router.wait(0.1), "it announces the addresses that have changed"
    router.change(LAN, WAN)
    assert router.kernel.router.neighbours == known - len(HOSTS[DMZ])


def test_prefixes_are_advertised() -> None:
    router = Router(interfaces={"lan": {"advertise": True}})
    made = [
        frame for _, frame in router.wait(40) if frame[12:14] == b"\x86\xdd" and frame[54] == 134
    ]
    assert len(made) == 3
    assert made[0][21] == 255
    assert ip_address(made[0][-16:]) == ip_address("2001:db8:1::")
    solicitation = (
        MACS[LAN] + HOST_MACS[LAN] + ip("fe80::5", "ff02::2", 58, bytes([133] + 7 * [0]))[12:]
    )
    solicitation = solicitation[:21] + b"\xff" + solicitation[22:]
    router.run(*(Arrived(solicitation, LAN) for _ in range(20)))
    assert len(router.wait(10)) == 1, "a flood of questions makes no flood"


@pytest.mark.parametrize(
    ("mode", "source", "port", "passes"),
    [
        ("strict", "10.0.0.5", LAN, True),
        ("strict", "192.0.2.9", LAN, False),
        ("strict", "8.8.8.8", LAN, False),
        ("loose", "192.0.2.9", LAN, True),
        ("loose", "8.8.8.8", LAN, True),
        ("loose", "203.0.113.5", LAN, False),
        ("strict", "2001:db8:1::5", LAN, True),
        ("strict", "2001:db8:3::9", LAN, False),
        ("strict", "2001:db8:ff::9", LAN, False),
        ("off", "192.0.2.9", LAN, True),
    ],
)
def test_reverse_path_is_looked_at(mode: str, source: str, port: int, passes: bool) -> None:
    router = Router(interfaces={"lan": {"reverse_path": mode}})
    router.meet()
    far = "2001:db8:2::9" if ":" in source else "198.51.100.9"
    (done,) = router.run(Arrived(to_router(port, udp(source, 5, far, 6)), port))
    assert (done.out is not None) == passes
    assert passes or done.reason == "martian"


# ---- routes ----


def test_weights_share_flows_out() -> None:
    route = {"prefix": "0.0.0.0/0", "via": ["198.51.100.9", "192.0.2.9"], "weights": [3, 1]}
    router = Router(routes=[route])
    router.meet()
    count = {WAN: 0, DMZ: 0}
    for sport in range(200):
        flow = udp("10.0.0.5", 1000 + sport, "8.8.8.8", 53)
        (done,) = router.run(Arrived(to_router(LAN, flow), LAN))
        assert done.out is not None
        count[done.out] += 1
    assert 120 < count[WAN] < 180


def test_earlier_source_of_a_route_counts() -> None:
    said: list[str] = []
    routes: dict[object, int] = {}

    class Plane:
        def set_group(self, index: int, kind: str, hops: object) -> None:
            said.append(f"{index} {kind}")

        def add_route(self, prefix: object, group: int) -> None:
            routes[prefix] = group

        def delete_route(self, prefix: object) -> None:
            del routes[prefix]

    table = RouteTable(Plane())
    net = ip_network("10.0.0.0/8")
    table.change(HOST, net, ("blackhole", ()))
    table.change(FILE, net, ("unreachable", ()))
    assert routes == {net: 1}
    table.replace(FILE, [])
    assert len(routes) == 1
    assert routes[net] == 0
    table.replace(HOST, [])
    assert routes == {}
    assert len(table) == 0
    # Sets of next hops that nothing uses are used again.
    for number in range(100):
        table.change(FILE, net, ("unicast", (Hop(ip_address(number), 0),)))
    assert max(int(line.split()[0]) for line in said) <= 2


# ---- the NF ----


def test_mac_address_is_made_once_for_each_host() -> None:
    first, same, other = (
        Port("lan", 1, mac=mac) for mac in ("02:00:00:00:00:05",) * 2 + ("02:06",)
    )
    assert mac_for(first) == mac_for(same)
    assert mac_for(first) != mac_for(other)
    assert mac_for(first)[0] & 3 == 2, "unicast, locally administered"
    first.link = {"mac": "02:00:00:00:00:09"}
    assert mac_for(first) == bytes([2, 0, 0, 0, 0, 9])
    first.link = {"mac": "interface"}
    assert mac_for(first) == bytes([2, 0, 0, 0, 0, 5])
    with pytest.raises(ConfigError, match=r"lan\.mac: 'interface': expected a port with"):
        mac_for(Port("lan", 1, link=first.link))


def test_ports_come_and_go(capsys: pytest.CaptureFixture[str]) -> None:
    with Runner("router", config=CONFIG) as runner:
        nf = runner.stages[0].nf
        assert isinstance(nf, Plugin)
        frame = arp(LAN, 1, "10.0.0.5", "10.0.0.1")
        assert runner.run([frame], ports=LAN).reasons == ["no_interface"]
        nf.on_ports(ports_of(LAN, DMZ))
        said = capsys.readouterr().err
        assert "routes[0].via: '198.51.100.9': expected an address on the link of an" in said
        assert runner.run([frame], ports=LAN).verdicts == [Verdict.OUT]
        nf.on_ports(ports_of(WAN))
        assert runner.run([frame], ports=LAN).reasons == ["no_interface"]
        nf.on_ports([Port("wan", WAN)])
        assert "ports: none has addresses" in capsys.readouterr().err


def test_configuration_changes_while_the_router_runs() -> None:
    with Runner("router", config={"routes": []}) as runner:
        nf = runner.stages[0].nf
        assert isinstance(nf, Plugin)
        nf.on_ports(ports_of(*PORTS))
        runner.run([arp(WAN, 1, "198.51.100.9", "198.51.100.1")], ports=WAN)
        frame = to_router(LAN, udp("10.0.0.5", 5, "8.8.8.8", 53))
        assert runner.run([frame], ports=LAN).reasons == ["no_route"]
        route = {"prefix": "0.0.0.0/0", "via": "198.51.100.9"}
        runner.reconfigure({"routes": [route]})
        assert runner.run([frame], ports=LAN).verdicts == [Verdict.OUT], "the neighbour is known"
        with pytest.raises(ConfigError, match=r"routes\[0\]\.via: 'x'"):
            runner.reconfigure({"routes": [{**route, "via": "x"}]})
        assert runner.run([frame], ports=LAN).verdicts == [Verdict.OUT], "as before"
        runner.reconfigure({"routes": [route], "max_routes": 100})
        assert runner.run([frame], ports=LAN).reasons == ["resolving"], "other tables"
        runner.reconfigure({"routes": [], "max_routes": 100})
        assert runner.run([frame], ports=LAN).reasons == ["no_route"]


def test_router_in_one_process_with_others_does_not_pass_them_by() -> None:
    with Runner(["router", "firewall"], config={"router": CONFIG}) as runner:
        nf = runner.stages[0].nf
        assert isinstance(nf, Plugin)
        nf.on_ports(ports_of(*PORTS))
        frame = to_router(LAN, udp("10.0.0.5", 5, "198.51.100.9", 6))
        forwards = runner.run([frame], ports=LAN)
        assert forwards.verdicts == [Verdict.NEXT], "the firewall is the last one"
        backwards = runner.run([frame], ports=LAN, reverse=True)
        assert backwards.reasons == ["resolving"], "the router is"
        assert backwards.counters["firewall"]["accepted_by_default"] == 2


# ---- kernel and model ----

ADDRESSES = (
    "10.0.0.5", "10.0.0.6", "10.0.0.1", "198.51.100.9", "198.51.100.1", "198.51.100.20",
    "192.0.2.9", "192.0.2.1", "8.8.8.8", "203.0.113.5", "203.0.113.200", "127.0.0.1", "224.0.0.5",
    "0.0.0.0",
)  # fmt: skip
ADDRESSES6 = (
    "2001:db8:1::5", "2001:db8:1::1", "2001:db8:2::9", "2001:db8:2::1", "2001:db8:3::9", "::1",
    "::", "2001:db8:ff::5", "fe80::5", "ff02::1", "ff02::1:ff00:1", "fe80::ff:fe00:103",
)  # fmt: skip


@st.composite
def packets(draw: st.DrawFn) -> Arrived:
    port = draw(st.sampled_from(PORTS))
    a, b = (draw(st.sampled_from(draw(st.just(ADDRESSES)))) for _ in range(2))
    c, d = (draw(st.sampled_from(ADDRESSES6)) for _ in range(2))
    size = draw(st.sampled_from((0, 1, 20, 560, 700, 1400)))
    kind = draw(st.integers(0, 9))
    src, dst = (a, b) if draw(st.booleans()) else (c, d)
    if kind == 0:
        frame = arp(port, draw(st.integers(1, 3)), a, b, HOST_MACS[draw(st.sampled_from(PORTS))])
    elif kind == 1:
        frame = ndp(port, draw(st.sampled_from((135, 136, 133))), c, d)
    elif kind == 2:
        frame = to_router(port, echo(src, dst, size))
    elif kind == 3:
        flags = draw(st.sampled_from((0, 0x4000, 0x2000, 0x2005, 5)))
        options = draw(st.sampled_from((b"", b"\7\3\4\1", bytes([0x94, 4, 0, 0]), b"\7\0\0\0")))
        frame = ip(a, b, draw(st.sampled_from((17, 6, 1, 99))), bytes(size), flags, options=options)
        frame = to_router(port, frame)
    elif kind == 4:
        about = udp(dst, 4, src, 5)
        frame = to_router(port, icmp_error(src, dst, about), draw(st.integers(0, 2)))
    elif kind == 5:
        options = draw(st.sampled_from((b"\2\4\5\xb4", b"\1\2\4\5\xb4\1\1\1", b"\5\0\1\1")))
        head = struct.pack("!HHIIBBHHH", 5, 6, 1, 1, 5 + len(options) // 4 << 4, SYN, 512, 0, 0)
        frame = to_router(port, ip(src, dst, 6, head + options))
    else:
        make = draw(st.sampled_from((tcp, udp)))
        payload = bytes(size)
        sport = draw(st.integers(1, 9))
        frame = (
            make(src, sport, dst, 80, ACK, payload)
            if make is tcp
            else make(src, sport, dst, 80, payload)
        )
        frame = to_router(port, frame, draw(st.sampled_from((0, 1, 2, 64))))
    if draw(st.integers(0, 3)) == 0:
        frame = tagged(frame, draw(st.sampled_from((0, VLAN, 11))))
    if draw(st.integers(0, 3)) == 0 and frame:
        at = draw(st.integers(0, len(frame) - 1))
        frame = frame[:at] + draw(st.binary(min_size=1, max_size=2)) + frame[at + 1 :]
    if draw(st.integers(0, 7)) == 0:
        frame = frame[: draw(st.integers(0, len(frame)))]
    return Arrived(frame, port, buffer=draw(st.integers(0, 5)))


@settings(max_examples=30)
@given(
    alone=st.booleans(),
    clamp=st.booleans(),
    bursts=st.lists(
        st.tuples(st.lists(packets(), max_size=6), st.sampled_from((0, 50, 100, 1000, 31_000))),
        max_size=8,
    ),
    known=st.booleans(),
    has_host=st.booleans(),
)
def test_kernel_agrees_with_model(
    alone: bool,
    clamp: bool,
    bursts: list[tuple[list[Arrived], int]],
    known: bool,
    has_host: bool,
) -> None:
    modes = {"lan": {"reverse_path": "strict"}, "wan": {"advertise": True}}
    router = Router(clamp_mss=clamp, interfaces=modes if clamp else {})
    router.change(*PORTS, slow_port=HOST_PORT if has_host else None)
    if known:
        router.meet()
    for burst, wait_ms in bursts:
        router.now_ns += wait_ms * NS // 1000
        done = router.run(*(replace(packet, last=alone) for packet in burst))
        router.run(
            *(
                last(one.data, packet.port, packet.buffer)
                for one, packet in zip(done, burst, strict=True)
                if one.out is None and not one.reason
            )
        )


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=120), max_size=5), st.sampled_from(PORTS))
def test_kernel_agrees_with_model_on_noise(frames: list[bytes], port: int) -> None:
    router = Router()
    router.run(*(Arrived(frame, port) for frame in frames))
    router.run(*(Arrived(MACS[port] + HOST_MACS[port] + frame[12:], port) for frame in frames))
    router.run(*(last(frame, port) for frame in frames))


# ---- configuration ----


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {"interfaces": {"a": {"mtu": 20}}},
            "interfaces.a.mtu: 20: expected 0 or an MTU from 68 to 9600",
        ),
        (
            {"routes": [{"prefix": "10.0.0.1/24"}]},
            "routes[0].prefix: '10.0.0.1/24': expected a network such as 10.0.0.0/8, host bits zero",
        ),
        (
            {"routes": [{"prefix": "10.0.0.0/24"}]},
            "routes[0].via: '': expected a gateway or an interface",
        ),
        (
            {"routes": [{"prefix": "10.0.0.0/24", "via": "::1"}]},
            "routes[0].via: '::1': expected an IPv4 address, as the prefix has",
        ),
        (
            {"routes": [{"prefix": "10.0.0.0/24", "kind": "blackhole", "via": "10.9.0.1"}]},
            "routes[0].via: '10.9.0.1': expected no next hop for a route that is blackhole",
        ),
        (
            {"routes": [{"prefix": "10.0.0.0/24", "via": ["10.9.0.1"], "weights": [1, 2]}]},
            "routes[0].weights: 2: expected 1 weights, one for each gateway",
        ),
        (
            {"routes": [{"prefix": "10.0.0.0/24", "interface": "x"}] * 2},
            "routes[1].prefix: '10.0.0.0/24': expected a prefix that no other route has",
        ),
    ],
)
def test_mistakes_are_one_line(config: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config, file="router.toml")
    assert str(caught.value) == f"router.toml: {line}"


@pytest.mark.parametrize(
    ("route", "line"),
    [
        (
            {"via": "10.9.0.1"},
            "routes[0].via: '10.9.0.1': expected an address on the link of an interface",
        ),
        (
            {"via": "10.0.0.1"},
            "routes[0].via: '10.0.0.1': expected the address of another host",
        ),
        (
            {"interface": "x"},
            "routes[0].interface: 'x': expected one of lan, wan, dmz, dmz.10",
        ),
        (
            {"via": "198.51.100.9", "interface": "lan"},
            "routes[0].via: '198.51.100.9': expected an address on the link of lan",
        ),
    ],
)
def test_route_that_leads_to_no_link_is_left_out(route: dict[str, object], line: str) -> None:
    config = load({"routes": [{"prefix": "10.7.0.0/24", **route}]})
    interfaces = interfaces_of(ports_of(*PORTS), config.settings)
    found, complaints = static_routes(config.routes, interfaces)
    assert not found
    assert [str(one) for one in complaints] == [line]


def test_new_routes_are_used_and_neighbours_stay_known() -> None:
    config = {"routes": [{"prefix": "192.0.2.0/24", "kind": "blackhole"}]}
    with Runner("router", config=config) as runner:
        runner.stages[0].nf.on_ports(ports_of(LAN, WAN))
        packet = to_router(LAN, ip("10.0.0.5", "192.0.2.7", 17, bytes(8)))
        assert runner.run([packet], ports=LAN).reasons == ["blackhole"]
        runner.reconfigure({"routes": [{"prefix": "192.0.2.0/24", "kind": "unreachable"}]})
        assert runner.run([packet], ports=LAN).reasons != ["blackhole"]
        with pytest.raises(ConfigError, match="max_routes: 7: expected"):
            runner.reconfigure({"max_routes": 7})
        with pytest.raises(ConfigError, match="routes"):
            runner.reconfigure({"routes": [{"prefix": "nonsense"}]})
