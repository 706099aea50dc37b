"""``onvm down``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli.manager.connect import connect
from onvm_core.cli.manager.report import print_report
from onvm_core.cli.options import JsonOption, NameOption
from onvm_core.cli.output import print_json
from onvm_core.manager.api.messages import DownReply, DownRequest
from onvm_sdk.errors import OnvmError

__all__ = ["down"]

TIMEOUT_S = 20.0


def down(
    name: NameOption = "main",
    keep_nfs: Annotated[
        bool,
        typer.Option("--keep-nfs", help="Leave the NFs, with their state, to the next manager."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Let a manager and its NFs finish, and print the last counters."""
    with connect(name) as client:
        reply = client.ask(DownRequest(keep_nfs=keep_nfs), DownReply, TIMEOUT_S)
        if not client.process.wait(TIMEOUT_S):
            raise OnvmError(f"manager {name!r} (pid {client.process.pid}) does not end")
    if as_json:
        print_json(reply)
    else:
        print_report(reply.report)
