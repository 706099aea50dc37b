# SPDX-License-Identifier: Apache-2.0
"""Forwarding: what passes, what ends, and what its sender is told."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from onvm_nf_router.model import Arrived, Done
from router_case import (
    DMZ,
    HOST_MACS,
    HOSTS,
    HOSTS_GATEWAYS,
    LAN,
    MACS,
    NS,
    WAN,
    Router,
    answer,
    arp,
    ask,
    both_versions,
    first,
    last,
    to_router,
)

from onvm_sdk.headers import checksum, read_headers
from onvm_sdk.testing.frames import SYN, echo, icmp_error, ip, is_sound, tcp, udp


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


def test_datagrams_that_came_in_fragments_pass_as_such() -> None:
    router = Router()
    router.meet()
    for near, far in (("10.0.0.5", "198.51.100.9"), ("2001:db8:1::5", "2001:db8:2::9")):
        whole = to_router(LAN, udp(near, 5, far, 6, bytes(3000)))
        (done,) = router.run(Arrived(whole, LAN, largest=1500))
        assert done.out == WAN
    whole = to_router(LAN, udp("10.0.0.5", 5, "192.0.2.9", 6, bytes(3000)))
    (done,) = router.run(Arrived(whole, LAN, largest=1500))
    assert (done.reason, len(router.made)) == ("fragmented", 6)
    whole = to_router(LAN, udp("2001:db8:1::5", 5, "2001:db8:3::9", 6, bytes(3000)))
    (done,) = router.run(Arrived(whole, LAN, largest=1500))
    assert done.reason == "too_big"


def test_fragments_wait_for_a_neighbour() -> None:
    router = Router()
    router.meet(LAN)
    whole = to_router(LAN, udp("10.0.0.5", 5, "198.51.100.9", 6, bytes(2000)))
    (done,) = router.run(Arrived(whole, LAN, largest=1500))
    assert done.reason == "fragmented"
    own = HOSTS_GATEWAYS[WAN][0]
    router.run(Arrived(answer(WAN, "198.51.100.9", own), WAN))
    sent = [frame for port, frame in router.made if port == WAN]
    sent += [frame for port, frame in router.wait(0.2) if port == WAN]
    sent = [frame for frame in sent if read_headers(frame).is_fragment]
    assert sorted(len(frame) for frame in sent) == [14 + 20 + 528, 14 + 1500]


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
