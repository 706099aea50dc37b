"""A file of a manager with everything that it names: checked before anything starts or changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from onvm_core.dataplane.values import Fragments
from onvm_core.launch.launcher import HOOK as LAUNCHERS
from onvm_core.launch.launcher import Launchers
from onvm_core.manager.config.extensions import Extensions, load_extensions
from onvm_core.manager.config.onvm_toml import Config, load_config
from onvm_core.manager.placement.allocator import policy_names
from onvm_core.manager.ports import PortKind, port_kinds
from onvm_core.plugins import NfPackage, PluginManager, discover, find

__all__ = ["Checked", "check"]


class Checked(msgspec.Struct, frozen=True):
    """The parts of a manager, with everything that its file names."""

    config: Config
    path: Path
    kinds: dict[str, PortKind]
    extensions: Extensions
    launchers: Launchers
    packages: Sequence[NfPackage]

    def fragments(self) -> dict[str, Fragments]:
        """The services of which the file says what they see of datagrams in fragments."""
        return {
            find(nf.plugin or name, self.packages).service or name: Fragments[nf.fragments.upper()]
            for name, nf in self.config.nfs.items()
            if nf.fragments
        }


def check(file: Path, plugins: PluginManager) -> Checked:
    """Read a file and check that everything it names exists.

    Raises:
        OnvmError: the file has a mistake; carries one line.
    """
    kinds, offers, packages = port_kinds(plugins), plugins.offers(LAUNCHERS), discover()
    config = load_config(file, kinds, packages, offers, policy_names(plugins))
    launchers = config.make_launchers(offers)
    extensions = load_extensions(config, file, plugins)
    return Checked(config, file, kinds, extensions, launchers, packages)
