"""Every capture of the shared data through every chain: all packets counted, all buffers back."""

from __future__ import annotations

import functools
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from buffers import are_back
from scapy.utils import RawPcapNgReader

from onvm_sdk.manifest import LOANED_USUAL

ROOM = 2048
"""Bytes of a buffer at least; frames between this and the real room may go either way."""
ETHERNET = 1
ONVM = "from onvm_core.cli.app import main; main()"
UNREADABLE = {"pcpp__ipv4-malformed.pcap"}
"""pcapng whose interfaces differ in snapshot length: libpcap ends before the first packet."""
SNAPSHOT_MAX = 262144
"""Longer records are damage to libpcap."""
BIG_ENDIAN_MAGICS = {b"\xa1\xb2\xc3\xd4", b"\xa1\xb2\x3c\x4d"}


def captures(shared_data: Path) -> list[Path]:
    endings = {".pcap", ".pcapng", ".cap", ".gz"}
    return sorted(p for p in (shared_data / "pcap").rglob("*") if p.suffix in endings)


def classic_frames(data: bytes) -> list[bytes] | None:
    """Frames of a classic capture up to its end or first damage; None when not Ethernet."""
    order: Literal["little", "big"] = "big" if data[:4] in BIG_ENDIAN_MAGICS else "little"
    if int.from_bytes(data[20:24], order) & 0xFFFF != ETHERNET:
        return None
    # Like libpcap, give no more of a record than the file's own snapshot length.
    snapshot = int.from_bytes(data[16:20], order) or SNAPSHOT_MAX
    found, position = [], 24
    while position + 16 <= len(data):
        length = int.from_bytes(data[position + 8 : position + 12], order)
        position += 16 + length
        if position > len(data) or length > SNAPSHOT_MAX:
            break
        found.append(data[position - length : position][:snapshot])
    return found


@functools.cache
def frames(path: Path) -> list[bytes] | None:
    """Frames of a capture, pcapng by scapy; None when not Ethernet."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if data[:4] != b"\x0a\x0d\x0d\x0a":
        return classic_frames(data)
    with RawPcapNgReader(str(path)) as reader:
        pairs = list(reader)
    if any(metadata.linktype != ETHERNET for _, metadata in pairs):
        return None
    return [frame for frame, _ in pairs]


def n_written(path: Path) -> int:
    """Packets of a classic capture in this machine's byte order; fails when it is damaged."""
    data = path.read_bytes()
    assert int.from_bytes(data[:4], sys.byteorder) == 0xA1B23C4D, "nanosecond capture"
    position, n = 24, 0
    while position < len(data):
        position += 16 + int.from_bytes(data[position + 8 : position + 12], sys.byteorder)
        n += 1
    assert position == len(data)
    return n


def check_chain(line: dict[str, Any]) -> None:
    assert line["rx"] + line["originated"] == line["tx"] + sum(line["drops"].values()), line
    known = {"oversize", "by_nfs", "reassembled"}
    assert {name for name in line["drops"] if not name.startswith("fragment")} <= known, line


def test_captures_through_separate_processes(drive, shared_data: Path, tmp_path: Path) -> None:
    paths = captures(shared_data)
    assert len(paths) > 100
    *lines, last = drive("captures", "separate", tmp_path, *paths, timeout_s=200)
    assert last["balance"]["missing"] == 0
    assert last["buffers"]["total"] - last["buffers"]["free"] == LOANED_USUAL  # the NAT's
    assert set(last["reserved"].values()) == {0}
    assert len(lines) == 5 * len(paths)
    n_oversize = n_refused = 0
    for line in lines:
        if "error" in line:
            assert "expected Ethernet" in line["error"]
            continue
        check_chain(line)
        if line["chain"]:
            continue
        n_oversize += line["drops"].get("oversize", 0)
        assert n_written(Path(line["output"])) == line["tx"]
    for path in paths:
        own = [line for line in lines if line["capture"] == str(path)]
        expected = frames(path)
        assert (expected is None) == ("error" in own[0]), path
        if expected is None:
            n_refused += 1
            continue
        got = classic_frames(Path(own[0]["output"]).read_bytes()) or []
        if path.name in UNREADABLE:
            assert own[0]["rx"] == 0
            continue
        assert own[0]["rx"] == len(expected), path
        room = max(map(len, got), default=ROOM)
        fitting = [frame for frame in expected if 0 < len(frame) <= max(ROOM, room)]
        assert got == fitting, f"{path}: bytes change without an NF"
    assert n_refused > 0
    assert n_oversize > 0


def test_captures_through_a_fused_process(drive, shared_data: Path, tmp_path: Path) -> None:
    paths = captures(shared_data)
    *lines, last = drive("captures", "fused", tmp_path, *paths, timeout_s=120)
    assert last["balance"]["missing"] == 0
    assert last["buffers"]["total"] - last["buffers"]["free"] == LOANED_USUAL  # the NAT's
    for line in lines:
        if "error" not in line:
            check_chain(line)


# ---- the real command line ----


def onvm_run(runtime_directory: Path, capture: Path, chain: str, *more: str):
    out = runtime_directory / "out.pcap"
    report = runtime_directory / "report.json"
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            ONVM,
            "run",
            "--in",
            f"pcap:{capture}",
            "--out",
            f"pcap:{out}",
            "--chain",
            chain,
            "--json",
            str(report),
            *more,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, out, json.loads(report.read_text()) if report.exists() else {}


def of(shared_data: Path, ending: str) -> Path:
    return next(p for p in captures(shared_data) if p.name.endswith(ending) and frames(p))


@pytest.mark.parametrize("chain", ["", "firewall,nat,lb"])
@pytest.mark.parametrize("ending", [".pcap", ".pcapng", ".gz"])
def test_run_counts_every_packet(runtime_directory, shared_data, ending: str, chain: str) -> None:
    capture = of(shared_data, ending)
    done, out, report = onvm_run(runtime_directory, capture, chain)
    assert done.returncode == 0, done.stderr
    assert report["rx"] + report["originated"] == report["tx"] + sum(report["drops"].values())
    assert report["rx"] == len(frames(capture) or [])
    assert are_back(report), report["buffers"]
    assert n_written(out) == report["tx"]


def test_run_reads_fused(runtime_directory, shared_data) -> None:
    done, _, report = onvm_run(
        runtime_directory, of(shared_data, ".pcap"), "firewall,nat,lb", "--fuse"
    )
    assert done.returncode == 0, done.stderr
    assert report["rx"] == report["tx"] + sum(report["drops"].values())


def test_run_refuses_another_link_type_in_one_line(runtime_directory, shared_data) -> None:
    capture = next(p for p in captures(shared_data) if frames(p) is None)
    done, _, _ = onvm_run(runtime_directory, capture, "")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "expected Ethernet" in done.stderr


@pytest.mark.parametrize("content", [b"", b"\xd4\xc3\xb2\xa1", b"no capture at all" * 10])
def test_run_refuses_what_is_no_capture(runtime_directory, content: bytes) -> None:
    for name, data in (("x.pcap", content), ("x.pcap.gz", gzip.compress(content))):
        capture = runtime_directory / name
        capture.write_bytes(data)
        done, _, _ = onvm_run(runtime_directory, capture, "")
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
