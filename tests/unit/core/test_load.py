"""What two readings of an NF host's counters say about its load."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from onvm_core.dataplane.values import LoadCounters, TurnSums
from onvm_core.scaling.load import (
    HANDLING_CYCLES,
    Meter,
    Reading,
    Units,
    full_burst_cycles,
    handling_cycles,
    measure,
    quantile,
)

HZ = 2e9
UNITS = Units(hz=HZ, ring_length=1000, n_workers=1, bounds_ns=tuple(i * 1000 for i in range(8)))
NOTHING = LoadCounters(
    packets=0,
    done=0,
    busy_cycles=0,
    idle_cycles=0,
    loops=0,
    shed=0,
    reserved=0,
    peak=0,
    latency=(0,) * 8,
)
BEGIN = Reading(10.0, NOTHING)


def after(seconds: float, **counters: object) -> Reading:
    return Reading(BEGIN.at_s + seconds, replace(NOTHING, **counters))


def serve(pps: float, cost: float, seconds: float, **more: object) -> Reading:
    """What a host has counted that gets `pps` and takes `cost` cycles for each in its NFs."""
    packets = int(pps * seconds)
    return after(
        seconds,
        packets=packets,
        done=packets,
        loops=packets,
        busy_cycles=int(packets * cost),
        idle_cycles=int(HZ * seconds - packets * (cost + HANDLING_CYCLES)),
        **more,
    )


def test_half_of_its_time_is_half_its_capacity() -> None:
    load = measure(BEGIN, serve(pps=500_000, cost=1970, seconds=0.5), UNITS)
    assert load.utilisation == pytest.approx(0.5)
    assert load.capacity_pps == pytest.approx(1_000_000)
    assert load.pps == pytest.approx(500_000)
    assert load.cycles_per_packet == pytest.approx(1970)


def test_one_that_only_spins_is_not_busy() -> None:
    load = measure(BEGIN, after(1.0, loops=10_000_000, idle_cycles=0), UNITS)
    assert load.utilisation == 0.0
    assert load.capacity_pps is None
    assert not load.is_stuck


def test_large_bursts_are_busy_when_they_fill_up() -> None:
    busy = {"packets": 100_000, "done": 100_000, "loops": 9, "busy_cycles": int(0.9 * HZ)}
    # 1.5 µs inside: 0.15 packets of the 1,000 that a burst could have.
    few = measure(BEGIN, after(1.0, **busy, latency=(0, 9, 0, 0, 0, 0, 0, 0)), UNITS, 0, 1000)
    assert few.utilisation < 0.001
    reserved = Reading(10.0, replace(NOTHING, reserved=500))
    full = measure(reserved, after(1.0, **busy, reserved=700), UNITS, 0, 1000)
    assert full.utilisation == pytest.approx(0.9)


def test_growing_queue_does_not_raise_the_capacity() -> None:
    """Packets that were handed over are not yet done."""
    now = after(0.5, packets=500, done=300, loops=9, busy_cycles=int(HZ * 0.5), reserved=200)
    load = measure(BEGIN, now, UNITS, 0, capacity_pps=600)
    assert load.capacity_pps == pytest.approx(600)
    assert load.arrival == pytest.approx(1000 / 600)
    assert load.demand == pytest.approx(1000 / 600)
    assert load.occupancy == 0.2


def test_few_packets_say_nothing_about_capacity() -> None:
    assert measure(BEGIN, serve(pps=9, cost=1000, seconds=1.0), UNITS).capacity_pps is None


def test_shed_packets_are_demand() -> None:
    load = measure(BEGIN, serve(pps=900_000, cost=1970, seconds=1.0, shed=900_000), UNITS)
    assert load.sheds == 900_000
    assert load.demand == pytest.approx(1.8)


def test_handling_is_what_a_backlogged_host_spends_around_its_nfs() -> None:
    begin = Reading(10.0, replace(NOTHING, reserved=800))
    now = after(
        1.0, packets=1_000_000, done=1_000_000, loops=9, busy_cycles=1_850_000_000, reserved=700
    )
    assert handling_cycles(begin, now, UNITS, 60.0) == pytest.approx(150)
    load = measure(begin, now, UNITS, handling_cycles(begin, now, UNITS, 60.0))
    assert load.utilisation == pytest.approx(1.0)
    assert load.capacity_pps == pytest.approx(1_000_000)


def test_handling_is_not_guessed_from_a_host_that_waits() -> None:
    # Its last idle time is not counted yet, so all time seems to have been used.
    now = after(1.0, packets=1000, done=1000, loops=9, busy_cycles=1_000_000)
    assert handling_cycles(BEGIN, now, UNITS, 77.0) == 77.0


def test_occupancy_is_rate_times_time_inside() -> None:
    # 100,000 packets per second, each 3.5 µs inside (bucket 3 is 3 to 4 µs): 0.35 inside.
    now = serve(pps=100_000, cost=1000, seconds=1.0, latency=(0, 0, 0, 1500, 0, 0, 0, 0))
    load = measure(BEGIN, now, UNITS)
    assert load.occupancy_mean == pytest.approx(0.35 / 1000)
    assert (load.p50_us, load.p99_us) == (3.5, 3.5)


def test_peak_of_earlier_times_is_not_this_interval_s() -> None:
    begin = Reading(10.0, replace(NOTHING, peak=900))
    assert measure(begin, serve(1000, 10, 1.0, peak=900), UNITS).occupancy_peak == 0.0
    assert measure(begin, serve(1000, 10, 1.0, peak=950), UNITS).occupancy_peak == 0.95


def test_packets_wait_and_nobody_looks() -> None:
    begin = Reading(10.0, replace(NOTHING, reserved=5, loops=3, done=9))
    assert measure(begin, after(0.05, reserved=9, loops=3, done=9), UNITS).is_stuck
    assert measure(begin, after(0.05, reserved=9, loops=3, done=9), UNITS).utilisation == 1.0
    assert not measure(begin, after(0.05, reserved=9, loops=4, done=9), UNITS).is_stuck
    assert not measure(begin, after(0.05, reserved=0, loops=3, done=9), UNITS).is_stuck


def test_quantile_of_nothing_is_nothing() -> None:
    assert quantile((0,) * 8, UNITS.bounds_ns, 0.5) is None


# ---- a meter ----


def test_meter_keeps_the_capacity_of_a_host_that_has_nothing_to_do() -> None:
    meter = Meter(UNITS)
    meter.add(BEGIN)
    assert meter.over(1.0) is None
    busy = serve(pps=500_000, cost=1970, seconds=0.5)
    meter.add(busy)
    meter.add(Reading(busy.at_s + 1.0, busy.counters))
    load = meter.over(0.5)
    assert load is not None
    assert load.utilisation == 0.0
    assert meter.capacity_pps == pytest.approx(1_000_000)
    assert meter.spare_pps(load) == pytest.approx(1_000_000)


def test_cost_of_waking_up_does_not_lower_the_capacity() -> None:
    meter = Meter(UNITS)
    meter.add(BEGIN)
    busy = serve(pps=500_000, cost=1970, seconds=0.5)
    meter.add(busy)
    few = replace(
        busy.counters,
        done=busy.counters.done + 1000,
        busy_cycles=busy.counters.busy_cycles + 20_000_000,
    )
    meter.add(Reading(busy.at_s + 1.0, few))
    assert meter.capacity_pps == pytest.approx(1_000_000)


def test_host_that_slows_down_loses_capacity() -> None:
    meter = Meter(UNITS)
    meter.add(BEGIN)
    fast = serve(pps=500_000, cost=1970, seconds=0.5)
    meter.add(fast)
    slow = replace(
        fast.counters,
        done=fast.counters.done + 50_000,
        busy_cycles=fast.counters.busy_cycles + 50_000 * 19_970,
    )
    meter.add(Reading(fast.at_s + 1.0, slow))
    assert meter.capacity_pps == pytest.approx(100_000)


# ---- whatever an NF host writes ----

counts = st.integers(min_value=0, max_value=(1 << 64) - 1)
readings = st.builds(
    LoadCounters,
    packets=counts,
    done=counts,
    busy_cycles=counts,
    idle_cycles=counts,
    loops=counts,
    shed=counts,
    reserved=st.integers(0, 1 << 33),
    peak=st.integers(0, 1 << 33),
    latency=st.lists(counts, min_size=8, max_size=8).map(tuple),
)


@settings(max_examples=200)
@given(readings, readings, st.floats(0, 100), st.floats(0, 2000))
def test_load_keeps_to_its_ranges(
    before: LoadCounters, now: LoadCounters, seconds: float, known: float
) -> None:
    first, second = Reading(5.0, before), Reading(5.0 + seconds, now)
    load = measure(first, second, UNITS, handling_cycles(first, second, UNITS, known))
    assert 0 <= load.utilisation <= 1
    assert 0 <= load.occupancy_mean <= load.occupancy_peak <= 1
    assert load.capacity_pps is None or load.capacity_pps > 0
    assert load.demand >= load.utilisation or load.packets == 0
    assert min(load.packets, load.busy_cycles, load.sheds, load.idle_cycles) >= 0


@settings(max_examples=200)
@given(
    st.floats(100, 5000), st.floats(0.05, 0.95), st.floats(1, 200), st.sampled_from([0.05, 0.1, 1])
)
def test_capacity_is_that_of_the_limit(
    cost: float, share: float, handling: float, seconds: float
) -> None:
    """At any share of its limit, a host of known cost is estimated within 10 %."""
    limit = HZ / (cost + handling)
    meter = Meter(UNITS)
    full = replace(NOTHING, reserved=900)
    meter.add(Reading(0.0, full))
    packets = int(limit * seconds)
    full = replace(full, packets=packets, done=packets, loops=1, busy_cycles=int(packets * cost))
    meter.add(Reading(seconds, full))
    packets += int(limit * share * seconds)
    idle = int(HZ * seconds * (1 - share))
    meter.add(
        Reading(
            2 * seconds,
            replace(
                full,
                packets=packets,
                done=packets,
                loops=2,
                busy_cycles=int(packets * cost),
                idle_cycles=idle,
                reserved=0,
            ),
        )
    )
    assert meter.capacity_pps == pytest.approx(limit, rel=0.1)


def turns_of(bursts: list[int], fixed: float, each: float) -> TurnSums:
    """What a host counts whose turns cost `fixed` cycles, and `each` for a packet."""
    cycles = [int(fixed + each * n) for n in bursts]
    return TurnSums(
        len(bursts),
        sum(bursts),
        sum(n * n for n in bursts),
        sum(cycles),
        sum(c * n for c, n in zip(cycles, bursts, strict=True)),
    )


@pytest.mark.parametrize(("fixed", "each"), [(0, 100), (600, 100), (150_000, 20), (50, 5000)])
def test_cost_of_a_full_burst_is_seen_in_small_ones(fixed: float, each: float) -> None:
    small = turns_of([1, 2, 3, 5, 2, 1, 4] * 50, fixed, each)
    assert full_burst_cycles(small, 64) == pytest.approx(each + fixed / 64, rel=0.01)


def test_turns_that_are_alike_or_senseless_cost_their_mean() -> None:
    assert full_burst_cycles(turns_of([1] * 99, 500, 100), 64) == pytest.approx(600)
    assert full_burst_cycles(turns_of([64] * 99, 640, 100), 64) == pytest.approx(110)
    # More packets take less time: a neighbour has taken the CPU during the small ones.
    assert full_burst_cycles(TurnSums(2, 65, 4097, 10_000, 9000 + 64 * 1000), 64) == (
        pytest.approx(10_000 / 65)
    )


def test_utilisation_is_the_share_of_what_full_bursts_allow() -> None:
    bursts = [1, 2, 3, 2] * 1000
    packets = sum(bursts)
    sums = turns_of(bursts, 640, 90)
    load = measure(BEGIN, after(0.1, packets=packets, done=packets, loops=9, turns=sums), UNITS)
    assert load.capacity_pps == pytest.approx(HZ / 100, rel=0.01)
    assert load.utilisation == pytest.approx(packets / 0.1 * 100 / HZ, rel=0.01)
    assert sums.cycles / HZ / 0.1 > 3 * load.utilisation, "small bursts take more of its time"


@settings(max_examples=200)
@given(st.tuples(*[st.integers(0, 2**64 - 1)] * 5), st.integers(1, 2048))
@example((0, 0, 0, 2**54 - 1, 0), 1)
def test_any_sums_give_a_cost_within_bounds(values: tuple[int, ...], burst: int) -> None:
    cost = full_burst_cycles(TurnSums(*values), burst)
    assert 0 <= cost <= float(values[3])  # a mean is rounded as its sum is
