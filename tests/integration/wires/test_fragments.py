"""Datagrams in fragments through router, firewall, NAT and load balancer.

The ends are the kernel's: what they put together must be what was sent, whatever the order of the
fragments. The firewall lets one port pass, so it must know the ports of each fragment.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_bed import (
    CLIENT,
    SERVER,
    SERVER_V4,
    SERVER_V6,
    Gateway,
    configuration,
    gateway_net,
    run_manager,
    until_said,
)
from namespaces import missing

MISSING = missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")

ENDS = str(Path(__file__).with_name("wire_ends.py"))
SERVICES = ["router", "firewall", "nat", "lb"]
VIP_V4, VIP_V6 = "198.51.100.80", "2001:db8:2::80"
NFS = f"""
[nfs.firewall.config]
default = "drop"
rules = [{{ action = "accept", protocol = "udp", dst_ports = 8002 }}]

[nfs.nat.config]
external = "198.51.100.1"
inside = ["10.0.0.0/24"]

[[nfs.lb.config.vips]]
address = "{VIP_V4}"
protocol = "udp"
port = 8002
backends = [{{ address = "{SERVER_V4}" }}]

[[nfs.lb.config.vips]]
address = "{VIP_V6}"
protocol = "udp"
port = 8002
backends = [{{ address = "{SERVER_V6}" }}]
"""
N_BYTES, N_FRAGMENTS, N_ASKED = "4000", 4, 10


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("fragments")
    (folder / "blob").write_bytes(b"")
    with gateway_net() as net, run_manager(net, folder, configuration(SERVICES, "", NFS)) as made:
        log = folder / "server.log"
        command = (sys.executable, "-P", ENDS, "serve", str(folder / "blob"))
        until_said(log, "ready", net.start(SERVER, *command, log=log))
        yield made


def report(gateway: Gateway) -> dict[str, Any]:
    status = json.loads(gateway.call("status", "--json"))
    told: dict[str, Any] = status.get("report", status)
    return told


def client(gateway: Gateway, *arguments: str) -> None:
    gateway.net.run(CLIENT, sys.executable, "-P", ENDS, *arguments, timeout=60)


@pytest.mark.parametrize("host", [SERVER_V4, SERVER_V6, VIP_V4, VIP_V6])
@pytest.mark.parametrize("command", ["ask", "pieces"])
def test_large_datagrams_are_answered(gateway: Gateway, command: str, host: str) -> None:
    before = report(gateway)["drops"]
    client(gateway, command, host, str(N_ASKED), N_BYTES)
    more = {name: n - before.get(name, 0) for name, n in report(gateway)["drops"].items()}
    n_twice = N_ASKED if command == "pieces" else 0
    assert more.pop("fragment_duplicate", 0) == n_twice
    assert not {
        name: n for name, n in more.items() if name.startswith("fragment") and n
    }  # "reassembled" is no loss


@pytest.mark.parametrize("host", [SERVER_V4, SERVER_V6])
def test_rules_see_the_ports_of_a_datagram(gateway: Gateway, host: str) -> None:
    before = report(gateway)["drops"].get("firewall.default", 0)
    client(gateway, "flood", host, "3", N_BYTES)
    deadline = time.monotonic() + 10
    while report(gateway)["drops"].get("firewall.default", 0) < before + 3:
        assert time.monotonic() < deadline
    # one by one, however many fragments each has
    assert report(gateway)["drops"]["firewall.default"] == before + 3


def test_all_fragments_are_accounted_for(gateway: Gateway) -> None:
    told = report(gateway)
    came = sum(port["rx"] for port in told["ports"]) + told["originated"]
    assert came == sum(port["tx"] for port in told["ports"]) + sum(told["drops"].values())
