# SPDX-License-Identifier: Apache-2.0
"""The router's configuration as a checked value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
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
    "Interface",
    "Network",
    "Route",
    "RouterConfig",
    "RouterText",
    "load",
]

_T = TypeVar("_T")
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_Links = IPv4Interface | IPv6Interface
_Mtu = Annotated[int, msgspec.Meta(ge=0, le=9600)]
_Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

INTERFACES_MAX, ADDRESSES_MAX, HOPS_MAX, GROUPS_MAX = 32, 256, 8, 4096
"""Those of the kernel, which a test compares."""
MTU_LEAST = 68
"""RFC 791: what every link of IPv4 carries."""


class InterfaceText(msgspec.Struct, forbid_unknown_fields=True):
    """``[interfaces.NAME]`` as it is written."""

    addresses: list[str] = []
    announce: list[str] = []
    port: str = ""
    mac: str = ""
    mtu: _Mtu = 0


class RouteText(msgspec.Struct, forbid_unknown_fields=True):
    """An entry of ``[[routes]]`` as it is written."""

    prefix: str
    via: str | list[str] = []
    interface: str = ""
    kind: Literal["unicast", "blackhole", "unreachable"] = "unicast"


class RouterText(msgspec.Struct, forbid_unknown_fields=True):
    """The configuration as it is written; defaults as in ``onvm-nf.toml``."""

    interfaces: Annotated[dict[str, InterfaceText], msgspec.Meta(max_length=INTERFACES_MAX)] = {}
    routes: list[RouteText] = []
    clamp_mss: bool = False
    errors_per_s: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1000
    max_routes: Annotated[int, msgspec.Meta(ge=16, le=1 << 24)] = 4096
    max_neighbours: Annotated[int, msgspec.Meta(ge=16, le=1 << 20)] = 4096
    reachable_s: _Seconds = 30
    forget_s: _Seconds = 600


class Interface(msgspec.Struct, frozen=True):
    """An interface of the router.

    Attributes:
        port: name of the port behind it.
        mac: its MAC address; "interface": that of the port; "": one that is made for it.
        mtu: 0: that of the port.
        links: its addresses, with the prefixes of their links.
        announced: addresses that other NFs of the chain have there.
    """

    name: str
    port: str
    mac: str
    mtu: int
    links: tuple[_Links, ...]
    announced: tuple[Address, ...]


class Route(msgspec.Struct, frozen=True):
    """A route; `hops` are a gateway and the number of its interface each.

    Attributes:
        kind: connected, unicast, blackhole or unreachable.
    """

    prefix: Network
    kind: str
    hops: tuple[tuple[Address | None, int], ...] = ()


class RouterConfig(msgspec.Struct, frozen=True):
    """The checked configuration of the router."""

    settings: RouterText
    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...]
    """Also those to the links."""


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
    interfaces = tuple(_interfaces(text, reader))
    _check_addresses(interfaces, reader)
    connected = [
        Route(link.network, "connected", ((None, number),))
        for number, one in enumerate(interfaces)
        for link in one.links
    ]
    routes = [
        _route(route, f"routes[{number}]", interfaces, reader)
        for number, route in enumerate(text.routes)
    ]
    seen: set[Network] = {route.prefix for route in connected}
    for number, route in enumerate(routes):
        if route.prefix in seen:
            expected = "expected a prefix that no other route and no interface has"
            raise reader.error(expected, f"routes[{number}].prefix", str(route.prefix))
        seen.add(route.prefix)
    return RouterConfig(
        settings=text, interfaces=interfaces, routes=(*dict.fromkeys(connected), *routes)
    )


def _interfaces(text: RouterText, reader: _Reader) -> Iterator[Interface]:
    ports: dict[str, str] = {}
    for name, given in text.interfaces.items():
        place = f"interfaces.{name}"
        port = given.port or name
        if port in ports:
            expected = f"expected a port that interface {ports[port]} does not have"
            raise reader.error(expected, f"{place}.port", port)
        ports[port] = name
        mac = given.mac.lower()
        if mac not in ("", "interface") and not (_MAC.fullmatch(mac) and not int(mac[1], 16) & 1):
            expected = "expected a unicast MAC address such as 02:00:00:00:00:01, or interface"
            raise reader.error(expected, f"{place}.mac", given.mac)
        if 0 < given.mtu < MTU_LEAST:
            expected = f"expected 0 or an MTU from {MTU_LEAST} to 9600"
            raise reader.error(expected, f"{place}.mtu", given.mtu)
        links = tuple(
            _link(value, f"{place}.addresses[{number}]", reader)
            for number, value in enumerate(given.addresses)
        )
        announced = tuple(
            reader.read(ip_address, "expected an IP address", f"{place}.announce[{i}]", value)
            for i, value in enumerate(given.announce)
        )
        yield Interface(name, port, mac, given.mtu, links, announced)


def _link(value: str, field: str, reader: _Reader) -> _Links:
    expected = "expected an address with the length of its prefix, such as 10.0.0.1/24"
    if "/" not in value:
        raise reader.error(expected, field, value)
    link = reader.read(ip_interface, expected, field, value)
    network = link.network
    is_host = network.num_addresses <= 2 or link.ip != network.network_address
    if link.version == 4 and network.num_addresses > 2:
        is_host = is_host and link.ip != network.broadcast_address
    if not is_host or link.ip.is_multicast or link.ip.is_loopback or link.ip.is_unspecified:
        raise reader.error("expected the address of a host", field, value)
    if link.version == 6 and link.ip.is_link_local:
        expected = "expected no link-local address; each interface has one by itself"
        raise reader.error(expected, field, value)
    return link


def _check_addresses(interfaces: tuple[Interface, ...], reader: _Reader) -> None:
    owners: dict[Address, str] = {}
    networks: list[tuple[Network, str]] = []
    count = 0
    for one in interfaces:
        for number, link in enumerate(one.links):
            field = f"interfaces.{one.name}.addresses[{number}]"
            if link.ip in owners:
                expected = f"expected an address that interface {owners[link.ip]} does not have"
                raise reader.error(expected, field, str(link))
            owners[link.ip] = one.name
            for network, owner in networks:
                if (
                    owner != one.name
                    and network.version == link.version
                    and network.overlaps(link.network)  # type: ignore[arg-type]
                ):
                    expected = f"expected a prefix that does not overlap {network} of {owner}"
                    raise reader.error(expected, field, str(link))
            networks.append((link.network, one.name))
        count += len({*(link.ip for link in one.links), *one.announced})
        if count > ADDRESSES_MAX:
            expected = f"expected at most {ADDRESSES_MAX} addresses in all"
            raise reader.error(expected, f"interfaces.{one.name}", count)


def _route(
    given: RouteText, place: str, interfaces: tuple[Interface, ...], reader: _Reader
) -> Route:
    expected = "expected a network such as 10.0.0.0/8, host bits zero"
    prefix = reader.read(ip_network, expected, f"{place}.prefix", given.prefix)
    gateways = [given.via] if isinstance(given.via, str) else given.via
    if given.kind != "unicast":
        if gateways or given.interface:
            expected = f"expected no next hop for a route that is {given.kind}"
            raise reader.error(expected, f"{place}.via", ", ".join(gateways) or given.interface)
        return Route(prefix, given.kind)
    names = [one.name for one in interfaces]
    if given.interface and given.interface not in names:
        expected = f"expected one of {', '.join(names) or 'no interface'}"
        raise reader.error(expected, f"{place}.interface", given.interface)
    if not gateways:
        if not given.interface:
            raise reader.error("expected a gateway or an interface", f"{place}.via", "")
        return Route(prefix, "connected", ((None, names.index(given.interface)),))
    if len(gateways) > HOPS_MAX:
        expected = f"expected at most {HOPS_MAX} gateways"
        raise reader.error(expected, f"{place}.via", len(gateways))
    hops = []
    for number, value in enumerate(gateways):
        field = f"{place}.via" if isinstance(given.via, str) else f"{place}.via[{number}]"
        gateway = reader.read(ip_address, "expected an IP address", field, value)
        if gateway.version != prefix.version:
            expected = f"expected an IPv{prefix.version} address, as the prefix has"
            raise reader.error(expected, field, value)
        hops.append((gateway, _interface_of(gateway, given, interfaces, field, reader)))
    return Route(prefix, "unicast", tuple(hops))


def _interface_of(
    gateway: Address,
    given: RouteText,
    interfaces: tuple[Interface, ...],
    field: str,
    reader: _Reader,
) -> int:
    for number, one in enumerate(interfaces):
        if given.interface not in ("", one.name):
            continue
        if any(gateway == link.ip for link in one.links):
            raise reader.error("expected the address of another host", field, str(gateway))
        is_on_link = any(gateway in link.network for link in one.links)
        if is_on_link or (given.interface and gateway.version == 6 and gateway.is_link_local):
            return number
    link = f"the link of {given.interface}" if given.interface else "the link of an interface"
    raise reader.error(f"expected an address on {link}", field, str(gateway))
