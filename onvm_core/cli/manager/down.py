"""``onvm down``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli.manager.connect import connect
from onvm_core.cli.manager.report import report_tables
from onvm_core.cli.options import NameOption, with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.manager.api.messages import DownReply, DownRequest
from onvm_sdk.errors import OnvmError

__all__ = ["down"]

TIMEOUT_S = 20.0


@with_option_groups
def down(
    name: NameOption = "main",
    keep_nfs: Annotated[
        bool,
        typer.Option("--keep-nfs", help="Leave the NFs, with their state, to the next manager."),
    ] = False,
    *,
    output: OutputOptions,
) -> None:
    """Let a manager and its NFs finish, and print the last counters.

    Examples:
        onvm down
        onvm down --name edge --keep-nfs
    """
    with connect(name) as client:
        reply = client.ask(DownRequest(keep_nfs=keep_nfs), DownReply, TIMEOUT_S)
        if not client.process.wait(TIMEOUT_S):
            raise OnvmError(f"manager {name!r} (pid {client.process.pid}) does not end")
    output.show(reply, lambda: report_tables(reply.report))
