# SPDX-License-Identifier: Apache-2.0
"""Speed of the router on one core, without a manager: ``onvm bench router``.

    python -P -m onvm_nf_router.bench RUNS SECONDS [IPV4_ROUTES IPV6_ROUTES]

Prefixes are random, with the lengths that are common in BGP tables, and so are destinations; those
of IPv6 lie in blocks that are in use, as on the Internet. Bursts have 32 packets each, as from a
manager; many follow each other in one call. Packets are as they would come, and are put back
between calls, which is not timed. While routes change, 32 changes go before a call, as routes of
the host do, at 10,000 a second.
Each line of the output is a figure as JSON: name, unit and values.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface

from onvm_nf_router.config import Network, RouterText
from onvm_nf_router.interfaces import Interface
from onvm_nf_router.kernel import Kernel
from onvm_nf_router.routes import Hop
from onvm_sdk import Verdict
from onvm_sdk.headers import checksum
from onvm_sdk.testing.flows import print_figures
from onvm_sdk.testing.replay import Replay

__all__ = ["Bed", "main"]

ROUTES4, ROUTES6 = 1_000_000, 200_000
HOPS = 16
PACKETS = 2048
"""Of one call."""
SETS = 32
"""Calls until the same destinations come again."""
CHANGES_PER_S = 10_000
CHANGES = 32
_NS = 1_000_000_000
_MAC, _PEER = bytes([2, 0, 0, 0, 0, 1]), bytes([2, 0, 0, 0, 0, 9])
LAN, WAN = 0, 1
_INTERFACES = (
    Interface("lan", LAN, _MAC, 1500, (ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64"))),
    Interface("wan", WAN, _MAC, 1500, (ip_interface("10.1.0.1/24"), ip_interface("fd01::1/64"))),
)
_LENGTHS4 = (24,) * 60 + (23,) * 10 + (22,) * 12 + (21,) * 5 + (20,) * 5 + (19,) * 3 + (16,) * 5
_LENGTHS6 = (48,) * 60 + (44,) * 10 + (40,) * 15 + (36,) * 5 + (32,) * 10
ALLOCATIONS, SITES = 12_000, 4
"""IPv6: blocks of 32 bits that are in use, and blocks of 40 bits in each of them."""


class Space:
    """Random prefixes and addresses of public space."""

    def __init__(self, version: int, source: random.Random) -> None:
        self._version, self._source = version, source
        allocations = [0x2 << 28 | source.getrandbits(28) for _ in range(ALLOCATIONS)]
        self._sites = [one << 8 | source.getrandbits(8) for one in allocations * SITES]

    def address(self) -> int:
        """An address; an IPv6 address is in a block that is in use."""
        if self._version == 4:
            return self._source.randrange(0x0B00_0000, 0x7F00_0000)
        return self._source.choice(self._sites) << 88 | self._source.getrandbits(88)

    def prefix(self) -> Network:
        """A prefix."""
        if self._version == 4:
            length = self._source.choice(_LENGTHS4)
            return IPv4Network((self.address() >> (32 - length) << (32 - length), length))
        length = self._source.choice(_LENGTHS6)
        return IPv6Network((self.address() >> (128 - length) << (128 - length), length))


class Bed:
    """A router with routes, and packets to random destinations."""

    def __init__(self, version: int, n_routes: int, seed: int) -> None:
        self.version = version
        self.source = random.Random(seed)
        self.space = Space(version, self.source)
        settings = RouterText(max_routes=n_routes + n_routes // 8 + 64, max_neighbours=256)
        self.kernel = Kernel(settings)
        self.kernel.change(settings, _INTERFACES)
        self._bursts = [self._burst() for _ in range(SETS)]
        self._add_routes(n_routes)
        self._meet()

    def _add_routes(self, n_routes: int) -> None:
        base = "10.1.0." if self.version == 4 else "fd01::"
        self.gateways = [ip_address(f"{base}{number}") for number in range(2, 2 + HOPS)]
        for index, gateway in enumerate(self.gateways):
            self.kernel.set_group(index, "unicast", (Hop(gateway, WAN),))
        self.kernel.add_route(self._whole, 0)
        for _ in range(n_routes):
            self.kernel.add_route(self.space.prefix(), self.source.randrange(HOPS))

    @property
    def _whole(self) -> Network:
        return IPv4Network("0.0.0.0/0") if self.version == 4 else IPv6Network("::/0")

    def _meet(self) -> None:
        """Let each gateway tell its MAC address."""
        for gateway in self.gateways:
            frame = _arp(gateway.packed) if self.version == 4 else _solicitation(gateway.packed)
            question = Replay([frame], WAN)
            question.run(self.kernel.native, _NS)
            assert question.count(Verdict.OUT) == 1, "the router answers"

    def _burst(self) -> Replay:
        frames = []
        for _ in range(PACKETS):
            if self.version == 4:
                target = self.space.address().to_bytes(4, "big")
                head = bytes.fromhex("45000032 00000000 4011 0000 0a000005") + target
                head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
                frames.append(_MAC + _PEER + b"\x08\x00" + head + bytes(30))
            else:
                target = self.space.address().to_bytes(16, "big")
                head = bytes.fromhex("60000000 000a 11 40") + ip_address("fd00::5").packed + target
                frames.append(_MAC + _PEER + b"\x86\xdd" + head + bytes(10))
        return Replay(frames, LAN)

    def run(self, seconds: float, *, changes: bool = False) -> dict[str, float]:
        """Forward for a time of the router's own.

        Returns:
            Million packets a second, packets that did not leave, changes a second of all time.
        """
        spent_ns, n_packets, lost, n_changes, number = 0, 0, 0, 0, 0
        changed_ns, clock = 0, time.perf_counter_ns
        known: list[Network] = []
        while spent_ns < seconds * _NS:
            burst = self._bursts[number % SETS]
            number += 1
            if changes and n_changes * _NS < CHANGES_PER_S * (spent_ns + changed_ns):
                begun = clock()
                self._change(known)
                changed_ns += clock() - begun
                n_changes += CHANGES
            spent_ns += burst.run(self.kernel.native, _NS)
            n_packets += PACKETS
            if changes or number <= SETS:
                lost += PACKETS - burst.count(Verdict.OUT)
        total_ns = spent_ns + changed_ns
        return {
            "mpps": n_packets * 1e3 / total_ns,
            "lost": lost,
            "changes": n_changes * _NS / total_ns,
        }

    def _change(self, known: list[Network]) -> None:
        """Add routes, let others lead elsewhere, and delete some again."""
        for _ in range(CHANGES):
            kind = self.source.randrange(3) if len(known) > CHANGES else 0
            if kind == 0:
                known.append(self.space.prefix())
                self.kernel.add_route(known[-1], self.source.randrange(HOPS))
            elif kind == 1:
                self.kernel.add_route(self.source.choice(known), self.source.randrange(HOPS))
            else:
                prefix = known.pop(self.source.randrange(len(known)))
                if prefix not in known:
                    self.kernel.delete_route(prefix)


def _arp(sender: bytes) -> bytes:
    head = b"\xff" * 6 + _PEER + bytes.fromhex("0806000108000604 0001")
    return head + _PEER + sender + bytes(6) + ip_address("10.1.0.1").packed


def _solicitation(sender: bytes) -> bytes:
    own = ip_address("fd01::1").packed
    body = bytes([135, 0, 0, 0, 0, 0, 0, 0]) + own + b"\1\1" + _PEER
    pseudo = sender + own + len(body).to_bytes(4, "big") + b"\0\0\0\x3a"
    body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    head = bytes.fromhex("60000000") + len(body).to_bytes(2, "big") + b"\x3a\xff"
    return _MAC + _PEER + b"\x86\xdd" + head + sender + own + body


def measure(
    runs: int, seconds: float, n_routes4: int, n_routes6: int
) -> Iterator[tuple[str, str, list[float]]]:
    """Measure each figure."""
    for version, n_routes in ((4, n_routes4), (6, n_routes6)):
        begun = time.perf_counter()
        bed = Bed(version, n_routes, seed=version)
        name = f"router.ipv{version}"
        yield f"{name}.load", "s", [time.perf_counter() - begun]
        bed.run(seconds / 4)
        plain = [bed.run(seconds) for _ in range(runs)]
        yield name, "Mpps", [one["mpps"] for one in plain]
        changed = [bed.run(seconds, changes=True) for _ in range(runs)]
        yield f"{name}.changing", "Mpps", [one["mpps"] for one in changed]
        yield f"{name}.changes", "changes/s", [one["changes"] for one in changed]
        yield f"{name}.lost", "packets", [one["lost"] for one in (*plain, *changed)]


def main(arguments: Sequence[str]) -> None:
    """Print the figures."""
    runs, seconds = int(arguments[0]), float(arguments[1])
    sizes = [int(text) for text in arguments[2:4]] or [ROUTES4, ROUTES6]
    print_figures(measure(runs, seconds, *sizes))


if __name__ == "__main__":
    main(sys.argv[1:])
