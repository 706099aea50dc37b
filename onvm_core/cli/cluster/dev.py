"""``onvm cluster dev``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from onvm_core.cli.cluster.status import cluster_tables
from onvm_core.cli.options import names_in
from onvm_core.cli.signals import stop_on_signals
from onvm_core.cli.table import make_console
from onvm_sdk.errors import OnvmError

__all__ = ["dev"]

POLL_S = 0.05


def dev(
    hosts: Annotated[int, typer.Option(min=2, max=16, metavar="N", help="Number of hosts.")] = 3,
    services: Annotated[
        str, typer.Option(metavar="SERVICE,…", help="Services of the chain across the hosts.")
    ] = "firewall",
    servers: Annotated[
        int, typer.Option(min=1, max=5, metavar="N", help="Number of ZooKeeper servers.")
    ] = 1,
    once: Annotated[
        bool, typer.Option("--once", help="Start, show that packets pass, and end.")
    ] = False,
) -> None:
    """Try a cluster on this machine, with hosts as network namespaces.

    Needs root and ZooKeeper's package. It stays until Ctrl-C; then everything is gone.

    Examples:
        onvm cluster dev
    """
    from onvm_core.cluster.dev.dev_cluster import DevCluster

    names = names_in(services)
    with stop_on_signals() as received, DevCluster(hosts, names, servers, _say) as made:
        answered, mean_ms = made.probe()
        _say(
            f"20 datagrams from client to server: {answered} answered, {mean_ms:.1f} ms on average"
        )
        make_console().print(cluster_tables(made.status()))
        if answered == 0:
            raise OnvmError("no datagram came back")
        if once:
            return
        folder = made.folder
        _say(
            f"\nIn another terminal, for example:\n"
            f"  {folder}/onvm cluster status\n"
            f"  {folder}/onvm cluster scale out {names[0] if names else 'firewall'}\n"
            f"  {folder}/in client ping 10.9.0.2\n"
            f"  {folder}/in h1 onvm status --name h1\n"
            "Ctrl-C ends it."
        )
        while not received:
            time.sleep(POLL_S)


def _say(line: str) -> None:
    print(line, flush=True)
