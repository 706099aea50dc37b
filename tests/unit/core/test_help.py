"""Help of every command: complete, and readable on a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from onvm_core.cli.app import build_app
from onvm_core.plugins import CliCommand, load_plugins

COLUMNS = 80
SUMMARY_COLUMNS = 68
"""What the list of commands has beside the longest name."""

OFFERS = [
    offer
    for offer in load_plugins().offers("onvm_cli_commands").values()
    if isinstance(offer, CliCommand)
]
APP = build_app(OFFERS, None)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(APP)))


def help_of(*path: str) -> str:
    environment = {"COLUMNS": str(COLUMNS), "TERMINAL_WIDTH": str(COLUMNS), "NO_COLOR": "1"}
    done = CliRunner().invoke(APP, [*path, "--help"], env=environment)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(params=sorted(COMMANDS), ids=" ".join)
def path(request: pytest.FixtureRequest) -> tuple[str, ...]:
    assert isinstance(request.param, tuple)
    return request.param


def test_every_option_says_what_it_does_and_its_default(path: tuple[str, ...]) -> None:
    for option in COMMANDS[path].params:
        text = option.help or ""
        assert text.endswith("."), f"{option.name}: {text!r}"
        assert text[0].isupper() or text.startswith("onvm"), f"{option.name}: {text!r}"
        has_default = (
            option.required
            or getattr(option, "is_flag", False)
            or isinstance(option.show_default, str)
            or option.default not in (None, "")
        )
        assert has_default, f"{option.name} does not say its default"


def test_every_command_has_one_line_of_help(path: tuple[str, ...]) -> None:
    text = COMMANDS[path].help or ""
    first = text.partition("\n\n")[0].strip()
    assert first.endswith("."), first
    assert "\n" not in first
    assert not path or len(first) <= SUMMARY_COLUMNS, f"{len(first)} columns: {first}"


def test_help_fits_a_terminal_of_80_columns(path: tuple[str, ...]) -> None:
    for line in help_of(*path).splitlines():
        assert len(line) <= COLUMNS, line
        words = line.replace(",…", "")  # a list, as in NF,…
        assert "…" not in words, line


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer.name)
def test_summary_in_the_list_of_commands_is_one_line(offer: CliCommand) -> None:
    assert offer.summary.endswith(".")
    assert len(offer.summary) <= SUMMARY_COLUMNS
