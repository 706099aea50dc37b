# SPDX-License-Identifier: Apache-2.0
"""The list of entries as the arrays of ``struct firewall_config``."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from onvm_nf_firewall import _firewall  # type: ignore[attr-defined]  # compiled
from onvm_nf_firewall.addresses import BITS, Addresses
from onvm_nf_firewall.config import FirewallConfig
from onvm_nf_firewall.fields import Flags, IcmpTypes, Macs, Names
from onvm_nf_firewall.names import REJECTS
from onvm_nf_firewall.program import Entry, Program, prefixes
from onvm_nf_firewall.rules import Limit, Rule
from onvm_sdk.limits import ADDRESS_BYTES

__all__ = ["NativeRules"]

_ffi: Any = _firewall.ffi
_lib: Any = _firewall.lib
_SIDES = {
    "any": _lib.FIREWALL_SIDE_ANY,
    "near": _lib.FIREWALL_SIDE_NEAR,
    "far": _lib.FIREWALL_SIDE_FAR,
}
_ACTIONS = {
    "accept": _lib.FIREWALL_ACCEPT,
    "drop": _lib.FIREWALL_DROP,
    "reject": _lib.FIREWALL_REJECT,
    "log": _lib.FIREWALL_LOG,
    "count": _lib.FIREWALL_COUNT,
    "skip": _lib.FIREWALL_SKIP,
}
_PER = {"rule": 0, "source": 1, "destination": 2}
_ENTRY = struct.Struct("=3IH6B")
_SPAN = struct.Struct("=4QI2H")
_ANY_CODE = 256
_Condition = tuple[int, int, int, bool]


def _runs(numbers: Any) -> Iterator[tuple[int, int]]:
    """Sorted numbers as ranges."""
    first = last = None
    for number in sorted(numbers):
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None:
            yield first, last
        first = last = number
    if first is not None:
        yield first, last


@dataclass
class NativeRules:
    """The arrays, and the columns of the table of ports.

    Args:
        columns: names that conditions ask for, with whether they mean the exit of a packet.
    """

    config: FirewallConfig
    program: Program
    columns: list[tuple[Names, bool]] = field(default_factory=list)
    _pairs: array[int] = field(default_factory=lambda: array("I"))
    _macs: bytearray = field(default_factory=bytearray)
    _sets: dict[int, int] = field(default_factory=dict)
    _large: list[Addresses] = field(default_factory=list)
    _limits: dict[int, int] = field(default_factory=dict)
    _buckets: list[Limit] = field(default_factory=list)
    _known: dict[tuple[Any, ...], _Condition] = field(default_factory=dict)

    def make(self) -> tuple[dict[str, Any], list[Any]]:
        """Return the fields of ``struct firewall_config``, and what they point to."""
        conditions: list[_Condition] = []
        entries = bytearray()
        order = self.program.conditional
        position_of = {at: position for position, at in enumerate(order)}
        behind = self._positions_behind(position_of)
        spans, nb_spans = bytearray(), 0
        for at, entry in enumerate(self.program.entries):
            asked = self._conditions(entry)
            entries += _ENTRY.pack(
                entry.rule.number,
                behind[entry.skip_to if entry.action == "skip" else at],
                len(conditions),
                len(asked),
                _ACTIONS[entry.action],
                REJECTS.index(entry.rule.reject),
                _SIDES[entry.match.side],
                entry.match.names_transport,
                any(rule.takes_invalid for rule in entry.match.extras),
                entry.is_counted,
            )
            conditions += asked
            if entry.is_conditional:
                for values in _spans(entry):
                    spans += _SPAN.pack(*values[:4], position_of[at], *values[4:])
                    nb_spans += 1
        array4, array6 = (self._acl(version) for version in (4, 6))
        native_conditions = _ffi.new("struct firewall_condition[]", max(1, len(conditions)))
        for one, (question, a, b, is_negated) in zip(native_conditions, conditions, strict=False):
            one.question, one.a, one.b, one.is_negated = question, a, b, is_negated
        sets, kept = self._native_sets()
        values = {
            "rules4": array4,
            "rules6": array6,
            "entries": _ffi.from_buffer("struct firewall_entry[]", bytes(entries)),
            "conditional": _ffi.new("uint32_t[]", order or [0]),
            "spans": _ffi.from_buffer("struct firewall_span[]", bytes(spans)),
            "conditions": native_conditions,
            "pairs": _ffi.from_buffer("uint32_t[]", self._pairs or array("I", [0, 0])),
            "macs": _ffi.from_buffer("uint8_t[]", bytes(self._macs) or bytes(6)),
            "sets": sets,
            "limits": self._native_limits(),
        }
        counts = {
            "nb_rules4": len(array4),
            "nb_rules6": len(array6),
            "nb_entries": len(self.program.entries),
            "nb_conditional": len(order),
            "nb_spans": nb_spans,
            "nb_conditions": len(conditions),
            "nb_pairs": len(self._pairs) // 2,
            "nb_macs": len(self._macs) // 6,
            "nb_sets": len(self._large),
            "nb_limits": len(self._buckets),
            "nb_rules": sum(1 for _ in self.config.all_rules()),
            "nb_columns": len(self.columns),
        }
        return {**values, **counts}, [*values.values(), *kept]

    def _positions_behind(self, position_of: dict[int, int]) -> list[int]:
        """By the position of an entry: how many conditional entries are before it."""
        behind, count = [], 0
        for at in range(len(self.program.entries)):
            behind.append(count)
            count += at in position_of
        return [*behind, count]

    # -- conditions

    def _conditions(self, entry: Entry) -> list[_Condition]:
        found = [
            (_lib.FIREWALL_ASK_SET, self._set(addresses), number, False)
            for number, addresses in entry.match.large
        ]
        for rule in entry.match.extras:
            found += self._of_rule(rule)
        if entry.rule.limit is not None and entry.rule in entry.match.extras:
            found.append((_lib.FIREWALL_ASK_LIMIT, self._limit(entry.rule), 0, False))
        return found

    def _of_rule(self, rule: Rule) -> Iterator[_Condition]:
        """What a rule asks, but for its limit."""
        for names, is_exit in ((rule.inputs, False), (rule.outputs, True)):
            if names is not None:
                yield _lib.FIREWALL_ASK_PORT, self._column(names, is_exit), 0, False
        if rule.vlans is not None:
            numbers = [number for ends in rule.vlans for number in ends]
            yield self._listed(_lib.FIREWALL_ASK_VLAN, numbers, False)
        if rule.macs is not None:
            yield self._mac(rule.macs)
        if rule.casts is not None:
            yield _lib.FIREWALL_ASK_CAST, rule.casts, 0, False
        if rule.fragment is not None:
            yield _lib.FIREWALL_ASK_FRAGMENT, int(rule.fragment), 0, False
        if rule.flags is not None:
            yield self._flags(rule.flags)
        if rule.icmp is not None:
            yield self._icmp(rule.icmp)
        if rule.states is not None:
            yield _lib.FIREWALL_ASK_STATE, rule.states, 0, False

    def _listed(self, question: int, numbers: list[int], is_negated: bool) -> _Condition:
        """Put pairs of numbers behind the others; equal ones only once."""
        key = (question, tuple(numbers), is_negated)
        if key not in self._known:
            self._known[key] = (question, len(self._pairs) // 2, len(numbers) // 2, is_negated)
            self._pairs.extend(numbers)
        return self._known[key]

    def _flags(self, flags: Flags) -> _Condition:
        numbers = [number for pair in flags.values for number in pair]
        return self._listed(_lib.FIREWALL_ASK_FLAGS, numbers, flags.is_negated)

    def _icmp(self, icmp: IcmpTypes) -> _Condition:
        numbers = [
            number
            for version, kinds in icmp.kinds.items()
            for kind, code in kinds
            for number in (version * 256 + kind, _ANY_CODE if code is None else code)
        ]
        return self._listed(_lib.FIREWALL_ASK_ICMP, numbers, icmp.is_negated)

    def _mac(self, macs: Macs) -> _Condition:
        key = ("mac", macs)
        if key not in self._known:
            first = len(self._macs) // 6
            self._known[key] = (
                _lib.FIREWALL_ASK_MAC, first, len(macs.addresses), macs.is_negated,
            )  # fmt: skip
            self._macs += b"".join(macs.addresses)
        return self._known[key]

    def _column(self, names: Names, is_exit: bool) -> int:
        if (names, is_exit) not in self.columns:
            self.columns.append((names, is_exit))
        return self.columns.index((names, is_exit))

    def _set(self, addresses: Addresses) -> int:
        if id(addresses) not in self._sets:
            self._sets[id(addresses)] = len(self._large)
            self._large.append(addresses)
        return self._sets[id(addresses)]

    def _limit(self, rule: Rule) -> int:
        assert rule.limit is not None
        if rule.number not in self._limits:
            self._limits[rule.number] = len(self._buckets)
            self._buckets.append(rule.limit)
        return self._limits[rule.number]

    # -- arrays

    def _native_limits(self) -> Any:
        limits = _ffi.new("struct firewall_limit[]", max(1, len(self._buckets)))
        for native, limit in zip(limits, self._buckets, strict=False):
            native.cost_ns, native.cap_ns = limit.cost_ns, limit.cap_ns
            native.per, native.is_above = _PER[limit.per], limit.above
            native.prefix4, native.prefix6 = limit.prefixes
        return limits

    def _native_sets(self) -> tuple[Any, list[Any]]:
        sets, kept = _ffi.new("struct firewall_set[]", max(1, len(self._large))), []
        for native, addresses in zip(sets, self._large, strict=False):
            ranges4, ranges6 = (addresses.ranges.get(version, ()) for version in (4, 6))
            numbers4 = array("I", (number for ends in ranges4 for number in ends))
            numbers6 = array(
                "Q", (half for ends in ranges6 for number in ends for half in _halves(number))
            )
            native.ranges4 = _ffi.from_buffer("uint32_t[]", numbers4)
            native.ranges6 = _ffi.from_buffer("uint64_t[]", numbers6)
            native.nb4, native.nb6 = len(ranges4), len(ranges6)
            kept += [numbers4, numbers6, native.ranges4, native.ranges6]
        return sets, kept

    def _acl(self, version: int) -> Any:
        """Make the rules one by one: a list of all takes more than the tables."""
        fitting = [
            (at, entry)
            for at, entry in enumerate(self.program.entries)
            if not entry.is_conditional and entry.match.holds_for(version)
        ]
        count = sum(entry.match.acl_rules(version) for _, entry in fitting)
        made, position, total = (
            _ffi.new("struct onvm_acl_rule[]", count),
            0,
            len(self.program.entries),
        )
        for at, entry in fitting:
            for one in _acl_rules(entry, version):
                made[position] = {**one, "priority": total - at, "value": at + 1}
                position += 1
        return made


def _halves(number: int) -> tuple[int, int]:
    return number >> 64, number & 0xFFFF_FFFF_FFFF_FFFF


def _spans(entry: Entry) -> Iterator[tuple[int, int, int, int, int, int]]:
    """The spans of a conditional entry: first and last in halves, field and IP version."""
    match = entry.match
    for version in (4, 6):
        if not match.holds_for(version):
            continue
        protocols: Any = ((0, 255),) if match.protocols is None else _runs(match.protocols)
        fields: tuple[tuple[int, Any], ...] = (
            (_lib.FIREWALL_FIELD_SRC, match.src[version]),
            (_lib.FIREWALL_FIELD_DST, match.dst[version]),
            (_lib.FIREWALL_FIELD_SRC_PORT, match.src_ports),
            (_lib.FIREWALL_FIELD_DST_PORT, match.dst_ports),
            (_lib.FIREWALL_FIELD_PROTOCOL, protocols),
        )
        for number, ranges in fields:
            for first, last in ranges:
                yield *_halves(first), *_halves(last), number, version


def _address(number: int, version: int) -> bytes:
    return number.to_bytes(BITS[version] // 8, "big").ljust(ADDRESS_BYTES, b"\0")


def _acl_rules(entry: Entry, version: int) -> Iterator[dict[str, Any]]:
    match, bits = entry.match, BITS[version]
    src, dst = (
        [prefix for first, last in ends[version] for prefix in prefixes(first, last, bits)]
        for ends in (match.src, match.dst)
    )
    protocols = (None,) if match.protocols is None else sorted(match.protocols)
    for protocol in protocols:
        for src_address, src_prefix in src:
            for dst_address, dst_prefix in dst:
                for src_first, src_last in match.src_ports:
                    for dst_first, dst_last in match.dst_ports:
                        yield {
                            "src": _address(src_address, version),
                            "dst": _address(dst_address, version),
                            "src_prefix": src_prefix,
                            "dst_prefix": dst_prefix,
                            "protocol": protocol or 0,
                            "protocol_mask": 0 if protocol is None else 0xFF,
                            "src_port_first": src_first,
                            "src_port_last": src_last,
                            "dst_port_first": dst_first,
                            "dst_port_last": dst_last,
                        }
