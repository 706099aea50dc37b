"""Real traffic: client - onvm up with the firewall - server, in network namespaces.

Namespaces, interfaces and processes are made here and removed again, also when a test fails; the
names carry the process ID, so that nobody else's are touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from namespaces import Net, download, missing, namespaces, onvm

DOWNLOAD_BYTES = 20_000_000
READY_TIMEOUT_S = 30

MISSING = missing("ping", "iperf3")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")


ADDRESSES = {"c": ("10.9.0.1/24", "fd00:9::1/64"), "s": ("10.9.0.2/24", "fd00:9::2/64")}


@pytest.fixture
def net() -> Iterator[Net]:
    with namespaces("cds") as made:
        yield made


def _add_veths(net: Net, mtu: int = 1500) -> None:
    for role, inner, outer in (("c", "c0", "d0"), ("s", "s0", "d1")):
        net.ip(
            role,
            "link",
            "add",
            inner,
            "type",
            "veth",
            "peer",
            "name",
            outer,
            "netns",
            net.space("d"),
        )
        # A veth leaves checksums to a NIC that is not there.
        net.run(role, "ethtool", "-K", inner, "tx", "off", "tso", "off", "gso", "off")
        net.run("d", "sysctl", "-qw", f"net.ipv6.conf.{outer}.disable_ipv6=1")
        net.ip("d", "link", "set", outer, "mtu", str(mtu), "up")
        _configure(net, role, inner, mtu)


def _configure(net: Net, role: str, interface: str, mtu: int = 1500) -> None:
    v4, v6 = ADDRESSES[role]
    net.ip(role, "link", "set", interface, "mtu", str(mtu))
    net.ip(role, "addr", "add", v4, "dev", interface)
    net.ip(role, "addr", "add", v6, "dev", interface, "nodad")
    net.ip(role, "link", "set", interface, "up")


@dataclass
class Manager:
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


def _up(net: Net, folder: Path, uris: Sequence[str]) -> Manager:
    config = folder / "onvm.toml"
    config.write_text(
        f'[ports.client]\nuri = "{uris[0]}"\n[ports.server]\nuri = "{uris[1]}"\n'
        '[nfs.firewall]\n[chains.main]\nin = "client"\nout = "server"\nservices = ["firewall"]\n',
        encoding="utf-8",
    )
    log = folder / "manager.log"
    process = net.start(
        "d",
        *onvm("up", "-f", str(config)),
        log=log,
        environment={"ONVM_RUNTIME_DIR": str(folder)},
    )
    deadline = time.monotonic() + READY_TIMEOUT_S
    while "is ready" not in log.read_text(encoding="utf-8"):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)
    return Manager(net, folder, process)


@pytest.fixture(params=["af_packet", "af_xdp", "tap"])
def manager(request: pytest.FixtureRequest, net: Net, tmp_path: Path) -> Iterator[Manager]:
    kind = request.param
    if kind == "tap":
        up = _up(net, tmp_path, ("tap:t0", "tap:t1"))
        # The interfaces themselves go to the end hosts.
        for role, interface in (("c", "t0"), ("s", "t1")):
            net.ip("d", "link", "set", interface, "netns", net.space(role))
            _configure(net, role, interface)
    else:
        _add_veths(net)
        up = _up(net, tmp_path, (f"{kind}:d0", f"{kind}:d1"))
    try:
        yield up
    finally:
        net.stop(up.process)
        if kind == "af_xdp":  # a killed manager would leave its program behind
            for interface in ("d0", "d1"):
                net.ip("d", "link", "set", interface, "xdp", "off")


def _wait_reachable(net: Net) -> None:
    for target in ("10.9.0.2", "fd00:9::2"):
        deadline = time.monotonic() + 10
        while True:
            done = subprocess.run(
                ["ip", "netns", "exec", net.space("c"), "ping", "-c1", "-W1", target],
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                break
            assert time.monotonic() < deadline, f"{target} does not answer"


def _iperf(net: Net, folder: Path, host: str, *options: str) -> float:
    server = net.start("s", "iperf3", "-s", "-1", log=folder / "iperf.log")
    time.sleep(0.3)
    text = net.run("c", "iperf3", "-c", host, "-t", "1", "-J", *options, timeout=20)
    net.stop(server)
    return float(json.loads(text)["end"]["sum_received"]["bits_per_second"]) / 1e6


def test_ping_download_and_iperf(manager: Manager, net: Net, tmp_path: Path) -> None:
    _wait_reachable(net)
    for host, url_host in (("10.9.0.2", "10.9.0.2"), ("fd00:9::2", "[fd00:9::2]")):
        assert " 0% packet loss" in net.run("c", "ping", "-c5", "-i0.05", host)
        download(net, tmp_path, url_host, DOWNLOAD_BYTES, "c", "s")
        assert _iperf(net, tmp_path, host) > 1  # Mbit/s: it flows; how fast is a benchmark's
        assert _iperf(net, tmp_path, host, "-R") > 1
    status = json.loads(manager.call("status", "--json"))
    (firewall,) = status["report"]["nfs"] if "report" in status else status["nfs"]
    assert firewall["service"] == "firewall"
    assert firewall["rx"] > 2 * DOWNLOAD_BYTES / 1500
    flows = json.loads(manager.call("flow", "list", "--json"))
    assert flows
    manager.call("down")
    manager.process.wait(15)


@pytest.fixture
def jumbo_manager(net: Net, tmp_path: Path) -> Iterator[Manager]:
    _add_veths(net, mtu=9000)
    uris = ("af_packet:d0?mtu=9000", "af_packet:d1?mtu=9000")
    up = _up(net, tmp_path, uris)
    try:
        yield up
    finally:
        net.stop(up.process)


def test_jumbo_frames_pass_whole(jumbo_manager: Manager, net: Net, tmp_path: Path) -> None:
    _wait_reachable(net)
    for host, url_host, payload in (
        ("10.9.0.2", "10.9.0.2", 9000 - 28),
        ("fd00:9::2", "[fd00:9::2]", 9000 - 48),
    ):
        # -M do: nobody may cut them
        pings = net.run("c", "ping", "-c5", "-i0.05", "-M", "do", "-s", str(payload), host)
        assert " 0% packet loss" in pings
        download(net, tmp_path, url_host, DOWNLOAD_BYTES, "c", "s")
    status = json.loads(jumbo_manager.call("status", "--json"))
    ports = {port["name"]: port for port in status.get("report", status)["ports"]}
    assert ports["server"]["rx_bytes"] / ports["server"]["rx"] > 4000, "not in jumbo frames"
    jumbo_manager.call("down")
    jumbo_manager.process.wait(15)
