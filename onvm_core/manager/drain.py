"""Finds out when the flows of a draining NF host have ended.

The flow table may have millions of entries: each turn looks at some of them. A host whose slot no
entry has named in a whole pass has no flow any more, for it gets no new ones.
"""

from __future__ import annotations

from onvm_core._native import dataplane

__all__ = ["FlowWatch"]

FLOWS_PER_TURN = 2048
PAUSE_S = 0.2


class FlowWatch:
    """Watches slots of draining hosts."""

    def __init__(self) -> None:
        self._watched: set[int] = set()
        self._asked: frozenset[int] = frozenset()
        self._seen: set[int] = set()
        self._cursor = 0
        self._next_s = 0.0

    def add(self, slot: int) -> None:
        """Watch a slot."""
        self._watched.add(slot)

    def discard(self, slot: int) -> None:
        """Watch it no longer."""
        self._watched.discard(slot)

    def turn(self, now_s: float) -> set[int]:
        """Look at some flows; slots that were found to have none."""
        if not self._watched or now_s < self._next_s:
            return set()
        if self._cursor == 0:
            self._asked = frozenset(self._watched)
            self._seen = set()
        cursor, slots = dataplane.read_flow_hosts(self._cursor, FLOWS_PER_TURN)
        self._seen |= slots
        ended = self._asked - self._seen
        if cursor is not None and ended:
            self._cursor = cursor
            return set()
        # The table's end, or all are known to have flows: once more, a little later.
        self._cursor = 0
        self._next_s = now_s + PAUSE_S
        return set(ended) & self._watched
