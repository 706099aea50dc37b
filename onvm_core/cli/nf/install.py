"""``onvm nf install``, ``onvm nf upgrade`` and ``onvm nf uninstall``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli import names
from onvm_core.plugins import install as pip
from onvm_core.plugins.candidate import summary
from onvm_sdk.errors import ConfigError

__all__ = ["install", "uninstall", "upgrade"]

LinksOption = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Folder of wheels to install from.", show_default="none"),
]
NoIndexOption = Annotated[bool, typer.Option("--no-index", help="Ask no package index.")]
NoDepsOption = Annotated[bool, typer.Option("--no-deps", help="Leave dependencies alone.")]
PreOption = Annotated[
    bool, typer.Option("--pre", help="Take versions before a release, such as 1.0rc1, too.")
]


def install(
    packages: Annotated[
        list[str], typer.Argument(metavar="PACKAGE", help="A name, folder or wheel, as for pip.")
    ],
    editable: Annotated[
        bool,
        typer.Option(
            "--editable", "-e", help="Install folders in place: edits count at the next start."
        ),
    ] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", "-U", help="Take newer versions of what is installed.")
    ] = False,
    pre: PreOption = False,
    find_links: LinksOption = None,
    no_index: NoIndexOption = False,
    no_deps: NoDepsOption = False,
    no_build_isolation: Annotated[
        bool, typer.Option("--no-build-isolation", help="Build with what is installed here.")
    ] = False,
) -> None:
    """Install NF packages with pip, and show what their NFs may do.

    A package that claims the name of another one's NF is not installed.

    Examples:
        onvm nf install onvm-nf-firewall
        onvm nf install ./my-nf
        onvm nf install my-nf --find-links wheels --no-index
    """
    if editable and upgrade:
        raise ConfigError("expected only one of --editable and --upgrade", field="nf install")
    options = _options(find_links, no_index=no_index, no_deps=no_deps, pre=pre)
    options += ["--no-build-isolation"] * no_build_isolation
    _print(pip.install(packages, options, upgrade=upgrade, is_editable=editable))


def upgrade(
    nfs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NF",
            help="Names of installed NFs.",
            show_default="all",
            autocompletion=names.nfs,
        ),
    ] = None,
    pre: PreOption = False,
    find_links: LinksOption = None,
    no_index: NoIndexOption = False,
    no_deps: NoDepsOption = False,
) -> None:
    """Take the newest versions of NFs, and show what has changed.

    Examples:
        onvm nf upgrade
        onvm nf upgrade firewall
    """
    options = _options(find_links, no_index=no_index, no_deps=no_deps, pre=pre)
    _print(pip.upgrade(nfs or [], options))


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


def _options(find_links: str | None, *, no_index: bool, no_deps: bool, pre: bool) -> list[str]:
    options = [f"--find-links={find_links}"] if find_links else []
    return options + ["--no-index"] * no_index + ["--no-deps"] * no_deps + ["--pre"] * pre


def _print(installed: list[pip.Installed]) -> None:
    for one in installed:
        package = one.package
        print(f"installed {package.name} ({package.distribution} {package.version})")
        if package.manifest is not None:
            for line in summary(package.manifest, one.before):
                print(f"  {line}")
