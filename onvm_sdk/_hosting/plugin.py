"""NFs by name: found by entry point, described by their manifest, imported on demand.

``module:Class`` names an NF that is importable but not installed as one. Its manifest is the file
beside its module, or the attribute ``manifest`` of the class. ``FILE.py:Class`` is an NF of one
file.
"""

from __future__ import annotations

import os
import sys

from onvm_sdk.errors import PluginError
from onvm_sdk.source import class_manifest, is_source, load_module

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from collections.abc import Iterator

    from onvm_sdk.manifest import Manifest
    from onvm_sdk.nf import NetworkFunction

__all__ = ["GROUP", "EntryPoint", "Plugin", "load_plugin"]

GROUP = "onvm.nf"


class EntryPoint:
    """``name = module:attribute`` of an installed distribution."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    @property
    def module(self) -> str:
        """Dotted name of the module."""
        return self.value.rpartition(":")[0].strip()

    def load(self) -> object:
        """Import the module and return the attribute."""
        found: object
        if is_source(self.value):
            found = load_module(self.module)
        else:
            __import__(self.module)
            found = sys.modules[self.module]
        for part in self.value.rpartition(":")[2].strip().split("."):
            found = getattr(found, part)
        return found


class Plugin:
    """An NF and its manifest."""

    __slots__ = ("entry_point", "manifest")

    def __init__(self, entry_point: EntryPoint, manifest: Manifest) -> None:
        self.entry_point = entry_point
        self.manifest = manifest

    def load(self) -> type[NetworkFunction]:
        """Import the module and return the NF's class.

        Raises:
            PluginError: the entry point does not name a NetworkFunction.
        """
        from onvm_sdk.nf import NetworkFunction

        kind = self.entry_point.load()
        if not (isinstance(kind, type) and issubclass(kind, NetworkFunction)):
            raise PluginError(
                "expected a subclass of NetworkFunction",
                field=f"entry point {self.entry_point.name}",
                value=self.entry_point.value,
            )
        return kind


def load_plugin(name: str) -> Plugin:
    """Find an NF by name, or as ``module:Class``, and read its manifest.

    Raises:
        PluginError: no distribution provides the name.
        ManifestError: its manifest has a mistake.
    """
    from onvm_sdk.manifest import manifest_file, read_manifest

    if ":" in name:
        return _load_class(EntryPoint(name, name))
    found = list(_entry_points(name))
    if not found:
        raise PluginError("expected an installed NF", field="nf", value=name)
    # Of several distributions that claim the name, the one that was there first has it.
    _, entry_point = min(found, key=lambda each: each[0])
    return Plugin(entry_point, read_manifest(manifest_file(entry_point.module)))


def _load_class(entry_point: EntryPoint) -> Plugin:
    from onvm_sdk.errors import ManifestError
    from onvm_sdk.manifest import Manifest, manifest_file, read_manifest

    plugin = Plugin(entry_point, Manifest(schema=1, name="", sdk=""))
    try:
        kind = plugin.load()
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"expected module:Class: {error}", field="nf", value=entry_point.name
        ) from error
    if not kind.manifest and not is_source(entry_point.value):
        try:
            return Plugin(entry_point, read_manifest(manifest_file(entry_point.module)))
        except ManifestError as error:
            if error.field != "module":
                raise
    return Plugin(entry_point, class_manifest(kind.__name__, kind.manifest, entry_point.value))


def _entry_points(name: str) -> Iterator[tuple[tuple[int, str], EntryPoint]]:
    """Read the entry points of installed distributions, five times as fast as importlib.metadata.

    Gives since when each is there, and its distribution, before it.

    The import of that module alone takes longer than the start of Python, and an NF must see
    packets 60 ms after exec.
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
                    os.path.join(folder, entry, "entry_points.txt"),
                    encoding="utf-8",
                ) as file:
                    for point in _group_entries(file.read(), name):
                        yield (os.fstat(file.fileno()).st_mtime_ns, entry), point
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
