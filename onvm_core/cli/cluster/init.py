"""``onvm cluster init``."""

from __future__ import annotations

from typing import Annotated

import typer

from onvm_core.cli.cluster.connection import AccessOptions, connected
from onvm_core.cli.options import with_option_groups
from onvm_core.cluster.credentials import read_credentials
from onvm_core.cluster.tree.foundation import make_cluster
from onvm_core.manager.cluster_view.view import DataSecurity
from onvm_sdk.errors import ConfigError

__all__ = ["init"]


@with_option_groups
def init(
    ensemble: Annotated[str, typer.Argument(metavar="HOST:PORT,…", help="ZooKeeper servers.")],
    access: AccessOptions,
    vni: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=(1 << 24) - 1,
            metavar="N",
            help="VXLAN network identifier of the cluster's packets.",
            show_default="random",
        ),
    ] = None,
    data_security: Annotated[
        DataSecurity,
        typer.Option(
            help="Protect packets between hosts with tags (auth), with tags and encryption "
            "(encrypt), or not at all (none: for a data network that you trust).",
        ),
    ] = "auth",
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Use no credentials: every client may change the cluster."),
    ] = False,
) -> None:
    """Make a cluster in an ensemble, for hosts to join.

    Examples:
        onvm cluster init zk1:2181,zk2:2181,zk3:2181
    """
    connection = access.connection("", ensemble)
    if read_credentials(access.credentials) is None and not insecure:
        raise ConfigError(
            "expected a file with credentials; make one: onvm cluster keys new FOLDER "
            "(or --insecure, for trying out)",
            field="--credentials",
        )
    with connected(connection) as found:
        node = make_cluster(found.ensemble, connection.cluster, vni, data_security)
    print(f"made cluster {node.name} (VNI {node.vni}, packets: {node.data_security})")
