# SPDX-License-Identifier: Apache-2.0
"""Speed of the load balancer on one core, without a manager: ``onvm bench lb``.

    python -P -m onvm_nf_lb.bench RUNS SECONDS [CONNECTIONS]

Connections are established TCP to one VIP with a hundred backends. Half of the packets go each way,
and neighbours belong to connections that are apart. Each line of the output is a figure as JSON:
name, unit and values.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from onvm_nf_lb.config import load
from onvm_nf_lb.kernel import Balancer
from onvm_sdk.testing.flows import (
    FlowBed,
    FlowSpace,
    OpenBed,
    count_text,
    full_bed,
    print_figures,
    scattered,
)
from onvm_sdk.testing.frames import SYN

__all__ = ["main", "new_bed", "open_bed"]

CONNECTIONS = (1 << 16, 1 << 20, 1 << 22)
NEW = 1 << 18
"""Connections that the table of the figure `new` holds: others take the place of the oldest."""
_BACKENDS = 100
_SPACE = FlowSpace("10.0.0.0", "198.51.100.10", 80)


def _balancer(connections: int) -> Balancer:
    backends = [{"address": f"203.0.113.{number}", "port": 8080} for number in range(_BACKENDS)]
    vips = [{"address": _SPACE.dst, "port": _SPACE.dport, "backends": backends}]
    return Balancer(load({"vips": vips, "max_connections": connections}))


def open_bed(connections: int) -> OpenBed:
    """Return a load balancer whose connections are open, and packets for it.

    Args:
        connections: a power of two.
    """
    return OpenBed(
        lambda: _balancer(connections).kernel,
        _SPACE.frames(range(connections), SYN),
        _SPACE.frames(scattered(connections)),
    )


def new_bed(size: int) -> FlowBed:
    """Return a load balancer full of half-open connections, and the SYNs of others."""
    return full_bed(_balancer(size).kernel, _SPACE.frames(range(4 * size), SYN))


def measure(
    runs: int, seconds: float, connections: Sequence[int]
) -> Iterator[tuple[str, str, list[float]]]:
    """Measure each figure."""
    for count in connections:
        bed = open_bed(count)
        name = f"lb.{count_text(count)}"
        yield name, "Mpps", [bed.run(seconds) for _ in range(runs)]
        yield f"{name}.connection", "bytes", [bed.flow_bytes]
    new = new_bed(min(NEW, connections[-1]))
    yield "lb.new", "M/s", [new.run(seconds) for _ in range(runs)]


def main(arguments: Sequence[str]) -> None:
    """Print the figures."""
    runs, seconds = int(arguments[0]), float(arguments[1])
    connections = (int(arguments[2]),) if len(arguments) > 2 else CONNECTIONS
    print_figures(measure(runs, seconds, connections))


if __name__ == "__main__":
    main(sys.argv[1:])
