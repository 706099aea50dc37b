"""Where ``onvm`` begins: with what takes longest, while the command line is still being imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_VALUED = ("--file", "-f", "--name")
_FILE = ("--file", "-f")
_DEFAULT_FILE = "onvm.toml"


def main() -> None:
    """Run the command line and exit."""
    file = _file_of_manager(sys.argv[1:])
    if file is not None:
        from pathlib import Path

        from onvm_core.manager import head_start, stopwatch

        stopwatch.lap("begin")
        head_start.begin(Path(file))
    from onvm_core.cli.app import main as run

    run()


def _file_of_manager(arguments: Sequence[str]) -> str | None:
    """The file of an ``onvm up`` that becomes a manager; None: another command, or a doubt.

    What is doubtful is left to the command line itself, which reads all of it again.
    """
    if not arguments or arguments[0] != "up":
        return None
    file = _DEFAULT_FILE
    rest = list(arguments[1:])
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option not in _VALUED or (equals and option == "-f"):
            return None
        if not equals:
            if not rest:
                return None
            value = rest.pop(0)
        if option in _FILE:
            file = value
    return file
