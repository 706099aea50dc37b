"""``onvm capture``: packets of a running manager, as pcapng."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from onvm_core.cli.manager.connect import JsonOption, NameOption, connect
from onvm_core.cli.output import print_json
from onvm_core.cli.signals import stop_on_signals
from onvm_core.manager.messages import (
    CaptureReadRequest,
    CaptureReply,
    CaptureStartRequest,
    CaptureStopRequest,
)

__all__ = ["capture"]

LOOK_S = 0.1


def capture(
    point: Annotated[
        str, typer.Argument(metavar="PORT|INSTANCE|SERVICE", help="Where packets pass.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Made anew.")],
    count: Annotated[int, typer.Option("--count", min=0, help="Packets; 0: endless.")] = 0,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.001, help="Seconds.")
    ] = None,
    snap: Annotated[int, typer.Option("--snap", min=0, help="Bytes of each; 0: all.")] = 0,
    direction: Annotated[
        Literal["in", "out", "both"],
        typer.Option("--direction", help="Received by it (in) or coming from it (out)."),
    ] = "both",
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Capture packets at a port or an NF while traffic runs, into a pcapng file.

    It ends after --count packets or --duration seconds, or with Ctrl-C. Workers never wait for
    it; what could not be copied is counted as overflow.
    """
    with connect(name) as client, stop_on_signals() as received:
        reply = client.ask(
            CaptureStartRequest(
                name=point,
                path=str(output.absolute()),
                limit=count,
                snap_length=snap,
                direction=direction,
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
