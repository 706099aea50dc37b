"""The options of ``onvm cluster service set``: the fields of a `ServiceNode`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import msgspec
import typer

from onvm_core.cluster.tree.nodes import ServiceNode

__all__ = ["ScaleOptions"]

_HINTS = get_type_hints(ServiceNode, include_extras=True)
_NEW: dict[str, Any] = msgspec.structs.asdict(ServiceNode(revision=1))


def _option(field: str, metavar: str, text: str) -> Any:
    """The option of a field: its bounds and the default of a new service are those of the node."""
    metas = [one for one in _HINTS[field].__metadata__ if isinstance(one, msgspec.Meta)]
    return typer.Option(
        f"--{field.replace('_', '-')}",
        metavar=metavar,
        help=text,
        min=next((one.ge for one in metas if one.ge is not None), None),
        max=next((one.le for one in metas if one.le is not None), None),
        show_default=f"unchanged, or {_NEW[field]} for a new service",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleOptions:
    """The scaling of a service; None leaves a field unchanged."""

    min: Annotated[int | None, _option("min", "N", "Least number of instances.")] = None
    max: Annotated[int | None, _option("max", "N", "Greatest number of instances.")] = None
    target: Annotated[
        float | None, _option("target", "X", "Utilisation to aim at; 1 is all of a core.")
    ] = None
    hysteresis: Annotated[
        float | None,
        _option("hysteresis", "X", "Share of the target that must stay free after scale-in."),
    ] = None
    out_after_s: Annotated[
        float | None, _option("out_after_s", "S", "Seconds of overload before scale-out.")
    ] = None
    in_after_s: Annotated[
        float | None, _option("in_after_s", "S", "Seconds of low load before scale-in.")
    ] = None
    cooldown_s: Annotated[
        float | None, _option("cooldown_s", "S", "Seconds between two changes.")
    ] = None
    request_s: Annotated[
        float | None, _option("request_s", "S", "Seconds after which a request expires.")
    ] = None
    policy: Annotated[
        str | None, _option("policy", "NAME", "Scaling policy, which decides when.")
    ] = None
    placement: Annotated[
        str | None, _option("placement", "NAME", "Host policy, which decides where.")
    ] = None

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that were given."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in given.items() if value is not None}
