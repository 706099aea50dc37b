"""Facts about the NFs of a host, from the packages that they are installed by.

A class that is not installed has no package, and None in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onvm_core.plugins import NfPackage
from onvm_sdk.manifest import files_of, read_config

__all__ = ["files_read", "permissions_of", "services_of"]


def services_of(nfs: Sequence[str], packages: Sequence[NfPackage | None]) -> list[str]:
    """The service of each NF."""
    return [
        # A class that is not installed provides a service of its own name.
        (package.service if package is not None else None) or name.rpartition(":")[2].lower()
        for name, package in zip(nfs, packages, strict=True)
    ]


def permissions_of(packages: Sequence[NfPackage | None]) -> list[list[str] | None]:
    """The permissions of each NF; None for a class that is not installed, whose host limits it."""
    return [
        None if package is None or package.manifest is None else package.manifest.permissions
        for package in packages
    ]


def files_read(
    packages: Sequence[NfPackage | None], configs: Mapping[str, Path]
) -> tuple[Path, ...]:
    """The files that NFs read besides their configuration files, which name them."""
    files = []
    for package in packages:
        if package is None or package.manifest is None:
            continue
        config = read_config(package.manifest, configs.get(package.name))
        files += [Path(name) for name in files_of(package.manifest, config)]
    return tuple(files)
