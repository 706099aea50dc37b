"""A manager over a data plane in memory: what NF hosts say becomes what the data plane is told."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fake_nf import FakeNf, PlaneMaker, until

from onvm_core.dataplane.fake import FakeDataPlane, SlotState
from onvm_core.dataplane.interface import DataplaneError
from onvm_core.dataplane.values import Affinity, DataplaneSettings, IdlePolicy, NullPort
from onvm_core.manager import manager as manager_module
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.nf_hosts.cpu_shares import sharing
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_sdk.errors import ConfigError


class World:
    """A manager, its data plane, and NF hosts that attach to it."""

    def __init__(
        self,
        folder: Path,
        settings: DataplaneSettings | None = None,
        workers: Sequence[int] = (0,),
    ) -> None:
        maker = PlaneMaker()
        self.plane: FakeDataPlane = maker.plane
        self.manager = Manager(folder, settings or DataplaneSettings(), workers, start_plane=maker)
        self.seen: list[tuple[str, HostState]] = []
        self.manager.on_host_change = lambda host: self.seen.append(
            (host.instances[0].name, host.state)
        )
        self.nfs: list[FakeNf] = []

    def turn(self) -> None:
        self.manager.poll(0.0)
        for nf in self.nfs:
            nf.turn()

    def attach(self, *services: str, secret: str = "", is_ready: bool = True) -> FakeNf:
        nf = FakeNf(self.manager.attach_path, services, secret=secret)
        nf.is_ready = is_ready
        self.nfs.append(nf)
        until(lambda: nf.is_attached or nf.is_gone, self.turn)
        return nf

    def serve(self, *services: str) -> tuple[FakeNf, NfHost]:
        nf = self.attach(*services)
        host = self.manager.registry.hosts[-1]
        until(lambda: host.state is HostState.ACTIVE, self.turn)
        return nf, host

    def close(self) -> None:
        if not self.plane.is_over:
            self.manager.close()
        for nf in self.nfs:
            nf.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_host_serves_once_it_is_ready(world: World) -> None:
    nf = world.attach("a", "b", is_ready=False)
    (host,) = world.manager.registry.living()
    assert host.state is HostState.ATTACHED
    assert world.plane.hosts[host.slot].state is SlotState.ATTACHED
    assert world.plane.hosts[host.slot].services == (1, 2)
    nf.say(codec.READY)
    until(lambda: host.state is HostState.ACTIVE, world.turn)
    assert world.plane.hosts[host.slot].state is SlotState.ACTIVE
    assert world.seen == [("a-1", HostState.ACTIVE)]


def test_secret_is_for_its_services_and_for_once(world: World) -> None:
    world.manager.expect("s3", ["a"])
    other = world.attach("b", secret="s3")
    assert other.refusal == "the secret is not for b"
    assert world.attach("a", secret="s3").is_attached
    again = world.attach("a", secret="s3")
    assert again.refusal == "the secret is not for a"


def test_held_host_stands_by_until_it_is_activated(world: World) -> None:
    world.manager.expect("s3", ["a"])
    world.manager.hold("s3")
    world.attach("a", secret="s3")
    (host,) = world.manager.registry.living()
    until(lambda: host.state is HostState.STANDBY, world.turn)
    assert world.plane.hosts[host.slot].state is SlotState.ATTACHED
    world.manager.activate_host(host)
    assert world.plane.hosts[host.slot].state is SlotState.ACTIVE


def test_claims_go_to_the_data_plane_and_back(world: World) -> None:
    nf, host = world.serve("nat")
    address = ipaddress.ip_address("192.0.2.1").packed
    payload = struct.pack("=16sBBHII", address, 4, 17, 0, 1000, 2000)
    nf.say(codec.CLAIM, payload=payload)
    until(lambda: bool(host.claims), world.turn)
    assert world.plane.hosts[host.slot].claims == [(address, 17, 1000, 2000)]
    nf.say(codec.UNCLAIM, payload=payload)
    until(lambda: not host.claims, world.turn)
    assert world.plane.hosts[host.slot].claims == []


def test_longest_lifetimes_of_a_service_count(world: World) -> None:
    nf, host = world.serve("nat")
    nf.say(codec.STEERING, payload=b"source 1 7000 3 4 5 6 0")
    until(lambda: bool(host.steering), world.turn)
    assert world.plane.affinities == {1: Affinity.SOURCE}
    assert world.plane.lifetimes_ms == {1: (1, 7000, 3, 4, 5, 6, 0)}
    other, second = world.serve("nat")
    other.say(codec.STEERING, payload=b"source 9 1 1 1 400000 1 1")
    until(lambda: bool(second.steering), world.turn)
    assert world.plane.lifetimes_ms == {1: (9, 7000, 3, 4, 400000, 6, 1)}
    assert world.manager.longest_idle_s(["nat"]) == 400
    nf.say(codec.STEERING, payload=b"source")  # it holds them, and does not know for how long
    until(lambda: host.steering[0].lifetimes_ms is None, world.turn)
    assert world.plane.lifetimes_ms == {1: (9, 7000, 3, 4, 400000, 6, 1)}
    assert world.manager.longest_idle_s(["other"]) == 300


def test_affinity_of_the_file_comes_before_that_of_the_nf(world: World) -> None:
    world.manager.set_affinities({"nat": Affinity.DESTINATION})
    nf, host = world.serve("nat")
    number = world.manager.registry.service_id("nat")
    nf.say(codec.STEERING, payload=b"source")
    until(lambda: bool(host.steering), world.turn)
    assert world.plane.affinities == {number: Affinity.DESTINATION}
    world.manager.set_affinities({})
    assert world.plane.affinities == {number: Affinity.SOURCE}


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (codec.CLAIM, b"short"),
        (99, b""),
        (codec.STOP, b""),
        (codec.STEERING, b""),
        (codec.STEERING, b"sideways"),
        (codec.STEERING, b"flow 1 2 3"),
        (codec.STEERING, b"flow 1 2 3 4 5 6 999999999"),
        (codec.STEERING, b"flow 1 2 3 4 5 6 -1"),
    ],
)
def test_host_that_says_nonsense_is_detached(world: World, kind: int, payload: bytes) -> None:
    nf, host = world.serve("a")
    nf.say(kind, payload=payload)
    until(lambda: host.state is HostState.DEAD, world.turn)
    assert host.reason.startswith("bad message: ")
    assert host.slot not in world.plane.hosts


def test_drain_tells_the_nfs_and_resume_takes_it_back(world: World) -> None:
    nf, host = world.serve("a", "b")
    world.manager.drain_host(host)
    assert world.plane.hosts[host.slot].state is SlotState.DRAINING
    until(lambda: host.is_drained, world.turn)
    assert [(m.kind, m.stage) for m in nf.heard] == [(codec.DRAIN, 0), (codec.DRAIN, 1)]
    world.manager.resume_host(host)
    assert world.plane.hosts[host.slot].state is SlotState.ACTIVE
    until(lambda: codec.RESUME in nf.kinds(), world.turn)


def test_host_kept_back_for_the_cluster_hears_nothing_of_it(world: World) -> None:
    nf, host = world.serve("a")
    world.manager.keep_back(host, True)
    assert world.plane.hosts[host.slot].state is SlotState.DRAINING
    assert host.state is HostState.ACTIVE
    world.manager.drain_host(host)  # it is draining in the data plane already
    world.manager.resume_host(host)
    assert world.plane.hosts[host.slot].state is SlotState.DRAINING
    world.manager.keep_back(host, False)
    assert world.plane.hosts[host.slot].state is SlotState.ACTIVE
    assert not nf.heard


def test_stopped_host_leaves_when_it_holds_no_packet(world: World) -> None:
    nf, host = world.serve("a")
    inside = world.plane.hosts[host.slot]
    inside.reserved = 3
    world.manager.stop_host(host, 7)
    assert (inside.state, inside.successor) == (SlotState.LEAVING, 7)
    for _ in range(5):
        world.turn()
    assert nf.kinds() == [codec.RELEASE]
    inside.reserved = 0
    until(lambda: nf.is_gone and host.state is HostState.DEAD, world.turn)
    assert nf.kinds() == [codec.RELEASE, codec.STOP]
    assert host.slot not in world.plane.hosts


def test_stopped_host_that_keeps_packets_is_asked_to_stop_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "LEAVE_TIMEOUT_S", 0.0)
    nf, host = world.serve("a")
    world.plane.hosts[host.slot].reserved = 3
    world.manager.stop_host(host)
    until(lambda: nf.is_gone, world.turn)


def test_host_whose_socket_closes_is_dead_and_keeps_its_counters(world: World) -> None:
    nf, host = world.serve("a")
    world.plane.hosts[host.slot].rx = 12
    nf.close()
    until(lambda: host.state is HostState.DEAD, world.turn)
    assert host.reason == "process ended"
    assert host.last is not None
    assert host.last.rx == (12, 0)
    assert list(world.manager.registry.living()) == []


def test_host_that_breaks_the_rules_is_detached_at_once(world: World) -> None:
    _, bad = world.serve("a")
    _, good = world.serve("a")
    told: list[bool] = []
    world.manager.on_notice = lambda: told.append(True)
    world.plane.hosts[bad.slot].fault = 1
    world.plane.notify()
    until(lambda: bad.state is HostState.DEAD, world.turn)
    assert bad.reason == "it broke the rules of its rings or descriptors"
    assert good.state is HostState.ACTIVE
    assert told == [True]


def test_messages_find_instances_and_services(world: World) -> None:
    (first, _), (second, _) = world.serve("a"), world.serve("a")
    assert world.manager.send_user("a", b"to all") == 2
    assert world.manager.send_user("a-2", b"to one") == 1
    assert world.manager.send_user("nobody", b"") == 0
    first.say(codec.USER, peer="a-2", payload=b"from a sibling")
    until(lambda: len(second.heard) == 3, world.turn)
    assert [m.payload for m in first.heard] == [b"to all"]
    assert [(m.peer, m.payload) for m in second.heard] == [
        ("", b"to all"),
        ("", b"to one"),
        ("a-1", b"from a sibling"),
    ]
    assert all(host.attention for host in world.plane.hosts.values())


def test_chain_has_the_numbers_of_its_services(world: World) -> None:
    near, far = (world.plane.open_port(name, NullPort()) for name in ("in", "out"))
    world.manager.set_chain(3, near, far, ["b", "a", "b"], waits=True, cluster_number=9)
    spec = world.plane.chains[3]
    assert (spec.services, spec.waits, spec.number) == ((1, 2, 1), True, 9)


def test_busy_hosts_are_told_when_they_share_a_cpu(tmp_path: Path) -> None:
    world = World(tmp_path, DataplaneSettings(idle_policy=IdlePolicy.BUSY), workers=())
    (_, first), (nf, second) = world.serve("w"), world.serve("w")  # both in this process
    assert [host.shares_cpu for host in world.plane.hosts.values()] == [True, True]
    nf.close()
    until(lambda: second.state is HostState.DEAD, world.turn)
    assert not world.plane.hosts[first.slot].shares_cpu
    world.close()


@pytest.mark.parametrize(
    ("cpus", "found"),
    [
        ([{1}], set()),
        ([{1}, {2}], set()),
        ([{1}, {1}], {0, 1}),
        ([{1}, {1}, {2}], {0, 1}),
        ([{1, 2}, {2}, {3}], {0, 1}),
        ([{0}], {0}),  # the worker's
        ([{0, 1, 2, 3}, {1}], {0}),  # not pinned: the other keeps its CPU
        ([set(), {1}], {0}),  # ended already
    ],
)
def test_hosts_that_share_a_cpu(cpus: list[set[int]], found: set[int]) -> None:
    assert sharing({slot: frozenset(one) for slot, one in enumerate(cpus)}, [0]) == found


def test_close_ends_everything(world: World) -> None:
    nf, host = world.serve("a")
    world.manager.close()
    assert world.plane.is_over
    assert not world.plane.is_running
    nf.turn()
    assert nf.heard[-1].payload == b"the manager stops"
    assert host.state is HostState.DEAD
    assert not world.manager.attach_path.exists()


def test_data_plane_that_does_not_start_leaves_no_socket(tmp_path: Path) -> None:
    def fail(*_: object) -> FakeDataPlane:
        raise DataplaneError(12, "no memory")

    with pytest.raises(DataplaneError, match="no memory"):
        Manager(tmp_path, DataplaneSettings(), [0], start_plane=fail)
    assert not (tmp_path / "attach" / "attach.sock").exists()


def test_nfs_know_the_ports_before_they_serve_and_at_each_change(world: World) -> None:
    lan = codec.PortEntry("lan", 3, 1500, bytes.fromhex("020000000001"))
    world.manager.show_ports([lan])
    nf = world.attach("a", is_ready=False)
    (host,) = world.manager.registry.living()
    assert nf.ports == b""
    had: list[bytes] = []

    def look(_host: NfHost) -> None:
        nf.turn()
        had.append(nf.ports)

    world.manager.on_host_change = look
    nf.say(codec.READY)
    until(lambda: host.state is HostState.ACTIVE, world.turn)
    assert had == [codec.unpack_message(codec.pack_ports([lan])).payload]
    world.manager.show_ports([])
    until(lambda: nf.ports == b"", world.turn)


def test_ports_are_told_to_those_who_wait_for_them_only(world: World) -> None:
    nf, _ = world.serve("a")
    late = world.attach("b", is_ready=False)
    world.manager.show_ports([codec.PortEntry("wan", 4)])
    until(lambda: nf.ports != b"", world.turn)
    assert late.ports == b"", "it gets them when it is ready"


def test_addresses_of_an_nf_are_told_to_all(world: World) -> None:
    router, _ = world.serve("router")
    nat, host = world.serve("nat")
    lan = codec.PortEntry("lan", 3, link=codec.PortLink(("10.0.0.1/24",)))
    world.manager.show_ports([lan])
    nat.say(codec.OWN_ADDRESSES, payload=b"198.51.100.1\n2001:db8::1")
    until(lambda: any(one.kind == codec.ADDRESSES for one in router.heard), world.turn)
    assert [one.kind for one in router.heard] == [codec.LINK, codec.ADDRESSES]
    assert router.heard[-1].payload == b"198.51.100.1\n2001:db8::1"
    nat.close()
    until(lambda: host.state is HostState.DEAD, world.turn)
    late, _ = world.serve("router")
    kinds = [codec.ADDRESSES, codec.LINK]
    until(lambda: [one.kind for one in late.heard] == kinds, world.turn)


def test_nfs_answer_questions(world: World) -> None:
    (first, one), (second, _) = world.serve("a"), world.serve("a")
    targets = world.manager.registry.find("a")
    number, count = world.manager.questions.ask(targets, b"how much?")
    assert count == 2
    until(lambda: all(nf.kinds() == [codec.ASK] for nf in (first, second)), world.turn)
    assert first.heard[0].payload == b"how much?"
    first.say(codec.REPLY, peer=str(number), payload=b"\nten")
    second.say(codec.REPLY, peer=str(number + 1), payload=b"\nto no question")
    until(lambda: world.manager.questions.replies(number)[0] == {"a-1": "ten"}, world.turn)
    assert world.manager.questions.replies(number)[1] == ["a-2"]
    second.say(codec.REPLY, peer=str(number))
    until(lambda: not world.manager.questions.replies(number)[1], world.turn)
    assert world.manager.questions.replies(number)[0] == {"a-1": "ten", "a-2": None}
    with pytest.raises(ConfigError, match="question of this manager"):
        world.manager.questions.replies(number + 1)
    number, _ = world.manager.questions.ask(targets, b"")
    first.close()
    until(lambda: one.state is HostState.DEAD, world.turn)
    assert world.manager.questions.replies(number)[1] == ["a-2"]


def test_services_are_told_by_name(world: World) -> None:
    nf, _ = world.serve("a")
    world.manager.show_ports([codec.PortEntry("lan", 3)])
    world.serve("b")
    until(lambda: nf.services == "1 a\n2 b", world.turn)


@pytest.mark.parametrize(("stage", "payload"), [(1, b"10.0.0.1"), (0, b"ten")])
def test_host_that_tells_nonsense_of_addresses_is_detached(
    world: World, stage: int, payload: bytes
) -> None:
    nf, host = world.serve("nat")
    nf.say(codec.OWN_ADDRESSES, stage=stage, payload=payload)
    until(lambda: host.state is HostState.DEAD, world.turn)
