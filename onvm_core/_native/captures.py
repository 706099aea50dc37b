"""Thin binding of the calls of ``dataplane.h`` that capture packets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onvm_core._native._dataplane import ffi, lib
from onvm_core._native.call import check
from onvm_core.dataplane.values import CaptureCounters, CapturePoint

__all__ = ["NativeCaptures"]


class NativeCaptures:
    """See `onvm_core.dataplane.interface.CapturePlane`."""

    def start_capture(
        self,
        points: Sequence[CapturePoint],
        *,
        snap_length: int,
        limit: int,
        ring_bytes: int,
        fd: int,
        filter_text: str = "",
        n_followed: int = 0,
    ) -> int:
        native = ffi.new("struct onvm_dp_capture_point[]", max(len(points), 1))
        for slot, point in zip(native, points, strict=False):
            slot.is_host = point.is_host
            slot.id = point.id
            slot.is_in = point.is_in
            slot.is_out = point.is_out
            slot.name = point.name.encode()[: lib.ONVM_PORT_NAME_LENGTH - 1]
        return check(
            lib.onvm_dp_capture_start(
                native,
                len(points),
                snap_length,
                limit,
                ring_bytes,
                fd,
                filter_text.encode(),
                n_followed,
            )
        )

    def match_filter(self, filter_text: str, frames: Sequence[bytes]) -> list[bool]:
        length = len(frames[0]) if frames else 0
        matches = ffi.new("uint8_t[]", max(len(frames), 1))
        data = b"".join(frames)
        check(lib.onvm_dp_filter_match(filter_text.encode(), data, length, len(frames), matches))
        return [bool(one) for one in matches[0 : len(frames)]]

    def drain_capture(self, capture: int) -> int:
        return check(lib.onvm_dp_capture_drain(capture))

    def stop_capture(self, capture: int) -> CaptureCounters:
        last = ffi.new("struct onvm_dp_capture_stats *")
        check(lib.onvm_dp_capture_stop(capture, last))
        return _capture_counters(last)

    def read_capture(self, capture: int) -> CaptureCounters:
        stats = ffi.new("struct onvm_dp_capture_stats *")
        check(lib.onvm_dp_read_capture(capture, stats))
        return _capture_counters(stats)


def _capture_counters(stats: Any) -> CaptureCounters:
    return CaptureCounters(
        captured=stats.captured,
        overflow=stats.overflow,
        written=stats.written,
        followed=stats.followed,
        is_full=bool(stats.is_full),
    )
