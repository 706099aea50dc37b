"""Options that commands which talk to a manager share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["JsonOption", "NameOption"]

NameOption = Annotated[
    str, typer.Option("--name", metavar="NAME", help="Which of this user's managers.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
