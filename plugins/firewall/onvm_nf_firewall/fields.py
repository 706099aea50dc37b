# SPDX-License-Identifier: Apache-2.0
"""Read the fields of a rule; each error says what was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onvm_nf_firewall.names import CASTS, FLAGS, ICMP_GROUPS, ICMP_NAMES, PROTOCOLS
from onvm_nf_firewall.ranges import Ranges, complement, merge
from onvm_sdk import settings
from onvm_sdk.spelling import one_of

__all__ = [
    "CASTS",
    "Flags",
    "IcmpTypes",
    "Macs",
    "Names",
    "read_bits",
    "read_flags",
    "read_icmp",
    "read_macs",
    "read_names",
    "read_ports",
    "read_protocols",
    "read_vlans",
]

_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_PORT_NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,63}\*?")
_FLAGS_USUAL = FLAGS["fin"] | FLAGS["syn"] | FLAGS["rst"] | FLAGS["ack"]
_NumberOrList = int | str | list[int | str]


@dataclass(frozen=True)
class Names:
    """Names of ports; one that ends with ``*`` stands for all that begin like it."""

    names: tuple[str, ...]
    is_negated: bool = False

    def __contains__(self, name: str) -> bool:
        found = any(
            name.startswith(one[:-1]) if one.endswith("*") else name == one for one in self.names
        )
        return found != self.is_negated


@dataclass(frozen=True)
class Flags:
    """TCP flags: any of some (mask, value)."""

    values: tuple[tuple[int, int], ...]
    is_negated: bool = False

    def __contains__(self, flags: int) -> bool:
        return any(flags & mask == value for mask, value in self.values) != self.is_negated


@dataclass(frozen=True, eq=False)
class IcmpTypes:
    """Types and codes by IP version; a code of None is any."""

    kinds: Mapping[int, tuple[tuple[int, int | None], ...]]
    is_negated: bool = False

    def has(self, version: int, kind: int, code: int) -> bool:
        """Whether a message of this type and code matches."""
        found = any(kind == t and c in (None, code) for t, c in self.kinds.get(version, ()))
        return found != self.is_negated


@dataclass(frozen=True)
class Macs:
    """Source addresses of frames."""

    addresses: tuple[bytes, ...]
    is_negated: bool = False

    def __contains__(self, address: bytes) -> bool:
        return (address in self.addresses) != self.is_negated


def _list(value: _NumberOrList) -> tuple[list[int | str], bool]:
    """Return the entries, and whether all of them are negated."""
    entries = list(value) if isinstance(value, list) else [value]
    negated = [isinstance(one, str) and one.startswith("!") for one in entries]
    if any(negated) and not all(negated):
        raise ValueError("expected all entries with ! or none")
    plain = [one.removeprefix("!") if isinstance(one, str) else one for one in entries]
    return plain, bool(entries) and all(negated)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None


def read_protocols(value: _NumberOrList) -> frozenset[int] | None:
    """Read protocols by name or number; None: any."""
    entries, is_negated = _list(value)
    found = set()
    for one in entries:
        if isinstance(one, str) and one.lower() == "any" and len(entries) == 1 and not is_negated:
            return None
        number = one
        if isinstance(one, str):
            number = _number(one)
            if number is None:
                number = PROTOCOLS.get(one.lower(), -1)
        if number not in range(256):
            raise ValueError(f"expected any, 0..255 or {one_of(PROTOCOLS, one)}")
        found.add(int(number))
    return frozenset(range(256)) - found if is_negated else frozenset(found)


def read_ports(value: _NumberOrList) -> Ranges | None:
    """Read ports and first-last, as a list or with commas; None: any."""
    entries, is_negated = _list(value)
    parts = [part for one in entries for part in str(one).split(",")]
    ranges = [settings.port_range(part.strip()) for part in parts]
    merged = merge((ports.start, ports.stop - 1) for ports in ranges)
    if is_negated:
        merged = complement(merged, 65535)
        if not merged:
            raise ValueError("expected ports that leave others")
    return None if merged == ((0, 65535),) else merged


def read_names(entries: Sequence[str], is_negated: bool) -> Names | None:
    """Read names of ports; None: any."""
    if list(entries) == ["any"] and not is_negated:
        return None
    for name in entries:
        if not _PORT_NAME.fullmatch(name):
            raise ValueError("expected names of ports; * at the end stands for any end, ! negates")
    return Names(tuple(entries), is_negated)


def _flag_bits(text: str) -> int:
    bits = 0
    for name in filter(None, text.lower().split(",")):
        if name == "all":
            bits |= 0x3F
        elif name != "none":
            if name not in FLAGS:
                raise ValueError(f"expected FLAGS or FLAGS/MASK of {', '.join(FLAGS)}, all, none")
            bits |= FLAGS[name]
    return bits


def read_flags(entries: Sequence[str], is_negated: bool) -> Flags | None:
    """Read FLAGS/MASK: of the flags in MASK those in FLAGS are set, and no others."""
    values = []
    for text in entries:
        flags, slash, mask = text.partition("/")
        bits, of = _flag_bits(flags), _flag_bits(mask) if slash else _FLAGS_USUAL
        if not slash:
            of |= bits
        if bits & ~of:
            raise ValueError("expected FLAGS/MASK with all flags in the mask")
        values.append((of, bits))
    return Flags(tuple(values), is_negated) if values else None


def read_icmp(value: _NumberOrList) -> IcmpTypes | None:
    """Read types by name, TYPE or TYPE/CODE, or groups of RFC 4890."""
    entries, is_negated = _list(value)
    kinds: dict[int, list[tuple[int, int | None]]] = {4: [], 6: []}
    for one in entries:
        text = str(one).lower()
        if text in ICMP_GROUPS:
            kinds[6] += ICMP_GROUPS[text]
            continue
        if text in ICMP_NAMES:
            for version, found in zip((4, 6), ICMP_NAMES[text], strict=True):
                if found is not None:
                    kinds[version].append(found)
            continue
        kind, slash, code = text.partition("/")
        numbers = _number(kind), _number(code) if slash else None
        if numbers[0] not in range(256) or (slash and numbers[1] not in range(256)):
            names = one_of((*ICMP_NAMES, *ICMP_GROUPS), text)
            raise ValueError(f"expected TYPE, TYPE/CODE or {names}")
        for version in (4, 6):
            kinds[version].append((numbers[0] or 0, numbers[1]))
    if not entries:
        return None
    return IcmpTypes({v: tuple(found) for v, found in kinds.items() if found}, is_negated)


def read_bits(entries: Sequence[str], is_negated: bool, names: Mapping[str, int]) -> int | None:
    """Read some of `names` as a mask; None: any."""
    bits = 0
    for text in entries:
        if text.lower() not in names:
            raise ValueError(f"expected {one_of(names, text)}")
        bits |= names[text.lower()]
    if not entries:
        return None
    return sum(names.values()) & ~bits if is_negated else bits


def read_vlans(value: _NumberOrList) -> Ranges | None:
    """Read numbers of VLANs and first-last; ``none`` is a frame without a tag; None: any."""
    entries, is_negated = _list(value)
    ranges = []
    for one in entries:
        first, dash, last = ("0", "", "") if one == "none" else str(one).partition("-")
        numbers = _number(first), _number(last) if dash else _number(first)
        if None in numbers or not 0 <= numbers[0] <= numbers[1] <= 4094:  # type: ignore[operator]
            raise ValueError("expected VLANs of 1..4094, first-last or none")
        if numbers[0] == 0 and one != "none":
            raise ValueError("expected VLANs of 1..4094, first-last or none")
        ranges.append((numbers[0] or 0, numbers[1] or 0))
    if not ranges:
        return None
    merged = merge(ranges)
    return complement(merged, 4095) if is_negated else merged


def read_macs(entries: Sequence[str], is_negated: bool) -> Macs | None:
    """Read addresses of network interfaces."""
    for text in entries:
        if not _MAC.fullmatch(text):
            raise ValueError("expected an address such as 02:00:00:00:00:01")
    addresses = tuple(bytes.fromhex(text.replace(":", "")) for text in entries)
    return Macs(addresses, is_negated) if addresses else None
