"""``onvm logs`` and ``onvm events``: what has happened in a manager, and happens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from onvm_core.cli import names
from onvm_core.cli.manager.connect import connect
from onvm_core.cli.manager.nf_output import NfOutput, log_lines
from onvm_core.cli.options import NameOption, with_option_groups
from onvm_core.cli.output import Form, OutputOptions, TableOptions
from onvm_core.cli.signals import stop_on_signals
from onvm_core.cli.table import Table, table_of, text
from onvm_core.manager.api.directory import manager_directory
from onvm_core.manager.api.messages import (
    ChainEvent,
    EventsReply,
    EventsRequest,
    NfEvent,
    TimedEvent,
)
from onvm_sdk.errors import ConfigError

__all__ = ["events", "logs"]

POLL_S = 0.1


@with_option_groups
def logs(
    instance: Annotated[
        str | None,
        typer.Argument(
            metavar="INSTANCE",
            help="An instance, or manager for the manager's own log.",
            show_default="all",
            autocompletion=names.instances,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, metavar="N", help="Lines of each; 0 for all.")
    ] = 20,
    name: NameOption = "main",
    *,
    look: TableOptions,
) -> None:
    """Show what NFs print and log, and the log of a detached manager.

    It also shows what NFs have written that have ended.

    Examples:
        onvm logs
        onvm logs firewall-1 -f
        onvm logs manager -n 0
    """
    folder = manager_directory(name) / "logs"
    paths = sorted(folder.glob("*.log"))
    chosen = [path for path in paths if instance is None or instance in _instances(path)]
    if not chosen:
        known = ", ".join(path.stem for path in paths) or "none"
        raise ConfigError(
            f"expected an instance with a log ({known})", field="logs", value=instance
        )
    shown = frozenset(path.stem for path in chosen) if instance is not None else frozenset()
    output = NfOutput(folder, look.console(), is_from_end=True, names=shown)
    for path in chosen:
        for line in log_lines(path, lines):
            output.show(path.stem, line)
    if follow:
        with stop_on_signals() as received:
            while not received:
                output.turn()
                time.sleep(POLL_S)


def _instances(path: Path) -> set[str]:
    return {path.stem, *path.stem.split("+")}


@with_option_groups
def events(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")
    ] = False,
    name: NameOption = "main",
    *,
    output: OutputOptions,
) -> None:
    """Show what has happened: NFs that came and went, chains that changed.

    A manager keeps the last events. With --follow and JSON each event is one line.

    Examples:
        onvm events
        onvm events -f -o json
    """
    with connect(name) as client, stop_on_signals() as received:
        reply = client.ask(EventsRequest(), EventsReply)
        if not follow:
            output.show(reply.events, lambda: _table(reply.events))
            return
        while not received:
            for event in reply.events:
                if output.chosen is Form.JSON:
                    print(msgspec.json.encode(event).decode(), flush=True)
                else:
                    print("  ".join(cell for cell in _row(event).values() if cell), flush=True)
            time.sleep(POLL_S)
            reply = client.ask(EventsRequest(after=reply.last), EventsReply)


def _table(shown: list[TimedEvent]) -> Table:
    columns = {
        "time": text("time"),
        "what": text("what"),
        "state": text("state"),
        "reason": text("reason", folds=True),
    }
    return table_of("", map(_row, shown), columns)


def _row(one: TimedEvent) -> dict[str, str]:
    event = one.event
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.time))
    if isinstance(event, NfEvent):
        what, state, reason = "+".join(event.instances), event.state, event.reason
    elif isinstance(event, ChainEvent):
        what, state, reason = f"chain {event.name}", event.action, ""
    else:
        what, state, reason = "manager", event.state, ""
    return {"time": when, "what": what, "state": state, "reason": reason}
