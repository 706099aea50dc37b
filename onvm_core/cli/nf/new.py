"""``onvm nf new``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from onvm_core.plugins import discover
from onvm_core.plugins.template import Ci, License, NfKind, render

__all__ = ["new"]


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the NF, such as rate-limiter.")
    ],
    kind: Annotated[
        NfKind, typer.Option(metavar="columns|packets|kernel|c", help="How it handles packets.")
    ] = NfKind.COLUMNS,
    output_dir: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder in which its own folder is made.")
    ] = Path(),
    author: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Author, for its metadata.", show_default="asked for"),
    ] = None,
    description: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Its purpose, in one line.", show_default="asked for"),
    ] = None,
    license: Annotated[
        License,
        typer.Option(metavar="Apache-2.0|MIT|BSD-3-Clause|none", help="Its licence."),
    ] = License.APACHE,
    ci: Annotated[
        Ci,
        typer.Option(
            metavar="none|github|gitlab|both",
            help="Where it is tested and published: files for that service.",
        ),
    ] = Ci.NONE,
    no_input: Annotated[
        bool, typer.Option("--no-input", help="Ask nothing; leave out what is not given.")
    ] = False,
) -> None:
    """Write the package of a new NF, with a first version and tests.

    Examples:
        onvm nf new counter
    """
    for owner in discover():
        if owner.name == name:
            print(
                f"warning: the installed {owner.distribution} {owner.version} has an NF {name!r}; "
                "one of the two packages can be installed",
                file=sys.stderr,
            )
    if not no_input:
        description = description or typer.prompt("Its purpose, in one line", default="")
        author = author or typer.prompt("Author", default="")
    folder = render(
        name,
        kind,
        output_dir,
        description=description or "",
        author=author or "",
        license=license,
        ci=ci,
    )
    print(f"wrote {folder}")
    print(f"next: onvm nf install {folder} && onvm nf test {folder}")
