"""Help of every command: complete, and readable on a terminal of 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from onvm_core.cli.app import build_app
from onvm_core.cli.help import pages, use_pages
from onvm_core.plugins import CliCommand, load_plugins

COLUMNS = 80
SUMMARY_COLUMNS = 68
"""What the list of commands has beside the longest name."""

OFFERS = [
    offer
    for offer in load_plugins().offers("onvm_cli_commands").values()
    if isinstance(offer, CliCommand)
]
APP = use_pages(typer.main.get_command(build_app(OFFERS, None)))


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(APP))


PAGES = {tuple(page.name.split()[1:]): page for page in pages(APP)}


def help_of(*path: str) -> str:
    return PAGES[path].text(COLUMNS)


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
    first = PAGES[path].paragraphs[0]
    assert first.endswith("."), first
    assert "\n" not in first
    assert not path or len(first) <= SUMMARY_COLUMNS, f"{len(first)} columns: {first}"


def test_help_fits_a_terminal_of_80_columns(path: tuple[str, ...]) -> None:
    for line in help_of(*path).splitlines():
        assert len(line) <= COLUMNS, line
        words = line.replace(",…", "")  # a list, as in NF,…
        assert "…" not in words, line
        assert "<" not in line, line


def test_every_command_shows_examples_that_are_right(path: tuple[str, ...]) -> None:
    if hasattr(COMMANDS[path], "commands"):
        return
    examples = PAGES[path].examples
    assert examples
    for example in examples:
        words = shlex.split(example)
        assert tuple(words[: len(path) + 1]) == ("onvm", *path)
        COMMANDS[path].make_context(path[-1], words[len(path) + 1 :])  # parses it


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer.name)
def test_summary_in_the_list_of_commands_is_one_line(offer: CliCommand) -> None:
    assert offer.summary.endswith(".")
    assert len(offer.summary) <= SUMMARY_COLUMNS
