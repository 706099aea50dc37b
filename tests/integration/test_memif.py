"""Port ``memif:``: two managers of one host hand each other packets through shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from up_host import write_capture

RUN = [sys.executable, "-P", "-m", "onvm_core.cli", "run", "--chain", ""]
N_FLOWS, N_LOOPS = 50, 10
N_ARRIVING = 100


def start(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*RUN, *arguments, "--json", f"{name}.json"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "ONVM_RUNTIME_DIR": str(folder / name)},
    )


def test_packets_pass_from_manager_to_manager(runtime_directory: Path) -> None:
    scapy = pytest.importorskip("scapy.utils")
    folder = runtime_directory
    write_capture(folder / "in.pcap", N_FLOWS)
    server = start(
        folder,
        "server",
        "--in",
        f"memif:{folder}/m.sock?role=server",
        "--out",
        "pcap:out.pcap",
        "--count",
        str(N_ARRIVING),
        "--duration",
        "60",
    )
    client = None
    try:
        deadline = time.monotonic() + 20
        while not (folder / "m.sock").exists():
            assert time.monotonic() < deadline
            assert server.poll() is None
            time.sleep(0.05)
        client = start(
            folder,
            "client",
            "--in",
            f"pcap:in.pcap?loop={N_LOOPS}&rate=250",
            "--out",
            f"memif:{folder}/m.sock?role=client",
            "--duration",
            "8",
        )
        for process in (client, server):
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in (server, client):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
    sender, receiver = (
        json.loads((folder / f"{n}.json").read_text()) for n in ("client", "server")
    )
    # Packets sent before the two ends have met, or when the server is gone, are dropped and
    # counted.
    assert sender["rx"] == N_FLOWS * N_LOOPS == sender["tx"] + sum(sender["drops"].values())
    assert sender["tx"] >= receiver["rx"] == receiver["tx"] >= N_ARRIVING
    assert receiver["drops"] == {}
    sent = [bytes(frame) for frame, _ in scapy.RawPcapReader(str(folder / "in.pcap"))]
    arrived = [bytes(frame) for frame, _ in scapy.RawPcapReader(str(folder / "out.pcap"))]
    assert len(arrived) == receiver["tx"]
    begin = sent.index(arrived[0])
    assert arrived == (sent * (N_LOOPS + 1))[begin : begin + len(arrived)]
