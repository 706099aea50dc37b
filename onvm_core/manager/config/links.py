"""Addresses of ports: ``addresses``, ``vlans`` and ``mac`` of ``[ports.NAME]``.

NFs that answer on a link learn them in ``on_ports``. All of them are checked together here,
because a mistake in one port is mostly a contradiction to another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from pathlib import Path
from typing import Protocol

from onvm_core.manager.nf_hosts.codec import VlanLink
from onvm_sdk.errors import ConfigError

__all__ = ["Link", "LinkTable", "check_next_hop", "read_links"]

Link = IPv4Interface | IPv6Interface
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
ADDRESSES_MAX = 256
INTERFACES_MAX = 32
VLAN_MAX = 4094


class LinkTable(Protocol):
    """A table ``[ports.NAME]``, as far as it is about its link."""

    @property
    def addresses(self) -> Sequence[str]: ...
    @property
    def vlans(self) -> Mapping[str, VlanLink]: ...
    @property
    def mac(self) -> str: ...


def read_links(ports: Mapping[str, LinkTable], path: Path) -> dict[str, list[Link]]:
    """Read the addresses of all ports.

    Returns:
        The links of each interface; that of VLAN 10 at port ``lan`` is ``lan.10``.

    Raises:
        ConfigError: an address or prefix is wrong, or contradicts another one.
    """
    links: dict[str, list[Link]] = {}
    owners: dict[IPv4Address | IPv6Address, str] = {}
    for name, port in ports.items():
        _check_mac(port.mac, path, f"ports.{name}.mac")
        for interface, field, texts in _interfaces(name, port, path):
            for number, text in enumerate(texts):
                place = f"{field}[{number}]"
                link = _read(text, path, place)
                if link.ip in owners:
                    expected = f"expected an address that {owners[link.ip]} does not have"
                    raise ConfigError(expected, file=path, field=place, value=text)
                _check_overlap(link, interface, links, path, place)
                owners[link.ip] = interface
                links.setdefault(interface, []).append(link)
    if len(owners) > ADDRESSES_MAX:
        raise ConfigError(
            f"expected at most {ADDRESSES_MAX} addresses",
            file=path,
            field="ports",
            value=len(owners),
        )
    if len(links) > INTERFACES_MAX:
        expected = f"expected at most {INTERFACES_MAX} ports and VLANs with addresses"
        raise ConfigError(expected, file=path, field="ports", value=len(links))
    return links


def _interfaces(name: str, port: LinkTable, path: Path) -> Iterator[tuple[str, str, Sequence[str]]]:
    yield name, f"ports.{name}.addresses", port.addresses
    for vlan, link in port.vlans.items():
        field = f"ports.{name}.vlans"
        if not re.fullmatch(r"[1-9][0-9]{0,3}", vlan) or int(vlan) > VLAN_MAX:
            expected = f"expected a VLAN identifier from 1 to {VLAN_MAX}"
            raise ConfigError(expected, file=path, field=field, value=vlan)
        yield f"{name}.{vlan}", f"{field}.{vlan}.addresses", link.addresses


def _check_mac(mac: str, path: Path, field: str) -> None:
    is_unicast = _MAC.fullmatch(mac) and not int(mac[:2], 16) & 1 and int(mac.replace(":", ""), 16)
    if mac not in ("", "interface") and not is_unicast:
        expected = "expected a unicast MAC address such as 02:00:00:00:00:01, or interface"
        raise ConfigError(expected, file=path, field=field, value=mac)


def _read(text: str, path: Path, field: str) -> Link:
    expected = "expected an address with the length of its prefix, such as 10.0.0.1/24"
    try:
        link = ip_interface(text)
    except ValueError:
        raise ConfigError(expected, file=path, field=field, value=text) from None
    if "/" not in text:
        raise ConfigError(expected, file=path, field=field, value=text)
    network = link.network
    is_host = network.num_addresses <= 2 or link.ip != network.network_address
    if link.version == 4 and network.num_addresses > 2:
        is_host = is_host and link.ip != network.broadcast_address
    if not is_host or link.ip.is_multicast or link.ip.is_loopback or link.ip.is_unspecified:
        raise ConfigError("expected the address of a host", file=path, field=field, value=text)
    if link.version == 6 and link.ip.is_link_local:
        expected = "expected no link-local address; each interface has one by itself"
        raise ConfigError(expected, file=path, field=field, value=text)
    return link


def _check_overlap(
    link: Link, interface: str, links: Mapping[str, Sequence[Link]], path: Path, field: str
) -> None:
    for other, known in links.items():
        for one in known:
            if (
                other != interface
                and one.version == link.version
                and one.network.overlaps(link.network)
            ):
                expected = f"expected a prefix that does not overlap {one.network} of {other}"
                raise ConfigError(expected, file=path, field=field, value=str(link))


def check_next_hop(
    text: str, interface: str, links: Mapping[str, Sequence[Link]], path: Path, field: str
) -> None:
    """Check that a next hop is another host on a link, of one interface if that is named.

    Raises:
        ConfigError: it is not.
    """
    try:
        gateway = ip_address(text)
    except ValueError:
        raise ConfigError("expected an IP address", file=path, field=field, value=text) from None
    if interface and interface not in links:
        expected = f"expected an interface with addresses ({', '.join(links) or 'there is none'})"
        raise ConfigError(expected, file=path, field=field, value=interface)
    if gateway.version == 6 and gateway.is_link_local and interface:
        return
    for name, known in links.items():
        if interface in ("", name) and any(gateway == link.ip for link in known):
            expected = "expected the address of another host"
            raise ConfigError(expected, file=path, field=field, value=text)
        if interface in ("", name) and any(gateway in link.network for link in known):
            return
    where = f"the link of {interface}" if interface else "the link of a port"
    raise ConfigError(f"expected an address on {where}", file=path, field=field, value=text)
