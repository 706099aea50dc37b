# SPDX-License-Identifier: Apache-2.0
"""The router's C kernel: allocate, call, check, convert."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from onvm_nf_router import _router  # type: ignore[attr-defined]  # compiled
from onvm_nf_router.config import Address, Network, RouterText
from onvm_nf_router.interfaces import Interface
from onvm_nf_router.routes import Hop
from onvm_sdk import NativeKernel
from onvm_sdk.errors import NativeError, check

__all__ = ["Kernel"]

_ffi: Any = _router.ffi
_lib: Any = _router.lib
_NS = 1_000_000_000
_KINDS: dict[str, int] = {
    "connected": _lib.ROUTER_CONNECTED,
    "unicast": _lib.ROUTER_VIA,
    "blackhole": _lib.ROUTER_BLACKHOLE,
    "unreachable": _lib.ROUTER_UNREACHABLE,
    "local": _lib.ROUTER_LOCAL,
}
_REVERSE: dict[str, int] = {
    "off": _lib.ROUTER_REVERSE_OFF,
    "strict": _lib.ROUTER_REVERSE_STRICT,
    "loose": _lib.ROUTER_REVERSE_LOOSE,
}


class Kernel:
    """The tables in C.

    Raises:
        NativeError: they do not fit into memory.

    Threads: that which calls the kernel.
    """

    def __init__(self, settings: RouterText) -> None:
        given = _ffi.new(
            "struct router_config *",
            {"max_routes": settings.max_routes, "max_neighbours": settings.max_neighbours},
        )
        state = _lib.router_create(given)
        if state == _ffi.NULL:
            raise NativeError(_ffi.errno, f"build the tables of {settings.max_routes} routes")
        self._state = _ffi.gc(state, _lib.router_free)
        function = _ffi.cast("uintptr_t", _ffi.addressof(_lib, "router_burst"))
        self.native = NativeKernel(
            int(function), int(_ffi.cast("uintptr_t", state)), keep=self._state
        )

    def change(self, settings: RouterText, interfaces: Sequence[Interface]) -> None:
        """Change interfaces, addresses and settings; new interfaces announce themselves.

        Raises:
            NativeError: the number of a port is too large.
        """
        addresses = _addresses(interfaces)
        setup = {
            "nb_interfaces": len(interfaces),
            "links": [
                {
                    "mac": one.mac,
                    "port": one.port,
                    "vlan": one.vlan,
                    "slow_port": _lib.ROUTER_NO_PORT if one.slow_port is None else one.slow_port,
                    "mtu": one.mtu,
                    "reverse_path": _REVERSE[one.reverse_path],
                    "advertises": one.advertises,
                }
                for one in interfaces
            ],
            "nb_addresses": len(addresses),
            "addresses": addresses,
            "clamps_mss": settings.clamp_mss,
            "errors_per_s": settings.errors_per_s,
            "reachable_ns": settings.reachable_s * _NS,
            "forget_ns": settings.forget_s * _NS,
        }
        given = _ffi.new("struct router_setup *", setup)
        check(_lib.router_change(self._state, given), "change interfaces")

    def set_group(self, index: int, kind: str, hops: tuple[Hop, ...]) -> None:
        """Write a set of next hops."""
        given = _ffi.new(
            "struct router_group *",
            {
                "kind": _KINDS[kind],
                "nb_hops": len(hops),
                "hops": [
                    {
                        "gateway": b"" if hop.gateway is None else _padded(hop.gateway),
                        "interface": hop.interface,
                        "weight": hop.weight,
                    }
                    for hop in hops
                ],
            },
        )
        check(_lib.router_set_group(self._state, index, given), "write a set of next hops")

    def add_route(self, prefix: Network, group: int) -> None:
        """Add a route, or change where it leads.

        Raises:
            NativeError: there is no room.
        """
        result = _lib.router_add_route(
            self._state, prefix.version, _padded(prefix.network_address), prefix.prefixlen, group
        )
        check(result, f"add the route to {prefix}")

    def delete_route(self, prefix: Network) -> None:
        """Delete a route."""
        result = _lib.router_delete_route(
            self._state, prefix.version, _padded(prefix.network_address), prefix.prefixlen
        )
        check(result, f"delete the route to {prefix}")

    def meet(self, interface: int, address: Address) -> None:
        """Ask for a neighbour at the next turn, before there are packets for it."""
        _lib.router_meet(self._state, interface, address.version, _padded(address))

    def conflicts(self) -> list[tuple[Address, int, str]]:
        """Take the conflicts that are not logged: address, interface, the other's MAC address."""
        one = _ffi.new("struct router_conflict *")
        found = []
        while _lib.router_take_conflict(self._state, one):
            address = ip_address(bytes(one.address)[: 4 if one.ip_version == 4 else 16])
            found.append((address, int(one.interface), bytes(one.mac).hex(":")))
        return found

    @property
    def neighbours(self) -> int:
        """The number of neighbours that are known or asked for."""
        return int(_lib.router_nb_neighbours(self._state))


def _padded(address: Address) -> bytes:
    return address.packed.ljust(16, b"\0")


def _addresses(interfaces: Sequence[Interface]) -> list[dict[str, Any]]:
    """Addresses of interfaces, and those that other NFs have; an address may be both."""
    found = []
    for number, one in enumerate(interfaces):
        depths = {link.ip: link.network.prefixlen for link in one.links}
        found += [
            {
                "bytes": _padded(address),
                "ip_version": address.version,
                "depth": depths.get(address, address.max_prefixlen),
                "interface": number,
                "is_passed": address in one.announced,
            }
            for address in one.own
        ]
    return found
