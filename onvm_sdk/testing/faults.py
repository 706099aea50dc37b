"""Faults that a test injects into a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Faults"]


@dataclass(frozen=True, slots=True)
class Faults:
    """The things that go wrong in a `Runner`, as they may in a manager.

    Args:
        no_buffers: every attempt to originate a packet finds no lent buffer.
        hold_limit: the most packets that may be held, because the rings are full; None: as many as
            the manifest says.
        configurations: new configurations by the number of the packet before which they come, also
            in the middle of what would have been one burst.
    """

    no_buffers: bool = False
    hold_limit: int | None = None
    configurations: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def cuts(self, count: int, burst_size: int) -> Iterator[tuple[int, int]]:
        """First and last packet of each burst, half-open; a configuration cuts a burst in two."""
        first = 0
        while first < count:
            end = min(first + burst_size, count)
            end = min([at for at in self.configurations if first < at < end], default=end)
            yield first, end
            first = end
