"""Sections of ``onvm.toml`` for automatic behaviour: scaling, exporters, faults.

[scale.SERVICE]        min, max, target, hysteresis, out_after_s, in_after_s, cooldown_s,
                       standby, drain_s, handover_ms, policy, options
[exporters.NAME]       kind, interval_s, options
[faults]               hang_ms, ready_s
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from onvm_core.scaling.policy import ScaleSettings
from onvm_sdk.errors import ConfigError
from onvm_sdk.spelling import one_of

__all__ = ["ExporterConfig", "FaultsConfig", "ScaleConfig", "check_scale", "nearest"]

Count = Annotated[int, msgspec.Meta(ge=1, le=64)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of the file."""


class ScaleConfig(_Table, frozen=True):
    """``[scale.SERVICE]``."""

    min: Count = 1
    """The least number of instances."""
    max: Count = 4
    """The greatest number of instances."""
    target: Share = 0.7
    """Target utilisation."""
    hysteresis: Annotated[float, msgspec.Meta(ge=0.05, le=0.95)] = 0.2
    """An instance may go if the others stay below `target` by this share."""
    out_after_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.1
    """Utilisation above `target` for this time brings an instance."""
    in_after_s: Annotated[float, msgspec.Meta(ge=0.1, le=86400)] = 10.0
    """An instance goes after it was not needed for this time."""
    cooldown_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 1.0
    """Minimum time between two changes."""
    standby: Annotated[int, msgspec.Meta(ge=0, le=8)] = 0
    """Instances that are started and set up, and serve only when they are needed."""
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 300.0
    """After this time, flows of a draining instance that have not ended move to other instances."""
    handover_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 250
    """The longest time that packets may wait while a draining instance hands its state over; 0: it
    never does.
    """
    policy: str = "utilisation"
    """Name of an offered scaling policy."""
    options: dict[str, Any] = {}
    """Options of a policy that a plugin provides."""

    def settings(self) -> ScaleSettings:
        """Convert it to the form that a policy gets."""
        return ScaleSettings(
            min=self.min,
            max=self.max,
            target=self.target,
            hysteresis=self.hysteresis,
            out_after_s=self.out_after_s,
            in_after_s=self.in_after_s,
            options=self.options,
        )


class ExporterConfig(_Table, frozen=True):
    """``[exporters.NAME]``."""

    kind: str = ""
    """Name of an offered exporter; by default the name of the table."""
    interval_s: Annotated[float, msgspec.Meta(ge=0.1, le=86400)] = 10.0
    """Time between two exports."""
    options: dict[str, Any] = {}
    """Options of the exporter, such as ``file``."""


class FaultsConfig(_Table, frozen=True):
    """``[faults]``."""

    hang_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 400
    """An NF host that has packets but makes no progress for this time is ended; 0: never."""
    ready_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 60.0
    """An NF host that does not serve within this time of its start is ended."""


def check_scale(
    scale: Mapping[str, ScaleConfig],
    path: Path,
    services: Iterable[str],
    fused: Sequence[Sequence[str]],
) -> None:
    """Check what msgspec cannot.

    Args:
        services: the services that the NFs of the file provide.
        fused: the services of each process that runs several.

    Raises:
        ConfigError: the file has a mistake.
    """
    for service, config in scale.items():
        place = f"scale.{service}"
        if service not in services:
            raise ConfigError(
                f"expected a service that an NF of this file provides; "
                f"{nearest(service, services)}",
                file=path,
                field="scale",
                value=service,
            )
        if config.min > config.max:
            raise ConfigError(
                f"expected at most max ({config.max})",
                file=path,
                field=f"{place}.min",
                value=config.min,
            )
        for together in fused:
            others = [name for name in together if name in scale and name != service]
            if service in together and others:
                raise ConfigError(
                    f"expected only one of {service} and {others[0]}: they are fused",
                    file=path,
                    field="scale",
                    value=service,
                )


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names, and the closest one to `name`, as text: "expected …"."""
    names = list(known)
    if not names:
        return "expected a defined name; there is none"
    return f"expected {one_of(sorted(names), name)}"
