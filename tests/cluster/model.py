"""A ZooKeeper in memory, and agents of which each call to it can come before or after any other's.

The agents' own code runs, one thread each, but only one at a time: before each call a thread waits
until the schedule lets it go on. A schedule follows from a seed, so what breaks something can be
repeated.
"""

from __future__ import annotations

import posixpath
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kazoo.exceptions import (
    BadVersionError,
    ConnectionLoss,
    NodeExistsError,
    NoNodeError,
    SessionExpiredError,
)

from onvm_core.cluster.tree.ensemble import Ensemble

FAULTS = ("lost", "unanswered", "expired", "renewed", "renewed")
"""What may become of a call: it never arrived, it was done unanswered, the session is over; or it
is over since the last call, and the client has another one, as kazoo's does: what an agent has
begun goes on in the new session.
"""
BURST_MAX = 30
PAUSE_MAX = 120
"""Calls of others while an agent sleeps after a fault: long enough to take over all that it had."""
FAULTS_UNTIL = 160
STEPS = 400


class Stat:
    def __init__(self, version: int, owner: int, zxid: int) -> None:
        self.version = version
        self.mzxid = zxid
        self.ephemeralOwner = owner
        self.created = 0.0


class Tree:
    """Nodes by path: data, version, and the session that they end with, if any."""

    def __init__(self) -> None:
        self.nodes: dict[str, tuple[bytes, int, int]] = {"/": (b"", 0, 0)}
        self.sequence = 0
        self.sessions = 0
        self.zxid = 0
        self.written = {"/": 0}
        """Transactions that wrote the nodes."""

    def expire(self, session: int) -> None:
        self.nodes = {path: node for path, node in self.nodes.items() if node[2] != session}

    def apply(self, operation: tuple[Any, ...]) -> Any:
        kind, path, *rest = operation
        if kind == "create":
            data, session, is_sequence = rest
            if is_sequence:
                path = f"{path}{self.sequence:010d}"
                self.sequence += 1
            if path in self.nodes:
                raise NodeExistsError
            if posixpath.dirname(path) not in self.nodes:
                raise NoNodeError
            self._write(path, data, 0, session)
            return path
        if path not in self.nodes:
            raise NoNodeError
        data, version, owner = self.nodes[path]
        if kind == "children":
            return sorted(
                posixpath.basename(one)
                for one in self.nodes
                if one != path and posixpath.dirname(one) == path
            )
        if kind == "get":
            return data, Stat(version, owner, self.written[path])
        if rest[-1] not in (-1, version):
            raise BadVersionError
        if kind == "delete":
            del self.nodes[path]
        elif kind == "set":
            self._write(path, rest[0], version + 1, owner)
        return None

    def _write(self, path: str, data: bytes, version: int, owner: int) -> None:
        self.zxid += 1
        self.nodes[path] = (data, version, owner)
        self.written[path] = self.zxid

    def commit(self, operations: Sequence[tuple[Any, ...]]) -> list[Any]:
        before, sequence, written = dict(self.nodes), self.sequence, dict(self.written)
        try:
            return [self.apply(one) for one in operations]
        except (NodeExistsError, NoNodeError, BadVersionError) as error:
            self.nodes, self.sequence, self.written = before, sequence, written
            return [error]


class Result:
    """The answer to an asynchronous call."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.get = call


class Transaction:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._operations: list[tuple[Any, ...]] = []

    def create(
        self, path: str, value: bytes, *, ephemeral: bool = False, sequence: bool = False
    ) -> None:
        self._operations.append(("create", path, value, ephemeral, sequence))

    def delete(self, path: str, version: int = -1) -> None:
        self._operations.append(("delete", path, version))

    def set_data(self, path: str, value: bytes, version: int = -1) -> None:
        self._operations.append(("set", path, value, version))

    def check(self, path: str, version: int) -> None:
        self._operations.append(("check", path, version))

    def commit(self) -> list[Any]:
        def commit(tree: Tree) -> list[Any]:
            return tree.commit([self._client.owned(one) for one in self._operations])

        done: list[Any] = self._client.call(commit)
        return done


class Client:
    """One session; what an agent calls of kazoo's client."""

    def __init__(self, tree: Tree, wait: Callable[[], str]) -> None:
        self._tree = tree
        self._wait = wait
        self.begin()

    def begin(self) -> None:
        """Begin a session."""
        self._tree.sessions += 1
        self.session = self._tree.sessions
        self.is_expired = self._is_lost = False

    def lose(self) -> None:
        """End the session; the next call is made in another one."""
        self._tree.expire(self.session)
        self._is_lost = True

    @property
    def client_id(self) -> tuple[int, bytes]:
        return self.session, b""

    def call(self, operation: Callable[[Tree], Any]) -> Any:
        fault = self._wait()
        if self._is_lost:
            self.begin()
        if fault == "expired":
            self._tree.expire(self.session)
            self.is_expired = True
        if self.is_expired:
            raise SessionExpiredError
        if fault == "lost":
            raise ConnectionLoss
        done = operation(self._tree)
        if fault == "unanswered":
            raise ConnectionLoss
        return done

    def _one(self, *operation: Any) -> Any:
        return self.call(lambda tree: tree.apply(self.owned(operation)))

    def owned(self, operation: tuple[Any, ...]) -> tuple[Any, ...]:
        """With the session that an ephemeral node ends with: the one at the time of the call."""
        if operation[0] != "create":
            return operation
        kind, path, value, is_ephemeral, is_sequence = operation
        return kind, path, value, self.session if is_ephemeral else 0, is_sequence

    def get(self, path: str, watch: object = None) -> Any:
        del watch
        return self._one("get", path)

    def get_async(self, path: str, watch: object = None) -> Result:
        return Result(lambda: self.get(path, watch))

    def get_children(self, path: str, watch: object = None) -> Any:
        del watch
        return self._one("children", path)

    def get_children_async(self, path: str, watch: object = None) -> Result:
        return Result(lambda: self.get_children(path, watch))

    def exists(self, path: str) -> Any:
        try:
            return self.get(path)[1]
        except NoNodeError:
            return None

    def create(
        self, path: str, value: bytes = b"", *, ephemeral: bool = False, sequence: bool = False
    ) -> Any:
        return self._one("create", path, value, ephemeral, sequence)

    def set(self, path: str, value: bytes, version: int = -1) -> Any:
        return self._one("set", path, value, version)

    def delete(self, path: str, version: int = -1) -> Any:
        return self._one("delete", path, version)

    def transaction(self) -> Transaction:
        return Transaction(self)


class ModelEnsemble:
    """As much of an `Ensemble` as agents use; errors become lines as in the real one."""

    call = Ensemble.call
    commit = Ensemble.commit
    hosts = "model"
    session_s = 0.0

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def session_id(self) -> int:
        return self.client.session


class Schedule:
    """Lets one thread go on at a time, as its seed says.

    Args:
        seed: gives which thread goes on for how many calls, which calls meet which faults, and for
            how many calls of others a thread sleeps before such a call is made; after `STEPS`
            calls, the threads take turns without faults.
        faults: number of faults.
    """

    def __init__(self, seed: int, faults: int) -> None:
        chance = random.Random(seed)
        choices: list[int] = []
        while len(choices) < STEPS:
            choices += [chance.randrange(6)] * chance.randint(1, BURST_MAX)
        self._choices = choices
        self._faults = {
            chance.randrange(FAULTS_UNTIL): (
                chance.choice(FAULTS),
                chance.choice((0, chance.randrange(PAUSE_MAX))),
            )
            for _ in range(faults)
        }
        self.clients: dict[str, Client] = {}
        """Those that can lose their sessions, by thread."""
        self._turns: dict[str, threading.Semaphore] = {}
        self._faces: dict[str, str] = {}
        self._main = threading.Semaphore(0)
        self._is_over = False
        self.errors: list[BaseException] = []
        self.log: list[str] = []

    def waiter(self, name: str) -> Callable[[], str]:
        """What a client of the thread `name` calls before each call."""

        def wait() -> str:
            self._main.release()
            self._turns[name].acquire()
            if self._is_over:
                raise SystemExit
            return self._faces[name]

        return wait

    def run(self, programs: dict[str, Callable[[], None]]) -> None:
        """Run all to their ends; the first error ends it."""
        threads = {}
        for name, program in programs.items():
            self._turns[name] = threading.Semaphore(0)
            threads[name] = threading.Thread(
                target=self._run_one, args=(name, program), daemon=True
            )
        alive = list(programs)
        for name in list(alive):
            threads[name].start()
            self._main.acquire()
        steps = 0
        asleep, until = "", 0
        while alive and not self.errors:
            alive = [name for name in alive if threads[name].is_alive() and name in self._turns]
            if not alive:
                break
            awake = [name for name in alive if name != asleep or steps >= until] or alive
            name = awake[(self._choices[steps] if steps < STEPS else steps) % len(awake)]
            fault, pause = self._faults.get(steps, ("", 0))
            if fault == "renewed" and name in self.clients:
                self.clients[name].lose()
            if pause and len(alive) > 1:
                asleep, until = name, steps + pause
                name = next(one for one in alive if one != asleep)
                fault = ""
            self._faces[name] = fault
            self.log.append(f"{name}{':' if fault else ''}{fault}")
            self._turns[name].release()
            self._main.acquire()
            steps += 1
            assert steps < 20_000, "it does not come to an end"
        self._is_over = True
        for name in list(self._turns):
            self._turns[name].release()
        for thread in threads.values():
            thread.join(5)
        if self.errors:
            raise self.errors[0]

    def _run_one(self, name: str, program: Callable[[], None]) -> None:
        try:
            program()
        except BaseException as error:  # noqa: BLE001 -- the test looks at it
            if not isinstance(error, SystemExit):
                self.errors.append(error)
        self._turns.pop(name, None)
        self._main.release()
