"""The queue of scale requests, and their outcomes.

The nodes are those of kazoo's LockingQueue: ``entries`` in their order, and for each one that a
host works on an ephemeral node in ``taken``, which disappears with that host's session, so that
another host can take it over. LockingQueue's consumers get the first entry. An agent takes the
entry that it should serve, so a request that no host can serve does not block the others.

Each request has an *outcome*, under its idempotency key. It is made with the request and, in the
end, names the host that has served it. All steps are transactions that check the taker's
registration: a step of an agent that was cut off or frozen, and replaced, fails as a whole.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable
from typing import Any

import msgspec
from kazoo.exceptions import NodeExistsError, NoNodeError

from onvm_core.cluster.errors import ClusterError, ConflictError
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.nodes import (
    DamagedError,
    OutcomeNode,
    Paths,
    RequestNode,
    check_name,
    pack,
    unpack,
)

__all__ = ["RequestQueue", "Taken"]

PRIORITY = 100

Fence = Callable[[Any], None]


class Taken(msgspec.Struct, frozen=True):
    """An entry that this agent works on."""

    entry: str
    version: int
    request: RequestNode


class RequestQueue:
    """The queue of one cluster.

    Args:
        name: name of the host that takes requests; "" for a client that only looks and puts.
    """

    def __init__(self, ensemble: Ensemble, paths: Paths, name: str = "") -> None:
        self._name = name
        self._ensemble = ensemble
        self._paths = paths

    def _entry(self, name: str) -> str:
        return posixpath.join(self._paths.entries, name)

    def _lock(self, name: str) -> str:
        return posixpath.join(self._paths.taken, name)

    def _outcome(self, key: str) -> str:
        return posixpath.join(self._paths.outcomes, key)

    def put(self, request: RequestNode, fence: Fence = lambda _: None) -> bool:
        """Put a request into the queue; return False if one with its key exists.

        Args:
            fence: adds the conditions to the transaction.

        Raises:
            ConflictError: the fence does not hold.
            NoEnsembleError: it is not known whether it was done; try again.
        """
        check_name(request.key, "--key")
        outcome = OutcomeNode(
            state="waiting", service=request.service, reason=request.reason, made=request.made
        )

        def build(transaction: Any) -> None:
            fence(transaction)
            transaction.create(self._outcome(request.key), pack(outcome))
            transaction.create(
                posixpath.join(self._paths.entries, f"entry-{PRIORITY:03d}-"),
                pack(request),
                sequence=True,
            )

        try:
            self._ensemble.commit(f"request {request.key}", build)
        except ConflictError as error:
            if isinstance(error.__cause__, NodeExistsError):
                return False
            raise
        return True

    def take(self, entry: str, fence: Fence) -> Taken | None:
        """Work on an entry; None if another host works on it, or it is done.

        Raises:
            ConflictError: the fence does not hold.
        """
        with self._ensemble.call(f"take {entry}") as client:
            try:
                data, stat = client.get(self._entry(entry))
                request = unpack(data, RequestNode)
            except (NoNodeError, DamagedError):
                return None

        if not self._lock_entry(entry, stat.version, fence, is_stale=False):
            owner = self._owner(entry)
            if owner == "other":
                return None
            # Ours already: a transaction may be done though its answer was lost. Or it is that of
            # the agent before us, which can do nothing any more, because we have its name.
            if owner == "stale" and not self._lock_entry(entry, stat.version, fence, is_stale=True):
                return None
        return Taken(entry, stat.version, request)

    def _lock_entry(self, entry: str, version: int, fence: Fence, *, is_stale: bool) -> bool:
        def build(transaction: Any) -> None:
            fence(transaction)
            if is_stale:
                transaction.delete(self._lock(entry))
            transaction.create(self._lock(entry), self._name.encode(), ephemeral=True)
            transaction.check(self._entry(entry), version)

        try:
            self._ensemble.commit(f"take {entry}", build)
        except ConflictError as error:
            if isinstance(error.__cause__, NodeExistsError):
                return False
            raise
        return True

    def _owner(self, entry: str) -> str:
        """The owner of an entry: mine, stale (of this host's last session), or another's."""
        with self._ensemble.call(f"take {entry}") as client:
            try:
                name, stat = client.get(self._lock(entry))
            except NoNodeError:
                return "other"  # just ended
        if stat.ephemeralOwner == self._ensemble.session_id:
            return "mine"
        return "stale" if name.decode(errors="replace") == self._name != "" else "other"

    def done(self, taken: Taken, host: str, instance: str, why: str, fence: Fence) -> None:
        """Record that it is served; the entry is removed and the outcome names the host.

        Raises:
            ConflictError: it was no longer ours; nothing was changed.
        """
        request = taken.request
        outcome = OutcomeNode(
            state="done",
            service=request.service,
            reason=request.reason,
            made=request.made,
            ended=round(time.time(), 3),
            host=host,
            instance=instance,
            why=why,
        )
        self._end(taken, outcome, fence)

    def _end(self, taken: Taken, outcome: OutcomeNode, fence: Fence) -> None:
        def build(transaction: Any) -> None:
            fence(transaction)
            transaction.delete(self._entry(taken.entry), taken.version)
            transaction.delete(self._lock(taken.entry))
            transaction.set_data(self._outcome(taken.request.key), pack(outcome))

        self._ensemble.commit(f"end {taken.request.key}", build)

    def expire(self, entry: str, why: str, fence: Fence) -> OutcomeNode | None:
        """End a request whose time is over; None if a host works on it, or has just ended it.

        Raises:
            ConflictError: the fence does not hold.
        """
        taken = self.take(entry, fence)
        if taken is None:
            return None
        request = taken.request
        outcome = OutcomeNode(
            state="expired",
            service=request.service,
            reason=request.reason,
            made=request.made,
            ended=round(time.time(), 3),
            why=why,
        )
        self._end(taken, outcome, fence)
        return outcome

    def refuse(self, taken: Taken, host: str, why: str, fence: Fence) -> None:
        """Record that this host has tried and failed: another host may serve it."""
        request = msgspec.structs.replace(
            taken.request, refused={**taken.request.refused, host: why}
        )

        def build(transaction: Any) -> None:
            fence(transaction)
            transaction.set_data(self._entry(taken.entry), pack(request), taken.version)
            transaction.delete(self._lock(taken.entry))

        self._ensemble.commit(f"refuse {request.key}", build)

    def release_mine(self, entry: str) -> None:
        """Let others take an entry, if this session has taken it."""
        if self._owner(entry) != "mine":
            return
        with self._ensemble.call(f"release {entry}") as client:
            try:
                client.delete(self._lock(entry))
            except NoNodeError:
                return

    def outcome(self, key: str) -> OutcomeNode | None:
        """The outcome of a request; None if it is not known (any more)."""
        with self._ensemble.call(f"look for {key}") as client:
            try:
                data, _ = client.get(self._outcome(key))
            except NoNodeError:
                return None
        try:
            return unpack(data, OutcomeNode)
        except DamagedError as error:
            raise ClusterError(f"outcome {key} is damaged: {error}") from None

    def entry_of(self, key: str) -> str | None:
        """The entry of a request; None if it is not in the queue."""
        return next((name for name, one in self.waiting().items() if one.key == key), None)

    def waiting(self) -> dict[str, RequestNode]:
        """The queue, by entry, in its order."""
        found = {}
        with self._ensemble.call("read the queue") as client:
            for name in sorted(client.get_children(self._paths.entries)):
                try:
                    found[name] = unpack(client.get(self._entry(name))[0], RequestNode)
                except (NoNodeError, DamagedError):
                    continue
        return found

    def outcomes(self) -> dict[str, OutcomeNode]:
        """All outcomes that are kept, by key, in the order in which they were made."""
        found = {}
        with self._ensemble.call("read the outcomes") as client:
            keys = client.get_children(self._paths.outcomes)
            results = [(key, client.get_async(self._outcome(key))) for key in keys]
            for key, result in results:
                try:
                    found[key] = unpack(result.get()[0], OutcomeNode)
                except (NoNodeError, DamagedError):
                    continue
        return dict(sorted(found.items(), key=lambda item: item[1].made))

    def forget(self, key: str, fence: Fence) -> None:
        """Remove an outcome."""

        def build(transaction: Any) -> None:
            fence(transaction)
            transaction.delete(self._outcome(key))

        self._ensemble.commit(f"forget {key}", build)
