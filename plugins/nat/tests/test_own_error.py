# SPDX-License-Identifier: Apache-2.0
"""Errors of ICMP that the NAT itself sends."""

from __future__ import annotations

import pytest
from nat_bed import I1, MAKERS, NS, O1, O2, REASONS, E, Nat, passed, src, tagged, turned
from onvm_nf_nat import Nat as NatNF
from onvm_nf_nat.kernel import set_mtu, set_routed

from onvm_sdk.headers import read_headers
from onvm_sdk.nf import Port
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import ACK, SYN, icmp_error, ip, is_sound, tcp, udp
from onvm_sdk.testing.kernel import DROP, NEXT, OUT, Packet


def said(frame: bytes) -> tuple[int, int, int]:
    """Type, code and MTU of an ICMP error."""
    at = read_headers(frame).l4_offset
    return frame[at], frame[at + 1], int.from_bytes(frame[at + 6 : at + 8], "big")


def quoted(frame: bytes) -> bytes:
    return frame[read_headers(frame).l4_offset + 8 :]


@pytest.mark.parametrize(
    "config",
    [
        {"ports": "2000-2000", "max_per_subscriber": 9},
        {"max_sessions": 1, "ports": "1-65535"},
        {"max_per_subscriber": 1},
    ],
)
@pytest.mark.parametrize("vlans", [(), (5,)])
def test_flow_that_cannot_be_opened_is_prohibited(config: dict, vlans: tuple[int, ...]) -> None:
    """RFC 5508 REQ-8."""
    nat = Nat(icmp_errors_per_s=100, **config)
    port = src(nat.out(tagged(udp(I1, 5000, O1, 53), *vlans)))[1]
    nat.back(tagged(udp(O1, 53, E, port), *vlans))
    nat.out(tagged(udp(I1, 5000, O1, 53), *vlans))
    frame = tagged(udp(I1, 5001, O2, 53, b"hello"), *vlans)
    done = nat._run(frame, False)
    assert (done.verdict, done.destination) == (OUT, 3), "back where it came from"
    h = read_headers(done.data)
    assert (h.src, h.dst) == (bytes([192, 0, 2, 1]), bytes([10, 0, 0, 1]))
    assert (done.data[:6], done.data[6:12]) == (frame[6:12], frame[:6])
    assert said(done.data) == (3, 13, 0)
    assert quoted(done.data) == frame[14 + 4 * len(vlans) :]
    assert is_sound(done.data)
    assert nat.count("flows_refused") == nat.count("errors_sent") == 1
    set_routed(nat.kernel, True)
    assert nat._run(frame, False).verdict == NEXT, "the router knows the way"


@pytest.mark.parametrize("make", MAKERS)
def test_errors_have_a_limit(make) -> None:  # RFC 1812 4.3.2.8
    nat = Nat(icmp_errors_per_s=5, ports="2000-2000", max_per_subscriber=9)
    nat.out(make(I1, 5000, O1, 53))
    frames = [Packet(make(I1, port, O1, 53)) for port in range(6000, 6020)]
    done = nat.runner.run(frames, NS)
    assert [packet.verdict for packet in done] == [OUT] * 5 + [DROP] * 15
    assert {REASONS[packet.destination] for packet in done[5:]} == {"exhausted"}
    assert nat.count("errors_limited") == 15
    done = nat.runner.run(frames, NS + NS // 5)
    assert [packet.verdict for packet in done] == [OUT] + [DROP] * 19


def test_errors_about_errors_and_groups_are_not_sent() -> None:  # RFC 1122 3.2.2, RFC 5508 REQ-9
    nat = Nat(icmp_errors_per_s=100, ports="2000-2000", max_per_subscriber=9)
    nat.out(udp(I1, 5000, O1, 53))
    frame = udp(I1, 5001, O1, 53)
    to_many = b"\x01" + frame[1:]
    assert nat.dropped(to_many, reverse=False) == "exhausted"
    about = icmp_error(I1, O1, udp(O1, 53, I1, 5009))
    assert nat.dropped(about, reverse=False) == "no_mapping"
    quiet = Nat(ports="2000-2000", max_per_subscriber=9)
    quiet.out(udp(I1, 5000, O1, 53))
    assert quiet.dropped(frame, reverse=False) == "exhausted"


def late(nat: Nat) -> list[bytes]:
    """What the NAT sends by itself within the next 6 seconds."""
    sent = []
    for _ in range(6):
        nat.wait(1)
        for packet in nat.runner.originated:
            assert (packet.verdict, packet.destination) == (OUT, 3)
            sent.append(packet.data)
    return sent


@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-and-port-dependent"])
@pytest.mark.parametrize("vlans", [(), (5, 6)])
def test_unsolicited_syn_is_answered_late(filtering: str, vlans: tuple[int, ...]) -> None:
    """RFC 5382 REQ-4."""
    nat = Nat(icmp_errors_per_s=100, filtering=filtering)
    port = src(nat.out(tagged(tcp(I1, 5000, O1, 80, SYN), *vlans)))[1]
    port ^= filtering == "endpoint-independent"
    syn = tagged(tcp(O2, 99, E, port, SYN), *vlans)
    nat.dropped(syn)
    nat.dropped(tagged(tcp(O2, 98, E, port, ACK), *vlans))
    sent = []
    for second in range(7):
        assert bool(sent) == (second >= 6)
        nat.wait(1)
        sent += nat.runner.originated
    (answer,) = sent
    assert (answer.verdict, answer.destination) == (OUT, 3)
    assert said(answer.data) == (3, 3, 0)
    h = read_headers(answer.data)
    assert (h.src, h.dst) == (bytes([192, 0, 2, 1]), bytes([198, 51, 100, 2]))
    assert answer.data[:12] == turned(syn)[:12]
    assert answer.data[12 : h.l3_offset] == syn[12 : h.l3_offset]
    assert quoted(answer.data) == syn[h.l3_offset :][:28]
    assert is_sound(answer.data)


def test_simultaneous_open_is_never_answered() -> None:  # RFC 5382 REQ-4
    nat = Nat(icmp_errors_per_s=100, filtering="address-and-port-dependent")
    port = src(nat.out(tcp(I1, 5000, O1, 80, SYN)))[1]
    assert nat.dropped(tcp(O2, 99, E, port, SYN)) == "filtered"
    nat.wait(5)
    nat.out(tcp(I1, 5000, O2, 99, SYN))
    assert late(nat) == []
    assert nat.back(tcp(O2, 99, E, port, SYN | ACK)) == tcp(O2, 99, I1, 5000, SYN | ACK)


def test_only_so_many_syns_are_remembered() -> None:
    nat = Nat(icmp_errors_per_s=100_000)
    nat.runner = type(nat.runner)(nat.kernel, nb_loaned=3000)
    syns = [Packet(tcp(O2, port, E, 80, SYN), True, port=3) for port in range(1, 2001)]
    nat.runner.run(syns, NS)
    nat.runner.run([], 7 * NS)
    assert len(nat.runner.originated) == 1024
    set_routed(nat.kernel, True, is_tagged=True)
    nat.runner.run(syns, 8 * NS)
    nat.runner.run([], 80 * NS)
    assert nat.runner.originated == [], "a router has taken their tags off"


def uncut(source: str, target: str, size: int) -> bytes:
    """A datagram with DF whose IP packet has `size` bytes."""
    l4 = b"\x13\x88\0\x35" + (size - 20).to_bytes(2, "big") + bytes(size - 26)
    return ip(source, target, 17, l4, 0x4000)


@pytest.mark.parametrize("vlans", [(), (5,)])
def test_packet_that_is_too_big_is_answered(vlans: tuple[int, ...]) -> None:  # RFC 4787 REQ-13
    nat = Nat(icmp_errors_per_s=100)
    set_mtu(nat.kernel, 1400)
    nat.out(tagged(uncut(I1, O1, 1400), *vlans))
    frame = tagged(uncut(I1, O1, 1401), *vlans)
    assert nat.dropped(frame, reverse=False) == "too_big"
    (answer,) = nat.runner.originated
    assert said(answer.data) == (3, 4, 1400)
    assert read_headers(answer.data).dst == bytes([10, 0, 0, 1])
    assert quoted(answer.data) == frame[14 + 4 * len(vlans) :][:548]
    assert is_sound(answer.data)
    cut = frame[:14] + frame[14:]  # without DF another host cuts it
    at = 14 + 4 * len(vlans) + 6
    cut = cut[:at] + b"\0" + cut[at + 1 :]
    assert passed(nat, cut)
    padded = tagged(uncut(I1, O1, 1400), *vlans) + bytes(20)
    assert passed(nat, padded), "what follows the packet does not count"
    back = tagged(uncut(O1, E, 1401), *vlans)
    assert nat.dropped(back) == "too_big"
    (answer,) = nat.runner.originated
    assert read_headers(answer.data).src == bytes([192, 0, 2, 1])


def test_mtu_is_the_least_of_the_ports_without_a_router() -> None:
    lan, wan = Port("lan", 0, 1500), Port("wan", 1, 1400)
    frame = uncut(I1, O1, 1450)
    with Runner(NatNF) as runner:
        runner.stages[0].nf.on_ports([lan, wan])
        result = runner.run([frame])
        assert result.reasons == ["too_big"]
        assert [said(data) for _, _, data in result.originated] == [(3, 4, 1400)]
        runner.stages[0].nf.on_ports([lan, Port("wan", 1, 1400, link={"addresses": ["::1/64"]})])
        assert runner.run([frame]).reasons == [None], "the router says so"
    with Runner(NatNF, config={"mtu": 1300}) as runner:
        assert runner.run([frame]).reasons == ["too_big"]
        runner.reconfigure({"mtu": 1450})
        assert runner.run([frame]).reasons == [None]
