# SPDX-License-Identifier: Apache-2.0
"""Call a compiled kernel on packets, with a clock of your own and without a manager."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cffi

from onvm_sdk.nf import NativeKernel

__all__ = ["DROP", "NEXT", "OUT", "KernelRunner", "Packet"]

NEXT, DROP, TO_SERVICE, OUT = range(4)
_HEADROOM = 128
_REVERSE = 1
_ffi: Any = cffi.FFI()
_ffi.cdef(
    """
    struct onvm_pkt {
        uint8_t *data; uint32_t buffer; uint16_t headroom; uint16_t length; uint32_t flow_hash;
        uint16_t port; uint8_t verdict; uint8_t flags; uint16_t destination; uint16_t tailroom;
        uint16_t worker; uint16_t stage;
    };
    struct onvm_ctx {
        void *state; uint64_t now_ns; uint64_t *counters; void *originate; void *runtime;
    };
    typedef void (*onvm_kernel)(struct onvm_ctx *, struct onvm_pkt *, uint32_t);
    """
)


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet before or after a kernel.

    Args:
        destination: drop reason, service ID or port, depending on `verdict`.
    """

    data: bytes
    reverse: bool = False
    port: int = 0
    verdict: int = NEXT
    destination: int = 0


class KernelRunner:
    """Run bursts through a kernel.

    Every packet lies in memory of exactly its size, with headroom in front. So a sanitizer detects
    a read beyond its end.

    Args:
        kernel: function and state.
    """

    def __init__(self, kernel: NativeKernel) -> None:
        self._kernel = kernel
        self._call = _ffi.cast("onvm_kernel", kernel.function)
        self._counters = _ffi.new("uint64_t[16]")
        self._ctx = _ffi.new(
            "struct onvm_ctx *",
            {"state": _ffi.cast("void *", kernel.state), "counters": self._counters},
        )

    @property
    def counters(self) -> list[int]:
        """The kernel's 16 counters."""
        return list(self._counters)

    def run(self, packets: Sequence[Packet], now_ns: int = 1) -> list[Packet]:
        """Run one burst and return the packets after it."""
        memory = [_ffi.new("uint8_t[]", bytes(_HEADROOM) + p.data) for p in packets]
        burst = _ffi.new("struct onvm_pkt[]", max(1, len(packets)))
        for pkt, slot, packet in zip(burst, memory, packets, strict=False):
            pkt.data = slot + _HEADROOM
            pkt.length, pkt.headroom = len(packet.data), _HEADROOM
            pkt.port, pkt.flags = packet.port, _REVERSE if packet.reverse else 0
        self._ctx.now_ns = now_ns
        self._call(self._ctx, burst, len(packets))
        return [
            replace(
                packet,
                data=bytes(_ffi.buffer(pkt.data, pkt.length)),
                verdict=pkt.verdict,
                destination=pkt.destination if pkt.verdict != NEXT else 0,
            )
            for pkt, packet in zip(burst, packets, strict=False)
        ]

    def nanoseconds_per_packet(
        self, packets: Sequence[Packet], rounds: int = 2000, now_ns: int = 1
    ) -> float:
        """Measure a burst whose kernel may be applied to the same packets again.

        Returns:
            The best of all rounds.
        """
        import time

        memory = [_ffi.new("uint8_t[]", bytes(_HEADROOM) + p.data) for p in packets]
        burst = _ffi.new("struct onvm_pkt[]", len(packets))
        self._ctx.now_ns = now_ns
        best = float("inf")
        for _ in range(rounds):
            for pkt, slot, packet in zip(burst, memory, packets, strict=True):
                pkt.data, pkt.length, pkt.verdict = slot + _HEADROOM, len(packet.data), NEXT
                _ffi.buffer(pkt.data, pkt.length)[:] = packet.data
            begin = time.perf_counter_ns()
            self._call(self._ctx, burst, len(packets))
            best = min(best, (time.perf_counter_ns() - begin) / len(packets))
        return best
