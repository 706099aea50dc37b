# SPDX-License-Identifier: Apache-2.0
"""Speed of the firewall on one core, without a manager: ``onvm bench firewall``.

    python -P -m onvm_nf_firewall.bench RUNS SECONDS [FLOWS RULES]

Connections are established TCP over IPv4, half of the packets go each way, and neighbours belong to
connections that are apart. Rules name networks, protocol and ports; the last one lets the bench's
packets in. Each line of the output is a figure as JSON: name, unit and values.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from typing import Any

from onvm_nf_firewall.config import load
from onvm_nf_firewall.kernel import make_kernel
from onvm_sdk.testing.flows import (
    FlowBed,
    Flows,
    FlowSpace,
    count_text,
    full_bed,
    print_figures,
    scattered,
)
from onvm_sdk.testing.frames import ACK, SYN

__all__ = ["Bed", "main", "new_bed"]

FLOWS = (1 << 16, 1 << 20)
RULES = (1, 100, 10_000)
NEW = 1 << 18
"""Connections that the table of the figure `new` holds: others take the place of the oldest."""
_SPACE = FlowSpace("10.0.0.0", "192.0.2.80", 80)
_NEW = FlowSpace("10.0.0.0", "192.0.2.80", 80, ports=1 << 13)


def rules(count: int, source: random.Random) -> list[dict[str, Any]]:
    """Make rules of which only the last one matches packets of the bench, and accepts them."""
    made: list[dict[str, Any]] = []
    for _ in range(count - 1):
        first = source.randrange(1, 60_000)
        made.append(
            {
                "action": source.choice(("accept", "drop")),
                "protocol": source.choice(("tcp", "udp")),
                "src": f"172.{source.randrange(16, 32)}.{source.randrange(256)}.0/24",
                "dst": str(IPv4Address("198.0.0.0") + source.getrandbits(24)),
                "dst_ports": f"{first}-{first + source.choice((0, 0, 0, 10, 1000))}",
            }
        )
    return [*made, {"action": "accept", "protocol": "tcp", "dst": "192.0.2.80/32"}]


class Bed(FlowBed):
    """A firewall, and packets for it.

    Args:
        flows: TCP connections, a power of two; they are open afterwards.
    """

    def __init__(self, flows: int, n_rules: int, *, stateful: bool = True) -> None:
        config = load(
            {
                "default": "drop",
                "rules": rules(n_rules, random.Random(n_rules)),
                "stateful": stateful,
                "max_connections": flows,
            }
        )
        super().__init__(make_kernel(config))
        numbers, in_order = scattered(flows), range(flows)
        self.ways = [Flows(_SPACE.frames(numbers))]
        if stateful:
            self.ways.append(Flows(_SPACE.frames(numbers, reverse=True), reverse=True))
            self.pass_all(_SPACE.frames(in_order, SYN))
            self.pass_all(_SPACE.frames(in_order, SYN | ACK, reverse=True), reverse=True)
            self.pass_all(_SPACE.frames(in_order))


def new_bed(size: int) -> FlowBed:
    """Return a firewall full of half-open connections, and the SYNs of others."""
    config = load({"default": "drop", "rules": rules(1, random.Random(1)), "max_connections": size})
    return full_bed(make_kernel(config), _NEW.frames(range(4 * size), SYN))


def measure(
    runs: int, seconds: float, flows: Sequence[int], n_rules: Sequence[int]
) -> Iterator[tuple[str, str, list[float]]]:
    """Measure each figure."""
    for count in n_rules:
        bed = Bed(flows[0], count)
        yield (
            f"firewall.{count_text(flows[0])}.{count}_rules",
            "Mpps",
            [bed.run(seconds) for _ in range(runs)],
        )
    for size in flows[1:]:
        bed = Bed(size, 1)
        yield f"firewall.{count_text(size)}", "Mpps", [bed.run(seconds) for _ in range(runs)]
    bed = Bed(flows[0], n_rules[-1], stateful=False)
    yield (
        f"firewall.stateless.{n_rules[-1]}_rules",
        "Mpps",
        [bed.run(seconds) for _ in range(runs)],
    )
    new = new_bed(min(NEW, flows[-1]))
    yield "firewall.new", "M/s", [new.run(seconds) for _ in range(runs)]


def main(arguments: Sequence[str]) -> None:
    """Print the figures."""
    runs, seconds = int(arguments[0]), float(arguments[1])
    flows = (int(arguments[2]),) if len(arguments) > 2 else FLOWS
    n_rules = (int(arguments[3]),) if len(arguments) > 3 else RULES
    print_figures(measure(runs, seconds, flows, n_rules))


if __name__ == "__main__":
    main(sys.argv[1:])
