"""Captures hold what passed their points, as independent tools read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from scenario import run

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

BOTH_PORTS = """
path = Path(arguments["path"])
client = plane.open_port("in", GenPort(role="client", n_flows=50, count=20000, seed=4))
server = plane.open_port("out", GenPort(role="server"))
manager.set_chain(1, client, server, [])
points = [CapturePoint("port in", client), CapturePoint("port out", server)]
with Capture(plane, path, points, **arguments["capture"]) as capture:
    plane.pause_sources(False)
    def finished():
        if arguments["drains"]:
            capture.drain()
        return plane.read_gen(client).is_finished
    until(finished)
result = {
    "capture": counters(capture.counters),
    "client": counters(plane.read_gen(client)),
}
"""


def fields(path: Path, *names: str) -> list[tuple[str, ...]]:
    """These fields of every packet, as tshark reads them."""
    arguments = [part for name in names for part in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", path, "-T", "fields", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return [tuple(line.split("\t")) for line in done.stdout.splitlines()]


def both_ports(tmp_path: Path, *, drains: bool = True, **capture: Any) -> tuple[Path, Any]:
    path = tmp_path / "capture.pcapng"
    answer = run(BOTH_PORTS, tmp_path, path=str(path), drains=drains, capture=capture)
    assert answer["plane"]["buffers_free"] == answer["plane"]["buffers_total"]
    return path, answer["result"]


def test_capture_is_the_traffic(tmp_path: Path) -> None:
    path, result = both_ports(tmp_path, ring_bytes=64 << 20)
    client, counted = result["client"], result["capture"]
    packets = fields(
        path, "frame.interface_name", "frame.packet_flags_direction", "frame.time_epoch"
    )
    passed = {
        ("port in", "1"): client["sent"],
        ("port out", "2"): client["sent"],
        ("port out", "1"): client["received"],
        ("port in", "2"): client["received"],
    }
    seen: dict[tuple[str, str], int] = {}
    for name, direction, _ in packets:
        key = (name, str(int(direction, 0)))
        seen[key] = seen.get(key, 0) + 1
    assert counted["overflow"] == 0
    assert seen == passed
    assert counted["captured"] == counted["written"] == len(packets) == sum(passed.values())
    times = [stamp for *_, stamp in packets]
    assert times == sorted(times)
    assert all(len(stamp.partition(".")[2]) == 9 for stamp in times)


def test_packets_are_whole_and_leave_as_they_came(tmp_path: Path) -> None:
    path, _ = both_ports(tmp_path, ring_bytes=64 << 20)
    forwards: dict[str, list[bytes]] = {"port in": [], "port out": []}
    for name, direction, data in packets_of(path):
        if (name, direction) in (("port in", 1), ("port out", 2)):
            forwards[name].append(data)
    assert forwards["port in"] == forwards["port out"]
    assert len(forwards["port in"]) == 20000


def packets_of(path: Path) -> list[tuple[str, int, bytes]]:
    """Interface, direction and bytes of every packet."""
    scapy = pytest.importorskip("scapy.all")
    directions = fields(path, "frame.interface_name", "frame.packet_flags_direction")
    data = [packet for packet, _ in scapy.RawPcapNgReader(str(path))]
    return [
        (name, int(direction, 0), packet)
        for (name, direction), packet in zip(directions, data, strict=True)
    ]


def test_capinfos_reads_the_file(tmp_path: Path) -> None:
    path, result = both_ports(tmp_path, snap_length=64, limit=500)
    info = subprocess.run(["capinfos", "-M", path], capture_output=True, text=True, check=True)
    assert "pcapng" in info.stdout
    assert "Number of packets:   500" in info.stdout
    assert info.stdout.count("Time resolution = 0x09") == 2
    assert result["capture"] == {
        "captured": 500,
        "overflow": 0,
        "written": 500,
        "followed": 0,
        "is_full": True,
    }
    sizes = fields(path, "frame.cap_len", "frame.len")
    assert max(int(captured) for captured, _ in sizes) == 64
    assert max(int(length) for _, length in sizes) > 64


def test_slow_reader_loses_copies_and_no_packets(tmp_path: Path) -> None:
    path, result = both_ports(tmp_path, drains=False, ring_bytes=1)
    client, counted = result["client"], result["capture"]
    assert client["completed"] == client["opened"]
    assert counted["overflow"] > 0
    assert counted["captured"] + counted["overflow"] == 2 * (client["sent"] + client["received"])
    assert len(fields(path, "frame.len")) == counted["written"] == counted["captured"]


def test_several_captures_of_an_nf_host_under_load(tmp_path: Path) -> None:
    """Two captures start and stop while packets go through an NF; one is of the NF itself."""
    result = run(
        """
        import subprocess, onvm_core
        program = Path(onvm_core.__file__).parent / "bin/onvm-bench-nf"
        source = plane.open_port("in", NullPort(rate_pps=50000))
        sink = plane.open_port("out", NullPort(count=1))
        manager.set_chain(1, source, sink, ["w"], is_bidirectional=False, track_flows=False)
        nf = subprocess.Popen([program, manager.attach_path, "w", "1", "64", "1"])
        until(lambda: any(h.state.name == "ACTIVE" for h in manager.registry.living()))
        slot = next(iter(manager.registry.living())).slot
        plane.pause_sources(False)
        until(lambda: plane.read_port(sink).tx > 1000)
        first = Capture(plane, directory / "nf.pcapng", [CapturePoint("nf w", slot, is_host=True)])
        out = CapturePoint("port out", sink, is_in=False)
        second = Capture(plane, directory / "out.pcapng", [out], limit=1000)
        def enough():
            first.drain()
            second.drain()
            return second.counters.is_full and first.counters.written > 4000
        until(enough)
        second.stop()
        plane.pause_sources(True)
        until(lambda: plane.read_plane().buffers_free == settings.n_buffers)
        result = {
            "first": counters(first.stop()), "second": counters(second.stop()),
            "again": first.drain(),
        }
        try:
            Capture(plane, directory / "no.pcapng", [CapturePoint("nf x", 77, is_host=True)])
        except DataplaneError as error:
            result["error"] = str(error)
        for host in list(manager.registry.living()):
            manager.stop_host(host)
        until(lambda: not list(manager.registry.living()))
        nf.wait(5)
        """,
        tmp_path,
    )["result"]
    assert result["error"] == "capture: nf x: there is no such NF host"
    assert result["again"] == 0
    assert result["second"]["written"] == 1000
    assert len(fields(tmp_path / "out.pcapng", "frame.len")) == 1000
    nf = fields(tmp_path / "nf.pcapng", "frame.packet_flags_direction", "ip.ttl", "udp.dstport")
    into = [packet for packet in nf if int(packet[0], 0) == 1]
    back = [packet for packet in nf if int(packet[0], 0) == 2]
    assert len(nf) == result["first"]["written"]
    assert len(back) > 2000
    # It had packets when the capture began; at the end all have come back.
    assert 0 <= len(back) - len(into) <= 1024
