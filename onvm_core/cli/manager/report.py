"""A report as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group

from onvm_core.cli.table import Column, Table, make_console, number, text
from onvm_core.export.report import GeneratorReport, NfReport, Report
from onvm_core.manager.api.messages import LaunchedNf

__all__ = ["load_cells", "load_columns", "print_report", "report_tables"]


def load_columns() -> tuple[Column, ...]:
    """The columns for `load_cells`."""
    return number("util %", 1), number("spare kpps", 3)


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the tables; None: on stdout."""
    (console or make_console()).print(report_tables(report), crop=False, highlight=False)


def report_tables(report: Report, launched: Sequence[LaunchedNf] = ()) -> Group:
    """Ports, NFs with their counters, drops, and a line of totals.

    Args:
        launched: the NF hosts that a manager supervises, which it starts again.
    """
    drops = sum(report.drops.values())
    inside = report.rx + report.originated - report.tx - drops
    totals = (
        f"{report.rx:,} received + {report.originated:,} originated = "
        f"{report.tx:,} sent + {drops:,} dropped"
        + (f" + {inside:,} inside" if inside else "")
        + f" in {report.seconds:.2f} s ({report.mpps:.2f} Mpps)\n"
        f"buffers {report.buffers.free:,} of {report.buffers.total:,} free"
    )
    for one in report.buffers.nodes if len(report.buffers.nodes) > 1 else ():
        totals += f"\n  NUMA node {one.node}: {one.free:,} of {one.total:,} free"
        totals += f" ({one.problem})" if one.problem else ""
    for port in report.ports:
        if port.lost:
            lost = ", ".join(f"{count:,} {name}" for name, count in port.lost.items())
            totals += f"\n  of these dropped at port {port.name}: {lost}"
    parts: list[object] = [_ports(report), "", _nfs(report, launched), ""]
    counters = _counters(report)
    if counters.rows:
        parts += [counters, ""]
    for generator in report.generators:
        parts += [_connections(generator), ""]
    if report.drops:
        parts += [_drops(report), ""]
    return Group(*parts, totals)  # type: ignore[arg-type]


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _ports(report: Report) -> Table:
    table = Table(
        "Ports",
        (
            text("port"),
            text("uri", 1, folds=True),
            number("received"),
            number("sent"),
            number("Mpps", 1),
            number("MB in", 5),
            number("MB out", 5),
            number("p50 µs", 4),
            number("p99 µs", 3),
        ),
    )
    for port in report.ports:
        table.add(
            port.name + ("" if port.state == "up" else f" {port.state}"),
            port.uri,
            f"{port.rx:,}",
            f"{port.tx:,}",
            f"{port.mpps:.2f}",
            f"{port.rx_bytes / 1e6:,.1f}",
            f"{port.tx_bytes / 1e6:,.1f}",
            _us(port.latency.p50_us),
            _us(port.latency.p99_us),
        )
    return table


def _nfs(report: Report, launched: Sequence[LaunchedNf]) -> Table:
    """A row for each instance; one that was stopped, or runs again, is not shown as gone."""
    supervised = {name: host for host in launched for name in host.instances}
    has_restarts = any(host.restarts for host in launched)
    living = {nf.instance for nf in report.nfs if not nf.is_gone}
    shown = [
        nf
        for nf in report.nfs
        if not nf.is_gone or (nf.state == "crashed" and nf.instance not in living)
    ]
    table = Table(
        "NFs",
        (
            text("instance"),
            text("state"),
            number("received"),
            number("sent"),
            number("made", 4),
            number("dropped"),
            number("Mpps", 3),
            number("p50 µs", 5),
            number("p99 µs", 2),
            number("CPU %", 1),
            number("cycles/pkt", 6),
            *load_columns(),
            *((number("restarts"),) if has_restarts else ()),
        ),
    )
    for nf in shown:
        host = supervised.get(nf.instance)
        is_failing = host is not None and host.state in ("waiting", "crash-loop")
        table.add(
            nf.instance,
            host.state if host is not None and is_failing else nf.state,
            f"{nf.rx:,}",
            f"{nf.tx:,}",
            f"{nf.originated:,}",
            f"{sum(nf.drops.values()):,}",
            f"{nf.rx / report.seconds / 1e6:.2f}",
            _us(nf.latency.p50_us),
            _us(nf.latency.p99_us),
            f"{nf.cpu * 100:.0f}",
            f"{nf.cycles_per_packet:,.0f}",
            *load_cells(nf),
            *((str(host.restarts) if host is not None else "-",) if has_restarts else ()),
        )
    return table


def _counters(report: Report) -> Table:
    """The counters that NFs keep themselves, without those that are 0."""
    table = Table("Counters of NFs", (text("instance"), text("counter"), number("count")))
    return table.add_all(
        (nf.instance, name, f"{count:,}")
        for nf in report.nfs
        if not nf.is_gone
        for name, count in nf.counters.items()
        if count
    )


def load_cells(nf: NfReport) -> tuple[str, str]:
    """Utilisation and spare capacity of an instance, as `load_columns` say."""
    if nf.load is None:
        return "-", "-"
    spare = nf.load.spare_pps
    return f"{nf.load.utilisation * 100:.0f}", "-" if spare is None else f"{spare / 1e3:,.1f}"


def _drops(report: Report) -> Table:
    table = Table("Drops", (text("reason"), number("packets"), number("of received", 1)))
    for reason, count in sorted(report.drops.items(), key=lambda item: -item[1]):
        table.add(reason, f"{count:,}", f"{100 * count / max(report.rx, 1):.2f} %")
    return table


def _connections(generator: GeneratorReport) -> Table:
    table = Table(
        "Connections",
        (
            text("client"),
            number("opened"),
            number("completed"),
            number("failed"),
            number("requests", 3),
            number("replies", 3),
            number("lost"),
            number("bad checksum", 1),
            number("bad payload", 1),
            number("out of order", 1),
            number("RTT p50 µs", 4),
            number("p99 µs", 2),
        ),
    )
    table.add(
        generator.port,
        f"{generator.opened:,}",
        f"{generator.completed:,}",
        f"{generator.failed:,}",
        f"{generator.requests:,}",
        f"{generator.replies:,}",
        f"{generator.lost:,}",
        f"{generator.bad_checksum:,}",
        f"{generator.bad_payload:,}",
        f"{generator.out_of_order:,}",
        _us(generator.rtt.p50_us),
        _us(generator.rtt.p99_us),
    )
    return table
