# SPDX-License-Identifier: Apache-2.0
"""Maglev's lookup tables, and the hash that chooses a slot, in plain Python."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

__all__ = ["flow_hash", "maglev_fill", "maglev_table", "permutation"]

_MASK = (1 << 64) - 1
_End = tuple[bytes, int]


def permutation(name: str, size: int) -> tuple[int, int]:
    """Give offset and skip of a backend in a table of `size` slots."""
    offset, skip = (
        int.from_bytes(blake2b(name.encode(), digest_size=8, person=person).digest(), "little")
        for person in (b"offset", b"skip")
    )
    return offset % size, skip % (size - 1) + 1


def maglev_fill(
    permutations: Sequence[tuple[int, int]], size: int, weights: Sequence[int]
) -> array[int]:
    """Fill a lookup table from (offset, skip) of each backend, in their order."""
    table, position = array("l", [-1]) * size, [offset for offset, _ in permutations]
    most, filled = max(weights), 0
    credit = [most] * len(permutations)  # so that each has a turn in the first round
    while True:
        for i, (_, skip) in enumerate(permutations):
            credit[i] += weights[i]
            if credit[i] < most or weights[i] == 0:
                continue
            credit[i] -= most
            while table[position[i]] >= 0:
                position[i] = (position[i] + skip) % size
            table[position[i]] = i
            filled += 1
            if filled == size:
                return table


def maglev_table(
    backends: Sequence[str], size: int = 65537, weights: Sequence[int] | None = None
) -> array[int]:
    """Spread backends over a consistent-hashing lookup table.

    Args:
        backends: names, unique; their order does not change which name owns a slot.
        size: slots, a prime well above ``len(backends)``.
        weights: one per backend, not all 0; None: all equal.

    Returns:
        `size` entries, each an index into `backends`. With equal weights two
        backends differ by at most one slot.

    Raises:
        ValueError: `backends` is empty or has more names than `size`.

    Source:
        Eisenbud et al., "Maglev", NSDI 2016, section 3.4.
    """
    if not 0 < len(backends) < size:
        raise ValueError(f"expected 1 to {size - 1} backends, got {len(backends)}")
    given = [1] * len(backends) if weights is None else weights
    order = sorted(range(len(backends)), key=backends.__getitem__)
    table = maglev_fill(
        [permutation(backends[i], size) for i in order], size, [given[i] for i in order]
    )
    return array("l", (order[entry] for entry in table))


def flow_hash(
    src: tuple[bytes, int], dst: tuple[bytes, int], protocol: int, version: int, by_client: bool
) -> int:
    """Hash that chooses the slot: FNV-1a, then the finalizer of MurmurHash3."""
    data = src[0].ljust(16, b"\0")
    if not by_client:
        data += dst[0].ljust(16, b"\0")
        data += src[1].to_bytes(2, "big") + dst[1].to_bytes(2, "big") + bytes((protocol, version))
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & _MASK
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & _MASK
    return value ^ value >> 33
