"""``onvm status`` and ``onvm top``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from onvm_core.cli.manager.connect import connect
from onvm_core.cli.manager.report import LOAD_HEADINGS, load_cells, report_tables
from onvm_core.cli.options import JsonOption, NameOption
from onvm_core.cli.output import make_console, make_table, print_json
from onvm_core.export.runner import ExporterReport
from onvm_core.manager.api.messages import ChainReply, LaunchedNf, StatusReply, StatusRequest

__all__ = ["chain_table", "status", "status_tables", "top"]

Interval = Annotated[
    float, typer.Option(min=0.1, max=3600, metavar="S", help="Seconds between two readings.")
]


def status(
    name: NameOption = "main",
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until Ctrl-C.")] = False,
    interval: Interval = 1.0,
) -> None:
    """Show a manager: state, ports, chains, NFs, drops and buffers."""
    with connect(name) as client:
        if not watch:
            reply = client.ask(StatusRequest(), StatusReply)
            if as_json:
                print_json(reply)
            else:
                make_console().print(status_tables(reply))
            return
        with _show() as show:
            while True:
                reply = client.ask(StatusRequest(), StatusReply)
                if as_json:
                    print(msgspec.json.encode(reply).decode(), flush=True)
                else:
                    show(status_tables(reply))
                time.sleep(interval)


def top(
    name: NameOption = "main",
    interval: Interval = 1.0,
    count: Annotated[
        int, typer.Option(min=0, metavar="N", help="Number of readings; 0 for no limit.")
    ] = 0,
) -> None:
    """Show rates and CPU of ports and NFs, live."""
    looks = 0
    with connect(name) as client, _show() as show:
        before = client.ask(StatusRequest(), StatusReply)
        while count == 0 or looks < count:
            time.sleep(interval)
            now = client.ask(StatusRequest(), StatusReply)
            show(_rates(before, now))
            before = now
            looks += 1


@contextmanager
def _show() -> Iterator[Callable[[RenderableType], None]]:
    """Show one thing after the other: in place on a terminal, otherwise below each other."""
    console = make_console()
    if not console.is_terminal:
        yield console.print
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
    failed = [nf for nf in reply.launched if nf.reason or nf.state in ("starting", "waiting")]
    if failed:
        parts += [_failures(failed), ""]
    if reply.peers:
        parts += [_peers(reply), ""]
    parts += [Text(line) for line in reply.warnings]
    parts += [Text(_exporter(one)) for one in reply.exporters if one.problem or one.dropped]
    return Group(*parts, report_tables(reply.report))


def chain_table(chains: list[ChainReply]) -> RenderableType:
    """Chains as a table for people."""
    table = make_table(
        "Chains", ("name", "in", "services", "out", "both ways", "flows", "state"), ()
    )
    for chain in chains:
        table.add_row(
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
    table = make_table(f"Peers{share}", ("host", "address", "state"), ("to it", "from it"))
    for peer in reply.peers:
        heard = "never" if peer.heard_ms is None else f"{peer.heard_ms:,.0f} ms ago"
        state = "answers" if peer.is_up else f"does not answer, heard {heard}"
        table.add_row(peer.name, peer.address, state, f"{peer.tx:,}", f"{peer.rx:,}")
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
    ports = make_table("Ports", ("port",), ("in kpps", "out kpps", "in Mbit/s", "out Mbit/s"))
    old_ports = {port.name: port for port in before.report.ports}
    for port in now.report.ports:
        old = old_ports.get(port.name)
        if old is not None:
            ports.add_row(
                port.name,
                f"{(port.rx - old.rx) / seconds / 1e3:,.1f}",
                f"{(port.tx - old.tx) / seconds / 1e3:,.1f}",
                f"{(port.rx_bytes - old.rx_bytes) * 8 / seconds / 1e6:,.1f}",
                f"{(port.tx_bytes - old.tx_bytes) * 8 / seconds / 1e6:,.1f}",
            )
    columns = ("kpps", "drops/s", "CPU %", "cycles/pkt", *LOAD_HEADINGS)
    nfs = make_table("NFs", ("instance", "state"), columns)
    old_nfs = {(nf.instance, nf.pid): nf for nf in before.report.nfs}
    for nf in now.report.nfs:
        was = old_nfs.get((nf.instance, nf.pid))
        if was is not None and nf.state != "dead":
            drops = sum(nf.drops.values()) - sum(was.drops.values())
            used = nf.cpu * now.report.seconds - was.cpu * before.report.seconds
            nfs.add_row(
                nf.instance,
                nf.state,
                f"{(nf.rx - was.rx) / seconds / 1e3:,.1f}",
                f"{drops / seconds:,.0f}",
                f"{max(used, 0) / seconds * 100:.0f}",
                f"{nf.cycles_per_packet:,.0f}",
                *load_cells(nf),
            )
    buffers = now.report.buffers
    return Group(
        ports,
        "",
        nfs,
        "",
        f"{now.report.flows:,} flows; buffers {buffers.free:,} of {buffers.total:,} free, "
        f"{buffers.with_nfs:,} with NFs",
    )
