"""``onvm send``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from onvm_core.cli import names
from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import JsonOption, NameOption
from onvm_core.cli.output import print_json
from onvm_core.manager.api.client import Client
from onvm_core.manager.api.messages import AnswersReply, AnswersRequest, AskedReply, AskRequest
from onvm_sdk.errors import OnvmError

__all__ = ["send"]

POLL_S = 0.005
POLL_MAX_S = 0.1


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
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, metavar="S", help="Seconds to wait for replies.")
    ] = 2.0,
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Send a message to a running NF, and print its reply.

    It ends with status 1 if an instance has not read the message in time.

    Examples:
        onvm send counter-1 reset
    """
    with connect(name) as client:
        asked = client.ask(AskRequest(name=instance, message=message), AskedReply)
        reply = _wait(client, asked.question, timeout)
    if as_json:
        print_json({"replies": reply.answers, "waiting": reply.waiting})
    else:
        for one, text in sorted(reply.answers.items()):
            if text is not None:
                print(text if asked.count == 1 else f"{one}: {text}")
        if not any(text is not None for text in reply.answers.values()):
            print(f"sent to {asked.count} instance{'s' if asked.count != 1 else ''}")
    if reply.waiting and timeout:
        raise OnvmError(f"no answer within {timeout:g} s: {', '.join(reply.waiting)}")


def _wait(client: Client, question: int, timeout_s: float) -> AnswersReply:
    deadline, pause_s = time.monotonic() + timeout_s, POLL_S
    while True:
        reply = client.ask(AnswersRequest(question=question), AnswersReply)
        if not reply.waiting or time.monotonic() >= deadline:
            return reply
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, POLL_MAX_S)
