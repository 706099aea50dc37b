"""Instances that come back under a name whose traffic a successor elsewhere has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from bench import host_node, instance, instances_node

from onvm_core.cluster.member import moved_instances
from onvm_core.cluster.member.moved_instances import MovedInstances
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import ClusterNode, InstanceNode, KnownNode
from onvm_core.manager.cluster_view.view import ClaimView

MINE, OTHERS = (1000, 2000), (5000, 6000)


def nat(number: int, *blocks: tuple[int, int], protocol: int = 0) -> InstanceNode:
    claims = [ClaimView("192.0.2.1", protocol, *block) for block in blocks]
    return instance(number, "nat", claims=claims)


def snapshot(*instances: InstanceNode) -> Snapshot:
    return Snapshot(
        cluster=ClusterNode(id="0123456789", name="test", vni=1),
        hosts={"b": host_node(2)},
        instances={"b": instances_node(*instances)},
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    with StateDirectory(tmp_path / "state") as made:
        yield made


@pytest.fixture
def moved(state: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> MovedInstances:
    """With nat-1, which has moved long ago."""
    monkeypatch.setattr(moved_instances, "SETTLE_S", -1.0)
    state.add_moved(nat(1, MINE), 2)
    return MovedInstances(state)


def test_name_is_held_back_until_nobody_has_its_traffic(moved: MovedInstances) -> None:
    heir = nat(2, OTHERS, MINE)
    assert moved.hold_back(["nat-1", "nat-2"], (), snapshot(heir)) == {"nat-1"}
    assert moved.hold_back(["nat-1"], (), snapshot(nat(2, (1999, 2000), protocol=6))) == {"nat-1"}
    away = {"b": KnownNode(host=host_node(2), instances=instances_node(heir))}
    gone = msgspec.structs.replace(snapshot(), away=away)
    assert moved.hold_back(["nat-1"], (), gone) == {"nat-1"}, "it serves without its agent"
    assert moved.hold_back(["nat-1"], (), snapshot(nat(2, OTHERS, (2000, 2100)))) == frozenset()
    assert not moved.names
    assert moved.hold_back(["nat-1"], (), snapshot(heir)) == frozenset(), "it serves by now"


def test_what_serves_already_is_not_held_back(moved: MovedInstances) -> None:
    assert moved.hold_back(["nat-1"], {"nat-1": 7}, snapshot(nat(2, MINE))) == frozenset()
    assert moved.names == {"nat-1"}


def test_names_outlive_the_agent_and_the_departure_of_the_host(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "state") as state:
        state.add_moved(nat(1, MINE), 2)
        state.forget()
    with StateDirectory(tmp_path / "state") as again:
        moved = MovedInstances(again)
        assert moved.names == {"nat-1"}
        # Nothing has been read yet: it is not known what others have.
        nothing = msgspec.structs.replace(snapshot(), hosts={}, instances={})
        assert moved.hold_back(["nat-1"], (), nothing) == {"nat-1"}


def test_just_moved_counts_as_used_before_its_successor_is_seen_with_it(
    state: StateDirectory,
) -> None:
    state.add_moved(nat(1, MINE), 2)
    state.add_moved(nat(3), 2)  # owns nothing
    assert MovedInstances(state).hold_back(["nat-1", "nat-3"], (), snapshot()) == {"nat-1"}
