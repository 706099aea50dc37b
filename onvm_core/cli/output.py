"""Show one value as a table or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

__all__ = ["make_console", "make_table", "print_json", "print_table"]


def make_console() -> Console:
    """A console that is wide enough for our tables where there is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 132))


def make_table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    """An empty table; columns on the `right` are numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def print_json(value: object) -> None:
    """Print `value` as indented JSON; dataclasses and enums by their fields and values."""
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)
    print(text.decode())


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print `rows`.

    Args:
        rows: each a mapping from field to value.
        columns: field to heading, in order.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*("" if row[field] is None else str(row[field]) for field in columns))
    make_console().print(table)
