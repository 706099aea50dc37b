"""Several instances of NAT and load balancer: every packet meets the one that has its state."""

from __future__ import annotations

import struct
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scenario import run

from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import udp
from onvm_sdk.testing.runner import load_frames

if TYPE_CHECKING:
    from up_host import Host

pytest.importorskip("onvm_nf_nat")
pytest.importorskip("onvm_nf_lb")

EXTERNAL, STRANGER = "192.0.2.1", "203.0.113.200"
N_FLOWS = 60
BLOCKS = 3
FIRST, END = 3000, 6000

BOTH_WAYS = """
[dataplane]
flows = 65536
[ports.clients]
uri = "gen:?flows=400&seed=3&ipv6=0&count=60000&timeout_ms=20000"
[ports.servers]
uri = "gen:"
[nfs.nat]
instances = 3
[nfs.nat.config]
external = "192.0.2.1"
blocks = 3
filtering = "address-and-port-dependent"
[nfs.lb]
instances = 2
[chains.main]
in = "clients"
out = "servers"
services = ["nat", "lb"]
"""

STRANGERS = """
import os, signal, subprocess

processes = []
config = directory / "nat.toml"
config.write_text('external = "192.0.2.1"\\nports = "3000-5999"\\nblocks = 3\\n')

def nat(number):
    before = len(list(manager.registry.living()))
    processes.append(subprocess.Popen([
        sys.executable, "-P", "-m", "onvm_sdk.runtime", "--socket", str(manager.attach_path),
        "--nf", "nat", "--instance", f"nat-{number}", "--config", f"nat={config}",
        "--leave-with-manager",
    ]))
    until(lambda: len(list(manager.registry.living())) > before)
    until(lambda: all(h.state.value == "active" for h in manager.registry.living()))

def inside():
    return any(plane.read_host(h.slot).reserved for h in manager.registry.living())

try:
    for number in (1, 2, 3):
        nat(number)
    near = plane.open_port("near", PcapPort(rx_path=arguments["out"], tx_path=arguments["back"]))
    sent = plane.open_port("sent", PcapPort(tx_path=arguments["sent"]))
    manager.set_chain(1, near, sent, ["nat"])
    plane.pause_sources(False)
    until(lambda: plane.read_port(near).is_finished and not inside())
    until(lambda: plane.read_port(sent).tx == arguments["n_flows"])
    drained = next(h for h in manager.registry.living() if h.instances[0].name == "nat-2")
    if arguments["drains"]:
        manager.drain_host(drained)
    # Nobody knows these flows: what they go to is claimed.
    strangers = plane.open_port("strangers", PcapPort(rx_path=arguments["strangers"]))
    manager.set_chain(1, near, strangers, ["nat"])
    until(lambda: plane.read_port(strangers).is_finished and not inside())
    result = {
        host.instances[0].name: {
            "rx": list(plane.read_host(host.slot).rx),
            "drops": sum(plane.read_host(host.slot).drops[0]),
        }
        for host in manager.registry.living()
    }
    manager.poll(0.1)
finally:
    for process in processes:
        process.kill()
        process.wait()
"""


def write_pcap(path: Path, frames: list[bytes]) -> None:
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    records = [struct.pack("=4I", 0, 0, len(frame), len(frame)) + frame for frame in frames]
    path.write_bytes(head + b"".join(records))


def ends(frame: bytes) -> tuple[str, int, str, int]:
    h = read_headers(frame)
    return str(ip_address(h.src)), h.src_port, str(ip_address(h.dst)), h.dst_port


@pytest.mark.parametrize("drains", [False, True])
def test_stranger_to_a_mapped_port_meets_its_nat(tmp_path: Path, drains: bool) -> None:
    out = [
        udp(f"10.0.0.{flow + 1}", 7000 + flow, f"198.51.100.{flow + 1}", 53)
        for flow in range(N_FLOWS)
    ]
    strangers = [udp(STRANGER, 9, EXTERNAL, port) for port in range(FIRST, END)]
    write_pcap(tmp_path / "out.pcap", out)
    write_pcap(tmp_path / "strangers.pcap", strangers)
    paths = {name: str(tmp_path / f"{name}.pcap") for name in ("out", "back", "sent", "strangers")}
    answer = run(
        STRANGERS,
        tmp_path,
        **paths,
        n_flows=N_FLOWS,
        drains=drains,
        settings={"n_buffers": 4096, "flow_capacity": 1 << 16},
    )
    mapped = {ends(frame)[1] for frame in load_frames(tmp_path / "sent.pcap")}
    assert len(mapped) == N_FLOWS
    blocks = Counter((port - FIRST) * BLOCKS // (END - FIRST) for port in mapped)
    assert set(blocks) == {0, 1, 2}, "each instance has given ports of its own block"
    for number, counts in sorted(answer["result"].items()):
        block = int(number[-1]) - 1
        assert counts["rx"] == [blocks[block], (END - FIRST) // BLOCKS], number
        assert counts["drops"] == (END - FIRST) // BLOCKS - blocks[block]
    back = [ends(frame) for frame in load_frames(tmp_path / "back.pcap")]
    assert len(back) == N_FLOWS, "each end with a mapping is reached"
    assert {src for src, *_ in back} == {STRANGER}
    assert {end[2:] for end in back} == {
        (f"10.0.0.{flow + 1}", 7000 + flow) for flow in range(N_FLOWS)
    }


def test_replies_meet_their_nat_and_their_load_balancer(host: Host) -> None:
    host.configure(BOTH_WAYS)
    host.do("up", "-d")

    def report() -> dict[str, Any]:
        return host.status()["report"]

    host.wait(lambda: report()["generators"][0]["requests"] > 1000)
    host.wait(lambda: (g := report()["generators"][0])["opened"] == g["completed"] + g["failed"])
    final = host.json("down")["report"]
    (generator,) = final["generators"]
    assert generator["completed"] > 1000
    assert (generator["failed"], generator["lost"], generator["unexpected"]) == (0, 0, 0)
    assert final["drops"] == {}
    busy = [nf["instance"] for nf in final["nfs"] if nf["rx"] > 100]
    assert sorted(busy) == ["lb-1", "lb-2", "nat-1", "nat-2", "nat-3"]
