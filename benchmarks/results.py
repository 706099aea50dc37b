"""Write benchmarks/RESULTS.md from measurements on this machine.

    python -P benchmarks/results.py --bench bench.json [--yardstick yardstick.txt]
    python -P benchmarks/results.py --wire wire.json

`bench.json` is what ``onvm bench all --json`` printed; `yardstick.txt` what yardstick.py printed.
`wire.json` is what ``onvm bench wire --json`` printed; it replaces only the section on wires.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

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
WIRE_GOALS = {
    "tcp_1": ">= 1",
    "tcp_10": ">= 1",
    "ping": "<= 3",
    "http": ">= 1",
    "cpu.box": "<= 1.2",
}
"""Of ratios to the kernel, by figure."""
BUSY_PING_GOAL = "<= 1.5"
WIRE_HEADING = "## Wires"
WIRE_TEXT = """\
A client and a server in network namespaces, with a box between them over veth. `tcp_1` and
`tcp_10` are the goodput of 1 and 10 streams. `ping` and `ping.p99` are quantiles of a ping every
2 ms. `http` counts connections with one request and 1 KiB of answer each, 32 at a time. `udp`
counts the datagrams of 64 bytes that arrive of a million per second. `cpu` is the CPU time of the
whole machine per datagram at 200,000 per second; `cpu.box` leaves out what client and server take
without a box. The kernel bridges with a stateful nftables firewall (`firewall`), or routes with
that, masquerading and DNAT (`firewall_nat_lb`). `onvm` is `onvm up` with its defaults;
`relay` is a program that passes frames between two packet sockets and looks at nothing: the least
that a box in user space costs.
`onvm_busy` has `idle = "busy"`; `onvm_fused` runs all NFs in one process. The interfaces of
`onvm_bare` have no offloads, nor those of the kernel it is compared with; all others have the
interfaces' defaults. A ratio is the median of the rounds' ratios, with the least and the
greatest."""


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


def machine() -> str:
    """Day and machine."""
    return (
        f"{datetime.date.today()}, {len(os.sched_getaffinity(0))} cores of a virtual machine "
        f"({processor()}), Linux {platform.release()}, Python {platform.python_version()}."
    )


def wire_section(lines: list[dict[str, Any]]) -> list[str]:
    """The section on wires: a row for each ratio, with the two figures behind it."""
    by_name = {line["name"]: line for line in lines}
    rounds = max(line["runs"] for line in lines)
    section = [
        WIRE_HEADING,
        "",
        f"{machine()} {rounds} rounds of `onvm bench wire --json`, nothing else running. "
        f"{WIRE_TEXT}",
        "",
        "| function | box | figure | unit | box | kernel | ratio | goal | met |",
        "|---|---|---|---|---:|---:|---:|---|---|",
    ]
    for name, ratio in by_name.items():
        figure_name, is_ratio, baseline = name.partition(".to_")
        if not is_ratio:
            continue
        _, function, box, figure = figure_name.split(".", 3)
        of_box = by_name[figure_name]
        of_kernel = by_name[f"wire.{function}.{baseline}.{figure}"]
        goal = WIRE_GOALS.get(figure, "")
        if box == "onvm_busy" and figure == "ping":
            goal = BUSY_PING_GOAL
        section.append(
            f"| {function} | {box} | {figure} | {of_box['unit']} | {of_box['median']:,.3f} | "
            f"{of_kernel['median']:,.3f} | {ratio['median']:,.2f} ({ratio['min']:,.2f} to "
            f"{ratio['max']:,.2f}) | {goal} | {is_met(ratio['median'], goal)} |"
        )
    return section


def replace_section(page: str, section: list[str]) -> str:
    """The page with a section in place of the one with its heading, or at the end."""
    lines = page.splitlines()
    begin = lines.index(section[0]) if section[0] in lines else len(lines)
    rest = lines[begin + 1 :]
    end = next((n for n, line in enumerate(rest) if line.startswith("## ")), len(rest))
    before = "\n".join(lines[:begin]).rstrip("\n")
    after = "\n".join(rest[end:])
    return "\n\n".join(part for part in (before, "\n".join(section), after) if part) + "\n"


def main() -> None:
    """Write the page, or its section on wires."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--bench", type=Path)
    inputs.add_argument("--wire", type=Path)
    parser.add_argument("--yardstick", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    options = parser.parse_args()
    lines = json.loads((options.bench or options.wire).read_text(encoding="utf-8"))["lines"]
    if options.wire:
        page = options.output.read_text(encoding="utf-8")
        options.output.write_text(replace_section(page, wire_section(lines)), encoding="utf-8")
        return
    page = [
        "# Results",
        "",
        f"{machine()} Null ports, 64-byte packets, work w2. Such machines have a fast and a slow "
        "mode that differ by two: compare only figures of one run.",
        "",
        "`onvm bench all --json`, nothing else running:",
        "",
        "| name | unit | median | min | max | runs | goal | met |",
        "|---|---|---:|---:|---:|---:|---|---|",
    ]
    wires = [line for line in lines if line["name"].startswith("wire.")]
    for line in lines:
        if line in wires:
            continue
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
    if wires:
        page += ["", *wire_section(wires)]
    options.output.write_text("\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
