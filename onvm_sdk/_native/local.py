"""Packets in private memory: what a kernel needs when there is no manager."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from onvm_sdk._native._nf import ffi, lib

__all__ = ["LocalMemory"]

HEADROOM: int = lib.ONVM_HEADROOM
WHOLE_WAY: int = lib.ONVM_F_FIRST | lib.ONVM_F_LAST
"""Flags of a packet whose way begins and ends in this process."""
CANARY = 0xC5
CANARY_BYTES = 64


class LocalMemory:
    """Slots like those of packet memory, each with a canary before and behind it.

    Args:
        frames: packet data, one slot each.
        nb_loaned: more slots, for packets that NFs make.
        slot_bytes: room for a packet and its headroom.
    """

    def __init__(self, frames: Sequence[bytes], *, nb_loaned: int, slot_bytes: int) -> None:
        self._frames = len(frames)
        self._stride = slot_bytes + 2 * CANARY_BYTES
        self._slot_bytes = slot_bytes
        count = len(frames) + nb_loaned
        self._memory = ffi.new("uint8_t[]", max(count, 1) * self._stride)
        self._buffer = memoryview(ffi.buffer(self._memory))
        self._buffer[:] = bytes([CANARY]) * len(self._buffer)
        self.packets = ffi.new("struct onvm_pkt[]", max(count, 1))
        for slot in range(count):
            self._reset(slot, frames[slot] if slot < len(frames) else b"")
        self._next_loan = len(frames)
        self._count = count
        self.handle = ffi.new_handle(self)
        self.made: list[int] = []

    def _reset(self, slot: int, frame: bytes) -> None:
        packet = self.packets[slot]
        begin = slot * self._stride + CANARY_BYTES + HEADROOM
        packet.data = self._memory + begin
        packet.buffer = slot
        packet.flags = WHOLE_WAY
        packet.length = len(frame)
        packet.headroom = HEADROOM
        packet.tailroom = self._slot_bytes - HEADROOM - len(frame)
        self._buffer[begin - HEADROOM : begin] = bytes(HEADROOM)
        self._buffer[begin : begin + len(frame)] = frame
        rest = packet.tailroom
        self._buffer[begin + len(frame) : begin + len(frame) + rest] = bytes(rest)

    def set_time(self, slot: int, time_ns: int) -> None:
        """Say when the packet in a slot was captured, in nanoseconds since 1970."""
        begin = slot * self._stride + CANARY_BYTES + lib.ONVM_SLOT_TIME
        self._buffer[begin : begin + 8] = time_ns.to_bytes(8, sys.byteorder)
        self.packets[slot].flags |= lib.ONVM_F_TIMED

    def note_largest_fragment(self, slot: int, n_bytes: int) -> None:
        """Let a packet be one that came in fragments, the largest of which had so many bytes."""
        packet = self.packets[slot]
        packet.flags |= lib.ONVM_F_FRAGMENTED
        ffi.memmove(packet.data - packet.headroom, n_bytes.to_bytes(2, sys.byteorder), 2)

    def context(
        self,
        state: int,
        now_ns: int,
        counters: Any,
        *,
        is_first: bool = True,
        is_last: bool = True,
        may_originate: bool = True,
        held: Any = ffi.NULL,
    ) -> Any:
        """Make a ``struct onvm_ctx``; it is good as long as this object.

        Args:
            may_originate: the NF has the permission.
            held: its table of held packets.
            is_first: the NF is the first one on the packets' way.
            is_last: it is the last one.
        """
        ctx = ffi.new("struct onvm_ctx *")
        ctx.state = ffi.cast("void *", state)
        ctx.now_ns = now_ns
        ctx.counters = ffi.from_buffer("uint64_t[]", counters)
        ctx.originate = lib.onvm_python_originate
        ctx.runtime = self.handle
        ctx.is_first_stage = is_first
        ctx.is_last_stage = is_last
        ctx.may_originate = may_originate
        ctx.hold = ffi.addressof(lib, "onvm_ctx_hold")
        ctx.held = ffi.addressof(lib, "onvm_ctx_held")
        ctx.release = ffi.addressof(lib, "onvm_ctx_release")
        ctx.held_packets = held
        return ctx

    def loan(self) -> Any:
        """Take an empty slot; NULL when there is none left."""
        if self._next_loan == self._count:
            return ffi.NULL
        slot = self._next_loan
        self._next_loan += 1
        self.made.append(slot)
        return ffi.addressof(self.packets, slot)

    def frame(self, slot: int) -> bytes:
        """Bytes of the packet in a slot."""
        packet = self.packets[slot]
        return bytes(ffi.buffer(packet.data, packet.length))

    def is_whole(self, slot: int) -> bool:
        """Say whether the packet lies in its slot and the canaries around it are untouched."""
        packet = self.packets[slot]
        begin = slot * self._stride
        end = begin + self._stride
        offset = int(packet.data - self._memory)
        first, behind = begin + CANARY_BYTES, end - CANARY_BYTES
        if offset < first or offset + packet.length > behind:
            return False
        canary = bytes([CANARY]) * CANARY_BYTES
        return self._buffer[begin:first] == canary and self._buffer[behind:end] == canary


def call(function: int, ctx: Any, packets: Any, slots: Sequence[int]) -> None:
    """Call a kernel with the packets in `slots` and bring what it changed back there."""
    burst = ffi.new("struct onvm_pkt[]", max(len(slots), 1))
    for row, slot in enumerate(slots):
        burst[row] = packets[slot]
    ffi.cast("onvm_kernel", function)(ctx, burst, len(slots))
    for row, slot in enumerate(slots):
        packets[slot] = burst[row]
    if ctx.held_packets != ffi.NULL:
        lib.onvm_held_settle(ctx.held_packets, burst, len(slots))


def take_released(held: Any) -> Any:
    """Take the packets that an NF has released, as an array; None if there are none."""
    count = lib.onvm_held_released(held)
    if count == 0:
        return None
    packets = ffi.new("struct onvm_pkt[]", count)
    lib.onvm_held_take(held, packets, count)
    return packets


def frame_of(packet: Any) -> bytes:
    """Bytes of a packet."""
    return bytes(ffi.buffer(packet.data, packet.length))


def originate(ctx: Any, frame: bytes, verdict: int, destination: int) -> int:
    """Make a packet; gives 0 or -errno."""
    result: int = lib.onvm_originate(ctx, frame, len(frame), verdict, destination)
    return result


@ffi.def_extern(error=ffi.NULL)  # type: ignore[untyped-decorator]
def onvm_python_originate(ctx: Any) -> Any:
    memory: LocalMemory = ffi.from_handle(ctx.runtime)
    return memory.loan()
