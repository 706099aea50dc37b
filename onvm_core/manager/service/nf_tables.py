"""The NFs of a manager's file: their packages, their configurations, and the NF hosts to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from onvm_core.dataplane.values import Affinity
from onvm_core.manager.config.checked import Checked
from onvm_core.manager.config.nf_config import NfSettings, read_nf_settings, settle
from onvm_core.manager.config.onvm_toml import NfConfig, NfGroup
from onvm_core.manager.supervision.supervised import WantedHost, digest_of
from onvm_core.plugins import NfPackage, discover, find
from onvm_sdk.errors import ConfigError
from onvm_sdk.source import is_source

__all__ = ["NfTables"]

FOLDER = "config"


class NfTables:
    """The tables ``[nfs.NAME]``, and those implied by chains and commands.

    Args:
        directory: directory of the manager.
        file: the checked file; relative paths in it count from its folder.

    Attributes:
        packages: installed NFs.
    """

    def __init__(self, directory: Path, file: Checked) -> None:
        self._folder = directory / FOLDER
        self.file = file
        self.packages = list(file.packages)
        self._settled: dict[str, NfSettings] = {}

    def use(self, file: Checked) -> None:
        """Go on with another file; `settle` has its configurations already."""
        self.file = file
        self.packages = list(file.packages)

    def affinities(self) -> dict[str, Affinity]:
        """The affinities of services that the file sets."""
        return {
            str(self.package(name).service): Affinity[nf.affinity.upper()]
            for name, nf in self.file.config.nfs.items()
            if nf.affinity
        }

    def package(self, name: str, file: Checked | None = None) -> NfPackage:
        """The installed NF of a table of the file, or of another file, or of that name.

        Raises:
            ConfigError: there is none.
        """
        table = (file or self.file).config.nfs.get(name)
        plugin = (table.plugin if table else "") or name
        try:
            return find(plugin, self.packages)
        except ConfigError:
            self.packages = discover()  # it may have been installed since
            return find(plugin, self.packages)

    def installed(self, name: str) -> NfPackage | None:
        """The installed NF of that name; None if there is none."""
        if is_source(name):
            return find(name, self.packages)
        return next((package for package in self.packages if package.name == name), None)

    # ---- configurations ----

    def read(self, name: str, file: Checked | None = None) -> NfSettings:
        """The configuration of a table as the files are now; `file`: another file's.

        Raises:
            ConfigError: it has a mistake.
        """
        file = file or self.file
        given = file.config.nfs.get(name, NfConfig()).config
        source: Path | Mapping[str, Any] = (
            file.path.absolute().parent / given if isinstance(given, str) else given
        )
        return self._read(name, source, file)

    def read_from(self, name: str, source: Path | Mapping[str, Any]) -> NfSettings:
        """The configuration of a table, from a file or from values."""
        return self._read(name, source, self.file)

    def _read(self, name: str, source: Path | Mapping[str, Any], file: Checked) -> NfSettings:
        return read_nf_settings(
            self.package(name, file).manifest,
            source,
            base=file.path,
            field=f"nfs.{name}.config",
            folder=self._folder,
        )

    def settled(self, name: str) -> NfSettings:
        """The configuration that the instances of a table have."""
        if name not in self._settled:
            self.settle(name, self.read(name))
        return self._settled[name]

    def with_place(self, failure: str) -> str:
        """Name the place in the user's file, if an NF has found a mistake in its configuration."""
        for settings in self._settled.values():
            if settings.path is not None and failure.startswith(start := f"{settings.path}: "):
                return settings.located(failure.removeprefix(start))
        return failure

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
        settings: Sequence[NfSettings] | None = None,
        file: Checked | None = None,
        is_by_command: bool = False,
    ) -> WantedHost:
        """An NF host of these tables.

        Args:
            settings: the configurations, in place of those that the tables have.
            file: another file with the tables.
        """
        packages = [self.package(name, file) for name in names]
        wanted = WantedHost(
            tuple(package.name for package in packages),
            tuple(package.service or package.name for package in packages),
            tuple(instances),
            launcher=launcher,
            is_by_command=is_by_command,
        )
        return self.described(wanted, settings or [self.settled(name) for name in names])

    def described(self, wanted: WantedHost, settings: Sequence[NfSettings]) -> WantedHost:
        """The same NF host with these configurations, one for each of its NFs."""
        given = [(n, one) for n, one in zip(wanted.nfs, settings, strict=True) if one.path]
        for _, one in given:
            settle(one)
        return msgspec.structs.replace(
            wanted,
            configs={name: str(one.path) for name, one in given},
            digest=digest_of({name: one.digest for name, one in given}),
        )
