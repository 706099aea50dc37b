"""What onvm offers itself, through the hooks that a stranger's package uses."""

from __future__ import annotations

from collections.abc import Sequence

from onvm_core.plugins.hookspecs import CliCommand, hookimpl

__all__ = ["onvm_cli_commands"]

_COMMANDS = (
    CliCommand("nf", "List, install, write and test network functions.", "onvm_core.cli.nf:app"),
    CliCommand(
        "doctor",
        "Show what this host can do, and how to fix what it cannot.",
        "onvm_core.cli.doctor:doctor",
        panel="Host",
    ),
    CliCommand(
        "version",
        "Print the versions of onvm, DPDK and Python.",
        "onvm_core.cli.version:version",
        panel="Host",
    ),
)


@hookimpl
def onvm_cli_commands() -> Sequence[CliCommand]:
    """The commands of this package."""
    return _COMMANDS
