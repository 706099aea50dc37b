"""The manual's page on benchmarks: its commands are right, and the lines it names are printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec

from onvm_core.bench.ndr.latency import PERCENTILES
from onvm_core.bench.ndr.measures import LOADS
from onvm_core.bench.ndr.search import LOSS_RATIOS, RELATIVE_WIDTH
from onvm_core.bench.plugins import FLOWS
from onvm_core.bench.record.environment import Environment
from onvm_core.cli.host.bench import bench
from onvm_core.dataplane.values import DataplaneSettings

PAGE = (Path(__file__).parents[2] / "docs/benchmarking.md").read_text(encoding="utf-8")


def test_options_exist() -> None:
    options = set(re.findall(r"--[a-z]+", PAGE)) - {"--help"}
    known = str(bench.__annotations__) + "--json"
    assert options
    for option in options:
        assert option in known or option.removeprefix("--") in bench.__annotations__, option


def test_suites_of_the_commands_exist() -> None:
    from onvm_core.bench.suites import SUITES

    commands = re.findall(r"^onvm bench .*$", PAGE, re.MULTILINE)
    suites = {shlex.split(command)[2] for command in commands} - {"--compare"}
    assert suites == {"hop", "ndr"}
    assert suites <= set(SUITES)


def test_lines_and_limits_are_those_of_the_suite() -> None:
    for line in re.findall(r"`ndr\.latency\.([\d.a-z_]+)`", PAGE):
        load, _, percentile = line.partition(".")
        assert int(load) in LOADS
        assert percentile in PERCENTILES
    for name in PERCENTILES:
        assert f"`{name}`" in PAGE
    assert f"at most {LOSS_RATIOS['pdr']:.1%} are lost".replace("%", " %") in PAGE
    assert f"to {RELATIVE_WIDTH:.0%}".replace("%", " %") in PAGE
    assert f"{FLOWS:,} flows" in PAGE
    assert f"one of {DataplaneSettings().sample_every} packets" in PAGE


def test_the_environment_is_described() -> None:
    fields = {field.name for field in msgspec.structs.fields(Environment)}
    words = {"cpus": "CPU", "cpu": "CPU", "virtual": "virtual machine", "dpdk": "DPDK"}
    words |= {"python": "Python", "command": "command line"}
    for field in fields - {"memory_mib"}:
        assert words.get(field, field) in PAGE, field
