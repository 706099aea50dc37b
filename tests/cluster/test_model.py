"""Registration, numbers, the queue and its claims, in many orders of calls and faults (`model`).

`make fuzz` looks at other orders in each run.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from bench import host_node, instances_node, plugin
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model import Client, ModelEnsemble, Schedule, Tree

from onvm_core.cluster.errors import ClusterError, FencedError, NoEnsembleError
from onvm_core.cluster.member.membership import Membership
from onvm_core.cluster.member.moved_instances import MovedInstances
from onvm_core.cluster.member.state_directory import AgentState
from onvm_core.cluster.scaling import scaler as scaler_module
from onvm_core.cluster.scaling.requests import RequestQueue
from onvm_core.cluster.scaling.scaler import Scaler
from onvm_core.cluster.tree.mirror import Mirror
from onvm_core.cluster.tree.nodes import ClusterNode, DrainNode, Paths, RequestNode, pack
from onvm_core.cluster.tree.numbers import INSTANCES, NumberSource
from onvm_sdk.errors import ConfigError

PATHS = Paths("main")
CLUSTER = ClusterNode(id="0123456789", name="main", vni=1)
TURNS, TURNS_MAX = 1, 60
REQUESTS = 6
"""Enough that most calls of an agent are about a request."""


def schedules(faults: int) -> st.SearchStrategy[Schedule]:
    """Schedules by their seeds: a list of choices would mostly be too short to get anywhere."""
    return st.builds(Schedule, st.integers(0, 2**32 - 1), st.just(faults))


def new_tree() -> Tree:
    tree = Tree()
    tree.apply(("create", "/onvm", b"", 0, False))
    tree.apply(("create", PATHS.root, pack(CLUSTER), 0, False))
    for folder in PATHS.folders:
        tree.apply(("create", folder, b"", 0, False))
    return tree


class State:
    """A state directory that lasts as long as the test."""

    def __init__(self, name: str) -> None:
        self.state = AgentState(secret=name, key="k" * 40, key_secret="s")
        self.boot = f"boot/{name}"

    def save(self) -> None:
        return


class Link:
    """The manager of a host: its instances serve at once."""

    def __init__(self) -> None:
        self.instances: list[str] = []

    def another(self) -> Link:
        return self

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def local(self) -> Any:
        hosts = [SimpleNamespace(name=name, state="active") for name in self.instances]
        return SimpleNamespace(hosts=hosts, reserved=[], resources=None)

    def launched(self) -> Any:
        return SimpleNamespace(
            launched=[SimpleNamespace(instances=[name], state="active") for name in self.instances]
        )

    def run(self, nf: str, number: int) -> None:
        if f"{nf}-{number}" in self.instances:
            raise ConfigError("expected one that does not run")
        self.instances.append(f"{nf}-{number}")

    def stop(self, name: str) -> None:
        self.instances.remove(name)

    drain = stop


class Inline:
    """A thread that runs where it is started: what it does is one of the agent's steps."""

    def __init__(self, target: Any, args: tuple[Any, ...] = (), **_: object) -> None:
        self._run = lambda: target(*args)

    def start(self) -> None:
        self._run()


class Host:
    """An agent, of which each turn is what its threads do in one; it dies when its session ends."""

    def __init__(self, name: str, number: int, tree: Tree, schedule: Schedule) -> None:
        self.tree = tree
        self.name = name
        self.number = number
        self.link = Link()
        self.state: Any = State(name)
        self.client = Client(tree, schedule.waiter(name))
        schedule.clients[name] = self.client
        self.ensemble: Any = ModelEnsemble(self.client)
        self._begin()

    def _begin(self) -> None:
        self.membership = Membership(self.ensemble, PATHS, self.name, self.state)
        self.mirror = Mirror(self.ensemble, CLUSTER, PATHS)
        self.session: int | None = None
        thread: Any = SimpleNamespace(
            membership=self.membership,
            moved=MovedInstances(self.state),
            may_decide=True,
            snapshot=None,
        )
        self.thread = thread
        link: Any = self.link
        self.scaler = Scaler(self.ensemble, PATHS, thread, self.state, link, dict)

    def program(self) -> None:
        for turn in range(TURNS_MAX):
            if turn > TURNS and not self._has_work():
                return
            try:
                self._turn()
            except FencedError:
                raise
            except ClusterError:
                if self.client.is_expired:
                    self.client.begin()
                    self._begin()  # the next agent, with the same state directory
                self.session = None

    def _has_work(self) -> bool:
        waits = any(path.startswith(f"{PATHS.entries}/") for path in self.tree.nodes)
        return waits or bool(self.state.state.started)

    def _turn(self) -> None:
        session = self.client.session
        if self.session != session:
            if self.membership.is_registered:
                self.membership.check()
            host = host_node(self.number, plugins=[plugin("firewall")])
            node = instances_node(cores=8.0)
            self.membership.register(host, node)
            self.session = session
        self.mirror.forget()
        self.mirror.refresh()
        self.thread.snapshot = self.mirror.snapshot
        self.scaler._finish_started()
        self.scaler._serve(self.mirror.snapshot)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scaler_module, "PUBLISHED_S", 0.0)
    monkeypatch.setattr(
        scaler_module, "threading", SimpleNamespace(Thread=Inline, Event=threading.Event)
    )
    logger = logging.getLogger("onvm.cluster")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


@settings(deadline=None)
@example(Schedule(93, 6))  # a host whose session ended while another read of it
@given(schedules(6))
def test_each_request_has_one_instance_whatever_happens_when(schedule: Schedule) -> None:
    tree = new_tree()
    hosts = [Host(name, number, tree, schedule) for number, name in enumerate("ab", 1)]
    calm: Any = ModelEnsemble(Client(tree, lambda: ""))
    queue = RequestQueue(calm, PATHS)
    keys = [f"k{number}" for number in range(REQUESTS)]
    ends: list[str] = []
    for key, name in zip(keys, itertools.cycle("ab")):
        queue.put(
            RequestNode(
                key=key, service="firewall", reason="", preferred=[name], deadline=1.0, made=0.0
            )
        )
    for host in hosts:
        host.link.instances.append("old-1")
        key = f"end-{host.name}"
        fields = {"preferred": [host.name], "stop": "old-1", "deadline": 1.0, "made": 0.0}
        queue.put(RequestNode(key=key, service="old", reason="", **fields))  # type: ignore[arg-type]
        ends.append(key)
    schedule.run({host.name: host.program for host in hosts})
    outcomes = queue.outcomes()
    states = {key: one.state for key, one in outcomes.items()}
    assert states == dict.fromkeys([*keys, *ends], "done"), schedule.log
    served = sorted(f"{outcomes[key].host}/{outcomes[key].instance}" for key in keys)
    there = sorted(f"{host.name}/{name}" for host in hosts for name in host.link.instances)
    assert served == there, schedule.log
    assert queue.waiting() == {}


@settings(deadline=None)
@given(schedules(0))
def test_no_number_is_given_twice(schedule: Schedule) -> None:
    """Not even by a tree that goes back to its beginning, when each knows only some numbers."""
    tree = new_tree()
    given_out: list[int] = []
    sources: list[tuple[Client, NumberSource]] = []

    def lose_the_counter() -> None:
        tree.nodes.pop(f"{PATHS.numbers}/{INSTANCES}")
        for client, source in sources:  # they have read of all numbers but the last four
            client.is_expired = True
            source.highest = max(source.highest, *given_out[:-4])

    def program(name: str) -> Any:
        client = Client(tree, schedule.waiter(name))
        ensemble: Any = ModelEnsemble(client)
        source = NumberSource(ensemble, PATHS, INSTANCES, 65535, set)
        sources.append((client, source))

        def take() -> None:
            for _ in range(4):
                try:
                    given_out.extend(source.take(2))
                except ClusterError:  # its session is over; agents try again
                    client.begin()
                    given_out.extend(source.take(2))
                if len(given_out) == 12:
                    lose_the_counter()

        return take

    schedule.run({name: program(name) for name in "abc"})
    assert len(given_out) == len(set(given_out)) == 24


@settings(deadline=None)
@given(schedules(2))
def test_only_the_last_agent_of_a_name_can_write(schedule: Schedule) -> None:
    """Two with one state directory, as when a frozen agent wakes beside its successor."""
    tree = new_tree()
    state: Any = State("a")
    written: list[str] = []

    def program(name: str) -> Any:
        ensemble: Any = ModelEnsemble(Client(tree, schedule.waiter(name)))
        member = Membership(ensemble, PATHS, "a", state)

        def write() -> None:
            try:
                member.register(host_node(1), instances_node())
                for cores in range(2, 5):
                    member.publish_instances(instances_node(cores=float(cores)))
                    token = tree.nodes[f"{PATHS.names}/a"][1]
                    assert token == member._token, "one who was replaced has written"
                    written.append(name)
            except (ClusterError, FencedError):
                return

        return write

    schedule.run({name: program(name) for name in "xy"})


def test_request_taken_without_an_answer_is_given_up_when_another_host_is_to_serve_it() -> None:
    """Found by the first test: the lock stayed as long as the session, and no host served it."""
    tree = new_tree()
    at_once: Any = SimpleNamespace(waiter=lambda _: lambda: "", clients={})
    host = Host("a", 1, tree, at_once)
    host._turn()
    queue = host.scaler.queue
    queue.put(RequestNode(key="k", service="firewall", reason="", deadline=1.0, made=0.0))
    lock = queue._lock_entry

    def unanswered(*arguments: Any, **options: Any) -> bool:
        lock(*arguments, **options)
        raise NoEnsembleError("no answer")

    queue._lock_entry = unanswered  # type: ignore[method-assign]
    with pytest.raises(NoEnsembleError):
        host._turn()
    queue._lock_entry = lock  # type: ignore[method-assign]
    assert any(path.startswith(f"{PATHS.taken}/") for path in tree.nodes)
    tree.apply(("create", f"{PATHS.draining}/a", pack(DrainNode(since=0.0)), 0, False))
    host._turn()
    assert not any(path.startswith(f"{PATHS.taken}/") for path in tree.nodes)


def test_host_that_ended_and_came_back_while_it_was_read_has_its_instances() -> None:
    """Found by the first test: half of its nodes were read, and the others never again."""
    tree = new_tree()
    at_once: Any = SimpleNamespace(waiter=lambda _: lambda: "", clients={})
    a, b = (Host(name, number, tree, at_once) for number, name in enumerate("ab", 1))
    a._turn()
    read = b.client.get

    def end_between(path: str, watch: object = None) -> Any:
        if path == f"{PATHS.instances}/a":
            a.client.lose()
        return read(path, watch)

    b.client.get = end_between  # type: ignore[method-assign]
    b._turn()
    assert "a" not in b.mirror.snapshot.instances
    b.client.get = read  # type: ignore[method-assign]
    a.client.begin()
    a._turn()
    b._turn()
    assert set(b.mirror.snapshot.hosts) == set(b.mirror.snapshot.instances) == {"a", "b"}
