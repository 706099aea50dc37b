"""Write benchmarks/RESULTS.md from measurements on this machine.

    python -P benchmarks/results.py --bench bench.json [--yardstick yardstick.txt]

`bench.json` is what ``onvm bench all --json`` printed; `yardstick.txt` what yardstick.py printed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from pathlib import Path

# Figures to be reached, from the issue that set them: at least (>=) or at most (<=).
GOALS = {
    "hop.c": ">= 20",
    "hop.columns.1024": ">= 12",
    "hop.packets": ">= 0.6",
    "chain.processes.1": ">= 18",
    "chain.processes.2": ">= 13",
    "chain.processes.3": ">= 9",
    "chain.processes.5": ">= 5",
    "steering.1": ">= 14",
    "steering.64k": ">= 12",
    "steering.1m": ">= 7",
    "steering.new": ">= 1000000",
    "startup.c": "<= 15",
    "startup.python": "<= 60",
    "startup.columns": "<= 250",
    "latency.busy": "<= 1",
    "latency.adaptive": "<= 40",
    "latency.adaptive.cpu": "<= 20",
    "crash.lost": "<= 0",
    "crash.gap": "<= 50",
    "crash.restart": "<= 100",
    "startup.python.rss": "<= 30",
    "startup.manager.rss": "<= 150",
    "hop.kernel.to_c": ">= 0.9",
    "chain.fused.5.to_1": ">= 0.8",
    "elastic.out.launch": "<= 300",
    "elastic.out.spare": "<= 50",
    "elastic.spread.2": "<= 10",
    "elastic.spread.10": "<= 10",
    "elastic.spread.slowed": "<= 10",
    "elastic.out.launch.moved": "<= 0",
    "elastic.out.spare.moved": "<= 0",
    "elastic.estimate.100": "<= 10",
    "elastic.estimate.500": "<= 10",
    "elastic.estimate.2000": "<= 10",
    "elastic.estimate.5000": "<= 10",
    "elastic.crash.seen": "<= 5",
    "elastic.hang.seen": "<= 500",
    "elastic.restart.without_eal": "<= 200",
    "elastic.end.64": "<= 1000",
    "elastic.through.sandbox": ">= 0.97",
    "elastic.through.container": ">= 0.97",
    "cluster.join.tables": "<= 200",
    "cluster.leave": "<= 200",
    "cluster.chain": "<= 200",
    "cluster.nf": "<= 200",
    "cluster.scale": "<= 1000",
    "cluster.scale.outside": "<= 150",
    "cluster.failover.cut.new": "<= 1000",
    "cluster.failover.kill.new": "<= 1000",
    "cluster.failover.kill.views": "<= 200",
}


def processor() -> str:
    """The CPU's own name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def is_met(value: float, goal: str) -> str:
    """Say whether `value` meets `goal`."""
    if not goal:
        return ""
    sign, number = goal.split()
    return "yes" if (value >= float(number) if sign == ">=" else value <= float(number)) else "no"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--yardstick", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    options = parser.parse_args()
    lines = json.loads(options.bench.read_text(encoding="utf-8"))
    page = [
        "# Results",
        "",
        f"{datetime.date.today()}, {len(os.sched_getaffinity(0))} cores of a virtual machine "
        f"({processor()}), Linux {platform.release()}, Python {platform.python_version()}. "
        "Null ports, 64-byte packets, work w2. Such machines have a fast and a slow mode that "
        "differ by two: compare only figures of one run.",
        "",
        "`onvm bench all --json`, nothing else running:",
        "",
        "| name | unit | median | min | max | runs | goal | met |",
        "|---|---|---:|---:|---:|---:|---|---|",
    ]
    for line in lines:
        goal = GOALS.get(line["name"], "")
        page.append(
            f"| {line['name']} | {line['unit']} | {line['median']:,.3f} | {line['min']:,.3f} | "
            f"{line['max']:,.3f} | {line['runs']} | {goal} | {is_met(line['median'], goal)} |"
        )
    if options.yardstick:
        page += [
            "",
            "Against the yardstick, run alternately (`benchmarks/yardstick.py`), in Mpps:",
            "",
            "```",
            options.yardstick.read_text(encoding="utf-8").rstrip(),
            "```",
        ]
    options.output.write_text("\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
