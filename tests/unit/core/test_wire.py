"""`onvm bench wire`: how its figures come about, without a wire."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from onvm_core.bench.line import BenchLine
from onvm_core.bench.suites import run_suite
from onvm_core.bench.wire import suite
from onvm_core.bench.wire.boxes import BOXES, CABLE
from onvm_core.bench.wire.measures import MEASURES, UNITS, idle_s, ping_times_us
from onvm_core.bench.wire.suite import lines_of

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results.py"

PING = """\
PING 10.7.0.2 (10.7.0.2) 56(84) bytes of data.
64 bytes from 10.7.0.2: icmp_seq=1 ttl=64 time=0.023 ms
64 bytes from 10.7.0.2: icmp_seq=3 ttl=64 time=1.50 ms
64 bytes from 10.7.0.2: icmp_seq=4 ttl=64 time=12 ms

--- 10.7.0.2 ping statistics ---
4 packets transmitted, 3 received, 25% packet loss, time 9ms
rtt min/avg/max/mdev = 0.023/4.507/12.000/0.012 ms
"""
STAT = """\
cpu  100 200 300 4000 500 60 70 500 0 0
cpu0 50 100 150 2000 250 30 35 250 0 0
cpu1 50 100 150 2000 250 30 35 250 0 0
intr 1 2 3
"""


def test_round_trip_times_are_those_of_answers() -> None:
    assert ping_times_us(PING) == pytest.approx([23, 1500, 12000])
    assert ping_times_us("") == []


def test_idle_time_is_the_mean_of_the_cpus() -> None:
    assert idle_s(STAT) == pytest.approx((4000 + 500 + 500) / os.sysconf("SC_CLK_TCK") / 2)


def _round(factor: float, speed: float) -> suite.Round:
    """A round in which everything is `factor` times the kernel's, on a machine of that speed."""
    figures: suite.Round = {}
    for box in BOXES:
        names = [
            name
            for name in UNITS
            if not box.only or name.partition("_")[0].split(".")[0] in box.only
        ]
        value = speed * (factor if box.baseline else 1.0)
        figures[box.full_name] = dict.fromkeys([n for n in names if n != "cpu.box"], value)
    figures[CABLE.full_name]["cpu"] = speed / 2
    return figures


def test_ratios_are_those_of_each_round_and_not_of_medians() -> None:
    # Each round is on a faster or slower machine than the one before.
    rounds = [_round(0.5, 100), _round(0.9, 1), _round(0.7, 10)]
    lines = {line.name: line for line in lines_of(BOXES, rounds)}
    ratio = lines["wire.firewall.onvm.tcp_1.to_kernel"]
    assert (ratio.unit, ratio.median, ratio.min, ratio.max) == ("ratio", 0.7, 0.5, 0.9)
    assert lines["wire.firewall.kernel.tcp_1"].median == 10
    assert lines["wire.firewall.onvm_bare.tcp_10.to_kernel_bare"].median == 0.7
    assert lines["wire.firewall.onvm_busy.ping.to_kernel"].median == 0.7
    assert "wire.firewall.onvm_busy.tcp_1" not in lines


def test_cpu_of_a_box_leaves_the_ends_out() -> None:
    lines = {line.name: line for line in lines_of(BOXES, [_round(2.0, 10)])}
    assert lines["wire.firewall.cable.cpu"].median == 5
    assert lines["wire.firewall.kernel.cpu.box"].median == 5
    assert lines["wire.firewall_nat_lb.onvm.cpu.box"].median == 15
    assert lines["wire.firewall_nat_lb.onvm.cpu.box.to_kernel"].median == 3
    assert "wire.firewall.cable.cpu.box" not in lines


def test_rounds_without_a_figure_of_the_baseline_have_no_ratio() -> None:
    rounds = [_round(0.5, 100), _round(0.5, 100)]
    rounds[0]["firewall.kernel"]["tcp_1"] = 0.0
    lines = {line.name: line for line in lines_of(BOXES, rounds)}
    assert lines["wire.firewall.onvm.tcp_1"].runs == 2
    assert lines["wire.firewall.onvm.tcp_1.to_kernel"].runs == 1
    rounds[1]["firewall.kernel"]["tcp_1"] = 0.0
    assert "wire.firewall.onvm.tcp_1.to_kernel" not in {
        line.name for line in lines_of(BOXES, rounds)
    }


def test_each_box_comes_after_its_baseline() -> None:
    seen: set[tuple[str, str]] = set()
    for box in BOXES:
        assert not box.baseline or (box.function, box.baseline) in seen
        assert set(box.only) <= set(MEASURES)
        seen.add((box.function, box.name))


@pytest.mark.parametrize(
    ("is_root", "lacking", "reason"),
    [
        (False, "", "wire: expected root, for network namespaces; use sudo"),
        (True, "ip", "wire: expected ip; run: apt-get install iproute2"),
        (True, "nft", "wire: expected nft; run: apt-get install nftables"),
    ],
)
def test_one_line_says_why_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_root: bool,
    lacking: str,
    reason: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == lacking else f"/bin/{tool}")
    assert list(run_suite("wire", 1, 0.1)) == []
    assert capsys.readouterr().err == f"not measured: {reason}\n"


def test_lacking_nfs_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/bin/{tool}")
    monkeypatch.setattr(suite, "discover", list)
    assert list(run_suite("wire", 1, 0.1)) == []
    assert "expected installed NFs: firewall, lb, nat" in capsys.readouterr().err


def _write_results(output: Path, lines: list[BenchLine]) -> str:
    wire = output.with_name("wire.json")
    wire.write_bytes(msgspec.json.encode({"lines": lines}))
    subprocess.run(
        [sys.executable, "-P", str(RESULTS), "--wire", str(wire), "--output", str(output)],
        check=True,
    )
    return output.read_text(encoding="utf-8")


def test_results_page_gets_one_section_on_wires(tmp_path: Path) -> None:
    output = tmp_path / "RESULTS.md"
    output.write_text("# Results\n\nold\n\n## What falls short\n\nmuch\n", encoding="utf-8")
    _write_results(output, list(lines_of(BOXES, [_round(2.0, 10)])))
    page = _write_results(output, list(lines_of(BOXES, [_round(0.5, 10)] * 5)))
    assert page.count("## Wires") == 1
    assert page.startswith("# Results\n\nold\n\n## What falls short\n\nmuch\n\n## Wires\n\n")
    assert " 5 rounds of `onvm bench wire --json`" in page
    row = "| firewall | onvm | tcp_1 | Gbit/s | 5.000 | 10.000 | 0.50 (0.50 to 0.50) | >= 1 | no |"
    assert row in page
    assert (
        "| firewall | onvm_busy | ping | us | 5.000 | 10.000 | 0.50 (0.50 to 0.50) | <= 1.5 | yes |"
        in page
    )
    _write_results(output, list(lines_of(BOXES, [_round(2.0, 10)])))
