"""The last events of a manager, for those who ask later."""

from __future__ import annotations

import time
from collections import deque

from onvm_core.manager.api.messages import Event, EventsReply, EventsRequest, TimedEvent

__all__ = ["EventLog"]

KEPT = 500


class EventLog:
    """Remembers events, and numbers them."""

    def __init__(self) -> None:
        self._count = 0
        self._events: deque[TimedEvent] = deque(maxlen=KEPT)

    def add(self, event: Event) -> None:
        """Remember an event; the oldest one is forgotten."""
        self._count += 1
        self._events.append(TimedEvent(self._count, round(time.time(), 3), event))

    def read(self, request: EventsRequest) -> EventsReply:
        """The events after the one that the request names."""
        events = [one for one in self._events if one.number > request.after]
        return EventsReply(events=events, last=self._count)
