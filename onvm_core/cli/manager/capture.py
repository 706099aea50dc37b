"""``onvm capture``: packets of a running manager, as pcapng."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from onvm_core.cli import names
from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import FilterOption, JsonOption, NameOption
from onvm_core.cli.output import print_json
from onvm_core.cli.signals import stop_on_signals
from onvm_core.manager.api.messages import (
    CaptureReadRequest,
    CaptureReply,
    CaptureStartRequest,
    CaptureStopRequest,
)

__all__ = ["capture"]

LOOK_S = 0.1


def capture(
    point: Annotated[
        str,
        typer.Argument(
            metavar="PORT|INSTANCE|SERVICE",
            help="Where to capture packets.",
            autocompletion=names.points,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The pcapng file; replaced if it exists."
        ),
    ],
    count: Annotated[
        int, typer.Option("--count", min=0, metavar="N", help="Packets to capture; 0 for no limit.")
    ] = 0,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            min=0.001,
            metavar="S",
            help="Seconds to capture.",
            show_default="no limit",
        ),
    ] = None,
    snap: Annotated[
        int,
        typer.Option("--snap", min=0, metavar="N", help="Bytes to keep of each packet; 0 for all."),
    ] = 0,
    direction: Annotated[
        Literal["in", "out", "both"],
        typer.Option("--direction", help="Packets that enter it, leave it, or both."),
    ] = "both",
    filter_text: FilterOption = "",
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Capture packets at a port or an NF into a pcapng file.

    It ends after --count packets or --duration seconds, or with Ctrl-C. Workers never wait for
    it; packets that could not be copied are counted as overflow.

    Examples:
        onvm capture lan -o lan.pcapng --duration 10
        onvm capture lan -o dns.pcapng --filter 'udp port 53'
        onvm capture nat-1 -o nat.pcapng --direction out --count 1000
    """
    with connect(name) as client, stop_on_signals() as received:
        reply = client.ask(
            CaptureStartRequest(
                name=point,
                path=str(output.absolute()),
                limit=count,
                snap_length=snap,
                direction=direction,
                filter=filter_text,
            ),
            CaptureReply,
        )
        begin = time.monotonic()
        try:
            while not reply.is_full and not received:
                if duration is not None and time.monotonic() - begin >= duration:
                    break
                time.sleep(LOOK_S)
                reply = client.ask(CaptureReadRequest(number=reply.number), CaptureReply)
        finally:
            reply = client.ask(CaptureStopRequest(number=reply.number), CaptureReply)
    if as_json:
        print_json(reply)
        return
    lost = f", {reply.overflow:,} not copied" if reply.overflow else ""
    print(f"{reply.written:,} packets at {', '.join(reply.points)} in {output}{lost}")
