# SPDX-License-Identifier: Apache-2.0
"""The same packets through a kernel in C again and again, as they were at first, to time it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from onvm_sdk import NativeKernel
from onvm_sdk._native import local
from onvm_sdk._native._nf import ffi, lib
from onvm_sdk.limits import COUNTERS_MAX

__all__ = ["Replay"]

HEADROOM: int = lib.ONVM_HEADROOM
ROOM = 64
"""Bytes behind each packet."""


@ffi.callback("struct onvm_pkt *(struct onvm_ctx *)")  # type: ignore[untyped-decorator]
def _nothing(_ctx: object) -> object:
    return ffi.NULL


class Replay:
    """One burst of packets whose way begins and ends at the kernel.

    The kernel has no buffers for packets of its own.

    Args:
        frames: the packets.
        port: the port that they come from.
    """

    def __init__(self, frames: Sequence[bytes], port: int = 0) -> None:
        self._count = len(frames)
        stride = -(-(HEADROOM + max(map(len, frames)) + ROOM) // 64) * 64
        self._memory = ffi.new("uint8_t[]", stride * self._count)
        self._packets = ffi.new("struct onvm_pkt[]", self._count)
        for number, frame in enumerate(frames):
            begin = number * stride + HEADROOM
            ffi.memmove(self._memory + begin, frame, len(frame))
            pkt = self._packets[number]
            pkt.data, pkt.buffer, pkt.length = self._memory + begin, number, len(frame)
            pkt.headroom, pkt.tailroom = HEADROOM, stride - HEADROOM - len(frame)
            pkt.port, pkt.flags = port, local.WHOLE_WAY
        self._fresh_memory = bytes(ffi.buffer(self._memory))
        self._fresh_packets = bytes(ffi.buffer(self._packets))
        self._counters = ffi.new("uint64_t[]", COUNTERS_MAX)
        self._ctx = ffi.new(
            "struct onvm_ctx *",
            {
                "counters": self._counters,
                "originate": _nothing,
                "is_first_stage": True,
                "is_last_stage": True,
            },
        )

    def __len__(self) -> int:
        return self._count

    def run(self, kernel: NativeKernel, now_ns: int = 1) -> int:
        """Run the packets, as they were at first, through a kernel.

        Returns:
            The time that the kernel took, in nanoseconds.
        """
        ffi.memmove(self._memory, self._fresh_memory, len(self._fresh_memory))
        ffi.memmove(self._packets, self._fresh_packets, len(self._fresh_packets))
        self._ctx.state = ffi.cast("void *", kernel.state)
        self._ctx.now_ns = now_ns
        function = ffi.cast("onvm_kernel", kernel.function)
        begun = time.perf_counter_ns()
        function(self._ctx, self._packets, self._count)
        return time.perf_counter_ns() - begun

    def count(self, verdict: int) -> int:
        """Number of packets with a verdict after the last run."""
        return sum(self._packets[number].verdict == verdict for number in range(self._count))
