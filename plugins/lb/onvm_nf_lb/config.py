# SPDX-License-Identifier: Apache-2.0
"""The load balancer's configuration as a checked value."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Literal

import msgspec

from onvm_sdk import settings
from onvm_sdk.errors import ConfigError

__all__ = ["CONNECTIONS_MAX", "Backend", "LbConfig", "Vip", "load"]

_Address = IPv4Address | IPv6Address
_Seconds = Annotated[int, msgspec.Meta(ge=1, le=604_800)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_NO_HOSTS = {ip_address("255.255.255.255"), ip_address("0.0.0.0"), ip_address("::")}
_PROTOCOLS = {"tcp": 6, "udp": 17}

CONNECTIONS_MAX = 524_288
"""As many as fit into the memory that the manifest asks for, with few VIPs."""
_MEMORY_MIB = 220
_CONNECTION_BYTES = 390


class BackendText(msgspec.Struct, forbid_unknown_fields=True):
    """A backend, as written in the configuration file."""

    address: str
    port: _Port = 0
    weight: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1


class VipText(msgspec.Struct, forbid_unknown_fields=True):
    """A VIP, as written in the configuration file."""

    address: str
    backends: list[BackendText]
    protocol: Literal["tcp", "udp"] = "tcp"
    port: _Port = 0
    affinity: Literal["connection", "client"] = "connection"


class LbText(msgspec.Struct, forbid_unknown_fields=True):
    """The configuration file; ``onvm-nf.toml`` adds the default VIPs."""

    vips: list[VipText] = []
    table_size: Annotated[int, msgspec.Meta(ge=2, le=5_000_011)] = 65_537
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=CONNECTIONS_MAX)] = 131_072
    tcp_established_s: _Seconds = 7440
    tcp_closing_s: _Seconds = 30
    opening_s: _Seconds = 30
    udp_s: _Seconds = 300
    reject: bool = False


class Backend(msgspec.Struct, frozen=True):
    """A destination of connections. Port 0 keeps the packet's port; weight 0 gets no new ones."""

    address: _Address
    port: int = 0
    weight: int = 1

    @property
    def name(self) -> str:
        """The name that determines its slots in a lookup table."""
        return f"{self.address} {self.port}"


class Vip(msgspec.Struct, frozen=True):
    """A virtual address. Port 0 means every port."""

    address: _Address
    protocol: int
    port: int
    by_client: bool
    backends: tuple[Backend, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its backends that determine their slots.

        With affinity to clients they are the addresses, so that VIPs whose backends differ in
        ports alone send a client to one address.
        """
        if self.by_client:
            addresses = tuple(str(backend.address) for backend in self.backends)
            if len(set(addresses)) == len(addresses):
                return addresses
        return tuple(backend.name for backend in self.backends)


class LbConfig(msgspec.Struct, frozen=True):
    """The checked configuration of the load balancer."""

    settings: LbText
    vips: tuple[Vip, ...]


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % i for i in range(2, int(number**0.5) + 1))


class _Reader:
    """Addresses of one file: each text is read once, for many VIPs share their backends."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self._known: dict[str, _Address] = {}

    def refuse(self, expected: str, field: str, value: Any) -> ConfigError:
        return ConfigError(expected, file=self.file, field=field, value=value)

    def address(self, text: str, field: str) -> _Address:
        address = self._known.get(text)
        if address is None:
            try:
                address = ip_address(text)
            except ValueError:
                raise self.refuse("expected an IP address", field, text) from None
            if address in _NO_HOSTS or address.is_multicast:
                raise self.refuse("expected the address of one host", field, text)
            self._known[text] = address
        return address


def _backends(
    text: VipText, vip: _Address, virtual: set[_Address], field: str, reader: _Reader
) -> tuple[Backend, ...]:
    backends: dict[tuple[_Address, int], Backend] = {}
    for i, backend in enumerate(text.backends):
        address = reader.address(backend.address, f"{field}[{i}].address")
        expected = None
        if address.version != vip.version:
            expected = f"expected an IPv{vip.version} address, as the VIP's"
        elif (address, backend.port) in backends:
            expected = "expected backends that differ"
        elif address in virtual:
            expected = "expected the address of a server, not of a VIP"
        if expected is not None:
            raise reader.refuse(expected, f"{field}[{i}].address", backend.address)
        backends[address, backend.port] = Backend(address, backend.port, backend.weight)
    return tuple(backends.values())


def _memory_mib(text: LbText) -> int:
    """The memory of the tables, measured when they are full."""
    kinds = {frozenset((b.address, b.port, b.weight) for b in vip.backends) for vip in text.vips}
    slots = len(kinds) * text.table_size * 4
    return (text.max_connections * _CONNECTION_BYTES + slots) >> 20


def load(data: Mapping[str, Any], *, file: str | None = None) -> LbConfig:
    """Check the content of a configuration file.

    Raises:
        ConfigError: naming file, field, value and what was expected.
    """
    text = settings.convert(data, LbText, file=file)
    reader = _Reader(file)
    if not _is_prime(text.table_size):
        raise reader.refuse("expected a prime", "table_size", text.table_size)
    addresses = [
        reader.address(given.address, f"vips[{i}].address") for i, given in enumerate(text.vips)
    ]
    virtual = set(addresses)
    vips: dict[tuple[_Address, int, int], Vip] = {}
    for i, (given, address) in enumerate(zip(text.vips, addresses, strict=True)):
        backends = _backends(given, address, virtual, f"vips[{i}].backends", reader)
        end = address, _PROTOCOLS[given.protocol], given.port
        if len(backends) >= text.table_size:
            expected = f"expected fewer backends than table_size, {text.table_size}"
            raise reader.refuse(expected, f"vips[{i}].backends", len(backends))
        if end in vips:
            expected = "expected VIPs that differ in address, protocol or port"
            raise reader.refuse(expected, f"vips[{i}].address", given.address)
        vips[end] = Vip(*end, given.affinity == "client", backends)
    needed = _memory_mib(text)
    if needed > _MEMORY_MIB:
        expected = (
            f"expected fewer connections or slots: the tables take {needed} MiB of {_MEMORY_MIB}"
        )
        raise reader.refuse(expected, "max_connections", text.max_connections)
    return LbConfig(text, tuple(vips.values()))
