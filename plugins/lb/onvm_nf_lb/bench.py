# SPDX-License-Identifier: Apache-2.0
"""Speed of the load balancer on one core, without a manager: ``onvm bench lb``.

    python -P -m onvm_nf_lb.bench RUNS SECONDS [CONNECTIONS]

Connections are established TCP to one VIP with a hundred backends. Half of the packets go each way,
and neighbours belong to connections that are apart. Each line of the output is a figure as JSON:
name, unit and values.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

from onvm_nf_lb.config import load
from onvm_nf_lb.kernel import Balancer
from onvm_sdk.testing.flows import (
    Clock,
    Flows,
    FlowSpace,
    count_text,
    replies,
    resident_bytes,
    run_for,
    scattered,
)
from onvm_sdk.testing.frames import ACK, SYN

__all__ = ["Bed", "NewBed", "main"]

CONNECTIONS = (1 << 16, 1 << 20, 1 << 22)
NEW = 1 << 18
"""Connections that the table of the figure `new` holds: others take the place of the oldest."""
_BACKENDS = 100
_SPACE = FlowSpace("10.0.0.0", "198.51.100.10", 80)


def _balancer(connections: int) -> Balancer:
    backends = [{"address": f"203.0.113.{number}", "port": 8080} for number in range(_BACKENDS)]
    vips = [{"address": _SPACE.dst, "port": _SPACE.dport, "backends": backends}]
    return Balancer(load({"vips": vips, "max_connections": connections}))


class Bed:
    """A load balancer whose connections are open, and packets for it.

    Args:
        connections: a power of two.
    """

    def __init__(self, connections: int) -> None:
        self.clock = Clock()
        now_ns = self.clock.now_ns
        first = Flows(_SPACE.frames(range(connections), SYN))
        before = resident_bytes()
        self.kernel = _balancer(connections).kernel
        for call in range(first.calls):
            first.run(self.kernel, call, now_ns)
        self.connection_bytes = (resident_bytes() - before) / connections
        answers = replies(first.run_all(self.kernel, now_ns), SYN | ACK)
        Flows(answers, reverse=True).run_all(self.kernel, now_ns)
        there = Flows(_SPACE.frames(scattered(connections)))
        back = replies(there.run_all(self.kernel, now_ns), ACK)
        self.ways = [there, Flows(back, reverse=True)]

    def run(self, seconds: float) -> float:
        """Let packets pass for a time; million packets a second."""
        return run_for(self.kernel, self.clock, self.ways, seconds)


class NewBed:
    """A load balancer whose table is full of half-open connections, and the SYNs of others."""

    def __init__(self, size: int) -> None:
        self.kernel = _balancer(size).kernel
        self.clock = Clock()
        self.ways = [Flows(_SPACE.frames(range(4 * size), SYN))]
        self.ways[0].run_all(self.kernel, self.clock.now_ns)

    def run(self, seconds: float) -> float:
        """Open connections for a time; million a second."""
        return run_for(self.kernel, self.clock, self.ways, seconds)


def measure(
    runs: int, seconds: float, connections: Sequence[int]
) -> Iterator[tuple[str, str, list[float]]]:
    """Measure each figure."""
    for count in connections:
        bed = Bed(count)
        name = f"lb.{count_text(count)}"
        yield name, "Mpps", [bed.run(seconds) for _ in range(runs)]
        yield f"{name}.connection", "bytes", [bed.connection_bytes]
    new = NewBed(min(NEW, connections[-1]))
    yield "lb.new", "M/s", [new.run(seconds) for _ in range(runs)]


def main(arguments: Sequence[str]) -> None:
    """Print the figures."""
    runs, seconds = int(arguments[0]), float(arguments[1])
    connections = (int(arguments[2]),) if len(arguments) > 2 else CONNECTIONS
    for name, unit, values in measure(runs, seconds, connections):
        print(json.dumps({"name": name, "unit": unit, "values": values}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
