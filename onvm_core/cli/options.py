"""Options that commands share, alone and in groups.

A group is a frozen dataclass whose fields are options. A command takes it as one parameter, and
`with_option_groups` shows the fields to typer, so that the help of each command is complete.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from onvm_core.cli import names
from onvm_sdk.errors import ConfigError

__all__ = [
    "DEFAULT_FILE",
    "ChainOptions",
    "FileOption",
    "FilterOption",
    "JsonOption",
    "NameOption",
    "names_in",
    "with_option_groups",
]

ResultT = TypeVar("ResultT")

NameOption = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Name of the manager, among this user's.",
        autocompletion=names.managers,
    ),
]
FileOption = Annotated[
    Path,
    typer.Option("--file", "-f", metavar="FILE", help="Configuration of the manager."),
]
FilterOption = Annotated[
    str,
    typer.Option(
        "--filter", metavar="FILTER", help="As in pcap-filter(7): udp port 53.", show_default="all"
    ),
]
DEFAULT_FILE = Path("onvm.toml")
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def with_option_groups(command: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """Show the groups among the parameters of `command` as their options."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            parameters |= _options_of(hints[name])
        else:
            parameters[name] = parameter.replace(
                annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY
            )

    @functools.wraps(command)
    def expanded(**values: Any) -> ResultT:
        made = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        return command(**made, **values)

    del expanded.__wrapped__  # typer would otherwise read the options of `command`
    expanded.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    expanded.__annotations__ = {one.name: one.annotation for one in parameters.values()}
    return expanded


def _options_of(group: Any) -> dict[str, inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return {
        field.name: inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    }


def names_in(text: str) -> list[str]:
    """The names in a list such as "nat,firewall"."""
    return [name.strip() for name in text.split(",") if name.strip()]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainOptions:
    """The behaviour of a chain, apart from its ports."""

    services: Annotated[
        str,
        typer.Option(
            metavar="SERVICE,…",
            help="Services in the order in which packets pass them.",
            show_default="none",
            autocompletion=names.services_in_list,
        ),
    ] = ""
    one_way: Annotated[
        bool, typer.Option("--one-way", help="Carry no packets from --out back to --in.")
    ] = False
    track_flows: Annotated[
        bool,
        typer.Option(
            "--track-flows/--no-track-flows", help="Keep each flow on the path it has taken first."
        ),
    ] = True
    bypass: Annotated[
        bool, typer.Option("--bypass", help="Skip a service that has no instance.")
    ] = False
    wait: Annotated[
        bool, typer.Option("--wait", help="Hold packets while a service has no instance.")
    ] = False

    @property
    def service_names(self) -> list[str]:
        """The services, in order."""
        return names_in(self.services)

    @property
    def on_failure(self) -> Literal["drop", "wait", "bypass"]:
        """The treatment of packets while a service has no instance.

        Raises:
            ConfigError: both options are given.
        """
        if self.wait and self.bypass:
            raise ConfigError("expected at most one of --bypass and --wait", field="--bypass")
        return "wait" if self.wait else "bypass" if self.bypass else "drop"
