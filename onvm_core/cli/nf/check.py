"""``onvm nf check``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from onvm_core.cli import names
from onvm_core.cli.options import JsonOption
from onvm_core.cli.output import print_json
from onvm_core.plugins import discover
from onvm_core.plugins.discovery import find
from onvm_core.plugins.nf_commands import check_config

__all__ = ["check"]


def check(
    nf: Annotated[
        str, typer.Argument(metavar="NF", help="Name of an installed NF.", autocompletion=names.nfs)
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A configuration of it.")],
    as_json: JsonOption = False,
) -> None:
    """Check a configuration of an NF, and start nothing.

    Mistakes end it with status 2. Warnings, such as of rules that never decide, do not.

    Examples:
        onvm nf check firewall firewall.toml
    """
    warnings = list(check_config(find(nf, discover()), file))
    if as_json:
        print_json({"file": str(file), "warnings": warnings})
        return
    for warning in warnings:
        print(f"warning: {file}: {warning}", file=sys.stderr)
    print(f"{file}: fine")
