"""Interfaces as they are: checks in namespaces, and settings that go back when a port closes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from namespaces import Net, download, missing, namespaces, onvm

DOWNLOAD_BYTES = 5_000_000
TIMEOUT_S = 30

MISSING = missing("ping", "setpriv")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")

ADDRESSES = {"c": ("10.9.0.1/24", "fd00:9::1/64"), "s": ("10.9.0.2/24", "fd00:9::2/64")}


@pytest.fixture
def net() -> Iterator[Net]:
    with namespaces("cds") as made:
        yield made


@pytest.fixture
def wires(net: Net) -> Net:
    """c0 - d0 and s0 - d1, with the kernel's own offloads."""
    for role, inner, outer in (("c", "c0", "d0"), ("s", "s0", "d1")):
        there = ("peer", "name", outer, "netns", net.space("d"))
        net.ip(role, "link", "add", inner, "type", "veth", *there)
        net.run("d", "sysctl", "-qw", f"net.ipv6.conf.{outer}.disable_ipv6=1")
        net.ip("d", "link", "set", outer, "up")
        for address in ADDRESSES[role]:
            net.ip(role, "addr", "add", address, "dev", inner)
        net.ip(role, "link", "set", inner, "up")
    return net


class Managers:
    """Managers in the namespace d, one after the other."""

    def __init__(self, net: Net, folder: Path) -> None:
        self.net = net
        self.folder = folder
        self.log = folder / "manager.log"
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, near: str, far: str) -> Path:
        file = self.folder / "onvm.toml"
        file.write_text(
            f'[dataplane]\nbuffer_size = 9216\n[ports.client]\nuri = "{near}"\n'
            f'[ports.server]\nuri = "{far}"\n[nfs.firewall]\n'
            '[chains.main]\nin = "client"\nout = "server"\nservices = ["firewall"]\n',
            encoding="utf-8",
        )
        return file

    def up(self, near: str, far: str) -> str:
        """Start one; what it has printed when it is ready."""
        command = onvm("up", "-f", str(self.configure(near, far)))
        self.process = self.net.start(
            "d", *command, log=self.log, environment={"ONVM_RUNTIME_DIR": str(self.folder)}
        )
        process = self.process
        wait(lambda: "is ready" in self.said() or process.poll() is not None)
        assert process.poll() is None, self.said()
        return self.said()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def down(self) -> None:
        assert self.process is not None
        assert self.call("down").returncode == 0
        self.process.wait(TIMEOUT_S)

    def kill(self) -> None:
        """As kill -9 does; the NF goes as well."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(TIMEOUT_S)

    def call(self, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", self.net.space("d"), *prefix, *onvm(*arguments)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "ONVM_RUNTIME_DIR": str(self.folder)},
        )

    def notes(self) -> list[Path]:
        return list((self.folder / ".interfaces").glob("*"))


@pytest.fixture
def managers(net: Net, tmp_path: Path) -> Managers:
    return Managers(net, tmp_path)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def state(net: Net, *interfaces: str) -> dict[str, str]:
    """All that a port may change."""
    return {
        name: net.run("d", "ip", "link", "show", name) + net.run("d", "ethtool", "-k", name)
        for name in interfaces
    }


def answers(net: Net, host: str) -> bool:
    ping = ["ip", "netns", "exec", net.space("c"), "ping", "-c1", "-W1", host]
    return subprocess.run(ping, capture_output=True, check=False).returncode == 0


def reach(net: Net, *hosts: str) -> None:
    wait(lambda: all(answers(net, host) for host in hosts))


def findings(net: Net, *names: str) -> dict[str, list[dict[str, Any]]]:
    reports = json.loads(net.run("d", *onvm("doctor", *names, "--json")))
    return {report["name"]: report["findings"] for report in reports}


def fixes(net: Net, name: str, port: str) -> list[str]:
    return [one["fix"] for one in findings(net, name)[name] if port in one["ports"]]


def test_doctor_finds_what_the_kernel_has(wires: Net) -> None:
    net = wires
    assert findings(net, "d0") == {
        "d0": [
            {
                "severity": "warning",
                "ports": ["af_xdp"],
                "text": "the other end of d0 (c0) leaves work to a card that is not there, so its "
                "TCP and UDP packets are wrong",
                "fix": f"ip netns exec {net.space('c')} ethtool -K c0 tx off tso off gso off "
                "txvlan off tx-vlan-stag-hw-insert off",
            }
        ]
    }
    blind = ("setpriv", "--bounding-set=-sys_admin")
    lines = net.run("d", *blind, *onvm("doctor", "d0")).splitlines()
    where = f"ip netns exec {net.space('c')}"
    assert f"  other end   unknown ({where})" in lines
    assert f"    {where} ethtool -K PEER tx off tso off gso off txvlan off" in lines
    for fix in fixes(net, "d0", "af_xdp"):
        subprocess.run(fix.split(), check=True)
    assert findings(net, "d0") == {"d0": []}

    net.ip("c", "link", "set", "c0", "mtu", "1400")
    assert fixes(net, "d0", "af_packet")[0].endswith("ip link set dev c0 mtu 1500")
    net.ip("c", "link", "set", "c0", "mtu", "1500", "down")
    assert fixes(net, "d0", "af_packet")[0].endswith("ip link set dev c0 up")
    net.ip("c", "link", "set", "c0", "up")

    net.ip("d", "addr", "add", "10.0.0.1/24", "dev", "d1")
    net.run("d", "sysctl", "-qw", "net.ipv4.ip_forward=1")
    (fix,) = fixes(net, "d1", "af_packet")
    net.run("d", *fix.split())
    (found,) = (one for one in findings(net, "d1")["d1"] if "af_packet" in one["ports"])
    assert found["severity"] == "note"
    net.ip("d", "addr", "flush", "dev", "d1")
    net.ip("d", "link", "add", "br0", "type", "bridge")
    net.ip("d", "link", "set", "d1", "master", "br0")
    assert fixes(net, "d1", "af_packet") == ["ip link set dev d1 nomaster"]
    assert "is a bridge" in findings(net, "br0")["br0"][-1]["text"]

    lines = net.run("d", *onvm("doctor", "d0", "d1")).splitlines()
    assert "  member of   br0 (bridge)" in lines
    assert "    ip link set dev d1 nomaster" in lines
    assert max(len(line) for line in lines if not line.startswith("    ")) <= 80
    listed = json.loads(net.run("d", *onvm("doctor", "--json")))
    assert "veth, up, MTU 1500, member of br0 (bridge)" in [
        one["found"] for one in listed if one["subject"] == "interface d1"
    ]


def test_queues_that_pass_by_an_xdp_socket_are_found(net: Net) -> None:
    pair = ("type", "veth", "peer", "name", "q1")
    net.ip("d", "link", "add", "q0", "numrxqueues", "3", "numtxqueues", "3", *pair)
    for name in ("q0", "q1"):
        net.ip("d", "link", "set", name, "up")
    (found,) = findings(net, "q0")["q0"]
    assert "q0 has 3 receive queues, and the port takes packets of 1" in found["text"]
    assert found["ports"] == ["af_xdp"]
    net.run("d", *found["fix"].split())
    assert findings(net, "q0") == {"q0": []}


def test_ports_that_cannot_work_are_refused_with_the_line_that_helps(
    wires: Net, managers: Managers
) -> None:
    net = wires
    net.ip("d", "link", "set", "d1", "down")
    file = managers.configure("af_packet:d0", "af_packet:d1")
    place = f"{file}: ports.server.uri: 'af_packet:d1': "
    wanted = f"error: {place}expected an interface that is up; run: ip link set dev d1 up\n"
    for arguments in (("up", "--check", "-f", str(file)), ("up", "-f", str(file))):
        done = managers.call(*arguments)
        assert (done.returncode, done.stderr) == (2, wanted)
    done = managers.call("run", "--in", "af_packet:d0", "--out", "af_packet:d7", "--chain", "")
    assert done.returncode == 2
    assert "--out: 'af_packet:d7': expected the name of a network interface (d1, d0, lo)" in (
        done.stderr
    )
    net.ip("d", "link", "set", "d1", "up")
    done = managers.call("up", "--check", "-f", str(file))
    # A host without cgroups gets one warning, about limits, and that is all.
    limits = "warning: limits of launcher 'process': "
    others = [line for line in done.stderr.splitlines() if not line.startswith(limits)]
    assert (done.returncode, others) == (0, [])
    assert done.stderr.count("\n") <= 1

    without = ("setpriv", "--bounding-set=-net_raw")
    done = managers.call("up", "--check", "-f", str(file), prefix=without)
    assert done.returncode == 2
    assert "expected the capability CAP_NET_RAW (" in done.stderr
    file = managers.configure("af_xdp:d0?mtu=3000", "af_xdp:d1")
    done = managers.call("up", "--check", "-f", str(file))
    assert done.returncode == 2
    assert "'af_xdp:d0?mtu=3000': expected an MTU of at most 1770" in done.stderr


def test_tcp_over_xdp_sockets_after_the_printed_lines(
    wires: Net, managers: Managers, tmp_path: Path
) -> None:
    net = wires
    before = state(net, "d0", "d1")
    said = managers.up("af_xdp:d0", "af_xdp:d1")
    commands = re.findall(r"run: (ip netns exec .*)", said)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(command.split(), check=True)
    assert state(net, "d0", "d1") != before
    reach(net, "10.9.0.2", "fd00:9::2")
    for host in ("10.9.0.2", "[fd00:9::2]"):
        download(net, tmp_path, host, DOWNLOAD_BYTES, "c", "s")
    status = json.loads(managers.call("status", "--json").stdout)
    assert not [line for line in status["warnings"] if line.startswith("ports.")]
    net.ip("d", "link", "set", "d0", "down")
    status = json.loads(managers.call("status", "--json").stdout)
    assert [line for line in status["warnings"] if line.startswith("ports.")] == [
        "ports.client.uri: 'af_xdp:d0': expected an interface that is up; "
        "run: ip link set dev d0 up"
    ]
    net.ip("d", "link", "set", "d0", "up")
    managers.down()
    assert state(net, "d0", "d1") == before
    assert managers.notes() == []


def test_packets_too_large_for_a_frame_are_counted(wires: Net, managers: Managers) -> None:
    net = wires
    for role, name in (("c", "c0"), ("d", "d0"), ("d", "d1"), ("s", "s0")):
        net.ip(role, "link", "set", name, "mtu", "2000")
    said = managers.up("af_xdp:d0", "af_xdp:d1")
    assert "the MTU of d0 is 2000: packets of more than 1770 bytes do not fit XDP frames" in said
    reach(net, "10.9.0.2")
    ping = ["ip", "netns", "exec", net.space("c"), "ping", "-c3", "-i0.1", "-W1", "-Mdo"]
    for size, status in ((1770, 0), (1900, 1)):
        done = subprocess.run(
            [*ping, f"-s{size - 28}", "10.9.0.2"], capture_output=True, check=False
        )
        assert done.returncode == status
    report = json.loads(managers.call("status", "--json").stdout)["report"]
    assert report["drops"]["rx_missed"] == 3
    managers.down()


def test_next_start_restores_what_a_killed_manager_has_left(wires: Net, managers: Managers) -> None:
    net = wires
    before = state(net, "d0", "d1")
    managers.up("af_xdp:d0", "af_packet:d1?mtu=4000")
    reach(net, "10.9.0.2")
    managers.kill()
    assert state(net, "d0", "d1") != before
    assert len(managers.notes()) == 2
    one_packet = onvm("run", "--in", "null:?count=1", "--out", "null:", "--chain", "")
    net.run("c", "env", f"ONVM_RUNTIME_DIR={managers.folder}", *one_packet)
    assert len(managers.notes()) == 2, "of another namespace"
    done = managers.call("run", "--in", "null:?count=1", "--out", "null:", "--chain", "")
    assert done.returncode == 0, done.stderr
    assert state(net, "d0", "d1") == before
    assert managers.notes() == []
    managers.up("null:?count=1", "null:")  # takes over the NF of the killed one
    managers.down()


def test_manager_killed_while_it_opens_a_port_leaves_nothing(
    wires: Net, managers: Managers
) -> None:
    net = wires
    before = state(net, "d0")
    opening = (
        "import os, pathlib, sys\n"
        "from onvm_core.interfaces.settings import KeptSettings\n"
        "from onvm_core.interfaces.use import InterfaceUse\n"
        "KeptSettings(pathlib.Path(sys.argv[1])).keep('d0', InterfaceUse.FRAMES)\n"
        "os.system('ip link set d0 mtu 1400 promisc on')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    script = managers.folder / "opening.py"
    script.write_text(opening, encoding="utf-8")
    folder = str(managers.folder / ".interfaces")
    net.start("d", sys.executable, "-P", str(script), folder, log=managers.log).wait(TIMEOUT_S)
    assert state(net, "d0") != before
    assert len(managers.notes()) == 1
    done = managers.call("run", "--in", "null:?count=1", "--out", "null:", "--chain", "")
    assert done.returncode == 0, done.stderr
    assert state(net, "d0") == before
    assert managers.notes() == []


def test_other_end_in_the_same_namespace_is_set_and_restored(net: Net, managers: Managers) -> None:
    names = ("v0", "v1")
    net.ip("d", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    for name in names:
        net.run("d", "sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
        net.ip("d", "link", "set", name, "up")
    before = state(net, *names)
    said = managers.up("af_xdp:v0", "null:")
    assert "ports.client" not in said
    during = state(net, *names)
    assert "rx-vlan-offload: off" in during["v0"]
    for feature in ("tx-checksumming", "tcp-segmentation-offload", "tx-vlan-offload"):
        assert f"{feature}: off" in during["v1"]
        assert f"{feature}: on" in before["v1"]
    net.run("d", "ethtool", "-K", "v1", "tx", "on")  # of a user: stays
    managers.down()
    assert state(net, *names) == before


def test_ipv6_goes_on_when_managers_with_and_without_mtu_follow_each_other(
    wires: Net, managers: Managers
) -> None:
    net = wires
    before = state(net, "d0", "d1")
    for mtu in ("", "?mtu=9000", "", "?mtu=1280"):
        managers.up(f"af_packet:d0{mtu}", f"af_packet:d1{mtu}")
        reach(net, "10.9.0.2", "fd00:9::2")
        shown = net.run("d", "ip", "link", "show", "d0")
        assert f"mtu {mtu.partition('=')[2] or 1500} " in shown
        managers.down()
        assert state(net, "d0", "d1") == before


def test_setting_that_a_user_changes_meanwhile_stays(wires: Net, managers: Managers) -> None:
    net = wires
    managers.up("af_packet:d0?mtu=4000", "af_packet:d1?mtu=4000")
    net.ip("d", "link", "set", "d0", "mtu", "3000")
    managers.down()
    assert " mtu 3000 " in net.run("d", "ip", "link", "show", "d0")
    assert " mtu 1500 " in net.run("d", "ip", "link", "show", "d1")
