"""State that moves between hosts: who moves where, what comes of failures, and who may bring it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import zmq
from bench import host_node, instance, instances_node, wait

from onvm_core.cluster.handover import state_sender
from onvm_core.cluster.handover.state_sender import StateSender, successors_for, to_move
from onvm_core.cluster.handover.state_server import StateServer, StateTransfer
from onvm_core.cluster.links.peers import Peer, PeerLoad, PeerNetwork
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import ClusterNode, DrainNode, InstancesNode
from onvm_core.cluster.view.cluster_view import make_view
from onvm_core.manager.api.state_messages import StatePiece, StateReply
from onvm_sdk.errors import ConfigError, OnvmError

CLUSTER = ClusterNode(id="0123456789", name="test", vni=1)


def snapshot(*draining: str, **hosts: InstancesNode) -> Snapshot:
    return Snapshot(
        cluster=CLUSTER,
        hosts={
            name: host_node(number, state_server="tcp://127.0.0.1:1", key="k" * 40)
            for number, name in enumerate(hosts, 1)
        },
        instances=hosts,
        draining={name: DrainNode(since=1.0) for name in draining},
    )


def test_what_drains_moves_to_the_one_with_most_to_spare() -> None:
    other = msgspec.structs.replace(instance(4), plugin_versions=[("2", "d")])
    some = snapshot(
        "a",
        "d",
        a=instances_node(instance(1), instance(2, "nat", state="draining")),
        b=instances_node(instance(3), other, instance(5)),
        c=instances_node(instance(6), instance(7, state="draining")),
        d=instances_node(instance(8)),
    )
    assert [one.number for one in to_move(some, "a")] == [1, 2]
    assert [one.number for one in to_move(some, "c")] == [7]
    assert to_move(some, "b") == []
    loads = {5: PeerLoad(5, 100), 6: PeerLoad(6, 300), 3: PeerLoad(3, 200)}
    found = successors_for(some, "a", instance(1), loads)
    assert [(name, one.number) for name, one in found] == [("c", 6), ("b", 3), ("b", 5)]
    assert successors_for(some, "a", instance(2, "nat"), loads) == []


def test_instances_of_the_next_manager_stay_on_a_host_that_drains() -> None:
    some = snapshot(a=instances_node(instance(1), instance(9)), b=instances_node(instance(3)))
    some = msgspec.structs.replace(some, draining={"a": DrainNode(since=1.0, numbers=[1, 2])})
    assert [one.number for one in to_move(some, "a")] == [1]
    less = msgspec.structs.replace(some.instances["a"].instances[1], state="draining")
    some = msgspec.structs.replace(some, instances={"a": instances_node(less)})
    assert [one.number for one in to_move(some, "a")] == [9]


def test_moved_instance_is_in_no_view_and_its_heir_is_known() -> None:
    moved = msgspec.structs.replace(instances_node(instance(1)), successors=[(1, 3), (9, 1)])
    some = snapshot("a", a=moved, b=instances_node(instance(3)))
    view = make_view(some, "b", {})
    assert view is not None
    assert [one.number for one in view.instances] == [3]
    assert view.successors == [(1, 3), (9, 1)]
    assert to_move(some, "a") == []
    assert successors_for(some, "b", instance(3), {}) == []


class FakeTransfer:
    """To an agent that does what a test says."""

    error: OnvmError | None = None
    n_made = 0

    def __init__(self, *_: object) -> None:
        type(self).n_made += 1

    def __enter__(self) -> FakeTransfer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def check(self) -> None:
        pass

    def bring(self, pieces: list[StatePiece]) -> None:
        assert pieces

    def is_done(self) -> bool:
        if self.error is not None:
            raise self.error
        return True


class FakeManager:
    """A link to a manager: what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def take_state(self, instance: str, pause_ms: int) -> None:
        self.told.append(("take", instance))

    def read_state(self, instance: str) -> StateReply:
        return StateReply(step="done", pieces=[StatePiece(0, b"state")])

    def end_state(self, instance: str, successor: int | None) -> None:
        self.told.append(("end", successor))


class MoverBench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        FakeTransfer.error, FakeTransfer.n_made = None, 0
        self.now_s = 100.0
        monkeypatch.setattr(state_sender, "StateTransfer", FakeTransfer)
        monkeypatch.setattr(state_sender.time, "monotonic", lambda: self.now_s)
        self.manager = FakeManager()
        self.successors: dict[int, int] = {}
        self.requests: list[Any] = []
        state: Any = SimpleNamespace(
            state=SimpleNamespace(successors=self.successors),
            add_moved=lambda one, successor: self.successors.update({one.number: successor}),
        )
        session_thread: Any = SimpleNamespace(
            look_again=lambda: None, membership=SimpleNamespace(name="a", fence=None)
        )
        queue: Any = SimpleNamespace(put=lambda request, _fence: self.requests.append(request))
        link: Any = self.manager
        network: Any = None
        self.state_sender = StateSender(session_thread, state, network, link, queue, dict)

    def turn(self, some: Snapshot) -> None:
        self.state_sender._turn(some, "a")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> MoverBench:
    return MoverBench(monkeypatch)


BOTH = snapshot("a", a=instances_node(instance(1)), b=instances_node(instance(3)))


def test_state_moves_once(bench: MoverBench) -> None:
    bench.turn(BOTH)
    assert bench.manager.told == [("take", "firewall-1"), ("end", 3)]
    assert bench.successors == {1: 3}
    bench.turn(BOTH)  # the cluster has not been told yet
    assert FakeTransfer.n_made == 1


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (OnvmError("its agent does not answer"), state_sender.TRIES_MAX),
        (ConfigError("another address"), 1),
    ],
)
def test_moves_that_fail_are_tried_again_or_given_up(
    bench: MoverBench, error: OnvmError, tries: int
) -> None:
    FakeTransfer.error = error
    for _ in range(3 * state_sender.TRIES_MAX):
        bench.turn(BOTH)
        bench.turn(BOTH)  # not at once
        bench.now_s += state_sender.RETRY_S
    assert FakeTransfer.n_made == tries
    # Packets come to it again each time.
    assert bench.manager.told == [("take", "firewall-1"), ("end", None)] * tries
    assert bench.successors == {}
    # Another drain is another try.
    FakeTransfer.error = None
    bench.turn(snapshot(a=instances_node(instance(1)), b=instances_node(instance(3))))
    bench.now_s += state_sender.RETRY_S
    bench.turn(BOTH)
    assert bench.successors == {1: 3}


def test_where_nobody_else_serves_another_is_asked_for_once(bench: MoverBench) -> None:
    alone = snapshot("a", a=instances_node(instance(1)), b=instances_node())
    for _ in range(3):
        bench.turn(alone)
    (request,) = bench.requests
    assert (request.key, request.service) == ("drain-1-1", "firewall")
    # Not for one less that is wanted: then there is to be one less.
    bench.turn(snapshot(a=instances_node(instance(2, state="draining")), b=instances_node()))
    assert len(bench.requests) == 1


class End:
    """One agent's sockets."""

    def __init__(self, name: str) -> None:
        public, secret = zmq.curve_keypair()
        self.key = public.decode()
        self.network = PeerNetwork(name, "127.0.0.1", self.key, secret.decode())


@pytest.fixture
def ends() -> Iterator[tuple[End, End, End]]:
    made = End("a"), End("b"), End("stranger")
    try:
        yield made
    finally:
        for end in made:
            end.network.close()


class GivenManager:
    """Takes a state."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, int, bytes, bool]] = []

    def local(self) -> Any:
        host = SimpleNamespace(name="firewall-1", state="active")
        return SimpleNamespace(hosts=[host])

    def give_state(
        self, instance: str, source: int, pieces: list[StatePiece], *, is_first: bool
    ) -> None:
        self.pieces += [(instance, source, piece.data, is_first) for piece in pieces]

    def state_given(self, _instance: str, _source: int) -> StateReply:
        return StateReply(step="done")

    def close(self) -> None:
        pass


def test_state_is_taken_from_members_and_from_nobody_else(ends: tuple[End, End, End]) -> None:
    a, b, stranger = ends
    manager: Any = GivenManager()
    state_server = StateServer(b.network, manager, lambda: {"firewall-1": 3})
    state_server.start()
    try:
        b.network.set_peers({"a": Peer("", a.key)})
        peer = Peer(state_server.endpoint, b.key)
        with StateTransfer(a.network, peer, 1, 3) as transfer:
            transfer.check()
            transfer.bring([StatePiece(0, b"some")])
            transfer.bring([StatePiece(0, bytes(1 << 20))])
            wait(transfer.is_done)
        with (
            StateTransfer(a.network, peer, 1, 4) as transfer,
            pytest.raises(ConfigError, match="NF host 4 is not here"),
        ):
            transfer.check()
        assert manager.pieces == [
            ("firewall-1", 1, b"some", True),
            ("firewall-1", 1, bytes(1 << 20), False),
        ]
        with (
            StateTransfer(stranger.network, peer, 1, 3) as transfer,
            pytest.raises(OnvmError, match="does not answer"),
        ):
            transfer.bring([StatePiece(0, b"evil")])
        assert len(manager.pieces) == 2
    finally:
        state_server.close()
