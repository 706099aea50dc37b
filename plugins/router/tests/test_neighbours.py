# SPDX-License-Identifier: Apache-2.0
"""Neighbours: found, kept, believed or not; and what interfaces say of themselves."""

from __future__ import annotations

from ipaddress import ip_address

from onvm_nf_router.model import Arrived
from router_case import (
    DMZ,
    HOST_MACS,
    HOSTS,
    HOSTS_GATEWAYS,
    LAN,
    MACS,
    NS,
    PORTS,
    WAN,
    Router,
    answer,
    arp,
    ask,
    both_versions,
    first,
    ndp,
    to_router,
)

from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import SYN, ip, is_sound, tcp, udp


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
