# SPDX-License-Identifier: Apache-2.0
"""The table of routes: what several sources say, and what of it counts.

A source is a set of routes by prefix: the links, the file, the kernel of the host. Of two routes to
one prefix, that of the earlier source counts. Each change goes to the data plane at once; the
caller decides how many of them come between two bursts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from onvm_nf_router.config import GROUPS_MAX, Network
from onvm_nf_router.routes import Hop, Route
from onvm_sdk.errors import NativeError

__all__ = ["FILE", "HOST", "LINKS", "RoutePlane", "RouteTable"]

LINKS, FILE, HOST = range(3)
"""Sources, the first one before the others."""

_Group = tuple[str, tuple[Hop, ...]]


class RoutePlane(Protocol):
    """Where packets find routes: sets of next hops by number, and the set of each prefix."""

    def set_group(self, index: int, kind: str, hops: tuple[Hop, ...]) -> None: ...
    def add_route(self, prefix: Network, group: int) -> None: ...
    def delete_route(self, prefix: Network) -> None: ...


class RouteTable:
    """The routes of all sources.

    Args:
        plane: gets what counts.

    Attributes:
        refused: number of times that there was no room for a route.
    """

    def __init__(self, plane: RoutePlane) -> None:
        self.refused = 0
        self._plane = plane
        self._sources: tuple[dict[Network, _Group], ...] = ({}, {}, {})
        self._active: dict[Network, int] = {}
        self._numbers: dict[_Group, int] = {}
        self._groups: list[_Group] = []
        self._users: list[int] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._active)

    def replace(self, source: int, routes: Iterable[Route]) -> None:
        """Let a source have these routes and no others; what stays the same is not touched."""
        wanted = {route.prefix: (route.kind, route.hops) for route in routes}
        known = self._sources[source]
        for prefix, group in wanted.items():
            if known.get(prefix) != group:
                self.change(source, prefix, group)
        for prefix in [prefix for prefix in known if prefix not in wanted]:
            self.change(source, prefix, None)

    def change(self, source: int, prefix: Network, group: _Group | None) -> None:
        """Change one route of a source; None: it has none."""
        known = self._sources[source]
        if group is None:
            known.pop(prefix, None)
        else:
            known[prefix] = group
        best = next((routes[prefix] for routes in self._sources if prefix in routes), None)
        before = self._active.get(prefix)
        if best is not None:
            self._use(prefix, best, before)
        elif before is not None:
            self._plane.delete_route(prefix)
            del self._active[prefix]
            self._release(before)

    def _use(self, prefix: Network, group: _Group, before: int | None) -> None:
        index = self._number(group)
        if index is None:
            self.refused += 1
            return
        if index == before:
            return
        self._users[index] += 1
        try:
            self._plane.add_route(prefix, index)
        except NativeError:
            self.refused += 1
            self._release(index)
            return
        self._active[prefix] = index
        if before is not None:
            self._release(before)

    def _number(self, group: _Group) -> int | None:
        if group in self._numbers:
            return self._numbers[group]
        if self._free:
            index = self._free.pop()
            self._groups[index] = group
        elif len(self._groups) < GROUPS_MAX:
            index = len(self._groups)
            self._groups.append(group)
            self._users.append(0)
        else:
            return None
        self._plane.set_group(index, *group)
        self._numbers[group] = index
        return index

    def _release(self, index: int) -> None:
        self._users[index] -= 1
        if self._users[index] == 0:
            del self._numbers[self._groups[index]]
            self._free.append(index)
