"""Traced packets as events of a trace."""

from __future__ import annotations

from typing import Any

from onvm_core.manager.captures.perfetto import perfetto_trace
from onvm_core.manager.captures.trace import Hop, TracedPacket


def _hop(point: str, what: str, at_us: float, *changes: str) -> Hop:
    return Hop(point=point, what=what, at_us=at_us, changes=list(changes))


SENT = [
    _hop("lan", "in", 0.0),
    _hop("fw-1", "to", 1.0),
    _hop("fw-1", "next", 3.5),
    _hop("nat-1", "to", 4.0),
    _hop("nat-1", "next", 7.0, "ip.src 10.0.0.1 → 192.0.2.1"),
    _hop("wan", "out", 7.5),
]
CUT = [_hop("lan", "in", 0.0), _hop("fw-1", "to", 2.0)]


def _events(hops: list[Hop], end: str) -> list[dict[str, Any]]:
    packet = TracedPacket(number=7, summary="udp", time=1000.5, hops=hops, end=end)
    first, *events = perfetto_trace([packet])["traceEvents"]
    assert first["ph"] == "M"
    assert {(event["cat"], event["id"]) for event in events} == {("packet", 7)}
    return events


def test_nfs_are_slices_in_the_slice_of_their_packet() -> None:
    events = _events(SENT, "sent")
    assert [(event["ph"], event["name"], event["ts"]) for event in events] == [
        ("b", "packet 7: udp", 1000.5e6),
        ("n", "in lan", 1000.5e6),
        ("b", "fw-1", 1000.5e6 + 1),
        ("e", "fw-1", 1000.5e6 + 3.5),
        ("b", "nat-1", 1000.5e6 + 4),
        ("e", "nat-1", 1000.5e6 + 7),
        ("n", "out wan", 1000.5e6 + 7.5),
        ("e", "packet 7: udp", 1000.5e6 + 7.5),
    ]
    assert events[0]["args"] == {"end": "sent"}
    assert events[5]["args"] == {
        "verdict": "next",
        "changes": ["ip.src 10.0.0.1 → 192.0.2.1"],
    }


def test_every_slice_ends_though_its_packet_is_still_inside() -> None:
    events = _events(CUT, "unknown")
    assert [event["ph"] for event in events] == ["b", "n", "b", "e", "e"]
    assert events[3]["args"] == {"verdict": "unknown"}
