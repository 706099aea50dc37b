"""``onvm trace``: packets on their way through a chain, hop by hop."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import NameOption, with_option_groups
from onvm_core.cli.output import OutputFile, OutputOptions
from onvm_core.cli.signals import stop_on_signals
from onvm_core.cli.table import Table, number, text
from onvm_core.manager.api.client import Client
from onvm_core.manager.api.directory import manager_directory
from onvm_core.manager.api.messages import (
    CaptureReadRequest,
    CaptureReply,
    CaptureStartRequest,
    CaptureStopRequest,
)
from onvm_core.manager.captures.pcapng import read_sights
from onvm_core.manager.captures.perfetto import perfetto_trace
from onvm_core.manager.captures.trace import TracedPacket, traces_of

__all__ = ["trace"]

LOOK_S = 0.05
REST_S = 0.3
"""Time for the last packets to leave."""


@with_option_groups
def trace(
    filter_text: Annotated[
        str,
        typer.Argument(
            metavar="FILTER",
            help="Packets to follow, as in pcap-filter(7), when they come in.",
            show_default="all",
        ),
    ] = "",
    count: Annotated[
        int, typer.Option("--count", min=1, max=100_000, metavar="N", help="Packets to follow.")
    ] = 1,
    duration: Annotated[
        float,
        typer.Option("--duration", min=0.001, metavar="S", help="Seconds to wait for them."),
    ] = 10.0,
    pcapng: Annotated[
        Path | None,
        typer.Option(
            "--pcapng",
            metavar="FILE",
            help="Keep the packets, as they were at each point.",
            show_default="none",
        ),
    ] = None,
    perfetto: Annotated[
        Path | None,
        typer.Option(
            "--perfetto",
            metavar="FILE",
            help="Write the ways as a trace for ui.perfetto.dev.",
            show_default="none",
        ),
    ] = None,
    name: NameOption = "main",
    *,
    output: OutputOptions,
) -> None:
    """Follow packets: time, verdict and changes at each hop.

    Packets are chosen where they come in by a port, and followed until they leave, even if NFs
    change them. Workers never wait for it. Exit status 1: no packet came.

    Examples:
        onvm trace
        onvm trace 'tcp port 443 and host 10.0.0.5' --count 3
        onvm trace udp --count 100 --pcapng way.pcapng -o json
        onvm trace --count 50 --perfetto way.json
    """
    with (
        connect(name) as client,
        tempfile.TemporaryDirectory(dir=manager_directory(name), prefix="trace-") as folder,
    ):
        file = Path(folder) / "trace.pcapng"
        reply = _follow(client, file, filter_text, count, duration)
        assert reply.names is not None
        traced = traces_of(read_sights(file), reply.names)
        if pcapng is not None:
            with OutputFile(pcapng, "--pcapng") as kept:
                kept.write(file.read_bytes())
        if perfetto is not None:
            with OutputFile(perfetto, "--perfetto") as kept:
                kept.write(msgspec.json.encode(perfetto_trace(traced)))
    output.show(traced, lambda: _pages(traced))
    if not traced:
        raise typer.Exit(1)


def _follow(
    client: Client, file: Path, filter_text: str, count: int, duration_s: float
) -> CaptureReply:
    """Capture until enough packets have gone their way; return the reply with the names."""
    request = CaptureStartRequest(path=str(file), filter=filter_text, follow=count)
    begun = client.ask(request, CaptureReply)
    deadline = time.monotonic() + duration_s
    try:
        with stop_on_signals() as received:
            now = begun
            while now.followed < count and not received and time.monotonic() < deadline:
                time.sleep(LOOK_S)
                now = client.ask(CaptureReadRequest(number=begun.number), CaptureReply)
            if now.followed:
                time.sleep(REST_S)
    finally:
        client.ask(CaptureStopRequest(number=begun.number), CaptureReply)
    return begun


def _pages(traced: list[TracedPacket]) -> RenderableType:
    parts: list[RenderableType] = []
    for packet in traced:
        table = Table(
            "", (number("µs"), text("point"), text("verdict"), text("changes", folds=True))
        )
        for hop in packet.hops:
            table.add(f"{hop.at_us:,.1f}", hop.point, hop.what, "; ".join(hop.changes))
        parts += [Text(f"packet {packet.number}: {packet.summary}", "bold"), table]
        if packet.end == "unknown":
            parts.append("not seen again: dropped by the manager (onvm status), or still inside")
        parts.append("")
    return Group(*parts) if traced else "no packet came that the filter chooses"
