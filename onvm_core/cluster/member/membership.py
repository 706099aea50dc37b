"""Membership of a host in the cluster: the name, the node in the election, and the ephemeral nodes.

A name belongs to the agent that has the secret whose hash is stored with it. Registering sets the
name's node again, and the node's version is the *token* of this registration. Every later write of
the agent checks the token, so if two agents think that they have the name, only the last can still
write.

* An agent that was killed and started again takes its old nodes over at once: it has the lock of
  the same state directory in the same run of the kernel, so its predecessor is dead.
* An agent that finds its nodes held under another state directory or boot waits for that session to
  end. If it does not end, the other agent lives, and this one is refused.
* An agent that slept through its session learns from its next write that the session is gone. If
  another agent has registered meanwhile, it is fenced and must end.

Threads: one.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from kazoo.exceptions import BadVersionError, NoNodeError

from onvm_core.cluster.errors import ConflictError, FencedError, NameTakenError, RemovedError
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.nodes import (
    AppliedNode,
    DamagedError,
    HostNode,
    InstancesNode,
    KnownNode,
    LeftNode,
    NameNode,
    Paths,
    pack,
    unpack,
)
from onvm_core.cluster.tree.numbers import HOST_MAX, HOSTS, NumberSource

__all__ = ["Membership", "remove_host", "say_goodbye"]

log = logging.getLogger("onvm.cluster")

WAIT_STEP_S = 0.1
ATTEMPTS = 20


class Membership:
    """The membership of one host.

    Args:
        name: name of the host.
        state: its directory, locked.
    """

    def __init__(self, ensemble: Ensemble, paths: Paths, name: str, state: StateDirectory) -> None:
        self._ensemble = ensemble
        self._paths = paths
        self._state = state
        self.name = name
        self.number = 0
        self.election_number = -1
        self._clock_skew_s = 0
        self._run = uuid.uuid4().hex
        self._token: int | None = None
        self._host: HostNode | None = None
        self._instances: InstancesNode | None = None
        self._applied: AppliedNode | None = None
        self._name_path = posixpath.join(paths.names, name)
        self._nodes = {
            kind: posixpath.join(folder, name)
            for kind, folder in (
                ("host", paths.hosts),
                ("instances", paths.instances),
                ("applied", paths.applied),
            )
        }
        self._known_path = posixpath.join(paths.known, name)
        self._left_path = posixpath.join(paths.left, name)

    # ---- the name ----

    def reserve_name(self) -> int:
        """Take the name, if it is free; return the host's number.

        Raises:
            NameTakenError: another agent has it.
        """
        state = self._state.state
        with self._ensemble.call(f"join as {self.name!r}") as client:
            for _ in range(ATTEMPTS):
                try:
                    node = self._read_name(client)
                except NoNodeError:
                    node = NameNode(number=self._new_number(), proof=state.proof, key=state.key)
                    if not self._create_name(client, node):
                        continue  # another agent was quicker
                if node.proof == "":  # of a tree that was made from a copy
                    node = msgspec.structs.replace(node, proof=state.proof, key=state.key)
                    try:
                        client.set(self._name_path, pack(node), self._name_version)
                    except BadVersionError:
                        continue
                if node.proof != state.proof:
                    raise NameTakenError(
                        "expected a free name: another state directory has joined with it; choose "
                        "another name, or, if that host is gone for good: "
                        f"onvm cluster leave --host {self.name}",
                        field="--name",
                        value=self.name,
                    )
                self.number = node.number
                return node.number
        raise ConflictError(f"join as {self.name!r}: others do so at once")

    def check_address(self, address: str) -> None:
        """Check that no other member has this address on the data network.

        Raises:
            NameTakenError: one has.
        """
        with self._ensemble.call(f"join as {self.name!r}") as client:
            folder = self._paths.known
            nodes = [
                (name, client.get_async(posixpath.join(folder, name)))
                for name in client.get_children(folder)
                if name != self.name
            ]
            for name, result in nodes:
                try:
                    host = unpack(result.get()[0], KnownNode).host
                except (NoNodeError, DamagedError):
                    continue
                if host.address == address:
                    raise NameTakenError(
                        f"expected an address that no other host has; {name} has it; if that host "
                        f"is gone for good: onvm cluster leave --host {name}",
                        field="--data-address",
                        value=address,
                    )

    def _create_name(self, client: Any, node: NameNode) -> bool:
        """Make the name's node; return False if there is one."""
        transaction = client.transaction()
        transaction.create(self._name_path, pack(node))
        if client.exists(self._left_path) is not None:
            transaction.delete(self._left_path)
        return not any(isinstance(result, Exception) for result in transaction.commit())

    def _read_name(self, client: Any) -> NameNode:
        data, stat = client.get(self._name_path)
        try:
            node = unpack(data, NameNode)
        except DamagedError as error:
            raise NameTakenError(
                f"expected no damage at {self._name_path} ({error}); "
                f"remove it: onvm cluster leave --host {self.name}",
                field="--name",
                value=self.name,
            ) from None
        self._name_version = stat.version
        return node

    def _numbers_of_names(self) -> set[int]:
        numbers = set()
        for name in self._ensemble.client.get_children(self._paths.names):
            try:
                data, _ = self._ensemble.client.get(posixpath.join(self._paths.names, name))
                numbers.add(unpack(data, NameNode).number)
            except (NoNodeError, DamagedError):
                continue
        return numbers

    def _new_number(self) -> int:
        return NumberSource(
            self._ensemble, self._paths, HOSTS, HOST_MAX, self._numbers_of_names, self.number
        ).take()[0]

    def _restore_name(self, client: Any) -> NameNode:
        """Make the node of our name again, which a tree that was emptied or restored has lost.

        Raises:
            RemovedError: it was not lost: this host was taken out of the cluster.
        """
        if self._has_left(client):
            raise self._removed()
        state = self._state.state
        number = self.number
        if number in self._numbers_of_names():
            number = self._new_number()
        self._create_name(client, NameNode(number=number, proof=state.proof, key=state.key))
        node = self._read_name(client)
        log.warning("the tree had lost the name %s; it is there again", self.name)
        self.number = node.number
        self._token = None
        return node

    def _has_left(self, client: Any) -> bool:
        try:
            left = unpack(client.get(self._left_path)[0], LeftNode)
        except (NoNodeError, DamagedError):
            return False
        return left.proof == self._state.state.proof

    # ---- registration ----

    def register(
        self,
        host: HostNode,
        instances: InstancesNode,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Enter the election and make the ephemeral nodes.

        Those of a dead predecessor are taken over.

        Args:
            host: its number, election number and boot are filled in here.
            should_stop: ends the wait for another session.

        Raises:
            NameTakenError: the name was given to another agent, or is in use elsewhere.
            FencedError: the name was taken from us.
            NoEnsembleError: ZooKeeper does not answer.
        """
        was_registered = self._token is not None
        self.number = self.number or self.reserve_name()
        self._wait_for_other(should_stop)
        what = f"register {self.name!r}"
        with self._ensemble.call(what) as client:
            try:
                node = self._read_name(client)
            except NoNodeError:
                node = self._restore_name(client)
                was_registered = False
            if not self._is_ours(node, was_registered):
                raise self._fenced()
            made = client.create(
                posixpath.join(self._paths.leader, "election-"), b"", ephemeral=True, sequence=True
            )
            self.election_number = int(made.rpartition("-")[2])
            stale = [path for path in self._nodes.values() if client.exists(path)]
            is_known = client.exists(self._known_path) is not None
        host, applied = self._mine(host), AppliedNode(view="", digest="")
        state = self._state.state
        node = msgspec.structs.replace(node, holder=self._run, proof=state.proof, key=state.key)
        version = self._name_version

        def build(transaction: Any) -> None:
            transaction.set_data(self._name_path, pack(node), version)
            for path in stale:
                transaction.delete(path)
            transaction.create(self._nodes["host"], pack(host), ephemeral=True)
            transaction.create(self._nodes["instances"], pack(instances), ephemeral=True)
            transaction.create(self._nodes["applied"], pack(applied), ephemeral=True)
            known = pack(KnownNode(host=host, instances=instances))
            if is_known:
                transaction.set_data(self._known_path, known)
            else:
                transaction.create(self._known_path, known)

        self._ensemble.commit(what, build)
        self._token = version + 1
        with self._ensemble.call(what) as client:
            stat = client.exists(self._nodes["host"])
        self._clock_skew_s = 0 if stat is None else round(time.time() - stat.created)
        if self._clock_skew_s:
            log.warning(
                "the clock of %s is %+d s from that of ZooKeeper", self.name, self._clock_skew_s
            )
        self._host, self._instances, self._applied = host, instances, applied
        log.info(
            "registered as %s, number %d, election number %d",
            self.name,
            self.number,
            self.election_number,
        )

    def _wait_for_other(self, should_stop: Callable[[], bool]) -> None:
        """Wait until no other session holds our nodes, unless its agent is known to be dead."""
        # Sessions of other agents may last longer than ours; a minute is the longest that the
        # servers of `onvm cluster dev` and ZooKeeper's defaults grant.
        deadline = time.monotonic() + 2 * self._ensemble.session_s + 1
        while not should_stop():
            with self._ensemble.call(f"register {self.name!r}") as client:
                try:
                    data, stat = client.get(self._nodes["host"])
                except NoNodeError:
                    return
                if stat.ephemeralOwner == self._ensemble.session_id:
                    return
                try:
                    if unpack(data, HostNode).boot == self._state.boot:
                        return
                except DamagedError:
                    return
            if time.monotonic() > deadline:
                raise NameTakenError(
                    "expected a free name: another agent with the same identity runs; was the "
                    "state directory copied?",
                    field="--name",
                    value=self.name,
                )
            time.sleep(WAIT_STEP_S)

    def _fenced(self) -> FencedError:
        return FencedError(
            "expected no other agent of this name; this one must not go on",
            field="host",
            value=self.name,
        )

    def _mine(self, host: HostNode) -> HostNode:
        return msgspec.structs.replace(
            host,
            number=self.number,
            election_number=self.election_number,
            clock_skew_s=self._clock_skew_s,
            boot=self._state.boot,
        )

    @property
    def is_registered(self) -> bool:
        """True if `register` was done, in any session."""
        return self._token is not None

    def fence(self, transaction: Any) -> None:
        """Make a transaction fail if this agent is no longer registered."""
        transaction.check(self._name_path, -1 if self._token is None else self._token)
        transaction.check(self.election_path, 0)

    @property
    def election_path(self) -> str:
        """Our node in the election; it ends with the session in which it was made."""
        return posixpath.join(self._paths.leader, f"election-{self.election_number:010d}")

    def check(self) -> None:
        """Check that the name is still ours, or lost with the tree.

        Raises:
            FencedError: it is not.
            NoEnsembleError: ZooKeeper does not answer.
        """
        with self._ensemble.call("look for our name") as client:
            try:
                node = self._read_name(client)
            except NoNodeError:
                if self._has_left(client):
                    raise self._removed() from None
                return  # registering restores it
        if not self._is_ours(node, was_registered=self._token is not None):
            raise self._fenced()

    def _is_ours(self, node: NameNode, was_registered: bool) -> bool:
        # Compare the run, not the version: when the connection is lost in the middle of a write,
        # it is not known if the write was done.
        is_held = not was_registered or node.holder == self._run
        if self._token is not None and self._name_version < self._token:
            is_held = True  # of the past: the tree was restored from a backup
        return is_held and node.proof in ("", self._state.state.proof)

    def _removed(self) -> RemovedError:
        return RemovedError(
            "expected a member; it was removed from the cluster; run: onvm cluster join",
            field="host",
            value=self.name,
        )

    # ---- published facts ----

    @property
    def applied(self) -> AppliedNode | None:
        """The published record of the view that the manager has."""
        return self._applied

    def publish_host(self, node: HostNode) -> bool:
        """Publish the facts about the host; return True if they differ from before."""
        node = self._mine(node)
        if node == self._host:
            return False
        self._write("host", pack(node), self._known(host=node))
        self._host = node
        return True

    def publish_instances(self, node: InstancesNode) -> bool:
        """Publish the facts about the NF hosts; return True if they differ from before."""
        if node == self._instances:
            return False
        self._write("instances", pack(node), self._known(instances=node))
        self._instances = node
        return True

    def publish_applied(self, node: AppliedNode) -> bool:
        """Publish which view the manager has; return True if it differs from before."""
        if node == self._applied:
            return False
        self._write("applied", pack(node))
        self._applied = node
        return True

    def _known(self, **facts: HostNode | InstancesNode) -> bytes:
        """The facts that stay when our session ends."""
        assert self._host is not None and self._instances is not None
        known = KnownNode(host=self._host, instances=self._instances)
        return pack(msgspec.structs.replace(known, **facts))

    def _write(self, kind: str, data: bytes, known: bytes = b"") -> None:
        def build(transaction: Any) -> None:
            self.fence(transaction)
            transaction.set_data(self._nodes[kind], data)
            if known:
                transaction.set_data(self._known_path, known)

        self._ensemble.commit(f"publish {kind}", build)


def say_goodbye(ensemble: Ensemble, paths: Paths, name: str) -> bool:
    """Publish that a host leaves, so that the others do not wait for it; return False if it is not
    there.
    """
    path = posixpath.join(paths.hosts, name)
    with ensemble.call(f"host {name!r} leaves") as client:
        try:
            data, _ = client.get(path)
            node = msgspec.structs.replace(unpack(data, HostNode), state="leaving")
            client.set(path, pack(node))
        except (NoNodeError, DamagedError):
            return False
    return True


def remove_host(ensemble: Ensemble, paths: Paths, name: str) -> bool:
    """Remove a host's name and nodes, whether it lives or not; return False if it is unknown.

    This fences an agent that still runs under that name.
    """
    name_path = posixpath.join(paths.names, name)
    left_path = posixpath.join(paths.left, name)
    folders = (paths.hosts, paths.instances, paths.applied, paths.draining, paths.known, paths.left)
    with ensemble.call(f"remove host {name!r}") as client:
        for _ in range(ATTEMPTS):
            try:
                data, _ = client.get(name_path)
            except NoNodeError:
                return False
            nodes = [posixpath.join(folder, name) for folder in folders]
            there = [path for path in nodes if client.exists(path)]
            transaction = client.transaction()
            for path in there:
                transaction.delete(path)
            transaction.delete(name_path)
            with contextlib.suppress(DamagedError):
                owner = unpack(data, NameNode)
                left = LeftNode(number=owner.number, proof=owner.proof)
                transaction.create(left_path, pack(left))
            results = transaction.commit()
            errors = [one for one in results if isinstance(one, Exception)]
            if not errors:
                return True
    raise ConflictError(f"remove host {name!r}: it comes and goes")
