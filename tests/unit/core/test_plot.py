"""Pictures of benchmark figures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onvm_core.bench.line import BenchLine
from onvm_core.bench.plot import check_plot, panels_of, write_plot
from onvm_sdk.errors import ConfigError

LINES = [
    BenchLine.of("elastic.out.launch", "ms", [120, 150, 140]),
    BenchLine.of("elastic.out.launch.moved", "flows", [0, 0]),
    BenchLine.of("elastic.spread.2", "points", [1.5]),
    BenchLine.of("elastic.spread.2.estimate", "% off", [4.0]),
    BenchLine.of("elastic.through.sandbox", "of process", [0.99, 1.01]),
    BenchLine.of("elastic.hang.seen", "ms", [450.0]),
    BenchLine.of("elastic.restart.beside", "ms", [900.0]),
    BenchLine.of("cluster.join", "ms", [380.0]),
    BenchLine.of("cluster.join.tables", "ms", [25.0]),
    BenchLine.of("cluster.scale", "ms", [160.0]),
    BenchLine.of("cluster.scale.outside", "ms", [90.0]),
    BenchLine.of("cluster.failover.kill.new", "ms", [150.0]),
    BenchLine.of("cluster.hop.remote", "Mpps", [0.4]),
    BenchLine.of("cluster.rtt.remote.p99", "us", [120.0]),
    BenchLine.of("hop.c", "Mpps", [40.0, 42.0]),
    BenchLine.of("hop.packets", "Mpps", [0.8, 0.9]),
    BenchLine.of("latency.busy", "us", [9.0]),
]


def test_each_line_is_in_one_panel_of_its_unit() -> None:
    panels = panels_of(LINES)
    assert sorted(line.name for panel in panels for line in panel.lines) == sorted(
        line.name for line in LINES
    )
    assert all({line.unit for line in panel.lines} == {panel.unit} for panel in panels)
    goals = {line.name: panel.goal(line) for panel in panels for line in panel.lines}
    assert goals["elastic.out.launch"] == 300
    assert (goals["cluster.join"], goals["cluster.join.tables"]) == (None, 200)
    assert (goals["cluster.scale"], goals["cluster.scale.outside"]) == (1000, 150)
    assert goals["cluster.failover.kill.new"] == 1000
    assert goals["elastic.through.sandbox"] == 0.97
    assert goals["hop.c"] is None


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_picture_is_written(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / name
    check_plot(path)
    write_plot(LINES, path, title="figures")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if name == "a.png" else b"<?xml")
    assert len(content) > 5000


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"expected a name that ends with .png or .svg"):
        check_plot(tmp_path / "a.pdf")
    with pytest.raises(ConfigError, match="expected a file in an existing folder"):
        check_plot(tmp_path / "none" / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'onvm\[plot\]'"):
        check_plot(tmp_path / "a.png")
