"""``onvm nf import`` and ``onvm nf explain``: commands that NFs bring along."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli import names
from onvm_core.plugins import discover
from onvm_core.plugins.discovery import find
from onvm_core.plugins.nf_commands import run_command

__all__ = ["SETTINGS", "explain", "import_"]

SETTINGS = {"ignore_unknown_options": True, "allow_extra_args": True}
"""The options behind the name of the NF are its own."""

NfArgument = Annotated[
    str, typer.Argument(metavar="NF", help="Name of an installed NF.", autocompletion=names.nfs)
]
RestArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="...", help="Arguments of the NF; its README explains them.", show_default="none"
    ),
]


def import_(nf: NfArgument, arguments: RestArgument = None) -> None:
    """Write a configuration of an NF that does what other software's does.

    Examples:
        onvm nf import firewall --iptables rules.v4
    """
    raise typer.Exit(run_command(find(nf, discover()), "import", arguments or []))


def explain(nf: NfArgument, arguments: RestArgument = None) -> None:
    """Say what an NF does with a packet, and why.

    Examples:
        onvm nf explain firewall firewall.toml packet.pcap
    """
    raise typer.Exit(run_command(find(nf, discover()), "explain", arguments or []))
