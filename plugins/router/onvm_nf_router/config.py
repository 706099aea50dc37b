# SPDX-License-Identifier: Apache-2.0
"""The router's settings as checked values: all that does not depend on the ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from onvm_sdk import settings
from onvm_sdk.errors import ConfigError

__all__ = [
    "HOPS_MAX",
    "INTERFACES_MAX",
    "Address",
    "InterfaceText",
    "Network",
    "RouterConfig",
    "RouterText",
    "StaticRoute",
    "load",
]

_T = TypeVar("_T")
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_Mtu = Annotated[int, msgspec.Meta(ge=0, le=9600)]
_Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]
_Weight = Annotated[int, msgspec.Meta(ge=1, le=255)]
_Table = Annotated[int, msgspec.Meta(ge=1, le=0xFFFF_FFFF)]

INTERFACES_MAX, ADDRESSES_MAX, HOPS_MAX, GROUPS_MAX = 32, 256, 8, 65536
"""Those of the kernel, which a test compares."""
MTU_LEAST = 68
"""RFC 791: what every link of IPv4 carries."""


class InterfaceText(msgspec.Struct, forbid_unknown_fields=True):
    """``[interfaces.NAME]`` as it is written; the addresses stand with the port."""

    mtu: _Mtu = 0
    reverse_path: Literal["off", "strict", "loose"] = "off"
    advertise: bool = False


class RouteText(msgspec.Struct, forbid_unknown_fields=True):
    """An entry of ``[[routes]]`` as it is written."""

    prefix: str
    via: str | list[str] = []
    weights: list[_Weight] = []
    interface: str = ""
    kind: Literal["unicast", "blackhole", "unreachable"] = "unicast"


class RouterText(msgspec.Struct, forbid_unknown_fields=True):
    """The configuration as it is written; defaults as in ``onvm-nf.toml``."""

    interfaces: dict[str, InterfaceText] = {}
    routes: list[RouteText] = []
    kernel_routes: bool | _Table = False
    clamp_mss: bool = False
    errors_per_s: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1000
    max_routes: Annotated[int, msgspec.Meta(ge=16, le=1 << 24)] = 4096
    max_neighbours: Annotated[int, msgspec.Meta(ge=16, le=1 << 20)] = 4096
    reachable_s: _Seconds = 30
    forget_s: _Seconds = 600


class StaticRoute(msgspec.Struct, frozen=True):
    """A route of the file.

    Attributes:
        kind: unicast, blackhole or unreachable.
        gateways: with the weight of each; none: the prefix is on the link of `interface`.
        interface: "": that on whose link the gateway is.
        field: its place in the file.
    """

    prefix: Network
    kind: str
    gateways: tuple[tuple[Address, int], ...] = ()
    interface: str = ""
    field: str = ""


class RouterConfig(msgspec.Struct, frozen=True):
    """The checked configuration of the router."""

    settings: RouterText
    routes: tuple[StaticRoute, ...]


class _Reader:
    """Reads values and names their fields."""

    def __init__(self, file: str | None) -> None:
        self._file = file

    def error(self, expected: str, field: str, value: object) -> ConfigError:
        return ConfigError(expected, file=self._file, field=field, value=value)

    def read(self, kind: Callable[[Any], _T], expected: str, field: str, value: object) -> _T:
        try:
            return kind(value)
        except ValueError:
            raise self.error(expected, field, value) from None


def load(data: Mapping[str, Any], *, file: str | None = None) -> RouterConfig:
    """Check the content of a configuration file.

    Raises:
        ConfigError: naming file, field, value and what was expected.
    """
    text = settings.convert(data, RouterText, file=file)
    reader = _Reader(file)
    for name, given in text.interfaces.items():
        if 0 < given.mtu < MTU_LEAST:
            expected = f"expected 0 or an MTU from {MTU_LEAST} to 9600"
            raise reader.error(expected, f"interfaces.{name}.mtu", given.mtu)
    routes = tuple(_route(one, f"routes[{n}]", reader) for n, one in enumerate(text.routes))
    seen: set[Network] = set()
    for route in routes:
        if route.prefix in seen:
            expected = "expected a prefix that no other route has"
            raise reader.error(expected, f"{route.field}.prefix", str(route.prefix))
        seen.add(route.prefix)
    return RouterConfig(text, routes)


def _route(given: RouteText, place: str, reader: _Reader) -> StaticRoute:
    expected = "expected a network such as 10.0.0.0/8, host bits zero"
    prefix = reader.read(ip_network, expected, f"{place}.prefix", given.prefix)
    texts = [given.via] if isinstance(given.via, str) else given.via
    if given.kind != "unicast":
        if texts or given.interface:
            expected = f"expected no next hop for a route that is {given.kind}"
            raise reader.error(expected, f"{place}.via", ", ".join(texts) or given.interface)
        return StaticRoute(prefix, given.kind, field=place)
    if not texts and not given.interface:
        raise reader.error("expected a gateway or an interface", f"{place}.via", "")
    if len(texts) > HOPS_MAX:
        expected = f"expected at most {HOPS_MAX} gateways"
        raise reader.error(expected, f"{place}.via", len(texts))
    if given.weights and len(given.weights) != len(texts):
        expected = f"expected {len(texts)} weights, one for each gateway"
        raise reader.error(expected, f"{place}.weights", len(given.weights))
    gateways = []
    for number, value in enumerate(texts):
        field = f"{place}.via" if isinstance(given.via, str) else f"{place}.via[{number}]"
        gateway = reader.read(ip_address, "expected an IP address", field, value)
        if gateway.version != prefix.version:
            expected = f"expected an IPv{prefix.version} address, as the prefix has"
            raise reader.error(expected, field, value)
        gateways.append((gateway, given.weights[number] if given.weights else 1))
    return StaticRoute(prefix, given.kind, tuple(gateways), given.interface, place)
