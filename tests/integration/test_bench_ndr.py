"""``onvm bench ndr`` with a real chain, in short trials."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from onvm_core.bench.ndr.latency import PERCENTILES
from onvm_core.bench.ndr.measures import LOADS
from onvm_core.bench.record.record import BenchRecord

pytest.importorskip("MLRsearch")
pytest.importorskip("hdrh")
pytest.importorskip("onvm_nf_firewall")


def test_rates_and_latencies_of_a_chain(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    options = ["--chain", "firewall", "--runs", "1", "--seconds", "0.02", "--csv", str(table)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "onvm_core.cli", "bench", "ndr", "--json", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    record = msgspec.json.decode(done.stdout, type=BenchRecord)
    found = {line.name: line.median for line in record.lines}
    # To 1 %, as both are searched.
    assert 0 < 0.99 * found["ndr.ndr"] <= found["ndr.pdr"]
    for load in LOADS:
        latencies = [found[f"ndr.latency.{load}.{name}"] for name in PERCENTILES]
        assert latencies == sorted(latencies)
    assert found["ndr.latency.90.max"] > 0
    assert "bench ndr --json --chain firewall" in record.environment.command
    with table.open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(found)
