"""The options of ``onvm cluster service set``: the fields of a `ServiceNode`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import msgspec
import typer

from onvm_core.cluster.tree.nodes import ServiceNode

__all__ = ["ScaleOptions"]

_NEW: dict[str, Any] = msgspec.structs.asdict(ServiceNode(revision=1))


def _unchanged(name: str) -> str:
    return f"unchanged, or {_NEW[name]} for a new service"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleOptions:
    """How a service scales; None leaves a field as it is."""

    min: Annotated[
        int | None,
        typer.Option(
            "--min",
            min=0,
            max=4096,
            metavar="N",
            help="Least number of instances.",
            show_default=_unchanged("min"),
        ),
    ] = None
    max: Annotated[
        int | None,
        typer.Option(
            "--max",
            min=1,
            max=4096,
            metavar="N",
            help="Greatest number of instances.",
            show_default=_unchanged("max"),
        ),
    ] = None
    target: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            metavar="X",
            help="Utilisation to aim at, 1 for all of a core.",
            show_default=_unchanged("target"),
        ),
    ] = None
    hysteresis: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=0.95,
            metavar="X",
            help="Share below the target to which utilisation must fall before scale-in.",
            show_default=_unchanged("hysteresis"),
        ),
    ] = None
    out_after_s: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=3600,
            metavar="S",
            help="Seconds of overload before scale-out.",
            show_default=_unchanged("out_after_s"),
        ),
    ] = None
    in_after_s: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=86400,
            metavar="S",
            help="Seconds of low load before scale-in.",
            show_default=_unchanged("in_after_s"),
        ),
    ] = None
    cooldown_s: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=3600,
            metavar="S",
            help="Seconds between two changes.",
            show_default=_unchanged("cooldown_s"),
        ),
    ] = None
    request_s: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=86400,
            metavar="S",
            help="Seconds after which a request expires.",
            show_default=_unchanged("request_s"),
        ),
    ] = None
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Scaling policy, which decides when.",
            show_default=_unchanged("policy"),
        ),
    ] = None
    placement: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Host policy, which decides where.",
            show_default=_unchanged("placement"),
        ),
    ] = None

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that were given."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in given.items() if value is not None}
