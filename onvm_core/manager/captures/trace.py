"""Packets on their way through a chain, from the sights of a capture that follows them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from onvm_core.manager.api.messages import TraceNames
from onvm_core.manager.captures.headers import difference, summary
from onvm_core.manager.captures.pcapng import Sight

__all__ = ["Hop", "TracedPacket", "traces_of"]

_VERDICT = re.compile(r"verdict (\d+) (\d+) stage (\d+)")
_NEXT, _DROP, _TO_SERVICE, _OUT = range(4)


class Hop(msgspec.Struct, frozen=True):
    """A packet at a point of its way."""

    point: str
    what: str
    """in, out; to: given to an NF; or the NF's verdict."""
    at_us: float
    """Since the packet came in."""
    changes: list[str]
    """Header fields that differ from the hop before."""


class TracedPacket(msgspec.Struct, frozen=True):
    """A packet and its way."""

    number: int
    summary: str
    time: float
    """Since 1970."""
    hops: list[Hop]
    end: str
    """sent, dropped, or unknown: dropped by the manager, or still on its way."""


def traces_of(sights: Iterable[Sight], names: TraceNames) -> list[TracedPacket]:
    """The way of each packet that was followed, in the order in which they came in."""
    by_number: dict[int, list[Sight]] = {}
    for sight in sights:
        if sight.number:
            by_number.setdefault(sight.number, []).append(sight)
    return [_trace(number, seen, names) for number, seen in sorted(by_number.items())]


def _trace(number: int, seen: Sequence[Sight], names: TraceNames) -> TracedPacket:
    begin, before = seen[0], seen[0].data
    hops, end = [], "unknown"
    for sight in seen:
        what = _what(sight, names)
        hops.append(
            Hop(
                point=sight.point,
                what=what,
                at_us=round((sight.time_ns - begin.time_ns) / 1000, 3),
                changes=difference(before, sight.data),
            )
        )
        before = sight.data
        end = "dropped" if what.startswith("drop") else "sent" if what == "out" else "unknown"
    return TracedPacket(number, summary(begin.data), begin.time_ns / 1e9, hops, end)


def _what(sight: Sight, names: TraceNames) -> str:
    found = _VERDICT.fullmatch(sight.comment)
    if found is None:
        is_nf = sight.point in names.stages
        return ("to" if is_nf else "in") if not sight.is_outbound else "out"
    verdict, destination, stage = map(int, found.groups())
    instances = names.stages.get(sight.point, [])
    by = f" by {instances[stage]}" if len(instances) > 1 and stage < len(instances) else ""
    if verdict == _DROP:
        reasons = names.reasons.get(sight.point, [])
        named = reasons[stage] if stage < len(reasons) else []
        why = named[destination] if destination < len(named) else str(destination)
        return f"drop {why}{by}"
    if verdict == _TO_SERVICE:
        return f"to service {_named(names.services, destination)}{by}"
    if verdict == _OUT:
        return f"out of {_named(names.ports, destination)}{by}"
    return "next"


def _named(names: Mapping[int, str], number: int) -> str:
    return names.get(number, str(number))
