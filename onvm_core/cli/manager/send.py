"""``onvm send``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli import names
from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import NameOption
from onvm_core.manager.api.messages import DoneReply, SendRequest

__all__ = ["send"]


def send(
    instance: Annotated[
        str,
        typer.Argument(
            metavar="INSTANCE",
            help="An instance, or a service for all its instances.",
            autocompletion=names.instances,
        ),
    ],
    message: Annotated[str, typer.Argument(metavar="TEXT", help="Message for its on_message.")],
    name: NameOption = "main",
) -> None:
    """Send a message to a running NF.

    Examples:
        onvm send counter-1 reset
    """
    with connect(name) as client:
        reply = client.ask(SendRequest(name=instance, message=message), DoneReply)
    print(f"sent to {reply.count} instance{'s' if reply.count != 1 else ''}")
