"""`onvm bench wire` on wires of its own: it measures, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from namespaces import missing

from onvm_core.bench.wire.boxes import BOXES
from onvm_core.bench.wire.suite import check_wire, lines_of, measure_round
from onvm_sdk.errors import ConfigError

SECONDS = 0.2
HOLD = """
from onvm_core.bench.wire.wires import make_wire
with make_wire() as wire:
    print(wire.folder, flush=True)
    wire.start("box", "sleep", "60")
    input()
"""


def _obstacle() -> str:
    if reason := missing("nft", "ping"):
        return reason
    try:
        check_wire()
    except ConfigError as error:
        return str(error)
    return ""


OBSTACLE = _obstacle()
pytestmark = pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "complete")


def _left_of(pid: int) -> list[Path]:
    return list(Path("/run/netns").glob(f"onvmwire{pid}-*"))


def test_a_round_has_all_figures_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    boxes = [box for box in BOXES if box.full_name in ("firewall.kernel", "firewall.onvm")]
    lines = {line.name: line for line in lines_of(boxes, [measure_round(boxes, SECONDS)])}
    for box in ("kernel", "onvm"):
        figures = [name for name in lines if name.startswith(f"wire.firewall.{box}.")]
        assert len([name for name in figures if ".to_" not in name]) == 7
    assert all(line.median > 0 for line in lines.values()), lines
    assert lines["wire.firewall.onvm.ping.to_kernel"].unit == "ratio"
    assert not _left_of(os.getpid())
    assert not list(tmp_path.glob("onvm-wire-*"))


def test_a_wire_is_removed_when_its_process_is_killed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    try:
        assert len(_left_of(process.pid)) == 3
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 20
    while _left_of(process.pid) or folder.exists():
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)
