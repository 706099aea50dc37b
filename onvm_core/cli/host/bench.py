"""``onvm bench``: measure this host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from onvm_core.bench.line import BenchLine
from onvm_core.bench.ndr.suite import check_ndr
from onvm_core.bench.plot import check_plot, write_plot
from onvm_core.bench.plugins import PLUGINS
from onvm_core.bench.record.comparison import Comparison, Ratio, compare
from onvm_core.bench.record.environment import Environment
from onvm_core.bench.record.record import BenchRecord, check_csv, read_record, write_csv
from onvm_core.bench.suites import SUITES, run_suite
from onvm_core.cli.options import JsonOption
from onvm_core.cli.output import print_json
from onvm_core.doctor import dpdk_version
from onvm_sdk.errors import ConfigError

__all__ = ["bench"]


def bench(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help=f"One of {', '.join(SUITES)}, or all.")
    ] = "all",
    runs: Annotated[
        int, typer.Option("--runs", min=1, metavar="N", help="Runs of each scenario.")
    ] = 5,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.01, metavar="S", help="Seconds of each measurement.")
    ] = 1.0,
    chain: Annotated[
        str | None,
        typer.Option(
            "--chain",
            metavar="NF,…",
            help="With ndr: installed NFs, in the order of the chain.",
            show_default=",".join(PLUGINS),
        ),
    ] = None,
    plugins: Annotated[
        bool,
        typer.Option(
            "--plugins",
            help="With chain: firewall, NAT and load balancer with 60,000 flows.",
            show_default="the NFs of the benchmark",
        ),
    ] = False,
    as_json: JsonOption = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Also write the figures to FILE, as comma-separated values.",
            show_default="no file",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw the figures, to FILE.png or FILE.svg.",
            show_default="no plot",
        ),
    ] = None,
    records: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A.json B.json",
            help="Measure nothing; print B's medians divided by A's, and the spread.",
            show_default="measure",
        ),
    ] = None,
) -> None:
    """Measure throughput, latency, start-up and recovery.

    Ports are null ports, except in the suites cluster and wire. Nothing else should run meanwhile.
    Figures are medians; compare only runs of one hour.

    Examples:
        onvm bench hop
        onvm bench ndr --chain firewall,nat,lb --csv ndr.csv
        onvm bench --compare before.json after.json
    """
    if records is not None:
        _print_comparison(compare(*map(read_record, records)), as_json=as_json)
        return
    if plot is not None:
        check_plot(plot)
    if csv is not None:
        check_csv(csv)
    nfs = PLUGINS if chain is None else tuple(chain.split(","))
    if suite == "ndr":
        check_ndr(nfs)
    elif chain is not None:
        raise ConfigError("expected it with the suite ndr", field="--chain", value=chain)
    environment = Environment.read(dpdk_version())
    lines: list[BenchLine] = []
    for line in _measured(suite, runs, seconds, nfs, plugins=plugins):
        lines.append(line)
        if not as_json:
            typer.echo(
                f"{line.name:26} {_figure(line.median):>11} {line.unit:11} "
                f"{_figure(line.min)} to {_figure(line.max)}"
            )
    record = BenchRecord(environment, lines)
    if as_json:
        print_json(msgspec.to_builtins(record))
    if csv is not None:
        write_csv(record, csv)
    if plot is not None:
        title = f"onvm bench {suite}: medians, whiskers from least to greatest"
        write_plot(lines, plot, title=title)


def _measured(
    suite: str, runs: int, seconds: float, chain: tuple[str, ...], *, plugins: bool
) -> Iterator[BenchLine]:
    for name in SUITES if suite == "all" else [suite]:
        yield from run_suite(name, runs, seconds, plugins=plugins, chain=chain)


def _print_comparison(comparison: Comparison, *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(comparison))
        return
    for name, (first, second) in comparison.environment.items():
        typer.echo(f"differs: {name}: {first} | {second}")
    for ratio in comparison.ratios:
        typer.echo(_ratio_line(ratio))
    for name in comparison.missing:
        typer.echo(f"in one record only: {name}")


def _ratio_line(ratio: Ratio) -> str:
    medians = f"{_figure(ratio.first)} to {_figure(ratio.second)} {ratio.unit}"
    if ratio.ratio is None or ratio.least is None or ratio.greatest is None:
        return f"{ratio.name:26} {'-':>7}  {medians}"
    apart = "  apart" if ratio.is_apart else ""
    spread = f"{ratio.least:.3f} to {ratio.greatest:.3f}"
    return f"{ratio.name:26} {ratio.ratio:7.3f}  {spread:16}  {medians}{apart}"


def _figure(value: float) -> str:
    """Five digits or more, so that a line fits 80 columns; JSON has them all."""
    n_decimals = 3 if abs(value) < 100 else 1 if abs(value) < 10_000 else 0
    return f"{value:,.{n_decimals}f}"
