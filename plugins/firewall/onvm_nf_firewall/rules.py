# SPDX-License-Identifier: Apache-2.0
"""Rules as written, and as checked values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from onvm_nf_firewall import fields
from onvm_nf_firewall.addresses import Addresses, read_addresses
from onvm_nf_firewall.names import PROTOCOLS_WITH_PORTS, REJECTS, STATES, name_of_protocol
from onvm_nf_firewall.ranges import Ranges
from onvm_sdk.errors import ConfigError

__all__ = ["Limit", "Rule", "RuleText", "read_rule"]

Action = Literal["accept", "drop", "reject", "log", "count", "jump", "goto", "return"]
_TextOrList = str | list[str]
_NumberOrList = int | str | list[int | str]
_ONLY_VERSION = {1: 4, 58: 6}
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_NS = 1_000_000_000


class LimitText(msgspec.Struct, forbid_unknown_fields=True):
    """How often a rule may match, as written."""

    rate: str
    burst: int = 5
    per: Literal["rule", "source", "destination"] = "rule"
    prefix: int | None = None
    above: bool = False


class RuleText(msgspec.Struct, forbid_unknown_fields=True):
    """A rule, as written in the configuration file."""

    action: Action
    side: Literal["near", "far", "any"] = msgspec.field(default="any", name="from")
    src: _TextOrList | None = None
    dst: _TextOrList | None = None
    protocol: _NumberOrList | None = None
    src_ports: _NumberOrList = "0-65535"
    dst_ports: _NumberOrList = "0-65535"
    inputs: _TextOrList = msgspec.field(default="any", name="in")
    outputs: _TextOrList = msgspec.field(default="any", name="out")
    flags: _TextOrList = []
    icmp: _NumberOrList = []
    state: _TextOrList = []
    vlan: _NumberOrList = []
    mac: _TextOrList = []
    cast: _TextOrList = []
    fragment: bool | None = None
    limit: str | LimitText | None = None
    chain: str = ""
    reject: Literal["auto", "reset", "port", "host", "net", "admin"] = "auto"
    prefix: str = ""
    comment: str = ""


class Limit(msgspec.Struct, frozen=True):
    """A token bucket: one packet costs `cost_ns`, and up to `cap_ns` are saved."""

    cost_ns: int
    cap_ns: int
    per: str
    prefixes: tuple[int, int]
    above: bool


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule. None matches anything; a rule without addresses applies to IPv4 and IPv6.

    Args:
        name: its place in the file, as in ``rules[3]`` or ``chains.web[0]``.
        number: its position among all rules of the file.
        protocols: numbers; of rules that name ports, only protocols that have them.
        vlans: numbers of the outermost tag; 0: none.
    """

    name: str
    number: int
    action: Action
    side: Literal["near", "far", "any"] = "any"
    src: Addresses | None = None
    dst: Addresses | None = None
    protocols: frozenset[int] | None = None
    src_ports: Ranges | None = None
    dst_ports: Ranges | None = None
    inputs: fields.Names | None = None
    outputs: fields.Names | None = None
    flags: fields.Flags | None = None
    icmp: fields.IcmpTypes | None = None
    states: int | None = None
    vlans: Ranges | None = None
    macs: fields.Macs | None = None
    casts: int | None = None
    fragment: bool | None = None
    limit: Limit | None = None
    chain: str = ""
    reject: str = "auto"
    prefix: str = ""
    comment: str = ""

    @property
    def accepts(self) -> bool:
        """Whether it lets packets pass."""
        return self.action == "accept"

    @property
    def names_ports(self) -> bool:
        """Whether only packets with certain ports match: only those of protocols with ports."""
        return self.src_ports is not None or self.dst_ports is not None

    @property
    def names_transport(self) -> bool:
        """Whether it asks for what a later fragment does not show."""
        return (
            self.names_ports
            or self.flags is not None
            or self.icmp is not None
            or self.states is not None
            or self.limit is not None
        )

    @property
    def takes_invalid(self) -> bool:
        """Whether it asks for packets that fit no connection and may open none."""
        return self.states is not None and bool(self.states & STATES["invalid"])

    def holds_for(self, version: int) -> bool:
        """Whether packets of this IP version can match."""
        if any(ends is not None and version not in ends.ranges for ends in (self.src, self.dst)):
            return False
        if self.icmp is not None and not self.icmp.kinds.get(version):
            return False
        return self.protocols is None or any(
            _ONLY_VERSION.get(number, version) == version for number in self.protocols
        )


def _limit(value: str | LimitText) -> Limit:
    text = LimitText(value) if isinstance(value, str) else value
    number, _, unit = text.rate.partition("/")
    names = [name for name in _UNITS if unit and name.startswith(unit)]
    is_number = number.isascii() and number.isdigit() and len(number) <= 7
    if len(names) != 1 or not is_number or int(number) < 1:
        raise ValueError("expected NUMBER/UNIT, such as 10/second; unit: second, minute, hour, day")
    if not 1 <= text.burst <= 1_000_000:
        raise ValueError("expected a burst of 1..1000000")
    if text.prefix is not None and (text.per == "rule" or not 1 <= text.prefix <= 128):
        raise ValueError("expected a prefix of 1..128, and per: source, destination")
    cost_ns = max(1, _UNITS[names[0]] * _NS // int(number))
    prefixes = (min(text.prefix or 32, 32), text.prefix or 64)
    return Limit(cost_ns, cost_ns * text.burst, text.per, prefixes, text.above)


def _entries(value: str | list[str]) -> tuple[list[str], bool]:
    """Return the entries of a list, and whether all of them are negated."""
    entries = [value] if isinstance(value, str) else list(value)
    negated = [text.startswith("!") for text in entries]
    if any(negated) and not all(negated):
        raise ValueError("expected all entries with ! or none")
    return [text.removeprefix("!") for text in entries], bool(entries) and all(negated)


_Sets = Mapping[str, Addresses]
_WRITTEN = {"inputs": "in", "outputs": "out"}
# By the field of the text: that of the rule, what is not read, and how the rest is.
_READERS: dict[str, tuple[str, Any, Callable[[Any, _Sets], Any]]] = {
    "src": ("src", None, lambda value, sets: read_addresses(*_entries(value), sets)),
    "dst": ("dst", None, lambda value, sets: read_addresses(*_entries(value), sets)),
    "protocol": ("protocols", None, lambda value, _: fields.read_protocols(value)),
    "src_ports": ("src_ports", "0-65535", lambda value, _: fields.read_ports(value)),
    "dst_ports": ("dst_ports", "0-65535", lambda value, _: fields.read_ports(value)),
    "inputs": ("inputs", "any", lambda value, _: fields.read_names(*_entries(value))),
    "outputs": ("outputs", "any", lambda value, _: fields.read_names(*_entries(value))),
    "flags": ("flags", [], lambda value, _: fields.read_flags(*_entries(value))),
    "icmp": ("icmp", [], lambda value, _: fields.read_icmp(value)),
    "state": ("states", [], lambda value, _: fields.read_bits(*_entries(value), STATES)),
    "vlan": ("vlans", [], lambda value, _: fields.read_vlans(value)),
    "mac": ("macs", [], lambda value, _: fields.read_macs(*_entries(value))),
    "cast": ("casts", [], lambda value, _: fields.read_bits(*_entries(value), fields.CASTS)),
    "limit": ("limit", None, lambda value, _: _limit(value)),
}


def read_rule(
    text: RuleText,
    name: str,
    number: int,
    sets: Mapping[str, Addresses],
    chains: Sequence[str],
    file: str | None = None,
) -> Rule:
    """Check a rule.

    Raises:
        ConfigError: naming file, field, value and what was expected.
    """
    values: dict[str, Any] = {"name": name, "number": number}
    for key, (stored, default, read) in _READERS.items():
        given = getattr(text, key)
        try:
            values[stored] = None if given == default else read(given, sets)
        except ValueError as error:
            shown = given if isinstance(given, str | int) else None
            raise ConfigError(
                str(error), file=file, field=f"{name}.{_WRITTEN.get(key, key)}", value=shown
            ) from None
    for key in ("action", "side", "fragment", "chain", "reject", "prefix", "comment"):
        values[key] = getattr(text, key)
    _check_chain(text, name, chains, file)
    given_protocols = values["protocols"]
    rule = Rule(**{**values, "protocols": _protocols_of(values)})
    _check_match(rule, given_protocols, text, file)
    return rule


def _protocols_of(values: Mapping[str, Any]) -> frozenset[int] | None:
    """The protocols that can match, given what else the rule names."""
    protocols: frozenset[int] | None = values["protocols"]
    asked: set[int] | None = None
    if values["src_ports"] is not None or values["dst_ports"] is not None:
        asked = set(PROTOCOLS_WITH_PORTS)
    if values["flags"] is not None:
        asked = {6} if asked is None else asked & {6}
    if values["icmp"] is not None:
        asked = {1, 58} if asked is None else asked & {1, 58}
    if asked is None:
        return protocols
    return frozenset(asked if protocols is None else asked & protocols)


def _check_chain(text: RuleText, name: str, chains: Sequence[str], file: str | None) -> None:
    is_jump = text.action in ("jump", "goto")
    if is_jump and text.chain not in chains:
        names = ", ".join(chains) or "none is defined in [chains]"
        raise ConfigError(
            f"expected the name of a chain: {names}",
            file=file,
            field=f"{name}.chain",
            value=text.chain,
        )
    for key, is_used in (
        ("chain", is_jump),
        ("prefix", text.action == "log"),
        ("reject", text.action == "reject"),
    ):
        value = getattr(text, key)
        if value not in ("", "auto") and not is_used:
            actions = {"chain": "jump, goto", "prefix": "log", "reject": "reject"}[key]
            raise ConfigError(
                f"expected it with one of these actions: {actions}",
                file=file,
                field=f"{name}.{key}",
                value=value,
            )


def _check_match(
    rule: Rule, protocols: frozenset[int] | None, text: RuleText, file: str | None
) -> None:
    """Refuse a rule that no packet can match."""
    name = rule.name
    if any(ends is not None and not ends.ranges for ends in (rule.src, rule.dst)):
        return  # a set may be empty for now
    if rule.src and rule.dst and not set(rule.src.ranges) & set(rule.dst.ranges):
        raise ConfigError("expected src and dst of one IP version", file=file, field=name)
    shown = text.protocol if isinstance(text.protocol, str | int) else None
    if rule.protocols is not None and not rule.protocols:
        names = ", ".join(name_of_protocol(number) for number in PROTOCOLS_WITH_PORTS)
        field, expected = "icmp", "expected no icmp, or one of these protocols: icmp, icmpv6"
        if rule.flags is not None:
            field, expected = "flags", "expected no flags, or the protocol tcp"
        elif rule.names_ports:
            field = "src_ports" if rule.src_ports is not None else "dst_ports"
            expected = f"expected no ports, or a protocol that has them: {names}"
        value = getattr(text, field)
        raise ConfigError(
            expected,
            file=file,
            field=f"{name}.{field}",
            value=value if isinstance(value, str | int) else None,
        )
    if not rule.holds_for(4) and not rule.holds_for(6):
        version = next((_ONLY_VERSION[n] for n in protocols or () if n in _ONLY_VERSION), None)
        if version is None:
            raise ConfigError(
                "expected addresses and messages of one IP version", file=file, field=name
            )
        raise ConfigError(
            f"expected any, or addresses of IPv{version}, the version of this protocol",
            file=file,
            field=f"{name}.protocol",
            value=shown,
        )
    if rule.reject == "reset" and rule.protocols != {6}:
        raise ConfigError(
            f"expected one of {', '.join(REJECTS)}; reset with the protocol tcp",
            file=file,
            field=f"{name}.reject",
            value=rule.reject,
        )
