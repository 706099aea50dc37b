"""Snapshot: the input of an exporter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from onvm_core.export.report import PeerReport, Report
from onvm_sdk.errors import ConfigError

__all__ = ["Snapshot", "file_option"]


class Snapshot(msgspec.Struct, frozen=True):
    """A manager's counters at one moment.

    Attributes:
        time: wall clock, in seconds since 1970.
        manager: name of the manager.
        peers: the other hosts of its cluster.
    """

    time: float
    manager: str
    uptime_s: float
    report: Report
    peers: list[PeerReport] = []


def file_option(options: Mapping[str, Any], folder: Path, suffix: str = "") -> Path:
    """The file of an exporter whose only option is ``file``.

    Args:
        folder: start of relative paths.

    Raises:
        ConfigError: the option is missing, or there are others.
    """
    for name in options:
        if name != "file":
            raise ConfigError("expected only file", field=name, value=options[name])
    value = options.get("file")
    if not isinstance(value, str) or not value.endswith(suffix) or value.endswith("/"):
        what = f"the path of a file that ends with {suffix}" if suffix else "the path of a file"
        raise ConfigError(f"expected {what}", field="file", value=value)
    path = folder / value
    if not path.parent.is_dir():
        raise ConfigError("expected an existing folder", field="file", value=str(path.parent))
    return path
