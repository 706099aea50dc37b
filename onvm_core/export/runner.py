"""Feeds exporters: each has a thread and a short queue, so that a slow one delays no other.

What does not fit into the queue pushes out the oldest there. An exporter that raises is reported
once and gets nothing any more.

Threads: `Exporters` belongs to the manager's thread; `enter`, `export` and `exit` of an exporter
are called by its own.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import msgspec

from onvm_core.export.snapshot import Snapshot

__all__ = ["Exporter", "ExporterReport", "Exporters", "PlannedExporter"]

log = logging.getLogger("onvm.export")

QUEUE_LENGTH = 4
END_TIMEOUT_S = 1.0


class Exporter(Protocol):
    """A context manager that takes snapshots."""

    def __enter__(self) -> Self:
        """Called before the first snapshot."""

    def __exit__(self, *_: object) -> object:
        """Called after the last."""

    def export(self, snapshot: Snapshot) -> None:
        """Take one; it may be slow."""


@dataclass(frozen=True, slots=True)
class PlannedExporter:
    """``[exporters.NAME]``, made."""

    kind: str
    interval_s: float
    exporter: Exporter


class ExporterReport(msgspec.Struct, frozen=True):
    """What has become of an exporter."""

    name: str
    kind: str
    interval_s: float
    exported: int
    dropped: int
    """Snapshots that were pushed out because it was too slow."""
    problem: str
    """Why it gets nothing any more; empty while it works."""


class _Worker(threading.Thread):
    def __init__(self, name: str, exporter: Exporter) -> None:
        # A daemon: one that never returns cannot keep the process.
        super().__init__(name=f"onvm-export-{name}", daemon=True)
        self._label = name
        self._exporter = exporter
        self._changed = threading.Condition()
        self._queue: deque[Snapshot] = deque()
        self._is_over = False
        self.exported = 0
        self.dropped = 0
        self.problem = ""

    def offer(self, snapshot: Snapshot) -> None:
        """Queue a snapshot; never waits for the exporter."""
        with self._changed:
            if len(self._queue) == QUEUE_LENGTH:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(snapshot)
            self._changed.notify()

    def finish(self) -> None:
        """Take what is queued, then end."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def run(self) -> None:
        """Until `finish`, or the exporter raises."""
        try:
            with self._exporter as exporter:
                while (snapshot := self._next()) is not None:
                    exporter.export(snapshot)
                    self.exported += 1
        except Exception as error:
            self.problem = f"raised {type(error).__name__}: {error}"
            log.warning("exporter %s %s; it gets nothing any more", self._label, self.problem)

    def _next(self) -> Snapshot | None:
        with self._changed:
            while not self._queue and not self._is_over:
                self._changed.wait()
            return self._queue.popleft() if self._queue else None


class Exporters:
    """The exporters of one manager.

    Args:
        snapshot: makes one; called by `turn`, once for all that are due.
    """

    def __init__(
        self, planned: Mapping[str, PlannedExporter], snapshot: Callable[[], Snapshot]
    ) -> None:
        self._planned = dict(planned)
        self._snapshot = snapshot
        self._workers = {name: _Worker(name, plan.exporter) for name, plan in planned.items()}
        now = time.monotonic()
        self._due = {name: now + plan.interval_s for name, plan in planned.items()}
        for worker in self._workers.values():
            worker.start()

    def turn(self) -> None:
        """Give a snapshot to each exporter that is due."""
        now = time.monotonic()
        due = [name for name, at in self._due.items() if now >= at and self._works(name)]
        if not due:
            return
        snapshot = self._snapshot()
        for name in due:
            # From now, not from when it was due: a manager that was stopped does not catch up.
            self._due[name] = now + self._planned[name].interval_s
            self._workers[name].offer(snapshot)

    def _works(self, name: str) -> bool:
        return self._workers[name].is_alive()

    def close(self) -> None:
        """Hand out a last snapshot, and give each a moment to take it."""
        if any(self._works(name) for name in self._workers):
            snapshot = self._snapshot()
            for worker in self._workers.values():
                worker.offer(snapshot)
        for worker in self._workers.values():
            worker.finish()
        deadline = time.monotonic() + END_TIMEOUT_S
        for worker in self._workers.values():
            with contextlib.suppress(RuntimeError):
                worker.join(max(deadline - time.monotonic(), 0.0))

    def reports(self) -> list[ExporterReport]:
        """What has become of each."""
        return [
            ExporterReport(
                name=name,
                kind=plan.kind,
                interval_s=plan.interval_s,
                exported=self._workers[name].exported,
                dropped=self._workers[name].dropped,
                problem=self._workers[name].problem,
            )
            for name, plan in self._planned.items()
        ]
