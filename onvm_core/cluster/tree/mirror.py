"""A copy of the tree in memory, kept up to date by watches; all parts of an agent read it.

An event only names the stale nodes. `refresh` reads them, many at a time without waiting for each,
and gives a new `Snapshot` if something has changed. A snapshot is never changed.

Threads: one thread calls `refresh`; kazoo's threads put events on a queue.
"""

from __future__ import annotations

import posixpath
import queue
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from kazoo.exceptions import NoNodeError

from onvm_core.cluster.errors import LostClusterError, NoClusterError
from onvm_core.cluster.tree import nodes as tree
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.nodes import (
    ChainNode,
    ClusterNode,
    DamagedError,
    DrainNode,
    HostNode,
    InstancesNode,
    KnownNode,
    Paths,
    RequestNode,
    ServiceNode,
)

__all__ = ["Mirror", "Snapshot", "check_cluster", "read_cluster"]

LISTED: dict[str, type[tree._Node]] = {
    "hosts": HostNode,
    "draining": DrainNode,
    "chains": ChainNode,
    "services": ServiceNode,
    "entries": RequestNode,
}
"""Folders whose children are watched, and the types of these."""
FIELDS = {"entries": "requests", "known": "away"}
"""Fields of the snapshot that are not named like their folders."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster at one moment, each part by name."""

    cluster: ClusterNode
    members: frozenset[str] = frozenset()
    """Names of all hosts that have joined, and have not left."""
    lost: frozenset[str] = frozenset()
    """Hosts that have not left either, and are no members any more: the tree is from a backup."""
    hosts: dict[str, HostNode] = {}
    """Members whose agent has a session."""
    instances: dict[str, InstancesNode] = {}
    draining: dict[str, DrainNode] = {}
    chains: dict[str, ChainNode] = {}
    services: dict[str, ServiceNode] = {}
    requests: dict[str, RequestNode] = {}
    """By their names in the queue, in order of arrival."""
    away: dict[str, KnownNode] = {}
    """Members whose agent has no session, as they were last."""
    damaged: dict[str, str] = {}
    """Nodes that cannot be read, and the reasons."""


class _Leaf(msgspec.Struct):
    """The data read from a node."""

    data: bytes
    value: Any
    damage: str = ""


class _Newest(msgspec.Struct):
    """The newest contents of a node that an agent keeps up to date."""

    leaf: _Leaf
    zxid: int
    """Transaction that wrote them."""
    owners: set[int] = msgspec.field(default_factory=set)
    """All sessions that have had the node."""

    def is_newer_than(self, stat: Any) -> bool:
        """True if a node is as it was before; only a tree from a backup shows that. There, the
        transactions of sessions that are new may have lower numbers, too.
        """
        is_of_old_session = stat.ephemeralOwner == 0 or stat.ephemeralOwner in self.owners
        return stat.mzxid < self.zxid and is_of_old_session


class Mirror:
    """Reads one cluster.

    Args:
        wake: called by kazoo's threads when `refresh` has work; None: nothing is watched, and each
            `refresh` reads everything.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        cluster: ClusterNode,
        paths: Paths,
        wake: Callable[[], None] | None = None,
    ) -> None:
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
            paths.known: KnownNode,
        }
        self._leaves: dict[str, dict[str, _Leaf]] = {folder: {} for folder in self._kinds}
        """Nodes by folder and name."""
        self._newest: dict[str, _Newest] = {}
        """Of the nodes of hosts and of their instances, by path. They stay when a session ends."""
        self._members: frozenset[str] = frozenset()
        self._lost: frozenset[str] = frozenset()
        self._listed_hosts: frozenset[str] = frozenset()
        self._changed: set[str] = set()
        """Folders whose part of the snapshot is out of date."""
        self._stale: set[str] = set()
        self.snapshot = Snapshot(cluster=cluster)
        self.events = 0
        """Number of watches that have fired."""
        self.reads = 0
        """Number of nodes and lists that were read."""
        self.forget()

    @property
    def is_stale(self) -> bool:
        """True if `refresh` has work."""
        return bool(self._stale) or not self._events.empty()

    @property
    def watches(self) -> int:
        """Number of active watches."""
        leaves = sum(
            len(leaves) for folder, leaves in self._leaves.items() if folder != self._paths.known
        )
        return 0 if self._wake is None else 1 + len(self._folders) + leaves

    def forget(self) -> None:
        """Read everything again at the next `refresh`."""
        self._stale.update(self._folders, (self._paths.names,))
        for folder, leaves in self._leaves.items():
            self._stale.update(posixpath.join(folder, name) for name in leaves)

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
        """Read the stale nodes; return True if the snapshot has changed.

        Raises:
            NoEnsembleError: ZooKeeper does not answer; stale nodes stay stale.
        """
        self._drain()
        if self._wake is None:
            self.forget()
        watch = None if self._wake is None else self._on_event
        while self._stale:
            lists = {*self._folders, self._paths.names}
            folders = sorted(path for path in self._stale if path in lists)
            if folders:
                self._read_folders(folders, watch)
                self._look_for_absent()
            else:
                self._read_leaves(sorted(self._stale), watch)
            self._drain()
        if not self._changed:
            return False
        self.snapshot = self._take()
        self._changed.clear()
        return True

    def _read_folders(self, folders: list[str], watch: Any) -> None:
        with self._ensemble.call("read the cluster") as client:
            results = [(path, client.get_children_async(path, watch)) for path in folders]
            for path, result in results:
                self.reads += 1
                try:
                    names = set(result.get())
                except NoNodeError:
                    raise NoClusterError(
                        f"expected a cluster; it is gone from ZooKeeper at {self._ensemble.hosts}",
                        field="cluster",
                        value=self._paths.cluster,
                    ) from None
                self._list(path, names)
                self._stale.discard(path)

    def _list(self, folder: str, names: set[str]) -> None:
        """Take over the list of a folder's children."""
        if folder == self._paths.names:
            if names != self._members:
                self._note_gone(self._members - names)
                self._lost -= names
                self._members = frozenset(names)
                self._changed.add(folder)
            return
        folders: tuple[str, ...] = (folder,)
        if folder == self._paths.hosts:
            folders = (folder, self._paths.instances)
            self._listed_hosts = frozenset(names)
        for one in folders:
            # Each by itself: of a host that ended while it was read, half may be here.
            known = self._leaves[one].keys()
            self._stale.update(posixpath.join(one, name) for name in names - known)
            for name in known - names:
                self._drop(posixpath.join(one, name))

    def _note_gone(self, names: frozenset[str]) -> None:
        """Find out which of the members that are gone have left."""
        if not names:
            return
        for name in names:
            for folder in (self._paths.hosts, self._paths.instances):
                self._newest.pop(posixpath.join(folder, name), None)
        with self._ensemble.call("read the cluster") as client:
            left = client.get_children(self._paths.left)
        self._lost |= names.difference(left)

    def _look_for_absent(self) -> None:
        """Read what members without a session have published last; it does not change."""
        known = self._paths.known
        absent = self._members - self._listed_hosts
        waiting = {name for folder, name in map(posixpath.split, self._stale) if folder == known}
        for name in (self._leaves[known].keys() | waiting) - absent:
            self._drop(posixpath.join(known, name))
        for name in absent - self._leaves[known].keys():
            self._stale.add(posixpath.join(known, name))

    def _drop(self, path: str) -> None:
        self._stale.discard(path)
        folder, name = posixpath.split(path)
        if self._leaves[folder].pop(name, None) is not None:
            self._changed.add(folder)

    def _read_leaves(self, leaves: Iterable[str], watch: Any) -> None:
        with self._ensemble.call("read the cluster") as client:
            known = self._paths.known
            results = [
                (path, client.get_async(path, None if posixpath.dirname(path) == known else watch))
                for path in leaves
            ]
            for path, result in results:
                self.reads += 1
                try:
                    data, stat = result.get()
                except NoNodeError:
                    self._drop(path)
                    folder, name = posixpath.split(path)
                    if folder == known:  # it has its name, and has never registered
                        self._leaves[folder][name] = _Leaf(b"", None)
                    continue
                self._keep(path, data, stat)
                self._stale.discard(path)

    def _keep(self, path: str, data: bytes, stat: Any) -> None:
        """Take over the data of a node, unless it is from a backup, and older than what was here:
        its agent writes it again.
        """
        folder, name = posixpath.split(path)
        known = self._leaves[folder].get(name)
        leaf = known if known is not None and known.data == data else self._unpack(folder, data)
        if folder in (self._paths.hosts, self._paths.instances):
            leaf = self._newer(path, leaf, stat)
        elif folder == self._paths.known:
            leaf = self._newer_known(name, leaf, stat)
        if leaf is not known:
            self._leaves[folder][name] = leaf
            self._changed.add(folder)

    def _unpack(self, folder: str, data: bytes) -> _Leaf:
        leaf = _Leaf(data, None)
        try:
            leaf.value = tree.unpack(data, self._kinds[folder])
        except DamagedError as error:
            leaf.damage = str(error)
        return leaf

    def _newer(self, path: str, leaf: _Leaf, stat: Any) -> _Leaf:
        newest = self._newest.get(path)
        if newest is None:
            newest = self._newest[path] = _Newest(leaf, stat.mzxid)
        elif newest.is_newer_than(stat):
            return newest.leaf
        newest.leaf, newest.zxid = leaf, stat.mzxid
        newest.owners.add(stat.ephemeralOwner)
        return leaf

    def _newer_known(self, name: str, leaf: _Leaf, stat: Any) -> _Leaf:
        """Choose the newest facts of a member without a session; its agent wrote them together."""
        host = self._newest.get(posixpath.join(self._paths.hosts, name))
        instances = self._newest.get(posixpath.join(self._paths.instances, name))
        if host is None or instances is None:
            return leaf
        if not (host.is_newer_than(stat) or instances.is_newer_than(stat)):
            return leaf
        if host.leaf.value is None or instances.leaf.value is None:  # damaged
            return leaf
        return _Leaf(leaf.data, KnownNode(host=host.leaf.value, instances=instances.leaf.value))

    def _take(self) -> Snapshot:
        """The new snapshot, which keeps unchanged parts of the previous one."""
        changes: dict[str, Any] = {}
        if self._paths.names in self._changed:
            changes["members"] = self._members
            changes["lost"] = self._lost
        for name in (*LISTED, "instances", "known"):
            folder = getattr(self._paths, name)
            if folder in self._changed:
                changes[FIELDS.get(name, name)] = {
                    name: leaf.value
                    for name, leaf in sorted(self._leaves[folder].items())
                    if leaf.value is not None
                }
        damaged = {
            posixpath.join(folder, name): leaf.damage
            for folder, leaves in sorted(self._leaves.items())
            for name, leaf in sorted(leaves.items())
            if leaf.damage
        }
        return msgspec.structs.replace(self.snapshot, damaged=damaged, **changes)


def read_cluster(ensemble: Ensemble, paths: Paths) -> ClusterNode:
    """The node that describes a cluster.

    Raises:
        NoClusterError: there is no cluster of that name, or its node cannot be read.
    """
    with ensemble.call(f"read cluster {paths.cluster!r}") as client:
        try:
            data, _ = client.get(paths.root)
        except NoNodeError:
            raise NoClusterError(
                f"expected a cluster of ZooKeeper at {ensemble.hosts} ({_known(client)}); "
                f"make one: onvm cluster init {ensemble.hosts} --cluster {paths.cluster}",
                field="cluster",
                value=paths.cluster,
            ) from None
    try:
        return tree.unpack(data, ClusterNode)
    except DamagedError as error:
        raise NoClusterError(
            f"expected no damage at {paths.root}: {error}", field="cluster", value=paths.cluster
        ) from None


def check_cluster(ensemble: Ensemble, paths: Paths, cluster_id: str) -> ClusterNode:
    """The node of the cluster that this host has joined.

    Raises:
        LostClusterError: it is not there, or is another cluster's.
    """
    try:
        found = read_cluster(ensemble, paths)
    except NoClusterError:
        raise _lost(paths.cluster) from None
    if found.id != cluster_id:
        raise _lost(paths.cluster)
    return found


def _lost(name: str) -> LostClusterError:
    """The error of a host whose cluster the ensemble has no longer."""
    return LostClusterError(
        "expected the cluster that this host has joined; ZooKeeper has lost it; packets go on; "
        "bring it back: onvm cluster recover, or import; or leave it: onvm cluster leave --local",
        field="cluster",
        value=name,
    )


def _known(client: Any) -> str:
    try:
        names = client.get_children(tree.ROOT)
    except NoNodeError:
        names = []
    return ", ".join(sorted(names)) or "it has none"
