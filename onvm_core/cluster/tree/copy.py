"""Copies of a cluster's tree, from which it can be made again.

There are two kinds. `read_copy` reads all of a tree that is there (`onvm cluster export`). Each
agent also keeps a copy of all it knows on its host (`member_copy`), without history and the owners
of names, for the day when ZooKeeper has lost its data (`onvm cluster recover`).

A copy has everything that is persistent. The agents add their ephemeral nodes themselves: they see
that the cluster is theirs by its ID, and register. Until then all hosts count as away, so nothing
that serves is taken out of a manager's tables.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from kazoo.exceptions import NoNodeError

from onvm_core.cluster.tree.definitions import record
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.mirror import Mirror, Snapshot, read_cluster
from onvm_core.cluster.tree.nodes import (
    ROOT,
    ChainNode,
    ClusterNode,
    CounterNode,
    DamagedError,
    DrainNode,
    InstancesNode,
    KnownNode,
    NameNode,
    NodeT,
    Paths,
    ServiceNode,
    pack,
    unpack,
)
from onvm_core.cluster.tree.numbers import CHAINS, HOSTS, INSTANCES
from onvm_sdk.errors import ConfigError

__all__ = ["ClusterCopy", "make_from", "member_copy", "read_copy", "read_file"]

FORMAT = 1
HISTORIES = {"chains": "chain_history", "services": "service_history"}


class ClusterCopy(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in a cluster's tree that is persistent."""

    format: int = FORMAT
    taken: float
    """Seconds since 1970."""
    cluster: ClusterNode
    names: dict[str, NameNode] = {}
    known: dict[str, KnownNode] = {}
    draining: dict[str, DrainNode] = {}
    chains: dict[str, ChainNode] = {}
    services: dict[str, ServiceNode] = {}
    numbers: dict[str, CounterNode] = {}
    history: dict[str, dict[str, msgspec.Raw]] = {}
    """Records by kind of definition, then name and revision."""


def read_copy(ensemble: Ensemble, paths: Paths) -> ClusterCopy:
    """Read the tree.

    Raises:
        NoClusterError: there is no such cluster.
    """
    mirror = Mirror(ensemble, read_cluster(ensemble, paths), paths)
    mirror.refresh()
    snapshot = mirror.snapshot
    with ensemble.call("read the cluster") as client:
        return ClusterCopy(
            taken=round(time.time(), 3),
            cluster=snapshot.cluster,
            names=_read(client, paths.names, NameNode),
            known=_read(client, paths.known, KnownNode),
            draining=snapshot.draining,
            chains=snapshot.chains,
            services=snapshot.services,
            numbers=_read(client, paths.numbers, CounterNode),
            history={
                kind: {
                    name: msgspec.Raw(client.get(posixpath.join(getattr(paths, folder), name))[0])
                    for name in client.get_children(getattr(paths, folder))
                }
                for kind, folder in HISTORIES.items()
            },
        )


def _read(client: object, folder: str, kind: type[NodeT]) -> dict[str, NodeT]:
    found = {}
    for name in client.get_children(folder):  # type: ignore[attr-defined]
        try:
            data, _ = client.get(posixpath.join(folder, name))  # type: ignore[attr-defined]
            found[name] = unpack(data, kind)
        except (NoNodeError, DamagedError):
            continue
    return found


def member_copy(snapshot: Snapshot, highest: int) -> ClusterCopy:
    """The copy that a member can make of what it knows.

    Args:
        highest: highest number of an NF host that was ever seen.
    """
    known = {
        **snapshot.away,
        **{
            name: KnownNode(host=host, instances=snapshot.instances.get(name, InstancesNode()))
            for name, host in snapshot.hosts.items()
        },
    }
    last = {
        HOSTS: max((one.host.number for one in known.values()), default=0),
        INSTANCES: highest,
        CHAINS: max((chain.number for chain in snapshot.chains.values()), default=0),
    }
    return ClusterCopy(
        taken=round(time.time(), 3),
        cluster=snapshot.cluster,
        names={
            name: NameNode(number=one.host.number, proof="", key=one.host.key)
            for name, one in known.items()
        },
        known=known,
        draining=snapshot.draining,
        chains=snapshot.chains,
        services=snapshot.services,
        numbers={kind: CounterNode(last=number) for kind, number in last.items()},
    )


def read_file(path: Path) -> ClusterCopy:
    """Read a copy from a file.

    Raises:
        ConfigError: it cannot be read, or is no copy.
    """
    try:
        copy = msgspec.json.decode(path.read_bytes(), type=ClusterCopy)
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be read ({error.strerror})", file=path
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected a copy of a cluster ({error})", file=path) from None
    if copy.format != FORMAT:
        raise ConfigError(f"expected {FORMAT}", file=path, field="format", value=copy.format)
    return copy


def make_from(ensemble: Ensemble, copy: ClusterCopy, by: str) -> None:
    """Make a cluster's tree from a copy.

    The cluster's own node is written last, so no agent uses a tree that is not complete.

    Args:
        by: author of the revisions for which the copy has no history.

    Raises:
        ConfigError: the ensemble has a cluster of that name with hosts or chains.
    """
    paths = Paths(copy.cluster.name)
    with ensemble.call(f"make cluster {paths.cluster!r} again") as client:
        _check_empty(client, paths)
        client.ensure_path(ROOT)
        if client.exists(paths.root) is not None:
            client.delete(paths.root, recursive=True)
        client.create(paths.root, b"")
        for folder in paths.folders:
            client.create(folder, b"")
        results = [
            client.create_async(path, data) for path, data in _nodes(paths, copy, by).items()
        ]
        for result in results:
            result.get()
        client.set(paths.root, pack(copy.cluster))


def _check_empty(client: object, paths: Paths) -> None:
    for folder, noun in ((paths.names, "hosts"), (paths.chains, "chains")):
        try:
            names = client.get_children(folder)  # type: ignore[attr-defined]
        except NoNodeError:
            continue
        data, _ = client.get(paths.root)  # type: ignore[attr-defined]
        if names and data:
            raise ConfigError(
                f"expected an ensemble that has lost it; this one has {len(names)} {noun} in it",
                field="cluster",
                value=paths.cluster,
            )


def _nodes(paths: Paths, copy: ClusterCopy, by: str) -> dict[str, bytes]:
    """All nodes of a copy, by path."""
    folders: dict[str, Mapping[str, object]] = {
        paths.names: copy.names,
        paths.known: copy.known,
        paths.draining: copy.draining,
        paths.chains: copy.chains,
        paths.services: copy.services,
        paths.numbers: copy.numbers,
    }
    nodes = {
        posixpath.join(folder, name): pack(node)  # type: ignore[arg-type]
        for folder, children in folders.items()
        for name, node in children.items()
    }
    for kind, folder in HISTORIES.items():
        definitions: Mapping[str, ChainNode | ServiceNode] = getattr(copy, kind)
        records = copy.history.get(kind) or {
            f"{name}:{node.revision:010d}": msgspec.Raw(record(node, by, "recovered"))
            for name, node in definitions.items()
        }
        for name, data in records.items():
            nodes[posixpath.join(getattr(paths, folder), name)] = bytes(data)
    return nodes
