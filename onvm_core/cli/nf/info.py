"""``onvm nf info``: what an NF says about itself, as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from onvm_core.cli import names
from onvm_core.cli.options import with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.cli.table import table_of, text
from onvm_core.plugins import NfPackage, discover
from onvm_core.plugins.permissions import ISOLATED, MEANINGS
from onvm_sdk.errors import PluginError
from onvm_sdk.manifest import ConfigKey, Manifest
from onvm_sdk.spelling import one_of

__all__ = ["info", "package_row"]

LABEL_WIDTH = 14


@with_option_groups
def info(
    name: Annotated[
        str, typer.Argument(metavar="NF", help="Name of an installed NF.", autocompletion=names.nfs)
    ],
    output: OutputOptions,
) -> None:
    """Show what an NF is, may do, needs, and how it is configured.

    Examples:
        onvm nf info firewall
    """
    found = [package for package in discover() if package.name == name]
    if not found:
        names = one_of((package.name for package in discover()), name)
        raise PluginError(f"expected an installed NF: {names}", field="nf info", value=name)
    output.show(
        [_details(package) for package in found],
        lambda: Group(*(part for package in found for part in _page(package))),
        lambda: [f"nf/{package.name}" for package in found],
    )


def package_row(package: NfPackage) -> dict[str, Any]:
    """A package as `onvm nf list` shows it."""
    return {
        "name": package.name,
        "service": package.service,
        "distribution": package.distribution,
        "version": package.version,
        "status": package.status.value,
        "reason": package.reason,
    }


def _details(package: NfPackage) -> dict[str, Any]:
    manifest = None if package.manifest is None else package.manifest.to_dict()
    return {
        **package_row(package),
        "target": package.target,
        "manifest_path": None if package.manifest_path is None else str(package.manifest_path),
        "manifest": manifest,
    }


def _page(package: NfPackage) -> list[RenderableType]:
    manifest = package.manifest
    summary = f": {manifest.summary}" if manifest is not None and manifest.summary else ""
    status = package.status.value + (f": {package.reason}" if package.reason else "")
    lines: dict[str, str] = {
        "Package": f"{package.distribution} {package.version}",
        "Status": status,
        "Class": package.target,
        "Manifest": str(package.manifest_path or ""),
    }
    if manifest is not None:
        lines |= _facts(manifest)
    parts: list[RenderableType] = [
        Text.assemble((package.name, "bold"), summary),
        *(_fact(label, value) for label, value in lines.items() if value),
    ]
    if manifest is not None:
        parts += ["", Text("It may", "bold")]
        parts += [_fact(name, MEANINGS[name]) for name in manifest.permissions]
        lacking = [name for name in ISOLATED if name not in manifest.permissions]
        if lacking:
            parts += ["", Text("It may not, in a sandbox or container", "bold")]
            parts += [_fact(name, MEANINGS[name]) for name in lacking]
        parts += ["", *_config(manifest.config)]
    return [*parts, ""]


def _facts(manifest: Manifest) -> dict[str, str]:
    burst = "packet" if manifest.burst_size == 1 else "packets"
    needs = f"{manifest.cores:g} core{'' if manifest.cores == 1 else 's'}"
    needs += f", {manifest.memory_mib:,} MiB"
    needs += ", huge pages" if manifest.huge_pages else ""
    needs += ", the NUMA node of its ports" if manifest.numa == "port" else ""
    loan = f", {manifest.loaned_buffers:,} buffers on loan" if manifest.loaned_buffers else ""
    return {
        "Service": manifest.service,
        "SDK": manifest.sdk,
        "Needs": needs,
        "State": manifest.state,
        "Bursts": f"{manifest.burst_size:,} {burst}{loan}"
        + (", as on the wire" if manifest.wire_sized else ""),
        "Drop reasons": ", ".join(manifest.drop_reasons),
        "Counters": ", ".join(manifest.counters),
    }


def _fact(label: str, value: str) -> RenderableType:
    """A label and a text, which is folded beside it."""
    row = {"label": f"  {label:{LABEL_WIDTH}}", "value": value}
    table = table_of("", [row], {"label": text(""), "value": text("", folds=True)})
    table.has_headings = False
    return table


def _config(config: Mapping[str, ConfigKey]) -> list[RenderableType]:
    if not config:
        return [Text("It has no configuration.")]
    rows = [
        {
            "key": name,
            "type": key.type + (f" of {key.items}" if key.items else ""),
            "default": "required" if key.is_required else _value(key.default),
            "range": _range(key),
            "description": key.description,
        }
        for name, key in config.items()
    ]
    columns = {
        "key": text("key"),
        "type": text("type", 2),
        "default": text("default", folds=True),
        "range": text("range", 1, folds=True),
        "description": text("description", folds=True, least=30),
    }
    return [Text("Configuration", "bold"), table_of("", rows, columns)]


def _value(value: object) -> str:
    """A value as it stands in a TOML file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + "}"
    return str(value)


def _range(key: ConfigKey) -> str:
    if key.choices is not None:
        return ", ".join(map(_value, key.choices))
    unit = "" if key.type in ("int", "float") or key.items in ("int", "float") else " long"
    least = "" if key.min is None else f"{key.min:,.10g}"
    most = "" if key.max is None else f"{key.max:,.10g}"
    if not least and not most:
        return ""
    return (
        f"{least} to {most}" if least and most else f"≥ {least}" if least else f"≤ {most}"
    ) + unit
