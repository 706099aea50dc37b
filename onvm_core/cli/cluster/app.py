"""``onvm cluster``: many hosts as one."""

from __future__ import annotations

import typer

from onvm_core.cli.cluster.chain import app as chain_app
from onvm_core.cli.cluster.copies import export, import_, recover
from onvm_core.cli.cluster.dev import dev
from onvm_core.cli.cluster.init import init
from onvm_core.cli.cluster.join import join
from onvm_core.cli.cluster.keys import app as keys_app
from onvm_core.cli.cluster.leave import drain, leave
from onvm_core.cli.cluster.scale import app as scale_app
from onvm_core.cli.cluster.service import app as service_app
from onvm_core.cli.cluster.status import status

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)
for command in (init, join, leave, drain, status, dev):
    app.command()(command)
for name, command in (("export", export), ("import", import_), ("recover", recover)):
    app.command(name)(command)
app.add_typer(chain_app, name="chain", help="Manage chains over all hosts, with history.")
app.add_typer(service_app, name="service", help="Manage how services scale over all hosts.")
app.add_typer(scale_app, name="scale", help="Ask for instances, and list such requests.")
app.add_typer(keys_app, name="keys", help="Make credentials, and show public keys.")
