"""A whole manager in memory: what its file says happens, and each request does what it promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_nf import AnyCpu, FakeLauncher, PlaneMaker, until

from onvm_core.dataplane.fake import SlotState
from onvm_core.dataplane.values import FlowRecord
from onvm_core.manager.api import messages as m
from onvm_core.manager.api.state_messages import NfDrainRequest
from onvm_core.manager.cluster_view.view import (
    ChainView,
    ClaimView,
    ClusterView,
    InstanceView,
    PeerView,
    PortView,
)
from onvm_core.manager.config.chains import ChainConfig, PortConfig
from onvm_core.manager.config.checked import Checked
from onvm_core.manager.config.extensions import Extensions
from onvm_core.manager.config.onvm_toml import Config, NfConfig
from onvm_core.manager.nf_failure import NfFailed
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.ports import NULL
from onvm_core.manager.service.service import Service
from onvm_core.plugins import NfPackage
from onvm_sdk.errors import ConfigError, OnvmError

PACKAGES = [NfPackage(name, f"onvm-nf-{name}", "1", f"{name}:Nf", name) for name in ("a", "b")]


def config(**changes: object) -> Config:
    """Two NFs between two ports."""
    whole: dict[str, object] = {
        "ports": {"in": PortConfig(uri="null:"), "out": PortConfig(uri="null:")},
        "nfs": {"a": NfConfig(), "b": NfConfig()},
        "chains": {"main": ChainConfig(near="in", far="out", services=["a", "b"])},
    }
    return Config(**{**whole, **changes})  # type: ignore[arg-type]


class World:
    """A service, its data plane and its launcher."""

    def __init__(self, folder: Path, file: Config) -> None:
        maker = PlaneMaker()
        directory = folder / "main"
        directory.mkdir(exist_ok=True)
        self.plane = maker.plane
        self.launcher = FakeLauncher()
        self.ready: list[bool] = []
        self.folder, self.next_file = folder, file
        self.service = Service(
            directory,
            self.checked(file),
            lambda path: self.checked(self.next_file),
            start_plane=maker,
        )

    def checked(self, file: Config) -> Checked:
        launchers = self.launcher.launchers()
        return Checked(
            file,
            self.folder / "onvm.toml",
            {"null": NULL},
            Extensions(AnyCpu()),
            launchers,
            PACKAGES,
        )

    def turn(self) -> None:
        self.service.turn(lambda: self.ready.append(True))
        for handle in self.launcher.handles:
            handle.poll()

    def until(self, is_true: Callable[[], bool]) -> None:
        until(is_true, self.turn)

    def start(self) -> None:
        self.service.start()
        self.until(lambda: bool(self.ready))

    def ask(self, request: m.Request) -> m.Reply:
        return self.service.handle(request)

    def status(self) -> m.StatusReply:
        reply = self.ask(m.StatusRequest())
        assert isinstance(reply, m.StatusReply)
        return reply

    def slot(self, instance: str) -> int:
        (found,) = self.service._deployment.manager.registry.find(instance)
        return found[0].slot

    def flow(self, *instances: str) -> None:
        slots = tuple(self.slot(name) for name in instances)
        self.plane.flows.append(
            FlowRecord("192.0.2.1", "192.0.2.2", 10, 20, 17, 0, 0, False, 3, 1, slots, 1500)
        )


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def world(**changes: object) -> World:
        made.append(World(tmp_path, config(**changes)))
        return made[-1]

    yield world
    for one in made:
        if not one.plane.is_over:
            one.service.close()
        for handle in one.launcher.handles:
            handle.kill()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    made = make()
    made.start()
    return made


# ---- start and end ----


def test_packets_flow_when_all_that_the_file_wants_serves(make: Callable[..., World]) -> None:
    world = make()
    world.service.start()
    assert world.plane.are_sources_paused
    assert [port.name for port in world.plane.ports.values()] == ["in", "out"]
    assert world.status().state == "starting"
    assert [chain.state for chain in world.status().chains] == ["waiting"]
    world.until(lambda: bool(world.ready))
    assert not world.plane.are_sources_paused
    assert world.plane.chains[1].services == (1, 2)
    status = world.status()
    assert status.state == "ready"
    assert [nf.state for nf in status.launched] == ["active", "active"]
    assert [nf.instance for nf in status.report.nfs] == ["a-1", "b-1"]


def test_nf_that_cannot_start_ends_the_start(make: Callable[..., World]) -> None:
    world = make()
    world.launcher.fails = True
    world.service.start()
    with pytest.raises(NfFailed, match=r"NF [ab] ended with status 1: it said this"):
        world.until(lambda: bool(world.ready))


def test_port_that_cannot_be_is_one_line_of_the_file(make: Callable[..., World]) -> None:
    with pytest.raises(
        ConfigError, match=r"onvm\.toml: ports\.in\.uri: option size: '1': expected"
    ):
        make(ports={"in": PortConfig(uri="null:?size=1"), "out": PortConfig(uri="null:")})


def test_second_manager_of_a_directory_is_refused(world: World, make: Callable[..., World]) -> None:
    with pytest.raises(OnvmError, match="main"):
        make()


def test_down_drains_and_gives_the_last_report(world: World) -> None:
    world.plane.ports[0].rx = 5
    reply = world.ask(m.DownRequest())
    assert isinstance(reply, m.DownReply)
    assert reply.is_drained
    assert reply.report.rx == 5
    assert world.plane.are_sources_paused
    world.service.close()
    assert world.plane.is_over
    assert world.plane.hosts == {}


def test_kept_nfs_outlive_the_manager(world: World) -> None:
    world.ask(m.DownRequest(keep_nfs=True))
    world.service.close()
    for instance in ("a-1", "b-1"):
        nf = world.launcher.nf(instance)
        nf.turn()  # its socket is closed, and nothing has told it to stop
        assert codec.STOP not in nf.kinds()
    assert (world.service._directory / "nfs.json").exists()


# ---- NFs ----


def test_instance_is_run_and_stopped_by_command(world: World) -> None:
    reply = world.ask(m.NfRunRequest(name="a"))
    assert isinstance(reply, m.InstancesReply)
    assert reply.launched[0].instances == ["a-2"]
    world.until(lambda: [nf.state for nf in world.status().launched] == ["active"] * 3)
    assert world.plane.hosts[world.slot("a-2")].state is SlotState.ACTIVE
    world.ask(m.NfStopRequest(name="a-2"))
    world.until(lambda: len(world.status().launched) == 2)


@pytest.mark.parametrize("state", [[[b"state"]], None])
def test_stopped_instance_hands_its_state_over_if_it_can(
    world: World, state: list[list[bytes]] | None
) -> None:
    if state is not None:
        world.launcher.states["a-2"] = state
    world.ask(m.NfRunRequest(name="a"))
    world.until(lambda: [nf.state for nf in world.status().launched] == ["active"] * 3)
    world.ask(m.NfStopRequest(name="a-2"))
    world.until(lambda: len(world.status().launched) == 2)
    given = {} if state is None else {"a-2": [b"state"]}
    assert world.launcher.nf("a-1").restored == given


def test_service_that_is_stopped_as_a_whole_does_not_hand_over_to_itself(world: World) -> None:
    for name in ("a-1", "a-2"):
        world.launcher.states[name] = [[b"state"]]
    world.ask(m.NfRunRequest(name="a"))
    world.until(lambda: [nf.state for nf in world.status().launched] == ["active"] * 3)
    world.ask(m.NfStopRequest(name="a"))
    world.until(lambda: [nf.instances for nf in world.status().launched] == [["b-1"]])
    assert codec.OFFER not in world.launcher.nf("a-1").kinds()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (m.NfRunRequest(name="c"), "nf: 'c': expected an installed NF"),
        (m.NfRunRequest(name="a", instance=1), "nf run: 'a-1': expected one that does not run"),
        (m.NfRunRequest(name="a", launcher="x"), "--launcher: 'x': expected one of process"),
        (m.NfStopRequest(name="c"), "nf stop: 'c': expected an instance or a service (a-1, b-1)"),
        (m.AskRequest(name="c", message=""), "send: 'c': expected an instance or a service"),
        (m.ChainRemoveRequest(name="c"), "chain: 'c': expected a chain (main)"),
        (m.ChainShowRequest(name="c"), "chain show: 'c': expected a chain (main)"),
        (m.CaptureStartRequest(name="c", path="/x"), "capture: 'c': expected a port (in, out)"),
        (m.CaptureReadRequest(number=1), "capture: 1: expected the number of a running capture"),
        (m.ScaleRequest(service="a"), "scale: 'a': expected a service with a policy"),
        (NfDrainRequest(name="c"), "nf drain: 'c': expected an instance"),
    ],
)
def test_wrong_request_is_one_line(world: World, wrong: m.Request, line: str) -> None:
    with pytest.raises(OnvmError) as caught:
        world.ask(wrong)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_message_reaches_all_instances_of_a_service(world: World) -> None:
    asked = world.ask(m.AskRequest(name="a", message="hello"))
    assert asked == m.AskedReply(question=1, count=1)
    world.until(lambda: bool(world.launcher.nf("a-1").heard))
    assert world.launcher.nf("a-1").heard[0].payload == b"hello"


# ---- chains and flows ----


def test_chain_is_changed_while_traffic_runs(world: World) -> None:
    world.ask(m.ChainAddRequest(name="main", near="in", far="out", services=["b"]))
    assert world.plane.chains[1].services == (2,)
    world.ask(m.ChainRemoveRequest(name="main"))
    assert world.plane.chains == {}


def test_chain_takes_only_services_that_serve(world: World) -> None:
    with pytest.raises(ConfigError, match="chain add: 'c': expected a service with an instance"):
        world.ask(m.ChainAddRequest(name="main", near="in", far="out", services=["c"]))
    assert world.plane.chains[1].services == (1, 2)


def test_flows_and_paths_are_shown_by_names(world: World) -> None:
    world.flow("a-1", "b-1")
    reply = world.ask(m.FlowListRequest())
    assert isinstance(reply, m.FlowsReply)
    (flow,) = reply.flows
    assert (flow.port, flow.chain, flow.instances) == ("in", "main", ["a-1", "b-1"])
    assert flow.idle_s == 1.5
    shown = world.ask(m.ChainShowRequest(name="main"))
    assert isinstance(shown, m.ChainShowReply)
    assert [(hop.si, hop.instance) for hop in shown.paths[0].hops] == [(2, "a-1"), (1, "b-1")]


def test_bypassed_service_is_taken_out_and_put_back(make: Callable[..., World]) -> None:
    world = make(
        chains={"main": ChainConfig(near="in", far="out", services=["a", "b"], on_failure="bypass")}
    )
    world.start()
    world.launcher.nf("a-1").close()
    world.until(lambda: world.plane.chains[1].services == (2,))
    assert world.status().chains[0].state == "bypassing a"
    world.until(lambda: world.plane.chains[1].services == (1, 2))


def test_capture_names_its_points(world: World, tmp_path: Path) -> None:
    reply = world.ask(m.CaptureStartRequest(name="a", path=str(tmp_path / "a.pcapng")))
    assert isinstance(reply, m.CaptureReply)
    assert reply.points == ["a-1"]
    (points,) = world.plane.captures.values()
    assert (points[0].id, points[0].is_host) == (world.slot("a-1"), True)
    world.ask(m.CaptureStopRequest(number=reply.number))
    assert world.plane.captures == {}


# ---- the cluster ----


def view(**changes: object) -> ClusterView:
    """Two hosts; the other one has an instance of b."""
    whole: dict[str, object] = {
        "cluster": "c",
        "vni": 7,
        "host": "one",
        "number": 1,
        "address": "192.0.2.1",
        "peers": [PeerView(name="two", number=2, address="192.0.2.2")],
        "instances": [
            InstanceView(number=10, host="one", name="a-1", services=["a"]),
            InstanceView(
                number=20,
                host="two",
                name="b-9",
                services=["b"],
                spare_pps=1000,
                claims=[ClaimView(address="198.51.100.1", protocol=6, first_port=1, end_port=9)],
            ),
        ],
    }
    return ClusterView(**{**whole, **changes})  # type: ignore[arg-type]


def apply(world: World, wanted: ClusterView | None) -> m.ClusterReply:
    reply = world.ask(m.ClusterApplyRequest(view=wanted))
    assert isinstance(reply, m.ClusterReply)
    return reply


def test_view_makes_peers_and_their_hosts(world: World) -> None:
    assert apply(world, view()).missing == []
    (peer,) = world.plane.peers.values()
    assert peer.address == bytes([192, 0, 2, 2])
    (remote,) = (host for host in world.plane.hosts.values() if host.peer is not None)
    assert (remote.number, remote.services, remote.spare_pps) == (20, (2,), 1000)
    assert remote.claims == [(bytes([198, 51, 100, 1]), 6, 1, 9)]
    assert world.plane.hosts[world.slot("a-1")].number == 10


def test_same_view_twice_changes_nothing_and_none_leaves(world: World) -> None:
    first = apply(world, view())
    before = dict(world.plane.hosts)
    assert apply(world, view()).digest == first.digest
    assert world.plane.hosts == before
    assert apply(world, None).digest == ""
    assert world.plane.peers == {}
    assert all(host.peer is None for host in world.plane.hosts.values())
    assert world.plane.hosts[world.slot("a-1")].number == 0


def test_peer_that_does_not_answer_has_no_hosts_until_it_answers(world: World) -> None:
    apply(world, view())
    (peer,) = world.plane.peers.values()

    def has_remote() -> bool:
        return any(host.peer is not None for host in world.plane.hosts.values())

    peer.is_down = True
    world.plane.notify()
    world.until(lambda: not has_remote())
    peer.is_down = False
    world.plane.notify()
    world.until(has_remote)


def test_successor_of_an_instance_that_moved_is_told_to_the_data_plane(world: World) -> None:
    apply(world, view(successors=[(33, 20)]))
    assert world.plane.successors == {33: 20}


def test_chain_of_the_cluster_cannot_be_changed_here(world: World) -> None:
    world.ask(m.ChainRemoveRequest(name="main"))
    chain = ChainView(
        number=5,
        name="wide",
        near=PortView(host="one", port="in"),
        far=PortView(host="two", port="x"),
        services=["a", "b"],
    )
    assert apply(world, view(chains=[chain])).missing == []
    (spec,) = world.plane.chains.values()
    assert spec.number == 5
    assert spec.far_port & 0x8000
    with pytest.raises(ConfigError, match="this one is the cluster's"):
        world.ask(m.ChainRemoveRequest(name="wide"))


def test_what_cannot_be_applied_is_told_and_the_rest_is(world: World) -> None:
    chain = ChainView(
        number=5,
        name="main",
        near=PortView(host="one", port="in"),
        far=PortView(host="one", port="out"),
        services=[],
    )
    (line,) = apply(world, view(chains=[chain])).missing
    assert line.startswith("chain main: chain: 'main': expected a name that is not a chain's")
    assert len(world.plane.peers) == 1
