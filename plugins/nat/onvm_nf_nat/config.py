# SPDX-License-Identifier: Apache-2.0
"""The NAT's configuration as a checked value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from onvm_sdk import settings
from onvm_sdk.errors import ConfigError

__all__ = ["NatConfig", "NatText", "load"]

_T = TypeVar("_T")

INSIDE_MAX = 16
"""That of the kernel, which a test compares."""
EXTERNALS_MAX = 16
"""Likewise."""
PREFIXES_MAX = 16
"""Likewise."""
PAIRS_MAX = 256
"""Likewise."""
FORWARDS_MAX = 256
"""Likewise."""
SESSIONS_MAX = 1 << 24

_NPTV6_BITS_MAX = 112
_NO_HOSTS = {IPv4Address("255.255.255.255")}
_NO_NETWORKS = [IPv4Network(net) for net in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4")]


class PrefixText(msgspec.Struct, forbid_unknown_fields=True):
    """Two prefixes of IPv6 with the same length."""

    inside: str
    outside: str


class ForwardText(msgspec.Struct, forbid_unknown_fields=True):
    """An external port that leads to an inside endpoint."""

    protocol: Literal["tcp", "udp"]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    inside: str
    inside_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    external: str = ""


class Forward(msgspec.Struct, frozen=True):
    """A checked `ForwardText`."""

    protocol: int
    port: int
    inside: IPv4Address
    inside_port: int
    external: int
    """Index of the external address."""


class PairText(msgspec.Struct, forbid_unknown_fields=True):
    """Two addresses of IPv4 that stand for each other."""

    inside: str
    external: str


class NatText(msgspec.Struct, forbid_unknown_fields=True):
    """The configuration as it is written; defaults as in ``onvm-nf.toml``."""

    external: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=EXTERNALS_MAX)] = (
        "192.0.2.1"
    )
    ports: int | str = "1-65535"
    blocks: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 1
    inside: Annotated[list[str], msgspec.Meta(max_length=INSIDE_MAX)] = []
    forward: Annotated[list[ForwardText], msgspec.Meta(max_length=FORWARDS_MAX)] = []
    one_to_one: Annotated[list[PairText], msgspec.Meta(max_length=PAIRS_MAX)] = []
    nat64: str = ""
    nptv6: Annotated[list[PrefixText], msgspec.Meta(max_length=PREFIXES_MAX)] = []
    filtering: Literal[
        "endpoint-independent", "address-dependent", "address-and-port-dependent"
    ] = "endpoint-independent"
    preserve_port: bool = False
    preserve_parity: bool = True
    inbound_refresh: bool = False
    log_mappings: bool = False
    max_sessions: Annotated[int, msgspec.Meta(ge=1, le=SESSIONS_MAX)] = 262_144
    max_per_subscriber: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    mtu: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    icmp_errors_per_s: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 100
    port_rest_s: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 120
    udp_s: Annotated[int, msgspec.Meta(ge=120, le=604_800)] = 300  # RFC 4787 REQ-5: no less
    # RFC 5382 REQ-5, RFC 7857 2.1 and RFC 5508 REQ-2: no less
    tcp_established_s: Annotated[int, msgspec.Meta(ge=7440, le=604_800)] = 7440
    tcp_opening_s: Annotated[int, msgspec.Meta(ge=240, le=604_800)] = 240
    tcp_closing_s: Annotated[int, msgspec.Meta(ge=240, le=604_800)] = 240
    icmp_s: Annotated[int, msgspec.Meta(ge=60, le=604_800)] = 60


class NatConfig(msgspec.Struct, frozen=True):
    """The checked configuration of the NAT."""

    settings: NatText
    externals: tuple[IPv4Address, ...]
    ports: range
    inside: tuple[IPv4Network, ...]
    forwards: tuple[Forward, ...] = ()
    pairs: tuple[tuple[IPv4Address, IPv4Address], ...] = ()
    nat64: IPv6Network | None = None
    nptv6: tuple[tuple[IPv6Network, IPv6Network], ...] = ()

    @property
    def subscriber_ports(self) -> int:
        """The most ports that one inside address may have, for each protocol (RFC 6888 REQ-4)."""
        return self.settings.max_per_subscriber or max(1, len(self.ports) // 2)

    @property
    def subscriber_sessions(self) -> int:
        """The sessions of one inside address that do not give way to others (RFC 6888 REQ-5)."""
        return max(1, self.settings.max_sessions // 2)

    def of_instance(self, instance: str) -> NatConfig:
        """The same with the block of an instance: nat-3 has the third; without number, or without
        blocks, it has all ports.

        Raises:
            ConfigError: there are not so many blocks.
        """
        number, blocks = instance.rpartition("-")[2], self.settings.blocks
        if not number.isdecimal() or blocks == 0 or int(number) == blocks == 1:
            return self
        if not 1 <= int(number) <= blocks:
            raise ConfigError(
                f"expected at least {number}, a block of ports for each instance up to {instance}",
                field="blocks",
                value=blocks,
            )
        length = len(self.ports) // blocks
        if length == 0:
            raise ConfigError(
                f"expected at most {len(self.ports)}, the number of ports",
                field="blocks",
                value=blocks,
            )
        first = self.ports.start + (int(number) - 1) * length
        return msgspec.structs.replace(self, ports=range(first, first + length))


def load(data: Mapping[str, Any], *, file: str | None = None) -> NatConfig:
    """Check the content of a configuration file.

    Raises:
        ConfigError: naming file, field, value and what was expected.
    """
    text = settings.convert(data, NatText, file=file)

    def read(field: str, value: Any, kind: Callable[[Any], _T], expected: str) -> _T:
        try:
            return kind(value)
        except ValueError as error:
            raise ConfigError(expected or str(error), file=file, field=field, value=value) from None

    network = "expected an IPv4 network such as 10.0.0.0/8, host bits zero"
    inside = tuple(
        read(f"inside[{i}]", net, IPv4Network, network) for i, net in enumerate(text.inside)
    )
    is_list = isinstance(text.external, list)
    externals: list[IPv4Address] = []
    for i, value in enumerate(
        text.external if isinstance(text.external, list) else [text.external]
    ):
        field = f"external[{i}]" if is_list else "external"
        address = read(field, value, IPv4Address, "expected an IPv4 address")
        expected = None
        if _is_no_host(address):
            expected = "expected the address of one host"
        elif any(address in net for net in inside):
            expected = "expected an address outside of the networks in `inside`"
        elif address in externals:
            expected = "expected addresses that differ"
        if expected is not None:
            raise ConfigError(expected, file=file, field=field, value=value)
        externals.append(address)
    ports = read("ports", text.ports, settings.port_range, "")
    nat64 = None
    if text.nat64:
        nat64 = read("nat64", text.nat64, _nat64_prefix, "")
    return NatConfig(
        settings=text,
        externals=tuple(externals),
        ports=ports,
        inside=inside,
        forwards=_forwards(text.forward, externals, ports, inside, read, file),
        pairs=_pairs(text.one_to_one, externals, inside, read, file),
        nat64=nat64,
        nptv6=_nptv6_pairs(text.nptv6, read, file),
    )


def _is_no_host(address: IPv4Address) -> bool:
    return address in _NO_HOSTS or any(address in net for net in _NO_NETWORKS)


def _forwards(
    texts: list[ForwardText],
    externals: Sequence[IPv4Address],
    ports: range,
    inside: Sequence[IPv4Network],
    read: Callable[..., Any],
    file: str | None,
) -> tuple[Forward, ...]:
    forwards: list[Forward] = []
    for i, text in enumerate(texts):
        name = f"forward[{i}]"
        host = read(f"{name}.inside", text.inside, IPv4Address, "expected an IPv4 address")
        outer = externals[0]
        if text.external:
            expected = "expected an IPv4 address"
            outer = read(f"{name}.external", text.external, IPv4Address, expected)
        wrong = None
        if outer not in externals:
            wrong = "external", "expected one of the addresses in `external`"
        elif text.port not in ports:
            wrong = "port", f"expected a port within {ports.start}-{ports.stop - 1}, as in `ports`"
        elif _is_no_host(host) or (inside and not any(host in net for net in inside)):
            wrong = "inside", "expected the address of a host in `inside`"
        else:
            made = Forward(
                protocol={"tcp": 6, "udp": 17}[text.protocol],
                port=text.port,
                inside=host,
                inside_port=text.inside_port or text.port,
                external=externals.index(outer),
            )
            ends = {(one.protocol, one.external, one.port) for one in forwards}
            hosts = {(one.protocol, one.inside, one.inside_port) for one in forwards}
            if (made.protocol, made.external, made.port) in ends:
                wrong = "port", "expected a port that is not forwarded already"
            elif (made.protocol, made.inside, made.inside_port) in hosts:
                wrong = "inside", "expected an endpoint that has no other port"
        if wrong is not None:
            raise ConfigError(
                wrong[1], file=file, field=f"{name}.{wrong[0]}", value=getattr(text, wrong[0])
            )
        forwards.append(made)
    return tuple(forwards)


def _pairs(
    texts: list[PairText],
    externals: Sequence[IPv4Address],
    inside: Sequence[IPv4Network],
    read: Callable[..., Any],
    file: str | None,
) -> tuple[tuple[IPv4Address, IPv4Address], ...]:
    pairs: list[tuple[IPv4Address, IPv4Address]] = []
    for i, text in enumerate(texts):
        field = f"one_to_one[{i}]"
        host = read(f"{field}.inside", text.inside, IPv4Address, "expected an IPv4 address")
        outer = read(f"{field}.external", text.external, IPv4Address, "expected an IPv4 address")
        used = {address for pair in pairs for address in pair} | set(externals)
        wrong = None
        if _is_no_host(host) or _is_no_host(outer):
            wrong = (
                "inside" if _is_no_host(host) else "external",
                "expected the address of one host",
            )
        elif host in used or (inside and not any(host in net for net in inside)):
            wrong = "inside", "expected an address of `inside` that is in no pair before"
        elif outer in used or outer == host or any(outer in net for net in inside):
            wrong = "external", "expected an address that is neither inside nor used otherwise"
        if wrong is not None:
            raise ConfigError(
                wrong[1], file=file, field=f"{field}.{wrong[0]}", value=getattr(text, wrong[0])
            )
        pairs.append((host, outer))
    return tuple(pairs)


def _nptv6_pairs(
    texts: list[PrefixText], read: Callable[..., Any], file: str | None
) -> tuple[tuple[IPv6Network, IPv6Network], ...]:
    """RFC 6296 3.1: prefixes of one length. No two of them overlap."""
    pairs: list[tuple[IPv6Network, IPv6Network]] = []
    expected = "expected an IPv6 prefix such as fd00:1::/48, host bits zero"
    for i, text in enumerate(texts):
        inside = read(f"nptv6[{i}].inside", text.inside, IPv6Network, expected)
        outside = read(f"nptv6[{i}].outside", text.outside, IPv6Network, expected)
        wrong = None
        if not 1 <= inside.prefixlen <= _NPTV6_BITS_MAX:
            wrong = "inside", f"expected a prefix of 1 to {_NPTV6_BITS_MAX} bits"
        elif outside.prefixlen != inside.prefixlen:
            wrong = "outside", f"expected a prefix of {inside.prefixlen} bits, as `inside` has"
        elif inside.overlaps(outside):
            wrong = "outside", "expected another prefix than `inside`"
        elif any(one.overlaps(inside) or one.overlaps(outside) for pair in pairs for one in pair):
            wrong = "inside", "expected prefixes that overlap none of the pairs before"
        if wrong is not None:
            raise ConfigError(
                wrong[1], file=file, field=f"nptv6[{i}].{wrong[0]}", value=getattr(text, wrong[0])
            )
        pairs.append((inside, outside))
    return tuple(pairs)


def _nat64_prefix(text: str) -> IPv6Network:
    """RFC 6052 2.2: of 32, 40, 48, 56, 64 or 96 bits, those from 64 to 71 zero."""
    expected = (
        "expected an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits such as 64:ff9b::/96, with the"
        " bits from 64 to 71 zero"
    )
    try:
        prefix = IPv6Network(text)
    except ValueError:
        raise ValueError(expected) from None
    if prefix.prefixlen not in (32, 40, 48, 56, 64, 96) or prefix.network_address.packed[8]:
        raise ValueError(expected)
    return prefix
