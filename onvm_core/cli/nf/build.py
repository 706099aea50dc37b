"""``onvm nf build``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.plugins import build as compiler

__all__ = ["build"]


def build(
    target: Annotated[
        str,
        typer.Argument(metavar="NF|FOLDER", help="An installed NF, or the folder of its package."),
    ],
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what was compiled; the source runs again.")
    ] = False,
) -> None:
    """Compile an NF that handles packet by packet with Cython, in place.

    It runs compiled from its next start on, until its package is installed again.

    Examples:
        onvm nf build my-nf
        onvm nf build my-nf --clean
    """
    folder = compiler.package_folder(target)
    done = compiler.clean(folder) if clean else compiler.build(folder)
    for file in done:
        print(f"{'removed' if clean else 'wrote'} {file}")
    if clean and not done:
        print("nothing was compiled")
