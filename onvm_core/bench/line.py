"""One line of a benchmark's output."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

__all__ = ["BenchLine"]


class BenchLine(msgspec.Struct, frozen=True):
    """A figure with its spread."""

    name: str
    unit: str
    median: float
    min: float
    max: float
    runs: int
    cores: int

    @classmethod
    def of(cls, name: str, unit: str, values: Sequence[float], cores: int = 2) -> BenchLine:
        """Summarise `values`, at least one."""
        return cls(
            name=name,
            unit=unit,
            median=round(statistics.median(values), 3),
            min=round(min(values), 3),
            max=round(max(values), 3),
            runs=len(values),
            cores=cores,
        )
