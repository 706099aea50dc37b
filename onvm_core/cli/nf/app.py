"""``onvm nf``: installed NFs, with one file for each action on them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from onvm_core.cli.nf.check import check
from onvm_core.cli.nf.command import SETTINGS, explain, import_
from onvm_core.cli.nf.config import config
from onvm_core.cli.nf.image import image
from onvm_core.cli.nf.install import install, uninstall
from onvm_core.cli.nf.lists import kill, show
from onvm_core.cli.nf.new import new
from onvm_core.cli.nf.run import run, stop
from onvm_core.cli.nf.test import test
from onvm_core.cli.options import JsonOption
from onvm_core.cli.output import print_json, print_table
from onvm_core.plugins import NfPackage, discover
from onvm_sdk.errors import PluginError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the installed NFs, without importing them."""
    rows = [_row(package) for package in discover()]
    if as_json:
        print_json(rows)
    elif not rows:
        print("no network functions are installed; try: onvm nf install onvm-nf-firewall")
    else:
        columns = {
            "name": "Name",
            "service": "Service",
            "distribution": "Package",
            "version": "Version",
            "status": "Status",
            "reason": "Reason",
        }
        print_table(rows, columns)


@app.command()
def info(
    name: Annotated[str, typer.Argument(metavar="NF", help="Name of an installed NF.")],
    as_json: JsonOption = False,
) -> None:
    """Show the manifest of an NF, and its faults."""
    rows = [_details(package) for package in discover() if package.name == name]
    if not rows:
        raise PluginError(
            "expected the name of an installed NF; see: onvm nf list", field="nf info", value=name
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        manifest = row.pop("manifest") or {}
        lines = [
            {"field": field, "value": value}
            for field, value in {**row, **manifest}.items()
            if value not in (None, "", [], {})
        ]
        print_table(lines, {"field": "Field", "value": "Value"})


app.command()(check)
app.command("import", context_settings=SETTINGS)(import_)
app.command(context_settings=SETTINGS)(explain)
app.command()(install)
app.command()(uninstall)
app.command()(image)
app.command()(new)
app.command()(test)
app.command()(run)
app.command()(stop)
app.command()(config)
app.command()(show)
app.command()(kill)


def _row(package: NfPackage) -> dict[str, Any]:
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
        **_row(package),
        "target": package.target,
        "manifest_path": None if package.manifest_path is None else str(package.manifest_path),
        "manifest": manifest,
    }
