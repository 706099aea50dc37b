"""``onvm nf config``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onvm_core.cli import names
from onvm_core.cli.manager.connect import connect
from onvm_core.cli.manager.reload import print_change, wait_changed
from onvm_core.cli.options import JsonOption, NameOption
from onvm_core.cli.output import print_json
from onvm_core.manager.api.config_messages import ReconfigureRequest
from onvm_sdk.errors import ConfigError

__all__ = ["config"]


def config(
    nf: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE",
            help="A service, or a table of onvm.toml.",
            autocompletion=names.services,
        ),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Its new configuration.")],
    name: NameOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Give all instances of a service another configuration.

    Packets flow meanwhile. All instances change, or none does. Instances that start later have it,
    too, until the manager's file is reloaded or the manager ends.

    Examples:
        onvm nf config firewall firewall.toml
    """
    if not file.is_file():
        raise ConfigError("expected a file that exists", field="nf config", value=str(file))
    with connect(name) as client:
        done = wait_changed(client, ReconfigureRequest(name=nf, path=str(file.absolute())))
    if as_json:
        print_json(done)
    else:
        print_change(done)
