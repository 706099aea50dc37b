# SPDX-License-Identifier: Apache-2.0
"""NF hosts of Python NFs, attached to a manager."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from python_path import python_path

np = pytest.importorskip("numpy")

# DPDK starts once per process, so the manager has one of its own. It answers each line.
MANAGER = """
import json, select, sys
from pathlib import Path
from onvm_core.dataplane.values import DataplaneSettings, NullPort
from onvm_core.manager.manager import Manager

settings = DataplaneSettings(idle_policy=0, ring_length=1024, sample_every=64)
with Manager(Path(sys.argv[1]), settings, [0]) as manager:
    plane = manager.plane
    ports = [
        plane.open_port(name, NullPort(rate_pps=rate, count=count))
        for name, rate, count in (("in", 20_000, 0), ("out", 0, 1))
    ]
    manager.set_chain(1, *ports, ["w"], is_bidirectional=False, track_flows=False)
    print(json.dumps(str(manager.attach_path)), flush=True)
    while True:
        manager.poll(0.01)
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                break
            sent = plane.read_port(ports[1]).tx
            print(json.dumps([sent, plane.read_plane().originated]), flush=True)
"""
NFS = '''
import os
import sys
from onvm_sdk import NetworkFunction, kernel

FRAME = bytes(12) + b"\\x88\\xb5" + bytes(50)

class Packets(NetworkFunction):
    manifest = {"permissions": ["read", "originate"]}
    left = 10
    def process_packet(self, pkt):
        if self.left and pkt.originate(FRAME):
            self.left -= 1

class Columns(NetworkFunction):
    manifest = {"permissions": ["read", "originate"], "loaned_buffers": 8}
    left = 10
    def process(self, burst):
        if self.left and burst.originate(FRAME):
            self.left -= 1

class NoPermission(NetworkFunction):
    def process_packet(self, pkt):
        pkt.originate(FRAME)

class Counting(NetworkFunction):
    """Counts its starts; the state is handed over."""
    starts = 1
    def process_packet(self, pkt):
        return None
    def restore(self, snapshot):
        self.starts = int(snapshot) + 1
    def snapshot(self):
        return str(self.starts).encode()

class Other(Counting):
    pass

class Table:
    def __del__(self):
        print("freed", file=sys.stderr, flush=True)

class Ending(Counting):
    def setup(self, ctx):
        self.table = Table()
    def teardown(self):
        print("teardown", file=sys.stderr)

class Raising(NetworkFunction):
    def setup(self, ctx):
        import numpy as np
        self.state = np.zeros(1, np.int64)
    @kernel
    def process_packet(pkt, state):
        state[0] += 1 // (pkt.length - pkt.length)
'''


class Chain:
    """A manager with one chain of one NF, and the NF hosts that serve it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "host_nfs.py").write_text(NFS)
        self.manager = subprocess.Popen(
            [sys.executable, "-P", "-c", MANAGER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.socket = self.answer()
        self.processes = [self.manager]
        self.state = folder / "state"

    def answer(self) -> Any:
        assert self.manager.stdout is not None
        return json.loads(self.manager.stdout.readline())

    def counts(self) -> tuple[int, int]:
        """Packets sent, and those of them that NFs made."""
        assert self.manager.stdin is not None
        self.manager.stdin.write("\n")
        self.manager.stdin.flush()
        sent, originated = self.answer()
        return sent, originated

    def start(self, name: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "onvm_sdk.runtime", "--service", "w"]
        command += ["--socket", self.socket, "--nf", f"host_nfs:{name}"]
        process = subprocess.Popen(
            [*command, *options], env=python_path(self.folder), stderr=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def wait(self, holds: Callable[[], Any], timeout_s: float = 60) -> None:
        end = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.01)

    def wait_for_packets(self) -> None:
        sent = self.counts()[0]
        self.wait(lambda: self.counts()[0] > sent + 100)

    def stop(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        process.terminate()
        return self.end(process)

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        text = process.communicate(timeout=60)[1]
        return process.returncode, text


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    chain = Chain(tmp_path_factory.mktemp("m"))
    yield chain
    for process in chain.processes:
        process.kill()
        process.communicate()


@pytest.fixture
def chain(manager: Chain, tmp_path: Path) -> Chain:
    manager.state = tmp_path / "state"
    return manager


@pytest.mark.parametrize("way", ["Packets", "Columns"])
def test_packets_that_an_nf_makes_go_on(chain: Chain, way: str) -> None:
    before = chain.counts()[1]
    process = chain.start(way)
    chain.wait(lambda: chain.counts()[1] == before + 10)
    assert chain.stop(process) == (0, "")


def test_making_packets_without_the_permission_is_an_error_of_the_author(chain: Chain) -> None:
    before = chain.counts()[1]
    status, text = chain.end(chain.start("NoPermission"))
    assert status == 1
    assert "host_nfs.py" in text
    assert "originate" in text
    assert chain.counts()[1] == before


def test_state_is_handed_over(chain: Chain) -> None:
    file = chain.state
    for options, starts in ([], b"1"), (["--restore", str(file)], b"2"):
        process = chain.start("Counting", "--snapshot", str(file), *options)
        chain.wait_for_packets()
        assert chain.stop(process) == (0, "")
        assert file.read_bytes() == b'onvm snapshot 1\n[["counting", 1]]\n' + starts
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.glob("state*")] == ["state"]


def test_ends_after_teardown_without_freeing_its_tables(chain: Chain) -> None:
    process = chain.start("Ending", "--snapshot", str(chain.state))
    chain.wait_for_packets()
    assert chain.stop(process) == (0, "teardown\n")
    assert chain.state.exists()


@pytest.mark.parametrize("content", [None, b"", b"onvm snapshot 1\n[[", b"onvm snapshot 1\n[]\nx"])
def test_a_snapshot_that_is_none_is_one_line(chain: Chain, content: bytes | None) -> None:
    file = chain.state
    if content is not None:
        file.write_bytes(content)
    status, text = chain.end(chain.start("Counting", "--restore", str(file)))
    assert status == 2
    assert text.startswith(f"onvm: --restore: '{file}': ")
    assert text.count("\n") == 1


def test_a_compiled_kernel_that_raises_ends_its_host_with_a_traceback(chain: Chain) -> None:
    pytest.importorskip("numba")
    status, text = chain.end(chain.start("Raising"))
    assert status == 1
    assert "state[0] += 1 // (pkt.length - pkt.length)" in text
    assert text.splitlines()[-1].startswith("onvm: raising.process_packet raised ZeroDivisionError")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nobody", "nf: 'host_nfs:Nobody': expected module:Class"),
        ("FRAME", "expected a subclass of NetworkFunction"),
    ],
)
def test_a_class_that_is_not_there_is_one_line(chain: Chain, name: str, said: str) -> None:
    status, text = chain.end(chain.start(name))
    assert status == 2
    assert said in text
    assert text.count("\n") == 1
