"""The way to a command's cluster: options, environment, or the cluster of the agent here."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from onvm_core.cluster.credentials import Credentials, Tls, check_private, read_credentials
from onvm_core.cluster.member.state_directory import Connection, read_state, state_directory
from onvm_core.cluster.tree.ensemble import Ensemble, check_hosts
from onvm_core.cluster.tree.nodes import Paths, check_name
from onvm_sdk.errors import ConfigError

__all__ = [
    "AccessOptions",
    "ClusterOptions",
    "ManagerOption",
    "Reach",
    "author",
    "connected",
    "open_ensemble",
]

DEFAULT_CLUSTER = "main"
CONNECT_S = 10.0
PANEL = "Cluster"
"""Heading in the help under which the options of `ClusterOptions` stand."""
AS_JOINED = "as joined"
"""The default that an option's help shows: the value with which the agent here has joined."""

ManagerOption = Annotated[
    str,
    typer.Option(
        "--manager",
        metavar="NAME",
        help="Name of the manager whose agent it is, among this user's.",
        rich_help_panel=PANEL,
    ),
]


class Reach(msgspec.Struct, frozen=True):
    """A session with a cluster's ensemble."""

    ensemble: Ensemble
    paths: Paths


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessOptions:
    """The cluster of an ensemble that a command addresses, and the credentials for it."""

    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="NAME",
            envvar="ONVM_CLUSTER",
            help="Name of the cluster.",
            show_default=f"{AS_JOINED}, else {DEFAULT_CLUSTER}",
            rich_help_panel=PANEL,
        ),
    ] = None
    credentials: Annotated[
        Path | None,
        typer.Option(
            "--credentials",
            metavar="FILE",
            help="File with user:password, of mode 0600.",
            show_default=f"{AS_JOINED}, else none",
            rich_help_panel=PANEL,
        ),
    ] = None
    tls: Annotated[
        str | None,
        typer.Option(
            "--tls",
            metavar="CA,CERT,KEY",
            envvar="ONVM_CLUSTER_TLS",
            help="PEM files for TLS with a client certificate.",
            show_default=f"{AS_JOINED}, else no TLS",
            rich_help_panel=PANEL,
        ),
    ] = None

    def connection(
        self, manager: str, ensemble: str | None, session_s: float | None = None
    ) -> Connection:
        """The given options, completed by the connection of the agent of `manager`.

        Raises:
            ConfigError: no ensemble is given.
        """
        state = read_state(state_directory(manager))
        known = None if state is None else state.connection
        if ensemble is None and known is None:
            raise ConfigError(
                "expected HOST:PORT,HOST:PORT (this host has joined no cluster)",
                field="--ensemble",
            )
        changes: dict[str, object] = {}
        if ensemble is not None:
            check_hosts(ensemble)
            changes["ensemble"] = ensemble
        if self.cluster is not None:
            changes["cluster"] = check_name(self.cluster, "--cluster")
        if self.credentials is not None:
            changes["credentials"] = str(self.credentials.absolute())
        if self.tls is not None:
            changes["tls"] = _tls(self.tls)
        if session_s is not None:
            changes["session_s"] = session_s
        made = known or Connection(ensemble=ensemble or "", cluster=DEFAULT_CLUSTER)
        return msgspec.structs.replace(made, **changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterOptions(AccessOptions):
    """The options with which a command finds its cluster."""

    ensemble: Annotated[
        str | None,
        typer.Option(
            "--ensemble",
            metavar="HOST:PORT,…",
            envvar="ONVM_ENSEMBLE",
            help="ZooKeeper servers.",
            show_default=AS_JOINED,
            rich_help_panel=PANEL,
        ),
    ] = None
    manager: ManagerOption = "main"

    def reach(self) -> AbstractContextManager[Reach]:
        """A session with the cluster, for one command."""
        return connected(self.connection(self.manager, self.ensemble))


def _tls(text: str) -> tuple[str, str, str]:
    parts = text.split(",")
    if len(parts) != 3:
        raise ConfigError("expected three files: CA,CERT,KEY", field="--tls", value=text)
    for part in parts:
        if not Path(part).is_file():
            raise ConfigError("expected a file that exists", field="--tls", value=part)
    check_private(Path(parts[2]))
    ca, certificate, key = (str(Path(part).absolute()) for part in parts)
    return ca, certificate, key


def open_ensemble(connection: Connection) -> tuple[Ensemble, Credentials | None]:
    """A session that is not connected yet."""
    path = None if connection.credentials is None else Path(connection.credentials)
    credentials = read_credentials(path)
    tls = None if connection.tls is None else Tls(*map(Path, connection.tls))
    made = Ensemble(connection.ensemble, credentials, session_s=connection.session_s, tls=tls)
    return made, credentials


@contextmanager
def connected(connection: Connection) -> Iterator[Reach]:
    """A session, for one command."""
    ensemble, _ = open_ensemble(connection)
    ensemble.connect(CONNECT_S)
    with ensemble:
        yield Reach(ensemble, Paths(connection.cluster))


def author() -> str:
    """The author of a change, as history shows it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "?"
    return f"{user}@{socket.gethostname()}"
