"""Show one value as a table or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from onvm_sdk.errors import ConfigError

__all__ = ["OutputFile", "make_console", "make_table", "print_json", "print_table"]


class OutputFile:
    """A file for the result of a command, opened before the work.

    A regular file gets its name when all of it is written; before, it is NAME.part. Used as a
    context, which removes the part if nothing was written.

    Attributes:
        is_standard: it is standard output.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, path: Path, field: str) -> None:
        self.is_standard = str(path) == "-"
        self._path, self._field = path, field
        is_special = path.exists() and not path.is_file()
        self._part = None if self.is_standard or is_special else Path(f"{path.resolve()}.part")
        try:
            if self._part is not None:
                self._part.touch()
            elif not self.is_standard:
                path.open("wb").close()
        except OSError as error:
            raise self._refusal(error) from None

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._part is not None:
            self._part.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            if self.is_standard:
                sys.stdout.buffer.write(data)
                sys.stdout.flush()
            elif self._part is None:
                self._path.write_bytes(data)
            else:
                self._part.write_bytes(data)
                self._part.replace(self._path.resolve())
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"expected a file that can be written: {error.strerror}",
            field=self._field,
            value=str(self._path),
        )


def make_console(*, to_stderr: bool = False) -> Console:
    """A console that is wide enough for our tables where there is no terminal."""
    console = Console(stderr=to_stderr)
    if to_stderr and not console.is_terminal:
        return Console(stderr=True, width=max(console.width, 132))
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
