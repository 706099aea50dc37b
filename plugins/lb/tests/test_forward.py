# SPDX-License-Identifier: Apache-2.0
"""Backends that get packets as they are: by MAC address, or in a tunnel."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from lb_case import B1, B6, C2, C6, NS, ROUTER, V6, C, Lb, V, vip
from onvm_nf_lb.config import load
from onvm_nf_lb.kernel import Balancer

from onvm_sdk.errors import ConfigError
from onvm_sdk.headers import UDP, checksum, read_headers
from onvm_sdk.testing.frames import ACK, FIN, SYN, echo, icmp_error, is_sound, tcp, udp
from onvm_sdk.testing.kernel import MERGED, OUT, PARTIAL, KernelRunner, Packet

MAC, SOURCE, SOURCE6 = "02:00:00:00:00:aa", "192.0.2.254", "2001:db8:a::1"
DF = 0x4000


def tunnel(forward: str, *backends: str, address: str = V, **more: Any) -> Lb:
    made = vip(*backends, address=address, forward=forward)
    return Lb(made, tunnel_sources=[SOURCE, SOURCE6], **more)


def inside(frame: bytes, *, has_udp: bool) -> tuple[str, str, int, bytes]:
    """Outer source, outer destination, outer protocol and the inner packet."""
    h = read_headers(frame)
    return (
        str(ip_address(h.src)),
        str(ip_address(h.dst)),
        h.protocol,
        frame[h.l4_offset + (8 if has_udp else 0) : h.l4_offset + h.l4_length],
    )


def outer_is_sound(frame: bytes) -> bool:
    ip = frame[14:]
    if ip[0] >> 4 == 6:
        return int.from_bytes(ip[4:6], "big") == len(ip) - 40
    return checksum(ip[:20]) == 0 and int.from_bytes(ip[2:4], "big") == len(ip)


# ---- by MAC address ----


def dsr() -> dict[str, Any]:
    made = vip(B1, forward="dsr")
    made["backends"][0]["mac"] = MAC
    return made


def test_dsr_changes_nothing_but_the_mac_address() -> None:
    lb = Lb(dsr())
    frame = tcp(C, 5000, V, 80, SYN)
    lb(frame)
    assert lb.frame == bytes.fromhex(MAC.replace(":", "")) + frame[6:]
    reply = tcp(V, 80, C, 5000, SYN | ACK)
    lb(reply)
    assert lb.frame == reply


def test_dsr_without_its_backend_has_no_address_to_go_to() -> None:
    lb = Lb(dsr())
    lb(tcp(C, 5000, V, 80, SYN))
    lb.set(vip(B1, address="198.51.100.99"), vip())
    assert lb(tcp(C, 5000, V, 80, ACK)) == "no_backend"


# ---- in a tunnel ----


@pytest.mark.parametrize(
    ("client", "address", "backend", "source", "protocol"),
    [
        (C, V, B1, SOURCE, 4),
        (C, V, B6, SOURCE6, 4),
        (C6, V6, B1, SOURCE, 41),
        (C6, V6, B6, SOURCE6, 41),
    ],
)
@pytest.mark.parametrize("forward", ["ipip", "gue"])
@pytest.mark.parametrize("make", [tcp, udp])
def test_tunnel_carries_the_packet_as_it_is(
    make: Any, forward: str, client: str, address: str, backend: str, source: str, protocol: int
) -> None:
    made = vip(backend, address=address, forward=forward, protocol=make.__name__)
    lb = Lb(made, tunnel_sources=[SOURCE, SOURCE6])
    frame = make(client, 5000, address, 80, payload=b"hello")
    lb.send(frame + bytes(9))  # padding of Ethernet is no part of the packet
    has_udp = forward == "gue"
    expected = (source, backend, UDP if has_udp else protocol, frame[14:])
    assert inside(lb.frame, has_udp=has_udp) == expected
    assert outer_is_sound(lb.frame)
    if has_udp:
        h = read_headers(lb.frame)
        assert (h.src_port >= 0xC000, h.dst_port) == (True, 6080)
        assert backend == B1 or is_sound(lb.frame)


def test_tunnel_keeps_traffic_class_and_vlan() -> None:
    lb = tunnel("ipip", B6)
    frame = tcp(C, 5000, V, 80, SYN)
    frame = frame[:12] + b"\x81\0\x20\x05" + frame[12:15] + b"\xba" + frame[16:]
    lb.send(frame)
    assert lb.frame[12:18] == b"\x81\0\x20\x05\x86\xdd"
    assert int.from_bytes(lb.frame[18:22], "big") >> 20 == 0x6BA


def test_what_does_not_fit_is_answered_with_the_mtu() -> None:
    lb = tunnel("ipip", B1, tunnel_mtu=1400)
    fits = tcp(C, 5000, V, 80, ACK, b"x" * (1380 - 40), fragment=DF)
    lb.send(fits)
    assert inside(lb.frame, has_udp=False)[3] == fits[14:]
    big = tcp(C, 5000, V, 80, ACK, b"x" * (1380 - 39), fragment=DF)
    assert lb.send(big).verdict == OUT
    h = read_headers(lb.frame)
    assert lb.frame[h.l4_offset : h.l4_offset + 2] == b"\x03\x04"
    assert int.from_bytes(lb.frame[h.l4_offset + 6 : h.l4_offset + 8], "big") == 1380
    assert (str(ip_address(h.src)), str(ip_address(h.dst))) == (V, C)
    assert is_sound(lb.frame)
    assert lb(tcp(C, 5000, V, 80, ACK, b"x" * 1341)) == "too_big", "it may be cut, but not here"
    assert lb.count("too_big_answered") == 1


def test_what_does_not_fit_is_answered_with_the_mtu_of_ipv6() -> None:
    lb = tunnel("gue", B6, address=V6, tunnel_mtu=1400)
    assert lb.send(tcp(C6, 5000, V6, 80, ACK, b"x" * 1300)).verdict == OUT
    h = read_headers(lb.frame)
    assert lb.frame[h.l4_offset : h.l4_offset + 8][::7] == b"\x02" + bytes([1352 & 0xFF])
    assert is_sound(lb.frame)


def test_checksum_that_was_left_to_the_device_is_made() -> None:
    lb = tunnel("ipip", B1)
    frame = tcp(C, 5000, V, 80, SYN)
    broken = frame[:50] + b"\xab\xcd" + frame[52:]
    done = lb.runner.run([Packet(broken, flags=PARTIAL)], lb.now_ns)[0]
    assert inside(done.data, has_udp=False)[3] == frame[14:]
    merged = lb.runner.run([Packet(frame, flags=PARTIAL | MERGED)], lb.now_ns)[0]
    assert merged.destination == 7, "too_big"


def test_errors_about_replies_reach_the_backend() -> None:
    lb = tunnel("gue", B1)
    lb.send(tcp(C, 5000, V, 80, SYN))
    error = icmp_error(ROUTER, V, tcp(V, 80, C, 5000, payload=b"x" * 700))
    lb.send(error)
    assert inside(lb.frame, has_udp=True) == (SOURCE, B1, UDP, error[14:])


def test_echo_is_still_answered_by_the_load_balancer() -> None:
    assert tunnel("ipip", B1).send(echo(C, V, 7)).verdict == OUT


# ---- connections ----


def test_connection_stays_with_its_backend_when_it_is_removed() -> None:
    lb = tunnel("ipip", B1)
    lb.send(tcp(C, 5000, V, 80, SYN))
    lb.send(tcp(C, 5000, V, 80, ACK))
    lb.set(vip(B6, forward="ipip"))
    lb.send(tcp(C, 5000, V, 80, ACK))
    assert inside(lb.frame, has_udp=False)[1] == B1
    lb.send(tcp(C, 5000, V, 80, SYN))
    assert inside(lb.frame, has_udp=False)[1] == B6


def test_connection_is_established_by_its_client_and_closed_by_it() -> None:
    lb = tunnel("ipip", B1, tcp_established_s=1000, tcp_closing_s=20, opening_s=5)
    lb.send(tcp(C, 1, V, 80, SYN))
    lb.send(tcp(C, 2, V, 80, SYN))
    lb.send(tcp(C, 2, V, 80, ACK))
    lb.send(tcp(C2, 3, V, 80, SYN))
    lb.send(tcp(C2, 3, V, 80, ACK))
    lb.send(tcp(C2, 3, V, 80, FIN | ACK))
    open_after = []
    for seconds in (6, 16, 1000):
        lb.wait(seconds)
        lb.runner.run([], lb.now_ns)
        open_after.append(len(lb.balancer.save(lb.now_ns)) // 128)
    assert open_after == [2, 1, 0]


def test_connections_in_tunnels_go_to_another_instance() -> None:
    config = load({"vips": [vip(B1, B6, forward="ipip")], "tunnel_sources": [SOURCE, SOURCE6]})
    first, second = Balancer(config), Balancer(config)
    runner, successor = KernelRunner(first.kernel), KernelRunner(second.kernel)
    frames = [Packet(tcp(C, port, V, 80, ACK)) for port in range(1, 20)]
    before = [done.data for done in runner.run(frames, NS)]
    second.restore(first.save(NS), NS)
    assert [done.data for done in successor.run(frames, NS)] == before
    assert len(second.save(NS)) == len(first.save(NS)) == 19 * 128


# ---- mistakes ----


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"forward": "tunnel"}, "vips[0].forward: 'tunnel': expected one of dsr, gue, ipip, nat"),
        ({"forward": "dsr"}, "vips[0].backends[0].address: '203.0.113.1': expected a backend with"),
        ({"forward": "ipip"}, "vips[0].backends[0].address: '203.0.113.1': expected tunnel_sourc"),
        (
            {"forward": "dsr", "backends": [{"address": B1, "port": 8080, "mac": MAC}]},
            "vips[0].backends[0].port: 8080: expected none: only nat changes ports",
        ),
        (
            {"forward": "dsr", "backends": [{"address": B1, "mac": "01:00:00:00:00:01"}]},
            "vips[0].backends[0].mac: '01:00:00:00:00:01': expected a MAC address of one host",
        ),
        (
            {"backends": [{"address": B1, "mac": MAC}]},
            f"vips[0].backends[0].mac: '{MAC}': expected none with nat",
        ),
        ({"forward": "gue", "passive": {}}, "vips[0].passive: 'gue': expected it with nat only"),
    ],
)
def test_mistakes_name_field_value_and_expectation(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"vips": [{"address": V, "port": 80, "backends": [{"address": B1}], **more}]})
    assert str(caught.value).startswith(message)


def test_sources_are_one_of_each_version() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"tunnel_sources": [SOURCE, "192.0.2.253"]})
    assert str(caught.value).startswith("tunnel_sources[1]: '192.0.2.253': expected one address")
