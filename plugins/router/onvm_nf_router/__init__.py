# SPDX-License-Identifier: Apache-2.0
"""IPv4 and IPv6 router for onvm service chains."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onvm_nf_router import config as _config
from onvm_sdk import NativeKernel, NetworkFunction
from onvm_sdk.errors import OnvmError
from onvm_sdk.nf import Context, Port

if TYPE_CHECKING:
    from onvm_nf_router.host_routes import HostRoutes
    from onvm_nf_router.interfaces import Interface
    from onvm_nf_router.kernel import Kernel

__all__ = ["Router"]


LOG_NS = 10_000_000_000
BUSY_S = 0.001
"""Seconds between turns while routes of the host wait for being read."""


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Router(NetworkFunction):
    """Forwards packets between the links of its interfaces, and answers for its addresses."""

    timer_interval_s = 0.1
    _host_routes: HostRoutes | None = None

    def setup(self, ctx: Context) -> None:
        """Check the configuration and build the tables."""
        from onvm_nf_router.kernel import Kernel
        from onvm_nf_router.table import RouteTable

        self._config = _config.load(ctx.config)
        self._kernel = Kernel(self._config.settings)
        self._table = RouteTable(self._kernel)
        self._ports: Sequence[Port] = ()
        self._others: Sequence[str] = ()
        self._interfaces: tuple[Interface, ...] = ()
        self._complaints: set[str] = set()
        self._refused = 0
        self._refused_ns = 0
        self._follow(self._config.settings.kernel_routes)

    def native(self) -> NativeKernel:
        """Return the C kernel."""
        return self._kernel.native

    def prepare(self, config: Mapping[str, Any]) -> tuple[_config.RouterConfig, Kernel | None]:
        """Check another configuration; build tables if it wants others than there are."""
        from onvm_nf_router.kernel import Kernel

        checked, known = _config.load(config), self._config.settings
        wanted = checked.settings
        is_same = (wanted.max_routes, wanted.max_neighbours) == (
            known.max_routes,
            known.max_neighbours,
        )
        return checked, None if is_same else Kernel(wanted)

    def reconfigure(self, config: tuple[_config.RouterConfig, Kernel | None]) -> None:
        """Use other routes and settings. Neighbours stay known unless the tables are others."""
        from onvm_nf_router.table import HOST, RouteTable

        kept = self._config, self._kernel, self._table
        self._config, kernel = config
        if kernel is not None:
            self._kernel, self._table = kernel, RouteTable(kernel)
        try:
            self._change()
        except OnvmError:
            self._config, self._kernel, self._table = kept
            self._change()
            raise
        # Not merely equal: True is the main table, and 1 another one.
        before, wanted = kept[0].settings.kernel_routes, self._config.settings.kernel_routes
        if kernel is not None or (wanted, wanted is True) != (before, before is True):
            self._refused = 0 if kernel is not None else self._refused
            self._table.replace(HOST, ())
            self._follow(wanted)
            self._change()

    def on_ports(self, ports: Sequence[Port]) -> None:
        """Take the addresses of the ports."""
        self._ports = ports
        self._change()

    def on_addresses(self, addresses: Sequence[str]) -> None:
        """Answer for addresses of other NFs, too."""
        self._others = addresses
        self._change()

    def on_timer(self, now_ns: int) -> None:
        """Log what the kernel has met; it is called afterwards and sees to its neighbours."""
        for address, number, mac in self._kernel.conflicts():
            name = self._interfaces[number].name if number < len(self._interfaces) else "?"
            _log(f"{name}: {mac} also uses {address}; expected an address of this router alone")
        self._log_refused(now_ns)
        if self._host_routes is not None:
            is_busy = self._host_routes.turn(now_ns)
            self.timer_interval_s = BUSY_S if is_busy else type(self).timer_interval_s

    def _log_refused(self, now_ns: int) -> None:
        if self._table.refused == self._refused or now_ns < self._refused_ns:
            return
        number, most = self._table.refused - self._refused, self._config.settings.max_routes
        _log(f"max_routes: {most}: expected room for {number} more routes")
        self._refused, self._refused_ns = self._table.refused, now_ns + LOG_NS

    def teardown(self) -> None:
        """Follow the routes of the host no longer."""
        self._follow(False)

    def _follow(self, wanted: bool | int, /) -> None:
        """Follow a routing table of the host; True: the main one."""
        from onvm_nf_router.host_routes import MAIN_TABLE, HostRoutes

        if self._host_routes is not None:
            self._host_routes.close()
            self._host_routes = None
        if wanted is not False:
            number = MAIN_TABLE if wanted is True else wanted
            self._host_routes = HostRoutes(number, self._table)

    def _change(self) -> None:
        """Make interfaces and routes what ports, settings and other NFs say now."""
        from onvm_nf_router.interfaces import interfaces_of
        from onvm_nf_router.routes import connected_routes, static_routes
        from onvm_nf_router.table import FILE, LINKS

        settings = self._config.settings
        interfaces = interfaces_of(self._ports, settings, self._others)
        routes, errors = static_routes(self._config.routes, interfaces)
        self._kernel.change(settings, interfaces)
        self._interfaces = interfaces
        self._table.replace(LINKS, connected_routes(interfaces))
        self._table.replace(FILE, routes)
        for hop in {hop for route in routes for hop in route.hops}:
            if hop.gateway is not None:
                self._kernel.meet(hop.interface, hop.gateway)
        if self._host_routes is not None:
            self._host_routes.show(interfaces)
        complaints = {str(error) for error in errors}
        if not interfaces:
            complaints.add("ports: none has addresses; expected some in [ports.NAME]")
        for line in sorted(complaints - self._complaints):
            _log(line)
        self._complaints = complaints
