# SPDX-License-Identifier: Apache-2.0
"""Speed of the NAT on one core, without a manager: ``onvm bench nat``.

    python -P -m onvm_nf_nat.bench RUNS SECONDS [SESSIONS]

Sessions are established TCP. An inside port talks to up to eight remote addresses, so there are
fewer
mappings than sessions. Half of the packets go each way, and neighbours belong to sessions that are
apart. Each line of the output is a figure as JSON: name, unit and values.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

from onvm_nf_nat.config import load
from onvm_nf_nat.kernel import make_kernel
from onvm_sdk.testing.flows import (
    CALL,
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


class Bed:
    """A NAT whose sessions are open, and packets for it.

    Args:
        sessions: a power of two.
    """

    def __init__(self, sessions: int) -> None:
        sources = max(1, sessions // (_PORTS * _REMOTES))
        space = FlowSpace("10.0.0.0", "192.0.2.1", 80, ports=_PORTS, sources=sources)
        self.clock = Clock()
        now_ns = self.clock.now_ns
        numbers = scattered(sessions) if sessions > 1 else [0] * CALL
        first = Flows(space.frames(range(sessions) if sessions > 1 else numbers, SYN))
        before = resident_bytes()
        self.kernel = make_kernel(load(_config(sessions)))
        for call in range(first.calls):
            first.run(self.kernel, call, now_ns)
        self.session_bytes = (resident_bytes() - before) / sessions
        answers = replies(first.run_all(self.kernel, now_ns), SYN | ACK)
        Flows(answers, reverse=True).run_all(self.kernel, now_ns)
        there = Flows(space.frames(numbers))
        back = replies(there.run_all(self.kernel, now_ns), ACK)
        self.ways = [there, Flows(back, reverse=True)]

    def run(self, seconds: float) -> float:
        """Let packets pass for a time; million packets a second."""
        return run_for(self.kernel, self.clock, self.ways, seconds)


class NewBed:
    """A NAT whose table is full of sessions that are opening, and the SYNs of others."""

    def __init__(self, size: int) -> None:
        self.kernel = make_kernel(load(_config(size)))
        self.clock = Clock()
        space = FlowSpace("10.0.0.0", "192.0.2.1", 80, ports=_PORTS)
        self.ways = [Flows(space.frames(range(4 * size), SYN))]
        self.ways[0].run_all(self.kernel, self.clock.now_ns)

    def run(self, seconds: float) -> float:
        """Open sessions for a time; million a second."""
        return run_for(self.kernel, self.clock, self.ways, seconds)


def measure(
    runs: int, seconds: float, sessions: Sequence[int]
) -> Iterator[tuple[str, str, list[float]]]:
    """Measure each figure."""
    for count in sessions:
        bed = Bed(count)
        name = f"nat.{count_text(count)}"
        yield name, "Mpps", [bed.run(seconds) for _ in range(runs)]
        if count >= 1 << 16:
            yield f"{name}.session", "bytes", [bed.session_bytes]
    new = NewBed(min(NEW, sessions[-1]))
    yield "nat.new", "M/s", [new.run(seconds) for _ in range(runs)]


def main(arguments: Sequence[str]) -> None:
    """Print the figures."""
    runs, seconds = int(arguments[0]), float(arguments[1])
    sessions = (int(arguments[2]),) if len(arguments) > 2 else SESSIONS
    for name, unit, values in measure(runs, seconds, sessions):
        print(json.dumps({"name": name, "unit": unit, "values": values}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
