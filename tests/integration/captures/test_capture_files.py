"""Captures in, captures out: times, formats, pipes, and files that end too early."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from up_host import write_capture

RUN = [sys.executable, "-P", "-m", "onvm_core.cli", "run", "--chain", ""]
N_PACKETS = 50


@pytest.fixture
def folder(runtime_directory: Path) -> Path:
    write_capture(runtime_directory / "in.pcap", N_PACKETS)
    return runtime_directory


def run(
    folder: Path, near: str, far: str, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*RUN, "--in", near, "--out", far, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


def report(folder: Path, near: str, far: str, status: int = 0) -> dict[str, Any]:
    done = run(folder, near, far, "--json", "report.json")
    assert done.returncode == status, done.stderr.decode()
    return json.loads((folder / "report.json").read_text())


def records(data: bytes) -> list[tuple[int, bytes]]:
    """Times in nanoseconds and frames of a pcap in this host's byte order."""
    magic, found, at = struct.unpack_from("=I", data)[0], [], 24
    unit = {0xA1B23C4D: 1, 0xA1B2C3D4: 1000}[magic]
    while at < len(data):
        seconds, part, captured, _ = struct.unpack_from("=4I", data, at)
        found.append((seconds * 10**9 + part * unit, data[at + 16 : at + 16 + captured]))
        at += 16 + captured
    return found


def stamped(path: Path, times_ns: list[int]) -> None:
    """The capture of `folder`, with so many packets, at these times."""
    frames = [frame for _, frame in records(path.with_name("in.pcap").read_bytes())]
    data = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    for ns, frame in zip(times_ns, frames, strict=False):
        data += struct.pack("=4I", ns // 10**9, ns % 10**9, len(frame), len(frame)) + frame
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["in.pcap", "./in.pcap", "link.pcap", "hard.pcap"])
def test_input_is_no_output(folder: Path, name: str) -> None:
    source = folder / "in.pcap"
    (folder / "link.pcap").symlink_to(source)
    (folder / "hard.pcap").hardlink_to(source)
    before = source.read_bytes()
    done = run(folder, "pcap:in.pcap", f"pcap:{name}")
    assert done.returncode == 2
    assert done.stderr.decode() == (
        f"error: --out: {name!r}: expected a file of its own: --in uses it already\n"
    )
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("far", "more", "line"),
    [
        ("null:", ("--json", "./in.pcap"), "--in: 'in.pcap': expected a file of its own: --json "),
        ("pcap:out", ("--json", "out"), "--out: 'out': expected a file of its own: --json uses"),
        ("pcap:out?write=in.pcap", (), "--out: 'in.pcap': expected write at a port that reads"),
        ("null:count=5", (), "--out: 'count=5': expected nothing, or options behind a ?"),
        ("null:?size=64&size=65", (), "'null:?size=64&size=65': expected each option once"),
    ],
)
def test_what_would_be_lost_is_refused(
    folder: Path, far: str, more: tuple[str, ...], line: str
) -> None:
    before = (folder / "in.pcap").read_bytes()
    done = run(folder, "pcap:in.pcap", far, *more)
    assert (done.returncode, done.stderr.decode().count("\n")) == (2, 1)
    assert done.stderr.decode().startswith(f"error: {line}")
    assert (folder / "in.pcap").read_bytes() == before


def test_packets_keep_their_times(folder: Path) -> None:
    times = [10**18 + i * 1_234_567 for i in range(20)]
    stamped(folder / "old.pcap", times)
    assert report(folder, "pcap:old.pcap", "pcap:out.pcap")["tx"] == len(times)
    assert records((folder / "out.pcap").read_bytes()) == records(
        (folder / "old.pcap").read_bytes()
    )


@pytest.mark.parametrize(
    ("name", "magic"),
    [
        ("out.pcap", b"\x4d\x3c\xb2\xa1"),
        ("out.pcapng", b"\x0a\x0d\x0d\x0a"),
        ("out.pcap.gz", b"\x1f\x8b"),
        ("out.pcapng.gz", b"\x1f\x8b"),
        ("out.bin?format=pcapng", b"\x0a\x0d\x0d\x0a"),
    ],
)
def test_the_name_says_the_format(folder: Path, name: str, magic: bytes) -> None:
    report(folder, "pcap:in.pcap", f"pcap:{name}")
    name = name.partition("?")[0]
    data = (folder / name).read_bytes()
    assert data.startswith(magic)
    if name.endswith(".gz"):
        assert gzip.decompress(data)[:4] in (b"\x4d\x3c\xb2\xa1", b"\x0a\x0d\x0d\x0a")
    assert report(folder, f"pcap:{name}", "pcap:again.pcap")["rx"] == N_PACKETS
    again = records((folder / "again.pcap").read_bytes())
    assert again == records((folder / "in.pcap").read_bytes())


def test_standard_input_and_output_carry_packets(folder: Path) -> None:
    data = (folder / "in.pcap").read_bytes()
    done = run(folder, "pcap:-", "pcap:-", stdin=data)
    assert done.returncode == 0, done.stderr.decode()
    assert records(done.stdout) == records(data)
    assert b"50 received" in done.stderr


@pytest.mark.parametrize(
    ("query", "least_s", "most_s"), [("pace=recorded", 1.0, 3.0), ("speed=4", 0.25, 1.0)]
)
def test_pace_of_the_capture(folder: Path, query: str, least_s: float, most_s: float) -> None:
    stamped(folder / "slow.pcap", [10**18 + i * 50_000_000 for i in range(21)])
    seconds = report(folder, f"pcap:slow.pcap?{query}", "null:")["seconds"]
    assert least_s <= seconds < most_s


def test_cut_capture_is_told(folder: Path) -> None:
    data = (folder / "in.pcap").read_bytes()
    (folder / "cut.pcap").write_bytes(data[:500])
    done = run(folder, "pcap:cut.pcap", "pcap:out.pcap")
    assert done.returncode == 1
    line = done.stderr.decode().splitlines()[-1]
    assert line.startswith("error: --in: 'pcap:cut.pcap': truncated dump file")
    n_whole = len(records(data[: 24 + (500 - 24) // 84 * 84]))
    assert len(records((folder / "out.pcap").read_bytes())) == n_whole
    assert report(folder, "pcap:cut.pcap?truncated=ok", "null:")["rx"] == n_whole


def test_full_device_is_found_at_the_start(folder: Path) -> None:
    done = run(folder, "pcap:in.pcap", "pcap:/dev/full")
    assert done.returncode == 2
    assert done.stderr.decode().endswith("can be opened: No space left on device\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize(
    ("ending", "size"), [("pcap", "600k"), ("pcapng", "600k"), ("pcap.gz", "64k")]
)
def test_full_disk_keeps_the_older_file_and_whole_packets(
    folder: Path, ending: str, size: str
) -> None:
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], check=True)
    try:
        (disk / f"out.{ending}").write_bytes(b"older")
        done = run(
            folder, "null:?count=30000&size=200&random=true", f"pcap:disk/out.{ending}",
            "--json", "report.json",
        )  # fmt: skip
        assert done.returncode == 1
        assert "No space left on device; out." in done.stderr.decode().splitlines()[-1]
        assert (disk / f"out.{ending}").read_bytes() == b"older"
        counted = json.loads((folder / "report.json").read_text())
        assert counted["tx"] + counted["drops"]["write_failed"] == counted["rx"] == 30000
        (folder / f"kept.{ending}").write_bytes((disk / f"out.{ending}.part").read_bytes())
        assert 0 < counted["tx"] < 30000
        assert report(folder, f"pcap:kept.{ending}", "null:")["rx"] == counted["tx"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_reader_that_goes_is_told(folder: Path) -> None:
    with subprocess.Popen(
        [*RUN, "--in", "pcap:in.pcap?loop=0&rate=2000", "--out", "pcap:-", "--duration", "20"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == b"\x4d\x3c\xb2\xa1"
        process.stdout.close()
        began = time.monotonic()
        errors = process.stderr.read().decode()
        process.wait()
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "error: --out: 'pcap:-': Broken pipe"
    assert time.monotonic() - began < 15, "it ends when nothing can be written any more"


def test_outputs_are_opened_before_the_run(folder: Path) -> None:
    for arguments, line in (
        (("pcap:in.pcap", "null:", "--json", "no/x.json"), "--json: 'no/x.json': expected a file"),
        (("pcap:in.pcap", "pcap:no/x.pcap"), "--out: 'no/x.pcap': expected a file in an existing"),
        (("pcap:in.pcap", "pcap:x.pcap.zst"), "--out: 'x.pcap.zst': expected a name in .pcap"),
        (("pcap:in.pcap?rate=1&speed=1", "null:"), "--in: 'pcap:in.pcap?rate=1&speed=1': expected"),
        (("pcap:none.pcap", "null:"), "--in: 'none.pcap': expected a file that exists"),
    ):
        done = run(folder, *arguments)
        assert done.returncode == 2
        assert line in done.stderr.decode()
        assert done.stderr.decode().count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["in.pcap"]


PULLER = """
from onvm_sdk import NetworkFunction


class Puller(NetworkFunction):
    def process_packet(self, pkt):
        if not pkt.is_ipv4 or pkt.length != 64:
            raise ValueError("not the packet of the source")
        pkt.pull(14)
"""


def test_null_makes_whole_packets_from_the_first_on(folder: Path) -> None:
    """Also in buffers that no packet has been in, and where the last one began elsewhere."""
    assert run(folder, "null:?count=3000", "pcap:out.pcap").returncode == 0
    found = records((folder / "out.pcap").read_bytes())
    assert len(found) == 3000
    assert {frame[:6] + frame[12:16] for _, frame in found} == {
        bytes.fromhex("02030405060708004500")
    }
    (folder / "puller.py").write_text(PULLER)
    more = ("--chain", "./puller.py:Puller", "--buffers", "1024")
    done = run(folder, "null:?count=5000", "null:", *more)
    assert done.returncode == 0, done.stderr.decode()


CLOCK = """
import time
from onvm_sdk import NetworkFunction

class Packets(NetworkFunction):
    manifest = {"permissions": ["rewrite"], "counters": ["wrong", "live"]}

    def setup(self, ctx):
        self.ctx, self.wanted = ctx, TIMES

    def process_packet(self, pkt):
        self.ctx.counters["wrong"] += pkt.time_ns != self.wanted.pop(0)
        pkt.push(4)
        pkt.pull(4)

class Columns(NetworkFunction):
    manifest = {"counters": ["wrong", "live"]}

    def setup(self, ctx):
        self.ctx, self.wanted = ctx, TIMES

    def process(self, burst):
        wanted, self.wanted = self.wanted[:len(burst)], self.wanted[len(burst):]
        self.ctx.counters["wrong"] += burst.time_ns.tolist() != wanted
        near = abs(int(burst.time_ns[0]) - time.time_ns()) < 2_000_000_000
        self.ctx.counters["live"] += near
"""


def test_nfs_see_the_times_of_a_capture_and_now_of_what_is_live(folder: Path) -> None:
    times = [1_000_000_000_000_000_000 + number * 1_234_567 for number in range(N_PACKETS)]
    stamped(folder / "clock.pcap", times)
    (folder / "clock.py").write_text(CLOCK.replace("TIMES", f"list({times})"))
    chain = "--chain", "./clock.py:Packets,./clock.py:Columns"
    for near, count in (("pcap:clock.pcap", {"wrong": 0, "live": 0}), ("null:?count=1", None)):
        done = run(folder, near, "null:", "--json", "report.json", *chain)
        assert done.returncode == 0, done.stderr.decode()
        told = json.loads((folder / "report.json").read_text())["nfs"][1]["counters"]
        assert told == (count or {"wrong": 1, "live": 1})
