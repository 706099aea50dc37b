"""``onvm nf show`` and ``onvm nf kill``."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
import typer

from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import JsonOption, NameOption
from onvm_core.cli.output import print_json, print_table
from onvm_core.manager.api.client import Client
from onvm_core.manager.api.question_messages import (
    ENTRIES_MAX,
    InstanceAnswer,
    ListMoreRequest,
    ListRequest,
    QuestionReply,
)
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["kill", "show"]

TIMEOUT_S = 120.0
POLL_S = 0.02

_Service = Annotated[
    str, typer.Argument(metavar="SERVICE", help="A service, or one of its instances.")
]
_Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="FIELD=VALUE",
        help="Only entries with that value, or with an address of that network; repeatable.",
        show_default="all entries",
    ),
]


def show(
    service: _Service,
    what: Annotated[
        str,
        typer.Argument(
            metavar="LIST", help="The list.", show_default="a list of the lists there are"
        ),
    ] = "",
    where: _Where = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", min=1, max=ENTRIES_MAX, metavar="N", help="Entries of each instance."
        ),
    ] = 100,
    skip: Annotated[
        int, typer.Option("--skip", min=0, metavar="N", help="Entries to leave out before.")
    ] = 0,
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Show what running NFs hold, such as connections and mappings.

    Entries are collected between bursts, so packets do not wait for them.
    """
    request = ListRequest(name=service, list=what, where=_filters(where), first=skip, limit=limit)
    with connect(name) as client:
        answers = _answers(client, request)
    if as_json:
        print_json(msgspec.to_builtins(answers))
    else:
        _print(answers, what)
    _fail(answers)


def kill(
    service: _Service,
    what: Annotated[str, typer.Argument(metavar="LIST", help="The list.")],
    where: _Where = None,
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Remove entries of running NFs, such as connections.

    At least one --where says which.
    """
    if not where:
        raise ConfigError("expected FIELD=VALUE", field="--where")
    with connect(name) as client:
        answers = _answers(
            client, ListRequest(name=service, list=what, where=_filters(where), kills=True)
        )
    if as_json:
        print_json(msgspec.to_builtins(answers))
    else:
        for answer in answers:
            if not answer.error:
                print(f"{answer.instance}: {answer.killed} removed")
    _fail(answers)


def _filters(where: list[str] | None) -> dict[str, str]:
    filters: dict[str, str] = {}
    for text in where or ():
        field, equals, value = text.partition("=")
        if not field or not equals:
            raise ConfigError("expected FIELD=VALUE", field="--where", value=text)
        filters[field] = value
    return filters


def _answers(client: Client, request: ListRequest) -> list[InstanceAnswer]:
    reply = client.ask(request, QuestionReply)
    deadline = time.monotonic() + TIMEOUT_S
    while not reply.is_over:
        if time.monotonic() > deadline:
            raise OnvmError(f"{request.name}: no answer within {TIMEOUT_S:g} s")
        time.sleep(POLL_S)
        reply = client.ask(ListMoreRequest(number=reply.number), QuestionReply)
    return reply.answers


def _print(answers: list[InstanceAnswer], what: str) -> None:
    several = len(answers) > 1
    for answer in answers:
        if several:
            print(f"{answer.instance}:")
        if not what:
            rows = [{"list": name, "what": line} for name, line in answer.lists.items()]
            print_table(rows, {"list": "List", "what": "What"})
        elif answer.entries:
            print_table(answer.entries, {name: name for name in answer.entries[0]})
        elif not answer.error:
            print("nothing")
        if answer.has_more:
            print("and more; see --limit, --skip, --where")


def _fail(answers: list[InstanceAnswer]) -> None:
    for answer in answers:
        if answer.error:
            raise ConfigError(answer.error, field=answer.instance)
