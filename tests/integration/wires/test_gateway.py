"""A gateway: client and server in different subnets, the router (and a chain) between them.

Both ends have a default route and no static neighbour; all interfaces are at their default
settings.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import vlan_tags
from gateway_bed import (
    ADDRESSES,
    CLIENT,
    DOWNLOAD_BYTES,
    GATEWAY,
    GATEWAYS,
    OTHER,
    READY_TIMEOUT_S,
    SERVER,
    SERVER_V4,
    SERVER_V6,
    Gateway,
    configuration,
    connect,
    gateway_net,
    run_manager,
    until_said,
)
from namespaces import Net, download, missing

MISSING = missing("ping", "ss")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")

NO_TAGS = vlan_tags.obstacle()


@pytest.fixture
def net() -> Iterator[Net]:
    with gateway_net() as made:
        yield made


NAT = """
[nfs.firewall]
[nfs.nat.config]
external = "198.51.100.1"
inside = ["10.0.0.0/24"]
"""
CHAINS = {
    "router": (["router"], ""),
    "router+firewall": (["router", "firewall"], "[nfs.firewall]\n"),
    "router+firewall+nat": (["router", "firewall", "nat"], NAT),
}


@contextlib.contextmanager
def up(net: Net, folder: Path, chain: str, settings: str = "") -> Iterator[Gateway]:
    services, others = CHAINS[chain]
    with run_manager(net, folder, configuration(services, settings, others)) as made:
        made.has_nat = "nat" in services
        yield made


@pytest.fixture(params=CHAINS)
def gateway(request: pytest.FixtureRequest, net: Net, tmp_path: Path) -> Iterator[Gateway]:
    with up(net, tmp_path, request.param) as made:
        yield made


def test_packets_pass_between_subnets(gateway: Gateway, net: Net, tmp_path: Path) -> None:
    # The first packet of all must arrive: it waits for the neighbour.
    for host in (SERVER_V4, SERVER_V6):
        assert " 0% packet loss" in net.run(CLIENT, "ping", "-c1", "-W5", host)
    outer = GATEWAYS[SERVER][1:] if gateway.has_nat else GATEWAYS[SERVER]  # the NAT has the other
    for host in (*GATEWAYS[CLIENT], *outer, SERVER_V4, SERVER_V6):
        assert " 0% packet loss" in net.run(CLIENT, "ping", "-c1", "-W5", host)
    for host in (SERVER_V4, f"[{SERVER_V6}]"):
        download(net, tmp_path, host, DOWNLOAD_BYTES, CLIENT, SERVER)


def test_gateway_of_xdp_ports(net: Net, tmp_path: Path) -> None:
    """The other end of a veth must finish its packets; one line says with which command."""
    services, others = CHAINS["router+firewall"]
    text = configuration(services, others=others, kind="af_xdp")
    with run_manager(net, tmp_path, text) as made:
        log = (tmp_path / "manager.log").read_text(encoding="utf-8")
        helps = re.findall("run: (ip netns exec .* ethtool .*)", log)
        assert len(helps) == 2
        for command in helps:
            subprocess.run(command.split(), check=True, capture_output=True)
        test_packets_pass_between_subnets(made, net, tmp_path)


def test_each_hop_says_where_a_packet_has_ended(gateway: Gateway, net: Net) -> None:
    for host, own in zip((SERVER_V4, SERVER_V6), GATEWAYS[CLIENT], strict=True):
        said = net.run(CLIENT, "sh", "-c", f"ping -c1 -W5 -t1 {host} || true")
        assert f"From {own}" in said, said
        assert "ime to live exceeded" in said or "Hop limit" in said or "ime exceeded" in said
        assert " 0% packet loss" in net.run(CLIENT, "ping", "-c1", "-W5", "-t2", host)


TRACE = """
import socket, struct, sys
kind, host, ttl = sys.argv[1], sys.argv[2], int(sys.argv[3])
six = ":" in host
level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
family = socket.AF_INET6 if six else socket.AF_INET
probe = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
probe.settimeout(5)
probe.setsockopt(level, socket.IPV6_UNICAST_HOPS if six else socket.IP_TTL, ttl)
probe.setsockopt(level, 25 if six else 11, 1)  # RECVERR
try:
    probe.connect((host, 33434))
    probe.send(b"x")
    probe.recv(1)
except OSError as error:
    print(type(error).__name__, error.errno)
_, control, _, _ = probe.recvmsg(1, 512, socket.MSG_ERRQUEUE)
for _, _, data in control:
    number, origin, type_, code = struct.unpack_from("=IBBB", data)
    place = data[16:]
    address = place[8:24] if six else place[4:8]
    print(origin, type_, code, socket.inet_ntop(family, address))
"""


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_routes_can_be_traced(gateway: Gateway, net: Net, kind: str) -> None:
    def trace(host: str, ttl: int) -> str:
        return net.run(CLIENT, sys.executable, "-c", TRACE, kind, host, str(ttl))

    for host, own in zip((SERVER_V4, SERVER_V6), GATEWAYS[CLIENT], strict=True):
        origin, time_exceeded, unreachable = (
            ("3", "3 0", "1 4") if ":" in host else ("2", "11 0", "3 3")
        )
        assert f"{origin} {time_exceeded} {own}" in trace(host, 1)
        if kind == "udp":
            assert f"{origin} {unreachable} {host}" in trace(host, 2)
            assert f"{origin} {unreachable} {own}" in trace(own, 1)


SERVE = """
import os, socket, sys, threading
blob = os.urandom(100_000)
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], 8000), family=family, backlog=256)
def serve(peer):
    with peer:
        peer.sendall(blob)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],)).start()
"""
FETCH = """
import hashlib, socket, sys
from concurrent.futures import ThreadPoolExecutor
def fetch(number):
    with socket.create_connection((sys.argv[1], 8000), timeout=20) as peer:
        return hashlib.file_digest(peer.makefile("rb"), "sha256").hexdigest()
with ThreadPoolExecutor(100) as pool:
    got = list(pool.map(fetch, range(100)))
print(len(got), len(set(got)))
"""


def test_a_hundred_connections_at_a_time(gateway: Gateway, net: Net, tmp_path: Path) -> None:
    for host in (SERVER_V4, SERVER_V6):
        log = tmp_path / "server.log"
        server = net.start(SERVER, sys.executable, "-c", SERVE, host, log=log)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while ":8000" not in net.run(SERVER, "ss", "-Hltn"):
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        got = net.run(CLIENT, sys.executable, "-c", FETCH, host, timeout=90)
        assert got.split() == ["100", "1"]
        net.stop(server)


def narrow(net: Net, role: str) -> None:
    """Make a link of 1300 bytes, whose host does not tell the other end of TCP."""
    inner, outer = {CLIENT: ("c0", "d0"), SERVER: ("s0", "d1")}[role]
    net.ip(role, "link", "set", inner, "mtu", "1300")
    net.ip(GATEWAY, "link", "set", outer, "mtu", "1300")
    for version, gateway in zip(("-4", "-6"), GATEWAYS[role], strict=True):
        net.ip(
            role,
            version,
            "route",
            "change",
            "default",
            "via",
            gateway,
            "dev",
            inner,
            "advmss",
            "1440",
        )


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("role", [CLIENT, SERVER])
def test_path_mtu_is_found(net: Net, tmp_path: Path, role: str, chain: str) -> None:
    narrow(net, role)
    with up(net, tmp_path, chain) as gateway:
        if role == SERVER:  # from a wide link into a narrow one
            for host in (SERVER_V4, SERVER_V6):
                said = net.run(CLIENT, "sh", "-c", f"ping -c1 -W5 -M do -s 1400 {host} || true")
                assert "mtu = 1300" in said or "mtu=1300" in said, said
                ping = ("ping", "-c1", "-W5", "-M", "do", "-s", "1200", host)
                assert " 0% packet loss" in net.run(CLIENT, *ping)
        far, near = (SERVER, CLIENT) if role == CLIENT else (CLIENT, SERVER)
        if far == CLIENT and gateway.has_nat:
            return  # a connection from outside
        for address, other in zip(ADDRESSES[far], ADDRESSES[near], strict=True):
            host, peer = address.split("/")[0], other.split("/")[0]
            if gateway.has_nat and "." in peer:
                peer = GATEWAYS[SERVER][0]
            download(net, tmp_path, f"[{host}]" if ":" in host else host, DOWNLOAD_BYTES, near, far)
            assert "mtu 1300" in net.run(far, "ip", "route", "get", peer)
        assert gateway.router["counters"]["errors_sent"] >= 2


def reaches(net: Net, host: str) -> bool:
    done = subprocess.run(
        ["ip", "netns", "exec", net.space(CLIENT), "ping", "-c1", "-W1", host],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def until_reached(net: Net, host: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not reaches(net, host):
        assert time.monotonic() < deadline, f"{host} is not reached"


@pytest.mark.parametrize("mtu", [1500, 1300])
def test_fragments_pass_and_are_made(net: Net, tmp_path: Path, mtu: int) -> None:
    if mtu != 1500:
        narrow(net, SERVER)
    with up(net, tmp_path, "router+firewall") as gateway:
        for size in (1400, 4000):
            ping = ("ping", "-c1", "-W5", "-M", "dont", "-s", str(size))
            assert " 0% packet loss" in net.run(CLIENT, *ping, SERVER_V4)
        assert (gateway.router["counters"]["fragments_made"] > 0) == (mtu == 1300)
        if mtu == 1500:
            assert " 0% packet loss" in net.run(CLIENT, *ping, SERVER_V6)
        else:  # the sender is told of the narrow link, and makes smaller fragments
            said = net.run(CLIENT, "ping", "-c2", "-i0.2", "-W5", "-s", "4000", SERVER_V6)
            assert "mtu 1300" in net.run(CLIENT, "ip", "-6", "route", "get", SERVER_V6)
            assert " 1 received" in said, said


def test_hosts_change_while_the_gateway_runs(net: Net, tmp_path: Path) -> None:
    with up(net, tmp_path, "router+firewall", "reachable_s = 1\n") as gateway:
        for host in (SERVER_V4, SERVER_V6):
            until_reached(net, host)
        # Another network card, of which it says nothing.
        net.ip(SERVER, "link", "set", "s0", "address", "02:00:00:00:77:77")
        for host in (SERVER_V4, SERVER_V6):
            until_reached(net, host)
        # A host that comes later, and one that was away.
        net.ip(SERVER, "addr", "add", "198.51.100.77/24", "dev", "s0")
        assert " 0% packet loss" in net.run(CLIENT, "ping", "-c1", "-W5", "198.51.100.77")
        net.ip(CLIENT, "link", "set", "c0", "down")
        net.ip(CLIENT, "link", "set", "c0", "up")
        for address in ADDRESSES[CLIENT]:
            net.ip(CLIENT, "addr", "replace", address, "dev", "c0")
        for version, own in zip(("-4", "-6"), GATEWAYS[CLIENT], strict=True):
            net.ip(CLIENT, version, "route", "replace", "default", "via", own)
        for host in (SERVER_V4, SERVER_V6):
            until_reached(net, host)
        # A host that is not there.
        said = net.run(CLIENT, "sh", "-c", "ping -c1 -W5 198.51.100.200 || true")
        assert "From 10.0.0.1" in said
        assert "Destination Host Unreachable" in said
        assert gateway.router["drops"]["resolving"] >= 3


def test_every_packet_is_accounted_for(net: Net, tmp_path: Path) -> None:
    with up(net, tmp_path, "router+firewall+nat") as gateway:
        net.run(CLIENT, "ping", "-c20", "-i0.01", "-W5", SERVER_V4)
        net.run(CLIENT, "ping", "-c20", "-i0.01", "-W5", SERVER_V6)
        for role, inner in ((CLIENT, "c0"), (SERVER, "s0")):
            net.ip(role, "link", "set", inner, "down")
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            report = gateway.report
            received, sent = (sum(port[key] for port in report["ports"]) for key in ("rx", "tx"))
            if received + report["originated"] == sent + sum(report["drops"].values()):
                return
            assert time.monotonic() < deadline, report


HAIRPIN = """
import socket, sys
first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
first.bind(("10.0.0.5", 5000))
second.bind(("10.0.0.6", 6000))
for one in (first, second):
    one.settimeout(10)
    one.sendto(b"x", ("198.51.100.9", 9))  # opens its mapping, which keeps the port
first.sendto(b"question", ("198.51.100.1", 6000))
said, sender = second.recvfrom(100)
print(said.decode(), *sender)
second.sendto(b"answer", sender)
said, sender = first.recvfrom(100)
print(said.decode(), *sender)
"""


def test_inside_host_is_reached_by_its_external_address(net: Net, tmp_path: Path) -> None:
    net.ip(CLIENT, "addr", "add", "10.0.0.6/24", "dev", "c0")
    services, others = CHAINS["router+firewall+nat"]
    text = configuration(services, others=f"{others}preserve_port = true\n")
    with run_manager(net, tmp_path, text):
        until_reached(net, SERVER_V4)
        said = net.run(CLIENT, sys.executable, "-c", HAIRPIN)
        assert said.split() == [
            *("question", "198.51.100.1", "5000"),
            *("answer", "198.51.100.1", "6000"),
        ]


VLANS = """
[gateway]
ports = ["lan", "wan"]
services = ["router", "firewall"]
[ports.lan]
uri = "af_packet:d0"
addresses = ["192.168.0.1/24"]
vlans = { 10 = { addresses = ["10.0.0.1/24", "2001:db8:1::1/64"] } }
[ports.wan]
uri = "af_packet:d1"
vlans = { 20 = { addresses = ["198.51.100.1/24", "2001:db8:2::1/64"] } }
[nfs.firewall]
"""


@pytest.mark.skipif(bool(NO_TAGS), reason=NO_TAGS or "tags can be had")
def test_vlans_are_routed(net: Net, tmp_path: Path) -> None:
    tags = str(Path(vlan_tags.__file__))
    for role, inner, tag in ((CLIENT, "c0", "10"), (SERVER, "s0", "20")):
        log = tmp_path / f"{role}.tags"
        tagger = net.start(role, sys.executable, tags, inner, tag, log=log)
        until_said(log, "ready", tagger)
    with run_manager(net, tmp_path, VLANS) as gateway:
        for host, address in ((SERVER_V4, SERVER_V4), (SERVER_V6, f"[{SERVER_V6}]")):
            assert " 0% packet loss" in net.run(CLIENT, "ping", "-c1", "-W5", host)
            download(net, tmp_path, address, DOWNLOAD_BYTES, CLIENT, SERVER)
        for own in GATEWAYS[CLIENT]:
            assert " 0% packet loss" in net.run(CLIENT, "ping", "-c1", "-W5", own)
        assert gateway.router["drops"].get("no_interface", 0) == 0


THIRD_PORT = """
[nfs.firewall]
[ports.dmz]
uri = "af_packet:d2"
addresses = ["192.0.2.1/28", "2001:db8:3::1/64"]
"""


def test_routes_lead_to_the_ports_of_other_chains(net: Net, tmp_path: Path) -> None:
    connect(net, OTHER, "z0", "d2")
    text = configuration(["router", "firewall"], others=THIRD_PORT, ports=("dmz",))
    with run_manager(net, tmp_path, text):
        for role in (CLIENT, SERVER):
            for address in ADDRESSES[OTHER]:
                host = address.split("/")[0]
                assert " 0% packet loss" in net.run(role, "ping", "-c3", "-i0.05", "-W5", host)
                host = f"[{host}]" if ":" in host else host
                download(net, tmp_path, host, DOWNLOAD_BYTES, role, OTHER)
        for address in ADDRESSES[CLIENT]:
            host = address.split("/")[0]
            assert " 0% packet loss" in net.run(OTHER, "ping", "-c3", "-i0.05", "-W5", host)
