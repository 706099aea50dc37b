"""Show one value to people and to programs: a table, JSON, YAML or names."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated

import msgspec
import typer
from rich.console import Console, RenderableType

from onvm_core.cli.table import make_console
from onvm_sdk.errors import ConfigError

__all__ = ["Form", "OutputFile", "OutputOptions", "TableOptions", "print_json"]


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


class Form(enum.StrEnum):
    """The form in which a command shows its result."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, kw_only=True, slots=True)
class TableOptions:
    """The look of tables."""

    wide: Annotated[
        bool, typer.Option("--wide", help="Show all columns, however wide the table gets.")
    ] = False
    no_color: Annotated[
        bool, typer.Option("--no-color", help="Print no colours; NO_COLOR in the environment, too.")
    ] = False

    @property
    def is_wide(self) -> bool:
        """True if no column may be left out."""
        return self.wide

    def console(self, *, to_stderr: bool = False) -> Console:
        """The console that these options ask for."""
        return make_console(to_stderr=to_stderr, is_wide=self.is_wide, has_colour=not self.no_color)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputOptions(TableOptions):
    """The form of a command's result."""

    form: Annotated[
        Form,
        typer.Option("--output", "-o", metavar="FORM", help="Form: table, wide, json, yaml, name."),
    ] = Form.TABLE
    json: Annotated[bool, typer.Option("--json", help="Print JSON, like -o json.")] = False

    @property
    def is_wide(self) -> bool:
        """True if no column may be left out."""
        return self.wide or self.form is Form.WIDE

    @property
    def chosen(self) -> Form:
        """The form that both options ask for.

        Raises:
            ConfigError: they contradict each other.
        """
        if self.json and self.form not in (Form.TABLE, Form.JSON):
            raise ConfigError(
                "expected no other form together with --json",
                field="--output",
                value=self.form.value,
            )
        return Form.JSON if self.json else self.form

    def show(
        self,
        value: object,
        people: Callable[[], RenderableType | None],
        names: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        """Print `value` in the chosen form.

        Args:
            people: the value as text or tables; None: it has printed it itself.
            names: its things as KIND/NAME, a line each; None: it has none.

        Raises:
            ConfigError: it has no names.
        """
        form = self.chosen
        if form is Form.JSON:
            print_json(value)
        elif form is Form.YAML:
            import yaml

            plain = msgspec.to_builtins(value, enc_hook=str, str_keys=True)
            print(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), end="")
        elif form is Form.NAME:
            if names is None:
                raise ConfigError(
                    "expected table, wide, json or yaml: there are no names",
                    field="--output",
                    value=form.value,
                )
            for name in names():
                print(name)
        else:
            shown = people()
            if isinstance(shown, str):
                print(shown)
            elif shown is not None:
                self.console().print(shown, crop=False, highlight=False)


def print_json(value: object) -> None:
    """Print `value` as indented JSON; dataclasses and enums by their fields and values."""
    print(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())
