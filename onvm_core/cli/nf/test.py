"""``onvm nf test``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.plugins.selftest import run_tests

__all__ = ["test"]


def test(
    target: Annotated[
        str,
        typer.Argument(metavar="NF|FOLDER", help="An installed NF, or the folder of its package."),
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- OPTION", help="Options for pytest, after two hyphens.", show_default="none"
        ),
    ] = None,
) -> None:
    """Run the tests of an NF and the checks that every NF must pass.

    Examples:
        onvm nf test firewall
        onvm nf test ./onvm-nf-counter -- -k drop
    """
    raise typer.Exit(run_tests(target, options or []))
