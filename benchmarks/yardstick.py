"""Compare the data plane with a yardstick program, run alternately.

    python -P benchmarks/yardstick.py FOLDER [--columns COLUMNS] [--pairs 5] [--only hop.c]
        [--python PYTHON]

FOLDER holds the built experiments that the design was measured with: ``mgr`` (a manager), ``nf``
(an NF in C) and ``pynf.py`` (an NF in Python, for which PYTHON has NumPy and the built module). Its
descriptors have 8 bytes, ours 16: for a comparison of columns like for like, COLUMNS is a copy of
FOLDER with a module for those of 16 (``desc16_t D``, and 16 for 8 in its calls of ``NF_deq`` and
``NF_enq_all``).

Machines like virtual ones have a fast and a slow mode, so only ratios of neighbouring runs mean
something: each pair is one run of theirs and one of ours, and the median of the ratios counts.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from onvm_core.bench.scenario import run_scenario
from onvm_core.bench.suites import chain_scenario, hop_scenario

EAL = [
    "--no-huge",
    "--no-shconf",
    "--no-pci",
    "-l",
    "0",
    "--no-telemetry",
    "-m",
    "192",
    "--vdev",
    "net_null0,size=64",
    "--vdev",
    "net_null1,size=64",
    "--",
]


class Yardstick:
    """The other program."""

    def __init__(self, folder: Path, python: str, seconds: float) -> None:
        self._folder = folder
        self._python = python
        self._seconds = seconds

    def run(self, nf: str, *options: str) -> float:
        """Packets done per second, in millions."""
        with tempfile.TemporaryDirectory() as directory:
            socket = f"{directory}/x.sock"
            command = [
                "./mgr",
                *EAL,
                "--sock",
                socket,
                "--lay",
                "2",
                "--fill",
                "1",
                "--secs",
                str(self._seconds),
                *options,
                "--nf",
                nf.format(socket=socket, python=self._python),
            ]
            done = subprocess.run(
                command, cwd=self._folder, capture_output=True, text=True, timeout=120, check=True
            )
        found = re.search(r"done=([0-9.]+)", done.stdout)
        if found is None:
            sys.exit(f"no result from {' '.join(command)}:\n{done.stdout}{done.stderr}")
        return float(found.group(1))


def pairs(
    yardstick: Yardstick, columns: Yardstick, descriptor: int, seconds: float
) -> dict[str, tuple[Callable[[], float], ...]]:
    """Theirs and ours, by name of the figure."""

    def ours(scenario: object) -> Callable[[], float]:
        return lambda: run_scenario(scenario)["mpps"]  # type: ignore[arg-type]

    table: dict[str, tuple[Callable[[], float], ...]] = {
        "hop.c": (
            lambda: yardstick.run("./nf {socket} 2 1 1", "--desc", "16", "--batch", "64"),
            ours(hop_scenario("c", seconds)),
        ),
        "hop.packets": (
            lambda: yardstick.run(
                "{python} pynf.py {socket} mv 256", "--desc", "8", "--batch", "64"
            ),
            ours(hop_scenario("packets", seconds)),
        ),
    }
    for n in (1, 2, 3, 5):
        table[f"chain.fused.{n}"] = (
            lambda n=n: yardstick.run(f"./nf {{socket}} 2 {n} 1", "--desc", "16", "--batch", "64"),
            ours(chain_scenario("fused", n, seconds)),
        )
        table[f"chain.processes.{n}"] = (
            lambda n=n: yardstick.run(
                "./nf {socket} 2 1 1",
                "--desc",
                "16",
                "--batch",
                "64",
                "--wait",
                "2",
                "--nfs",
                str(n),
            ),
            ours(chain_scenario("processes", n, seconds)),
        )
    for burst in (256, 1024, 2048):
        table[f"hop.columns.{burst}"] = (
            lambda burst=burst: columns.run(
                f"{{python}} pynf.py {{socket}} soa {burst}",
                "--desc",
                str(descriptor),
                "--batch",
                "64",
                "--ring",
                str(max(1024, burst * 2)),
            ),
            ours(hop_scenario(f"columns.{burst}", seconds)),
        )
    return table


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--columns", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    yardstick = Yardstick(options.folder, options.python, options.seconds)
    columns = Yardstick(options.columns or options.folder, options.python, options.seconds)
    descriptor = 16 if options.columns else 8
    print(f"{'figure':20} {'theirs':>8} {'ours':>8} {'ratio':>7}  (medians, Mpps; ratios of pairs)")
    for name, (theirs, ours) in pairs(yardstick, columns, descriptor, options.seconds).items():
        if options.only and name not in options.only:
            continue
        runs = [(theirs(), ours()) for _ in range(options.pairs)]
        ratios = [own / other for other, own in runs]
        print(
            f"{name:20} {statistics.median(r[0] for r in runs):8.2f} "
            f"{statistics.median(r[1] for r in runs):8.2f} {statistics.median(ratios):7.2f}  "
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
