"""Snapshots of a small manager, for tests of exporters."""

from __future__ import annotations

from typing import Any

import msgspec

from onvm_core.export.report import BufferReport, Latency, LoadReport, NfReport, PortReport, Report
from onvm_core.export.snapshot import Snapshot

NONE = Latency(None, None)
LOAD = LoadReport(1.0, 50, 9, 9, 4.5, 0.25, 0.5, 3, NONE, 0.75, 1000)


def nf(**changes: Any) -> NfReport:
    made = NfReport(
        service="nat",
        instance="nat-1",
        state="active",
        pid=1,
        rx=10,
        tx=8,
        originated=0,
        drops={"rule": 2},
        latency=NONE,
        cpu=0.5,
        cycles_per_packet=3,
        counters={"hits": 7},
        reason="",
        load=LOAD,
    )
    return msgspec.structs.replace(made, **changes)


def snapshot(*nfs: NfReport, manager: str = "main", number: int = 1) -> Snapshot:
    port = PortReport("lan", "null:", 11, 110, 5, 50, 0.0, NONE)
    report = Report(
        rx=11,
        originated=0,
        tx=5,
        drops={"shed": 6},
        nfs=list(nfs),
        ports=[port],
        generators=[],
        buffers=BufferReport(100, 90, 4),
        flows=3,
        seconds=1.0,
        mpps=0.0,
    )
    return Snapshot(1.5, manager, float(number), report)
