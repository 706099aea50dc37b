"""Exporters: what they write, and that a slow or broken one does no harm."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snapshots import LOAD, nf, snapshot

from onvm_core.export.jsonl import JsonLines
from onvm_core.export.prometheus import Prometheus, exposition, text_of
from onvm_core.export.report import PeerReport
from onvm_core.export.runner import Exporters, PlannedExporter
from onvm_core.export.snapshot import Snapshot
from onvm_sdk.errors import ConfigError

# ---- jsonl ----


def test_each_snapshot_is_a_line(tmp_path: Path) -> None:
    with JsonLines({"file": "out.jsonl"}, tmp_path) as exporter:
        exporter.export(snapshot(nf(), number=1))
        (tmp_path / "out.jsonl").rename(tmp_path / "rotated")
        exporter.export(snapshot(nf(), number=2))
        exporter.export(snapshot(nf(), number=3))
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=Snapshot).uptime_s for line in lines] == [2, 3]
    assert len((tmp_path / "rotated").read_bytes().splitlines()) == 1


# ---- prometheus ----

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})\{{({LABEL}(?:,{LABEL})*)\}} (\S+)")


def read(text: str) -> dict[str, dict[str, float]]:
    """The text format, checked as strictly as its specification allows; series by metric."""
    assert text.endswith("\n")
    families: dict[str, dict[str, float]] = {}
    current = ""
    for line in text.removesuffix("\n").split("\n"):  # the format knows no other line end
        if line.startswith("# HELP "):
            current = line.split(" ")[2]
            assert current not in families, "one group for each metric"
            families[current] = {}
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current
            assert kind == ("counter" if name.endswith("_total") else "gauge")
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert match[1] == current
        assert match[2] not in families[current], "one value for each series"
        families[current][match[2]] = float(match[3])
    return families


def test_exposition_has_every_series_once() -> None:
    found = read(exposition(snapshot(nf(), nf(instance="nat-2", state="standby", load=None))))
    nat_1 = 'manager="main",service="nat",instance="nat-1"'
    assert found["onvm_nf_received_packets_total"][nat_1] == 10
    assert found["onvm_nf_dropped_packets_total"][f'{nat_1},reason="rule"'] == 2
    assert found["onvm_nf_counter_total"][f'{nat_1},counter="hits"'] == 7
    assert found["onvm_nf_utilisation_ratio"] == {nat_1: 0.75}
    assert found["onvm_nf_instances"] == {
        'manager="main",service="nat",state="active"': 1,
        'manager="main",service="nat",state="standby"': 1,
    }
    assert found["onvm_buffers"]['manager="main",holder="manager"'] == 6


def test_peers_of_a_cluster_are_series() -> None:
    peers = [PeerReport("b", True, 5, 6), PeerReport("c", False, 7, 0)]
    families = read(exposition(msgspec.structs.replace(snapshot(), peers=peers)))
    assert list(families["onvm_peer_up"].values()) == [1, 0]
    assert list(families["onvm_peer_sent_packets_total"].values()) == [5, 7]
    text = text_of({"agent_leads": ("1 if it leads.", 1)}, (("host", 'a"b'),))
    assert list(read(text)["onvm_agent_leads"].values()) == [1]


def test_dead_instance_and_its_successor_are_one_series() -> None:
    found = read(exposition(snapshot(nf(state="crashed", load=None, rx=5), nf(rx=7))))
    assert list(found["onvm_nf_received_packets_total"].values()) == [12]
    assert list(found["onvm_nf_instances"].values()) == [1]


@given(st.text(max_size=20), st.text(max_size=20), st.floats())
def test_any_name_and_value_can_be_read_back(name: str, reason: str, value: float) -> None:
    one = nf(
        instance=name, drops={reason: 1}, load=msgspec.structs.replace(LOAD, utilisation=value)
    )
    found = read(exposition(snapshot(one, manager=name)))
    assert len(found["onvm_nf_dropped_packets_total"]) == 1
    assert len(found["onvm_nf_utilisation_ratio"]) == 1


def test_file_is_replaced_whole_and_goes_with_the_manager(tmp_path: Path) -> None:
    with Prometheus({"file": "onvm.prom"}, tmp_path) as exporter:
        exporter.export(snapshot(nf()))
        file = tmp_path / "onvm.prom"
        before = file.stat().st_ino
        with file.open() as old:
            exporter.export(snapshot(nf(rx=99)))
            assert 'instance="nat-1"} 10' in old.read()
        assert file.stat().st_ino != before
        assert file.stat().st_mode & 0o777 == 0o644
        assert [path.name for path in tmp_path.iterdir()] == ["onvm.prom"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "options", "line"),
    [
        (JsonLines, {}, "file: expected the path of a file"),
        (JsonLines, {"file": 3}, "file: 3: expected the path of a file"),
        (JsonLines, {"file": "a", "fil": "b"}, "fil: 'b': expected only file"),
        (JsonLines, {"file": "none/a"}, "file: "),
        (Prometheus, {"file": "a.txt"}, "file: 'a.txt': expected the path of a file that ends"),
    ],
)
def test_mistake_is_one_line(kind: Any, options: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(options, tmp_path)
    assert str(caught.value).startswith(line)


# ---- the runner ----


class Probe:
    """An exporter that does what a test says."""

    def __init__(self, act: Callable[[int], None] = lambda number: None) -> None:
        self.seen: list[int] = []
        self.is_open = False
        self._act = act

    def __enter__(self) -> Self:
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def export(self, taken: Snapshot) -> None:
        self._act(int(taken.uptime_s))
        self.seen.append(int(taken.uptime_s))


@pytest.fixture
def run() -> Iterator[Callable[..., Exporters]]:
    made: list[Exporters] = []

    def start(**probes: Probe) -> Exporters:
        numbers = iter(range(1, 10_000))
        planned = {name: PlannedExporter("probe", 0.0, probe) for name, probe in probes.items()}
        made.append(Exporters(planned, lambda: snapshot(number=next(numbers))))
        return made[-1]

    yield start
    for exporters in made:
        exporters.close()


def until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_slow_exporter_gets_the_newest_and_delays_nobody(
    run: Callable[..., Exporters],
) -> None:
    gate = threading.Event()
    slow, quick = Probe(lambda number: gate.wait(10) and None), Probe()
    exporters = run(slow=slow, quick=quick)
    try:
        for number in range(1, 21):
            exporters.turn()
            until(lambda wanted=number: len(quick.seen) == wanted)
    finally:
        gate.set()
    until(lambda: 20 in slow.seen)
    assert quick.seen == list(range(1, 21))
    assert slow.seen[-4:] == [17, 18, 19, 20]
    by_name = {report.name: report for report in exporters.reports()}
    assert by_name["slow"].dropped == 20 - len(slow.seen) >= 15
    assert by_name["quick"].dropped == 0


def test_exporter_that_raises_is_reported_once_and_left_alone(
    run: Callable[..., Exporters], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(number: int) -> None:
        raise RuntimeError("disk full")

    broken, good = Probe(fail), Probe()
    exporters = run(broken=broken, good=good)
    exporters.turn()
    until(lambda: bool(exporters.reports()[0].problem))
    for number in range(2, 6):
        exporters.turn()
        until(lambda wanted=number: len(good.seen) == wanted)
    assert exporters.reports()[0].problem == "raised RuntimeError: disk full"
    assert broken.seen == []
    assert not broken.is_open
    assert len([r for r in caplog.records if "disk full" in r.getMessage()]) == 1


def test_last_figures_are_handed_out_at_the_end(run: Callable[..., Exporters]) -> None:
    probe = Probe()
    exporters = run(one=probe)
    exporters.close()
    assert probe.seen == [1]
    assert not probe.is_open
