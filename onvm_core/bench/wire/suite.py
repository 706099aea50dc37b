"""The suite "wire": rounds over all boxes, and ratios of neighbouring runs.

Lines are named `wire.FUNCTION.BOX.FIGURE`; the ratio of a box's figure to that of its baseline has
`.to_BASELINE` behind that. `cpu` is the whole machine's time; `cpu.box` is that without what client
and server take when they are connected directly.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence

from onvm_core.bench.line import BenchLine
from onvm_core.bench.wire.boxes import BOXES, CABLE, NFS, Box
from onvm_core.bench.wire.measures import MEASURES, UNITS, wait_reachable
from onvm_core.bench.wire.wires import make_wire
from onvm_core.cluster.dev.namespaces import check_spaces
from onvm_core.plugins import discover
from onvm_sdk.errors import ConfigError

__all__ = ["check_wire", "lines_of", "measure_round", "wire"]

TOOLS = {"ethtool": "ethtool", "nft": "nftables", "ping": "iputils-ping"}
"""Programs, and the Debian packages that have them."""

Round = dict[str, dict[str, float]]
"""Figures by name, by the full name of their box."""


def check_wire() -> None:
    """Check that the suite can run here.

    Raises:
        ConfigError: this user may not make namespaces, or something is not installed.
    """
    check_spaces("wire")
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise ConfigError(f"expected {tool}; run: apt-get install {package}", field="wire")
    lacking = set(NFS) - {package.name for package in discover()}
    if lacking:
        names = ", ".join(sorted(lacking))
        raise ConfigError(f"expected installed NFs: {names}", field="wire")


def wire(runs: int, seconds: float) -> Iterator[BenchLine]:
    """Measure all boxes `runs` times, and yield lines; where that is impossible, say why."""
    try:
        check_wire()
    except ConfigError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return
    rounds = [measure_round(BOXES, seconds, is_reversed=bool(n % 2)) for n in range(runs)]
    yield from lines_of(BOXES, rounds)


def measure_round(boxes: Sequence[Box], seconds: float, *, is_reversed: bool = False) -> Round:
    """Measure each box once.

    Args:
        is_reversed: take them from the last to the first, so that none is always the second one.
    """
    figures: Round = {}
    for box in reversed(boxes) if is_reversed else boxes:
        figures[box.full_name] = _measure(box, seconds)
    return figures


def _measure(box: Box, seconds: float) -> dict[str, float]:
    figures: dict[str, float] = {}
    with make_wire(has_offloads=box.has_offloads, has_box=box.has_box) as made, box.start(made):
        wait_reachable(made, box.ends.host)
        for name, measure in MEASURES.items():
            if not box.only or name in box.only:
                figures |= measure(made, box.ends, seconds)
    return figures


def lines_of(boxes: Sequence[Box], rounds: Sequence[Round]) -> Iterator[BenchLine]:
    """Medians of figures, and medians of the ratios of each round."""
    rounds = [_with_box_cpu(figures) for figures in rounds]
    for box in boxes:
        name = box.full_name
        for figure in rounds[0][name]:
            column = [one[name][figure] for one in rounds]
            yield BenchLine.of(f"wire.{name}.{figure}", UNITS[figure], column)
            if not box.baseline:
                continue
            base = f"{box.function}.{box.baseline}"
            bases = [one[base][figure] for one in rounds]
            # A difference of CPU times may vanish on a machine that has other work.
            ratios = [one / two for one, two in zip(column, bases, strict=True) if two > 0]
            if ratios:
                yield BenchLine.of(f"wire.{name}.{figure}.to_{box.baseline}", "ratio", ratios)


def _with_box_cpu(figures: Mapping[str, Mapping[str, float]]) -> Round:
    """Add what the box itself takes, if the ends were measured without one."""
    ends = figures.get(CABLE.full_name, {}).get("cpu")
    made: Round = {}
    for name, of_box in figures.items():
        made[name] = dict(of_box)
        if ends is not None and "cpu" in of_box and name != CABLE.full_name:
            made[name]["cpu.box"] = of_box["cpu"] - ends
    return made
