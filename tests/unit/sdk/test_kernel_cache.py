"""Compiled kernels: what is kept on disk, and what happens when one raises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("numba")

from onvm_sdk import NetworkFunction, kernel  # noqa: E402
from onvm_sdk._compiler import cache  # noqa: E402
from onvm_sdk.testing import Runner  # noqa: E402

NF = """
import sys
import numpy as np
from onvm_sdk import NetworkFunction, Verdict, kernel
from onvm_sdk.testing import Runner

LIMIT = {limit}

def is_low(pkt):
    return pkt.length < LIMIT

class Counting(NetworkFunction):
    def setup(self, ctx):
        self.state = (np.zeros(256, np.uint64), np.zeros(1, [("seen", "u8"), ("last", "u2")]))

    @kernel(compile="required")
    def process_packet(pkt, state):
        counts, record = state
        counts[pkt.protocol] += 1
        record[0]["seen"] += 1
        if {condition}:
            return Verdict.DROP
        return Verdict.NEXT

runner = Runner(Counting())
frames = [bytes(12) + b"\\x08\\x00\\x45" + bytes(40), b"abc"] * 8
print([int(v) for v in runner.run(frames).verdicts][:2], int(runner.stages[0].nf.state[0][0]),
      "numba" in sys.modules)
"""


def run_nf(folder: Path, *, limit: int = 10, condition: str = "pkt.length < LIMIT") -> str:
    (folder / "nf.py").write_text(NF.format(limit=limit, condition=condition))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-P", str(folder / "nf.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.stdout.strip()


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "onvm").iterdir())


def test_a_second_start_runs_the_same_code_without_numba(tmp_path: Path) -> None:
    assert run_nf(tmp_path) == "[0, 1] 16 True"
    assert run_nf(tmp_path) == "[0, 1] 16 False"
    assert len(kept(tmp_path)) == 1


@pytest.mark.once
def test_another_constant_or_state_is_another_kernel(tmp_path: Path) -> None:
    run_nf(tmp_path)
    assert run_nf(tmp_path, limit=100) == "[1, 1] 16 True"
    assert len(kept(tmp_path)) == 2


def cache_file_of(text: str) -> Path | None:
    names: dict[str, Any] = {"np": np, "table": np.zeros(4)}
    exec(text, names)
    return cache.cache_file(names["process_packet"], "", False)


def test_what_try_covers_is_part_of_the_kernel() -> None:
    covered = """
def process_packet(pkt, state):
    try:
        state[0] += 1
        state[1] = state[5]
    except Exception:
        state[2] = 1
"""
    outside = covered.replace("        state[1] = state[5]\n", "")
    outside += "    else:\n        state[1] = state[5]\n"
    assert cache_file_of(covered) == cache_file_of(covered)
    assert cache_file_of(covered) != cache_file_of(outside)


def test_a_kernel_with_a_global_array_is_not_kept() -> None:
    assert cache_file_of("def process_packet(pkt, state):\n    state[0] = table[1]\n") is None


@pytest.mark.once
@pytest.mark.parametrize("damage", ["cut", "flipped", "writable"])
def test_a_file_that_is_not_trusted_is_made_anew(tmp_path: Path, damage: str) -> None:
    run_nf(tmp_path)
    (file,) = kept(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[:100])
    elif damage == "flipped":
        content[-200] ^= 1
        file.write_bytes(content)
    else:
        file.chmod(0o666)
    assert run_nf(tmp_path) == "[0, 1] 16 True"
    assert run_nf(tmp_path) == "[0, 1] 16 False"


class Dividing(NetworkFunction):
    """Raises for a packet of 61 bytes."""

    def setup(self, ctx: Any) -> None:
        self.state = np.zeros(1, np.int64)

    @kernel
    def process_packet(pkt: Any, state: Any) -> Any:
        state[0] += 100 // (pkt.length - 61)


@pytest.mark.parametrize("compiled", [True, False])
def test_what_a_kernel_raises_is_reported(compiled: bool) -> None:
    runner = Runner(Dividing(), compiled=compiled)
    runner.run([bytes(60)])
    with pytest.raises(ZeroDivisionError) as caught:
        runner.run([bytes(60), bytes(61), bytes(60)])
    assert caught.traceback[-1].name == "process_packet"


def test_after_it_has_raised_a_compiled_kernel_drops_everything() -> None:
    runner = Runner(Dividing())
    with pytest.raises(ZeroDivisionError):
        runner.run([bytes(60), bytes(61)])
    before = int(runner.stages[0].nf.state[0])
    assert [int(verdict) for verdict in runner.run([bytes(60)] * 3).verdicts] == [1, 1, 1]
    assert int(runner.stages[0].nf.state[0]) == before
