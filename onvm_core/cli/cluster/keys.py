"""``onvm cluster keys``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onvm_core.cli.cluster.connection import ClusterOptions
from onvm_core.cli.options import with_option_groups
from onvm_core.cli.output import OutputOptions
from onvm_core.cli.table import table_of, text
from onvm_core.cluster.credentials import DEFAULT_USER, Credentials, write_secret
from onvm_core.cluster.member.state_directory import read_state, state_directory
from onvm_core.cluster.status import read_status

__all__ = ["app"]

CREDENTIALS = "credentials"
JAAS = "zookeeper-jaas.conf"

app = typer.Typer(no_args_is_help=True)


@app.command()
def new(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the files go; made if missing.")
    ],
    user: Annotated[
        str, typer.Option(metavar="NAME", help="User name at ZooKeeper.")
    ] = DEFAULT_USER,
) -> None:
    """Make the credentials of a cluster.

    One file is for its hosts, one for its ZooKeeper servers. Each host's own key, for talking to
    other hosts, is made when it joins.

    Examples:
        onvm cluster keys new keys
    """
    made = Credentials.make(user)
    write_secret(folder / CREDENTIALS, made.line)
    write_secret(folder / JAAS, made.jaas)
    print(f"{folder / CREDENTIALS}: for each host; onvm cluster join … --credentials FILE")
    print(
        f"{folder / JAAS}: for each ZooKeeper server; java -Djava.security.auth.login.config=FILE …"
    )


@app.command()
@with_option_groups
def show(
    where: ClusterOptions,
    output: OutputOptions,
) -> None:
    """Show the public keys by which agents know each other.

    Examples:
        onvm cluster keys show
    """
    mine = read_state(state_directory(where.manager))
    with where.reach() as found:
        shown = read_status(found.ensemble, found.paths)
    rows = [
        {"host": host.name, "key": host.key, "here": mine is not None and host.key == mine.key}
        for host in shown.hosts
    ]
    marked = [{**row, "here": "this host" if row["here"] else ""} for row in rows]
    columns = {"host": text("host"), "key": text("public key"), "here": text("", 1)}
    output.show(
        rows,
        lambda: table_of("", marked, columns),
        lambda: [f"host/{host.name}" for host in shown.hosts],
    )
