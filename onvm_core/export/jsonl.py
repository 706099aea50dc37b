"""Exporter "jsonl": one line of JSON for each snapshot, at the end of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from onvm_core.export.snapshot import Snapshot, file_option

__all__ = ["JsonLines"]


class JsonLines:
    """Options: ``file``. It is opened for each line, so you can rotate it at any time."""

    def __init__(self, options: Mapping[str, Any], folder: Path) -> None:
        self._path = file_option(options, folder)

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        """Close nothing: the file is open only while a line is written."""

    def export(self, snapshot: Snapshot) -> None:
        """Append a line."""
        line = msgspec.json.encode(snapshot) + b"\n"
        with self._path.open("ab") as file:
            file.write(line)
