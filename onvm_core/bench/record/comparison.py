"""Two records side by side: ratios of their medians, and how far apart they may be by chance."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from onvm_core.bench.line import BenchLine
from onvm_core.bench.record.record import BenchRecord
from onvm_sdk.errors import ConfigError

__all__ = ["Comparison", "Ratio", "compare"]

_OF_THE_RUN = ("date", "load")
"""Fields that differ between any two runs."""


class Ratio(msgspec.Struct, frozen=True):
    """The second record's figure divided by the first's.

    Attributes:
        first: median of the first record, in `unit`.
        second: median of the second record.
        ratio: second / first; None where the first is 0.
        least: the least ratio of any run of the second to any run of the first.
        greatest: the greatest such ratio.
    """

    name: str
    unit: str
    first: float
    second: float
    ratio: float | None
    least: float | None
    greatest: float | None

    @property
    def is_apart(self) -> bool:
        """True if every run of one record is above every run of the other."""
        if self.least is None or self.greatest is None:
            return False
        return self.least > 1 or self.greatest < 1


class Comparison(msgspec.Struct, frozen=True):
    """Ratios of the lines that both records have, and what else differs.

    Attributes:
        environment: by the name of what differs, its value in the first and the second record.
        missing: lines that only one of them has.
    """

    environment: dict[str, tuple[str, str]]
    ratios: list[Ratio]
    missing: list[str]


def compare(first: BenchRecord, second: BenchRecord) -> Comparison:
    """Compare two records.

    Raises:
        ConfigError: they have no line in common.
    """
    after = {(line.name, line.unit): line for line in second.lines}
    before = {(line.name, line.unit): line for line in first.lines}
    ratios = [_ratio(line, after[key]) for key, line in before.items() if key in after]
    if not ratios:
        raise ConfigError("expected two records with a line in common", field="--compare")
    return Comparison(
        environment=dict(_differences(first, second)),
        ratios=ratios,
        missing=[name for name, _ in [*before, *after] if not _is_in_both(name, ratios)],
    )


def _is_in_both(name: str, ratios: list[Ratio]) -> bool:
    return any(ratio.name == name for ratio in ratios)


def _ratio(before: BenchLine, after: BenchLine) -> Ratio:
    return Ratio(
        name=before.name,
        unit=before.unit,
        first=before.median,
        second=after.median,
        ratio=_divide(after.median, before.median),
        least=_divide(after.min, before.max),
        greatest=_divide(after.max, before.min),
    )


def _divide(value: float, by: float) -> float | None:
    return round(value / by, 4) if by > 0 else None


def _differences(first: BenchRecord, second: BenchRecord) -> Iterator[tuple[str, tuple[str, str]]]:
    for name in first.environment.__struct_fields__:
        values = [str(getattr(one.environment, name)) for one in (first, second)]
        if name not in _OF_THE_RUN and values[0] != values[1]:
            yield name, (values[0], values[1])
