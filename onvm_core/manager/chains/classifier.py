"""Classifiers: they choose the chain of a new flow where several chains share a port.

A classifier gives rules for a port; the data plane applies them once to each new flow and the flow
table keeps the result, so no packet involves Python.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Protocol

import msgspec

from onvm_sdk.errors import ConfigError

__all__ = ["ChainMatch", "ChainRule", "Classifier", "MatchClassifier", "MatchConfig"]

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

PROTOCOLS = {
    "tcp": socket.IPPROTO_TCP,
    "udp": socket.IPPROTO_UDP,
    "icmp": socket.IPPROTO_ICMP,
    "icmpv6": socket.IPPROTO_ICMPV6,
    "sctp": socket.IPPROTO_SCTP,
}
WITH_PORTS = {socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP}


@dataclass(frozen=True, slots=True)
class ChainRule:
    """Flows that take a chain: the 5-tuple of their first packet as it comes in.

    Attributes:
        chain: name of the chain.
        protocol: IP protocol number; None: any.
        src, dst: prefixes of one IP version; None: any address.
        src_ports, dst_ports: first and last, both included. Packets without ports, such as ICMP,
            count as having source and destination port 0.
    """

    chain: str
    protocol: int | None = None
    src: IPv4Network | IPv6Network | None = None
    dst: IPv4Network | IPv6Network | None = None
    src_ports: tuple[int, int] = (0, 65535)
    dst_ports: tuple[int, int] = (0, 65535)


class MatchConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One element of ``match`` of a chain; a flow must match all of its fields."""

    protocol: str | Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    """tcp, udp, icmp, icmpv6, sctp, or a number."""
    src: str | None = None
    """Address or prefix, such as "192.0.2.0/24"."""
    dst: str | None = None
    """The same of the destination."""
    src_port: Port | str | None = None
    """Port, or a range such as "1024-65535"."""
    dst_port: Port | str | None = None
    """The same of the destination."""

    def rule(self, chain: str) -> ChainRule:
        """Convert it to a rule for `chain`.

        Raises:
            ConfigError: a field is wrong; names the field but not the file.
        """
        protocol = _protocol(self.protocol)
        src, dst = _prefix("src", self.src), _prefix("dst", self.dst)
        if src is not None and dst is not None and src.version != dst.version:
            raise ConfigError(
                f"expected an IPv{src.version} prefix, as src is", field="dst", value=self.dst
            )
        ports = (_ports("src_port", self.src_port), _ports("dst_port", self.dst_port))
        for field, given in (("src_port", self.src_port), ("dst_port", self.dst_port)):
            if given is not None and protocol not in WITH_PORTS:
                raise ConfigError(
                    "expected none, unless protocol is tcp, udp or sctp", field=field, value=given
                )
        return ChainRule(chain, protocol, src, dst, *ports)


@dataclass(frozen=True, slots=True)
class ChainMatch:
    """A chain that a classifier may choose.

    Attributes:
        name: name of the chain.
        services: services of the chain.
        match: its ``match`` in ``onvm.toml``, in order.
    """

    name: str
    services: tuple[str, ...]
    match: tuple[MatchConfig, ...] = ()


class Classifier(Protocol):
    """A classifier, which a target of the hook ``onvm_classifiers`` makes from the options of a
    port.

    Threads: the manager's; called when chains change, never for a packet.
    """

    def rules(self, port: str, chains: Sequence[ChainMatch]) -> Sequence[ChainRule]:
        """The rules for new flows that come in on `port`; the first match wins.

        Args:
            chains: the chains that begin at the port, in the order of the file.

        A flow that matches no rule takes the chain that has no ``match``.
        """
        raise NotImplementedError


class MatchClassifier:
    """Built-in classifier "match": the ``match`` of each chain, in the order of the file."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        if options:
            raise ConfigError("expected none", field=next(iter(options)))

    def rules(self, port: str, chains: Sequence[ChainMatch]) -> list[ChainRule]:
        """One rule for each element of ``match``."""
        return [match.rule(chain.name) for chain in chains for match in chain.match]


def _protocol(given: str | int | None) -> int | None:
    if not isinstance(given, str):
        return given
    if given not in PROTOCOLS:
        raise ConfigError(
            f"expected one of {', '.join(PROTOCOLS)}, or a number", field="protocol", value=given
        )
    return PROTOCOLS[given]


def _prefix(field: str, given: str | None) -> IPv4Network | IPv6Network | None:
    if given is None:
        return None
    try:
        return ip_network(given)
    except ValueError as error:
        raise ConfigError(
            f"expected an address or a prefix ({error})", field=field, value=given
        ) from None


def _ports(field: str, given: int | str | None) -> tuple[int, int]:
    if given is None:
        return 0, 65535
    if isinstance(given, int):
        return given, given
    first, dash, last = given.partition("-")
    if dash and first.isascii() and first.isdigit() and last.isascii() and last.isdigit():
        bounds = int(first), int(last)
        if bounds[0] <= bounds[1] <= 65535:
            return bounds
    raise ConfigError('expected a port or a range like "1024-65535"', field=field, value=given)
