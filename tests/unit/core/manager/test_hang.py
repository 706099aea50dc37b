"""What proves that an NF host hangs, and what does not, with the times that a test says."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import msgspec
import pytest

from onvm_core.dataplane.fake import NO_LOAD, FakeDataPlane
from onvm_core.dataplane.values import DataplaneSettings
from onvm_core.manager.nf_hosts import meters as meters_module
from onvm_core.manager.nf_hosts.meters import INTERVAL_S, Meters
from onvm_core.manager.nf_hosts.registry import HostState, Instance, NfHost, Registry
from onvm_core.manager.supervision.hang import FIRST_PACKET_S, HangWatch
from onvm_core.manager.supervision.thread_times import ThreadTimes, read_thread_times

PID = 100
HELPER = 101
"""Another thread of the NF host."""
LIMIT_S = 0.4
WAITING = msgspec.structs.replace(NO_LOAD, packets=300, done=200, loops=3, reserved=100)


class World:
    """A host with packets, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        monkeypatch.setattr(meters_module, "time", clock)
        self.plane = FakeDataPlane()
        self.registry = Registry()
        self.meters = Meters(self.registry, DataplaneSettings(), self.plane)
        self.host = self.attach()
        self.threads = {PID: ThreadTimes("S", 1.0, 0.0)}
        self.excused: list[NfHost] = []
        self.watch = HangWatch(
            self.registry,
            self.meters,
            LIMIT_S,
            self.excused.__contains__,
            lambda pid: dict(self.threads) if pid == PID else {},
        )
        self.found: list[str] = []

    def attach(self) -> NfHost:
        slot, files = self.plane.add_host([1], 0)
        os.close(files.area_fd)
        self.plane.activate_host(slot)
        self.plane.hosts[slot].load = WAITING
        host = NfHost(slot, PID, [Instance("a", "a-1", (), ())], 64, HostState.ACTIVE)
        self.registry.hosts.append(host)
        return host

    def turn(self, step_s: float = INTERVAL_S) -> None:
        self.now_s += step_s
        self.meters.turn()
        self.found += [reason for _, reason in self.watch.turn()]

    def thread(self, state: str, ran_s: float = 0.0, waited_s: float = 0.0, tid: int = PID) -> None:
        """Let a thread run and wait for so long, and then be in a state."""
        before = self.threads.get(tid, ThreadTimes("S", 0.0, 0.0))
        self.threads[tid] = ThreadTimes(state, before.ran_s + ran_s, before.waited_s + waited_s)

    def pass_time(
        self,
        seconds: float,
        state: str,
        ran: float = 0.0,
        waited: float = 0.0,
        step_s: float = INTERVAL_S,
    ) -> None:
        """Let the host use its time for these shares, with a turn of the manager each `step_s`."""
        for _ in range(round(seconds / step_s)):
            self.thread(state, ran * step_s, waited * step_s)
            self.turn(step_s)

    def count(self, **counters: int) -> None:
        slot = self.plane.hosts[self.host.slot]
        slot.load = msgspec.structs.replace(slot.load, **counters)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.mark.parametrize(
    ("state", "ran", "doing"),
    [
        ("R", 1.0, "it computes"),
        ("S", 0.0, "its process is in state S"),  # in a call of its own
        ("T", 0.0, "its process is in state T"),
        ("D", 0.0, "its process is in state D"),
        ("S", 0.4, "its process is in state S"),  # now and then
    ],
)
def test_host_that_computes_or_is_blocked_hangs(
    world: World, state: str, ran: float, doing: str
) -> None:
    world.pass_time(LIMIT_S - INTERVAL_S, state, ran)
    assert world.found == []
    world.pass_time(3 * INTERVAL_S, state, ran)
    seconds, _, rest = world.found[0].removeprefix("no progress for ").partition(" s ")
    assert LIMIT_S <= float(seconds) <= LIMIT_S + 2 * INTERVAL_S
    assert rest == f"while packets wait; {doing}"


def test_a_host_is_suspected_until_it_makes_a_turn(world: World) -> None:
    world.turn()
    assert not world.watch.has_suspects
    world.pass_time(2 * INTERVAL_S, "R", 1.0)
    assert world.watch.has_suspects
    assert world.found == []
    world.count(loops=1)
    world.turn()
    assert not world.watch.has_suspects


@pytest.mark.parametrize(
    ("state", "ran", "waited"),
    [
        ("R", 0.0, 0.0),  # it has not had the CPU at all: the kernel adds the time when it gets it
        ("R", 0.02, 0.98),
        ("S", 0.02, 0.98),  # at the moment of the look it sleeps
        ("S", 0.0, 1.0),
        ("R", 0.1, 2.0),  # the kernel adds what it has waited before
    ],
)
def test_starved_host_does_not_hang(world: World, state: str, ran: float, waited: float) -> None:
    world.pass_time(3.0, state, ran, waited)
    assert world.found == []


def test_starved_host_that_hangs_is_found_by_the_cpu_time_it_uses(world: World) -> None:
    world.pass_time(1.0, "R", 0.1, 0.9)
    assert world.found == []
    world.pass_time(4.0, "R", 0.1, 0.9)
    assert world.found[0].endswith("it computes")


def test_starved_helper_may_have_what_its_host_waits_for(world: World) -> None:
    for _ in range(60):
        world.thread("S", tid=PID)
        world.thread("R", 0.001, INTERVAL_S - 0.001, tid=HELPER)
        world.turn()
    assert world.found == []


def test_helper_that_computes_proves_nothing(world: World) -> None:
    """The host itself gets no CPU meanwhile."""
    for _ in range(60):
        world.thread("R", tid=PID)
        world.thread("R", INTERVAL_S, tid=HELPER)
        world.turn()
    assert world.found == []


@pytest.mark.parametrize("state", ["S", "T"])
def test_late_manager_cannot_tell(world: World, state: str) -> None:
    world.pass_time(5.0, state, step_s=0.25)
    assert world.found == []
    world.pass_time(2 * LIMIT_S, state)  # on time again
    assert world.found[0].endswith(f"state {state}")


def test_time_in_which_the_machine_stood_still_is_no_cpu_time(world: World) -> None:
    world.pass_time(0.1, "R", 1.0)
    world.thread("R", 10.0)
    world.turn(10.0)
    assert world.found == []


def test_late_manager_finds_a_host_that_computes(world: World) -> None:
    world.pass_time(3.0, "R", 1.0, step_s=0.25)
    assert world.found[0].endswith("it computes")


@pytest.mark.parametrize(
    "progress",
    [
        {"loops": 4},  # it looks for packets, or for room in the ring to the worker
        {"done": 201},
        {"reserved": 0},  # there are no packets for it
    ],
)
def test_progress_ends_the_suspicion(world: World, progress: dict[str, int]) -> None:
    world.pass_time(LIMIT_S - INTERVAL_S, "S")
    before = {"loops": 3, "done": 200, "reserved": 100}
    world.count(**progress)
    world.turn()
    if "reserved" in progress:
        world.count(**before)
    world.pass_time(LIMIT_S - INTERVAL_S, "S")
    assert world.found == []


def test_excused_host_does_not_hang(world: World) -> None:
    world.excused.append(world.host)
    world.pass_time(3.0, "S")
    assert world.found == []
    world.excused.clear()
    world.pass_time(LIMIT_S - INTERVAL_S, "S")
    assert world.found == []


def test_first_packet_may_take_longer(world: World) -> None:
    world.count(done=0)
    world.pass_time(FIRST_PACKET_S - 0.1, "R", 1.0)
    assert world.found == []
    world.pass_time(0.3, "R", 1.0)
    assert world.found != []


def test_next_host_in_a_slot_is_not_suspected(world: World) -> None:
    world.pass_time(LIMIT_S - INTERVAL_S, "S")
    slot = world.host.slot
    world.meters.forget(world.host)
    world.host.state = HostState.DEAD
    world.plane.remove_host(slot)
    world.host = world.attach()
    assert world.host.slot == slot
    world.pass_time(LIMIT_S - INTERVAL_S, "S")
    assert world.found == []


def test_without_a_limit_nothing_hangs(world: World) -> None:
    watch = HangWatch(world.registry, world.meters, 0.0)
    world.pass_time(9.0, "S")
    assert watch.turn() == []


SPINNING = """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("ready", flush=True)
while True:
    pass
"""


def test_times_of_threads_are_the_kernels() -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SPINNING], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        first = read_thread_times(process.pid)
        while read_thread_times(process.pid)[process.pid].ran_s < first[process.pid].ran_s + 0.05:
            pass
        times = read_thread_times(process.pid)
        helper = next(one for tid, one in times.items() if tid != process.pid)
        assert times[process.pid].state == "R"
        assert helper.state == "S"
        assert helper.ran_s < times[process.pid].ran_s
    finally:
        process.kill()
        process.communicate()
    assert read_thread_times(process.pid) == {}
