"""A report as tables for people."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from onvm_core.cli.output import make_console, make_table
from onvm_core.export.report import GeneratorReport, NfReport, Report

__all__ = ["LOAD_HEADINGS", "load_cells", "print_report", "report_tables"]

LOAD_HEADINGS = ("util %", "spare kpps")


def print_report(report: Report, *, to_stderr: bool = False) -> None:
    """Print the tables on stdout, or on stderr if that carries packets."""
    make_console(to_stderr=to_stderr).print(report_tables(report))


def report_tables(report: Report) -> Group:
    """Ports, NFs, and a line of totals."""
    drops = sum(report.drops.values())
    inside = report.rx + report.originated - report.tx - drops
    totals = (
        f"{report.rx:,} received + {report.originated:,} originated = "
        f"{report.tx:,} sent + {drops:,} dropped"
        + (f" + {inside:,} inside" if inside else "")
        + f" in {report.seconds:.2f} s ({report.mpps:.2f} Mpps); "
        f"buffers {report.buffers.free:,} of {report.buffers.total:,} free"
    )
    for one in report.buffers.nodes if len(report.buffers.nodes) > 1 else ():
        totals += f"\n  NUMA node {one.node}: {one.free:,} of {one.total:,} free"
        totals += f" ({one.problem})" if one.problem else ""
    for port in report.ports:
        if port.lost:
            lost = ", ".join(f"{count:,} {name}" for name, count in port.lost.items())
            totals += f"\n  of these dropped at port {port.name}: {lost}"
    parts: list[object] = [_ports(report), "", _nfs(report), ""]
    for generator in report.generators:
        parts += [_connections(generator), ""]
    if report.drops:
        parts += [_drops(report), ""]
    return Group(*parts, totals)  # type: ignore[arg-type]


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _ports(report: Report) -> Table:
    table = make_table(
        "Ports",
        ("port", "uri"),
        ("received", "sent", "Mpps", "MB in", "MB out", "p50 µs", "p99 µs"),
    )
    for port in report.ports:
        table.add_row(
            port.name,
            (port.uri if len(port.uri) <= 36 else port.uri[:35] + "…")
            + ("" if port.state == "up" else f" {port.state}"),
            f"{port.rx:,}",
            f"{port.tx:,}",
            f"{port.mpps:.2f}",
            f"{port.rx_bytes / 1e6:,.1f}",
            f"{port.tx_bytes / 1e6:,.1f}",
            _us(port.latency.p50_us),
            _us(port.latency.p99_us),
        )
    return table


def _nfs(report: Report) -> Table:
    table = make_table(
        "NFs",
        ("instance", "state"),
        (
            "received",
            "sent",
            "made",
            "dropped",
            "Mpps",
            "p50 µs",
            "p99 µs",
            "CPU %",
            "cycles/pkt",
            *LOAD_HEADINGS,
        ),
    )
    for nf in report.nfs:
        table.add_row(
            nf.instance,
            nf.state,
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
        )
    return table


def load_cells(nf: NfReport) -> tuple[str, str]:
    """Utilisation and spare capacity of an instance, as `LOAD_HEADINGS` say."""
    if nf.load is None:
        return "-", "-"
    spare = nf.load.spare_pps
    return f"{nf.load.utilisation * 100:.0f}", "-" if spare is None else f"{spare / 1e3:,.1f}"


def _drops(report: Report) -> Table:
    table = make_table("Drops", ("reason",), ("packets", "share of received"))
    for reason, count in sorted(report.drops.items(), key=lambda item: -item[1]):
        table.add_row(reason, f"{count:,}", f"{100 * count / max(report.rx, 1):.2f} %")
    return table


def _connections(generator: GeneratorReport) -> Table:
    table = make_table(
        "Connections",
        ("client",),
        (
            "opened",
            "completed",
            "failed",
            "requests",
            "replies",
            "lost",
            "bad checksum",
            "bad payload",
            "out of order",
            "RTT p50 µs",
            "p99 µs",
        ),
    )
    table.add_row(
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
