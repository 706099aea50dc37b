# SPDX-License-Identifier: Apache-2.0
"""The routes of the host, as routes of the router.

The kernel of the host, or a routing daemon on it, knows routes. One counts here if its gateways are
on links of the router. A gateway is looked for on the interface that has an address of the
kernel's interface, as the tap of a slow path has; else on any. Other routes, such as that to a
management network, do not concern the router.

Each turn reads and changes so few routes that packets wait no longer than they do for any Python.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Sequence

from onvm_nf_router.config import HOPS_MAX, Address, Network
from onvm_nf_router.interfaces import Interface
from onvm_nf_router.netlink import Flushed, HostAddress, HostHop, HostRoute, RouteSocket, Synced
from onvm_nf_router.routes import Hop
from onvm_nf_router.table import HOST, RouteTable

__all__ = ["HostRoutes"]

MAIN_TABLE = 254
BUDGET = 32
"""Messages and changes of one turn: half a millisecond."""
SWEPT = 256
"""Routes of one turn that are looked at for having gone."""
SYNC_NS = 1_000_000_000
"""Time between two full readings."""

_Known = dict[int, tuple[str, tuple[HostHop, ...]]]
"""Kind and hops by metric."""


class HostRoutes:
    """Follows a table of the kernel.

    Args:
        number: that of the routing table.
        table: gets the routes.
    """

    def __init__(self, number: int, table: RouteTable) -> None:
        self._table = table
        self._socket = RouteSocket(number)
        self._known: dict[Network, _Known] = {}
        self._owners: dict[int, set[Address]] = {}
        self._interfaces: Sequence[Interface] = ()
        self._pending: deque[Network] = deque()
        self._seen: set[tuple[Network, int]] | None = None
        self._wants_sync = True
        self._sync_ns = 0
        self._swept: deque[Network] | None = None
        self._groups: dict[object, tuple[str, tuple[Hop, ...]] | None] = {}

    def close(self) -> None:
        """Follow no longer; the routes stay."""
        self._socket.close()

    def show(self, interfaces: Sequence[Interface]) -> None:
        """Look for all gateways again, because the interfaces have changed."""
        self._interfaces = interfaces
        self._look_again()

    def _look_again(self) -> None:
        self._groups.clear()
        self._pending = deque(self._known)

    def turn(self, now_ns: int) -> bool:
        """Read and change some routes.

        Returns:
            True if there are more.
        """
        if self._wants_sync and self._seen is None and now_ns >= self._sync_ns:
            self._wants_sync, self._seen = False, set()
            self._sync_ns = now_ns + SYNC_NS
            self._socket.ask()
        count = 0
        for event in self._socket.read(BUDGET):
            count += 1
            match event:
                case HostRoute():
                    self._take(event)
                case HostAddress():
                    self._take_address(event)
                case Synced():
                    self._end_sync(event)
                case Flushed():
                    self._wants_sync = True
        self._sweep()
        for _ in range(min(BUDGET, len(self._pending))):
            prefix = self._pending.popleft()
            self._table.change(HOST, prefix, self._best(prefix))
        is_busy = count == BUDGET or bool(self._pending) or self._swept is not None
        if is_busy:
            gc.freeze()  # a search for cycles among 100,000 routes keeps packets for 100 ms
        return is_busy

    def _take(self, route: HostRoute) -> None:
        known = self._known.setdefault(route.prefix, {})
        if route.is_there:
            if self._seen is not None:
                self._seen.add((route.prefix, route.metric))
            if known.get(route.metric) == (route.kind, route.hops):
                return
            known[route.metric] = (route.kind, route.hops)
        else:
            kind, hops = known.pop(route.metric, ("", ()))
            # IPv6 tells of one gateway of several that goes.
            rest = tuple(hop for hop in hops if hop not in route.hops)
            if len(route.hops) < len(hops) and rest:
                known[route.metric] = (kind, rest)
            if not known:
                del self._known[route.prefix]
        self._pending.append(route.prefix)

    def _take_address(self, event: HostAddress) -> None:
        owned = self._owners.setdefault(event.link, set())
        if event.is_there and event.address not in owned:
            owned.add(event.address)
        elif not event.is_there:
            owned.discard(event.address)
            self._wants_sync = True  # its routes go without a message
        else:
            return
        if any(event.address in one.own for one in self._interfaces):
            self._look_again()

    def _end_sync(self, event: Synced) -> None:
        if self._seen is None:
            return
        if event.is_whole:
            self._swept = deque(self._known)
        else:
            self._seen, self._wants_sync = None, True

    def _sweep(self) -> None:
        """Drop some of the routes that a full reading has not met."""
        if self._swept is None or self._seen is None:
            return
        for _ in range(min(SWEPT, len(self._swept))):
            prefix = self._swept.popleft()
            known = self._known.get(prefix, {})
            gone = [metric for metric in known if (prefix, metric) not in self._seen]
            for metric in gone:
                del known[metric]
            if gone:
                self._pending.append(prefix)
            if gone and not known:
                del self._known[prefix]
        if not self._swept:
            self._seen, self._swept = None, None

    def _best(self, prefix: Network) -> tuple[str, tuple[Hop, ...]] | None:
        """The route of the smallest metric that the router can follow."""
        known = self._known.get(prefix)
        for metric in sorted(known or ()):
            assert known is not None
            key = prefix.version, known[metric]
            if key not in self._groups:
                self._groups[key] = self._resolve(prefix.version, *known[metric])
            found = self._groups[key]
            if found is not None:
                return found
        return None

    def _resolve(
        self, version: int, kind: str, hops: tuple[HostHop, ...]
    ) -> tuple[str, tuple[Hop, ...]] | None:
        if kind != "unicast":
            return kind, ()
        found = []
        for hop in hops[:HOPS_MAX]:
            place = self._interface_of(hop)
            if place is not None and (hop.gateway is None or hop.gateway.version == version):
                found.append(Hop(hop.gateway, place, hop.weight))
        if not found:
            return None
        if found[0].gateway is None:
            return "connected", (Hop(None, found[0].interface),)
        return kind, tuple(hop for hop in found if hop.gateway is not None)

    def _interface_of(self, hop: HostHop) -> int | None:
        owned = self._owners.get(hop.link, set())
        for number, one in enumerate(self._interfaces):
            if not owned.isdisjoint(one.own):
                return number
        if hop.gateway is None:
            return None
        for number, one in enumerate(self._interfaces):
            if one.has_on_link(hop.gateway) and hop.gateway not in one.own:
                return number
        return None
