"""Real traffic through a chain over three hosts: client - a - b - d - server, in namespaces.

The hosts' data network is a bridge with an MTU of 1500, so whole frames of the clients do not fit
into it: the outer packets go in fragments.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cluster_hosts import Managers, chain
from namespaces import Net, download, missing, namespaces, onvm

if TYPE_CHECKING:
    from up_host import Host

MISSING = missing("ping")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")

DOWNLOAD_BYTES = 3_000_000
READY_TIMEOUT_S = 40
HOSTS = ("a", "b", "d")
DATA = {
    4: {name: f"172.31.0.{index + 1}" for index, name in enumerate(HOSTS)},
    6: {name: f"fd31::{index + 1}" for index, name in enumerate(HOSTS)},
}
PLANE = "[dataplane]\nbuffers = 4096\nflows = 65536\n"


@pytest.fixture
def net() -> Iterator[Net]:
    with namespaces(["c", *HOSTS, "s", "n"]) as made:
        _add_bridge(made)
        for role, address, port in (("c", 1, "a"), ("s", 2, "d")):
            _add_end(made, role, address, port)
        yield made


def _add_bridge(net: Net) -> None:
    net.ip("n", "link", "add", "br0", "type", "bridge")
    net.ip("n", "link", "set", "br0", "up")
    for name in HOSTS:
        net.ip(
            "n",
            "link",
            "add",
            f"to-{name}",
            "type",
            "veth",
            "peer",
            "name",
            "data0",
            "netns",
            net.space(name),
        )
        net.ip("n", "link", "set", f"to-{name}", "master", "br0", "up")
        net.ip(name, "addr", "add", f"{DATA[4][name]}/24", "dev", "data0")
        net.ip(name, "addr", "add", f"{DATA[6][name]}/64", "dev", "data0", "nodad")
        net.ip(name, "link", "set", "data0", "up")


def _add_end(net: Net, role: str, number: int, host: str) -> None:
    """Connect a client or server to a host that carries its packets, not its addresses."""
    net.ip(
        role, "link", "add", "e0", "type", "veth", "peer", "name", "edge0", "netns", net.space(host)
    )
    # A veth leaves checksums to a NIC that is not there.
    net.run(role, "ethtool", "-K", "e0", "tx", "off", "tso", "off", "gso", "off")
    net.run(host, "sysctl", "-qw", "net.ipv6.conf.edge0.disable_ipv6=1")
    net.ip(host, "link", "set", "edge0", "up")
    net.ip(role, "addr", "add", f"10.9.0.{number}/24", "dev", "e0")
    net.ip(role, "addr", "add", f"fd00:9::{number}/64", "dev", "e0", "nodad")
    net.ip(role, "link", "set", "e0", "up")


def _start(managers: Managers, net: Net) -> None:
    for name, text in managers.configs.items():
        config = managers.host.folder / f"{name}.toml"
        config.write_text(text)
        log = managers.host.folder / f"{name}.log"
        process = net.start(
            name,
            *onvm("up", "--name", name, "-f", str(config)),
            log=log,
            environment=managers.host.environment,
        )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while "is ready" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def _fragments_made(net: Net, host: str, version: int) -> int:
    if version == 6:
        text = net.run(host, "cat", "/proc/net/snmp6")
        return int(dict(line.split() for line in text.splitlines())["Ip6FragCreates"])
    names, values = net.run(host, "cat", "/proc/net/snmp").splitlines()[:2]
    return int(dict(zip(names.split(), values.split(), strict=True))["FragCreates"])


@pytest.mark.parametrize("version", [4, 6])
def test_ping_and_download_over_three_hosts(
    net: Net, host: Host, version: int, tmp_path: Path
) -> None:
    edge = '[ports.{0}]\nuri = "af_packet:edge0"\n'
    # The firewall wants whole datagrams: where packets come in, and behind a peer.
    first, second = ("firewall", "hop") if version == 4 else ("hop", "firewall")
    managers = Managers(
        host,
        {
            "a": PLANE + edge.format("clients") + f"[nfs.{first}]\n",
            "b": PLANE + f"[nfs.{second}]\n",
            "d": PLANE + edge.format("servers") + "[nfs.skip]\n",
        },
        DATA[version],
        [chain("a:clients", "d:servers", first, second, "skip")],
    )
    _start(managers, net)
    assert not any(reply["missing"] for reply in managers.apply().values())
    net.run("c", "ping", "-c1", "-w20", "10.9.0.2")
    net.run("c", "ping", "-c1", "-w20", "fd00:9::2")
    before = _fragments_made(net, "a", version)
    # Whole frames, which may not be fragmented themselves.
    for target, size in (("10.9.0.2", 1472), ("fd00:9::2", 1452)):
        shown = net.run("c", "ping", "-c5", "-i0.05", "-s", str(size), "-M", "do", target)
        assert " 0% packet loss" in shown
    # Fragments of larger packets; those of IPv4 the kernel joins before af_packet hands them on.
    shown = net.run("c", "ping", "-c5", "-i0.05", "-s", "8000", "fd00:9::2")
    assert " 0% packet loss" in shown
    assert _fragments_made(net, "a", version) > before
    download(net, tmp_path, "10.9.0.2", DOWNLOAD_BYTES, "c", "s")
    download(net, tmp_path, "[fd00:9::2]", DOWNLOAD_BYTES, "c", "s")
    reports = managers.down()
    for name in HOSTS:
        (one,) = reports[name]["nfs"]
        assert one["rx"] > 2 * DOWNLOAD_BYTES / 1500
        assert not one["drops"]
