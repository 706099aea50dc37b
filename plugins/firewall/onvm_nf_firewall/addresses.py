# SPDX-License-Identifier: Apache-2.0
"""Addresses that a rule names: prefixes, ranges and sets of them, inline or from files."""

from __future__ import annotations

import socket
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onvm_nf_firewall.ranges import Ranges, complement, merge
from onvm_sdk.errors import ConfigError

__all__ = ["BITS", "Addresses", "read_addresses", "read_sets"]

BITS = {4: 32, 6: 128}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_EXPECTED = (
    "expected a network such as 10.0.0.0/8, host bits zero, an address, first-last, @SET or any"
)


@dataclass(frozen=True, eq=False)
class Addresses:
    """The addresses that match, by IP version; a version that is missing never matches."""

    ranges: Mapping[int, Ranges]

    def __contains__(self, address: bytes) -> bool:
        version = 4 if len(address) == 4 else 6
        ranges, number = self.ranges.get(version, ()), int.from_bytes(address, "big")
        at = bisect_right(ranges, (number, 1 << 129)) - 1
        return at >= 0 and number <= ranges[at][1]

    def __len__(self) -> int:
        return sum(map(len, self.ranges.values()))


def _address(text: str) -> tuple[int, int]:
    """Return the version of an address, and its number."""
    version = 6 if ":" in text else 4
    try:
        packed = socket.inet_pton(_FAMILIES[version], text)
    except (OSError, UnicodeError, ValueError):
        raise ValueError(_EXPECTED) from None
    return version, int.from_bytes(packed, "big")


def read_range(text: str) -> tuple[int, int, int]:
    """Read a prefix, an address or first-last.

    Returns:
        Version, first and last address.

    Raises:
        ValueError: it is none of these.
    """
    head, slash, tail = text.partition("/")
    if not slash and "-" in text:
        (version, first), (other, last) = map(_address, text.split("-", 1))
        if version != other or first > last:
            raise ValueError("expected a range of one IP version, first not above last")
        return version, first, last
    version, number = _address(head)
    length = BITS[version]
    if slash:
        is_number = tail.isascii() and tail.isdigit() and len(tail) <= 3
        if not is_number or int(tail) > length:
            raise ValueError(_EXPECTED)
        length = int(tail)
    size = 1 << (BITS[version] - length)
    if number & (size - 1):
        raise ValueError(_EXPECTED)
    return version, number, number + size - 1


def _merged(found: Mapping[int, list[tuple[int, int]]]) -> Addresses:
    return Addresses({version: merge(ranges) for version, ranges in found.items() if ranges})


def _read_file(path: Path, field: str, file: str | None) -> Addresses:
    """Read one prefix in each line; ``#`` and ``;`` begin a comment."""
    found: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                text = line.split("#", 1)[0].split(";", 1)[0].strip()
                if not text:
                    continue
                try:
                    version, first, last = read_range(text)
                except ValueError as error:
                    raise ConfigError(
                        str(error), file=str(path), field=f"line {number}", value=text
                    ) from None
                found[version].append((first, last))
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be read: {error.strerror}",
            file=file,
            field=field,
            value=str(path),
        ) from None
    return _merged(found)


def read_sets(
    sets: Mapping[str, list[str]], files: Sequence[str], file: str | None
) -> dict[str, Addresses]:
    """Read the named sets of a configuration.

    Args:
        files: a set in each, named like the file without its ending.

    Raises:
        ConfigError: an entry is no prefix, a file cannot be read, or two sets have one name.
    """
    made: dict[str, Addresses] = {}
    for number, path in enumerate(files):
        name, field = Path(path).name.partition(".")[0], f"set_files[{number}]"
        if name in made or name in sets:
            raise ConfigError(
                "expected a name that no other set has", file=file, field=field, value=name
            )
        made[name] = _read_file(Path(path), field, file)
    for name, entries in sets.items():
        found: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for number, text in enumerate(entries):
            try:
                version, first, last = read_range(text)
            except ValueError as error:
                raise ConfigError(
                    str(error), file=file, field=f"sets.{name}[{number}]", value=text
                ) from None
            found[version].append((first, last))
        made[name] = _merged(found)
    return made


def read_addresses(
    entries: Iterable[str], is_negated: bool, sets: Mapping[str, Addresses]
) -> Addresses | None:
    """Read what a rule says about an address; None: any.

    What is negated holds for the IP versions that are named; ``!@SET`` holds for both.

    Raises:
        ValueError: an entry is none of those that are expected.
    """
    found: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    versions, entries = set(), list(entries)
    if len(entries) == 1 and entries[0][1:] in sets and entries[0][0] == "@" and not is_negated:
        return sets[entries[0][1:]]
    for text in entries:
        if text == "any":
            if is_negated or len(entries) > 1:
                raise ValueError("expected any alone, or addresses")
            return None
        if text.startswith("@"):
            if text[1:] not in sets:
                names = ", ".join(f"@{name}" for name in sets) or "none is in sets or set_files"
                raise ValueError(f"expected the name of a set: {names}")
            versions |= {4, 6}
            for version, ranges in sets[text[1:]].ranges.items():
                found[version] += ranges
            continue
        version, first, last = read_range(text)
        found[version].append((first, last))
        versions.add(version)
    merged = {version: merge(ranges) for version, ranges in found.items() if version in versions}
    if is_negated:
        merged = {v: complement(r, (1 << BITS[v]) - 1) for v, r in merged.items()}
    return Addresses({version: ranges for version, ranges in merged.items() if ranges})
