# SPDX-License-Identifier: Apache-2.0
"""The load balancer by cases: what clients, servers and attackers do, and what comes out."""

from __future__ import annotations

import struct
import time
from ipaddress import ip_address
from typing import Any

import pytest
from lb_case import B1, B2, B6, C2, C6, ROUTER, V2, V6, C, Lb, V, vip
from onvm_nf_lb.config import load
from onvm_nf_lb.kernel import Balancer

from onvm_sdk.headers import read_headers
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
from onvm_sdk.testing.kernel import OUT, Packet

# ---- ICMP errors ----


@pytest.mark.parametrize(
    ("address", "client", "server", "router"),
    [(V, C, B1, "192.0.2.1"), (V6, C6, B6, "2001:db8:c::fe")],
)
@pytest.mark.parametrize("make", [tcp, udp])
@pytest.mark.parametrize("size", [48, 60, 600])
def test_error_about_a_reply_reaches_the_backend(
    make: Any, address: str, client: str, server: str, router: str, size: int
) -> None:
    protocol = "tcp" if make is tcp else "udp"
    lb = Lb(vip(server, address=address, protocol=protocol, to=8080))
    lb(make(client, 5000, address, 80))
    about = make(address, 80, client, 5000, payload=b"x" * 700)
    seen_by_backend = make(server, 8080, client, 5000, payload=b"x" * 700)
    lb(icmp_error(router, address, about, size=size))
    assert lb.frame == icmp_error(router, server, seen_by_backend, size=size)
    assert is_sound(lb.frame)
    assert lb.count("icmp_errors") == 1


@pytest.mark.parametrize(("address", "client", "server"), [(V, C, B1), (V6, C6, B6)])
@pytest.mark.parametrize("make", [tcp, udp])
def test_error_of_a_backend_comes_from_the_vip(
    make: Any, address: str, client: str, server: str
) -> None:
    protocol = "tcp" if make is tcp else "udp"
    lb = Lb(vip(server, address=address, protocol=protocol, to=8080))
    sent = make(client, 5000, address, 80, payload=b"odd")
    lb(sent)
    for router in (server, ROUTER if server == B1 else "2001:db8:b::fe"):
        lb(icmp_error(router, client, make(client, 5000, server, 8080, payload=b"odd")))
        assert lb.frame == icmp_error(address, client, sent)


def test_error_about_a_closed_path_mtu_reaches_the_backend_of_its_flow() -> None:
    lb = Lb(vip(B1, B2))
    servers = {}
    for port in range(5000, 5032):
        lb(tcp(C, port, V, 80, SYN))
        servers[port] = str(ip_address(read_headers(lb.frame).dst))
    assert set(servers.values()) == {B1, B2}
    for port, server in servers.items():
        quoted = tcp(V, 80, C, port, ACK, b"x" * 1400)[14:42]
        lb(ip("192.0.2.1", V, 1, struct.pack("!BBHHH", 3, 4, 0, 0, 1300) + quoted))
        assert str(ip_address(read_headers(lb.frame).dst)) == server


@pytest.mark.parametrize(
    "extensions",
    [
        bytes([6, 0, 1, 4, 0, 0, 0, 0]),  # hop-by-hop
        bytes([44, 0, 1, 4, 0, 0, 0, 0]) + bytes([6, 0, 0, 1, 0, 0, 0, 7]),  # and a first fragment
    ],
)
def test_error_that_quotes_extension_headers(extensions: bytes) -> None:
    lb = Lb(vip(B6, address=V6, to=8080))
    lb(tcp(C6, 5000, V6, 80, SYN))

    def quoted(src: str, sport: int) -> bytes:
        return ip(src, C6, 0, extensions + tcp(src, sport, C6, 5000)[54:])

    lb(icmp_error("2001:db8:c::fe", V6, quoted(V6, 80), size=100))
    assert lb.frame == icmp_error("2001:db8:c::fe", B6, quoted(B6, 8080), size=100)


def test_error_about_no_connection_is_dropped() -> None:
    lb = Lb(vip(B1), vip(B1, address=V2))
    lb(tcp(C, 5000, V, 80, SYN))
    about = tcp(V, 80, C, 5000)
    assert lb(icmp_error(C, V, tcp(V, 80, C, 5001))) == "no_connection"
    assert lb(icmp_error(C, V2, about)) == "no_connection", "not the end that it quotes"
    stranger = icmp_error(C, C2, about)
    assert lb.send(stranger).data == stranger, "it is none of ours"


# ---- backends that go ----


def test_syn_on_the_tuple_of_a_removed_backend_goes_to_another() -> None:
    lb = Lb(vip(B1))
    lb.shake(C, 5000)
    lb.set(vip(B2))
    assert lb(tcp(C, 5000, V, 80, ACK)) == f"{C}:5000 > {B1}:80", "what runs goes on"
    assert lb(tcp(C, 5000, V, 80, SYN)) == f"{C}:5000 > {B2}:80"
    assert lb(tcp(C, 5000, V, 80, ACK)) == f"{C}:5000 > {B2}:80"


def test_syn_on_the_tuple_of_a_living_backend_stays() -> None:
    lb = Lb(vip(B1, to=8080))
    lb.shake(C, 5000, to=8080)
    lb.set(vip(B1, to=8080), vip(B2, address=V2))
    assert lb(tcp(C, 5000, V, 80, SYN)) == f"{C}:5000 > {B1}:8080"
    assert lb.count("connections_opened") == 1


def test_udp_flows_of_a_removed_backend_end_at_once() -> None:
    lb = Lb(vip(B1, protocol="udp"))
    lb(udp(C, 5000, V, 80))
    lb.set(vip(B2, protocol="udp"))
    assert lb(udp(C, 5000, V, 80)) == f"{C}:5000 > {B2}:80"


def test_flows_of_a_removed_vip_end() -> None:
    lb = Lb(vip(B1, protocol="udp"), vip(B1))
    lb(udp(C, 5000, V, 80))
    lb(tcp(C, 5000, V, 80, SYN))
    lb.set(vip(B1, address=V2))
    assert lb(udp(C, 5000, V, 80)) == f"{C}:5000 > {V}:80", "no VIP any more"
    assert lb(tcp(C, 5000, V, 80, ACK)) == f"{C}:5000 > {B1}:80"
    assert lb(tcp(C, 5000, V, 80, SYN)) == f"{C}:5000 > {V}:80"


def test_weight_0_keeps_connections_and_gets_no_new_ones() -> None:
    def weighted(weight: int) -> dict[str, Any]:
        made = vip(B1, B2)
        made["backends"][0]["weight"] = weight
        return made

    lb = Lb(vip(B1))
    lb.shake(C, 5000)
    lb.set(weighted(0))
    assert lb(tcp(C, 5000, V, 80, SYN)) == f"{C}:5000 > {B1}:80"
    for port in range(5001, 5020):
        assert lb(tcp(C, port, V, 80, SYN)) == f"{C}:{port} > {B2}:80"
    lb.set(vip(B1, to=0) | {"backends": [{"address": B1, "weight": 0}]})
    assert lb(tcp(C, 6000, V, 80, SYN)) == "no_backend"


# ---- two VIPs over the same backends ----


def close(lb: Lb, client: str, port: int, service: int, server: str, to: int) -> None:
    lb(tcp(client, port, V, service, FIN | ACK))
    lb(tcp(server, to, client, port, FIN | ACK))
    lb(tcp(client, port, V, service, ACK))


def test_closed_connection_gives_way_to_another_vip() -> None:
    lb = Lb(vip(B1, to=8080), vip(B1, port=443, to=8080))
    lb.shake(C, 5000, to=8080)
    close(lb, C, 5000, 80, B1, 8080)
    lb.wait(5)
    assert lb(tcp(C, 5000, V, 443, SYN)) == f"{C}:5000 > {B1}:8080"
    assert lb(tcp(B1, 8080, C, 5000, SYN | ACK)) == f"{V}:443 > {C}:5000"


@pytest.mark.parametrize(("make", "protocol"), [(tcp, "tcp"), (udp, "udp")])
def test_two_vips_over_one_backend_never_refuse_a_client(make: Any, protocol: str) -> None:
    vips = [vip(B1, to=8080, port=port, protocol=protocol) for port in range(80, 90)]
    lb = Lb(*vips)
    seen = {}
    for port in range(80, 90):
        lb(make(C, 5000, V, port))
        h = read_headers(lb.frame)
        assert (str(ip_address(h.dst)), h.dst_port) == (B1, 8080)
        seen[port] = h.src_port
    assert len(set(seen.values())) == 10, "the backend sees ten connections"
    assert seen[80] == 5000, "the first keeps its port"
    for port, source in seen.items():
        assert lb(make(B1, 8080, C, source)) == f"{V}:{port} > {C}:5000"
        assert lb(make(C, 5000, V, port)) == f"{C}:{source} > {B1}:8080"
    # Errors about one of them quote what each side has sent.
    about = make(V, 85, C, 5000)
    lb(icmp_error(C, V, about))
    assert lb.frame == icmp_error(C, B1, make(B1, 8080, C, seen[85]))
    lb(icmp_error(B1, C, make(C, seen[85], B1, 8080)))
    assert lb.frame == icmp_error(V, C, make(C, 5000, V, 85))


# ---- tables that fill ----


def test_half_open_connections_give_way() -> None:
    lb = Lb(vip(B1), max_connections=2)
    lb.shake(C, 5000)
    for port in range(100):
        assert lb(tcp(C2, port, V, 80, SYN)) == f"{C2}:{port} > {B1}:80"
    assert lb.count("connections_evicted") == 99
    assert lb(tcp(C, 5000, V, 80, ACK)) == f"{C}:5000 > {B1}:80"
    assert lb.count("connections_opened") == 101, "the established one has stayed"


def test_established_connections_never_give_way() -> None:
    lb = Lb(vip(B1), max_connections=2)
    lb.shake(C, 5000)
    lb.shake(C, 5001)
    assert lb(tcp(C2, 1, V, 80, SYN)) == "table_full"


def test_closed_connections_give_way_before_half_open_ones() -> None:
    lb = Lb(vip(B1), max_connections=2)
    lb(tcp(C2, 1, V, 80, SYN))
    lb.shake(C, 5000)
    close(lb, C, 5000, 80, B1, 80)
    lb(tcp(C2, 2, V, 80, SYN))
    opened = lb.count("connections_opened")
    lb(tcp(C2, 1, V, 80, SYN))
    assert lb.count("connections_opened") == opened, "it was still there"


@pytest.mark.parametrize("seconds", [29, 30])
def test_a_half_open_connection_lives_30_s(seconds: int) -> None:
    lb = Lb(vip(B1), max_connections=2)
    lb.shake(C, 1)
    lb(tcp(C2, 1, V, 80, SYN))
    lb.wait(seconds)
    lb.runner.run([], lb.now_ns)
    assert lb.count("connections_expired") == (seconds == 30)


def test_a_forged_handshake_is_not_established() -> None:
    lb = Lb(vip(B1))
    lb(tcp(C, 5000, V, 80, SYN))
    answer = tcp(B1, 80, C, 5000, SYN | ACK)
    answer = ip(B1, C, 6, answer[34:38] + struct.pack("!I", 0x70000000) + answer[42:])
    lb(answer)
    lb(tcp(C, 5000, V, 80, ACK))  # acknowledges 1, which the server never sent
    lb.wait(30)
    lb.runner.run([], lb.now_ns)
    assert lb.count("connections_expired") == 1


@pytest.mark.parametrize(("last", "idle_s"), [(ACK, 7440), (RST, 30), (FIN | ACK, 7440)])
def test_idle_time_of_tcp(last: int, idle_s: int) -> None:
    lb = Lb(vip(B1))
    lb.shake(C, 5000)
    lb(tcp(C, 5000, V, 80, last))
    lb.wait(idle_s - 1)
    lb.runner.run([], lb.now_ns)
    assert lb.count("connections_expired") == 0
    lb.wait(1)
    lb.runner.run([], lb.now_ns)
    assert lb.count("connections_expired") == 1


def test_idle_time_of_udp() -> None:
    lb = Lb(vip(B1, protocol="udp"))
    lb(udp(C, 5000, V, 80))
    lb.wait(30)
    lb(udp(C, 5001, V, 80))
    assert lb.count("connections_expired") == 1, "it was never answered"
    lb(udp(B1, 80, C, 5001))
    lb.wait(299)
    lb(udp(C, 5002, V, 80))
    lb.wait(1)
    lb(udp(C, 5002, V, 80))
    assert lb.count("connections_expired") == 2


def test_what_has_expired_is_free_at_once_and_not_believed() -> None:
    lb = Lb(vip(B1), max_connections=20_000)
    lb.runner.run([Packet(tcp(C, port, V, 80, SYN)) for port in range(20_000)], lb.now_ns)
    lb.set(vip(B2))
    lb.wait(1000)
    done = lb.runner.run([Packet(tcp(C, port, V, 80, ACK)) for port in range(20_000)], lb.now_ns)
    assert {read_headers(one.data).dst for one in done} == {ip_address(B2).packed}
    assert lb.count("connections_expired") == 20_000


def test_time_passes_without_packets() -> None:
    lb = Lb(vip(B1))
    lb(tcp(C, 5000, V, 80, SYN))
    lb.wait(30)
    lb.balancer.tick(lb.now_ns)
    assert lb.balancer.save(lb.now_ns) == b""
    lb.runner.run([], lb.now_ns)
    assert lb.count("connections_expired") == 1, "what happened between bursts is counted"


# ---- what is for no service ----


@pytest.mark.parametrize(
    "frame",
    [
        tcp(C, 1, V, 81, SYN),
        tcp(C, 1, V, 81, ACK),
        udp(C, 1, V, 80),
        ip(C, V, 47, bytes(8)),
        ip(C, V, 132, bytes(12)),
        echo(C, V, 1, 13),
        echo(C6, V6, 1, 130),
        echo(C, V, 1, 0),
        tcp(C6, 1, V6, 81, SYN),
        ip(C6, V6, 50, bytes(8)),
    ],
)
def test_what_is_for_no_service_is_dropped(frame: bytes) -> None:
    assert Lb(vip(B1), vip(B6, address=V6))(frame) == "no_service"


@pytest.mark.parametrize(("address", "client"), [(V, C), (V6, C6)])
def test_echo_is_answered(address: str, client: str) -> None:
    lb = Lb(vip(B1), vip(B6, address=V6))
    asked = echo(client, address, 7)
    done = lb.send(asked)
    expected = echo(address, client, 7, 0 if address == V else 129)
    assert (done.verdict, done.destination) == (OUT, 3)
    assert done.data == expected[6:12] + expected[:6] + expected[12:]
    assert lb.count("echoes_answered") == 1
    for forged in ("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", V):
        assert lb(echo(forged, V, 7)) == "no_service"


def test_neighbour_discovery_passes() -> None:
    solicitation = ip(C6, V6, 58, bytes([135]) + bytes(23))
    assert Lb(vip(B6, address=V6)).send(solicitation).data == solicitation


@pytest.mark.parametrize(("address", "client"), [(V, C), (V6, C6)])
@pytest.mark.parametrize(
    ("flags", "payload", "number", "acknowledged", "answer"),
    [
        (SYN, b"", 0, 2, RST | ACK),
        (ACK, b"data", 1, 0, RST),
        (FIN, b"data", 0, 6, RST | ACK),
    ],
)
def test_reject_resets_tcp(
    address: str,
    client: str,
    flags: int,
    payload: bytes,
    number: int,
    acknowledged: int,
    answer: int,
) -> None:
    lb = Lb(vip(B1), vip(B6, address=V6), reject=True)
    done = lb.send(tcp(client, 1000, address, 81, flags, payload))
    assert (done.verdict, done.destination) == (OUT, 3)
    h = read_headers(done.data)
    assert (ip_address(h.src), ip_address(h.dst)) == (ip_address(address), ip_address(client))
    assert (h.src_port, h.dst_port, h.tcp_flags) == (81, 1000, answer)
    assert struct.unpack_from("!II", done.data, h.l4_offset + 4) == (number, acknowledged)
    assert len(done.data) == h.l4_offset + 20
    assert is_sound(done.data)
    assert lb(tcp(client, 1000, address, 81, RST)) == "no_service", "no answer to a reset"


@pytest.mark.parametrize(("address", "client"), [(V, C), (V6, C6)])
@pytest.mark.parametrize("length", [0, 1, 1400])
def test_reject_says_that_a_port_is_unreachable(address: str, client: str, length: int) -> None:
    lb = Lb(vip(B1), vip(B6, address=V6), reject=True)
    asked = udp(client, 1000, address, 81, bytes(length))
    done = lb.send(asked)
    h = read_headers(done.data)
    kind = (3, 3) if address == V else (1, 4)
    assert tuple(done.data[h.l4_offset : h.l4_offset + 2]) == kind
    assert done.data[h.l4_offset + 8 :] == asked[14:][: len(done.data) - h.l4_offset - 8]
    assert len(done.data) - 14 <= (576 if address == V else 1280)
    assert is_sound(done.data)


# ---- replies without a connection ----


def test_reply_of_a_server_without_a_connection_leaves_as_its_vip() -> None:
    lb = Lb(vip(B1, B2, to=8080), vip(B1, port=443, to=8443), vip(B6, address=V6))
    assert lb(tcp(B1, 8080, C, 5000, ACK, b"data")) == f"{V}:80 > {C}:5000"
    assert lb(tcp(B1, 8443, C, 5000, ACK, b"data")) == f"{V}:443 > {C}:5000"
    assert lb(tcp(B6, 80, C6, 5000)) == f"{V6}:80 > {C6}:5000"
    assert lb(tcp(B1, 22, C, 5000)) == f"{B1}:22 > {C}:5000", "another service of the server"
    assert lb(udp(B1, 8080, C, 5000)) == f"{B1}:8080 > {C}:5000"
    assert lb(tcp(B1, 8080, C, 5000, SYN)) == f"{B1}:8080 > {C}:5000", "it is no reply"


@pytest.mark.parametrize(("make", "protocol"), [(tcp, "tcp"), (udp, "udp")])
def test_connections_to_a_server_itself_pass(make: Any, protocol: str) -> None:
    lb = Lb(vip(B1, to=8080, protocol=protocol))
    assert lb(make(C, 5000, B1, 8080)) == f"{C}:5000 > {B1}:8080"
    assert lb(make(B1, 8080, C, 5000)) == f"{B1}:8080 > {C}:5000"
    assert lb(make(B1, 8080, C, 5001)) == f"{V}:80 > {C}:5001"
    error = icmp_error(ROUTER, C, make(C, 5000, B1, 8080))
    assert lb.send(error).data == error
    # The same client port through the VIP is another connection.
    lb(make(C, 5000, V, 80))
    port = read_headers(lb.frame).src_port
    assert port != 5000
    assert lb(make(B1, 8080, C, port)) == f"{V}:80 > {C}:5000"
    assert lb.count("passed") == 3


def test_reply_that_could_be_of_two_vips_passes() -> None:
    lb = Lb(vip(B1, to=8080), vip(B1, port=443, to=8080))
    assert lb(tcp(B1, 8080, C, 5000)) == f"{B1}:8080 > {C}:5000"


# ---- VLANs and affinity ----


def tagged(frame: bytes, *vlans: int) -> bytes:
    tags = b"".join(b"\x81\0" + vlan.to_bytes(2, "big") for vlan in vlans)
    return frame[:12] + tags + frame[12:]


def test_equal_addresses_in_two_vlans_are_two_connections() -> None:
    lb = Lb(vip(B1))
    for vlans in ((), (5,), (6,), (5, 7)):
        lb.send(tagged(tcp(C, 5000, V, 80, SYN), *vlans))
    assert lb.count("connections_opened") == 4
    lb.send(tagged(tcp(C, 5000, V, 80, SYN), 5 | 0x6000))
    assert lb.count("connections_opened") == 4, "the priority is not part of it"


def test_a_client_goes_to_one_server_on_all_ports() -> None:
    servers = [f"203.0.113.{i}" for i in range(1, 9)]
    lb = Lb(
        vip(*servers, to=8080, affinity="client"),
        vip(*servers, port=443, to=8443, affinity="client"),
    )
    used = set()
    for last in range(1, 60):
        client = f"192.0.2.{last}"
        lb(tcp(client, 5000 + last, V, 80, SYN))
        first = read_headers(lb.frame).dst
        lb(tcp(client, 6000, V, 443, SYN))
        assert read_headers(lb.frame).dst == first
        used.add(first)
    assert len(used) == 8


# ---- the configuration ----


def many(vips: int, backends: int) -> dict[str, Any]:
    listed = [{"address": f"10.{i >> 8}.{i & 255}.1", "port": 80} for i in range(backends)]
    return {
        "vips": [
            {"address": f"198.18.{i >> 8}.{i & 255}", "port": 80, "backends": listed}
            for i in range(vips)
        ]
    }


@pytest.mark.parametrize(("vips", "backends"), [(1, 2000), (1000, 100)])
def test_time_of_a_check_grows_with_the_configuration_only(vips: int, backends: int) -> None:
    """0.1 s here; the bound is for a machine that does other things."""
    config = many(vips, backends)
    begin = time.process_time()
    load(config)
    assert time.process_time() - begin < 1


def test_vips_with_equal_backends_share_a_table() -> None:
    begin = time.process_time()
    Balancer(load(many(1000, 100)))
    assert time.process_time() - begin < 5
