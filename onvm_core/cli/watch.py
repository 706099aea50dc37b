"""Watch the files of NFs: ``--watch`` of ``onvm run`` and ``onvm nf run``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from onvm_sdk.errors import ConfigError
from onvm_sdk.source import is_source

__all__ = ["Watch"]


class Watch:
    """The files of NFs, and when they changed.

    Args:
        names: NFs; those that are installed are left out.

    Raises:
        ConfigError: none of them is an NF of a file.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._files = {name: Path(name.rpartition(":")[0]) for name in names if is_source(name)}
        if not self._files:
            raise ConfigError("expected an NF of a file, as in my.py:Class", field="--watch")
        self._seen = {name: _version(file) for name, file in self._files.items()}

    def changed(self) -> list[str]:
        """Return the NFs whose files have changed since the last call."""
        now = {name: _version(file) for name, file in self._files.items()}
        changed = [name for name, version in now.items() if version not in (0, self._seen[name])]
        self._seen |= {name: now[name] for name in changed}
        return changed


def _version(file: Path) -> int:
    """Return the time of its last change; 0 while an editor replaces it."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
