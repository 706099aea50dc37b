"""Traced packets as a trace of events, for Perfetto (ui.perfetto.dev) and chrome://tracing.

Each packet is a track. Its way is one slice, with a slice inside for each NF host, from the handing
over to the verdict; what changed there is an argument of the slice. Ports are instants.

Source: "Trace Event Format", nestable asynchronous events (ph b, e and n); times in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from onvm_core.manager.captures.trace import Hop, TracedPacket

__all__ = ["perfetto_trace"]

_PROCESS = 1


def perfetto_trace(packets: Iterable[TracedPacket]) -> dict[str, Any]:
    """The content of a trace file, as plain values."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": _PROCESS, "args": {"name": "onvm"}}
    ]
    for packet in packets:
        events += _packet(packet)
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _packet(packet: TracedPacket) -> Iterator[dict[str, Any]]:
    begin_us = packet.time * 1e6
    name = f"packet {packet.number}: {packet.summary}"
    last_us = packet.hops[-1].at_us if packet.hops else 0.0

    def event(phase: str, name: str, at_us: float, **arguments: Any) -> dict[str, Any]:
        return {
            "ph": phase,
            "cat": "packet",
            "id": packet.number,
            "name": name,
            "ts": round(begin_us + at_us, 3),
            "pid": _PROCESS,
            "tid": packet.number,
            "args": arguments,
        }

    yield event("b", name, 0.0, end=packet.end)
    open_at: Hop | None = None
    for hop in packet.hops:
        changes = {"changes": hop.changes} if hop.changes else {}
        if hop.what == "to":
            yield event("b", hop.point, hop.at_us, **changes)
            open_at = hop
        elif open_at is not None and open_at.point == hop.point:
            yield event("e", hop.point, hop.at_us, verdict=hop.what, **changes)
            open_at = None
        else:
            yield event("n", f"{hop.what} {hop.point}", hop.at_us, **changes)
    if open_at is not None:  # still inside when the capture ended
        yield event("e", open_at.point, last_us, verdict="unknown")
    yield event("e", name, last_us)
