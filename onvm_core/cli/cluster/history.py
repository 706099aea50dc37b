"""History and rollback: the same for chains and services."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer

from onvm_core.cli.cluster.connection import ClusterOptions, Reach, author
from onvm_core.cli.options import with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.cli.table import Table, number, table_of, text
from onvm_core.cluster.tree.definitions import Chains, Revision, Services

__all__ = ["add_history_commands"]

DefinitionName = Annotated[str, typer.Argument(metavar="NAME", help="Name of what has changed.")]
RevisionNumber = Annotated[
    int, typer.Argument(min=1, metavar="REVISION", help="A revision that history shows.")
]


def add_history_commands(
    app: typer.Typer,
    noun: str,
    definitions: Callable[[Reach], Chains | Services],
    describe: Callable[[Any], str],
) -> None:
    """Add ``history`` and ``rollback`` to `app`.

    Args:
        noun: "chain" or "service".
        describe: a definition in one line.
    """

    @with_option_groups
    def history(where: ClusterOptions, name: DefinitionName, output: OutputOptions) -> None:
        with where.reach() as found:
            revisions = definitions(found).history(name)
        output.show(
            revisions,
            lambda: _table(revisions),
            lambda: [f"revision/{one.revision}" for one in revisions],
        )

    @with_option_groups
    def rollback(where: ClusterOptions, name: DefinitionName, revision: RevisionNumber) -> None:
        with where.reach() as found:
            node = definitions(found).rollback(name, revision, author())
        print(f"{noun} {name}, revision {node.revision}: {describe(node)}")

    name = "main" if noun == "chain" else "firewall"
    app.command(
        help=f"Show who has changed a {noun}, when and how.\n\n"
        f"Examples:\n    onvm cluster {noun} history {name}"
    )(history)
    app.command(
        help=f"Return a {noun} to an earlier revision.\n\n"
        f"Examples:\n    onvm cluster {noun} rollback {name} 3"
    )(rollback)


def _table(revisions: list[Revision]) -> Table:
    rows = [
        {
            "revision": one.revision,
            "time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.time)),
            "by": one.by,
            "what": one.what,
            "definition": ""
            if one.definition is None
            else msgspec.json.encode(one.definition).decode(),
        }
        for one in revisions
    ]
    columns = {
        "revision": number("rev"),
        "time": text("time"),
        "by": text("by"),
        "what": text("what"),
        "definition": text("definition", folds=True),
    }
    return table_of("", rows, columns)
