"""A copy of the tree in memory, kept by watches: what everything in an agent looks at.

An event only names what is stale; `refresh` reads that, many nodes at a time without waiting for
each, and gives a new `Snapshot` if it says something new. Nobody changes a snapshot.

Threads: one calls `refresh`; kazoo's put events on a queue.
"""

from __future__ import annotations

import posixpath
import queue
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from kazoo.exceptions import NoNodeError

from onvm_core.cluster import tree
from onvm_core.cluster.ensemble import Ensemble
from onvm_core.cluster.errors import NoClusterError
from onvm_core.cluster.tree import (
    ChainNode,
    ClusterNode,
    DamagedError,
    DrainNode,
    HostNode,
    InstancesNode,
    Paths,
    RequestNode,
    ServiceNode,
)

__all__ = ["Mirror", "Snapshot", "read_cluster"]

NodeT = TypeVar("NodeT")

LISTED: dict[str, type[tree._Node]] = {
    "hosts": HostNode,
    "draining": DrainNode,
    "chains": ChainNode,
    "services": ServiceNode,
    "entries": RequestNode,
}
"""Folders whose children are watched, and what they hold."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster at one moment, each part by name."""

    cluster: ClusterNode
    hosts: dict[str, HostNode] = {}
    instances: dict[str, InstancesNode] = {}
    draining: dict[str, DrainNode] = {}
    chains: dict[str, ChainNode] = {}
    services: dict[str, ServiceNode] = {}
    requests: dict[str, RequestNode] = {}
    """By their name in the queue; in the order in which they came."""
    damaged: dict[str, str] = {}
    """Nodes that cannot be read, and why."""


class _Leaf(msgspec.Struct):
    """What was read of a node."""

    data: bytes
    value: Any
    damage: str = ""
    version: int = 0
    owner: int = 0


class Mirror:
    """Reads one cluster.

    Args:
        wake: called by kazoo's threads when `refresh` has something to do; None: nothing is
            watched, and each `refresh` reads all.
    """

    def __init__(
        self, ensemble: Ensemble, cluster: ClusterNode, paths: Paths,
        wake: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._ensemble = ensemble
        self._cluster = cluster
        self._paths = paths
        self._wake = wake
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._folders: dict[str, type[tree._Node]] = {
            getattr(paths, name): kind for name, kind in LISTED.items()
        }
        self._kinds: dict[str, type[tree._Node]] = {
            **self._folders,
            paths.instances: InstancesNode,
        }
        self._leaves: dict[str, _Leaf] = {}
        self._stale: set[str] = set()
        self.snapshot = Snapshot(cluster=cluster)
        self.events = 0
        """Watches that have fired."""
        self.reads = 0
        """Nodes and lists that were read."""
        self.forget()

    @property
    def is_stale(self) -> bool:
        """Whether `refresh` has something to do."""
        return bool(self._stale) or not self._events.empty()

    @property
    def watches(self) -> int:
        """Watches that stand."""
        return 0 if self._wake is None else len(self._folders) + len(self._leaves)

    def forget(self) -> None:
        """Read everything anew at the next `refresh`."""
        self._stale.update(self._folders)
        self._stale.update(self._leaves)

    def _on_event(self, event: Any) -> None:
        self._events.put(event.path)
        if self._wake is not None:
            self._wake()

    def _drain(self) -> None:
        while True:
            try:
                path = self._events.get_nowait()
            except queue.Empty:
                return
            if path is None:  # the connection was lost, and every watch with it
                self.forget()
            else:
                self.events += 1
                self._stale.add(path)

    def refresh(self) -> bool:
        """Read what is stale; whether the snapshot is another one than before.

        Raises:
            NoEnsembleError: ZooKeeper does not answer; what was stale still is.
        """
        self._drain()
        if self._wake is None:
            self.forget()
        has_changed = False
        watch = None if self._wake is None else self._on_event
        while self._stale:
            folders = [path for path in self._stale if path in self._folders]
            if folders:
                has_changed |= self._read_folders(folders, watch)
            else:
                has_changed |= self._read_leaves(list(self._stale), watch)
            self._drain()
        if has_changed:
            self.snapshot = self._take()
        return has_changed

    def _read_folders(self, folders: list[str], watch: Any) -> bool:
        has_changed = False
        with self._ensemble.call("read the cluster") as client:
            results = [(path, client.get_children_async(path, watch)) for path in folders]
            for path, result in results:
                self.reads += 1
                try:
                    names = set(result.get())
                except NoNodeError:
                    raise NoClusterError(
                        f"it is gone from ZooKeeper at {self._ensemble.hosts}",
                        field="cluster", value=self._paths.cluster,
                    ) from None  # fmt: skip
                has_changed |= self._list(path, names)
                self._stale.discard(path)
        return has_changed

    def _list(self, folder: str, names: set[str]) -> bool:
        """Take note of a folder's children; whether some have gone."""
        known = {posixpath.basename(path) for path in self._leaves if _is_in(path, folder)}
        for name in names - known:
            self._stale.add(posixpath.join(folder, name))
            if folder == self._paths.hosts:
                self._stale.add(posixpath.join(self._paths.instances, name))
        for name in known - names:
            self._drop(posixpath.join(folder, name))
            if folder == self._paths.hosts:
                self._drop(posixpath.join(self._paths.instances, name))
        return bool(known - names)

    def _drop(self, path: str) -> bool:
        self._stale.discard(path)
        return self._leaves.pop(path, None) is not None

    def _read_leaves(self, leaves: Iterable[str], watch: Any) -> bool:
        has_changed = False
        with self._ensemble.call("read the cluster") as client:
            results = [(path, client.get_async(path, watch)) for path in leaves]
            for path, result in results:
                self.reads += 1
                try:
                    data, stat = result.get()
                except NoNodeError:
                    has_changed |= self._drop(path)
                    continue
                has_changed |= self._keep(path, data, stat)
                self._stale.discard(path)
        return has_changed

    def _keep(self, path: str, data: bytes, stat: Any) -> bool:
        """Take note of a node; whether it says something else than before."""
        known = self._leaves.get(path)
        if known is not None and known.data == data:
            known.version, known.owner = stat.version, stat.ephemeralOwner
            return False
        kind = self._kinds[posixpath.dirname(path)]
        leaf = _Leaf(data, None, version=stat.version, owner=stat.ephemeralOwner)
        try:
            leaf.value = tree.unpack(data, kind)
        except DamagedError as error:
            leaf.damage = str(error)
        self._leaves[path] = leaf
        return True

    def _take(self) -> Snapshot:
        return Snapshot(
            cluster=self._cluster,
            hosts=self._values(self._paths.hosts, HostNode),
            instances=self._values(self._paths.instances, InstancesNode),
            draining=self._values(self._paths.draining, DrainNode),
            chains=self._values(self._paths.chains, ChainNode),
            services=self._values(self._paths.services, ServiceNode),
            requests=self._values(self._paths.entries, RequestNode),
            damaged={
                path: leaf.damage for path, leaf in sorted(self._leaves.items()) if leaf.damage
            },
        )

    def _values(self, folder: str, _kind: type[NodeT]) -> dict[str, NodeT]:
        return {
            posixpath.basename(path): leaf.value
            for path, leaf in sorted(self._leaves.items())
            if _is_in(path, folder) and leaf.value is not None
        }


def read_cluster(ensemble: Ensemble, paths: Paths) -> ClusterNode:
    """What a cluster is.

    Raises:
        NoClusterError: there is none of that name, or it cannot be read.
    """
    with ensemble.call(f"read cluster {paths.cluster!r}") as client:
        try:
            data, _ = client.get(paths.root)
        except NoNodeError:
            raise NoClusterError(
                f"expected a cluster of ZooKeeper at {ensemble.hosts} ({_known(client)}); "
                f"make one: onvm cluster init {ensemble.hosts} --cluster {paths.cluster}",
                field="cluster", value=paths.cluster,
            ) from None  # fmt: skip
    try:
        return tree.unpack(data, ClusterNode)
    except DamagedError as error:
        raise NoClusterError(
            f"{paths.root} is damaged: {error}", field="cluster", value=paths.cluster
        ) from None


def _known(client: Any) -> str:
    try:
        names = client.get_children(tree.ROOT)
    except NoNodeError:
        names = []
    return ", ".join(sorted(names)) or "it has none"


def _is_in(path: str, folder: str) -> bool:
    return path.startswith(folder) and path[len(folder) : len(folder) + 1] == "/"
