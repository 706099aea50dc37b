# SPDX-License-Identifier: Apache-2.0
"""Packets of many flows for a kernel in C, to time it.

Millions of packets that each lie where a kernel works on them would measure that memory. So they
lie packed, and one call's worth is copied to where the kernel works, which is not timed.
"""

from __future__ import annotations

import json
import resource
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from onvm_sdk import NativeKernel
from onvm_sdk._native import local
from onvm_sdk._native._nf import ffi, lib
from onvm_sdk.limits import COUNTERS_MAX
from onvm_sdk.testing.frames import ACK, SYN, tcp
from onvm_sdk.verdict import Verdict

__all__ = [
    "CALL",
    "FRAME",
    "FlowBed",
    "FlowSpace",
    "Flows",
    "OpenBed",
    "count_text",
    "full_bed",
    "print_figures",
    "scattered",
]

FRAME = 64
"""Bytes of a frame: TCP without a payload, padded."""
CALL = 2048
"""Packets of one call; a kernel takes 32 of them at a time."""
_NS = 1_000_000_000
_MIX = 0x9E37_79B1  # odd: a permutation of the numbers below every power of two
_ID, _ENDS, _PORTS, _FLAGS, _URGENT = 18, 26, 34, 47, 52
_REVERSE = int(lib.ONVM_F_REVERSE)


@dataclass(frozen=True, slots=True)
class FlowSpace:
    """Numbered TCP flows over IPv4: ports of the source count first, then sources, then targets.

    Args:
        src, dst: first address of either side.
        dport: port of the destination.
        sport: first port of the source.
        ports, sources: how many there are of each; what is left of a number counts destinations.
    """

    src: str
    dst: str
    dport: int
    sport: int = 1024
    ports: int = 1 << 12
    sources: int = 1 << 20

    def frames(
        self, numbers: Sequence[int], flags: int = ACK, *, reverse: bool = False
    ) -> bytearray:
        """Make a segment of each flow, or of its peer. Checksums are right.

        The numbers of the segments are those of connections whose SYNs have number 0.
        """
        src0, dst0 = int(IPv4Address(self.src)), int(IPv4Address(self.dst))
        seq = 0 if flags & SYN else 1
        one = tcp("0.0.0.0", 0, "0.0.0.0", 0, flags, seq=seq, ack=1 if flags & ACK else 0)
        made = bytearray(one.ljust(FRAME, b"\0") * len(numbers))
        words, half = struct.Struct("!II").pack_into, struct.Struct("!H").pack_into
        ports = struct.Struct("!HH").pack_into
        for place, number in enumerate(numbers):
            rest, port = divmod(number, self.ports)
            target, source = divmod(rest, self.sources)
            ends, ends_of_ports = (src0 + source, dst0 + target), (self.sport + port, self.dport)
            at = place * FRAME
            words(made, at + _ENDS, *(reversed(ends) if reverse else ends))
            ports(made, at + _PORTS, *(reversed(ends_of_ports) if reverse else ends_of_ports))
            # Modulo 0xffff a word is the sum of its halves. Idle fields make up for it.
            half(made, at + _ID, (1 - sum(ends)) % 0xFFFF)
            half(made, at + _URGENT, -(sum(ends) + sum(ends_of_ports)) % 0xFFFF)
        return made


def count_text(count: int) -> str:
    """Write a power of two as the names of figures have it: 65536 is 64k."""
    for bits, unit in ((20, "m"), (10, "k")):
        if count >= 1 << bits:
            return f"{count >> bits}{unit}"
    return str(count)


def scattered(count: int) -> list[int]:
    """The numbers below a power of two, in an order in which neighbours are apart."""
    return [number * _MIX & count - 1 for number in range(count)]


def _replies(frames: bytes, flags: int) -> bytearray:
    """Make the segments that answer those in `frames`: the same with the ends exchanged.

    Their checksums are not made again.
    """
    made = bytearray(frames)
    for at in range(0, len(made), FRAME):
        src, dst, sport, dport = struct.unpack_from("!IIHH", frames, at + _ENDS)
        struct.pack_into("!IIHH", made, at + _ENDS, dst, src, dport, sport)
        made[at + _FLAGS] = flags
    return made


class Flows:
    """Frames that go through a kernel, a call after the other, as they were at first.

    Args:
        frames: FRAME bytes each; as many as fill whole calls.
        reverse: they travel the chain backwards.
    """

    def __init__(self, frames: bytes | bytearray, *, reverse: bool = False) -> None:
        self._frames = ffi.from_buffer("uint8_t[]", frames)
        self.count = len(frames) // FRAME
        self._size = min(CALL, self.count)
        self.calls = self.count // self._size
        self._memory = ffi.new("uint8_t[]", self._size * FRAME)
        self._packets = ffi.new("struct onvm_pkt[]", self._size)
        for number in range(self._size):
            pkt = self._packets[number]
            pkt.data, pkt.buffer, pkt.length = self._memory + number * FRAME, number, FRAME
            pkt.flags = local.WHOLE_WAY | (_REVERSE if reverse else 0)
        self._fresh = bytes(ffi.buffer(self._packets))
        self._counters = ffi.new("uint64_t[]", COUNTERS_MAX)
        self._ctx = ffi.new(
            "struct onvm_ctx *",
            {"counters": self._counters, "is_first_stage": True, "is_last_stage": True},
        )

    def run(self, kernel: NativeKernel, call: int, now_ns: int) -> int:
        """Run the packets of one call through a kernel.

        Returns:
            The CPU time that the kernel took, in nanoseconds: other processes do not count.
        """
        size = self._size * FRAME
        ffi.memmove(self._memory, self._frames + call % self.calls * size, size)
        ffi.memmove(self._packets, self._fresh, len(self._fresh))
        self._ctx.state = ffi.cast("void *", kernel.state)
        self._ctx.now_ns = now_ns
        function = ffi.cast("onvm_kernel", kernel.function)
        begun = time.thread_time_ns()
        function(self._ctx, self._packets, self._size)
        return time.thread_time_ns() - begun

    def run_all(self, kernel: NativeKernel, now_ns: int) -> bytes:
        """Run all packets once, and return them as they have become.

        Raises:
            AssertionError: one was dropped.
        """
        made = []
        for call in range(self.calls):
            self.run(kernel, call, now_ns)
            assert self.n_next == self._size, "every packet goes on"
            made.append(bytes(ffi.buffer(self._memory)))
        return b"".join(made)

    @property
    def n_next(self) -> int:
        """Packets of the last call that go on."""
        return sum(pkt.verdict == Verdict.NEXT for pkt in self._packets)


def _resident_bytes() -> int:
    """Return how much memory this process has in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


class FlowBed:
    """A kernel, and the packets that it gets. The time that it sees passes while it works.

    Attributes:
        ways: what `run` sends, a call of each in turn.
    """

    def __init__(self, kernel: NativeKernel, ways: Sequence[Flows] = ()) -> None:
        self.kernel = kernel
        self.ways = list(ways)
        self.now_ns = _NS

    def pass_all(self, frames: bytes | bytearray, *, reverse: bool = False) -> bytes:
        """Let frames pass once, and return them as they have become.

        Raises:
            AssertionError: one was dropped.
        """
        return Flows(frames, reverse=reverse).run_all(self.kernel, self.now_ns)

    def run(self, seconds: float) -> float:
        """Run packets for a time of the kernel's own.

        Returns:
            Million packets a second.

        Raises:
            AssertionError: one of a first or last call was dropped.
        """
        spent_ns, n_packets, number = 0, 0, 0
        while spent_ns < seconds * _NS:
            flows = self.ways[number % len(self.ways)]
            took_ns = flows.run(self.kernel, number // len(self.ways), self.now_ns)
            if number < len(self.ways):
                assert flows.n_next == flows._size, "every packet goes on"
            self.now_ns += took_ns
            spent_ns += took_ns
            n_packets += flows._size
            number += 1
        assert flows.n_next == flows._size, "every packet goes on"
        return n_packets * 1e3 / spent_ns


class OpenBed(FlowBed):
    """A kernel that translates, with TCP connections that are open, and their packets both ways.

    Args:
        make: makes the kernel.
        opening: the SYN of each connection.
        there: packets of the connections, in the order in which they come.

    Attributes:
        flow_bytes: memory of the kernel's process for each of `opening`.

    Raises:
        AssertionError: a packet was dropped.
    """

    def __init__(
        self, make: Callable[[], NativeKernel], opening: bytearray, there: bytearray
    ) -> None:
        first = Flows(opening)
        before = _resident_bytes()
        super().__init__(make())
        for call in range(first.calls):
            first.run(self.kernel, call, self.now_ns)
        self.flow_bytes = (_resident_bytes() - before) / first.count
        answers = _replies(first.run_all(self.kernel, self.now_ns), SYN | ACK)
        self.pass_all(answers, reverse=True)
        way = Flows(there)
        back = _replies(way.run_all(self.kernel, self.now_ns), ACK)
        self.ways = [way, Flows(back, reverse=True)]


def full_bed(kernel: NativeKernel, opening: bytes | bytearray) -> FlowBed:
    """Return a bed whose flows are all new: more than fit, so each takes the place of the oldest.

    Args:
        opening: the first packet of each flow; all of them have passed once.
    """
    bed = FlowBed(kernel, [Flows(opening)])
    bed.ways[0].run_all(kernel, bed.now_ns)
    return bed


def print_figures(figures: Iterable[tuple[str, str, list[float]]]) -> None:
    """Print figures as they come, a line of JSON each: name, unit and values."""
    for name, unit, values in figures:
        print(json.dumps({"name": name, "unit": unit, "values": values}), flush=True)
