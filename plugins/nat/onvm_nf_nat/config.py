# SPDX-License-Identifier: Apache-2.0
"""The NAT's configuration as a checked value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from onvm_sdk import settings
from onvm_sdk.errors import ConfigError

__all__ = ["NatConfig", "NatText", "load"]

_T = TypeVar("_T")
_Seconds = Annotated[int, msgspec.Meta(ge=1, le=604_800)]

INSIDE_MAX = 16
"""That of the kernel, which a test compares."""


class NatText(msgspec.Struct, forbid_unknown_fields=True):
    """The configuration as it is written; defaults as in ``onvm-nf.toml``."""

    external: str = "192.0.2.1"
    ports: int | str = "1024-65535"
    blocks: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 1
    inside: Annotated[list[str], msgspec.Meta(max_length=INSIDE_MAX)] = []
    filtering: Literal[
        "endpoint-independent", "address-dependent", "address-and-port-dependent"
    ] = "endpoint-independent"
    preserve_parity: bool = True
    inbound_refresh: bool = False
    max_sessions: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)] = 262_144
    udp_s: Annotated[int, msgspec.Meta(ge=120, le=604_800)] = 300  # RFC 4787 REQ-5: no less
    tcp_established_s: _Seconds = 7440
    tcp_transitory_s: _Seconds = 240
    icmp_s: _Seconds = 60


class NatConfig(msgspec.Struct, frozen=True):
    """The checked configuration of the NAT."""

    settings: NatText
    external: IPv4Address
    ports: range
    inside: tuple[IPv4Network, ...]

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
    return NatConfig(
        settings=text,
        external=read("external", text.external, IPv4Address, "expected an IPv4 address"),
        ports=read("ports", text.ports, settings.port_range, ""),
        inside=tuple(
            read(f"inside[{i}]", net, IPv4Network, network) for i, net in enumerate(text.inside)
        ),
    )
