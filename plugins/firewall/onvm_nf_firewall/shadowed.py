# SPDX-License-Identifier: Apache-2.0
"""Rules that never decide, because an earlier one matches all that they match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from onvm_nf_firewall.config import Network, Rule

__all__ = ["warnings"]

_RULES_MAX = 2000
"""In longer lists only equal rules are looked for, so that an NF starts quickly."""

_Place = tuple[str, int | None, Network | None, Network | None]


def _wider(net: Network | None, lengths: set[tuple[int, int]]) -> list[Network | None]:
    """Return the networks around `net`, of the lengths that rules have."""
    if net is None:
        return [None]
    fitting = (n for version, n in lengths if version == net.version and n <= net.prefixlen)
    return [None, *(net.supernet(new_prefix=length) for length in fitting)]


def _places(rule: Rule, lengths: set[tuple[int, int]]) -> Iterator[_Place]:
    """Where a rule may stand that matches all that `rule` matches."""
    sides, protocols = {"any", rule.side}, {None, rule.protocol}
    return product(sides, protocols, _wider(rule.src, lengths), _wider(rule.dst, lengths))


def _place(rule: Rule) -> _Place:
    return rule.side, rule.protocol, rule.src, rule.dst


def _holds(wide: range, narrow: range) -> bool:
    return wide.start <= narrow.start and narrow.stop <= wide.stop


def warnings(rules: Sequence[Rule]) -> list[str]:
    """Name each rule that is never reached, and the first one that matches all of it."""
    found = []
    lengths: set[tuple[int, int]] = set()
    by_place: dict[_Place, list[tuple[int, Rule]]] = {}
    for number, rule in enumerate(rules):
        places = _places(rule, lengths) if len(rules) <= _RULES_MAX else [_place(rule)]
        covering = [
            earlier
            for place in places
            for earlier, other in by_place.get(place, ())
            if _holds(other.src_ports, rule.src_ports) and _holds(other.dst_ports, rule.dst_ports)
        ]
        if covering:
            found.append(
                f"rules[{number}]: never reached: rules[{min(covering)}] matches all of it"
            )
            continue
        by_place.setdefault(_place(rule), []).append((number, rule))
        lengths.update((net.version, net.prefixlen) for net in (rule.src, rule.dst) if net)
    return found
