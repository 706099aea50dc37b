"""Tables: whole at any width."""

from __future__ import annotations

import io

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from onvm_core.cli import app
from onvm_core.cli.manager.report import report_tables
from onvm_core.cli.manager.status import status_tables
from onvm_core.cli.table import Table, make_console, number, text
from onvm_core.export.report import (
    BufferReport,
    GeneratorReport,
    Latency,
    LoadReport,
    NfReport,
    PortReport,
    Report,
)
from onvm_core.manager.api.messages import ChainReply, StatusReply

LARGE = 987_654_321_012
"""Packets of about ten days at a million a second."""
LATENCY = Latency(12345.6, 123456.7)


def _report() -> Report:
    load = LoadReport(
        seconds=1.0,
        packets=LARGE,
        busy_cycles=LARGE,
        idle_cycles=LARGE,
        cycles_per_packet=1234.5,
        occupancy_mean=0.5,
        occupancy_peak=1.0,
        sheds=0,
        queue=LATENCY,
        utilisation=0.99,
        spare_pps=14_880_952,
    )
    nf = NfReport(
        service="firewall",
        instance="firewall-12",
        state="active",
        pid=1,
        rx=LARGE,
        tx=LARGE - 1,
        originated=LARGE,
        drops={"default": 251_658_240},
        latency=LATENCY,
        cpu=1.0,
        cycles_per_packet=12345.0,
        counters={"accepted_by_rule": LARGE},
        reason="",
        load=load,
    )
    port = PortReport(
        name="customers",
        uri="af_packet:enp0s31f6?queues=4&promiscuous=false&rx_checksum=false",
        rx=LARGE,
        rx_bytes=LARGE * 1000,
        tx=LARGE,
        tx_bytes=LARGE * 1000,
        mpps=14.88,
        latency=LATENCY,
    )
    generator = GeneratorReport("in", *[LARGE] * 10, LATENCY)
    return Report(
        rx=LARGE,
        originated=LARGE,
        tx=LARGE,
        drops={"firewall.default": 251_658_240},
        nfs=[nf],
        ports=[port],
        generators=[generator],
        buffers=BufferReport(1 << 20, 1 << 19, 100),
        flows=LARGE,
        seconds=1e6,
        mpps=0.99,
    )


def _status() -> StatusReply:
    services = ["firewall", "nat", "lb", "dpi", "shaper", "router"]
    chain = ChainReply(
        name="main",
        near="customers",
        far="upstream",
        services=services,
        bidirectional=True,
        track_flows=True,
        state="active",
    )
    return StatusReply(
        name="main",
        pid=1,
        version="0.2.0",
        state="ready",
        uptime_s=1.0,
        launched=[],
        chains=[chain],
        report=_report(),
    )


def _printed(what: RenderableType, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(what, crop=False)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("what", [report_tables(_report()), status_tables(_status())])
def test_tables_of_a_busy_manager_are_whole(what: RenderableType, width: int) -> None:
    lines = _printed(what, width)
    assert all(len(line) <= width for line in lines)
    shown = "\n".join(lines)
    assert "…" not in shown
    assert shown.count(f"{LARGE:,}") >= 4
    assert "251,658,240" in shown


def test_the_least_important_columns_go_first_and_the_title_says_so() -> None:
    columns = (text("name"), number("least", 9), number("less", 5), number("most"))
    table = Table("Things", columns).add_all([("one", "1", "2", "3")])
    assert _printed(table, 80)[:2] == ["Things", "name  least  less  most"]
    assert _printed(table, 16)[:2] == ["Things (1 more: --wide)", "name  less  most"]
    assert _printed(table, 12)[:2] == ["Things (2 more: --wide)", "name  most"]


def test_text_is_folded_before_a_column_goes() -> None:
    columns = (text("name"), text("why", folds=True, least=10), number("n", 1))
    table = Table("", columns).add_all([("one", "because of this and of that", "5")])
    assert _printed(table, 30) == [
        "name  why                    n",
        "one   because of this and    5",
        "      of that",
    ]


@given(
    widths=st.lists(st.integers(1, 15), min_size=1, max_size=8),
    ranks=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    width=st.integers(20, 100),
)
def test_a_number_that_is_shown_is_whole(widths: list[int], ranks: list[int], width: int) -> None:
    numbers = ["9" * one for one in widths]
    columns = [number(f"c{index}", ranks[index]) for index in range(len(widths))]
    header, row = _printed(Table("", columns).add_all([numbers]), width)[-2:]
    shown = [int(heading[1:]) for heading in header.split()]
    assert row.split() == [numbers[index] for index in shown]
    assert all(ranks[index] == 0 or index in shown for index in range(len(widths))) or (
        max(ranks[index] for index in range(len(widths)) if index not in shown)
        >= max((ranks[index] for index in shown), default=0)
    )


def test_a_pipe_gets_all_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert make_console().width > 1000
    monkeypatch.setenv("COLUMNS", "80")
    assert make_console().width == 80
    assert make_console(is_wide=True).width > 1000


def _onvm(*arguments: str) -> int:
    return app._run(arguments)


def test_forms_of_the_usual_notation(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for form in ("yaml", "json", "name", "wide", "table"):
        assert _onvm("nf", "list", "-o", form) == 0
        shown[form] = capsys.readouterr().out
    rows = yaml.safe_load(shown["yaml"])
    assert "firewall" in {row["name"] for row in rows}
    assert shown["name"].splitlines() == [f"nf/{row['name']}" for row in rows]
    assert yaml.safe_load(shown["json"]) == rows
    assert shown["wide"] == shown["table"]


def test_forms_that_contradict_each_other_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert _onvm("nf", "list", "--json", "-o", "yaml") == 2
    assert capsys.readouterr().err == (
        "error: --output: 'yaml': expected no other form together with --json\n"
    )
    assert _onvm("version", "-o", "name") == 2
    assert _onvm("nf", "list", "-o", "xml") == 2
