"""The durations of the parts of a manager's start, for ``onvm status --json`` and the benchmark.

A process has one start, so this is one list for the process. Times are of the monotonic clock,
which all processes of a host share.
"""

from __future__ import annotations

import time

import msgspec

__all__ = ["Startup", "lap", "note", "startup"]


class Startup(msgspec.Struct, frozen=True):
    """A manager's start.

    Attributes:
        began_s: time at which its first line ran, on the monotonic clock.
        laps_ms: duration of each step of its thread from then on, in order, in milliseconds.
        beside_ms: duration of each step that ran beside that thread, in milliseconds.
    """

    began_s: float
    laps_ms: dict[str, float] = {}
    beside_ms: dict[str, float] = {}


_began: list[float] = []
_laps: dict[str, float] = {}
_beside: dict[str, float] = {}
_last: list[float] = []


def lap(name: str) -> None:
    """End one step and begin the next. The first call only begins."""
    now = time.monotonic()
    if _began:
        _laps[name] = _laps.get(name, 0.0) + now - _last[0]
    else:
        _began.append(now)
    _last[:] = [now]


def note(name: str, seconds: float) -> None:
    """Record the duration of a step, in any thread."""
    _beside[name] = seconds


def startup() -> Startup | None:
    """The measurements; None if there are none, as in a process that is no ``onvm up``."""
    if not _began:
        return None
    return Startup(
        _began[0],
        {name: round(seconds * 1000, 3) for name, seconds in _laps.items()},
        {name: round(seconds * 1000, 3) for name, seconds in _beside.items()},
    )
