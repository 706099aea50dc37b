"""Records of benchmarks: the environment, tables, comparisons."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from onvm_core.bench.line import BenchLine
from onvm_core.bench.record.comparison import compare
from onvm_core.bench.record.environment import Environment
from onvm_core.bench.record.record import BenchRecord, read_record, write_csv
from onvm_sdk.errors import ConfigError

ONVM = [sys.executable, "-P", "-m", "onvm_core.cli"]
CPUINFO = """\
processor : 0
model name : Test CPU 3000
flags : fpu hypervisor avx2

processor : 1
model name : Other
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    cpus = tmp_path / "sys/devices/system/cpu"
    for number, governor in enumerate(("powersave", "performance", "powersave")):
        folder = cpus / f"cpu{number}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(governor + "\n")
    (cpus / "isolated").write_text("2-3\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO)
    return tmp_path


def record_of(cpu: str = "x", **values: list[float]) -> BenchRecord:
    environment = msgspec.structs.replace(Environment.read("22.11", ["onvm", "bench"]), cpu=cpu)
    lines = [BenchLine.of(name, "Mpps", figures) for name, figures in values.items()]
    return BenchRecord(environment, lines)


def write(record: BenchRecord, path: Path) -> Path:
    path.write_bytes(msgspec.json.encode(record))
    return path


def test_the_environment_is_that_of_the_machine(machine: Path) -> None:
    found = Environment.read("22.11", ["/usr/bin/onvm", "bench", "a b"], machine)
    assert found.cpu == "Test CPU 3000"
    assert found.governor == "performance, powersave"
    assert found.isolated == "2-3"
    assert found.virtual
    assert found.command == "onvm bench 'a b'"
    assert found.dpdk == "22.11"
    assert found.kernel == Path("/proc/sys/kernel/osrelease").read_text().strip()


def test_what_a_machine_does_not_tell_is_unknown(tmp_path: Path) -> None:
    found = Environment.read("22.11", [], tmp_path)
    assert (found.governor, found.isolated, found.virtual) == ("unknown", "unknown", False)


def test_a_table_has_the_lines_and_the_environment(tmp_path: Path) -> None:
    write_csv(record_of("A, B", hop=[1, 2, 3]), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["name"], row["median"], row["max"], row["cpu"]) == ("hop", "2", "3", "A, B")


def test_ratios_have_the_spread_of_all_runs() -> None:
    found = compare(
        record_of(hop=[2.0, 2.2, 1.8], chain=[1.0], old=[1.0]),
        record_of("y", hop=[3.0, 3.3, 2.7], chain=[0.0], new=[1.0]),
    )
    hop, chain = found.ratios
    assert (hop.ratio, hop.least, hop.greatest) == (1.5, 1.2273, 1.8333)
    assert hop.is_apart
    assert (chain.ratio, chain.is_apart) == (0.0, True)
    assert found.missing == ["old", "new"]
    assert found.environment == {"cpu": ("x", "y")}


def test_overlapping_runs_are_not_apart() -> None:
    found = compare(record_of(hop=[2.0, 3.0]), record_of(hop=[2.9, 4.0]))
    assert not found.ratios[0].is_apart


def test_a_ratio_to_zero_is_none() -> None:
    (ratio,) = compare(record_of(lost=[0.0]), record_of(lost=[1.0])).ratios
    assert (ratio.ratio, ratio.is_apart) == (None, False)


def test_records_without_a_common_line_are_refused() -> None:
    with pytest.raises(ConfigError, match="--compare: expected two records with a line in common"):
        compare(record_of(a=[1]), record_of(b=[1]))


@pytest.mark.parametrize("text", ["", "[]", '{"lines": []}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"a\.json: expected what onvm bench --json prints"):
        read_record(path)


def test_the_command_prints_ratios(tmp_path: Path) -> None:
    first = write(record_of(hop=[2.0, 2.2, 1.8]), tmp_path / "a.json")
    second = write(record_of("y", hop=[3.0, 3.3, 2.7]), tmp_path / "b.json")
    command = [*ONVM, "bench", "--compare", str(first), str(second)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    differs, line = text.splitlines()
    assert differs == "differs: cpu: x | y"
    assert line.split() == (
        ["hop", "1.500", "1.227", "to", "1.833", "2.000", "to", "3.000", "Mpps", "apart"]
    )
    assert len(line) <= 80
    printed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert msgspec.json.decode(printed.stdout)["ratios"][0]["ratio"] == 1.5
