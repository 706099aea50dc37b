# SPDX-License-Identifier: Apache-2.0
"""The load balancer's configuration as a checked value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from onvm_nf_lb.check import Check, CheckText, Passive, Target, read_check
from onvm_sdk import settings
from onvm_sdk.errors import ConfigError

__all__ = [
    "CONNECTIONS_MAX",
    "Backend",
    "BackendText",
    "LbConfig",
    "Vip",
    "load",
    "with_backends",
]

_Address = IPv4Address | IPv6Address
_Seconds = Annotated[int, msgspec.Meta(ge=1, le=604_800)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_NO_HOSTS = {ip_address("255.255.255.255"), ip_address("0.0.0.0"), ip_address("::")}
_PROTOCOLS = {"tcp": 6, "udp": 17}
_MAC = re.compile(r"[0-9a-fA-F][02468aceACE](?::[0-9a-fA-F]{2}){5}")

CONNECTIONS_MAX = 1 << 24


class BackendText(msgspec.Struct, forbid_unknown_fields=True):
    """A backend, as written in the configuration file."""

    address: str
    port: _Port = 0
    weight: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1
    backup: bool = False
    mac: str = ""


class VipText(msgspec.Struct, forbid_unknown_fields=True):
    """A VIP, as written in the configuration file."""

    address: str
    backends: list[BackendText] = []
    backends_file: str = ""
    protocol: Literal["tcp", "udp"] = "tcp"
    port: _Port = 0
    affinity: Literal["connection", "client"] = "connection"
    check: CheckText | None = None
    passive: Passive | None = None
    down: Literal["keep", "reset"] = "keep"
    slow_start_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    forward: Literal["nat", "dsr", "ipip", "gue"] = "nat"


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
    report: str = ""
    tunnel_sources: list[str] = []
    tunnel_mtu: Annotated[int, msgspec.Meta(ge=1328, le=9000)] = 1500
    gue_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 6080


class Backend(msgspec.Struct, frozen=True):
    """A destination of connections. Port 0 keeps the packet's port; weight 0 gets no new ones."""

    address: _Address
    port: int = 0
    weight: int = 1
    backup: bool = False
    mac: bytes = b""

    @property
    def name(self) -> str:
        """The name that determines its slots in a lookup table."""
        return f"{self.address} {self.port}"

    def __str__(self) -> str:
        return _end(self.address, self.port)


class Vip(msgspec.Struct, frozen=True):
    """A virtual address. Port 0 means every port."""

    address: _Address
    protocol: int
    port: int
    by_client: bool
    backends: tuple[Backend, ...]
    check: Check | None = None
    passive: Passive | None = None
    resets: bool = False
    """Whether connections to a backend that is down are reset."""
    slow_start_s: float = 0.0
    forward: str = "nat"
    file: str = ""
    """File with more backends."""

    @property
    def name(self) -> str:
        """How it is called in logs."""
        protocol = next(name for name, number in _PROTOCOLS.items() if number == self.protocol)
        return f"{_end(self.address, self.port)}/{protocol}"

    @property
    def changes(self) -> bool:
        """Whether its backends or their shares change by themselves."""
        return bool(self.check or self.passive or self.file)

    def target(self, backend: Backend) -> Target | None:
        """What the check of one of its backends looks at; None: it is not checked."""
        if self.check is None:
            return None
        port = self.check.port or backend.port or self.port
        return Target(self.check, str(backend.address), 0 if self.check.type == "icmp" else port)

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
    tunnel_sources: dict[int, bytes] = {}
    """Outer sources of tunnels by the length of an address."""


def _end(address: _Address, port: int) -> str:
    if not port:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


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
    entries: Sequence[tuple[BackendText, str]], given: VipText, vip: _Place, reader: _Reader
) -> tuple[Backend, ...]:
    """Check backends; each has the name of its field."""
    backends: dict[tuple[_Address, int], Backend] = {}
    for backend, field in entries:
        address = reader.address(backend.address, f"{field}.address")
        expected, is_tunnel = None, given.forward in ("ipip", "gue")
        if not is_tunnel and address.version != vip.address.version:
            expected = f"expected an IPv{vip.address.version} address, as the VIP's"
        elif is_tunnel and len(address.packed) not in vip.tunnel_sources:
            expected = f"expected tunnel_sources with an IPv{address.version} address, to reach it"
        elif given.forward != "nat" and backend.port not in (0, given.port):
            raise reader.refuse(
                "expected none: only nat changes ports", f"{field}.port", backend.port
            )
        elif backend.mac and not _MAC.fullmatch(backend.mac):
            raise reader.refuse("expected a MAC address of one host", f"{field}.mac", backend.mac)
        elif given.forward == "dsr" and not backend.mac:
            expected = "expected a backend with its MAC address, mac, for dsr"
        elif given.forward == "nat" and backend.mac:
            raise reader.refuse("expected none with nat", f"{field}.mac", backend.mac)
        elif (address, backend.port) in backends:
            expected = "expected backends that differ"
        elif address in vip.virtual:
            expected = "expected the address of a server, not of a VIP"
        elif (
            given.check
            and given.check.type in ("tcp", "http", "https")
            and not (given.check.port or backend.port or given.port)
        ):
            expected = "expected a backend with a port, or check.port, to check"
        if expected is not None:
            raise reader.refuse(expected, f"{field}.address", backend.address)
        backends[address, backend.port] = Backend(
            address,
            backend.port,
            backend.weight,
            backend.backup,
            bytes.fromhex(backend.mac.replace(":", "")),
        )
    if len(backends) >= vip.table_size:
        expected = f"expected fewer backends than table_size, {vip.table_size}"
        raise reader.refuse(expected, vip.field, len(backends))
    return tuple(backends.values())


class _Place(msgspec.Struct, frozen=True):
    """What backends of a VIP are checked against."""

    address: _Address
    virtual: frozenset[_Address]
    table_size: int
    tunnel_sources: dict[int, bytes]
    field: str


def _tunnel_sources(text: LbText, reader: _Reader) -> dict[int, bytes]:
    sources: dict[int, bytes] = {}
    for i, given in enumerate(text.tunnel_sources):
        address = reader.address(given, f"tunnel_sources[{i}]").packed
        if len(address) in sources:
            expected = "expected one address of IPv4 and one of IPv6 at most"
            raise reader.refuse(expected, f"tunnel_sources[{i}]", given)
        sources[len(address)] = address
    return sources


def _vip(given: VipText, end: tuple[_Address, int, int], place: _Place, reader: _Reader) -> Vip:
    at = place.field.rpartition(".")[0]
    try:
        check = read_check(given.check) if given.check else None
    except ValueError as error:
        field, value, expected = error.args
        raise reader.refuse(expected, f"{at}.check.{field}", value) from None
    if given.passive and given.protocol != "tcp":
        expected = "expected it with the protocol tcp only"
        raise reader.refuse(expected, f"{at}.passive", given.protocol)
    if given.passive and given.forward != "nat":
        expected = "expected it with nat only: replies take another way"
        raise reader.refuse(expected, f"{at}.passive", given.forward)
    if given.backends_file and not Path(given.backends_file).is_absolute():
        raise reader.refuse("expected an absolute path", f"{at}.backends_file", given.backends_file)
    entries = [(backend, f"{place.field}[{i}]") for i, backend in enumerate(given.backends)]
    return Vip(
        *end,
        given.affinity == "client",
        _backends(entries, given, place, reader),
        check,
        given.passive,
        given.down == "reset",
        given.slow_start_s,
        given.forward,
        given.backends_file,
    )


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
    virtual = frozenset(addresses)
    sources = _tunnel_sources(text, reader)
    vips: dict[tuple[_Address, int, int], Vip] = {}
    for i, (given, address) in enumerate(zip(text.vips, addresses, strict=True)):
        end = address, _PROTOCOLS[given.protocol], given.port
        place = _Place(address, virtual, text.table_size, sources, f"vips[{i}].backends")
        vip = _vip(given, end, place, reader)
        if end in vips:
            expected = "expected VIPs that differ in address, protocol or port"
            raise reader.refuse(expected, f"vips[{i}].address", given.address)
        vips[end] = vip
    if text.report and not Path(text.report).is_absolute():
        raise reader.refuse("expected an absolute path", "report", text.report)
    return LbConfig(text, tuple(vips.values()), sources)


def with_backends(
    config: LbConfig, files: Mapping[str, Sequence[tuple[BackendText, str]]]
) -> LbConfig:
    """Add the backends of files to the VIPs that name them.

    Args:
        config: as `load` gives it.
        files: entries by file, each with the name of its place in the file.

    Raises:
        ConfigError: naming the file, the place, the value and what was expected.
    """
    virtual = frozenset(vip.address for vip in config.vips)
    vips = []
    for i, (vip, given) in enumerate(zip(config.vips, config.settings.vips, strict=True)):
        backends = vip.backends
        if vip.file:
            place = _Place(
                vip.address,
                virtual,
                config.settings.table_size,
                config.tunnel_sources,
                "backends",
            )
            listed = [(b, f"vips[{i}].backends[{j}]") for j, b in enumerate(given.backends)]
            entries = [*listed, *files.get(vip.file, ())]
            backends = _backends(entries, given, place, _Reader(vip.file))
        vips.append(msgspec.structs.replace(vip, backends=backends))
    return LbConfig(config.settings, tuple(vips), config.tunnel_sources)
