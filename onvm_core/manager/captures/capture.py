"""Captures: copies of the packets that pass a point, in a pcapng file, while traffic flows.

Workers copy into rings and never wait; `Capture.drain` writes their contents to the file. The
manager's loop calls it often enough that the rings do not overflow; overflow is counted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from onvm_core.dataplane.interface import CapturePlane
from onvm_core.dataplane.values import CaptureCounters, CapturePoint

__all__ = ["Capture", "CaptureCounters", "CapturePoint"]

DEFAULT_RING_BYTES = 4 << 20


class Capture:
    """One capture. A context manager; `drain` writes the copies that have come in.

    Args:
        plane: the data plane whose packets are copied.
        target: path of the file, which is made or emptied; or a file descriptor, which the caller
            keeps and closes.
        points: where packets are captured, one interface of the file for each.
        snap_length: bytes kept of each packet; 0: all.
        limit: packets in all; 0: no limit.
        filter_text: chooses packets; "": all.
        n_followed: as for `CapturePlane.start_capture`.
        ring_bytes: size of each worker's ring for copies that are not written yet.

    Raises:
        DataplaneError: a point does not exist, or too many captures are running.
        OSError: the file cannot be made.

    Threads: the manager's.
    """

    def __init__(
        self,
        plane: CapturePlane,
        target: Path | int,
        points: Sequence[CapturePoint],
        *,
        snap_length: int = 0,
        limit: int = 0,
        ring_bytes: int = DEFAULT_RING_BYTES,
        filter_text: str = "",
        n_followed: int = 0,
    ) -> None:
        self.points = tuple(points)
        self._plane = plane
        self._owns_fd = isinstance(target, Path)
        self._last: CaptureCounters | None = None
        self._fd = (
            os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            if isinstance(target, Path)
            else target
        )
        try:
            self._id = self._plane.start_capture(
                self.points,
                snap_length=snap_length,
                limit=limit,
                ring_bytes=ring_bytes,
                fd=self._fd,
                filter_text=filter_text,
                n_followed=n_followed,
            )
        except BaseException:
            self._close_file()
            raise

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def counters(self) -> CaptureCounters:
        """The counters so far, or the final ones after the end."""
        return self._plane.read_capture(self._id) if self._last is None else self._last

    def drain(self) -> int:
        """Write the captured packets to the file; return how many."""
        return self._plane.drain_capture(self._id) if self._last is None else 0

    def stop(self) -> CaptureCounters:
        """End the capture and write the rest; a second call does nothing."""
        if self._last is None:
            # Release it in any case: the counters stand even if the file takes no more.
            self._last = self._plane.read_capture(self._id)
            try:
                self._last = self._plane.stop_capture(self._id)
            finally:
                self._close_file()
        return self._last

    def _close_file(self) -> None:
        if self._owns_fd:
            os.close(self._fd)
