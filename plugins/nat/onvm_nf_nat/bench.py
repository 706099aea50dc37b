# SPDX-License-Identifier: Apache-2.0
"""Speed of the NAT on one core, without a manager: ``onvm bench nat``.

    python -P -m onvm_nf_nat.bench RUNS SECONDS [SESSIONS]

Sessions are established TCP. An inside port talks to up to eight remote addresses, so there are
fewer
mappings than sessions. Half of the packets go each way, and neighbours belong to sessions that are
apart. Each line of the output is a figure as JSON: name, unit and values.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from onvm_nf_nat.config import load
from onvm_nf_nat.kernel import make_kernel
from onvm_sdk.testing.flows import (
    CALL,
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

SESSIONS = (1, 1 << 16, 1 << 20, 1 << 22)
NEW = 1 << 17
"""Sessions, each with a mapping of its own, that the table of the figure `new` holds: each further
one takes the oldest's place."""
_PORTS = 1 << 10
"""Of each inside address."""
_REMOTES = 8
_EXTERNALS = [f"203.0.113.{number}" for number in range(1, 17)]


def _config(sessions: int) -> dict[str, object]:
    return {"external": _EXTERNALS, "inside": ["10.0.0.0/8"], "max_sessions": sessions}


def open_bed(sessions: int) -> OpenBed:
    """Return a NAT whose sessions are open, and packets for it.

    Args:
        sessions: a power of two.
    """
    sources = max(1, sessions // (_PORTS * _REMOTES))
    space = FlowSpace("10.0.0.0", "192.0.2.1", 80, ports=_PORTS, sources=sources)
    in_order = range(sessions) if sessions > 1 else [0] * CALL
    return OpenBed(
        lambda: make_kernel(load(_config(sessions))),
        space.frames(in_order, SYN),
        space.frames(scattered(sessions) if sessions > 1 else in_order),
    )


def new_bed(size: int) -> FlowBed:
    """Return a NAT full of sessions that are opening, and the SYNs of others."""
    space = FlowSpace("10.0.0.0", "192.0.2.1", 80, ports=_PORTS)
    return full_bed(make_kernel(load(_config(size))), space.frames(range(4 * size), SYN))


def measure(
    runs: int, seconds: float, sessions: Sequence[int]
) -> Iterator[tuple[str, str, list[float]]]:
    """Measure each figure."""
    for count in sessions:
        bed = open_bed(count)
        name = f"nat.{count_text(count)}"
        yield name, "Mpps", [bed.run(seconds) for _ in range(runs)]
        if count >= 1 << 16:
            yield f"{name}.session", "bytes", [bed.flow_bytes]
    new = new_bed(min(NEW, sessions[-1]))
    yield "nat.new", "M/s", [new.run(seconds) for _ in range(runs)]


def main(arguments: Sequence[str]) -> None:
    """Print the figures."""
    runs, seconds = int(arguments[0]), float(arguments[1])
    sessions = (int(arguments[2]),) if len(arguments) > 2 else SESSIONS
    print_figures(measure(runs, seconds, sessions))


if __name__ == "__main__":
    main(sys.argv[1:])
