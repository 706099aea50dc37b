"""Pictures of benchmark lines: bars of the medians, whiskers from the least to the greatest run.

matplotlib is an extra (``onvm[plot]``), and is imported only to draw a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from onvm_core.bench.line import BenchLine
from onvm_sdk.errors import ConfigError

__all__ = ["FORMATS", "Panel", "check_plot", "panels_of", "write_plot"]

FORMATS = (".png", ".svg")
BAR_COLOUR, GOAL_COLOUR = "#4477aa", "#cc3311"
LABEL_BOX = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
ROW_INCHES = 0.3
PANEL_INCHES = 0.9
LOG_RATIO = 50.0


@dataclass(frozen=True)
class Panel:
    """Bars that share an axis.

    Attributes:
        goals: the wanted value, by the name of a line; "*" is all lines.
        is_least: whether goals are lower limits, not upper ones.
    """

    title: str
    unit: str
    lines: tuple[BenchLine, ...]
    goals: dict[str, float]
    is_least: bool = False

    def goal(self, line: BenchLine) -> float | None:
        """The goal of a line."""
        return next((v for k, v in self.goals.items() if fnmatchcase(line.name, k)), None)


_PANELS: tuple[tuple[str, tuple[str, ...], dict[str, float], bool], ...] = (
    (
        "From a load step to a new instance that serves",
        ("elastic.out.*",),
        {"elastic.out.launch": 300, "elastic.out.spare": 50},
        False,
    ),
    ("Running flows that moved on scale-out", ("elastic.out.*.moved",), {"*": 0}, False),
    ("Spread of utilisation between unequal instances", ("elastic.spread.*",), {"*": 10}, False),
    (
        "Error of the estimated capacity",
        ("elastic.estimate.*", "elastic.spread.*.estimate"),
        {"*": 10},
        False,
    ),
    ("Start of an NF until its first packet", ("elastic.start.*",), {}, False),
    ("Throughput against a plain process", ("elastic.through.*",), {"*": 0.97}, True),
    (
        "A failure is seen",
        ("elastic.crash.seen", "elastic.hang.seen"),
        {"elastic.crash.seen": 5, "elastic.hang.seen": 500},
        False,
    ),
    (
        "Longest pause of traffic",
        ("elastic.crash.gap", "elastic.hang.gap", "elastic.restart*"),
        {"elastic.restart.without_eal": 200},
        False,
    ),
    (
        "A change of the cluster, until the tables of all hosts follow",
        ("cluster.join.tables", "cluster.leave", "cluster.chain", "cluster.nf"),
        {"*": 200},
        False,
    ),
    (
        "Start of an agent, until the tables of all hosts have its host",
        ("cluster.join",),
        {},
        False,
    ),
    (
        "A scale request, until all hosts have the new instance on another one",
        ("cluster.scale", "cluster.scale.*"),
        {"cluster.scale": 1000, "cluster.scale.outside": 150},
        False,
    ),
    (
        "A host with an instance is cut off, or dies",
        ("cluster.failover.*",),
        {"cluster.failover.*.new": 1000, "cluster.failover.*.views": 200},
        False,
    ),
    ("Throughput of a hop here and at a peer", ("cluster.hop.*",), {}, False),
    ("Time to a server and back, over a hop here and at a peer", ("cluster.rtt.*",), {}, False),
)
"""Titles, names, goals and whether they are least values, of some suites; of one unit."""
_UNITS = {
    "From a load step to a new instance that serves": "ms",
    "Running flows that moved on scale-out": "flows",
    "Spread of utilisation between unequal instances": "points",
    "Error of the estimated capacity": "% off",
}


def check_plot(path: Path) -> None:
    """Check that a picture can be made, before anything is measured.

    Raises:
        ConfigError: the format is unknown, the folder is missing, or matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"expected a name that ends with {' or '.join(FORMATS)}",
            field="--plot",
            value=str(path),
        )
    if not path.absolute().parent.is_dir():
        raise ConfigError("expected a file in an existing folder", field="--plot", value=str(path))
    _pyplot()


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError:
        raise ConfigError(
            "expected matplotlib; run: pip install 'onvm[plot]'", field="--plot"
        ) from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def panels_of(lines: Sequence[BenchLine]) -> list[Panel]:
    """Sort lines into panels: those of some suites by subject, others by unit."""
    left = list(lines)
    panels = []
    for title, patterns, goals, is_least in _PANELS:
        unit = _UNITS.get(title)
        found = [
            line
            for line in left
            if any(fnmatchcase(line.name, pattern) for pattern in patterns)
            and (unit is None or line.unit == unit)
        ]
        if found:
            panels.append(Panel(title, found[0].unit, tuple(found), goals, is_least))
            left = [line for line in left if line not in found]
    groups: dict[tuple[str, str], list[BenchLine]] = {}
    for line in left:
        groups.setdefault((line.name.partition(".")[0], line.unit), []).append(line)
    panels += [
        Panel(f"{suite}, {unit}", unit, tuple(group), {}) for (suite, unit), group in groups.items()
    ]
    return panels


def write_plot(lines: Sequence[BenchLine], path: Path, *, title: str) -> None:
    """Draw all lines into one picture.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    plt = _pyplot()
    panels = panels_of(lines)
    heights = [PANEL_INCHES + ROW_INCHES * len(panel.lines) for panel in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(9, sum(heights) + 0.6),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"height_ratios": heights},
    )
    figure.suptitle(title, fontsize=12)
    for panel, axis in zip(panels, axes[:, 0], strict=True):
        _draw(panel, axis)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be written: {error.strerror}",
            field="--plot",
            value=str(path),
        ) from None
    finally:
        plt.close(figure)


def _draw(panel: Panel, axis: Any) -> None:
    medians = [line.median for line in panel.lines]
    rows = range(len(medians))
    below = [max(line.median - line.min, 0.0) for line in panel.lines]
    above = [max(line.max - line.median, 0.0) for line in panel.lines]
    axis.barh(rows, medians, height=0.6, color=BAR_COLOUR)
    axis.errorbar(medians, rows, xerr=[below, above], fmt="none", ecolor="black", capsize=3)
    goals = [panel.goal(line) for line in panel.lines]
    word = "at least" if panel.is_least else "at most"
    for row, goal in zip(rows, goals, strict=True):
        if goal is not None:
            axis.plot(
                [goal, goal],
                [row - 0.42, row + 0.42],
                color=GOAL_COLOUR,
                linewidth=2,
                linestyle="--",
            )
    if any(goal is not None for goal in goals):
        axis.plot([], [], color=GOAL_COLOUR, linewidth=2, linestyle="--", label=f"goal: {word}")
        axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    shown = [value for value in (*medians, *(g for g in goals if g)) if value > 0]
    if shown and max(shown) > LOG_RATIO * min(shown):
        axis.set_xscale("log")
    else:
        axis.set_xlim(left=0)
    if not shown:
        axis.set_xlim(0, 1)
    axis.margins(x=0.15)
    for row, line in zip(rows, panel.lines, strict=True):
        axis.annotate(
            f"{line.median:,.4g}",
            (line.max if line.max > 0 else 0.0, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox=LABEL_BOX,
        )
    axis.set_yticks(list(rows), [line.name for line in panel.lines], fontsize=8)
    axis.invert_yaxis()
    axis.set_title(panel.title, fontsize=10, loc="left")
    axis.set_xlabel(panel.unit, fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
