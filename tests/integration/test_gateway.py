"""A gateway: client and server in different subnets, the router (and a chain) between them.

Both ends have a default route and no static neighbour; all interfaces are at their default
settings.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from namespaces import Net, download, missing, namespaces, onvm

MISSING = missing("ping")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")

READY_TIMEOUT_S = 30
DOWNLOAD_BYTES = 20_000_000
CLIENT, GATEWAY, SERVER = "c", "d", "s"
ADDRESSES = {
    CLIENT: ("10.0.0.5/24", "2001:db8:1::5/64"),
    SERVER: ("198.51.100.9/24", "2001:db8:2::9/64"),
}
GATEWAYS = {
    CLIENT: ("10.0.0.1", "2001:db8:1::1"),
    SERVER: ("198.51.100.1", "2001:db8:2::1"),
}
SERVER_V4, SERVER_V6 = "198.51.100.9", "2001:db8:2::9"
ROUTER = """
[interfaces.lan]
addresses = ["10.0.0.1/24", "2001:db8:1::1/64"]
[interfaces.wan]
addresses = ["198.51.100.1/24", "2001:db8:2::1/64"]
"""


@dataclass
class Gateway:
    net: Net
    folder: Path
    process: subprocess.Popen[bytes]

    def call(self, *arguments: str) -> str:
        done = subprocess.run(
            onvm(*arguments),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "ONVM_RUNTIME_DIR": str(self.folder)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def router(self) -> dict[str, Any]:
        status = json.loads(self.call("status", "--json"))
        nfs = status.get("report", status)["nfs"]
        return next(nf for nf in nfs if nf["service"] == "router")


@pytest.fixture
def net() -> Iterator[Net]:
    with namespaces((CLIENT, GATEWAY, SERVER)) as made:
        for role, inner, outer in ((CLIENT, "c0", "d0"), (SERVER, "s0", "d1")):
            peer = ("peer", "name", outer, "netns", made.space(GATEWAY))
            made.ip(role, "link", "add", inner, "type", "veth", *peer)
            made.run(GATEWAY, "sysctl", "-qw", f"net.ipv6.conf.{outer}.disable_ipv6=1")
            made.ip(GATEWAY, "link", "set", outer, "up")
            made.ip(role, "link", "set", inner, "up")
            for address in ADDRESSES[role]:
                made.ip(role, "addr", "add", address, "dev", inner)
            for version, gateway in zip(("-4", "-6"), GATEWAYS[role], strict=True):
                made.ip(role, version, "route", "add", "default", "via", gateway)
        yield made


def start(net: Net, folder: Path, services: list[str], router: str, others: str = "") -> Gateway:
    (folder / "router.toml").write_text(router, encoding="utf-8")
    config = folder / "onvm.toml"
    config.write_text(
        f"""
[ports.lan]
uri = "af_packet:d0"
[ports.wan]
uri = "af_packet:d1"
[nfs.router]
config = "router.toml"
{others}
[chains.gateway]
in = "lan"
out = "wan"
services = {json.dumps(services)}
""",
        encoding="utf-8",
    )
    log = folder / "manager.log"
    process = net.start(
        GATEWAY,
        *onvm("up", "-f", str(config)),
        log=log,
        environment={"ONVM_RUNTIME_DIR": str(folder)},
    )
    deadline = time.monotonic() + READY_TIMEOUT_S
    while "is ready" not in log.read_text(encoding="utf-8"):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)
    return Gateway(net, folder, process)


CHAINS = {
    "router": (["router"], "both_ends = false\n", ""),
    "router+firewall": (["router", "firewall", "router"], "", "[nfs.firewall]\n"),
}


@pytest.fixture(params=CHAINS)
def gateway(request: pytest.FixtureRequest, net: Net, tmp_path: Path) -> Iterator[Gateway]:
    services, settings, others = CHAINS[request.param]
    made = start(net, tmp_path, services, settings + ROUTER, others)
    try:
        yield made
    finally:
        net.stop(made.process)


def test_packets_pass_between_subnets(gateway: Gateway, net: Net, tmp_path: Path) -> None:
    # The first packet of all must arrive: it waits for the neighbour.
    for host in (SERVER_V4, SERVER_V6):
        assert " 0% packet loss" in net.run(CLIENT, "ping", "-c1", "-W5", host)
    for host in (*GATEWAYS[CLIENT], *GATEWAYS[SERVER], SERVER_V4, SERVER_V6):
        assert " 0% packet loss" in net.run(CLIENT, "ping", "-c3", "-i0.05", "-W5", host)
    for host in (SERVER_V4, f"[{SERVER_V6}]"):
        download(net, tmp_path, host, DOWNLOAD_BYTES, CLIENT, SERVER)
