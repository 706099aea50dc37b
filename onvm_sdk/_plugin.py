"""Installed NFs: found by entry point, described by their manifest, imported on demand."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from onvm_sdk.errors import PluginError

if TYPE_CHECKING:
    from onvm_sdk.manifest import Manifest
    from onvm_sdk.nf import NetworkFunction

__all__ = ["GROUP", "EntryPoint", "Plugin", "load_plugin"]

GROUP = "onvm.nf"


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """``name = module:attribute`` of an installed distribution."""

    name: str
    value: str

    @property
    def module(self) -> str:
        """Dotted name of the module."""
        return self.value.partition(":")[0].strip()

    def load(self) -> object:
        """Import the module and give the attribute."""
        found: object = import_module(self.module)
        for part in self.value.partition(":")[2].strip().split("."):
            found = getattr(found, part)
        return found


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed NF whose module has not been imported yet."""

    entry_point: EntryPoint
    manifest: Manifest

    def load(self) -> type[NetworkFunction]:
        """Import the module and give the NF's class.

        Raises:
            PluginError: the entry point does not name a NetworkFunction.
        """
        from onvm_sdk.nf import NetworkFunction

        kind = self.entry_point.load()
        if not (isinstance(kind, type) and issubclass(kind, NetworkFunction)):
            raise PluginError(
                "a subclass of NetworkFunction expected",
                field=f"entry point {self.entry_point.name}",
                value=self.entry_point.value,
            )
        return kind


def load_plugin(name: str) -> Plugin:
    """Find an installed NF by name and read its manifest.

    Raises:
        PluginError: there is none, or several distributions claim the name.
        ManifestError: its manifest is wrong.
    """
    from onvm_sdk.manifest import find_manifest, read_manifest

    found = set(_entry_points(name))
    if not found:
        raise PluginError("an installed NF expected", field="nf", value=name)
    if len(found) > 1:
        claims = ", ".join(sorted(point.value for point in found))
        raise PluginError(
            f"one distribution expected, it is claimed by {claims}",
            field="nf",
            value=name,
        )
    entry_point = found.pop()
    return Plugin(entry_point, read_manifest(find_manifest(entry_point.module)))


def _entry_points(name: str) -> Iterator[EntryPoint]:
    """Read what installed distributions say, as importlib.metadata does in five times the time.

    Its import alone costs more than the Python start-up; an NF is to see packets 60 ms after exec.
    """
    seen = set()
    for folder in sys.path:
        try:
            entries = sorted(entry.name for entry in os.scandir(folder or "."))
        except OSError:
            continue
        for entry in entries:
            if not entry.endswith((".dist-info", ".egg-info")) or entry in seen:
                continue
            seen.add(entry)
            try:
                with open(
                    os.path.join(folder, entry, "entry_points.txt"),  # noqa: PTH118  pathlib is slow to import
                    encoding="utf-8",
                ) as file:
                    yield from _group_entries(file.read(), name)
            except OSError:
                continue


def _group_entries(text: str, name: str) -> Iterator[EntryPoint]:
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line.strip("[] ")
        elif group == GROUP and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            if key.strip() == name:
                yield EntryPoint(name, value.partition("[")[0].strip())
