"""``onvm send``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli.manager.connect import NameOption, connect
from onvm_core.manager.messages import DoneReply, SendRequest

__all__ = ["send"]


def send(
    instance: Annotated[str, typer.Argument(help="An instance; or a service: all of it.")],
    message: Annotated[str, typer.Argument(help="Text for its on_message.")],
    name: NameOption = "main",
) -> None:
    """Send a message to a running NF."""
    with connect(name) as client:
        reply = client.ask(SendRequest(name=instance, message=message), DoneReply)
    print(f"sent to {reply.count} instance{'s' if reply.count != 1 else ''}")
