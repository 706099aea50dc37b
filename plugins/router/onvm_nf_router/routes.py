# SPDX-License-Identifier: Apache-2.0
"""Routes: where each prefix leads, once the interfaces are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import NamedTuple

from onvm_nf_router.config import Address, Network, StaticRoute
from onvm_nf_router.interfaces import Interface
from onvm_sdk.errors import ConfigError

__all__ = ["Hop", "Route", "connected_routes", "resolve", "static_routes"]


class Hop(NamedTuple):
    """A next hop: its address, None for the destination itself; the interface; its share."""

    gateway: Address | None
    interface: int
    weight: int = 1


class Route(NamedTuple):
    """Where a prefix leads: connected, unicast, blackhole, unreachable or local."""

    prefix: Network
    kind: str
    hops: tuple[Hop, ...] = ()


def connected_routes(interfaces: Sequence[Interface]) -> list[Route]:
    """Make the routes to the links of interfaces, and those to the addresses themselves."""
    links = [
        Route(link.network, "connected", (Hop(None, number),))
        for number, one in enumerate(interfaces)
        for link in one.links
    ]
    own = [address for one in interfaces for address in one.own]
    return links + [Route(ip_network(address), "local") for address in own]


def resolve(route: StaticRoute, interfaces: Sequence[Interface]) -> Route:
    """Find the interfaces of a route.

    Raises:
        ConfigError: a gateway is on no link.
    """
    if route.kind != "unicast":
        return Route(route.prefix, route.kind)
    names = [one.name for one in interfaces]
    if route.interface and route.interface not in names:
        expected = f"expected one of {', '.join(names) or 'no interface'}"
        raise ConfigError(expected, field=f"{route.field}.interface", value=route.interface)
    if not route.gateways:
        hop = Hop(None, names.index(route.interface))
        return Route(route.prefix, "connected", (hop,))
    hops = tuple(
        Hop(gateway, _interface_of(gateway, route, interfaces), weight)
        for gateway, weight in route.gateways
    )
    return Route(route.prefix, "unicast", hops)


def _interface_of(gateway: Address, route: StaticRoute, interfaces: Sequence[Interface]) -> int:
    field = f"{route.field}.via"
    for number, one in enumerate(interfaces):
        if route.interface not in ("", one.name):
            continue
        if any(gateway == link.ip for link in one.links):
            expected = "expected the address of another host"
            raise ConfigError(expected, field=field, value=str(gateway))
        is_local = bool(route.interface) and gateway.version == 6 and gateway.is_link_local
        if one.has_on_link(gateway) or is_local:
            return number
    link = f"the link of {route.interface}" if route.interface else "the link of an interface"
    raise ConfigError(f"expected an address on {link}", field=field, value=str(gateway))


def static_routes(
    routes: Iterable[StaticRoute], interfaces: Sequence[Interface]
) -> tuple[list[Route], list[ConfigError]]:
    """Find the interfaces of all routes; those without one are left out and complained about."""
    found, complaints = [], []
    for route in routes:
        try:
            found.append(resolve(route, interfaces))
        except ConfigError as error:
            complaints.append(error)
    return found, complaints
