"""A reader of the views that the dashboard shows, for all viewers at once."""

from __future__ import annotations

import threading
import time

import msgspec

from onvm_core.manager.api.client import Client
from onvm_core.manager.api.directory import manager_directory
from onvm_core.manager.api.messages import (
    EventsReply,
    EventsRequest,
    ScaledService,
    ScaleStatusReply,
    ScaleStatusRequest,
    StatusReply,
    StatusRequest,
    TimedEvent,
)
from onvm_core.scaling.autoscaler import Decision
from onvm_sdk.errors import OnvmError

__all__ = ["Source", "View"]

EVENTS_SHOWN = 30
DECISIONS_SHOWN = 20
ANSWER_S = 3.0


class View(msgspec.Struct, frozen=True):
    """A manager at one moment."""

    time: float
    manager: str
    error: str = ""
    """The reason why nothing else is known."""
    status: StatusReply | None = None
    services: list[ScaledService] = []
    decisions: list[Decision] = []
    events: list[TimedEvent] = []


class Source:
    """Asks the manager at most once in an interval.

    Args:
        name: name of the manager.
        interval_s: age after which a view is read again.

    Threads: any; one asks, and the others wait for its answer.
    """

    def __init__(self, name: str, interval_s: float) -> None:
        self._name = name
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._at_s = float("-inf")
        self._last = b""

    def read(self) -> bytes:
        """The last view, as JSON in one line."""
        with self._lock:
            if time.monotonic() - self._at_s >= self._interval_s:
                self._last = msgspec.json.encode(self._view(), enc_hook=str)
                self._at_s = time.monotonic()
            return self._last

    def _view(self) -> View:
        now = round(time.time(), 3)
        try:
            with Client(manager_directory(self._name)) as client:
                status = client.ask(StatusRequest(), StatusReply, ANSWER_S)
                scale = client.ask(ScaleStatusRequest(), ScaleStatusReply, ANSWER_S)
                events = client.ask(EventsRequest(), EventsReply, ANSWER_S)
        except OnvmError as error:
            return View(now, self._name, error=str(error))
        return View(
            now,
            self._name,
            status=status,
            services=scale.services,
            decisions=scale.decisions[-DECISIONS_SHOWN:],
            events=events.events[-EVENTS_SHOWN:],
        )
