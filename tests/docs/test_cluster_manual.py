"""The manual of the cluster names tests and commands that are there, and every command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from onvm_core.cli.cluster.app import app

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def command_names(group: typer.Typer, prefix: str = "") -> list[str]:
    names = [
        prefix + (one.name or one.callback.__name__)
        for one in group.registered_commands
        if one.callback is not None
    ]
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        names += command_names(inner.typer_instance, f"{prefix}{inner.name} ")
    return names


@pytest.mark.parametrize("command", command_names(app))
def test_command_is_in_the_manual(command: str) -> None:
    group, _, last = command.rpartition(" ")
    rows = [line for line in MANUAL.splitlines() if line.startswith("| `onvm cluster")]
    assert any(
        f"onvm cluster {group}".rstrip() in row and re.search(rf"[` ]{last}[` ]", row)
        for row in rows
    ), command


def test_every_failure_mode_names_a_test_that_is_there() -> None:
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")
    )
    section = MANUAL[MANUAL.index("# Failure modes") :]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(test_\w+)`|(tests/[\w/]+/test_\w+\.py)", row.rpartition("|")[0])
        assert named, row
        for name, path in named:
            assert f"def {name}(" in text if name else (ROOT / path).is_file(), row
