# SPDX-License-Identifier: Apache-2.0
"""The firewall's configuration as a checked value."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal

import msgspec

from onvm_sdk import settings
from onvm_sdk.errors import ConfigError

__all__ = ["FirewallConfig", "Rule", "load"]

_Seconds = Annotated[int, msgspec.Meta(ge=1, le=604_800)]
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
_NUMBERS = range(256)


class RuleText(msgspec.Struct, forbid_unknown_fields=True):
    """A rule, as written in the configuration file."""

    action: Literal["accept", "drop"]
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
    fragments: Literal["pass", "drop"] = "pass"
    non_ip: Literal["pass", "drop"] = "pass"
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)] = 262_144
    tcp_established_s: _Seconds = 7440
    tcp_transitory_s: _Seconds = 240
    udp_s: _Seconds = 300
    icmp_s: _Seconds = 60
    other_s: _Seconds = 600


class Rule(msgspec.Struct, frozen=True):
    """One rule. None matches anything; a rule without addresses applies to IPv4 and IPv6."""

    accepts: bool
    src: IPv4Network | IPv6Network | None = None
    dst: IPv4Network | IPv6Network | None = None
    protocol: int | None = None
    src_ports: range = range(65536)
    dst_ports: range = range(65536)

    def holds_for(self, version: int) -> bool:
        """Whether packets of this IP version can match."""
        return all(net is None or net.version == version for net in (self.src, self.dst))


class FirewallConfig(msgspec.Struct, frozen=True):
    """The checked configuration of the firewall."""

    settings: FirewallText
    rules: tuple[Rule, ...] = ()


def _network(text: str | None) -> IPv4Network | IPv6Network | None:
    if text is None or text == "any":
        return None
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError("expected a network such as 10.0.0.0/8, host bits zero, or any") from None


def _protocol(value: str | int | None) -> int | None:
    if value is None or value == "any":
        return None
    number = _PROTOCOLS.get(value, -1) if isinstance(value, str) else value
    if number not in _NUMBERS:
        raise ValueError(f"expected any, 0..255 or one of {', '.join(_PROTOCOLS)}")
    return number


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
    rule = Rule(accepts=text.action == "accept", **values)
    if not rule.holds_for(4) and not rule.holds_for(6):
        raise ConfigError("expected src and dst of one IP version", file=file, field=field)
    return rule


def load(data: Mapping[str, Any], *, file: str | None = None) -> FirewallConfig:
    """Check the content of a configuration file.

    Raises:
        ConfigError: naming file, field, value and what was expected.
    """
    text = settings.convert(data, FirewallText, file=file)
    rules = tuple(_rule(rule, f"rules[{i}]", file) for i, rule in enumerate(text.rules))
    return FirewallConfig(text, rules)
