"""The host behind a gateway's slow path: it has the same addresses, and speaks BGP."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_bed import (
    CLIENT,
    GATEWAY,
    GATEWAYS,
    READY_TIMEOUT_S,
    SERVER,
    SERVER_V4,
    Gateway,
    configuration,
    gateway_net,
    run_manager,
    until_said,
)
from namespaces import Net, missing

MISSING = missing("ping", "ss")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")

SERVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], 8000), family=family)
print("ready", flush=True)
while True:
    peer, address = server.accept()
    peer.sendall(address[0].encode())
    peer.close()
"""
FETCH = """
import socket, sys
with socket.create_connection((sys.argv[1], 8000), timeout=20) as peer:
    print(peer.makefile().read())
"""


@pytest.fixture
def net() -> Iterator[Net]:
    with gateway_net() as made:
        yield made


@pytest.fixture
def gateway(net: Net, tmp_path: Path) -> Iterator[Gateway]:
    text = configuration(
        ["router", "firewall"], "kernel_routes = true", "[nfs.firewall]", has_host=True
    )
    with run_manager(net, tmp_path, text) as made:
        yield made


def test_host_is_reached_at_the_addresses_and_reaches_others(
    gateway: Gateway, net: Net, tmp_path: Path
) -> None:
    for own, peer in zip(GATEWAYS[CLIENT], ("10.0.0.5", "2001:db8:1::5"), strict=True):
        log = tmp_path / "server.log"
        server = net.start(GATEWAY, sys.executable, "-c", SERVE, own, log=log)
        until_said(log, "ready", server)
        assert net.run(CLIENT, sys.executable, "-c", FETCH, own).strip() == peer
        net.stop(server)
    # The host is a host of both subnets, and has their neighbours answer itself.
    for host in (SERVER_V4, "2001:db8:2::9", "10.0.0.5"):
        assert " 0% packet loss" in net.run(GATEWAY, "ping", "-c1", "-W5", host)
    # The kernel answers no ARP at the interface of the port: one MAC address has the gateway's.
    said = net.run(CLIENT, "ip", "neigh", "show", GATEWAYS[CLIENT][0])
    tap = net.run(GATEWAY, "cat", "/sys/class/net/lan-host/address").strip()
    assert tap in said
    assert gateway.router["counters"]["to_host"] > 0


BGP = """
log stdout
router bgp {number}
 bgp router-id {own}
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor {peer} remote-as {other}
 neighbor {peer} timers connect 1
 address-family ipv4 unicast
  neighbor {peer} activate
{networks} exit-address-family
"""
TOLD = ("203.0.113.0/24", "203.0.113.64/26")
FRR = Path("/usr/lib/frr")


def start_frr(net: Net, role: str, folder: Path, text: str, *, has_zebra: bool) -> None:
    """Run FRR, which gives up root, in a namespace, with all its files in a folder."""
    folder.mkdir()
    shutil.chown(folder, "frr", "frr")
    (folder / "bgpd.conf").write_text(text, encoding="utf-8")
    (folder / "zebra.conf").write_text("log stdout\n", encoding="utf-8")
    for daemon in ("zebra", "bgpd") if has_zebra else ("bgpd",):
        options = ["--vty_socket", str(folder), "-P", "0"]
        options += ["-i", str(folder / f"{daemon}.pid"), "-z", str(folder / "zserv.api")]
        options += ["-f", str(folder / f"{daemon}.conf")]
        log = folder / f"{daemon}.log"
        net.start(role, str(FRR / daemon), *options, log=log)


@pytest.fixture
def frr_folder() -> Iterator[Path]:
    """A folder that other users reach; that of pytest they do not."""
    with tempfile.TemporaryDirectory(prefix="onvm-frr-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(not FRR.exists(), reason="not installed: frr")
def test_routes_of_bgp_are_followed(gateway: Gateway, net: Net, frr_folder: Path) -> None:
    del gateway
    own = GATEWAYS[SERVER][0]
    networks = "".join(f"  network {network}\n" for network in TOLD)
    for role, text in (
        (GATEWAY, BGP.format(own=own, peer=SERVER_V4, number=65001, other=65002, networks="")),
        (SERVER, BGP.format(own=SERVER_V4, peer=own, number=65002, other=65001, networks=networks)),
    ):
        start_frr(net, role, frr_folder / role, text, has_zebra=role == GATEWAY)
    net.ip(SERVER, "addr", "add", "203.0.113.5/32", "dev", "lo")
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not all(network in net.run(GATEWAY, "ip", "route") for network in TOLD):
        assert time.monotonic() < deadline, net.run(GATEWAY, "ip", "route")
        time.sleep(0.1)
    while " 0% packet loss" not in net.run(CLIENT, "sh", "-c", "ping -c1 -W1 203.0.113.5 || true"):
        assert time.monotonic() < deadline
