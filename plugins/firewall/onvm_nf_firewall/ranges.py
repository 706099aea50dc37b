# SPDX-License-Identifier: Apache-2.0
"""Sets of numbers as ranges: sorted, apart from each other, both ends included."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Ranges", "complement", "meet", "merge"]

Ranges = tuple[tuple[int, int], ...]


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the union of ranges."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def complement(ranges: Ranges, largest: int) -> Ranges:
    """Return all numbers of 0..`largest` that are not in `ranges`."""
    left, begin = [], 0
    for first, last in ranges:
        if begin < first:
            left.append((begin, first - 1))
        begin = last + 1
    if begin <= largest:
        left.append((begin, largest))
    return tuple(left)


def meet(one: Ranges, other: Ranges) -> Ranges:
    """Return the numbers that are in both."""
    found, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        first, last = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if first <= last:
            found.append((first, last))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)
