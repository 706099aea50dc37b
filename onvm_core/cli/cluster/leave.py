"""``onvm cluster leave`` and ``onvm cluster drain``."""

from __future__ import annotations

import contextlib
import posixpath
import sys
import time
from typing import Annotated

import typer

from onvm_core.cli.cluster.connection import ClusterOptions
from onvm_core.cli.options import with_option_groups
from onvm_core.cluster.handover.leaving import move_away, set_draining
from onvm_core.cluster.links.manager import ManagerLink
from onvm_core.cluster.member.membership import remove_host, say_goodbye
from onvm_core.cluster.member.state_directory import StateDirectory, read_state, state_directory
from onvm_core.cluster.status import read_snapshot
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.manager.api.client import NoManagerError
from onvm_core.manager.api.directory import manager_directory
from onvm_core.manager.config.sections import nearest
from onvm_sdk.errors import ConfigError

__all__ = ["drain", "leave"]

GOODBYE_S = 0.5


@with_option_groups
def leave(
    where: ClusterOptions,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Another host, which is gone for good.", show_default="this host"
        ),
    ] = None,
    drain_s: Annotated[
        float,
        typer.Option(
            min=0, max=3600, metavar="S", help="Seconds for its NFs to move to other hosts."
        ),
    ] = 10.0,
    force: Annotated[
        bool, typer.Option("--force", help="Leave although a chain ends on the host.")
    ] = False,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="Only forget the cluster here; for one that ZooKeeper has lost."
        ),
    ] = False,
) -> None:
    """Take this host, or another, out of the cluster.

    NFs that have others of their kind elsewhere first hand over their state, and end. Then its
    agent ends; the other NFs stay.

    Examples:
        onvm cluster leave
    """
    if local:
        _forget(where.manager)
        return
    if host is None:
        known = read_state(state_directory(where.manager))
        if known is None or not known.name:
            raise ConfigError("expected a host that has joined a cluster", field="leave")
        host = known.name
    with where.reach() as found:
        if not force:
            _check_ends(read_snapshot(found.ensemble, found.paths), host)
        if drain_s > 0 and not move_away(found.ensemble, found.paths, host, drain_s):
            print(f"not all of {host}'s NFs have moved within {drain_s:g} s", file=sys.stderr)
        if say_goodbye(found.ensemble, found.paths, host):
            time.sleep(GOODBYE_S)  # so that all see it before the host is gone
        if not remove_host(found.ensemble, found.paths, host):
            names = found.ensemble.client.get_children(found.paths.names)
            raise ConfigError(
                f"expected a host of the cluster; {nearest(host, names)}",
                field="--host",
                value=host,
            )
    print(f"{host} has left the cluster")


def _check_ends(snapshot: Snapshot, host: str) -> None:
    """Check that no chain ends on a host.

    Raises:
        ConfigError: one does.
    """
    chains = [
        name for name, chain in snapshot.chains.items() if host in (chain.near.host, chain.far.host)
    ]
    if chains:
        raise ConfigError(
            f"expected a host on which no chain ends ({', '.join(chains)}); remove these, or "
            "leave with --force: they drop all packets then",
            field="leave",
            value=host,
        )


def _forget(manager: str) -> None:
    """Forget the cluster on this host, without asking ZooKeeper."""
    with StateDirectory(state_directory(manager)) as state:
        name = state.state.name
        if not name:
            raise ConfigError("expected a host that has joined a cluster", field="leave")
        with ManagerLink(manager_directory(manager)) as link, contextlib.suppress(NoManagerError):
            link.apply(None)
        state.forget()
    print(f"{name} has forgotten its cluster")


@with_option_groups
def drain(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host of the cluster.")],
    where: ClusterOptions,
    undo: Annotated[bool, typer.Option("--undo", help="Let it get new flows again.")] = False,
) -> None:
    """Give a host no new flows and no new instances.

    Instances that can hand over their state move to others of their kind, and end; where there are
    none elsewhere, one is requested. On the other instances, running flows stay until they end;
    onvm cluster status shows the state.

    Examples:
        onvm cluster drain h2
    """
    with where.reach() as found:
        with found.ensemble.call(f"drain {host}") as client:
            names = client.get_children(found.paths.names)
            if host not in names:
                raise ConfigError(
                    f"expected a host of the cluster; {nearest(host, names)}",
                    field="drain",
                    value=host,
                )
            path = posixpath.join(found.paths.draining, host)
            if undo and client.exists(path) is not None:
                client.delete(path)
        if not undo:
            set_draining(found.ensemble, found.paths, host)
    print(f"{host} {'gets new flows again' if undo else 'drains'}")
