"""``onvm bench``: measure this host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from onvm_core.bench.line import BenchLine
from onvm_core.bench.plot import check_plot, write_plot
from onvm_core.bench.suites import SUITES, run_suite
from onvm_core.cli.options import JsonOption
from onvm_core.cli.output import print_json

__all__ = ["bench"]


def bench(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help=f"One of {', '.join(SUITES)}, or all.")
    ] = "all",
    runs: Annotated[
        int, typer.Option("--runs", min=1, metavar="N", help="Runs of each scenario.")
    ] = 5,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, metavar="S", help="Seconds of each measurement.")
    ] = 1.0,
    plugins: Annotated[
        bool,
        typer.Option(
            "--plugins",
            help="With chain: firewall, NAT and load balancer with 60,000 flows.",
            show_default="the NFs of the benchmark",
        ),
    ] = False,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw the figures, to FILE.png or FILE.svg.",
            show_default="no plot",
        ),
    ] = None,
) -> None:
    """Measure throughput, latency, start-up and recovery.

    Ports are null ports, except in the suites cluster and wire. Nothing else should run meanwhile.
    Figures are medians; compare only runs of one hour.

    Examples:
        onvm bench hop
        onvm bench elastic --runs 3 --json
    """
    if plot is not None:
        check_plot(plot)
    lines: list[BenchLine] = []
    for name in SUITES if suite == "all" else [suite]:
        for line in run_suite(name, runs, seconds, plugins=plugins):
            lines.append(line)
            if not as_json:
                typer.echo(
                    f"{line.name:26} {_figure(line.median):>11} {line.unit:11} "
                    f"{_figure(line.min)} to {_figure(line.max)}"
                )
    if as_json:
        print_json(msgspec.to_builtins(lines))
    if plot is not None:
        title = f"onvm bench {suite}: medians, whiskers from least to greatest"
        write_plot(lines, plot, title=title)


def _figure(value: float) -> str:
    """Five digits or more, so that a line fits 80 columns; JSON has them all."""
    n_decimals = 3 if abs(value) < 100 else 1 if abs(value) < 10_000 else 0
    return f"{value:,.{n_decimals}f}"
