"""Merged and partial packets that must be as on the wire: for ports that cannot send them, and for
NFs that ask for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from namespaces import Net, missing, namespaces
from python_path import python_path

scapy = pytest.importorskip("scapy.all")

MISSING = missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")
PAYLOAD, SEGMENT = 40_000, 1_200
N_SEGMENTS = -(-PAYLOAD // SEGMENT)
DATA = bytes(i % 251 for i in range(PAYLOAD))
SENDER = f"""
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.setsockopt(socket.SOL_UDP, 103, {SEGMENT})  # UDP_SEGMENT
    udp.sendto(bytes(i % 251 for i in range({PAYLOAD})), ("10.9.0.2", 9))
"""
# It answers each line with its counters.
MANAGER = """
import json, select, sys
from pathlib import Path
from onvm_core.dataplane.values import DataplaneSettings, PacketPort, PcapPort
from onvm_core.manager.manager import Manager

folder = Path(sys.argv[1])
with Manager(folder, DataplaneSettings(), [0]) as manager:
    plane = manager.plane
    near = plane.open_port("in", PacketPort(interface="d0"))
    far = plane.open_port("out", PcapPort(tx_path=str(folder / "out.pcap")))
    manager.set_chain(1, near, far, ["w"], is_bidirectional=False)
    print(json.dumps(str(manager.attach_path)), flush=True)
    while True:
        manager.poll(0.01)
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                break
            hosts = [host for host in manager.registry.hosts if host.state.value == "active"]
            total = plane.read_plane()
            print(json.dumps({
                "ready": len(hosts),
                "nf": sum(plane.read_host(host.slot).rx[0] for host in hosts),
                "rx": plane.read_port(near).rx,
                "tx": plane.read_port(far).tx,
                "originated": total.originated,
                "drops": sum(total.drops.values()),
            }), flush=True)
"""
NF = """
from onvm_sdk import NetworkFunction

class Any(NetworkFunction):
    def process_packet(self, pkt):
        return None

class WireSized(Any):
    manifest = {"wire_sized": True}
"""


@pytest.fixture
def net() -> Iterator[Net]:
    with namespaces(("c", "d")) as made:
        made.ip("c", "link", "add", "c0", "type", "veth", "peer", "name", "d0")
        made.ip("c", "link", "set", "d0", "netns", made.space("d"))
        for role, interface in (("c", "c0"), ("d", "d0")):
            made.run(role, "sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1")
            made.ip(role, "link", "set", interface, "up")
        made.ip("c", "addr", "add", "10.9.0.1/24", "dev", "c0")
        made.ip("c", "neigh", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:02", "dev", "c0")
        yield made


@pytest.mark.parametrize("nf", ["Any", "WireSized"])
def test_merged_packets_are_cut(net: Net, tmp_path: Path, nf: str) -> None:
    (tmp_path / "wire_nfs.py").write_text(NF)
    command = ["ip", "netns", "exec", net.space("d"), sys.executable, "-P", "-c", MANAGER]
    with subprocess.Popen(
        [*command, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as manager:
        assert manager.stdin is not None
        assert manager.stdout is not None
        attach = json.loads(manager.stdout.readline())
        options = ("--service", "w", "--socket", attach, "--nf", f"wire_nfs:{nf}")
        host = subprocess.Popen(
            [sys.executable, "-P", "-m", "onvm_sdk.runtime", *options],
            env={**os.environ, **python_path(tmp_path)},
        )

        def counts() -> dict[str, Any]:
            assert manager.stdin is not None
            assert manager.stdout is not None
            manager.stdin.write("\n")
            manager.stdin.flush()
            counters: dict[str, Any] = json.loads(manager.stdout.readline())
            return counters

        try:
            _until(lambda: counts()["ready"] == 1)
            net.run("c", sys.executable, "-c", SENDER)
            _until(lambda: counts()["tx"] >= N_SEGMENTS)
            counted = counts()
        finally:
            manager.stdin.close()
            host.terminate()
            host.wait(10)
        assert manager.wait(20) == 0
    assert counted == {
        "ready": 1,
        "nf": N_SEGMENTS if nf == "WireSized" else 1,
        "rx": 1,
        "tx": N_SEGMENTS,
        "originated": N_SEGMENTS - 1,
        "drops": 0,
    }
    payload = b""
    for frame in scapy.rdpcap(str(tmp_path / "out.pcap")):
        given = scapy.Ether(bytes(frame))
        right = given.copy()
        del right["UDP"].chksum, right["IP"].chksum, right["UDP"].len, right["IP"].len
        assert bytes(right) == bytes(given)
        payload += bytes(given["UDP"].payload)
    assert payload == DATA


def _until(is_true: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)
