# SPDX-License-Identifier: Apache-2.0
"""The NAT: requirements of the RFCs as cases, and the C kernel against the model."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onvm_nf_nat.config import NatConfig, load
from onvm_nf_nat.kernel import inherited, make_kernel, restore, save, set_routed, tick
from onvm_nf_nat.model import Drop, NatModel, siphash

from onvm_sdk import Verdict
from onvm_sdk.errors import ConfigError, NativeError
from onvm_sdk.headers import checksum, read_headers
from onvm_sdk.manifest import find_manifest, read_config, read_manifest
from onvm_sdk.memory import needed_mib
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import (
    ACK,
    FIN,
    RST,
    SYN,
    echo,
    icmp_error,
    ip,
    is_sound,
    tcp,
    udp,
)
from onvm_sdk.testing.kernel import DROP, NEXT, OUT, KernelRunner, Packet

REASONS = [
    "malformed",
    "fragment",
    "protocol",
    "no_mapping",
    "filtered",
    "exhausted",
    "table_full",
    "not_ip",
    "unroutable",
    "subscriber_limit",
]
COUNTERS = [
    "translated_out",
    "translated_in",
    "hairpinned",
    "icmp_errors",
    "passed",
    "mappings_opened",
    "mappings_closed",
    "sessions_opened",
    "sessions_expired",
    "sessions_evicted",
]
NS = 1_000_000_000
KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
I1, I2, O1, O2, E = "10.0.0.1", "10.0.0.2", "198.51.100.1", "198.51.100.2", "192.0.2.1"


class Nat:
    """One NAT with a clock."""

    def __init__(self, **config: object) -> None:
        self.use(load(config))
        self.now_s = 1

    def use(self, config: NatConfig) -> None:
        self.kernel = make_kernel(config, KEY)
        self.runner = KernelRunner(self.kernel)

    def wait(self, seconds: int) -> None:
        """Let time pass, with a burst at its end."""
        self.now_s += seconds
        self.runner.run([], self.now_s * NS)

    def count(self, name: str) -> int:
        return self.runner.counters[COUNTERS.index(name)]

    def _run(self, frame: bytes, reverse: bool) -> Packet:
        packet = Packet(frame, reverse, port=3)
        return self.runner.run([packet], self.now_s * NS)[0]

    def out(self, frame: bytes) -> bytes:
        """Send one packet outwards; it must pass, with right checksums."""
        done = self._run(frame, False)
        assert done.verdict == NEXT
        assert is_sound(done.data)
        return done.data

    def back(self, frame: bytes) -> bytes:
        done = self._run(frame, True)
        assert done.verdict == NEXT
        assert is_sound(done.data)
        return done.data

    def dropped(self, frame: bytes, *, reverse: bool = True) -> str:
        done = self._run(frame, reverse)
        assert done.verdict == DROP
        return REASONS[done.destination]


def src(frame: bytes) -> tuple[bytes, int]:
    h = read_headers(frame)
    if h.protocol == 1:
        return h.src, int.from_bytes(frame[h.l4_offset + 4 : h.l4_offset + 6], "big")
    return h.src, h.src_port


def turned(frame: bytes) -> bytes:
    """The frame with its MAC addresses exchanged."""
    return frame[6:12] + frame[:6] + frame[12:]


MAKERS = [udp, tcp]


@pytest.mark.parametrize("make", MAKERS)
def test_mapping_is_endpoint_independent(make) -> None:  # RFC 4787 REQ-1, RFC 5382 REQ-1
    nat = Nat()
    assert src(nat.out(make(I1, 5000, O1, 80))) == src(nat.out(make(I1, 5000, O2, 99)))


@pytest.mark.parametrize("make", MAKERS)
def test_ports_are_not_overloaded(make) -> None:  # RFC 4787 REQ-3, RFC 5382 REQ-7
    nat = Nat()
    ends = [
        src(nat.out(make(inside, port, O1, 80)))
        for inside in (I1, I2, "10.0.0.3")
        for port in range(4000, 4500)
    ]
    assert len(set(ends)) == len(ends)


@pytest.mark.parametrize("make", MAKERS)
def test_port_is_preserved_by_option(make) -> None:  # RFC 4787 REQ-3
    nat = Nat(preserve_port=True)
    for port in (80, 5000, 5001):
        assert src(nat.out(make(I1, port, O1, 80)))[1] == port
        other = src(nat.out(make(I2, port, O1, 80)))[1]
        assert other != port
        assert other % 2 == port % 2


@pytest.mark.parametrize("make", MAKERS)
def test_ports_keep_their_range_and_parity(make) -> None:  # RFC 4787 REQ-3a, REQ-4
    nat = Nat()
    for port in (1, 2, 123, 1022, 1023, 1024, 1025, 5000, 5001, 65535):
        external = src(nat.out(make(I1, port, O1, 80)))[1]
        assert external > 0
        assert (external < 1024) is (port < 1024)
        assert external % 2 == port % 2


@pytest.mark.parametrize("make", MAKERS)
def test_ports_are_a_secret(make) -> None:  # RFC 6056, RFC 7857 section 9
    chosen = set()
    for key in range(8):
        runner = KernelRunner(make_kernel(load({}), (key, 1)))
        out = runner.run([Packet(make(I1, port, O1, 80)) for port in range(2000, 2064, 2)], NS)
        ports = [src(packet.data)[1] for packet in out]
        steps = {(b - a) % 65536 for a, b in pairwise(ports)}
        assert len(steps) > 28, "they do not follow each other"
        chosen.add(tuple(ports))
    assert len(chosen) == 8
    runner = KernelRunner(make_kernel(load({})))
    other = KernelRunner(make_kernel(load({})))
    frames = [Packet(make(I1, port, O1, 80)) for port in range(2000, 2064)]
    assert runner.run(frames, NS) != other.run(frames, NS)


def test_siphash_is_that_of_python() -> None:
    # PYTHONHASHSEED=0 python3.11 -c "print(hex(hash(bytes(range(16))) % 2**64))"
    assert siphash((0, 0), bytes(range(16))) == 0x8972188433A5C5B7


@pytest.mark.parametrize("make", MAKERS)
def test_freed_ports_rest(make) -> None:  # RFC 6888 REQ-8
    nat = Nat(ports="2000-2000")
    assert src(nat.out(make(I1, 5000, O1, 80)))[1] == 2000
    idle_s = 240 if make is tcp else 300
    nat.wait(idle_s)
    assert nat.count("mappings_closed") == 1
    if make is tcp:  # exception A: connections are followed
        assert src(nat.out(make(I2, 5000, O1, 80)))[1] == 2000
        return
    for waited in (0, 119):
        nat.wait(waited)
        assert nat.dropped(make(I2, 5000, O1, 80), reverse=False) == "exhausted"
    nat.wait(1)
    assert src(nat.out(make(I2, 5000, O1, 80)))[1] == 2000


@pytest.mark.parametrize("make", MAKERS)
def test_reply_comes_back(make) -> None:
    nat = Nat()
    external = src(nat.out(make(I1, 5000, O1, 80)))[1]
    assert nat.back(make(O1, 80, E, external)) == make(O1, 80, I1, 5000)
    assert nat.dropped(make(O1, 80, E, external ^ 1)) == "no_mapping"
    assert nat.dropped(make(O1, 80, I1, 5000)) == "no_mapping"


@pytest.mark.parametrize(
    ("filtering", "other_port", "other_host"),
    [
        ("endpoint-independent", True, True),
        ("address-dependent", True, False),
        ("address-and-port-dependent", False, False),
    ],
)
def test_filtering(filtering: str, other_port: bool, other_host: bool) -> None:  # RFC 4787 REQ-8
    nat = Nat(filtering=filtering)
    port = src(nat.out(udp(I1, 5000, O1, 80)))[1]
    nat.back(udp(O1, 80, E, port))
    for frame, allowed in ((udp(O1, 81, E, port), other_port), (udp(O2, 80, E, port), other_host)):
        if allowed:
            nat.back(frame)
        else:
            assert nat.dropped(frame) == "filtered"


def test_udp_idle_time_and_refresh() -> None:  # RFC 4787 REQ-5, REQ-6
    nat = Nat(max_sessions=1024)
    port = src(nat.out(udp(I1, 5000, O1, 80)))[1]
    nat.wait(200)
    nat.out(udp(I1, 5000, O1, 80))
    nat.wait(200)
    nat.back(udp(O1, 80, E, port))
    nat.wait(99)
    nat.back(udp(O1, 80, E, port))
    nat.wait(1)
    assert nat.dropped(udp(O1, 80, E, port)) == "no_mapping", "inbound did not refresh"


def test_inbound_refresh_is_an_option() -> None:  # RFC 4787 REQ-6a
    nat = Nat(inbound_refresh=True)
    port = src(nat.out(udp(I1, 5000, O1, 80)))[1]
    for _ in range(3):
        nat.wait(200)
        nat.back(udp(O1, 80, E, port))


def test_tcp_idle_times() -> None:  # RFC 5382 REQ-5
    nat = Nat(max_sessions=1024)
    nat.out(tcp(I1, 1, O1, 80, SYN))
    nat.out(tcp(I2, 2, O1, 80, SYN))
    nat.back(tcp(O1, 80, E, src(nat.out(tcp(I2, 2, O1, 80, SYN)))[1], SYN | ACK))
    nat.wait(239)
    assert nat.count("sessions_expired") == 0
    nat.wait(1)
    assert nat.count("sessions_expired") == 1, "only the half-open one is gone"
    nat.wait(7199)
    assert nat.count("sessions_expired") == 1
    nat.out(tcp(I2, 2, O1, 80, FIN | ACK))
    nat.back(tcp(O1, 80, E, src(nat.out(tcp(I2, 2, O1, 80)))[1], FIN | ACK))
    nat.wait(240)
    assert nat.count("sessions_expired") == 2
    nat.back(tcp(O1, 80, E, src(nat.out(tcp(I1, 3, O1, 80, SYN)))[1], SYN | ACK))
    nat.wait(7440)
    assert nat.count("sessions_expired") == 3


def test_query_idle_time() -> None:  # RFC 5508 REQ-2
    nat = Nat()
    nat.out(echo(I1, O1, 7))
    nat.wait(59)
    assert nat.count("sessions_expired") == 0
    nat.wait(1)
    assert nat.count("sessions_expired") == 1


@pytest.mark.parametrize("make", MAKERS)
def test_hairpin_has_external_source(make) -> None:  # RFC 4787 REQ-9, RFC 5382 REQ-8
    nat = Nat()
    target = src(nat.out(make(I2, 6000, O1, 80)))[1]
    own = src(nat.out(make(I1, 5000, O1, 80)))[1]
    done = nat._run(make(I1, 5000, E, target), False)
    assert (done.verdict, done.destination) == (OUT, 3)
    assert done.data == turned(make(E, own, I2, 6000)), "to the router that it came from"
    back = nat._run(make(I2, 6000, E, own), False)
    assert back.data == turned(make(E, target, I1, 5000))


@pytest.mark.parametrize("make", MAKERS)
def test_hairpin_goes_on_to_the_router_of_the_chain(make) -> None:
    nat = Nat(inside=["10.0.0.0/24"])
    set_routed(nat.kernel, True)
    target = src(nat.out(make(I2, 6000, O1, 80)))[1]
    own = src(nat.out(make(I1, 5000, O1, 80)))[1]
    assert nat.out(make(I1, 5000, E, target)) == make(E, own, I2, 6000)
    # The router lets it leave by the port it came by, so that the answer comes on the way back.
    assert nat.back(make(I2, 6000, E, own)) == make(E, target, I1, 5000)
    assert nat.back(make(O1, 80, E, own)) == make(O1, 80, I1, 5000), "others come from outside"


@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-and-port-dependent"])
def test_dropped_hairpins_leave_nothing(filtering: str) -> None:
    nat = Nat(max_sessions=1000, filtering=filtering)
    port = src(nat.out(udp(I2, 1000, O1, 53)))[1]
    reason = "filtered" if "dependent" in filtering[8:] and filtering[0] == "a" else "no_mapping"
    for i in range(1000):
        target = port if reason == "filtered" else 1 + i + (i + 1 >= port)
        assert nat.dropped(udp(I1, 4000, E, target), reverse=False) == reason
    assert nat.count("sessions_opened") == nat.count("mappings_opened") == 1
    nat.out(udp(I1, 1, O2, 2))


def test_filtered_hairpin() -> None:  # RFC 4787 REQ-8, REQ-9
    nat = Nat(filtering="address-and-port-dependent")
    first, second = (src(nat.out(udp(inside, 6000, O1, 80)))[1] for inside in (I1, I2))
    assert nat.dropped(udp(I1, 6000, E, second), reverse=False) == "filtered"
    assert nat.dropped(udp(I2, 6000, E, first), reverse=False) == "filtered"


@pytest.mark.parametrize("make", MAKERS)
def test_hairpinned_error_arrives(make) -> None:  # RFC 5508 REQ-7
    nat = Nat()
    target = src(nat.out(make(I2, 6000, O1, 80)))[1]
    own = src(nat.out(make(I1, 5000, O1, 80)))[1]
    nat._run(make(I1, 5000, E, target), False)
    # I2 got a packet from E, and tells E that it is unreachable.
    done = nat._run(icmp_error(I2, E, make(E, own, I2, 6000)), False)
    assert (done.verdict, done.destination) == (OUT, 3)
    assert done.data == turned(icmp_error(E, I1, make(I1, 5000, E, target)))


def test_simultaneous_open() -> None:  # RFC 5382 REQ-2
    nat = Nat(filtering="address-and-port-dependent")
    port = src(nat.out(tcp(I1, 5000, O1, 80, SYN)))[1]
    nat.back(tcp(O1, 80, E, port, SYN))
    nat.out(tcp(I1, 5000, O1, 80, SYN | ACK))
    nat.back(tcp(O1, 80, E, port, SYN | ACK))
    nat.wait(300)
    nat.back(tcp(O1, 80, E, port, ACK))


def test_unsolicited_syn_is_dropped_in_silence() -> None:  # RFC 5382 REQ-4
    """It is never answered, so also not when an outbound SYN follows."""
    nat = Nat(filtering="address-and-port-dependent")
    port = src(nat.out(tcp(I1, 5000, O1, 80, SYN)))[1]
    assert nat.dropped(tcp(O2, 99, E, port, SYN)) == "filtered"
    assert nat.dropped(tcp(O2, 99, E, port ^ 1, SYN)) == "no_mapping"
    assert nat.out(tcp(I1, 5000, O2, 99, SYN)) == tcp(E, port, O2, 99, SYN)
    assert nat.back(tcp(O2, 99, E, port, SYN | ACK)) == tcp(O2, 99, I1, 5000, SYN | ACK)


def test_connection_begins_outside_where_filtering_allows() -> None:  # RFC 5382 REQ-2, REQ-3
    nat = Nat()
    port = src(nat.out(tcp(I1, 5000, O1, 80, SYN)))[1]
    assert nat.back(tcp(O2, 99, E, port, SYN)) == tcp(O2, 99, I1, 5000, SYN)
    assert nat.out(tcp(I1, 5000, O2, 99, SYN | ACK)) == tcp(E, port, O2, 99, SYN | ACK)
    nat.back(tcp(O2, 99, E, port, ACK))
    nat.wait(300)
    nat.back(tcp(O2, 99, E, port, ACK))


def test_reset_shortens_the_idle_time_and_ends_nothing() -> None:  # RFC 7857 2.2
    nat = Nat(max_sessions=1024)
    port = src(nat.out(tcp(I1, 5000, O1, 80, SYN)))[1]
    nat.back(tcp(O1, 80, E, port, SYN | ACK))
    nat.back(tcp(O1, 80, E, port, RST))
    nat.out(tcp(I1, 5000, O1, 80, ACK))
    nat.wait(300)
    nat.back(tcp(O1, 80, E, port, ACK))
    nat.back(tcp(O1, 80, E, port, RST))
    nat.wait(239)
    nat.back(tcp(O1, 80, E, port, RST))
    nat.wait(240)
    assert nat.dropped(tcp(O1, 80, E, port, ACK)) == "no_mapping"


def test_error_ends_no_mapping() -> None:  # RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6
    nat = Nat()
    for make in (tcp, udp):
        sent = nat.out(make(I1, 5000, O1, 80))
        port = src(sent)[1]
        nat.back(icmp_error(O1, E, sent))
        nat.back(make(O1, 80, E, port) if make is udp else make(O1, 80, E, port, SYN))
    sent = nat.out(echo(I1, O1, 7))
    nat.wait(30)
    nat.back(icmp_error(O1, E, sent))
    nat.wait(30)
    assert nat.dropped(icmp_error(O1, E, sent)) == "no_mapping", "nor does it refresh one"


@pytest.mark.parametrize("query", [8, 13, 15, 17, 42])
def test_all_queries_are_mapped(query: int) -> None:  # RFC 5508 REQ-1, REQ-1a
    nat = Nat()
    first, second = (src(nat.out(echo(inside, O1, 2000, query)))[1] for inside in (I1, I2))
    assert first != second
    assert src(nat.out(echo(I1, O2, 2000, query)))[1] == first, "whatever host is asked"
    reply = {8: 0, 42: 43}.get(query, query + 1)
    assert nat.back(echo(O1, E, second, reply)) == echo(O1, I2, 2000, reply)
    sent = nat.out(echo(I2, O1, 2000, query))
    assert nat.back(icmp_error(O2, E, sent)) == icmp_error(O2, I2, echo(I2, O1, 2000, query))
    assert nat.dropped(echo(O1, E, second, query)) == "no_mapping", "no query comes from outside"
    assert nat.dropped(echo(I1, O1, 7, reply), reverse=False) == "no_mapping"
    assert nat.dropped(echo(I1, E, first, query), reverse=False) == "no_mapping"
    assert nat.count("mappings_opened") == 2


@pytest.mark.parametrize("kind", [5, 9, 10, 40, 255])
def test_other_icmp_is_dropped(kind: int) -> None:  # RFC 5508 REQ-11
    nat = Nat()
    port = src(nat.out(echo(I1, O1, 7)))[1]
    assert nat.dropped(echo(I1, O1, 7, kind), reverse=False) == "protocol"
    assert nat.dropped(echo(O1, E, port, kind)) == "protocol"


@pytest.mark.parametrize("kind", [3, 4, 11, 12])
@pytest.mark.parametrize("size", [28, 40, 48])
@pytest.mark.parametrize("make", [udp, tcp])
def test_error_comes_back(make, size: int, kind: int) -> None:  # RFC 5508 REQ-3, REQ-4, 5382 REQ-9
    nat = Nat()
    other = src(nat.out(make(I2, 5000, O1, 80)))[1]
    sent = nat.out(make(I1, 5000, O1, 80))
    assert nat.back(icmp_error("203.0.113.9", E, sent, kind, size)) == icmp_error(
        "203.0.113.9", I1, make(I1, 5000, O1, 80), kind, size
    )
    assert nat.dropped(icmp_error(O1, E, make(E, other ^ 1, O1, 80))) == "no_mapping"
    assert nat.dropped(icmp_error(O1, E, make(E, other, O1, 81))) == "no_mapping"
    broken = bytearray(icmp_error(O1, E, sent))
    broken[-1] ^= 1
    assert nat.dropped(bytes(broken)) == "malformed"


def test_error_about_a_packet_with_options_comes_back() -> None:  # RFC 5508 REQ-3b
    nat = Nat()
    inner = udp(I1, 5000, O1, 80)[34:]
    sent = nat.out(ip(I1, O1, 17, inner, options=b"\x01" * 8))
    back = nat.back(icmp_error(O2, E, sent))
    assert back == icmp_error(O2, I1, ip(I1, O1, 17, inner, options=b"\x01" * 8))


def test_error_with_extensions_comes_back() -> None:  # RFC 5508 REQ-3d
    nat = Nat()
    sent = nat.out(udp(I1, 5000, O1, 80, bytes(100)))
    padded = sent[14:142] + bytes.fromhex("2000000000080101deadbeef")
    back = nat.back(ip(O2, E, 1, bytes([11, 0, 0, 0, 0, 32, 0, 0]) + padded))
    h = read_headers(back)
    assert back[h.l4_offset + 8 :][:128] == udp(I1, 5000, O1, 80, bytes(100))[14:142]
    assert back[-12:] == padded[-12:], "what follows the packet is as it was"


@pytest.mark.parametrize("make", [udp, tcp])
def test_error_goes_out(make) -> None:  # RFC 5508 REQ-5
    nat = Nat()
    nat.out(make(I2, 5000, O1, 80))
    port = src(nat.out(make(I1, 5000, O1, 80)))[1]
    received = nat.back(make(O1, 80, E, port))
    about = make(O1, 80, E, port)
    assert nat.out(icmp_error(I1, O1, received)) == icmp_error(E, O1, about)
    assert nat.out(icmp_error("10.9.9.9", O1, received)) == icmp_error(E, O1, about)
    assert nat.dropped(icmp_error(I1, O1, make(O1, 80, I1, 5001)), reverse=False) == "no_mapping"


def test_exhaustion_is_counted_and_spares_others() -> None:  # RFC 6888 REQ-4 in spirit
    nat = Nat(ports="2000-2003", max_per_subscriber=4)
    ports = [src(nat.out(udp(I1, port, O1, 80)))[1] for port in range(4)]
    assert sorted(ports) == [2000, 2001, 2002, 2003]
    assert nat.dropped(udp(I2, 4, O1, 80), reverse=False) == "exhausted"
    nat.out(udp(I1, 3, O2, 80))
    nat.out(tcp(I1, 4, O1, 80))


@pytest.mark.parametrize("config", [{}, {"max_per_subscriber": 100}])
def test_one_inside_address_cannot_take_all_ports(config: dict) -> None:  # RFC 6888 REQ-4
    nat = Nat(**config)
    done = nat.runner.run([Packet(udp(I1, i, O1, 9)) for i in range(1, 65536)], NS)
    limit = config.get("max_per_subscriber", 65535 // 2)
    assert sum(packet.verdict == NEXT for packet in done) == limit
    assert REASONS[done[-1].destination] == "subscriber_limit"
    nat.out(udp(I2, 5353, O1, 53))
    nat.out(tcp(I1, 1, O1, 80))
    nat.wait(300)
    nat.out(udp(I1, 9, O1, 9))


def test_half_open_sessions_give_way() -> None:
    nat = Nat(max_sessions=2)
    port = src(nat.out(tcp(I1, 1, O1, 80, SYN)))[1]
    nat.back(tcp(O1, 80, E, port, SYN | ACK))
    for i in range(100):
        nat.out(tcp(I2, 1000 + i, O1, 80, SYN))
    assert nat.count("sessions_evicted") == 99
    nat.back(tcp(O1, 80, E, port, ACK))
    for i in range(100):
        nat.out(udp(I2, 1000 + i, O1, 80))
    nat.back(tcp(O1, 80, E, port, ACK))
    # Answered sessions stay.
    answered = src(nat.out(udp(I2, 1, O1, 80)))[1]
    nat.back(udp(O1, 80, E, answered))
    nat.out(udp(I2, 1, O1, 80))
    assert nat.dropped(udp(I2, 2, O1, 80), reverse=False) == "table_full"
    nat.back(udp(O1, 80, E, answered))


@pytest.mark.parametrize("make", MAKERS)
def test_one_inside_address_cannot_take_all_sessions(make) -> None:  # RFC 6888 REQ-5
    """Not even when an end outside answers."""
    nat = Nat(max_sessions=100)

    def open_answered(inside: str, first: int, count: int) -> list[int]:
        ports = []
        for port in range(first, first + count):
            ports.append(src(nat.out(make(inside, port, O1, 80)))[1])
            nat.back(make(O1, 80, E, ports[-1]))
            nat.out(make(inside, port, O1, 80))
        return ports

    open_answered(I1, 2000, 100)
    others = open_answered(I2, 3000, 50)
    assert nat.count("sessions_evicted") == 50, "those beyond half of the table"
    for port in others:
        nat.back(make(O1, 80, E, port))
    assert nat.dropped(make("10.0.0.3", 1, O1, 80), reverse=False) == "table_full"


def test_what_has_expired_is_free_at_once() -> None:
    nat = Nat(max_sessions=20_000)
    nat.runner.run([Packet(udp(I1, 10_000 + i, O1, 9)) for i in range(20_000)], NS)
    done = nat.runner.run(
        [Packet(tcp(I2, 10_000 + i, O1, 9, SYN)) for i in range(20_000)], 1000 * NS
    )
    assert {packet.verdict for packet in done} == {NEXT}
    assert nat.count("sessions_expired") == 20_000
    assert nat.count("sessions_evicted") == 0


def test_expired_mapping_is_not_believed() -> None:
    nat = Nat(max_sessions=20_000)
    out = nat.runner.run([Packet(udp(I1, 10_000 + i, O1, 9)) for i in range(20_000)], NS)
    ports = [src(packet.data)[1] for packet in out]
    done = nat.runner.run([Packet(udp(O2, 9, E, port), True) for port in ports], 301 * NS)
    assert {REASONS[packet.destination] for packet in done} == {"no_mapping"}


def test_time_passes_without_packets() -> None:
    nat = Nat()
    nat.out(udp(I1, 5000, O1, 80))
    tick(nat.kernel, 400 * NS)
    assert save(nat.kernel, 400 * NS) == b""
    nat.runner.run([], 400 * NS)
    assert nat.count("sessions_expired") == 1, "what happened between bursts is counted"


NO_HOSTS = ["224.0.0.251", "239.255.255.250", "255.255.255.255", "127.0.0.1", "0.0.0.0", "0.1.2.3"]


@pytest.mark.parametrize("address", NO_HOSTS)
def test_nothing_goes_to_what_is_no_host(address: str) -> None:
    nat = Nat()
    for make in MAKERS:
        assert nat.dropped(make(I1, 5353, address, 5353), reverse=False) == "unroutable"
        assert nat.dropped(make(address, 5353, O1, 5353), reverse=False) == "unroutable"
        assert nat.dropped(make(address, 5353, E, 5353)) == "unroutable"
    assert nat.dropped(echo(I1, address, 5), reverse=False) == "unroutable"
    assert nat.count("mappings_opened") == 0


def tagged(frame: bytes, *vlans: int) -> bytes:
    tags = b"".join(b"\x81\0" + vlan.to_bytes(2, "big") for vlan in vlans)
    return frame[:12] + tags + frame[12:]


@pytest.mark.parametrize(
    "frame",
    [
        bytes(12) + b"\x88\x64\x11\0\0\x01\0\x1e\0\x21" + udp(I1, 1, O1, 2)[14:],  # PPPoE
        bytes(12) + b"\x88\x47\0\x01\x01\x40" + udp(I1, 1, O1, 2)[14:],  # MPLS
        bytes(12) + b"\x88\x48\0\x01\x01\x40" + udp(I1, 1, O1, 2)[14:],
        bytes(12) + b"\0\x24\xaa\xaa\x03\0\0\0\x08\0" + udp(I1, 1, O1, 2)[14:],  # SNAP
        bytes(12) + b"\0\x20\x06\x06\x03" + udp(I1, 1, O1, 2)[14:],  # LLC
        tagged(udp(I1, 1, O1, 2), 1, 2, 3, 4, 5),
        bytes(12) + b"\x65\x58" + udp(I1, 1, O1, 2),  # Ethernet
        bytes(12) + b"\x89\x4f" + bytes(40),
        bytes(60),
    ],
)
def test_what_cannot_be_read_never_leaves(frame: bytes) -> None:
    for nat in (Nat(), Nat(inside=["10.0.0.0/8"])):
        assert nat.dropped(frame, reverse=False) == "not_ip"
        assert nat.dropped(frame) == "not_ip"


@pytest.mark.parametrize("make", [udp, tcp, echo])
@pytest.mark.parametrize("vlans", [(5,), (5, 6), (5, 6, 7), (5, 6, 7, 8), (4095, 1)])
def test_equal_inside_addresses_in_two_vlans_do_not_share(make, vlans: tuple[int, ...]) -> None:
    nat = Nat()

    def made(a: str, p: int, b: str, q: int, kind: int = 8) -> bytes:
        return echo(a, b, p if kind == 8 else q, kind) if make is echo else make(a, p, b, q)

    other = (*vlans[:-1], vlans[-1] + 1)
    ports = {
        tags: src(nat.out(tagged(made(I1, 5000, O1, 80), *tags)))[1] for tags in (vlans, other, ())
    }
    assert len(set(ports.values())) == 3
    for tags, port in ports.items():
        back = nat.back(tagged(made(O1, 80, E, port, 0), *tags))
        assert back == tagged(made(O1, 80, I1, 5000, 0), *tags)
    assert nat.dropped(tagged(made(O1, 80, E, ports[vlans], 0), *other)) == "no_mapping"
    assert nat.dropped(made(O1, 80, E, ports[vlans], 0)) == "no_mapping"
    priority = (vlans[0] | 0xE000, *vlans[1:])
    assert src(nat.out(tagged(made(I1, 5000, O1, 80), *priority)))[1] == ports[vlans]
    if make is not echo:
        error = icmp_error(O2, E, made(E, ports[vlans], O1, 80))
        assert nat.dropped(tagged(error, *other)) == "no_mapping"
        nat.back(tagged(error, *vlans))


POOL = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_pool_is_paired() -> None:  # RFC 4787 REQ-2
    nat = Nat(external=POOL)
    used = set()
    for host in range(1, 60):
        inside = f"10.0.0.{host}"
        frames = [
            udp(inside, 5000, O1, 80),
            udp(inside, 5001, O2, 80),
            tcp(inside, 5000, O1, 80),
            echo(inside, O1, 7),
        ]
        addresses = {src(nat.out(frame))[0] for frame in frames}
        assert len(addresses) == 1
        used |= addresses
    assert {".".join(map(str, address)) for address in used} == set(POOL)


def test_pool_translates_both_ways() -> None:
    nat = Nat(external=POOL)
    for host in range(1, 30):
        inside = f"10.0.0.{host}"
        address, port = src(nat.out(udp(inside, 5000, O1, 80)))
        external = ".".join(map(str, address))
        assert nat.back(udp(O1, 80, external, port)) == udp(O1, 80, inside, 5000)
        about = udp(external, port, O1, 80)
        assert nat.back(icmp_error(O2, external, about)) == icmp_error(
            O2, inside, udp(inside, 5000, O1, 80)
        )
        done = nat._run(udp("10.0.0.77", 5000, external, port), False)
        assert done.verdict == OUT
        assert read_headers(done.data).dst == bytes((10, 0, 0, host))


def test_what_is_not_translated() -> None:
    nat = Nat(inside=["10.0.0.0/8"])
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    tree = bytes(12) + b"\0\x26\x42\x42\x03" + bytes(35)
    for frame in (arp, tree, udp("2001:db8::1", 1, "2001:db8::2", 2), udp("172.16.0.1", 1, O1, 2)):
        assert nat._run(frame, False) == Packet(frame, port=3)
    back = udp(O1, 2, "172.16.0.1", 1)
    assert nat._run(back, True) == Packet(back, True, port=3)
    assert nat.dropped(ip(I1, O1, 47, bytes(8)), reverse=False) == "protocol"
    assert nat.dropped(ip(I1, O1, 17, bytes(4), 0x2000), reverse=False) == "fragment"
    assert nat.dropped(ip(I1, O1, 17, bytes(8), 5), reverse=False) == "fragment"
    assert nat.dropped(echo(I1, O1, 1, 5), reverse=False) == "protocol"
    assert nat.dropped(udp(I1, 1, O1, 2)[:-1], reverse=False) == "malformed"


def test_udp_without_checksum_stays_without() -> None:  # RFC 3022 4.1
    frame = udp(I1, 5000, O1, 80, b"data")
    frame = frame[:40] + b"\0\0" + frame[42:]
    done = Nat().out(frame)
    assert done[40:42] == b"\0\0"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"external": "1.2.3"}, "nat.toml: external: '1.2.3': expected an IPv4 address"),
        *(
            (
                {"external": address},
                f"nat.toml: external: '{address}': expected the address of one host",
            )
            for address in ("0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1")
        ),
        (
            {"external": ["192.0.2.1", "::1"]},
            "nat.toml: external[1]: '::1': expected an IPv4 address",
        ),
        (
            {"external": ["192.0.2.1"] * 2},
            "nat.toml: external[1]: '192.0.2.1': expected addresses that differ",
        ),
        (
            {"external": "10.1.2.3", "inside": ["10.0.0.0/8"]},
            "nat.toml: external: '10.1.2.3': expected an address outside of the networks in `inside`",
        ),
        ({"max_sessions": 1 << 25}, "nat.toml: max_sessions: 33554432: expected `int` <= 16777216"),
        ({"tcp_established_s": 7439}, "nat.toml: tcp_established_s: 7439: expected `int` >= 7440"),
        ({"tcp_opening_s": 239}, "nat.toml: tcp_opening_s: 239: expected `int` >= 240"),
        ({"icmp_s": 59}, "nat.toml: icmp_s: 59: expected `int` >= 60"),
        ({"ports": "0-70000"}, "nat.toml: ports: '0-70000': expected ports within"),
        ({"inside": ["10.0.0.1/8"]}, "nat.toml: inside[0]: '10.0.0.1/8': expected an IPv4 network"),
        ({"udp_s": 60}, "nat.toml: udp_s: 60: expected `int` >= 120"),
        ({"filtering": "no"}, "nat.toml: filtering: 'no': expected one of address-and-port-"),
        ({"colour": 1}, "nat.toml: colour: 1: expected one of external, "),
    ],
)
def test_mistakes_name_file_field_value_and_expectation(config: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config, file="nat.toml")
    assert str(caught.value).startswith(message)


PORTS = st.sampled_from([1, 2, 3, 2000, 2001, 2002])
E2 = "192.0.2.2"
INSIDE, OUTSIDE = st.sampled_from([I1, I2, "172.16.0.1"]), st.sampled_from([O1, O2, E, E2])


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    reverse = draw(st.booleans())
    a, b = draw(INSIDE), draw(OUTSIDE)
    if draw(st.integers(0, 19)) == 0:
        b = draw(st.sampled_from(NO_HOSTS))
    if reverse:
        a, b = draw(OUTSIDE), draw(st.sampled_from([E, E, E, E2, I1, "172.16.0.1"]))
    p, q = draw(PORTS), draw(PORTS)
    kind = draw(st.integers(0, 9))
    if kind < 4:
        made = tcp(a, p, b, q, draw(st.sampled_from([SYN, ACK, SYN | ACK, FIN | ACK, RST])))
    elif kind < 6:
        made = udp(a, p, b, q, draw(st.binary(max_size=3)))
    elif kind == 6:
        made = echo(a, b, p, draw(st.sampled_from([8, 0, 13, 14, 5])))
    elif kind < 9:
        inner = draw(
            st.sampled_from([tcp(b, p, a, q), udp(b, p, a, q), echo(b, a, p), echo(b, a, p, 13)])
        )
        error = draw(st.sampled_from([3, 11, 12, 5]))
        made = icmp_error(a, b, inner, error, draw(st.integers(18, 48)))
    else:
        made = ip(
            a,
            b,
            draw(st.sampled_from([6, 17, 1, 47])),
            draw(st.binary(max_size=30)),
            draw(st.sampled_from([0, 0, 1, 0x2000])),
        )
    if draw(st.integers(0, 4)) == 0:
        made = tagged(
            made, *draw(st.sampled_from([(1,), (2,), (1, 2), (1, 2, 3), (1, 2, 3, 4, 5)]))
        )
    if draw(st.integers(0, 19)) == 0:
        made = made[: draw(st.integers(0, len(made)))]
    return Packet(made, reverse, port=1)


@settings(max_examples=120, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "external": st.sampled_from([E, [E, E2]]),
            "ports": st.sampled_from(["2000-2002", "1020-1029", "1-65535"]),
            "max_per_subscriber": st.sampled_from([0, 2, 1000]),
            "port_rest_s": st.sampled_from([0, 120]),
            "inside": st.sampled_from([[], ["10.0.0.0/8"]]),
            "filtering": st.sampled_from(
                ["endpoint-independent", "address-dependent", "address-and-port-dependent"]
            ),
            "preserve_parity": st.booleans(),
            "preserve_port": st.booleans(),
            "inbound_refresh": st.booleans(),
            "max_sessions": st.sampled_from([3, 8, 64]),
        }
    ),
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 70, 130, 250, 400, 7440]), st.lists(packets(), max_size=40)
        ),
        max_size=5,
    ),
    st.booleans(),
)
def test_kernel_agrees_with_model(values: dict, bursts: list, is_routed: bool) -> None:
    config = load(values)
    kernel, model, now_s = make_kernel(config, KEY), NatModel(config, KEY), 1
    set_routed(kernel, is_routed)
    model.is_routed = is_routed
    runner = KernelRunner(kernel)
    runner.run([], now_s * NS)
    for step, burst in bursts:
        now_s += step
        done = runner.run(burst, now_s * NS)
        for packet, result in zip(burst, done, strict=True):
            try:
                expected = model.translate(packet.data, packet.reverse, now_s * NS)
            except Drop as drop:
                assert result.verdict == DROP
                assert REASONS[result.destination] == drop.args[0]
                continue
            verdict, port = (OUT, 1) if expected.is_hairpin else (NEXT, 0)
            assert (result.verdict, result.destination) == (verdict, port)
            assert result.data == expected.data
        model.expire(now_s * NS)
        assert len(save(kernel, now_s * NS)) == 32 * sum(map(len, model.queues.values()))


@settings(max_examples=120)
@given(st.lists(st.tuples(st.binary(max_size=120), st.booleans()), max_size=8))
def test_garbage_is_survived(tails: list) -> None:
    for result in GARBAGE.runner.run(
        [Packet(bytes(12) + b"\x08\x00E" + tail, reverse) for tail, reverse in tails]
    ):
        assert result.verdict in (NEXT, DROP, OUT)


GARBAGE = Nat()


def test_sessions_go_to_another_instance_with_their_ports() -> None:
    config = load({"ports": "1024-5023", "blocks": 4, "filtering": "address-and-port-dependent"})
    first, second = Nat(), Nat()
    for number, nat in ((1, first), (2, second)):
        nat.use(config.of_instance(f"nat-{number}"))
    opened = src(first.out(tcp(I1, 1500, O1, 80, SYN)))[1]
    own = src(second.out(tcp(I1, 1500, O2, 80, SYN)))[1]
    first.back(tcp(O1, 80, E, opened, SYN | ACK))
    echoed = src(first.out(echo(I2, O1, 1700)))[1]
    restore(second.kernel, save(first.kernel, NS), NS)
    # Both directions are as before, also beside a mapping that the endpoint has here.
    assert src(second.out(tcp(I1, 1500, O1, 80, ACK)))[1] == opened
    assert second.back(tcp(O1, 80, E, opened, ACK)) == tcp(O1, 80, I1, 1500, ACK)
    assert src(second.out(tcp(I1, 1500, O2, 80, ACK)))[1] == own
    assert src(second.out(echo(I2, O1, 1700)))[1] == echoed
    # New sessions get ports of the instance's own block, even where another's are free.
    assert src(second.out(tcp(I1, 1500, O2, 81, SYN)))[1] == own
    assert 2024 <= src(second.out(udp(I2, 1600, O1, 53)))[1] < 3024
    assert inherited(second.kernel) == 2
    second.wait(8000)
    assert inherited(second.kernel) == 0, "all have ended"


def test_state_that_does_not_fit_changes_nothing() -> None:
    first, small, busy = Nat(), make_kernel(load({"max_sessions": 1})), Nat()
    for port in (1500, 1502):
        first.out(udp(I1, port, O1, 53))
    state = save(first.kernel, NS)
    with pytest.raises(NativeError, match="take over 2 NAT sessions"):
        restore(small, state, NS)
    assert save(small, NS) == b""
    taken = src(first.out(udp(I1, 1502, O1, 53)))[1]
    while src(busy.out(udp(I2, 1502, O1, 53)))[1] != taken:
        busy.use(load({"ports": f"{taken}"}))
    before = save(busy.kernel, NS)
    with pytest.raises(NativeError, match="File exists"):
        restore(busy.kernel, state, NS)
    assert save(busy.kernel, NS) == before
    for damaged in (state[:-1], b"\xff" * len(state)):
        with pytest.raises(NativeError, match="Invalid argument"):
            restore(busy.kernel, damaged, NS)


@given(st.binary(max_size=400))
def test_any_bytes_are_taken_or_refused(state: bytes) -> None:
    nat = Nat(max_sessions=100)
    try:
        restore(nat.kernel, state, NS)
    except NativeError:
        assert save(nat.kernel, NS) == b""
    nat.out(udp(I1, 5000, O1, 53))
    nat.wait(8000)


def test_instance_has_a_block_of_its_own() -> None:
    config = load({"ports": "1000-1999", "blocks": 4})
    assert config.of_instance("nat-2").ports == range(1250, 1500)
    assert config.of_instance("").ports == range(1000, 2000)
    assert load({}).of_instance("nat-1").ports == load({}).ports
    assert load({"blocks": 0}).of_instance("nat-7").ports == load({}).ports
    with pytest.raises(ConfigError, match="blocks: 4: expected at least 5"):
        config.of_instance("nat-5")
    with pytest.raises(ConfigError, match="blocks: 1: expected at least 2"):
        load({}).of_instance("nat-2")
    with pytest.raises(ConfigError, match="expected at most 3"):
        load({"ports": "1-3", "blocks": 4}).of_instance("nat-1")


def test_new_configuration_keeps_the_sessions_that_it_allows() -> None:
    config = {"external": ["192.0.2.1"], "ports": "1024-2047", "preserve_port": True}
    server = "198.51.100.1"
    out = [udp("10.0.0.1", 1500, server, 53), udp("10.9.0.1", 1600, server, 53)]
    with Runner("nat", config=config) as runner:
        claims: list[tuple[object, ...]] = []
        runner.contexts[0].claim = lambda *claim: claims.append(("claim", *claim))
        runner.contexts[0].unclaim = lambda *claim: claims.append(("unclaim", *claim))
        first, gone = (read_headers(frame) for frame in runner.run(out).packets)
        with pytest.raises(ConfigError, match="max_sessions"):
            runner.reconfigure({**config, "max_sessions": 1})
        wanted = {**config, "external": ["192.0.2.2", "192.0.2.1"], "inside": ["10.0.0.0/16"]}
        runner.reconfigure(wanted)
        assert claims == [("claim", "192.0.2.2", 1024, 2048, 0)]
        back = [udp(server, 53, str(IPv4Address(one.src)), one.src_port) for one in (first, gone)]
        result = runner.run(back, reverse=True)
        assert str(IPv4Address(read_headers(result.packets[0]).dst)) == "10.0.0.1"
        assert result.reasons == [None, "no_mapping"]
        again = read_headers(runner.run(out[:1]).packets[0])
        assert (again.src, again.src_port) == (first.src, first.src_port)
        runner.reconfigure({**config, "external": ["192.0.2.2"]})
        assert runner.run(back[:1], reverse=True).verdicts != [Verdict.NEXT]
        assert claims[1:] == [("unclaim", "192.0.2.1", 1024, 2048, 0)]


def test_memory_follows_from_the_configuration() -> None:
    manifest = read_manifest(find_manifest("onvm_nf_nat"))

    def needed(**config: object) -> int:
        return needed_mib(manifest, read_config(manifest, config))

    assert 150 < needed() < 300
    # four million sessions take 160 bytes each, and as much again during a change
    assert 2 * (160 * 4) < needed(max_sessions=1 << 22) < 3 * (160 * 4)
    outside = [f"192.0.2.{number}" for number in range(1, 17)]
    more = needed(max_sessions=1 << 22, external=outside, filtering="address-dependent")
    assert more > needed(max_sessions=1 << 22) + 2 * (110 * 4 + 15 * 4)


def fragments(src: str, dst: str, protocol: int, l4: bytes, identifier: int) -> list[bytes]:
    """Cut a datagram into fragments of 16 bytes; the checksum of the whole is in the first."""
    whole = ip(src, dst, protocol, l4)[34:]
    made = []
    for at in range(0, len(whole), 16):
        more = 0x2000 if at + 16 < len(whole) else 0
        frame = bytearray(ip(src, dst, 255, whole[at : at + 16], more | at // 8))
        frame[18:20] = identifier.to_bytes(2, "big")
        frame[23] = protocol
        frame[24:26] = bytes(2)
        frame[24:26] = checksum(bytes(frame[14:34])).to_bytes(2, "big")
        made.append(bytes(frame))
    return made


def passed(nat: Nat, frame: bytes, reverse: bool = False) -> bytes:
    done = nat._run(frame, reverse)
    assert done.verdict == NEXT
    return done.data


def test_fragments_follow_the_first_both_ways() -> None:  # RFC 4787 REQ-14, in order
    nat = Nat()
    l4 = struct.pack("!HHHH", 5000, 53, 8 + 32, 0) + bytes(range(32))
    first, *rest = (passed(nat, one) for one in fragments(I1, O1, 17, l4, 7))
    address, port = src(first)
    assert all(read_headers(one).src == address for one in rest)
    assert all(checksum(one[14:34]) == 0 for one in (first, *rest))
    whole = b"".join(one[34:] for one in (first, *rest))
    assert is_sound(ip(E, O1, 17, whole)[:34] + whole)
    answer = struct.pack("!HHHH", 53, port, 8 + 32, 0) + bytes(32)
    back = [passed(nat, one, True) for one in fragments(O1, E, 17, answer, 9)]
    assert all(read_headers(one).dst == IPv4Address(I1).packed for one in back)
    assert back[0][36:38] == (5000).to_bytes(2, "big")


def test_fragments_without_their_first_are_dropped() -> None:  # RFC 4787 REQ-14a, RFC 5722
    nat = Nat()
    l4 = struct.pack("!HHHH", 5000, 53, 8 + 32, 0) + bytes(range(32))
    first, second, third = fragments(I1, O1, 17, l4, 7)
    assert nat.dropped(second, reverse=False) == "fragment"  # it is not kept until then
    passed(nat, first)
    passed(nat, third)
    overlapping = bytearray(second)
    overlapping[20:22] = (0x2000 | 1).to_bytes(2, "big")
    assert nat.dropped(bytes(overlapping), reverse=False) == "fragment"
    other = fragments(I1, O1, 17, l4, 8)[1]
    assert nat.dropped(other, reverse=False) == "fragment"
    nat.wait(31)
    assert nat.dropped(second, reverse=False) == "fragment"


def test_damaged_quote_is_dropped() -> None:  # RFC 5508 REQ-3a
    nat = Nat()
    out = nat.out(udp(I1, 5000, O1, 80))
    good = icmp_error(O2, E, out)
    assert nat.back(good)
    quote = bytearray(out)
    quote[24] ^= 1
    assert nat.dropped(icmp_error(O2, E, bytes(quote))) == "malformed"
