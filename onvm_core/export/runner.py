"""Feed exporters. Each has a thread and a short queue, so a slow one delays no other.

A snapshot that does not fit into the queue replaces the oldest one. An exporter that raises an
exception is reported once and gets no more snapshots.

Threads: `Exporters` belongs to the manager's thread. Each exporter is entered, called and left by
its own thread.
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
        """Process a snapshot. This may be slow."""


@dataclass(frozen=True, slots=True)
class PlannedExporter:
    """``[exporters.NAME]``, made."""

    kind: str
    interval_s: float
    exporter: Exporter


class ExporterReport(msgspec.Struct, frozen=True):
    """The state of an exporter."""

    name: str
    kind: str
    interval_s: float
    exported: int
    dropped: int
    """Snapshots that it missed because it was too slow."""
    problem: str
    """The reason why it gets no more snapshots; empty while it works."""


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
        """Process the queued snapshots, then end."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def run(self) -> None:
        """Run until `finish`, or until the exporter raises an exception."""
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
        snapshot: makes a snapshot; `turn` calls it once for all exporters that are due.
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
        """Queue a last snapshot, and give each exporter a moment to process it."""
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
        """The state of each exporter."""
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
