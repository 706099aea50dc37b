"""``onvm nf test``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.plugins.selftest import run_tests

__all__ = ["test"]


def test(
    target: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="An installed NF.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- PYTEST_OPTION…]", help="Handed to pytest.")
    ] = None,
) -> None:
    """Run the tests of a network function and the checks that every NF must pass."""
    raise typer.Exit(run_tests(target, options or []))
