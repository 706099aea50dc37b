"""A manager for a test: its own runtime directory, small NFs, and an end whatever happens."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import leftovers
import msgspec
from commands import run_onvm

from onvm_core.launch.identity import ProcessId
from onvm_core.manager.api.client import Client
from onvm_core.manager.api.messages import StatusReply, StatusRequest

NF_SOURCE = '''
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    """Count packets; die of the message "die"."""

    def setup(self, ctx):
        self.ctx = ctx

    def process_packet(self, pkt):
        self.ctx.counters["seen"] += 1

    def on_message(self, sender, payload):
        if payload == b"die":
            raise RuntimeError("asked to die")
'''
SLOW_SOURCE = '''
import time
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    """Take about 0.3 ms for each packet without using the CPU; hang when told to."""

    def setup(self, ctx):
        self.ctx = ctx

    def process_packet(self, pkt):
        self.ctx.counters["seen"] += 1
        time.sleep(0.0002)

    def on_message(self, sender, payload):
        if payload == b"hang":
            print("hangs", flush=True)
            time.sleep(3600)
        raise RuntimeError("asked to die")
'''
MANIFEST = """
schema = 1
name = "{name}"
service = "{name}"
summary = "counts packets"
sdk = ">=0.1,<1"
state = "none"
permissions = ["read"]
counters = ["seen"]
[config.port]
type = "int"
default = 53
min = 0
max = 65535
description = "a port"
"""

HOP_CONFIG = """
[dataplane]
flows = 4096
buffers = 2048
[ports.lan]
uri = "null:?flows=64&rate=5000"
[ports.wan]
uri = "null:"
[nfs.hop]
launcher = "LAUNCHER"
[chains.main]
in = "lan"
out = "wan"
services = ["hop"]
"""
"""A chain with the NF "hop", whose launcher replaces LAUNCHER."""


def install_nf(site: Path, name: str, source: str = NF_SOURCE, manifest: str = "") -> None:
    """What pip would have put there for a package with one NF."""
    module = f"onvm_nf_{name}"
    (site / module).mkdir(parents=True)
    (site / module / "__init__.py").write_text(source)
    (site / module / "onvm-nf.toml").write_text(manifest + MANIFEST.format(name=name))
    info = site / f"onvm_nf_{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: onvm-nf-{name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[onvm.nf]\n{name} = {module}:Nf\n")


def write_capture(path: Path, n_flows: int = 32) -> None:
    """A pcap of UDP packets, one for each flow."""
    records = []
    for flow in range(n_flows):
        payload = bytes(26)
        udp = struct.pack("!4H", 1000 + flow, 9, 8 + len(payload), 0) + payload
        ip = struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            0,
            20 + len(udp),
            0,
            0,
            64,
            17,
            0,
            bytes([10, 0, 0, 1]),
            bytes([10, 0, 1, 1]),
        )
        frame = bytes(5) + b"\2" + bytes(5) + b"\1" + b"\x08\0" + ip + udp
        records.append(struct.pack("=4I", 0, 0, len(frame), len(frame)) + frame)
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(head + b"".join(records))


class Host:
    """A user's runtime directory, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime = folder / "r"
        self.site = folder / "site"
        for name in ("hop", "skip"):
            install_nf(self.site, name)
        install_nf(self.site, "slow", SLOW_SOURCE)
        write_capture(folder / "in.pcap")

    @property
    def environment(self) -> dict[str, str]:
        """Of its commands."""
        return {
            **os.environ,
            "ONVM_RUNTIME_DIR": str(self.runtime),
            "PYTHONPATH": str(self.site),
            "TMPDIR": str(self.folder),
        }

    def onvm(self, *arguments: str, timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
        return run_onvm(*arguments, env=self.environment, cwd=self.folder, timeout_s=timeout_s)

    def do(self, *arguments: str) -> str:
        """Run a command that must succeed; what it prints."""
        done = self.onvm(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.do(*arguments, "--json"))

    def status(self, name: str = "main") -> Any:
        """What `onvm status --json` prints, without the time of a command's start."""
        return status_of(self.runtime / name)

    def configure(self, text: str) -> None:
        (self.folder / "onvm.toml").write_text(text)

    def manager_pid(self, name: str = "main") -> int:
        return int(json.loads((self.runtime / name / "manager.json").read_text())["pid"])

    def nf_pids(self) -> dict[str, int]:
        return {nf["instances"][0]: nf["pid"] for nf in self.status()["launched"]}

    def processes(self) -> list[ProcessId]:
        """The processes of launched NFs that run, with what they have started."""
        return leftovers.launched_processes(self.runtime)

    def wait(self, condition: Callable[[], bool], timeout_s: float = 25) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)

    def clean(self) -> list[str]:
        """End what a test has left; who that was."""
        return leftovers.clean(self.folder)


def status_of(directory: Path) -> Any:
    """The status of the manager with that directory, as JSON has it."""
    with Client(directory) as client:
        return json.loads(msgspec.json.encode(client.ask(StatusRequest(), StatusReply)))


def managed() -> Iterator[Host]:
    """A host that is cleaned up whatever happens, even if the test's own process is killed."""
    # A short path: sockets have room for 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="onvm-up-"))
    # It cleans up when its pipe closes, which no signal can prevent.
    cleaner = subprocess.Popen(
        [sys.executable, "-P", leftovers.__file__, str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Host(folder)
    finally:
        leftovers.clean(folder)
        cleaner.communicate()
