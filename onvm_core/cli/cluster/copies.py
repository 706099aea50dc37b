"""``onvm cluster export``, ``import`` and ``recover``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from onvm_core.cli.cluster.connection import (
    ClusterOptions,
    author,
    connected,
)
from onvm_core.cli.options import with_option_groups
from onvm_core.cluster.credentials import write_secret
from onvm_core.cluster.member.state_directory import COPY_FILE, state_directory
from onvm_core.cluster.tree.copy import ClusterCopy, make_from, read_copy, read_file
from onvm_sdk.errors import ConfigError

__all__ = ["export", "import_", "recover"]

CopyFile = Annotated[Path, typer.Argument(metavar="FILE", help="JSON file.")]


@with_option_groups
def export(where: ClusterOptions, file: CopyFile) -> None:
    """Write a copy of the cluster's tree to a file.

    It has hosts, chains, services, history and numbers, and no secret. See also import.
    """
    with where.reach() as found:
        copy = read_copy(found.ensemble, found.paths)
    write_secret(file, msgspec.json.format(msgspec.json.encode(copy)).decode())
    print(f"{file}: {_summary(copy)}")


@with_option_groups
def import_(where: ClusterOptions, file: CopyFile) -> None:
    """Bring a cluster that ZooKeeper has lost back from a file.

    The file is one of export. Agents that run find the cluster and register again; packets go on
    meanwhile.
    """
    _make(where, read_file(file))


@with_option_groups
def recover(where: ClusterOptions) -> None:
    """Bring a cluster that ZooKeeper has lost back from this host's copy.

    The copy is what its agent knew last. Run it on one host; history is lost.
    """
    path = state_directory(where.manager) / COPY_FILE
    if not path.exists():
        raise ConfigError(
            "expected a host whose agent has joined a cluster; for a copy in a file: "
            "onvm cluster import FILE",
            file=path,
        )
    _make(where, read_file(path))


def _make(where: ClusterOptions, copy: ClusterCopy) -> None:
    connection = where.connection(where.manager, where.ensemble)
    if where.cluster not in (None, copy.cluster.name):
        raise ConfigError(
            f"expected {copy.cluster.name!r}, the cluster of the copy",
            field="--cluster",
            value=where.cluster,
        )
    with connected(connection) as found:
        make_from(found.ensemble, copy, author())
    print(f"made cluster {copy.cluster.name} again: {_summary(copy)}")


def _summary(copy: ClusterCopy) -> str:
    taken = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(copy.taken))
    return (
        f"{len(copy.names)} hosts, {len(copy.chains)} chains, {len(copy.services)} services, "
        f"as of {taken}"
    )
