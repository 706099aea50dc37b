# SPDX-License-Identifier: Apache-2.0
"""Rules and chains as one list of entries without jumps, as the C kernel walks it.

An entry matches what its own rule and all jumps on the way to it match. Entries that decide by
addresses, protocol and ports alone, and that nothing can skip, go into an ACL. The others are
conditional: the kernel walks those of them that match by the same fields, in order, up to the
first match of the ACL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from onvm_nf_firewall.addresses import BITS, Addresses
from onvm_nf_firewall.config import FirewallConfig
from onvm_nf_firewall.ranges import Ranges, meet
from onvm_nf_firewall.rules import Rule
from onvm_sdk.errors import ConfigError

__all__ = ["CONDITIONAL_MAX", "ENTRIES_MAX", "Entry", "Match", "Program", "compile_rules"]

ENTRIES_MAX = 262_144
CONDITIONAL_MAX = 16_384
_RANGES_MAX = 64
"""A rule with more ranges of addresses asks a set instead."""
_ACL_RULES_MAX = 64
"""A rule that needs more rules of an ACL is conditional."""
_ALL_PORTS: Ranges = ((0, 65535),)


def _everything() -> dict[int, Ranges]:
    return {version: ((0, (1 << bits) - 1),) for version, bits in BITS.items()}


@dataclass(frozen=True, eq=False)
class Match:
    """What an entry asks for. None is any.

    Args:
        src, dst: ranges by IP version; a version that is missing in one never matches.
        extras: rules with more to ask for, in order.
        large: sets that are too large for ranges, with 0 for the source and 1 for the destination.
    """

    side: str = "any"
    src: dict[int, Ranges] = field(default_factory=_everything)
    dst: dict[int, Ranges] = field(default_factory=_everything)
    protocols: frozenset[int] | None = None
    src_ports: Ranges = _ALL_PORTS
    dst_ports: Ranges = _ALL_PORTS
    extras: tuple[Rule, ...] = ()
    large: tuple[tuple[int, Addresses], ...] = ()
    names_transport: bool = False

    def holds_for(self, version: int) -> bool:
        """Whether packets of an IP version can match."""
        return version in self.src and version in self.dst

    def meet(self, rule: Rule) -> Match | None:
        """Return what matches this and a rule; None: nothing does."""
        side = rule.side if self.side == "any" else self.side
        if rule.side not in ("any", side):
            return None
        src, dst, large = dict(self.src), dict(self.dst), list(self.large)
        for number, (ends, given) in enumerate(((src, rule.src), (dst, rule.dst))):
            if given is None:
                continue
            if len(given) > _RANGES_MAX:
                large.append((number, given))
            _meet_ends(ends, given)
        for version in (4, 6):
            if not (rule.holds_for(version) and src.get(version) and dst.get(version)):
                src.pop(version, None)
                dst.pop(version, None)
        protocols = self.protocols
        if rule.protocols is not None:
            protocols = rule.protocols if protocols is None else protocols & rule.protocols
        src_ports = meet(self.src_ports, rule.src_ports or _ALL_PORTS)
        dst_ports = meet(self.dst_ports, rule.dst_ports or _ALL_PORTS)
        if not src or not src_ports or not dst_ports or protocols == frozenset():
            return None
        extras = (*self.extras, rule) if _has_extras(rule) else self.extras
        return Match(
            side, src, dst, protocols, src_ports, dst_ports, extras, tuple(large),
            self.names_transport or rule.names_transport,
        )  # fmt: skip

    def acl_rules(self, version: int) -> int:
        """How many rules of an ACL say the same."""
        if not self.holds_for(version):
            return 0
        return (
            _prefix_count(self.src[version], BITS[version])
            * _prefix_count(self.dst[version], BITS[version])
            * (1 if self.protocols is None else len(self.protocols))
            * len(self.src_ports)
            * len(self.dst_ports)
        )


def _meet_ends(ends: dict[int, Ranges], given: Addresses) -> None:
    for version in list(ends):
        if version not in given.ranges:
            del ends[version]
        elif len(given) <= _RANGES_MAX:
            ends[version] = meet(ends[version], given.ranges[version])


def _has_extras(rule: Rule) -> bool:
    return any(
        value is not None
        for value in (
            rule.inputs, rule.outputs, rule.flags, rule.icmp, rule.states, rule.vlans, rule.macs,
            rule.casts, rule.fragment, rule.limit,
        )
    )  # fmt: skip


def prefixes(first: int, last: int, bits: int) -> list[tuple[int, int]]:
    """Return the prefixes, as address and length, that make up a range."""
    found = []
    while first <= last:
        size = first & -first or 1 << bits
        while size > last - first + 1:
            size >>= 1
        found.append((first, bits + 1 - size.bit_length()))
        first += size
    return found


def _prefix_count(ranges: Ranges, bits: int) -> int:
    return sum(len(prefixes(first, last, bits)) for first, last in ranges)


@dataclass(eq=False)
class Entry:
    """One step of the list.

    Args:
        action: accept, drop, reject, log, count or skip.
        skip_to: the entry that is next after a skip.
        is_conditional: the kernel looks at it one by one.
        is_counted: its match counts for its rule.
    """

    rule: Rule
    match: Match
    action: str
    skip_to: int = 0
    is_conditional: bool = False
    is_counted: bool = True


@dataclass(eq=False)
class Program:
    """The list of entries."""

    entries: list[Entry]

    @property
    def conditional(self) -> list[int]:
        """Positions of the conditional entries."""
        return [at for at, entry in enumerate(self.entries) if entry.is_conditional]


@dataclass(eq=False)
class _Compiler:
    config: FirewallConfig
    entries: list[Entry] = field(default_factory=list)

    def add(self, entry: Entry) -> Entry:
        self.entries.append(entry)
        return entry

    def chain(self, rules: Sequence[Rule], match: Match) -> None:
        """Add the entries of a chain; what leaves it skips to its end."""
        leaving = []
        for rule in rules:
            met = match.meet(rule)
            if met is None:
                continue
            if rule.action == "return":
                leaving.append(self.add(Entry(rule, met, "skip")))
            elif rule.action in ("jump", "goto"):
                leaving += self.jump(rule, match, met)
            else:
                self.add(Entry(rule, met, rule.action))
        for entry in leaving:
            entry.skip_to = len(self.entries)

    def jump(self, rule: Rule, match: Match, met: Match) -> list[Entry]:
        """Add the chain that a rule jumps to. A limit is asked once, before it."""
        over = None
        if rule.limit is not None:
            first = self.add(Entry(rule, met, "skip"))
            first.skip_to = len(self.entries) + 1
            unlimited = match.meet(replace(rule, limit=None))
            assert unlimited is not None
            met = replace(unlimited, names_transport=True)
            over = self.add(Entry(rule, met, "skip", is_counted=False))
        self.chain(self.config.chains[rule.chain], met)
        leaving = []
        if rule.action == "goto":
            leaving.append(self.add(Entry(rule, met, "skip", is_counted=False)))
        if over is not None:
            over.skip_to = len(self.entries)
        return leaving


def _mark(entries: list[Entry]) -> None:
    """Find the conditional entries: those with more to ask, without a verdict, or in a skip."""
    skipped_to = 0
    for at, entry in enumerate(entries):
        match = entry.match
        entry.is_conditional = bool(
            at < skipped_to
            or match.extras
            or match.large
            or entry.action not in ("accept", "drop", "reject")
            or max(match.acl_rules(4), match.acl_rules(6)) > _ACL_RULES_MAX
        )
        skipped_to = max(skipped_to, entry.skip_to)


def _length_of(rules: Sequence[Rule], config: FirewallConfig, known: dict[str, int]) -> int:
    """How many entries rules make at most, before any is made."""
    length = len(rules)
    for rule in rules:
        if rule.chain:
            if rule.chain not in known:
                known[rule.chain] = _length_of(config.chains[rule.chain], config, known)
            length += known[rule.chain] + 1
    return length


def compile_rules(config: FirewallConfig, *, file: str | None = None) -> Program:
    """Make the list of entries.

    Raises:
        ConfigError: it would be too long.
    """
    if _length_of(config.rules, config, {}) > ENTRIES_MAX:
        raise ConfigError(
            f"expected chains that make at most {ENTRIES_MAX} rules when each jump is replaced by "
            "its chain",
            file=file,
            field="chains",
        )
    compiler = _Compiler(config)
    compiler.chain(config.rules, Match())
    _mark(compiler.entries)
    program = Program(compiler.entries)
    count = len(program.conditional)
    if count > CONDITIONAL_MAX:
        raise ConfigError(
            f"expected at most {CONDITIONAL_MAX} rules with more than addresses, protocol and "
            f"ports, jumps replaced by their chains; there are {count}",
            file=file,
            field="rules",
        )
    return program
