# SPDX-License-Identifier: Apache-2.0
"""The firewall's configuration as a checked value."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal

import msgspec

from onvm_sdk import settings
from onvm_sdk.errors import ConfigError

__all__ = ["PROTOCOLS_WITH_PORTS", "FirewallConfig", "Network", "Rule", "load"]

Network = IPv4Network | IPv6Network
_Seconds = Annotated[int, msgspec.Meta(ge=1, le=604_800)]
_Verdict = Literal["pass", "drop", "default"]
_PROTOCOLS = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}
PROTOCOLS_WITH_PORTS = (6, 17, 33, 132, 136)
_ONLY_VERSION = {1: 4, 58: 6}
_NUMBERS = range(256)
_ALL_PORTS = range(65536)
_MEMORY_MIB = 200
"""What connections may take of the memory that the manifest asks for."""
_CONNECTION_BYTES, _SOURCE_BYTES = 176, 130


class RuleText(msgspec.Struct, forbid_unknown_fields=True):
    """A rule, as written in the configuration file."""

    action: Literal["accept", "drop"]
    side: Literal["near", "far", "any"] = msgspec.field(default="any", name="from")
    src: str | None = None
    dst: str | None = None
    protocol: str | int | None = None
    src_ports: int | str = "0-65535"
    dst_ports: int | str = "0-65535"


class FirewallText(msgspec.Struct, forbid_unknown_fields=True):
    """The configuration file; the defaults are those of ``onvm-nf.toml``."""

    default: Literal["accept", "drop"] = "accept"
    rules: list[RuleText] = []
    stateful: bool = True
    midstream: bool = False
    liberal: bool = False
    verify_checksums: bool = False
    fragments: Literal["pass", "drop"] = "pass"
    ip_options: Literal["pass", "drop"] = "drop"
    source_route: Literal["pass", "drop"] = "drop"
    arp: _Verdict = "pass"
    ndp: Literal["pass", "rules"] = "pass"
    vlan_stack: _Verdict = "drop"
    llc: _Verdict = "default"
    pppoe: _Verdict = "default"
    mpls: _Verdict = "default"
    non_ip: _Verdict = "default"
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)] = 262_144
    max_per_source: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 0
    tcp_established_s: _Seconds = 7440
    tcp_transitory_s: _Seconds = 240
    tcp_syn_s: _Seconds = 30
    tcp_syn_received_s: _Seconds = 60
    tcp_closing_s: _Seconds = 30
    udp_s: _Seconds = 300
    udp_unreplied_s: _Seconds = 30
    icmp_s: _Seconds = 60
    other_s: _Seconds = 600


class Rule(msgspec.Struct, frozen=True):
    """One rule. None matches anything; a rule without addresses applies to IPv4 and IPv6."""

    accepts: bool
    side: Literal["near", "far", "any"] = "any"
    src: Network | None = None
    dst: Network | None = None
    protocol: int | None = None
    src_ports: range = _ALL_PORTS
    dst_ports: range = _ALL_PORTS

    def holds_for(self, version: int) -> bool:
        """Whether packets of this IP version can match."""
        return all(net is None or net.version == version for net in (self.src, self.dst)) and (
            _ONLY_VERSION.get(self.protocol or 0, version) == version
        )

    @property
    def names_ports(self) -> bool:
        """Whether only packets with certain ports match: only those of protocols with ports."""
        return self.src_ports != _ALL_PORTS or self.dst_ports != _ALL_PORTS


class FirewallConfig(msgspec.Struct, frozen=True):
    """The checked configuration of the firewall."""

    settings: FirewallText
    rules: tuple[Rule, ...] = ()

    @property
    def is_tracking(self) -> bool:
        """Whether connections are kept: only where a packet of one could be dropped."""
        drops = self.settings.default == "drop" or not all(r.accepts for r in self.rules)
        return self.settings.stateful and drops


def _network(text: str | None) -> Network | None:
    if text is None or text == "any":
        return None
    try:
        if "%" in text or not text.isascii():
            raise ValueError(text)
        return ip_network(text)
    except ValueError:
        raise ValueError("expected a network such as 10.0.0.0/8, host bits zero, or any") from None


def _protocol(value: str | int | None) -> int | None:
    if isinstance(value, str):
        name = value.lower()
        if name == "any":
            return None
        is_number = name.isascii() and name.isdigit() and len(name) <= 3
        value = int(name) if is_number else _PROTOCOLS.get(name, -1)
    if value is not None and value not in _NUMBERS:
        raise ValueError(f"expected any, 0..255 or one of {', '.join(_PROTOCOLS)}")
    return value


def _name_of(protocol: int) -> str:
    return next((name for name, number in _PROTOCOLS.items() if number == protocol), str(protocol))


def _check(rule: Rule, text: RuleText, field: str, file: str | None) -> None:
    """Refuse a rule that no packet can match."""
    if rule.src and rule.dst and rule.src.version != rule.dst.version:
        raise ConfigError("expected src and dst of one IP version", file=file, field=field)
    if not rule.holds_for(4) and not rule.holds_for(6):
        version = _ONLY_VERSION[rule.protocol or 0]
        raise ConfigError(
            f"expected any, or addresses of IPv{version}, the version of this protocol",
            file=file,
            field=f"{field}.protocol",
            value=text.protocol,
        )
    if rule.names_ports and rule.protocol not in (None, *PROTOCOLS_WITH_PORTS):
        names = ", ".join(_name_of(number) for number in PROTOCOLS_WITH_PORTS)
        name = "src_ports" if rule.src_ports != _ALL_PORTS else "dst_ports"
        raise ConfigError(
            f"expected no ports, or a protocol that has them: {names}",
            file=file,
            field=f"{field}.{name}",
            value=getattr(text, name),
        )


def _rule(text: RuleText, field: str, file: str | None) -> Rule:
    values: dict[str, Any] = {}
    readers = {
        "src": _network,
        "dst": _network,
        "protocol": _protocol,
        "src_ports": settings.port_range,
        "dst_ports": settings.port_range,
    }
    for name, read in readers.items():
        given = getattr(text, name)
        try:
            values[name] = read(given)
        except ValueError as error:
            raise ConfigError(str(error), file=file, field=f"{field}.{name}", value=given) from None
    rule = Rule(accepts=text.action == "accept", side=text.side, **values)
    _check(rule, text, field, file)
    return rule


def _check_memory(text: FirewallText, file: str | None) -> None:
    """Refuse more connections than fit; what one takes was measured in a full table."""
    each = _CONNECTION_BYTES + (_SOURCE_BYTES if text.max_per_source else 0)
    if text.max_connections * each >> 20 > _MEMORY_MIB:
        raise ConfigError(
            f"expected at most {(_MEMORY_MIB << 20) // each}, which take {_MEMORY_MIB} MiB",
            file=file,
            field="max_connections",
            value=text.max_connections,
        )


def load(data: Mapping[str, Any], *, file: str | None = None) -> FirewallConfig:
    """Check the content of a configuration file.

    Raises:
        ConfigError: naming file, field, value and what was expected.
    """
    text = settings.convert(data, FirewallText, file=file)
    _check_memory(text, file)
    rules = tuple(_rule(rule, f"rules[{i}]", file) for i, rule in enumerate(text.rules))
    return FirewallConfig(text, rules)
