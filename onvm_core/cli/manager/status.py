"""``onvm status`` and ``onvm top``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from onvm_core.cli.manager.connect import connect
from onvm_core.cli.manager.report import load_cells, load_columns, report_tables
from onvm_core.cli.options import NameOption, with_option_groups
from onvm_core.cli.output import Form, OutputOptions, TableOptions
from onvm_core.cli.table import Table, number, text
from onvm_core.export.runner import ExporterReport
from onvm_core.manager.api.messages import ChainReply, LaunchedNf, StatusReply, StatusRequest

__all__ = ["chain_table", "status", "status_tables", "top"]

Interval = Annotated[
    float, typer.Option(min=0.1, max=3600, metavar="S", help="Seconds between two readings.")
]


@with_option_groups
def status(
    name: NameOption = "main",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until Ctrl-C.")] = False,
    interval: Interval = 1.0,
    *,
    output: OutputOptions,
) -> None:
    """Show a manager: state, ports, chains, NFs, drops and buffers.

    Examples:
        onvm status
        onvm status --watch --interval 5
        onvm status -o json
    """
    with connect(name) as client:
        if not watch:
            reply = client.ask(StatusRequest(), StatusReply)
            output.show(reply, lambda: status_tables(reply), lambda: _names(reply))
            return
        is_table = output.chosen in (Form.TABLE, Form.WIDE)
        with _live(output) if is_table else nullcontext(print) as show:
            while True:
                reply = client.ask(StatusRequest(), StatusReply)
                if is_table:
                    show(status_tables(reply))
                elif output.chosen is Form.JSON:  # a line each, for programs that read lines
                    print(msgspec.json.encode(reply).decode(), flush=True)
                else:
                    output.show(reply, lambda: None, lambda now=reply: _names(now))  # type: ignore[misc]
                time.sleep(interval)


def _names(reply: StatusReply) -> list[str]:
    return [
        *(f"port/{port.name}" for port in reply.report.ports),
        *(f"chain/{chain.name}" for chain in reply.chains),
        *(f"instance/{name}" for nf in reply.launched for name in nf.instances),
    ]


@with_option_groups
def top(
    name: NameOption = "main",
    interval: Interval = 1.0,
    count: Annotated[
        int, typer.Option(min=0, metavar="N", help="Number of readings; 0 for no limit.")
    ] = 0,
    *,
    look: TableOptions,
) -> None:
    """Show rates and CPU of ports and NFs, live.

    Examples:
        onvm top
        onvm top --interval 0.5 --wide
    """
    looks = 0
    with connect(name) as client, _live(look) as show:
        before = client.ask(StatusRequest(), StatusReply)
        while count == 0 or looks < count:
            time.sleep(interval)
            now = client.ask(StatusRequest(), StatusReply)
            show(_rates(before, now))
            before = now
            looks += 1


@contextmanager
def _live(look: TableOptions) -> Iterator[Callable[[RenderableType], None]]:
    """Show one thing after the other: in place on a terminal, otherwise below each other."""
    console = look.console()
    if not console.is_terminal:
        yield lambda what: console.print(what, crop=False, highlight=False)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda what: live.update(what, refresh=True)


def status_tables(reply: StatusReply) -> RenderableType:
    """A status as tables for people."""
    parts: list[RenderableType] = [
        f"manager {reply.name!r} {reply.version}, pid {reply.pid}: {reply.state}, "
        f"up {reply.uptime_s:,.1f} s",
        "",
        chain_table(reply.chains),
        "",
    ]
    states = ("starting", "waiting", "crash-loop")
    failed = [nf for nf in reply.launched if nf.reason or nf.state in states]
    if failed:
        parts += [_failures(failed), ""]
    if reply.peers:
        parts += [_peers(reply), ""]
    parts += [Text(line) for line in reply.warnings]
    parts += [Text(_exporter(one)) for one in reply.exporters if one.problem or one.dropped]
    return Group(*parts, report_tables(reply.report, reply.launched))


def chain_table(chains: list[ChainReply]) -> RenderableType:
    """Chains as a table for people."""
    table = Table(
        "Chains",
        (
            text("name"),
            text("in"),
            text("services", folds=True),
            text("out"),
            text("both ways", 2),
            text("flows", 3),
            text("state", folds=True),
        ),
    )
    for chain in chains:
        table.add(
            chain.name,
            chain.near,
            " → ".join(chain.services) or "-",
            chain.far,
            "yes" if chain.bidirectional else "no",
            "tracked" if chain.track_flows else "not tracked",
            chain.state,
        )
    return table


def _peers(reply: StatusReply) -> RenderableType:
    share = "" if reply.crossing is None else f"; {reply.crossing:.1%} of hops led to another host"
    columns = (
        text("host"),
        text("address", 1),
        text("state", folds=True),
        number("to it"),
        number("from it"),
    )
    table = Table(f"Peers{share}", columns)
    for peer in reply.peers:
        heard = "never" if peer.heard_ms is None else f"{peer.heard_ms:,.0f} ms ago"
        state = "answers" if peer.is_up else f"does not answer, heard {heard}"
        table.add(peer.name, peer.address, state, f"{peer.tx:,}", f"{peer.rx:,}")
    return table


def _exporter(exporter: ExporterReport) -> str:
    if exporter.problem:
        return f"exporter {exporter.name} {exporter.problem}; it gets nothing any more"
    return f"exporter {exporter.name} is slow: {exporter.dropped:,} snapshots left out"


def _failures(failed: list[LaunchedNf]) -> RenderableType:
    lines: list[RenderableType] = [Text("NFs that start, or have failed", style="bold italic")]
    for nf in failed:
        times = f", started again {nf.restarts} times" if nf.restarts else ""
        lines.append(Text(f"{'+'.join(nf.instances)}: {nf.state}{times}. {nf.reason}"))
        lines += [Text(f"    | {line}") for line in nf.log_tail]
    return Group(*lines)


def _rates(before: StatusReply, now: StatusReply) -> RenderableType:
    seconds = max(now.uptime_s - before.uptime_s, 1e-6)
    headings = ("in kpps", "out kpps", "in Mbit/s", "out Mbit/s")
    ports = Table("Ports", (text("port"), *map(number, headings)))
    old_ports = {port.name: port for port in before.report.ports}
    for port in now.report.ports:
        old = old_ports.get(port.name)
        if old is not None:
            ports.add(
                port.name,
                f"{(port.rx - old.rx) / seconds / 1e3:,.1f}",
                f"{(port.tx - old.tx) / seconds / 1e3:,.1f}",
                f"{(port.rx_bytes - old.rx_bytes) * 8 / seconds / 1e6:,.1f}",
                f"{(port.tx_bytes - old.tx_bytes) * 8 / seconds / 1e6:,.1f}",
            )
    nfs = Table(
        "NFs",
        (
            text("instance"),
            text("state"),
            number("kpps"),
            number("drops/s"),
            number("CPU %"),
            number("cycles/pkt", 4),
            *load_columns(),
        ),
    )
    old_nfs = {(nf.instance, nf.pid): nf for nf in before.report.nfs}
    for nf in now.report.nfs:
        was = old_nfs.get((nf.instance, nf.pid))
        if was is not None and not nf.is_gone:
            drops = sum(nf.drops.values()) - sum(was.drops.values())
            used = nf.cpu * now.report.seconds - was.cpu * before.report.seconds
            nfs.add(
                nf.instance,
                nf.state,
                f"{(nf.rx - was.rx) / seconds / 1e3:,.1f}",
                f"{drops / seconds:,.0f}",
                f"{max(used, 0) / seconds * 100:.0f}",
                f"{nf.cycles_per_packet:,.0f}",
                *load_cells(nf),
            )
    buffers = now.report.buffers
    counters = _counter_rates(before, now, seconds)
    return Group(
        ports,
        "",
        nfs,
        "",
        *((counters, "") if counters.rows else ()),
        f"{now.report.flows:,} flows; buffers {buffers.free:,} of {buffers.total:,} free, "
        f"{buffers.with_nfs:,} with NFs",
    )


def _counter_rates(before: StatusReply, now: StatusReply, seconds: float) -> Table:
    """The counters of NFs that move."""
    table = Table("Counters of NFs", (text("instance"), text("counter"), number("per second")))
    old = {(nf.instance, nf.pid): nf.counters for nf in before.report.nfs}
    for nf in now.report.nfs:
        was = old.get((nf.instance, nf.pid), {})
        for name, count in nf.counters.items():
            if count != was.get(name, 0):
                table.add(nf.instance, name, f"{(count - was.get(name, 0)) / seconds:,.0f}")
    return table
