"""Each NF of the cookbook does what its page says; its types and those of the manual are strict."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")

from onvm_sdk import NetworkFunction, Verdict
from onvm_sdk.source import load_module, source_manifest
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import is_sound, tcp, udp
from onvm_sdk.testing.managed import run_managed

ROOT = Path(__file__).parents[2]
COOKBOOK = (ROOT / "docs" / "cookbook.md").read_text()
FILES = dict(re.findall(r"^`(\w+\.py)`:\n\n```python\n(.*?)^```", COOKBOOK, re.M | re.S))
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "writing-nfs.md").read_text(), re.M | re.S
)
NEXT, DROP, OUT, HOLD = Verdict.NEXT, Verdict.DROP, Verdict.OUT, Verdict.HOLD
Make = Callable[..., Runner]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the cookbook."""
    folder = tmp_path_factory.mktemp("cookbook")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def make(folder: Path, nf_runner: Make) -> Make:
    """Make a runner of a class, with the drop reasons and counters of its manifest."""

    def make(name: str, **options: Any) -> Runner:
        file, kind = name.split(":")
        nf: type[NetworkFunction] = getattr(load_module(str(folder / file)), kind)
        return nf_runner(nf, **options)

    return make


def test_there_are_six_with_a_manifest_that_is_read_without_them(folder: Path) -> None:
    assert len(FILES) == 6
    for name, text in FILES.items():
        kind = re.findall(r"^class (\w+)\(NetworkFunction\)", text, re.M)[0]
        assert source_manifest(f"{folder / name}:{kind}").permissions


def test_top_talkers_are_told(make: Make) -> None:
    runner = make("top_talkers.py:TopTalkers")
    small, large = udp("10.0.0.1", 1, "10.0.0.2", 2), udp("10.0.0.3", 1, "10.0.0.2", 2, bytes(99))
    runner.run([small, large, large, small, bytes(60)])
    reply, _ = runner.send(b"1")
    assert reply == f"10.0.0.3:1 > 10.0.0.2:2 / 17 {2 * len(large)}".encode()
    assert len((runner.send(b"")[0] or b"").splitlines()) == 2
    runner.advance(61)
    assert runner.send(b"")[0] == b""


def test_the_token_bucket_shapes(make: Make) -> None:
    runner = make("token_bucket.py:TokenBucket")
    frame = tcp("10.0.0.1", 1, "10.0.0.2", 2, payload=bytes(946))
    assert len(frame) == 1000
    result = runner.run([frame] * 50)
    assert result.verdicts == [NEXT] * 20 + [HOLD] * 30
    assert result.counters["tokenbucket"]["delayed"] == 30
    assert len(runner.advance(0.010).released) == 10
    assert len(runner.advance(0.015).released) == 15
    assert runner.run([frame]).verdicts == [HOLD]  # behind those that wait
    assert len(runner.advance(1).released) == 6
    result = runner.run([frame] * 500)
    assert [result.verdicts.count(verdict) for verdict in (NEXT, HOLD, DROP)] == [20, 400, 80]
    assert set(result.reasons) == {None, "queue_full"}


def test_arp_is_answered(make: Make) -> None:
    ask = bytes.fromhex(
        "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 0a000009"
        "000000000000 0a000001"
    )
    other = ask[:-1] + b"\x63"
    result = make("arp_responder.py:ArpResponder").run([ask, other, ask[:30]], ports=3)
    assert result.verdicts == [OUT, NEXT, NEXT]
    assert result.destinations[0] == 3
    assert result.packets[0] == bytes.fromhex(
        "020000000001 0200000000fe 0806 0001 0800 06 04 0002 0200000000fe 0a000001"
        "020000000001 0a000009"
    )


def test_dns_answers_need_a_query(make: Make) -> None:
    head = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0)
    query = udp("10.0.0.1", 4000, "8.8.8.8", 53, head)
    answer = udp("8.8.8.8", 53, "10.0.0.1", 4000, b"\0\7\x81\x80" + bytes(1000))
    flood = udp("8.8.8.8", 53, "10.0.0.1", 4001, b"\0\7\x81\x80" + bytes(1000))
    short = udp("8.8.8.8", 53, "10.0.0.1", 4001, b"\0\7\x81\x80" + bytes(100))
    runner = make("dns_guard.py:DnsGuard")
    result = runner.run([query, answer, flood, short, flood[:40]])
    assert result.verdicts == [NEXT, NEXT, DROP, NEXT, NEXT]
    assert result.reasons[2] == "no_query"
    runner.advance(7)
    assert runner.run([answer]).verdicts == [DROP]


def test_vxlan_is_decapsulated(make: Make) -> None:
    inner = udp("10.9.0.1", 1, "10.9.0.2", 2, b"inner")

    def outer(vni: int, port: int = 4789) -> bytes:
        return udp("192.0.2.1", 9, "192.0.2.2", port, struct.pack("!II", 8 << 24, vni << 8) + inner)

    frames = [outer(42), outer(43), outer(42, 4790), inner, outer(42)[:40]]
    result = make("vxlan_decap.py:VxlanDecap").run(frames)
    assert result.verdicts == [NEXT, DROP, NEXT, NEXT, NEXT]
    assert result.packets[0] == inner
    assert is_sound(result.packets[0])
    assert result.reasons[1] == "other_network"
    assert result.counters["vxlandecap"]["decapsulated"] == 1


@pytest.mark.parametrize("compiled", [True, False])
def test_sources_are_limited(make: Make, compiled: bool) -> None:
    if compiled:
        pytest.importorskip("numba")
    runner = make("source_limit.py:SourceLimit", compiled=compiled, config={"rate": 3})
    fast, slow = udp("10.0.0.1", 1, "10.0.0.9", 2), udp("10.0.0.2", 1, "10.0.0.9", 2)
    result = runner.run([fast] * 5 + [slow])
    assert result.verdicts == [NEXT] * 3 + [DROP] * 2 + [NEXT]
    assert result.reasons[4] == "too_fast"
    assert result.counters["sourcelimit"]["limited"] == 2
    runner.advance(1)
    assert runner.run([fast]).verdicts == [NEXT]


def test_a_file_of_the_cookbook_runs_in_a_manager(folder: Path) -> None:
    frames = [udp("10.0.0.1", number, "10.0.0.2", 2, bytes(1000)) for number in range(60)]
    done = run_managed(f"{folder}/token_bucket.py:TokenBucket", frames)
    assert done.packets == frames
    assert done.report["rx"] == done.report["tx"] == 60


def test_mypy_accepts_the_nfs_of_both_pages_strictly(folder: Path) -> None:
    pytest.importorskip("mypy")
    for number, block in enumerate(BLOCKS):
        if "(NetworkFunction)" in block:
            (folder / f"manual_{number}.py").write_text(block)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-incremental"]
    done = subprocess.run(
        [*command, str(folder)],
        env={"PATH": "", "MYPYPATH": _sdk_folder(folder)},
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _sdk_folder(folder: Path) -> str:
    """The SDK's Python files; mypy does not follow the hook of an editable install."""
    link = folder.parent / f"{folder.name}-sdk"
    link.mkdir(exist_ok=True)
    if not (link / "onvm_sdk").exists():
        (link / "onvm_sdk").symlink_to(ROOT / "onvm_sdk")
    return str(link)
