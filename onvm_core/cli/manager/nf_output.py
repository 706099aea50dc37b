"""The output of NFs, as they write it: each line under the name of its instance."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

__all__ = ["NfOutput", "log_lines"]

COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red")
CHUNK = 1 << 16


class NfOutput:
    """Follows the logs in a folder, also those that appear later.

    Args:
        folder: the folder; each log is named INSTANCE.log.
        console: where lines are shown.
        is_from_end: show only what is written from now on.
        names: the instances whose lines are shown; empty: all.
    """

    def __init__(
        self,
        folder: Path,
        console: Console,
        *,
        is_from_end: bool = False,
        names: frozenset[str] = frozenset(),
    ) -> None:
        self._folder = folder
        self._console = console
        self._names = names
        self._ends: dict[str, tuple[int, int]] = {}
        self._rests: dict[str, bytes] = {}
        self._colours: dict[str, str] = {}
        if is_from_end:
            self._ends = {path.stem: _identity(path) for path in self._logs()}

    def turn(self) -> None:
        """Show what has been written since the last call."""
        for path in self._logs():
            for line in self._new_lines(path):
                self.show(path.stem, line)

    def finish(self) -> None:
        """Show the rest, with lines that have no end."""
        self.turn()
        for name, rest in self._rests.items():
            if rest:
                self.show(name, rest.decode("utf-8", "replace"))
        self._rests.clear()

    def show(self, name: str, line: str) -> None:
        """Show a line of an instance."""
        colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
        self._console.print(
            Text.assemble((f"{name} | ", colour), line),
            soft_wrap=True,
        )

    def _logs(self) -> list[Path]:
        paths = sorted(self._folder.glob("*.log"))
        return [
            path
            for path in paths
            if not self._names or {path.stem, *path.stem.split("+")} & self._names
        ]

    def _new_lines(self, path: Path) -> Iterator[str]:
        name = path.stem
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                inode, at = self._ends.get(name, (status.st_ino, 0))
                if inode != status.st_ino or status.st_size < at:  # started again, with a new log
                    at = 0
                    self._rests.pop(name, None)
                file.seek(at)
                data = self._rests.pop(name, b"") + file.read()
                self._ends[name] = (status.st_ino, file.tell())
        except OSError:  # gone
            return
        *lines, self._rests[name] = data.split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")


def _instances(path: Path) -> set[str]:
    """The names that stand for a log: of each instance of the NF host, and of all."""
    return {path.stem, *path.stem.split("+")}


def log_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log; 0: all.

    Args:
        path: the log, which may be large.
    """
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        data = b""
        while at and (not count or data.count(b"\n") <= count):
            step = min(CHUNK, at)
            at -= step
            file.seek(at)
            data = file.read(step) + data
    lines = data.decode("utf-8", "replace").splitlines()
    return lines[-count:] if count else lines


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_size
