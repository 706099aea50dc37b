# SPDX-License-Identifier: Apache-2.0
"""Call a compiled kernel on packets, with a clock of your own and without a manager."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onvm_sdk._native._nf import ffi, lib
from onvm_sdk._native.local import HEADROOM, WHOLE_WAY, LocalMemory
from onvm_sdk.limits import COUNTERS_MAX
from onvm_sdk.nf import NativeKernel
from onvm_sdk.verdict import Verdict

__all__ = ["DROP", "MERGED", "NEXT", "OUT", "PARTIAL", "KernelRunner", "Packet"]

PARTIAL, MERGED = int(lib.ONVM_F_PARTIAL), int(lib.ONVM_F_MERGED)

LOAN_BYTES = 2048
"""The size of a loaned buffer."""
NEXT, DROP, OUT = int(Verdict.NEXT), int(Verdict.DROP), int(Verdict.OUT)


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet before or after a kernel.

    Args:
        destination: drop reason, service ID or port, depending on `verdict`.
        flags: PARTIAL and MERGED, as a port sets them.
        largest_fragment: of a reassembled packet, the bytes of its largest fragment.
        fragment_ports: of a fragment, the ports of its datagram.
    """

    data: bytes
    reverse: bool = False
    port: int = 0
    verdict: int = NEXT
    destination: int = 0
    flags: int = 0
    largest_fragment: int = 0
    fragment_ports: tuple[int, int] | None = None

    @property
    def all_flags(self) -> int:
        """The flags as a kernel sees them."""
        is_fragmented = self.largest_fragment or self.fragment_ports
        return (
            self.flags
            | WHOLE_WAY
            | (lib.ONVM_F_REVERSE if self.reverse else 0)
            | (lib.ONVM_F_FRAGMENTED if is_fragmented else 0)
        )

    @property
    def slot(self) -> bytes:
        """The bytes of its slot: a note about fragments, headroom, the packet."""
        note = struct.pack("=H", self.largest_fragment)
        note += struct.pack("!HH", *self.fragment_ports or (0, 0))
        return note + bytes(HEADROOM - len(note)) + self.data


class KernelRunner:
    """Run bursts through a kernel.

    Every packet lies in memory of exactly its size, with headroom in front. So a sanitizer detects
    a read beyond its end.

    Args:
        kernel: function and state.
        nb_loaned: packets that it may make in one burst.
    """

    def __init__(self, kernel: NativeKernel, *, nb_loaned: int = 0) -> None:
        self._kernel = kernel
        self._call = ffi.cast("onvm_kernel", kernel.function)
        self._counters = ffi.new("uint64_t[]", COUNTERS_MAX)
        self._nb_loaned = nb_loaned
        self.originated: list[Packet] = []
        """The packets that the kernel made in the last burst."""
        self._ctx = ffi.new(
            "struct onvm_ctx *",
            {
                "state": ffi.cast("void *", kernel.state),
                "counters": self._counters,
                "is_first_stage": True,
                "is_last_stage": True,
                "hold": ffi.addressof(lib, "onvm_ctx_hold"),
                "held": ffi.addressof(lib, "onvm_ctx_held"),
                "release": ffi.addressof(lib, "onvm_ctx_release"),
            },
        )

    @property
    def counters(self) -> list[int]:
        """The kernel's counters."""
        return list(self._counters)

    def run(self, packets: Sequence[Packet], now_ns: int = 1) -> list[Packet]:
        """Run one burst and return the packets after it."""
        memory = [ffi.new("uint8_t[]", packet.slot) for packet in packets]
        burst = ffi.new("struct onvm_pkt[]", max(1, len(packets)))
        for pkt, slot, packet in zip(burst, memory, packets, strict=False):
            pkt.data = slot + HEADROOM
            pkt.length, pkt.headroom = len(packet.data), HEADROOM
            pkt.port = packet.port
            pkt.flags = packet.all_flags
        self._ctx.now_ns = now_ns
        with_loans = self._lend()
        self._call(self._ctx, burst, len(packets))
        self.originated = [
            Packet(
                with_loans.frame(slot),
                verdict=with_loans.packets[slot].verdict,
                destination=with_loans.packets[slot].destination,
            )
            for slot in with_loans.made
            if with_loans.packets[slot].verdict != DROP
        ]
        return [
            replace(
                packet,
                data=bytes(ffi.buffer(pkt.data, pkt.length)),
                verdict=pkt.verdict,
                destination=pkt.destination if pkt.verdict != NEXT else 0,
            )
            for pkt, packet in zip(burst, packets, strict=False)
        ]

    def _lend(self) -> LocalMemory:
        loans = LocalMemory([], nb_loaned=self._nb_loaned, slot_bytes=LOAN_BYTES)
        if self._nb_loaned:
            self._ctx.originate = lib.onvm_python_originate
            self._ctx.may_originate = True
            self._ctx.runtime = loans.handle
        return loans

    def nanoseconds_per_packet(
        self, packets: Sequence[Packet], rounds: int = 2000, now_ns: int = 1
    ) -> float:
        """Measure a burst whose kernel may be applied to the same packets again.

        Returns:
            The best of all rounds.
        """
        import time

        memory = [ffi.new("uint8_t[]", bytes(HEADROOM) + p.data) for p in packets]
        burst = ffi.new("struct onvm_pkt[]", len(packets))
        self._ctx.now_ns = now_ns
        best = float("inf")
        for _ in range(rounds):
            for pkt, slot, packet in zip(burst, memory, packets, strict=True):
                pkt.data, pkt.length, pkt.verdict = slot + HEADROOM, len(packet.data), NEXT
                ffi.buffer(pkt.data, pkt.length)[:] = packet.data
            begin = time.perf_counter_ns()
            self._call(self._ctx, burst, len(packets))
            best = min(best, (time.perf_counter_ns() - begin) / len(packets))
        return best
