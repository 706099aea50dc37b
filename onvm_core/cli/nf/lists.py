"""``onvm nf show`` and ``onvm nf kill``."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from onvm_core.cli import names
from onvm_core.cli.manager.connect import connect
from onvm_core.cli.options import NameOption, with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.cli.table import Column, number, table_of, text
from onvm_core.manager.api.client import Client
from onvm_core.manager.api.question_messages import (
    ENTRIES_MAX,
    Entry,
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
    str,
    typer.Argument(
        metavar="SERVICE",
        help="A service, or one of its instances.",
        autocompletion=names.instances,
    ),
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


@with_option_groups
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
    *,
    output: OutputOptions,
) -> None:
    """Show what running NFs hold, such as connections and mappings.

    Entries are collected between bursts, so packets do not wait for them.

    Examples:
        onvm nf show firewall
        onvm nf show firewall connections --where source=10.0.0.0/8 --limit 20
    """
    request = ListRequest(name=service, list=what, where=_filters(where), first=skip, limit=limit)
    with connect(name) as client:
        answers = _answers(client, request)
    output.show(answers, lambda: _tables(answers, what))
    _fail(answers)


@with_option_groups
def kill(
    service: _Service,
    what: Annotated[str, typer.Argument(metavar="LIST", help="The list.")],
    where: _Where = None,
    name: NameOption = "main",
    *,
    output: OutputOptions,
) -> None:
    """Remove entries of running NFs, such as connections.

    At least one --where says which.

    Examples:
        onvm nf kill firewall connections --where source=10.0.0.5
    """
    if not where:
        raise ConfigError("expected FIELD=VALUE", field="--where")
    with connect(name) as client:
        answers = _answers(
            client, ListRequest(name=service, list=what, where=_filters(where), kills=True)
        )
    done = [one for one in answers if not one.error]
    output.show(answers, lambda: "\n".join(f"{one.instance}: {one.killed} removed" for one in done))
    _fail(answers)


def _filters(where: list[str] | None) -> dict[str, str]:
    filters: dict[str, str] = {}
    for given in where or ():
        field, equals, value = given.partition("=")
        if not field or not equals:
            raise ConfigError("expected FIELD=VALUE", field="--where", value=given)
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


def _tables(answers: list[InstanceAnswer], what: str) -> RenderableType:
    parts: list[RenderableType] = []
    for answer in answers:
        title = answer.instance if len(answers) > 1 else ""
        if not what:
            rows = [{"list": name, "what": line} for name, line in answer.lists.items()]
            columns = {"list": text("list"), "what": text("what", folds=True)}
            parts.append(table_of(title, rows, columns))
        elif answer.entries:
            parts.append(table_of(title, answer.entries, _columns(answer.entries[0])))
        elif not answer.error:
            parts.append(f"{title}: nothing" if title else "nothing")
        if answer.has_more:
            parts.append("and more; see --limit, --skip, --where")
    return Group(*parts)


def _columns(entry: Entry) -> dict[str, Column]:
    """A column for each field; the last ones are left out first."""
    return {
        name: number(name, rank) if type(value) in (int, float) else text(name, rank)
        for rank, (name, value) in enumerate(entry.items())
    }


def _fail(answers: list[InstanceAnswer]) -> None:
    for answer in answers:
        if answer.error:
            raise ConfigError(answer.error, field=answer.instance)
