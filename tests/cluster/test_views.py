"""Views that are made and sent piece by piece are those that would be made and sent whole."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from bench import chain_node, host_node, instance, instances_node, plugin
from hypothesis import given
from hypothesis import strategies as st
from model import Client, ModelEnsemble, Tree

from onvm_core.cluster.tree.mirror import Mirror, Snapshot
from onvm_core.cluster.tree.nodes import (
    ChainNode,
    ClusterNode,
    DrainNode,
    HostNode,
    InstanceNode,
    InstancesNode,
    KnownNode,
    Paths,
    pack,
)
from onvm_core.cluster.view.absence import Absences
from onvm_core.cluster.view.cluster_view import digest, make_view
from onvm_core.cluster.view.view_maker import ViewMaker
from onvm_core.manager.api import messages as m
from onvm_core.manager.api.codec import pack_request, unpack_request
from onvm_core.manager.cluster_view.view import ClusterView
from onvm_core.manager.cluster_view.view_change import ViewChange, ViewTables, difference
from onvm_sdk.errors import ConfigError

HOSTS = ("a", "b", "c", "d")
SERVICES = ("firewall", "nat")
CLUSTER = ClusterNode(id="0123456789", name="main", vni=7)


class Step(NamedTuple):
    """A cluster at one moment, as an agent sees it."""

    snapshot: Snapshot
    vanished: frozenset[str]
    spare: dict[int, int]


def _hosts(name: str) -> st.SearchStrategy[HostNode]:
    number = HOSTS.index(name) + 1
    return st.builds(
        lambda state, version, moved: host_node(
            number + 10 * moved,
            state=state,
            address=f"10.0.{moved}.{number}",
            plugins=[plugin(service, version) for service in SERVICES],
        ),
        st.sampled_from(["up", "up", "leaving", "no_manager"]),
        st.sampled_from(["1", "2"]),
        st.integers(0, 1),
    )


def _instance(number: int) -> st.SearchStrategy[InstanceNode]:
    return st.builds(
        lambda service, version, state, capacity: instance(
            number, service, plugin_versions=[(version, "d")], state=state, capacity_pps=capacity
        ),
        st.sampled_from(SERVICES),
        st.sampled_from(["1", "2"]),
        st.sampled_from(["active", "active", "draining"]),
        st.sampled_from([0, 1000]),
    )


def _instances(name: str) -> st.SearchStrategy[InstancesNode]:
    first = 100 * HOSTS.index(name) + 1
    return st.builds(
        lambda some, successors: InstancesNode(instances=list(some), successors=successors),
        st.tuples(*(_instance(first + index) for index in range(2))).flatmap(
            lambda some: st.sampled_from([some, some[:1], some[1:], ()])
        ),
        st.sampled_from([[], [], [(first, 201)], [(first + 1, 1), (9, 1)]]),
    )


def _chains(number: int) -> st.SearchStrategy[ChainNode]:
    return st.builds(
        lambda far, services: chain_node(number, "a", far, services=services),
        st.sampled_from(HOSTS),
        st.lists(st.sampled_from(SERVICES), max_size=2),
    )


_NODES = st.fixed_dictionaries(
    {},
    optional={
        **{f"hosts/{name}": _hosts(name) for name in HOSTS},
        **{f"instances/{name}": _instances(name) for name in HOSTS},
        **{f"draining/{name}": st.just(DrainNode(since=1.0)) for name in HOSTS},
        **{f"chains/{name}": _chains(number) for number, name in enumerate(("web", "dns"), 1)},
    },
)
_GONE = st.frozensets(
    st.sampled_from([f"{kind}/{name}" for kind in ("hosts", "draining") for name in HOSTS])
)
_SPARE = st.dictionaries(st.sampled_from([1, 2, 101, 102, 201]), st.integers(0, 9), max_size=3)


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    """Moments that follow each other: what does not change is the same object, as in a mirror."""
    known: dict[str, object] = {}
    made = []
    for _ in range(draw(st.integers(2, 6))):
        for path in draw(_GONE):
            known.pop(path, None)
        known |= draw(_NODES)
        parts: dict[str, dict[str, object]] = {}
        for path, node in sorted(known.items()):
            kind, _, name = path.partition("/")
            if kind != "instances" or f"hosts/{name}" in known:
                parts.setdefault(kind, {})[name] = node
        made.append(
            Step(
                Snapshot(cluster=CLUSTER, **parts),  # type: ignore[arg-type]
                draw(st.frozensets(st.sampled_from(HOSTS[1:]))),
                draw(_SPARE),
            )
        )
    return made


@given(steps())
def test_views_made_one_after_the_other_are_those_made_whole(moments: Sequence[Step]) -> None:
    maker = ViewMaker("a")
    for snapshot, vanished, spare in moments:
        whole = make_view(snapshot, "a", spare, vanished)
        assert maker.make(snapshot, spare, vanished) == whole
        if whole is not None:
            assert maker.digest == digest(whole)


@given(steps())
def test_equal_snapshots_have_equal_digests_on_all_hosts(moments: Sequence[Step]) -> None:
    makers = {name: ViewMaker(name) for name in HOSTS}
    for snapshot, vanished, spare in moments:
        serving = [name for name, node in snapshot.hosts.items() if node.state != "no_manager"]
        found = set()
        for name in serving:
            makers[name].make(snapshot, spare if name == "a" else {}, vanished)
            found.add(makers[name].digest)
        assert len(found) <= 1


def _travel(change: ViewChange) -> ViewChange:
    request = unpack_request(pack_request(m.ClusterChangeRequest(revision=1, change=change)))
    assert isinstance(request, m.ClusterChangeRequest)
    return request.change


@given(steps())
def test_changes_that_were_sent_add_up_to_the_view(moments: Sequence[Step]) -> None:
    maker = ViewMaker("a")
    tables: ViewTables | None = None
    before: ClusterView | None = None
    for snapshot, vanished, spare in moments:
        view = maker.make(snapshot, spare, vanished)
        if view is None:
            continue
        change = None if before is None else difference(before, view)
        if tables is None or change is None:
            tables = ViewTables(view)
        else:
            tables.change(_travel(change))
        before = view
        assert tables.view == view


def _view(**fields: object) -> ClusterView:
    snapshot = Snapshot(
        cluster=CLUSTER,
        hosts={"a": host_node(1), "b": host_node(2)},
        instances={"b": InstancesNode(instances=[instance(5), instance(6)])},
        chains={"web": chain_node()},
    )
    view = make_view(snapshot, "a", {})
    assert view is not None
    return msgspec.structs.replace(view, **fields)


def test_only_what_is_another_is_sent() -> None:
    before = _view()
    assert difference(before, _view()) == ViewChange()
    other = msgspec.structs.replace(before.instances[0], state="draining")
    spare = msgspec.structs.replace(before.instances[1], spare_pps=77)
    after = _view(instances=[other, spare], chains=[])
    assert difference(before, after) == ViewChange(
        instances=[other], spare_pps=[(6, 77)], chains_gone=["web"]
    )


@pytest.mark.parametrize(
    "fields", [{"number": 9}, {"address": "10.0.0.9"}, {"vni": 8}, {"host": "c"}], ids=str
)
def test_a_view_of_another_host_or_cluster_is_sent_whole(fields: dict[str, object]) -> None:
    assert difference(_view(), _view(**fields)) is None


def test_two_nf_hosts_of_one_number_are_sent_whole() -> None:
    twice = _view(instances=[_view().instances[0]] * 2)
    assert difference(_view(), twice) is None
    assert difference(twice, _view()) is None


@pytest.mark.parametrize(
    "change",
    [
        ViewChange(peers_gone=["c"]),
        ViewChange(instances_gone=[5, 7]),
        ViewChange(spare_pps=[(7, 1)]),
        ViewChange(chains_gone=["dns"]),
    ],
    ids=str,
)
def test_a_change_of_another_view_is_refused_and_changes_nothing(change: ViewChange) -> None:
    tables = ViewTables(_view())
    with pytest.raises(ConfigError, match="of the view"):
        tables.change(change)
    assert tables.view == _view()


def _known(number: int, state: str = "up") -> KnownNode:
    return KnownNode(host=host_node(number, state=state), instances=InstancesNode())


BOTH = Snapshot(
    cluster=CLUSTER,
    members=frozenset("ab"),
    hosts={"a": host_node(1), "b": host_node(2)},
    instances={"b": InstancesNode()},
)
ONE = Snapshot(
    cluster=CLUSTER,
    members=frozenset("ab"),
    hosts={"a": host_node(1)},
    away={"b": _known(2)},
)


def test_who_looks_late_still_forgets_those_that_have_vanished() -> None:
    absences = Absences(settle_s=2.0, linger_s=30.0)
    absences.update(BOTH, 100.0)
    absences.reconnected(101.0)
    merged, vanished = absences.update(ONE, 101.5, {"b"})
    assert ("b" in merged.hosts, vanished, absences.due_s) == (True, frozenset(), 103.0)
    merged, vanished = absences.update(ONE, 102.9, {"b"})
    assert (merged.hosts, vanished) == (BOTH.hosts, frozenset())
    assert absences.due_s == 103.0
    # A decision that was due stays due, however late an agent looks.
    merged, vanished = absences.update(ONE, 110.0, {"b"})
    assert (merged.hosts, vanished) == (BOTH.hosts, frozenset({"b"}))
    assert absences.due_s == 133.0
    assert absences.update(ONE, 500.0, {"b"}) == (ONE, frozenset())
    assert absences.due_s is None


def test_host_that_answers_is_never_forgotten_before_it_leaves() -> None:
    absences = Absences(settle_s=2.0, linger_s=30.0)
    for now in (100.0, 136.0, 700.0, 1e6):
        merged, vanished = absences.update(ONE, now)
        assert (merged.hosts, vanished) == (BOTH.hosts, frozenset({"b"}))
        assert absences.due_s is None
    absences.update(ONE, 1e6, {"b"})
    absences.update(ONE, 1e6 + 29)  # it answers again
    merged, _ = absences.update(ONE, 1e6 + 40, {"b"})
    assert "b" in merged.hosts
    left = msgspec.structs.replace(ONE, members=frozenset("a"), away={})
    assert absences.update(left, 1e6 + 41, {"b"}) == (left, frozenset())


def test_agent_that_has_just_begun_knows_a_host_that_is_away() -> None:
    merged, vanished = Absences(settle_s=2.0).update(ONE, 5.0)
    assert (sorted(merged.hosts), vanished) == (["a", "b"], frozenset({"b"}))


@pytest.mark.parametrize("state", ["leaving", "no_manager"])
def test_host_that_said_goodbye_is_gone_at_once(state: str) -> None:
    gone = msgspec.structs.replace(ONE, away={"b": _known(2, state)})
    assert Absences(settle_s=2.0).update(gone, 5.0) == (gone, frozenset())


def test_hosts_that_a_restored_tree_does_not_know_stay_until_they_register() -> None:
    absences = Absences(settle_s=2.0, linger_s=30.0)
    absences.update(BOTH, 100.0)
    absences.reconnected(101.0)
    old = msgspec.structs.replace(
        BOTH, members=frozenset("a"), lost=frozenset("b"), hosts={"a": host_node(1)}, instances={}
    )
    named = msgspec.structs.replace(old, members=frozenset("ab"), lost=frozenset())
    for now_s, tree in ((101.5, old), (200.0, old), (201.0, named)):
        merged, vanished = absences.update(tree, now_s)
        assert (merged.hosts, merged.instances) == (BOTH.hosts, BOTH.instances)
        assert vanished == (frozenset() if now_s < 103.0 else {"b"})
    assert absences.update(BOTH, 202.0) == (BOTH, frozenset())
    absences.update(old, 203.0, {"b"})
    assert absences.update(old, 233.0, {"b"}) == (old, frozenset()), "it does not answer"


def test_host_that_left_meanwhile_is_not_lost() -> None:
    absences = Absences(settle_s=2.0)
    absences.update(BOTH, 100.0)
    absences.reconnected(101.0)
    left = msgspec.structs.replace(BOTH, members=frozenset("a"), hosts={"a": host_node(1)})
    assert absences.update(left, 101.5) == (left, frozenset())


# ---- a tree from a backup ----


class Backup:
    """A tree with hosts a and b, of which a backup is restored, and the mirror of an agent."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.paths = Paths("main")
        for path in ("/onvm", self.paths.root, *self.paths.folders):
            self.tree.apply(("create", path, b"", 0, False))
        self.ensemble: Any = ModelEnsemble(Client(self.tree, lambda: ""))
        self.mirror = Mirror(self.ensemble, CLUSTER, self.paths)
        self.register("a", 1)
        self.register("b", 1)

    def register(self, name: str, *numbers: int) -> None:
        """A new session has the nodes of a host."""
        owner = self.tree.sessions = self.tree.sessions + 1
        host, node = host_node(ord(name)), instances_node(*map(instance, numbers))
        self.tree.nodes.setdefault(f"{self.paths.names}/{name}", (b"", 0, 0))
        for folder, value in (("hosts", host), ("instances", node)):
            self._set(f"{getattr(self.paths, folder)}/{name}", value, owner)
        self._set(f"{self.paths.known}/{name}", KnownNode(host=host, instances=node), 0)

    def publish(self, name: str, *numbers: int) -> None:
        """The session that has them changes the instances."""
        path = f"{self.paths.instances}/{name}"
        node = instances_node(*map(instance, numbers))
        self._set(path, node, self.tree.nodes[path][2])
        known = KnownNode(host=host_node(ord(name)), instances=node)
        self._set(f"{self.paths.known}/{name}", known, 0)

    def _set(self, path: str, value: msgspec.Struct, owner: int) -> None:
        self.tree._write(path, pack(value), 0, owner)

    def numbers(self) -> dict[str, list[int]]:
        """What the mirror shows, of hosts with and without a session."""
        self.mirror.refresh()
        snapshot = self.mirror.snapshot
        nodes = snapshot.instances | {n: one.instances for n, one in snapshot.away.items()}
        return {name: [one.number for one in nodes[name].instances] for name in sorted(nodes)}

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """What happens within is not in the backup."""
        backup = copy.deepcopy((self.tree.nodes, self.tree.zxid, self.tree.written))
        yield
        self.numbers()
        self.tree.nodes, self.tree.zxid, self.tree.written = backup


def test_instances_that_a_backup_does_not_know_stay_until_their_agent_registers() -> None:
    world = Backup()
    with world.restored():
        world.publish("a", 1, 2)
    assert world.numbers() == {"a": [1, 2], "b": [1]}
    world.tree.expire(1)  # before its agent is back
    assert world.numbers() == {"a": [1, 2], "b": [1]}
    world.register("a", 2, 3)
    assert world.numbers() == {"a": [2, 3], "b": [1]}
    world.publish("a", 3)
    assert world.numbers() == {"a": [3], "b": [1]}


def test_session_of_a_backup_may_be_older_than_the_last_one() -> None:
    world = Backup()
    world.numbers()
    with world.restored():
        world.tree.expire(1)
        world.register("a", 1, 2)
        world.publish("b", 1, 5)
    assert world.numbers() == {"a": [1, 2], "b": [1, 5]}
    world.register("a")
    world.register("b", 6)
    assert world.numbers() == {"a": [], "b": [6]}


def test_member_that_a_backup_does_not_know_is_lost_and_one_that_left_is_not() -> None:
    world = Backup()
    with world.restored():
        world.register("c", 9)
    world.numbers()
    assert world.mirror.snapshot.lost == {"c"}
    world.register("c", 9)
    del world.tree.nodes[f"{world.paths.names}/b"]
    world.tree.apply(("create", f"{world.paths.left}/b", b"", 0, False))
    world.numbers()
    assert world.mirror.snapshot.lost == frozenset()


@pytest.mark.parametrize("call", range(1, 12))
def test_host_that_registers_while_it_is_looked_for_is_not_away_as_well(call: int) -> None:
    world = Backup()
    world.tree.apply(("create", f"{world.paths.names}/c", b"", 0, False))
    calls = itertools.count(1)

    def register_c() -> str:
        if next(calls) == call:
            world.register("c", 9)
            mirror._events.put(world.paths.hosts)
        return ""

    ensemble: Any = ModelEnsemble(Client(world.tree, register_c))
    mirror = Mirror(ensemble, CLUSTER, world.paths, wake=lambda: None)
    mirror.refresh()
    assert next(calls) > call
    assert (sorted(mirror.snapshot.hosts), mirror.snapshot.away) == (["a", "b", "c"], {})
