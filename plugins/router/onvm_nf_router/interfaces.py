# SPDX-License-Identifier: Apache-2.0
"""The interfaces of the router: the ports that have addresses, and their VLANs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any

import msgspec

from onvm_nf_router.config import (
    INTERFACES_MAX,
    MTU_LEAST,
    Address,
    InterfaceText,
    RouterText,
)
from onvm_sdk.errors import ConfigError
from onvm_sdk.nf import Port

__all__ = ["Interface", "Link", "interfaces_of", "mac_for"]

Link = IPv4Interface | IPv6Interface
MTU_USUAL = 1500


class Interface(msgspec.Struct, frozen=True):
    """An interface of the router.

    Attributes:
        name: that of its port, or ``PORT.VLAN``.
        port: number of the port.
        vlan: 0: none.
        links: its addresses, with the prefixes of their links.
        announced: addresses on its links that other NFs have.
        reverse_path: off, strict or loose.
        advertises: tells hosts its IPv6 prefixes.
        slow_port: number of the port that leads to the host; None: there is none.
    """

    name: str
    port: int
    mac: bytes
    mtu: int
    links: tuple[Link, ...]
    announced: tuple[Address, ...] = ()
    vlan: int = 0
    reverse_path: str = "off"
    advertises: bool = False
    slow_port: int | None = None

    @property
    def own(self) -> tuple[Address, ...]:
        """All addresses that ARP and NDP are answered for, each once."""
        return tuple(dict.fromkeys((*(link.ip for link in self.links), *self.announced)))

    def has_on_link(self, address: Address) -> bool:
        """Whether an address is within the prefix of a link."""
        return any(address in link.network for link in self.links)


def mac_for(port: Port) -> bytes:
    """Return the MAC address of the interfaces at a port.

    One that is made here is locally administered. It depends on the address of the port's
    interface, so it stays the same and no other host on the link makes the same one.

    Raises:
        ConfigError: it is to have the address of an interface that is not known.
    """
    wanted = port.link.get("mac", "")
    if wanted == "interface" and not port.mac:
        expected = "expected a port with an interface of the kernel"
        raise ConfigError(expected, field=f"ports.{port.name}.mac", value=wanted)
    if wanted:
        return bytes.fromhex((port.mac if wanted == "interface" else wanted).replace(":", ""))
    digest = hashlib.sha256(f"onvm router {port.mac} {port.name}".encode()).digest()
    return b"\x02" + digest[:5]


def interfaces_of(
    ports: Sequence[Port], settings: RouterText, others: Sequence[str] = ()
) -> tuple[Interface, ...]:
    """Make the interfaces of all ports that have addresses.

    Args:
        others: addresses that other NFs have.

    Raises:
        ConfigError: there are too many, or a setting is of none of them.
    """
    found = tuple(
        one for port in ports if port.link for one in _at_port(port, ports, settings, others)
    )
    if len(found) > INTERFACES_MAX:
        expected = f"expected at most {INTERFACES_MAX} ports and VLANs with addresses"
        raise ConfigError(expected, field="ports", value=len(found))
    return found


def _at_port(
    port: Port, ports: Sequence[Port], settings: RouterText, others: Sequence[str]
) -> Iterator[Interface]:
    mac, slow = mac_for(port), port.link.get("slow_path", "")
    slow_port = next((one.number for one in ports if one.name == slow), None)
    parts: list[tuple[str, int, Any]] = [(port.name, 0, port.link.get("addresses", ()))]
    for vlan, link in port.link.get("vlans", {}).items():
        parts.append((f"{port.name}.{vlan}", int(vlan), link.get("addresses", ())))
    foreign = [ip_address(text) for text in others]
    for name, vlan, addresses in parts:
        if not addresses:
            continue
        own = settings.interfaces.get(name, InterfaceText())
        links = tuple(ip_interface(text) for text in addresses)
        yield Interface(
            name,
            port.number,
            mac,
            max(own.mtu or port.mtu or MTU_USUAL, MTU_LEAST),
            links,
            tuple(one for one in foreign if any(one in link.network for link in links)),
            vlan,
            own.reverse_path,
            own.advertise,
            slow_port,
        )
