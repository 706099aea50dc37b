"""``onvm nf install`` and ``onvm nf uninstall``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli import names
from onvm_core.plugins import NfPackage, discover
from onvm_core.plugins import install as pip
from onvm_core.plugins.permissions import MEANINGS, permission_changes

__all__ = ["install", "uninstall"]


def install(
    packages: Annotated[
        list[str], typer.Argument(metavar="PACKAGE", help="A name, folder or wheel, as for pip.")
    ],
    find_links: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Folder of wheels to install from.", show_default="none"
        ),
    ] = None,
    no_index: Annotated[bool, typer.Option("--no-index", help="Ask no package index.")] = False,
    no_deps: Annotated[bool, typer.Option("--no-deps", help="Leave dependencies alone.")] = False,
    no_build_isolation: Annotated[
        bool, typer.Option("--no-build-isolation", help="Build with what is installed here.")
    ] = False,
) -> None:
    """Install NF packages with pip and check their manifests.

    Examples:
        onvm nf install onvm-nf-firewall
        onvm nf install ./my-nf
        onvm nf install my-nf --find-links wheels --no-index
    """
    options = [f"--find-links={find_links}"] if find_links else []
    options += ["--no-index"] * no_index + ["--no-deps"] * no_deps
    options += ["--no-build-isolation"] * no_build_isolation
    before = {one.name: one for one in discover() if one.manifest is not None}
    for package in pip.install(packages, options):
        print(f"installed {package.name} ({package.distribution} {package.version})")
        for line in _rights(package, before.get(package.name)):
            print(f"  {line}")


def _rights(package: NfPackage, before: NfPackage | None) -> list[str]:
    """Permissions and needs of a package; after an upgrade, their differences."""
    manifest = package.manifest
    if manifest is None:
        return []
    needs = f"needs {manifest.cores:g} cores, {manifest.memory_mib} MiB"
    if before is None or before.manifest is None:
        return [f"it may {', '.join(MEANINGS[one] for one in manifest.permissions)}", needs]
    changes = permission_changes(before.manifest.permissions, manifest.permissions)
    was = f"needs {before.manifest.cores:g} cores, {before.manifest.memory_mib} MiB"
    return [*changes, *([f"- {was}", f"+ {needs}"] if was != needs else [])]


def uninstall(
    name: Annotated[
        str, typer.Argument(metavar="NF", help="Name of an installed NF.", autocompletion=names.nfs)
    ],
) -> None:
    """Remove the package of a network function.

    Examples:
        onvm nf uninstall firewall
    """
    for distribution in pip.uninstall(name):
        print(f"removed {distribution}")
