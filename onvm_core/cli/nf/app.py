"""``onvm nf``: installed NFs, with one file for each action on them."""

from __future__ import annotations

import typer

from onvm_core.cli.nf.build import build
from onvm_core.cli.nf.check import check
from onvm_core.cli.nf.command import SETTINGS, explain, import_
from onvm_core.cli.nf.config import config
from onvm_core.cli.nf.image import image
from onvm_core.cli.nf.info import info, package_row
from onvm_core.cli.nf.install import install, uninstall, upgrade
from onvm_core.cli.nf.lists import kill, show
from onvm_core.cli.nf.new import new
from onvm_core.cli.nf.run import run, stop
from onvm_core.cli.nf.test import test
from onvm_core.cli.options import with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.cli.table import table_of, text
from onvm_core.plugins import discover

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@with_option_groups
def list_(*, output: OutputOptions) -> None:
    """List the installed NFs, without importing them.

    Examples:
        onvm nf list
    """
    rows = [package_row(package) for package in discover()]
    columns = {
        "name": text("name"),
        "service": text("service", 1),
        "distribution": text("package"),
        "version": text("version"),
        "status": text("status"),
        "reason": text("reason", folds=True),
    }
    none = "no network functions are installed; try: onvm nf install onvm-nf-firewall"
    output.show(
        rows,
        lambda: table_of("", rows, columns) if rows else none,
        lambda: [f"nf/{row['name']}" for row in rows],
    )


app.command()(info)
app.command()(check)
app.command("import", context_settings=SETTINGS)(import_)
app.command(context_settings=SETTINGS)(explain)
app.command()(install)
app.command()(upgrade)
app.command()(uninstall)
app.command()(image)
app.command()(new)
app.command()(test)
app.command()(build)
app.command()(run)
app.command()(stop)
app.command()(config)
app.command()(show)
app.command()(kill)
