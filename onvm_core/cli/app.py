"""``onvm``: find the command, run it, turn its errors into exit statuses.

Commands come from the hook `onvm_cli_commands`. Only the one that is used is imported, so that
``onvm --help`` does not wait for the data plane.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from onvm_core.cli.help import use_pages
from onvm_core.cli.installed import plugins_of_process
from onvm_core.cli.outcome import outcome_of, refuse, warn
from onvm_core.cli.signals import INTERRUPTED, raise_interrupts
from onvm_core.cli.usage import usage_line
from onvm_core.plugins import CliCommand, PluginManager
from onvm_sdk.errors import PluginError

__all__ = ["build_app", "main"]

_COMPLETION_VARIABLE = "_ONVM_COMPLETE"
# Base of typer's errors for a wrong command line. It comes from click, or from the copy of click in
# newer versions of typer; this is the way to it that works for both.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line and exit."""
    sys.exit(_run(sys.argv[1:]))


def build_app(commands: Iterable[CliCommand], wanted: str | None) -> typer.Typer:
    """Make the application, with the `wanted` command imported and the others as their summary.

    Args:
        wanted: name of the command to import; None imports all.
    """
    app = typer.Typer(
        name="onvm",
        help="Network functions as pip packages, in service chains on a DPDK data plane.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for command in commands:
        _add(app, command, is_wanted=wanted is None or command.name == wanted)
    return app


def _run(arguments: Sequence[str]) -> int:
    return outcome_of(lambda: _command(arguments))


def _command(arguments: Sequence[str]) -> Any:
    plugins = plugins_of_process()
    commands = _commands(plugins)
    warn(plugins)
    words = _words_to_complete() if _COMPLETION_VARIABLE in os.environ else arguments
    app = use_pages(typer.main.get_command(build_app(commands, _command_of(words))))
    raise_interrupts()
    try:
        return app(args=list(arguments), prog_name="onvm", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except _UsageError as error:
        return refuse(usage_line(error, arguments))


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from onvm_core.cli.host.version import version
        from onvm_core.cli.output import OutputOptions

        version(**dataclasses.asdict(OutputOptions()))
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the versions of onvm, DPDK and Python.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    pass  # it makes the application a group even if it has one command


def _later() -> None:
    pass  # stands for a command that is not needed now


def _command_of(arguments: Sequence[str]) -> str:
    """The first argument that is no option; "" if there is none."""
    return next((argument for argument in arguments if not argument.startswith("-")), "")


def _words_to_complete() -> list[str]:
    """The words of the command line that the shell completes, without ``onvm``."""
    words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return words.split()[1:]


def _commands(plugins: PluginManager) -> list[CliCommand]:
    offers = plugins.offers("onvm_cli_commands").values()
    return [offer for offer in offers if isinstance(offer, CliCommand)]


def _add(app: typer.Typer, command: CliCommand, *, is_wanted: bool) -> None:
    target = command.load() if is_wanted else _later
    if isinstance(target, typer.Typer):
        app.add_typer(
            target, name=command.name, help=command.summary, rich_help_panel=command.panel
        )
    elif callable(target):
        app.command(
            command.name, help=None if is_wanted else command.summary, rich_help_panel=command.panel
        )(target)
    else:
        raise PluginError("expected a function or a typer.Typer", field=command.name, value=target)
