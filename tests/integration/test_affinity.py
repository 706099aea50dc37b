"""Flows meet the instance that knows them: for as long as it knows them, and all of an address.

Each chain leads between two taps, so that a test can send and receive when it likes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from scenario import run

for needed in ("onvm_nf_firewall", "onvm_nf_nat", "onvm_nf_lb"):
    pytest.importorskip(needed)
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and taps"
)

BED = """
import os, socket, subprocess
from onvm_core.dataplane.values import TapPort
from ipaddress import ip_address
from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import tcp, udp

SYN, ACK, PSH = 2, 16, 8
processes = []

class Line:
    def __init__(self, name):
        interface = f"ov{os.getpid()}{name}"
        self.port = plane.open_port(name, TapPort(interface=interface))
        Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").write_text("1")
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
        self.socket.bind((interface, 0))
        self.socket.settimeout(0.01)

    def send(self, frame):
        self.socket.send(frame)

    def take(self):
        "The next packet that leaves here: (source, port, destination, port)."
        found = []
        def has_come():
            try:
                frame, address = self.socket.recvfrom(4096)
            except TimeoutError:
                return False
            if address[2] != socket.PACKET_OUTGOING:
                h = read_headers(frame)
                ends = str(ip_address(h.src)), h.src_port, str(ip_address(h.dst)), h.dst_port
                found.append(ends)
            return bool(found)
        until(has_come, 5)
        return found[0]

def attach(name, number, config):
    before = len(active())
    file = directory / f"{name}.toml"
    file.write_text(config)
    processes.append(subprocess.Popen([
        sys.executable, "-P", "-m", "onvm_sdk.runtime", "--socket", str(manager.attach_path),
        "--nf", name, "--instance", f"{name}-{number}", "--config", f"{name}={file}",
        "--leave-with-manager",
    ]))
    until(lambda: len(active()) > before)

def active():
    return [host for host in manager.registry.living() if host.state.value == "active"]

def instances():
    "Names of the instances of each flow, by its source and destination."
    names = {host.slot: host.instances[0].name for host in manager.registry.living()}
    return {
        (flow.src, flow.src_port, flow.dst, flow.dst_port): [names[slot] for slot in flow.hosts]
        for flow in plane.read_flows(10000)
    }

def wait(seconds):
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)

near, far = Line("n"), Line("f")
plane.pause_sources(False)
try:
"""
END = """
finally:
    for process in processes:
        process.kill()
        process.wait()
"""


def play(directory: Path, code: str, **arguments: Any) -> Any:
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    settings = {"n_buffers": 4096, "flow_capacity": 1 << 14} | arguments.pop("settings", {})
    return run(BED + lines + END, directory, settings=settings, **arguments)["result"]


IDLE = """
RULES = 'default = "drop"\\nrules = [{ action = "accept", src = "10.0.0.0/8" }]\\n'
for number in (1, 2):
    attach("firewall", number, RULES)
    attach("nat", number, 'external = "192.0.2.1"\\nblocks = 2\\n')
    attach("lb", number, "")
manager.set_chain(1, near.port, far.port, ["firewall", "nat", "lb"])
VIP = "198.51.100.10"
outside = {}
for number in range(16):
    client = f"10.0.0.{number + 1}"
    near.send(tcp(client, 40000, VIP, 80, SYN, seq=100))
    address, port, backend, _ = outside[client] = far.take()
    far.send(tcp(backend, 80, address, port, SYN | ACK, seq=500, ack=101))
    near.take()
    near.send(tcp(client, 40000, VIP, 80, ACK, seq=101, ack=501))
    far.take()
before = instances()
wait(1.5)
after = instances()
arrived = 0
for client, (address, port, backend, _) in outside.items():
    far.send(tcp(backend, 80, address, port, ACK | PSH, b"hello", seq=501, ack=101))
    arrived += near.take() == (VIP, 80, client, 40000)
    near.send(tcp(client, 40000, VIP, 80, ACK | PSH, b"hello", seq=101, ack=506))
    arrived += far.take() == (address, port, backend, 80)
result = {
    "arrived": arrived,
    "kept": before == after,
    "flows": len(before),
    "instances": sorted({name for names in before.values() for name in names}),
}
"""


def test_idle_connection_meets_the_instances_that_hold_it(tmp_path: Path) -> None:
    """The manager would forget after 0.3 s; the NFs hold connections for two hours."""
    result = play(tmp_path, IDLE, settings={"flow_idle_ms": 300})
    assert result["flows"] == 2 * 16
    assert result["instances"] == ["firewall-1", "firewall-2", "lb-1", "lb-2", "nat-1", "nat-2"]
    assert result["kept"]
    assert result["arrived"] == 2 * 16


ADDRESSES = """
def nat(number):
    attach("nat", number, 'external = "192.0.2.1"\\nblocks = 2\\n')

def out(client, port, destination):
    near.send(udp(client, port, destination, 53, b"there"))
    return far.take()[:2]

nat(1)
manager.set_chain(1, near.port, far.port, ["nat"])
clients = [f"10.0.0.{number + 1}" for number in range(20)]
sockets = [(client, port) for client in clients for port in (5000, 6000)]
outside = {one: [] for one in sockets}
for one in sockets[:20]:
    outside[one].append(out(*one, "203.0.113.1"))
nat(2)
for destination in ("203.0.113.2", "203.0.113.3", "203.0.113.4"):
    for one in sockets:
        outside[one].append(out(*one, destination))
blocks = {one: {port >= 32768 for _, port in ends} for one, ends in outside.items()}
hairpins = 0
for one, (address, port) in zip(sockets, [outside[one][0] for one in reversed(sockets)]):
    near.send(udp(*one, address, port, b"hello"))
    came = near.take()
    hairpins += came[2:] == sockets[len(sockets) - 1 - sockets.index(one)]
strangers = 0
for one, ends in outside.items():
    far.send(udp("203.0.113.99", 7, *ends[0], b"hello"))
    strangers += near.take() == ("203.0.113.99", 7, *one)
second = next(host for host in active() if host.instances[0].name == "nat-2")
manager.drain_host(second)
for one in sockets:
    outside[one].append(out(*one, "203.0.113.5"))
fresh = out("10.0.0.99", 5000, "203.0.113.5")
result = {
    "endpoints": [len(set(ends)) for ends in outside.values()],
    "of_first": [sum(block == {False} for block in list(blocks.values())[k:]) for k in (0, 20)],
    "hairpins": hairpins,
    "strangers": strangers,
    "fresh_is_of_first": fresh[1] < 32768,
}
"""


def test_nats_are_endpoint_independent_together(tmp_path: Path) -> None:
    """RFC 4787 REQ-1, and hairpins to the other instance (REQ-9)."""
    result = play(tmp_path, ADDRESSES)
    assert result["endpoints"] == [1] * 40, "one endpoint, whichever NAT came or goes"
    assert result["of_first"][0] - result["of_first"][1] == 20, "addresses stay"
    assert 0 < result["of_first"][1] < 20, "new ones are shared out"
    assert result["hairpins"] == 40
    assert result["strangers"] == 40
    assert result["fresh_is_of_first"], "a draining NAT gets no new address"
