"""The scaling policy and the autoscaler, on services that are simulated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onvm_core.scaling.autoscaler import Autoscaler, Decision, Scaled, ServiceState
from onvm_core.scaling.load import Load
from onvm_core.scaling.policy import ScaleSettings, ServiceLoad, UtilisationPolicy
from onvm_sdk.errors import ConfigError, OnvmError

STEP_S = 0.05
CAPACITY_PPS = 1000.0


def load(
    utilisation: float,
    *,
    sheds: int = 0,
    occupancy: float = 0.0,
    capacity: float = CAPACITY_PPS,
    arrival: float = 0.0,
) -> Load:
    packets = int(capacity * utilisation * STEP_S * 1000)
    return Load(
        seconds=STEP_S,
        packets=packets,
        done=packets,
        occupancy=occupancy,
        busy_cycles=0,
        idle_cycles=0,
        cycles_per_packet=0,
        sheds=sheds,
        occupancy_mean=occupancy,
        occupancy_peak=occupancy,
        p50_us=None,
        p99_us=None,
        utilisation=utilisation,
        capacity_pps=None,
        arrival=arrival,
        is_stuck=False,
    )


def history(*readings: tuple[Load, ...]) -> list[ServiceLoad]:
    return [
        ServiceLoad(100 + STEP_S * number, loads, len(loads))
        for number, loads in enumerate(readings)
    ]


def wish(readings: list[tuple[Load, ...]], **options: float) -> int:
    chosen = ScaleSettings(**{"max": 8, "in_after_s": 1.0, **options})  # type: ignore[arg-type]
    return UtilisationPolicy(chosen).decide(history(*readings)).instances


# ---- the policy ----


def test_sustained_utilisation_above_the_target_scales_out() -> None:
    assert wish([(load(0.8),)] * 2) == 2
    assert wish([(load(0.8),)] * 1) == 1, "not for long enough"
    assert wish([(load(0.8),), (load(0.6),), (load(0.8),)]) == 1, "not all the time"


def test_shed_packets_of_a_busy_nf_are_reason_enough_at_once() -> None:
    busy = load(1.0, sheds=int(CAPACITY_PPS * STEP_S * 1000 * 2))
    assert wish([(load(0.1),), (busy,)]) == 5, "demand is 3: as many as that needs"
    assert wish([(load(0.1), load(0.1)), (load(1.0, sheds=9), load(0.9))]) == 3


def test_queue_of_a_busy_nf_is_reason_enough_at_once() -> None:
    assert wish([(load(0.1),), (load(0.95, occupancy=0.8),)]) == 2


def test_more_than_it_can_take_is_reason_enough_before_the_queue_is_long() -> None:
    assert wish([(load(0.1),), (load(0.5, arrival=1.3, occupancy=0.1),)]) == 2
    assert wish([(load(0.1),), (load(0.5, arrival=1.3, occupancy=0.01),)]) == 1, "a short burst"


def test_queue_in_front_of_an_idle_nf_is_the_worker_s() -> None:
    assert wish([(load(0.3, sheds=9000, occupancy=0.9),)] * 100) == 1


def test_overloaded_instance_beside_an_idle_one_needs_no_third() -> None:
    """Its flows stay where they are, and new ones go to the other already."""
    assert wish([(load(1.0, sheds=99_999), load(0.1))] * 100) == 2


def test_quiet_scales_in_one_at_a_time() -> None:
    assert wish([(load(0.1),) * 4] * 30) == 3
    assert wish([(load(0.1),) * 4] * 10) == 4, "not for long enough"
    assert wish([(load(0.1),) * 4] * 30 + [(load(0.1, sheds=1),) * 4]) == 4
    assert wish([(load(0.1),)] * 30) == 1


def test_the_fast_instance_counts_for_more_when_one_may_go() -> None:
    slow_and_fast = (load(0.3, capacity=1000), load(0.3, capacity=10_000))
    assert wish([slow_and_fast] * 30) == 2, "the slow one alone would be at 330 %"


def test_readings_with_another_number_of_instances_do_not_count() -> None:
    assert wish([(load(0.9),)] * 30 + [(load(0.9),) * 2]) == 2
    assert wish([(load(0.1),)] * 30 + [(load(0.1),) * 2]) == 2


def test_policy_has_no_options() -> None:
    with pytest.raises(ConfigError, match="speed: 3: expected no options"):
        UtilisationPolicy(ScaleSettings(options={"speed": 3}))


# ---- the autoscaler ----


class Service:
    """A service whose flows spread evenly over its instances; they take a while to start."""

    def __init__(self, settings: ScaleSettings, *, standby: int = 0, start_s: float = 0.15) -> None:
        self.now_s = 50.0
        self.start_s = start_s
        self.serving = 1
        self.starting: list[float] = []
        self.standby_starting: list[float] = []
        self.standby = 0
        self.draining = 0
        self.refuses = False
        self.drains_slowly = False
        self.autoscaler = Autoscaler(self, clock=lambda: self.now_s)
        self.scaled = Scaled(settings, UtilisationPolicy(settings), standby=standby)
        self.autoscaler.services["s"] = self.scaled

    def start(self, service: str, *, is_standby: bool) -> str:
        if self.refuses:
            raise OnvmError("no room")
        (self.standby_starting if is_standby else self.starting).append(self.now_s + self.start_s)
        return "new"

    def resume(self, service: str) -> str | None:
        if not self.draining:
            return None
        self.draining -= 1
        self.serving += 1
        return "draining"

    def activate(self, service: str) -> str | None:
        if not self.standby:
            return None
        self.standby -= 1
        self.serving += 1
        return "standby"

    def drain(self, service: str) -> str | None:
        if self.starting:
            self.starting.pop()
        elif self.serving:
            self.serving -= 1
            self.draining += self.drains_slowly
        else:
            return None
        return "old"

    def stop_standby(self, service: str) -> str | None:
        if self.standby_starting:
            self.standby_starting.pop()
        else:
            self.standby -= 1
        return "standby"

    def state(self, demand: float) -> ServiceState:
        each = demand / max(self.serving, 1)
        packets = CAPACITY_PPS * min(each, 1) * STEP_S * 1000
        sheds = int(packets * max(each - 1, 0))
        loads = (load(min(each, 1.0), sheds=sheds),) * self.serving
        return ServiceState(
            serving=self.serving,
            starting=len(self.starting),
            standby=self.standby,
            standby_starting=len(self.standby_starting),
            loads=loads,
        )

    def step(self, demand: float) -> None:
        self.now_s += STEP_S
        self.serving += sum(at <= self.now_s for at in self.starting)
        self.starting = [at for at in self.starting if at > self.now_s]
        self.standby += sum(at <= self.now_s for at in self.standby_starting)
        self.standby_starting = [at for at in self.standby_starting if at > self.now_s]
        self.autoscaler.turn(self.now_s, {"s": self.state(demand)})

    def run(self, seconds: float, demand: float | Callable[[float], float]) -> None:
        begin = self.now_s
        while self.now_s < begin + seconds:
            self.step(demand if isinstance(demand, float) else demand(self.now_s - begin))

    @property
    def changes(self) -> list[Decision]:
        return list(self.autoscaler.decisions)


def test_load_step_brings_an_instance_and_quiet_takes_it_away() -> None:
    service = Service(ScaleSettings(max=4, in_after_s=2.0))
    service.run(3, 0.3)
    assert service.changes == []
    service.run(3, 1.3)
    assert service.serving == 2
    service.run(6, 0.3)
    assert service.serving == 1
    out, back = service.changes
    assert (out.before, out.wanted, out.by, out.actions) == (1, 2, "policy", ["started new"])
    assert out.figures is not None
    assert out.figures.utilisation == 1.0
    assert out.figures.sheds > 0
    assert out.done_ms == pytest.approx(150, abs=60)
    assert (back.before, back.wanted, back.actions) == (2, 1, ["draining old"])


def test_instance_that_drains_serves_again_before_another_is_started() -> None:
    service = Service(ScaleSettings(max=3, in_after_s=1.0), standby=1)
    service.drains_slowly = True
    service.run(3, 1.2)
    service.run(4, 0.2)
    assert (service.serving, service.draining) == (1, 1)
    service.run(2, 1.2)
    assert (service.serving, service.draining) == (2, 0)
    assert service.changes[-1].actions == ["resumed draining"]


def test_spare_serves_at_once_and_is_followed_by_another() -> None:
    service = Service(ScaleSettings(max=3), standby=1, start_s=0.5)
    service.run(2, 0.1)
    assert service.standby == 1
    service.step(1.2)
    assert service.serving == 2
    assert service.changes[0].actions == ["activated standby"]
    service.run(2, 1.2)
    assert (service.serving, service.standby) == (2, 1)
    service.run(2, 3.0)
    assert (service.serving, service.standby) == (3, 0), "no more than max in all"


def test_nothing_is_decided_while_an_instance_starts() -> None:
    service = Service(ScaleSettings(max=8), start_s=5.0)
    service.run(4, 1.2)
    assert len(service.starting) == 1


def test_min_and_max_hold() -> None:
    service = Service(ScaleSettings(min=2, max=3, in_after_s=0.5))
    service.run(2, 0.0)
    assert service.serving == 2
    assert service.changes[0].by == "limits"
    service.run(5, 50.0)
    assert service.serving == 3
    service.serving = 5  # a user has started more
    service.run(3, 50.0)
    assert service.serving == 3


def test_instances_started_by_hand_are_accepted() -> None:
    service = Service(ScaleSettings(max=8, in_after_s=60.0))
    service.run(1, 0.2)
    service.serving = 3
    service.run(1, 0.2)
    assert service.serving == 3
    assert service.changes == []


def test_command_holds_until_it_is_released() -> None:
    service = Service(ScaleSettings(max=8, in_after_s=0.5))
    service.run(1, 0.1)
    decision = service.autoscaler.command("s", 4, service.now_s, service.state(0.1))
    assert decision.actions == ["started new"] * 3
    service.run(3, 0.1)
    assert service.serving == 4
    service.autoscaler.release("s")
    service.run(12, 0.1)
    assert service.serving == 1


def test_command_scales_a_service_without_a_policy() -> None:
    service = Service(ScaleSettings())
    del service.autoscaler.services["s"]
    service.autoscaler.command("s", 2, service.now_s, service.state(0.1))
    service.run(20, 0.9)
    assert service.serving == 2


def test_refusal_is_noted_once_and_tried_again_later() -> None:
    service = Service(ScaleSettings(max=2))
    service.refuses = True
    service.run(12, 1.5)
    assert [one.error for one in service.changes] == ["no room"]
    service.refuses = False
    service.run(6, 1.5)
    assert service.serving == 2


def test_instance_that_died_and_starts_again_is_not_replaced_for_min() -> None:
    service = Service(ScaleSettings(min=2))
    service.run(2, 0.1)
    service.autoscaler.turn(service.now_s, {"s": ServiceState(serving=1, failing=1)})
    assert len(service.changes) == 1
    assert not service.starting


# ---- no flapping ----

swings = st.tuples(
    st.floats(0.02, 5.0),  # period
    st.floats(0.0, 1.0),  # phase
    st.integers(1, 4),  # instances that the load is about
    st.sampled_from([0.6, 0.7, 0.8]),
)


@settings(max_examples=60)
@given(swings, st.floats(0.0, 0.99))
def test_load_that_swings_around_the_threshold_changes_the_number_once(
    swing: tuple[float, float, int, float], amplitude: float
) -> None:
    """Within the band between the thresholds it may go where it wants, as fast as it wants."""
    period, phase, n, target = swing
    chosen = ScaleSettings(max=8, target=target, in_after_s=0.5, out_after_s=0.05)
    middle = target * n
    # Down to where n instances would be enough with room to spare, but not below that.
    half = amplitude * target * n * chosen.hysteresis

    def demand(at_s: float) -> float:
        is_up = ((at_s / period + phase) % 1.0) < 0.5
        return middle + half if is_up else middle - half + 1e-3

    service = Service(chosen)
    service.serving = n
    service.run(20, demand)
    directions = [one.wanted > one.before for one in service.changes]
    assert directions in ([], [True]), service.changes


@settings(max_examples=60)
@given(st.lists(st.floats(0, 6), min_size=1, max_size=30), st.floats(0.1, 2.0))
def test_whatever_the_load_does_scale_in_waits_for_quiet(steps: list[float], each_s: float) -> None:
    chosen = ScaleSettings(min=1, max=5, in_after_s=1.5)
    service = Service(chosen)
    service.run(len(steps) * each_s, lambda at_s: steps[min(int(at_s / each_s), len(steps) - 1)])
    assert 1 <= service.serving + len(service.starting) <= 5
    last = -10.0
    for decision in service.changes:
        if decision.wanted < decision.before:
            assert decision.time - last >= chosen.in_after_s - STEP_S
            assert decision.before - decision.wanted == 1
        last = decision.time
