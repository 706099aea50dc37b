"""The desired state of the cluster: chains, and how services scale. Versioned, with history.

Each definition has its own *revision*, which grows by one with each change. Every revision is kept,
so that users can see who changed what, and go back. A change names the revision that it saw (or
none, for "as it is now"); if another change came first, it fails and nothing is changed. A removed
definition leaves a revision that records the removal; a later definition of that name continues the
count.
"""

from __future__ import annotations

import posixpath
import time
from typing import Any, Generic, TypeVar

import msgspec
from kazoo.exceptions import NoNodeError
from msgspec.structs import replace

from onvm_core.cluster.errors import ConflictError
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import (
    ChainNode,
    DamagedError,
    Paths,
    ServiceNode,
    check_name,
    pack,
    unpack,
)
from onvm_core.cluster.tree.numbers import CHAIN_MAX, CHAINS, NumberSource
from onvm_core.manager.config.sections import nearest
from onvm_sdk.errors import ConfigError

__all__ = ["Chains", "Revision", "Services", "check_chain", "record"]

ATTEMPTS = 20
SERVICES_MAX = 8
"""Limit for a chain: NF hosts that fit into NSH's fixed context headers."""
FORMERS_MAX = 4
"""Definitions that a chain had before, whose packets may still be on their way."""
KEPT = 100
"""Number of revisions kept of one definition."""

NodeT = TypeVar("NodeT", ChainNode, ServiceNode)


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One revision; `definition` is None if it was removed."""

    revision: int
    time: float
    """Seconds since 1970."""
    by: str
    what: str
    """added, changed, removed, or rolled back with the target revision."""
    definition: dict[str, Any] | None


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """A revision as it is stored in the tree."""

    format: int
    time: float
    by: str
    what: str
    node: msgspec.Raw = msgspec.Raw(b"null")
    """null: it was removed."""

    def unpack(self, kind: type[NodeT]) -> NodeT | None:
        data = bytes(self.node)
        return None if data == b"null" else unpack(data, kind)


def record(node: ChainNode | ServiceNode | None, by: str, what: str) -> bytes:
    """A revision as it is stored; None: it was removed."""
    raw = msgspec.Raw(b"null" if node is None else pack(node))
    return msgspec.json.encode(
        _Record(format=1, time=round(time.time(), 3), by=by, what=what, node=raw)
    )


class _Definitions(Generic[NodeT]):
    """Definitions of one kind."""

    kind: type[NodeT]
    noun: str

    def __init__(self, ensemble: Ensemble, folder: str, history: str) -> None:
        self._ensemble = ensemble
        self._folder = folder
        self._history = history

    def get(self, name: str) -> NodeT | None:
        """The definition as it is now; None if there is none.

        Raises:
            ConfigError: it is damaged.
        """
        with self._ensemble.call(f"read {self.noun} {name!r}") as client:
            found = self._read(client, name)
        return None if found is None else found[0]

    def _read(self, client: Any, name: str) -> tuple[NodeT, int] | None:
        try:
            data, stat = client.get(posixpath.join(self._folder, name))
        except NoNodeError:
            return None
        try:
            return unpack(data, self.kind), stat.version
        except DamagedError as error:
            raise ConfigError(
                f"expected a node that can be read ({error}); for an earlier one: "
                f"onvm cluster {self.noun} rollback {name} REVISION",
                field=self.noun,
                value=name,
            ) from None

    def put(self, name: str, node: NodeT, by: str, what: str = "") -> NodeT:
        """Add it, or change it. `node.revision` is the revision that was seen before, plus one.

        Raises:
            ConflictError: there is already another revision; nothing was changed.
        """
        check_name(name, self.noun)
        for _ in range(ATTEMPTS):
            try:
                return self._put(name, node, by, what)
            except ConflictError:
                if self.last(name) + 1 != node.revision:
                    raise
                # No other revision came first: the leader has moved it on. Try again.
        return self._put(name, node, by, what)

    def _put(self, name: str, node: NodeT, by: str, what: str) -> NodeT:
        path = posixpath.join(self._folder, name)
        with self._ensemble.call(f"change {self.noun} {name!r}") as client:
            try:
                known = self._read(client, name)
                version = None if known is None else known[1]
            except ConfigError:  # damaged: its replacement need not know it
                known, version = None, client.exists(path).version
            last = self._last(client, name)
        if node.revision != last + 1:
            raise ConflictError(
                f"{self.noun} {name!r} is at revision {last}, and not {node.revision - 1}: "
                "it has changed meanwhile; nothing was done"
            )
        what = what or ("added" if version is None else "changed")
        if known is not None:
            node = self._succeed(known[0], node)

        def build(transaction: Any) -> None:
            if version is None:
                transaction.create(path, pack(node))
            else:
                transaction.set_data(path, pack(node), version)
            self._record(transaction, name, node.revision, by, what, self._alone(node))

        self._commit(name, last, build)
        return node

    def _succeed(self, known: NodeT, node: NodeT) -> NodeT:
        """The node that follows `known` when it is changed to `node`."""
        del known
        return node

    def _alone(self, node: NodeT) -> NodeT:
        """A definition without what it was before."""
        return node

    def remove(self, name: str, by: str) -> bool:
        """Remove it; return False if there is none.

        Raises:
            ConflictError: another process has changed it meanwhile.
        """
        last = self.last(name)
        for _ in range(ATTEMPTS):
            try:
                return self._remove(name, by)
            except ConflictError:
                if self.last(name) != last:
                    raise
        return self._remove(name, by)

    def _remove(self, name: str, by: str) -> bool:
        path = posixpath.join(self._folder, name)
        with self._ensemble.call(f"remove {self.noun} {name!r}") as client:
            stat = client.exists(path)
            if stat is None:
                return False
            last = self._last(client, name)

        def build(transaction: Any) -> None:
            transaction.delete(path, stat.version)
            self._record(transaction, name, last + 1, by, "removed", None)

        self._commit(name, last, build)
        return True

    def _commit(self, name: str, last: int, build: Any) -> None:
        try:
            self._ensemble.commit(f"change {self.noun} {name!r}", build)
        except ConflictError:
            raise ConflictError(
                f"{self.noun} {name!r}: it has changed at the same time; nothing was done"
            ) from None
        if last >= KEPT:
            self._forget(name, last + 1 - KEPT)

    def _forget(self, name: str, until: int) -> None:
        with self._ensemble.call("forget old revisions") as client:
            for number in self._numbers(client, name):
                if number <= until:
                    try:
                        client.delete(self._revision_path(name, number))
                    except NoNodeError:
                        continue  # another command did it

    def _record(
        self, transaction: Any, name: str, revision: int, by: str, what: str, node: NodeT | None
    ) -> None:
        transaction.create(self._revision_path(name, revision), record(node, by, what))

    def _revision_path(self, name: str, revision: int) -> str:
        return posixpath.join(self._history, f"{name}:{revision:010d}")

    def _numbers(self, client: Any, name: str) -> list[int]:
        names = client.get_children(self._history)
        return sorted(
            int(number)
            for one, _, number in (child.rpartition(":") for child in names)
            if one == name and number.isdecimal()
        )

    def _last(self, client: Any, name: str) -> int:
        return max(self._numbers(client, name), default=0)

    def last(self, name: str) -> int:
        """The newest revision; 0 if there never was one."""
        with self._ensemble.call(f"read {self.noun} {name!r}") as client:
            return self._last(client, name)

    def history(self, name: str) -> list[Revision]:
        """All revisions that are kept, oldest first.

        Raises:
            ConfigError: there never was one of that name.
        """
        revisions = []
        with self._ensemble.call(f"read the history of {self.noun} {name!r}") as client:
            for number in self._numbers(client, name):
                try:
                    data, _ = client.get(self._revision_path(name, number))
                    record = msgspec.json.decode(data, type=_Record)
                    node = record.unpack(self.kind)
                except NoNodeError:
                    continue  # just forgotten
                except (msgspec.MsgspecError, DamagedError):
                    revisions.append(
                        Revision(revision=number, time=0, by="", what="damaged", definition=None)
                    )
                    continue
                definition = None if node is None else _definition(node)
                revisions.append(
                    Revision(
                        revision=number,
                        time=record.time,
                        by=record.by,
                        what=record.what,
                        definition=definition,
                    )
                )
        if not revisions:
            raise ConfigError(
                f"expected a {self.noun} that is there or was", field=self.noun, value=name
            )
        return revisions

    def rollback(self, name: str, revision: int, by: str) -> NodeT:
        """Restore the definition of an earlier revision, as a new revision.

        Raises:
            ConfigError: that revision is not kept, or records a removal.
        """
        with self._ensemble.call(f"roll {self.noun} {name!r} back") as client:
            try:
                data, _ = client.get(self._revision_path(name, revision))
            except NoNodeError:
                kept = ", ".join(str(number) for number in self._numbers(client, name))
                raise ConfigError(
                    f"expected a revision that is kept ({kept or 'there is none'})",
                    field=f"{self.noun} {name}",
                    value=revision,
                ) from None
            last = self._last(client, name)
        try:
            record = msgspec.json.decode(data, type=_Record)
            node = record.unpack(self.kind)
        except (msgspec.MsgspecError, DamagedError):
            raise ConfigError(
                "expected a revision that can be read", field=f"{self.noun} {name}", value=revision
            ) from None
        if node is None:
            raise ConfigError(
                f"expected a revision with a {self.noun}; to remove it: "
                f"onvm cluster {self.noun} remove {name}",
                field=f"{self.noun} {name}",
                value=revision,
            )
        again = replace(node, revision=last + 1)
        return self.put(name, again, by, f"rolled back to {revision}")


class Chains(_Definitions[ChainNode]):
    """The chains of a cluster."""

    kind = ChainNode
    noun = "chain"

    def __init__(self, ensemble: Ensemble, paths: Paths) -> None:
        super().__init__(ensemble, paths.chains, paths.chain_history)
        self._paths = paths

    def _succeed(self, known: ChainNode, node: ChainNode) -> ChainNode:
        """Stage it: packets that lead elsewhere have another number, which hosts must know first.

        The leader moves it on (`chain_changes`).
        """
        if node.has_same_way(known):
            return replace(
                node,
                number=known.number,
                formers=known.formers,
                is_staged=known.is_staged,
                order=known.order,
            )
        # One that is staged is used nowhere yet.
        used = known.formers if known.is_staged else [self._alone(known), *known.formers]
        return replace(
            node,
            number=self.new_number(),
            formers=used[:FORMERS_MAX],
            is_staged=True,
            order=known.order or known.number,
        )

    def _alone(self, node: ChainNode) -> ChainNode:
        return replace(node, formers=[], is_staged=False)

    def new_number(self) -> int:
        """A number for a chain that does not exist yet, or leads elsewhere now."""

        def used() -> set[int]:
            numbers = set()
            for name in self._ensemble.client.get_children(self._folder):
                try:
                    found = self._read(self._ensemble.client, name)
                except ConfigError:
                    continue
                if found is not None:
                    numbers |= {one.number for one in (found[0], *found[0].formers)}
            return numbers

        return NumberSource(self._ensemble, self._paths, CHAINS, CHAIN_MAX, used).take()[0]


class Services(_Definitions[ServiceNode]):
    """The scaling of a cluster's services."""

    kind = ServiceNode
    noun = "service"

    def __init__(self, ensemble: Ensemble, paths: Paths) -> None:
        super().__init__(ensemble, paths.services, paths.service_history)


def check_chain(snapshot: Snapshot, node: ChainNode) -> None:
    """Check that a chain is possible.

    Raises:
        ConfigError: a host does not exist or lacks the port, or no host has an NF for a service.
    """
    for option, end in (("--in", node.near), ("--out", node.far)):
        host = snapshot.hosts.get(end.host)
        if host is None:
            raise ConfigError(
                f"expected HOST:PORT, with a host of the cluster; "
                f"{nearest(end.host, snapshot.hosts)}",
                field=option,
                value=f"{end.host}:{end.port}",
            )
        if end.port not in host.ports:
            raise ConfigError(
                f"expected a port of {end.host}; {nearest(end.port, host.ports)}",
                field=option,
                value=f"{end.host}:{end.port}",
            )
    if len(node.services) > SERVICES_MAX:
        raise ConfigError(
            f"expected at most {SERVICES_MAX}", field="--services", value=",".join(node.services)
        )
    known = {plugin.service for host in snapshot.hosts.values() for plugin in host.plugins}
    known |= {
        service
        for node_ in snapshot.instances.values()
        for instance in node_.instances
        for service in instance.services
    }
    for service in node.services:
        if service not in known:
            raise ConfigError(
                f"expected a service that some host has an NF for; {nearest(service, known)}",
                field="--services",
                value=service,
            )


def _definition(node: ChainNode | ServiceNode) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(node)
    return {name: value for name, value in fields.items() if name != "revision"}
