"""What is read of NF hosts: spare capacity for the data plane."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from onvm_core.dataplane.fake import NO_LOAD, FakeDataPlane
from onvm_core.dataplane.values import DataplaneSettings, LoadCounters, TurnSums
from onvm_core.manager.nf_hosts import meters as meters_module
from onvm_core.manager.nf_hosts.meters import Meters
from onvm_core.manager.nf_hosts.registry import HostState, Instance, NfHost, Registry

BURST = 64
CYCLES = 1000
"""Of the NF for a packet; the clock of the data plane in memory has 1 GHz."""
CAPACITY_PPS = 1e9 / CYCLES


class World:
    """Meters of hosts that do what a test says, in a time that it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        monkeypatch.setattr(meters_module, "time", clock)
        self.plane = FakeDataPlane()
        self.registry = Registry()
        self.meters = Meters(self.registry, DataplaneSettings(), self.plane)

    def host(self, name: str) -> NfHost:
        slot, files = self.plane.add_host([1], 0)
        os.close(files.area_fd)
        self.plane.activate_host(slot)
        host = NfHost(slot, 1, [Instance("a", name, (), ())], BURST, HostState.ACTIVE)
        self.registry.hosts.append(host)
        return host

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.meters.turn()

    def work(self, host: NfHost, pps: float, seconds: float = 0.2) -> None:
        """Let a host do so many packets in full bursts."""
        n = int(pps * seconds)
        turns = n // BURST
        self.plane.hosts[host.slot].load = LoadCounters(
            packets=n,
            done=n,
            busy_cycles=n * CYCLES,
            idle_cycles=int(seconds * 1e9) - n * CYCLES,
            loops=turns,
            shed=0,
            reserved=0,
            peak=BURST,
            latency=NO_LOAD.latency,
            turns=TurnSums(
                turns,
                n,
                n * BURST,
                n * CYCLES,
                turns * BURST * BURST * CYCLES,
            ),
        )
        self.pass_time(seconds)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_data_plane_is_told_what_a_host_can_take_on_top(world: World) -> None:
    host = world.host("a-1")
    world.pass_time(0.1)
    assert world.plane.hosts[host.slot].spare_pps == 0
    world.work(host, 0.6 * CAPACITY_PPS)
    spare_pps = world.plane.hosts[host.slot].spare_pps
    assert spare_pps == pytest.approx(0.4 * CAPACITY_PPS, rel=0.1)
    assert world.meters.spare_pps(host) == pytest.approx(spare_pps, rel=0.01)


def test_full_host_still_gets_a_share_by_its_speed(world: World) -> None:
    host = world.host("a-1")
    world.pass_time(0.1)
    world.work(host, CAPACITY_PPS)
    assert world.plane.hosts[host.slot].spare_pps == pytest.approx(0.01 * CAPACITY_PPS, rel=0.2)


def test_new_host_is_taken_for_as_fast_as_its_siblings(world: World) -> None:
    first = world.host("a-1")
    world.pass_time(0.1)
    world.work(first, 0.6 * CAPACITY_PPS)
    second = world.host("a-2")
    world.meters.assume_capacity(second)
    assert world.plane.hosts[second.slot].spare_pps == pytest.approx(CAPACITY_PPS, rel=0.1)


def test_dead_host_has_no_load_though_its_slot_is_used_again(world: World) -> None:
    host = world.host("a-1")
    world.pass_time(0.1)
    world.work(host, 1000)
    assert world.meters.of(host) is not None
    host.state = HostState.DEAD
    assert world.meters.of(host) is None


def test_readings_are_rare_while_no_packet_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    host = world.host("a-1")
    world.pass_time(0.1)
    usual = world.meters.interval_s
    for _ in range(60):
        world.pass_time(usual)
    assert world.meters.interval_s == meters_module.IDLE_INTERVAL_S > usual
    world.work(host, pps=1000)
    world.pass_time(meters_module.IDLE_INTERVAL_S)
    assert world.meters.interval_s == usual
