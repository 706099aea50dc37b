"""The NFs of a manager's file: their packages, their configurations, and the NF hosts to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onvm_core.manager.config.nf_config import NfSettings, read_nf_settings, settle
from onvm_core.manager.config.onvm_toml import Config, NfConfig, NfGroup
from onvm_core.manager.supervision.supervised import WantedHost
from onvm_core.plugins import NfPackage, discover, find
from onvm_sdk.errors import ConfigError

__all__ = ["NfTables"]

FOLDER = "config"


class NfTables:
    """The tables ``[nfs.NAME]``, and those implied by chains and commands.

    Args:
        directory: directory of the manager.
        config: the checked file.
        path: its path; relative paths in it count from its folder.
        packages: installed NFs.
    """

    def __init__(
        self, directory: Path, config: Config, path: Path, packages: Sequence[NfPackage]
    ) -> None:
        self._folder = directory / FOLDER
        self._config = config
        self._path = path
        self.packages = list(packages)
        self._settled: dict[str, NfSettings] = {}

    def package(self, name: str) -> NfPackage:
        """The installed NF of a table, or of that name.

        Raises:
            ConfigError: there is none.
        """
        table = self._config.nfs.get(name)
        plugin = (table.plugin if table else "") or name
        try:
            return find(plugin, self.packages)
        except ConfigError:
            self.packages = discover()  # it may have been installed since
            return find(plugin, self.packages)

    def installed(self, name: str) -> NfPackage | None:
        """The installed NF of that name; None if there is none."""
        return next((package for package in self.packages if package.name == name), None)

    # ---- configurations ----

    def read(self, name: str, config: Config | None = None) -> NfSettings:
        """The configuration of a table as the files are now; `config`: another file's.

        Raises:
            ConfigError: it has a mistake.
        """
        given = (config or self._config).nfs.get(name, NfConfig()).config
        source: Path | Mapping[str, Any] = (
            self._path.absolute().parent / given if isinstance(given, str) else given
        )
        return self.read_from(name, source)

    def read_from(self, name: str, source: Path | Mapping[str, Any]) -> NfSettings:
        """The configuration of a table, from a file or from values."""
        return read_nf_settings(
            self.package(name).manifest,
            source,
            base=self._path,
            field=f"nfs.{name}.config",
            folder=self._folder,
        )

    def settled(self, name: str) -> NfSettings:
        """The configuration that the instances of a table have."""
        if name not in self._settled:
            self.settle(name, self.read(name))
        return self._settled[name]

    def settle(self, name: str, settings: NfSettings) -> None:
        """Let new instances of a table have this configuration."""
        settle(settings)
        self._settled[name] = settings

    def sweep(self, used: Iterable[WantedHost]) -> None:
        """Remove files of configurations that no instance has any more."""
        kept = {str(settings.path) for settings in self._settled.values()}
        kept |= {path for wanted in used for path in wanted.configs.values()}
        for path in self._folder.glob("*.toml"):
            if str(path) not in kept:
                path.unlink(missing_ok=True)

    # ---- NF hosts ----

    def want(self, group: NfGroup, *, is_by_command: bool = False) -> WantedHost:
        """The NF host of a group."""
        return self.wanted(
            group.names, group.instances, launcher=group.launcher, is_by_command=is_by_command
        )

    def wanted(
        self,
        names: Sequence[str],
        instances: Sequence[str],
        *,
        launcher: str,
        config: NfSettings | None = None,
        is_by_command: bool = False,
    ) -> WantedHost:
        """An NF host of these tables.

        Args:
            config: the configuration of its one NF, in place of that of the table.
        """
        packages = [self.package(name) for name in names]
        found = [config or self.settled(name) for name in names]
        pairs = list(zip(packages, found, strict=True))
        return WantedHost.make(
            tuple(package.name for package in packages),
            tuple(package.service or package.name for package in packages),
            tuple(instances),
            {package.name: one.path for package, one in pairs if one.path is not None},
            digests={package.name: one.digest for package, one in pairs if one.path is not None},
            launcher=launcher,
            is_by_command=is_by_command,
        )
