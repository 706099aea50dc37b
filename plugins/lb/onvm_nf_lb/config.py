# SPDX-License-Identifier: Apache-2.0
"""The load balancer's configuration as a checked value."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Literal

import msgspec

from onvm_sdk import settings
from onvm_sdk.errors import ConfigError

__all__ = ["Backend", "LbConfig", "Vip", "load"]

_Seconds = Annotated[int, msgspec.Meta(ge=1, le=604_800)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_PROTOCOLS = {"tcp": 6, "udp": 17}


class BackendText(msgspec.Struct, forbid_unknown_fields=True):
    """A backend, as written in the configuration file."""

    address: str
    port: _Port = 0
    weight: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


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
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=1 << 23)] = 131_072
    tcp_established_s: _Seconds = 7440
    tcp_transitory_s: _Seconds = 240
    udp_s: _Seconds = 300


class Backend(msgspec.Struct, frozen=True):
    """A destination of connections. Port 0 keeps the packet's port."""

    address: IPv4Address | IPv6Address
    port: int = 0
    weight: int = 1

    @property
    def name(self) -> str:
        """The name that determines its slots in a lookup table."""
        return f"{self.address} {self.port}"


class Vip(msgspec.Struct, frozen=True):
    """A virtual address. Port 0 means every port."""

    address: IPv4Address | IPv6Address
    protocol: int
    port: int
    by_client: bool
    backends: tuple[Backend, ...]


class LbConfig(msgspec.Struct, frozen=True):
    """The checked configuration of the load balancer."""

    settings: LbText
    vips: tuple[Vip, ...]


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % i for i in range(2, int(number**0.5) + 1))


def _vip(text: VipText, field: str, size: int, file: str | None) -> Vip:
    def address(value: str, name: str) -> IPv4Address | IPv6Address:
        try:
            return ip_address(value)
        except ValueError:
            raise ConfigError(
                "expected an IP address", file=file, field=f"{field}.{name}", value=value
            ) from None

    vip = address(text.address, "address")
    backends: list[Backend] = []
    for i, backend in enumerate(text.backends):
        where = f"backends[{i}].address"
        made = Backend(address(backend.address, where), backend.port, backend.weight)
        if made.address.version != vip.version:
            raise ConfigError(
                f"expected an IPv{vip.version} address, as the VIP's",
                file=file,
                field=f"{field}.{where}",
                value=backend.address,
            )
        if any(made.name == other.name for other in backends):
            raise ConfigError(
                "expected backends that differ",
                file=file,
                field=f"{field}.{where}",
                value=backend.address,
            )
        backends.append(made)
    if len(backends) >= size:
        raise ConfigError(
            f"expected fewer backends than table_size, {size}",
            file=file,
            field=f"{field}.backends",
            value=len(backends),
        )
    by_client = text.affinity == "client"
    return Vip(vip, _PROTOCOLS[text.protocol], text.port, by_client, tuple(backends))


def load(data: Mapping[str, Any], *, file: str | None = None) -> LbConfig:
    """Check the content of a configuration file.

    Raises:
        ConfigError: naming file, field, value and what was expected.
    """
    text = settings.convert(data, LbText, file=file)
    if not _is_prime(text.table_size):
        raise ConfigError("expected a prime", file=file, field="table_size", value=text.table_size)
    vips: list[Vip] = []
    for i, given in enumerate(text.vips):
        vip = _vip(given, f"vips[{i}]", text.table_size, file)
        ends = [(v.address, v.protocol, v.port) for v in vips]
        if (vip.address, vip.protocol, vip.port) in ends:
            raise ConfigError(
                "expected VIPs that differ in address, protocol or port",
                file=file,
                field=f"vips[{i}].address",
                value=given.address,
            )
        vips.append(vip)
    return LbConfig(text, tuple(vips))
