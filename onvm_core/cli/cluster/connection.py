"""How commands find their cluster: by options, environment, or what the agent here has joined."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
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
    "ClusterOption",
    "CredentialsOption",
    "EnsembleOption",
    "ManagerOption",
    "Reach",
    "TlsOption",
    "author",
    "connected",
    "make_connection",
    "open_ensemble",
    "reach",
]

DEFAULT_CLUSTER = "main"
CONNECT_S = 10.0

EnsembleOption = Annotated[
    str | None,
    typer.Option(
        "--ensemble",
        metavar="HOST:PORT,…",
        envvar="ONVM_ENSEMBLE",
        help="ZooKeeper servers; else those that the agent here has joined.",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME", envvar="ONVM_CLUSTER", help="Name of the cluster."),
]
CredentialsOption = Annotated[
    Path | None,
    typer.Option(
        "--credentials",
        metavar="FILE",
        help="File with user:password, of mode 0600.",
    ),
]
TlsOption = Annotated[
    str | None,
    typer.Option(
        "--tls",
        metavar="CA,CERT,KEY",
        envvar="ONVM_CLUSTER_TLS",
        help="PEM files: use TLS with a client certificate.",
    ),
]
ManagerOption = Annotated[
    str, typer.Option("--manager", metavar="NAME", help="Which of this user's managers.")
]


class Reach(msgspec.Struct, frozen=True):
    """A session with a cluster's ensemble."""

    ensemble: Ensemble
    paths: Paths


def make_connection(
    manager: str,
    ensemble: str | None,
    cluster: str | None,
    credentials: Path | None,
    tls: str | None,
    session_s: float | None = None,
) -> Connection:
    """What was given, and for the rest what the agent here has joined.

    Raises:
        ConfigError: nothing says which ensemble.
    """
    state = read_state(state_directory(manager))
    known = None if state is None else state.connection
    if ensemble is None and known is None:
        raise ConfigError(
            "expected host:port,host:port (this host has joined no cluster)", field="--ensemble"
        )
    if ensemble is not None:
        check_hosts(ensemble)
    made = known or Connection(ensemble=ensemble or "", cluster=DEFAULT_CLUSTER)
    changes: dict[str, object] = {}
    if ensemble is not None:
        changes["ensemble"] = ensemble
    if cluster is not None:
        changes["cluster"] = check_name(cluster, "--cluster")
    if credentials is not None:
        changes["credentials"] = str(credentials.absolute())
    if tls is not None:
        changes["tls"] = _tls(tls)
    if session_s is not None:
        changes["session_s"] = session_s
    return msgspec.structs.replace(made, **changes)


def _tls(text: str) -> tuple[str, str, str]:
    parts = text.split(",")
    if len(parts) != 3:
        raise ConfigError("expected three files: CA,CERT,KEY", field="--tls", value=text)
    for part in parts:
        if not Path(part).is_file():
            raise ConfigError("no such file", field="--tls", value=part)
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


@contextmanager
def reach(
    manager: str,
    ensemble: str | None,
    cluster: str | None,
    credentials: Path | None,
    tls: str | None,
) -> Iterator[Reach]:
    """A session with the cluster that options, environment or the agent here name."""
    with connected(make_connection(manager, ensemble, cluster, credentials, tls)) as made:
        yield made


def author() -> str:
    """Who changes something, as history shows it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "?"
    return f"{user}@{socket.gethostname()}"
