# SPDX-License-Identifier: Apache-2.0
"""Rules that never decide: earlier ones match all that they match, or nothing can match them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from onvm_nf_firewall.addresses import BITS, Addresses
from onvm_nf_firewall.config import FirewallConfig
from onvm_nf_firewall.names import STATES
from onvm_nf_firewall.ranges import Ranges
from onvm_nf_firewall.rules import Rule

__all__ = ["warnings"]

_RULES_MAX = 2000
"""In longer lists only equal rules are looked for, so that an NF starts quickly."""
_LEAVING = ("accept", "drop", "reject", "return", "goto")
_SAME = ("inputs", "outputs", "flags", "vlans", "macs", "casts", "fragment")

_Ends = tuple[tuple[int, Ranges], ...] | None
_Place = tuple[str, frozenset[int] | None, _Ends, _Ends]


def _ends(addresses: Addresses | None) -> _Ends:
    return None if addresses is None else tuple(sorted(addresses.ranges.items()))


def _length(ends: _Ends) -> tuple[int, int] | None:
    """Return version and length of a prefix; None: it is more or less than one."""
    if ends is None or len(ends) != 1 or len(ends[0][1]) != 1:
        return None
    version, ((first, last),) = ends[0]
    size = last - first + 1
    is_prefix = size & (size - 1) == 0 and first % size == 0
    return (version, BITS[version] - size.bit_length() + 1) if is_prefix else None


def _wider(ends: _Ends, lengths: set[tuple[int, int]]) -> list[_Ends]:
    """Return the networks around a prefix, of the lengths that rules have; itself; and any."""
    own = _length(ends)
    if ends is None:
        return [None]
    found: list[_Ends] = [None, ends]
    if own is not None:
        version, first = own[0], ends[0][1][0][0]
        for other, length in lengths:
            if other == version and length < own[1]:
                size = 1 << (BITS[version] - length)
                begin = first // size * size
                found.append(((version, ((begin, begin + size - 1),)),))
    return found


def _place(rule: Rule) -> _Place:
    return rule.side, rule.protocols, _ends(rule.src), _ends(rule.dst)


def _holds(wide: Ranges | None, narrow: Ranges | None) -> bool:
    if wide is None:
        return True
    return narrow is not None and all(
        any(first <= start and stop <= last for first, last in wide) for start, stop in narrow
    )


def _covers_rest(wide: Rule, narrow: Rule) -> bool:
    """Whether one matches what another does, but for side, addresses and protocol."""
    if wide.limit is not None:
        return False
    if wide.icmp is not None and (
        narrow.icmp is None
        or (wide.icmp.kinds, wide.icmp.is_negated) != (narrow.icmp.kinds, narrow.icmp.is_negated)
    ):
        return False
    if wide.states is not None and (narrow.states is None or narrow.states & ~wide.states):
        return False
    return (
        _holds(wide.src_ports, narrow.src_ports)
        and _holds(wide.dst_ports, narrow.dst_ports)
        and all(getattr(wide, key) in (None, getattr(narrow, key)) for key in _SAME)
    )


class _List:
    """The rules of one chain that packets leave, by where they stand."""

    def __init__(self, size: int) -> None:
        self.only_equal = size > _RULES_MAX
        self.lengths: set[tuple[int, int]] = set()
        self.protocols: set[frozenset[int] | None] = {None}
        self.by_place: dict[_Place, list[Rule]] = {}

    def add(self, rule: Rule) -> None:
        self.by_place.setdefault(_place(rule), []).append(rule)
        self.protocols.add(rule.protocols)
        for addresses in (rule.src, rule.dst):
            if (length := _length(_ends(addresses))) is not None:
                self.lengths.add(length)

    def covering(self, rule: Rule) -> Rule | None:
        """Return the first rule that matches all that `rule` matches."""
        places = [_place(rule)] if self.only_equal else self._places(rule)
        found = [
            one
            for place in places
            for one in self.by_place.get(place, ())
            if _covers_rest(one, rule)
        ]
        return min(found, key=lambda one: one.number, default=None)

    def _places(self, rule: Rule) -> Iterator[_Place]:
        own = rule.protocols
        protocols = {p for p in self.protocols if p is None or (own is not None and own <= p)}
        return product(
            {"any", rule.side},
            protocols,
            _wider(_ends(rule.src), self.lengths),
            _wider(_ends(rule.dst), self.lengths),
        )


def _shadowed(rules: Sequence[Rule]) -> Iterator[str]:
    seen = _List(len(rules))
    for rule in rules:
        covering = seen.covering(rule)
        if covering is None:
            if rule.action in _LEAVING:
                seen.add(rule)
            continue
        is_equal = _place(covering) == _place(rule) and _covers_rest(rule, covering)
        what = "it is equal to" if is_equal and covering.action == rule.action else ""
        if what:
            yield f"{rule.name}: never reached: {what} {covering.name}"
        else:
            yield f"{rule.name}: never reached: {covering.name} matches all of it"


def _never_matches(rule: Rule, egress: Mapping[str, str]) -> str:
    """Return why no packet matches, or ""."""
    if any(ends is not None and not ends.ranges for ends in (rule.src, rule.dst)):
        return "no address is left"
    before = STATES["established"] | STATES["related"]
    if rule.states is not None and not rule.states & ~before and rule.action != "accept":
        return "packets of established connections pass before the rules"
    if rule.outputs is not None and not any(port in rule.outputs for port in egress.values()):
        return "where packets leave is known only from egress, and nothing there fits"
    if rule.outputs is not None and rule.inputs is not None:
        fits = (rule.inputs, rule.outputs)
        if not any(port in fits[0] and leaves in fits[1] for port, leaves in egress.items()):
            return "where packets leave is known only from egress, and nothing there fits"
    return ""


def warnings(config: FirewallConfig) -> list[str]:
    """Name each rule that never decides, and why; and chains and sets that nothing uses."""
    found = []
    for rules in (config.rules, *config.chains.values()):
        found += _shadowed(rules)
    for rule in config.all_rules():
        if reason := _never_matches(rule, config.settings.egress):
            found.append(f"{rule.name}: never matches: {reason}")
    used = {rule.chain for rule in config.all_rules()}
    found += [f"chains.{name}: no rule jumps to it" for name in config.chains if name not in used]
    return found
