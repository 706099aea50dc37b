"""``[chains.NAME]`` of ``onvm.toml``, and the checks that concern all chains together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from onvm_core.dataplane.limits import CHAIN_LENGTH_MAX
from onvm_core.manager.chains.classifier import MatchConfig
from onvm_core.manager.config.sections import nearest
from onvm_core.manager.nf_hosts.codec import PortLink, VlanLink
from onvm_sdk.errors import ConfigError
from onvm_sdk.spelling import one_of

__all__ = ["ChainConfig", "PortConfig", "check_chains", "host_port"]

DEFAULT_CLASSIFIER = "match"


def host_port(name: str) -> str:
    """Name of the port by which the host has what is for the addresses of a port."""
    return f"{name}.host"


class PortConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """``[ports.NAME]``; without a direction, the chains decide it."""

    uri: str
    """``SCHEME:TARGET?OPTION=VALUE``."""
    direction: Literal["in", "out", "both"] | None = None
    """The way of its packets; left out: the chains decide it."""
    classifier: str = DEFAULT_CLASSIFIER
    """The classifier that sends new flows to one of several chains that begin here."""
    classifier_options: dict[str, Any] = {}
    """Options of the classifier."""
    addresses: tuple[str, ...] = ()
    """Addresses of NFs that answer there, with the lengths of their prefixes."""
    vlans: dict[str, VlanLink] = {}
    """The same in VLANs, by their identifiers."""
    mac: str = ""
    """The MAC address of them; empty: one is made; ``interface``: that of the interface."""

    slow_path: str = ""
    """URI of a tap, by which the host has the same addresses; empty: there is none."""

    def link(self, name: str) -> PortLink | None:
        """The form in which NFs are told of it; None: there are no addresses."""
        if not self.addresses and not self.vlans:
            return None
        slow_path = host_port(name) if self.slow_path else ""
        return PortLink(self.addresses, self.vlans, self.mac, slow_path)


class ChainConfig(
    msgspec.Struct,
    forbid_unknown_fields=True,
    frozen=True,
    kw_only=True,
    rename={"near": "in", "far": "out"},
):
    """``[chains.NAME]``."""

    near: str
    """Name of the port where its packets come from."""
    far: str
    """Name of the port where they leave."""
    services: Annotated[list[str], msgspec.Meta(max_length=CHAIN_LENGTH_MAX)] = []
    """The services that packets from `near` meet, in this order."""
    bidirectional: bool = True
    """True if packets from `far` take the same way back."""
    track_flows: bool = True
    """True if all packets of a flow meet the same instances."""
    on_failure: Literal["drop", "bypass", "wait"] = "drop"
    """The treatment of packets when one of the services has no instance."""
    match: list[MatchConfig] | None = None
    """Flows that take the chain where another chain has the port; None: this chain has the port."""


def check_chains(
    chains: Mapping[str, ChainConfig],
    path: Path,
    ports: Collection[str],
    services: Collection[str],
    installed: Collection[str],
) -> None:
    """Check the names in chains, and that each port belongs to one chain.

    Args:
        services: those that NFs of the file provide.
        installed: names of installed NFs, which the file may use without a table.

    Raises:
        ConfigError: the file has a mistake.
    """
    owner: dict[str, str] = {}
    for name, chain in chains.items():
        place = f"chains.{name}"
        for field, port in (("in", chain.near), ("out", chain.far)):
            if port not in ports:
                raise ConfigError(
                    nearest(port, ports), file=path, field=f"{place}.{field}", value=port
                )
            if port in owner and chain.match is None:
                raise ConfigError(
                    f"expected a port that is not chain {owner[port]}'s, or a `match` that says "
                    "which of its flows take this chain",
                    file=path,
                    field=f"{place}.{field}",
                    value=port,
                )
        if chain.match is None:
            owner[chain.near] = owner[chain.far] = name
        _check_services(name, chain, path, services, installed)
        for number, match in enumerate(chain.match or ()):
            try:
                match.rule(name)
            except ConfigError as error:
                raise ConfigError(
                    error.expected,
                    file=path,
                    field=f"{place}.match[{number}].{error.field}",
                    value=error.value,
                ) from None
    begins = {chain.near for chain in chains.values() if chain.match is None}
    for name, chain in chains.items():
        if chain.match is not None and chain.near not in begins:
            raise ConfigError(
                "expected a port at which a chain without `match` begins, for the other flows",
                file=path,
                field=f"chains.{name}.in",
                value=chain.near,
            )


def _check_services(
    name: str,
    chain: ChainConfig,
    path: Path,
    services: Collection[str],
    installed: Collection[str],
) -> None:
    for service in chain.services:
        if service not in services:
            known = sorted({*services, *installed})
            what = f": {one_of(known, service)}" if known else "; none is installed"
            raise ConfigError(
                f"expected a service that an NF of this file provides, or an installed NF{what}",
                file=path,
                field=f"chains.{name}.services",
                value=service,
            )
