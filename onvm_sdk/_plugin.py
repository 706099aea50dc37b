"""Installed NFs: found by entry point, described by their manifest, imported on demand."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from onvm_sdk.errors import PluginError

if TYPE_CHECKING:
    from onvm_sdk.manifest import Manifest
    from onvm_sdk.nf import NetworkFunction

__all__ = ["GROUP", "Plugin", "load_plugin"]

GROUP = "onvm.nf"


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

    found = set(entry_points(group=GROUP, name=name))
    if not found:
        raise PluginError("an installed NF expected", field="nf", value=name)
    if len(found) > 1:
        raise PluginError(
            f"one distribution expected, it is claimed by {', '.join(sorted(map(str, found)))}",
            field="nf",
            value=name,
        )
    entry_point = found.pop()
    return Plugin(entry_point, read_manifest(find_manifest(entry_point.module)))
