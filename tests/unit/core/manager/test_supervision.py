"""Supervisor, drain and handover together, over a data plane and NF hosts in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_nf import AnyCpu, FakeLauncher, FakeNf, PlaneMaker, until

from onvm_core.dataplane.fake import SlotState
from onvm_core.dataplane.values import DataplaneSettings, FlowRecord
from onvm_core.manager.api.messages import LaunchedNf, NfEvent
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_core.manager.supervision import drain, supervisor
from onvm_core.manager.supervision.supervised import WantedHost
from onvm_core.manager.supervision.supervisor import Supervisor

HANDOVER_S = 5.0


class World:
    """A supervisor, and what it looks after."""

    def __init__(self, folder: Path) -> None:
        maker = PlaneMaker()
        self.folder = folder
        self.plane = maker.plane
        self.launcher = FakeLauncher()
        self.events: list[NfEvent] = []
        self.deployment = Deployment(
            folder,
            DataplaneSettings(),
            kinds={},
            package=lambda _name: None,
            launchers=self.launcher.launchers(),
            placement=AnyCpu(),
            survives=True,
            start_plane=maker,
        )
        self.supervisor = Supervisor(folder, self.deployment, self.events.append)
        self.deployment.on_host_change = self.supervisor.on_host_change

    def turn(self) -> None:
        self.deployment.poll(0.0)
        self.supervisor.turn()

    def until(self, is_true) -> None:  # type: ignore[no-untyped-def]
        until(is_true, self.turn)

    def run(self, *instances: str, service: str = "a", is_standby: bool = False) -> None:
        for name in instances:
            self.supervisor.run(WantedHost((service,), (service,), (name,), is_standby=is_standby))
        self.until(self.supervisor.all_active)

    def nf(self, instance: str) -> FakeNf:
        return self.launcher.nf(instance)

    def host(self, instance: str) -> NfHost:
        return self.deployment.manager.registry.find(instance)[0][0]

    def shown(self, instance: str) -> LaunchedNf | None:
        return next((nf for nf in self.supervisor.launched() if instance in nf.instances), None)

    def flow(self, *hosts: NfHost) -> FlowRecord:
        slots = tuple(host.slot for host in hosts)
        flow = FlowRecord("192.0.2.1", "192.0.2.2", 1, 2, 17, 0, 0, False, 1, 1, slots)
        self.plane.flows.append(flow)
        return flow

    def record(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads((self.folder / "nfs.json").read_text())
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(drain, "PAUSE_S", 0.001)
    monkeypatch.setattr(drain, "RETRY_S", 0.001)
    made = World(tmp_path)
    yield made
    made.deployment.close()
    for handle in made.launcher.handles:
        handle.kill()


# ---- life and death ----


def test_launched_host_serves_and_stands_in_the_record(world: World) -> None:
    world.run("a-1")
    (record,) = world.record()
    (handle,) = world.launcher.handles
    assert record["secret"] == handle.spec.secret
    assert [event.state for event in world.events] == ["active"]
    assert world.shown("a-1").state == "active"  # type: ignore[union-attr]


def test_dead_host_is_started_again_with_another_secret(world: World) -> None:
    world.run("a-1")
    world.nf("a-1").close()
    world.until(lambda: len(world.launcher.handles) == 2)
    world.until(world.supervisor.all_active)
    first, second = (handle.spec.secret for handle in world.launcher.handles)
    assert first != second
    assert [event.state for event in world.events] == ["active", "gone", "failed", "active"]
    assert world.shown("a-1").restarts == 1  # type: ignore[union-attr]


def test_host_that_never_lives_is_a_crash_loop(world: World) -> None:
    world.launcher.fails = True
    world.supervisor.run(WantedHost(("a",), ("a",), ("a-1",)))
    world.until(lambda: world.shown("a-1").state == "crash-loop")  # type: ignore[union-attr]
    shown = world.shown("a-1")
    assert shown is not None
    assert shown.restarts == 5
    assert shown.log_tail == ["it said this"]
    assert world.supervisor.first_failure().startswith("NF a ended with status 1: it said this")


def test_standby_takes_the_place_of_one_that_died(world: World) -> None:
    world.run("a-1")
    world.run("a-2", is_standby=True)
    assert world.host("a-2").state is HostState.STANDBY
    world.nf("a-1").close()
    world.until(lambda: world.host("a-2").state is HostState.ACTIVE)
    world.until(lambda: len(world.launcher.handles) == 3)
    world.until(world.supervisor.all_active)
    assert world.host("a-1").state is HostState.STANDBY


def test_stop_sends_flows_elsewhere_and_forgets_the_host(world: World) -> None:
    world.run("a-1", "a-2")
    slot = world.host("a-1").slot
    assert [nf.instances for nf in world.supervisor.stop("a-1")] == [["a-1"]]
    world.until(lambda: world.shown("a-1") is None)
    world.until(lambda: slot not in world.plane.hosts)
    assert [record["wanted"]["instances"] for record in world.record()] == [["a-2"]]  # type: ignore[index]


def test_stop_all_leaves_nothing(world: World) -> None:
    world.run("a-1", "a-2")
    world.supervisor.stop_all()
    world.until(lambda: not world.plane.hosts)
    assert not (world.folder / "nfs.json").exists()


# ---- drain ----


def test_draining_host_ends_when_its_last_flow_has_ended(world: World) -> None:
    world.run("a-1", "a-2")
    flow = world.flow(world.host("a-2"))
    assert world.supervisor.drains.drain("a", 60.0, 0.0) == "a-2"
    assert world.plane.hosts[world.host("a-2").slot].state is SlotState.DRAINING
    for _ in range(20):
        world.turn()
    assert world.shown("a-2").state == "draining"  # type: ignore[union-attr]
    world.plane.flows.remove(flow)
    world.until(lambda: world.shown("a-2") is None)
    assert world.shown("a-1").state == "active"  # type: ignore[union-attr]


def test_flow_that_stays_is_sent_elsewhere_after_a_while(world: World) -> None:
    world.run("a-1", "a-2")
    world.flow(world.host("a-2"))
    world.supervisor.drains.drain("a", 0.0, 0.0)
    world.until(lambda: world.shown("a-2") is None)


def test_draining_host_may_serve_again(world: World) -> None:
    world.run("a-1", "a-2")
    world.flow(world.host("a-2"))
    world.supervisor.drains.drain("a", 60.0, 0.0)
    assert world.supervisor.drains.resume("a") == "a-2"
    assert world.plane.hosts[world.host("a-2").slot].state is SlotState.ACTIVE
    world.until(lambda: codec.RESUME in world.nf("a-2").kinds())
    assert world.shown("a-2").state == "active"  # type: ignore[union-attr]


# ---- handover ----


def test_state_and_flows_go_to_the_sibling(world: World) -> None:
    world.launcher.states["a-2"] = [[b"one", b"two"]]
    world.run("a-1", "a-2")
    source, successor = world.host("a-2"), world.host("a-1")
    world.flow(source)
    world.supervisor.drains.drain("a", 60.0, HANDOVER_S)
    world.until(lambda: world.shown("a-2") is None)
    assert world.nf("a-1").restored == {"a-2": [b"one", b"two"]}
    assert [flow.hosts for flow in world.plane.flows] == [(successor.slot,)]
    # Its name stays taken while what it owned is used.
    assert "a-2" in world.supervisor.instance_names()
    world.nf("a-1").say(codec.RELEASED)
    world.until(lambda: "a-2" not in world.supervisor.instance_names())


def test_state_is_asked_for_only_when_no_packet_is_inside(world: World) -> None:
    world.launcher.states["a-2"] = [[b"one"]]
    world.run("a-1", "a-2")
    inside = world.plane.hosts[world.host("a-2").slot]
    world.flow(world.host("a-2"))
    inside.reserved = 5
    world.supervisor.drains.drain("a", 60.0, HANDOVER_S)
    world.until(lambda: inside.is_paused)
    assert world.supervisor.drains.is_urgent
    for _ in range(20):
        world.turn()
    assert codec.SNAPSHOT not in world.nf("a-2").kinds()
    inside.reserved = 0
    world.until(lambda: world.shown("a-2") is None)
    assert not world.supervisor.drains.is_urgent


def test_host_without_a_snapshot_drains_as_any_other(world: World) -> None:
    world.run("a-1", "a-2")
    flow = world.flow(world.host("a-2"))
    world.supervisor.drains.drain("a", 60.0, HANDOVER_S)
    world.until(lambda: "no snapshot" in world.shown("a-2").reason)  # type: ignore[union-attr]
    assert not world.plane.hosts[world.host("a-2").slot].is_paused
    world.plane.flows.remove(flow)
    world.until(lambda: world.shown("a-2") is None)


def test_handover_that_is_late_is_tried_again_and_packets_flow_meanwhile(world: World) -> None:
    world.launcher.states["a-2"] = [[b"one"]]
    world.run("a-1", "a-2")
    inside = world.plane.hosts[world.host("a-2").slot]
    world.flow(world.host("a-2"))
    inside.reserved = 1
    world.supervisor.drains.drain("a", 60.0, 0.02)
    world.until(lambda: "it is tried again" in world.shown("a-2").reason)  # type: ignore[union-attr]
    assert not inside.is_paused
    inside.reserved = 0
    world.until(lambda: world.shown("a-2") is None)
    assert world.nf("a-1").restored == {"a-2": [b"one"]}


def test_handover_is_given_up_after_some_tries(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "TRIES_MAX", 2)
    world.launcher.states["a-2"] = [[b"one"]]
    world.run("a-1", "a-2")
    world.flow(world.host("a-2"))
    inside = world.plane.hosts[world.host("a-2").slot]
    inside.reserved = 1
    world.supervisor.drains.drain("a", 60.0, 0.01)
    world.until(lambda: "its flows may end" in world.shown("a-2").reason)  # type: ignore[union-attr]
    assert not inside.is_paused
    assert world.nf("a-2").kinds().count(codec.OFFER) == 2


def test_successor_that_dies_lets_packets_go_to_the_source_again(world: World) -> None:
    world.launcher.states["a-2"] = [[b"one"]]
    world.run("a-1", "a-2")
    source = world.plane.hosts[world.host("a-2").slot]
    world.flow(world.host("a-2"))
    world.nf("a-1").is_deaf = True  # it gets the state, and never says so
    world.supervisor.drains.drain("a", 60.0, HANDOVER_S)
    world.until(lambda: source.is_paused and codec.SNAPSHOT in world.nf("a-2").kinds())
    world.nf("a-1").close()
    world.until(lambda: not source.is_paused)
    assert world.host("a-2").state is HostState.DRAINING


def test_resume_in_the_middle_of_a_handover_undoes_it(world: World) -> None:
    world.launcher.states["a-2"] = [[b"one"]]
    world.run("a-1", "a-2")
    source = world.plane.hosts[world.host("a-2").slot]
    world.flow(world.host("a-2"))
    source.reserved = 1
    world.supervisor.drains.drain("a", 60.0, HANDOVER_S)
    world.until(lambda: source.is_paused)
    assert world.supervisor.drains.resume("a") == "a-2"
    assert not source.is_paused
    assert source.state is SlotState.ACTIVE
