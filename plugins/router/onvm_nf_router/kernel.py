# SPDX-License-Identifier: Apache-2.0
"""The router's C kernel: allocate, call, check, convert."""

from __future__ import annotations

from typing import Any

from onvm_nf_router import _router  # type: ignore[attr-defined]  # compiled
from onvm_nf_router.config import Network, Route, RouterConfig
from onvm_sdk import NativeKernel
from onvm_sdk.errors import NativeError, check

__all__ = ["bind", "make_kernel", "neighbours", "unbind"]

_ffi: Any = _router.ffi
_lib: Any = _router.lib
_NS = 1_000_000_000
_KINDS: dict[str, int] = {
    "connected": _lib.ROUTER_CONNECTED,
    "unicast": _lib.ROUTER_VIA,
    "blackhole": _lib.ROUTER_BLACKHOLE,
    "unreachable": _lib.ROUTER_UNREACHABLE,
}


def _addresses(config: RouterConfig) -> list[dict[str, Any]]:
    """Addresses of interfaces, and those that other NFs have; an address may be both."""
    found = []
    for number, one in enumerate(config.interfaces):
        own = {link.ip: link.network.prefixlen for link in one.links}
        for address in (*own, *(other for other in one.announced if other not in own)):
            found.append(
                {
                    "bytes": address.packed.ljust(16, b"\0"),
                    "ip_version": address.version,
                    "depth": own.get(address, address.max_prefixlen),
                    "interface": number,
                    "is_passed": address in one.announced,
                }
            )
    return found


def make_kernel(config: RouterConfig) -> NativeKernel:
    """Build the tables.

    Raises:
        NativeError: they do not fit into memory.
    """
    text = config.settings
    addresses = _addresses(config)
    given = _ffi.new(
        "struct router_config *",
        {
            "nb_interfaces": len(config.interfaces),
            "nb_addresses": len(addresses),
            "addresses": addresses,
            "clamps_mss": text.clamp_mss,
            "has_ipv6": any(one["ip_version"] == 6 for one in addresses)
            or any(route.prefix.version == 6 for route in config.routes),
            "max_routes": text.max_routes,
            "max_neighbours": text.max_neighbours,
            "errors_per_s": text.errors_per_s,
            "reachable_ns": text.reachable_s * _NS,
            "forget_ns": text.forget_s * _NS,
        },
    )
    state = _lib.router_create(given)
    if state == _ffi.NULL:
        raise NativeError(_ffi.errno, f"build the tables of {text.max_routes} routes")
    owner = _ffi.gc(state, _lib.router_free)
    function = _ffi.cast("uintptr_t", _ffi.addressof(_lib, "router_burst"))
    kernel = NativeKernel(int(function), int(_ffi.cast("uintptr_t", state)), owner)
    _add_routes(kernel, config, addresses)
    return kernel


def _add_routes(
    kernel: NativeKernel, config: RouterConfig, addresses: list[dict[str, Any]]
) -> None:
    groups: dict[tuple[Any, ...], int] = {}

    def group_of(kind: int, hops: list[dict[str, Any]]) -> int:
        key = (kind, *((hop["gateway"], hop["interface"]) for hop in hops))
        if key not in groups:
            group = _ffi.new(
                "struct router_group *", {"kind": kind, "nb_hops": len(hops), "hops": hops}
            )
            groups[key] = check(_lib.router_add_group(kernel.keep, group), "add a next hop")
        return groups[key]

    for route in config.routes:
        group = group_of(_KINDS[route.kind], _hops(route))
        _add(kernel, route.prefix, group)
    local = group_of(_lib.ROUTER_LOCAL, [])
    for address in addresses:
        depth = 32 if address["ip_version"] == 4 else 128
        result = _lib.router_add_route(
            kernel.keep, address["ip_version"], address["bytes"], depth, local
        )
        check(result, "add a route to an own address")


def _hops(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "gateway": b"" if gateway is None else gateway.packed.ljust(16, b"\0"),
            "interface": interface,
        }
        for gateway, interface in route.hops
    ]


def _add(kernel: NativeKernel, prefix: Network, group: int) -> None:
    packed = prefix.network_address.packed.ljust(16, b"\0")
    result = _lib.router_add_route(kernel.keep, prefix.version, packed, prefix.prefixlen, group)
    check(result, f"add the route to {prefix}")


def bind(kernel: NativeKernel, interface: int, port: int, mac: bytes, mtu: int) -> None:
    """Give an interface its port; it announces its addresses there.

    Raises:
        NativeError: the number of the port is too large.
    """
    check(_lib.router_bind(kernel.keep, interface, port, mac, mtu), f"use port {port}")


def unbind(kernel: NativeKernel, interface: int) -> None:
    """Take the port of an interface away."""
    _lib.router_unbind(kernel.keep, interface)


def neighbours(kernel: NativeKernel) -> int:
    """Return the number of neighbours that are known or asked for."""
    return int(_lib.router_nb_neighbours(kernel.keep))
