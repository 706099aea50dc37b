"""What the demo calls a success, and how it shows what happens."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from onvm_core.demo.scale import Outcome, View, obstacles, show_live
from onvm_core.export.report import BufferReport, GeneratorReport, Latency, Report
from onvm_core.scaling.autoscaler import Decision

LATENCY = Latency(None, None)
CLIENT = GeneratorReport(
    port="client-1",
    opened=9,
    completed=9,
    failed=0,
    requests=50,
    replies=50,
    lost=0,
    bad_checksum=0,
    bad_payload=0,
    out_of_order=0,
    unexpected=0,
    rtt=LATENCY,
)
REPORT = Report(
    rx=100,
    originated=0,
    tx=100,
    drops={},
    nfs=[],
    ports=[],
    generators=[CLIENT],
    buffers=BufferReport(10, 10, 0),
    flows=3,
    seconds=1.0,
    mpps=0.1,
)
OUT = Decision(0.0, "inspect", "policy", 1, 2, "utilisation 75%", None, ["started inspect-2"], 90.0)


def test_success_needs_a_scale_out_and_every_connection() -> None:
    assert obstacles(Outcome(REPORT, [OUT])) == []
    assert obstacles(Outcome(REPORT, [])) == ["no instance was added"]
    by_hand = msgspec.structs.replace(OUT, by="command")
    assert obstacles(Outcome(REPORT, [by_hand])) == ["no instance was added"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"drops": {"shed": 3}, "tx": 97}, "dropped: 3 shed"),
        ({"tx": 99}, "packets are missing"),
        ({"buffers": BufferReport(10, 9, 0)}, "buffers are missing"),
        (
            {"generators": [msgspec.structs.replace(CLIENT, completed=8)]},
            "client-1: 8 of 9 connections completed",
        ),
        (
            {"generators": [msgspec.structs.replace(CLIENT, lost=2)]},
            "client-1: 2 packets lost",
        ),
        (
            {"generators": [msgspec.structs.replace(CLIENT, opened=0, completed=0)]},
            "client-1: 0 of 0 connections completed",
        ),
    ],
)
def test_any_loss_is_named(changes: dict[str, Any], line: str) -> None:
    report = msgspec.structs.replace(REPORT, **changes)
    assert obstacles(Outcome(report, [OUT])) == [line]


VIEW = View(
    elapsed_s=5.0,
    pps=[100.0, 2000.0],
    completed=12,
    failed=0,
    decisions=[OUT],
    instances=[("inspect-1", "active", 0.75), ("inspect-2", "standby", None)],
)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_view_is_a_picture_on_a_terminal_and_lines_elsewhere(is_terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=100)
    with show_live(console) as show:
        show(VIEW)
        show(msgspec.structs.replace(VIEW, elapsed_s=5.2))
    text = out.getvalue()
    assert "2,000 packets/s" in text
    assert "1 → 2: utilisation 75%; started inspect-2 (90 ms)" in text
    if is_terminal:
        assert "█" in text
        assert "connections completed" in text
    else:
        assert "inspect-1 75%, inspect-2 -" in text
        assert "\x1b" not in text
        assert text.count("1 → 2") == text.count("packets/s") == 1
