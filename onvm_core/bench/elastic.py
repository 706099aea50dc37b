"""Scenarios of the suite "elastic": a manager that scales and heals by itself.

The NFs wait instead of computing, so two cores carry several instances of any speed. The scenarios
measure how soon the manager sees a change, and where it sends the flows.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable

from onvm_core.bench.bed import SERVICE, Bed, running
from onvm_core.bench.scenario import Scenario
from onvm_core.dataplane.values import NullPort
from onvm_core.manager.config.sections import ScaleConfig

__all__ = ["KINDS"]

PASS = "onvm_core.bench.nfs:Pass"
NEW_FLOWS = 1 << 20
"""Enough flows to make each packet of a scenario the first of its flow."""
RUNNING_FLOWS = 200


class _Watch(threading.Thread):
    """Samples every millisecond, whatever the manager does."""

    def __init__(self, look: Callable[[float], bool]) -> None:
        super().__init__(daemon=True)
        self._look = look
        self._is_over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._is_over.wait(0.001) and self._look(time.perf_counter()):
            pass

    def finish(self) -> None:
        self._is_over.set()
        self.join()


def _out(scenario: Scenario) -> dict[str, float]:
    """Time from a load step until a new instance has its first packet."""
    scale = {SERVICE: ScaleConfig(max=2, standby=scenario.standby)}
    with running(scale, ["300us-1"]) as bed:
        old = bed.serving()[0].slot
        calm = bed.source("calm", RUNNING_FLOWS, 500)
        bed.chain(calm)
        bed.run(2.0)  # and the other instance is a standby
        before = _places(bed)
        steep = bed.source("steep", NEW_FLOWS, 6000)
        first: list[float] = []

        def look(now: float) -> bool:
            slots = [host.slot for host in bed.serving() if host.slot != old]
            if any(bed.plane.read_load(slot).packets for slot in slots):
                first.append(now)
            return not first

        # The calm flows go on through their own chain.
        far = bed.plane.open_port("out2", NullPort(is_source=False))
        watch = _Watch(look)
        # Loads do not rise just after the manager has looked.
        time.sleep(random.random() * bed.automation.poll_s)
        begin, wall = time.perf_counter(), time.time()
        bed.deployment.manager.set_chain(2, steep, far, [SERVICE])
        bed.until(lambda: bool(first), "a new instance has packets")
        watch.finish()
        bed.run(1.0)
        after = _places(bed)
        decision = bed.automation.scaling.decisions()[0]
    moved = sum(after.get(flow, hosts) != hosts for flow, hosts in before.items())
    return {
        "serving_ms": (first[0] - begin) * 1000,
        "decided_ms": (decision.time - wall) * 1000,
        "moved": moved,
        "running": len(before),
    }


def _places(bed: Bed) -> dict[tuple[object, ...], tuple[int, ...]]:
    """Hosts of each flow of the first chain."""
    return {
        (flow.src, flow.src_port, flow.dst, flow.dst_port, flow.is_reverse): flow.hosts
        for flow in bed.plane.read_flows(1 << 16)
        if flow.chain == 1
    }


def _names(scenario: Scenario) -> list[str]:
    return [f"{wait_us}us-{number}" for number, wait_us in enumerate(scenario.waits_us, 1)]


def _limits(bed: Bed, seconds: float) -> list[float]:
    """Packets per second that each instance processes under full load."""
    bed.chain(bed.source(f"flood{time.perf_counter_ns()}", NEW_FLOWS, 20_000))
    bed.run(1.5)
    counts = [bed.plane.read_load(host.slot).done for host in bed.serving()]
    begin = time.perf_counter()
    bed.run(seconds)
    elapsed = time.perf_counter() - begin
    return [
        (bed.plane.read_load(host.slot).done - count) / elapsed
        for host, count in zip(bed.serving(), counts, strict=True)
    ]


def _spread(scenario: Scenario) -> dict[str, float]:
    """Utilisation of instances of unequal speed, and the error of their estimated capacity."""
    with running({}, _names(scenario)) as bed:
        meters = bed.deployment.manager.meters
        limits = _limits(bed, scenario.seconds)
        part = bed.source("part", NEW_FLOWS, int(0.6 * sum(limits)))
        if scenario.slowed_us:
            bed.chain(part)
            bed.run(1.0)
            bed.deployment.manager.send_user(_names(scenario)[-1], str(scenario.slowed_us).encode())
            bed.run(1.0)  # it is overloaded at first, if it was given so much
            limits = _limits(bed, scenario.seconds)
            part = bed.source("part2", NEW_FLOWS, int(0.6 * sum(limits)))
        bed.chain(part)
        bed.run(3.0)
        loads = [meters.load(host, 1.0) for host in bed.serving()]
        estimates = [meter.capacity_pps for h in bed.serving() if (meter := meters.of(h))]
    used = [100 * load.pps / limit for load, limit in zip(loads, limits, strict=True) if load]
    errors = [
        100 * abs(estimate / limit - 1)
        for estimate, limit in zip(estimates, limits, strict=True)
        if estimate
    ]
    return {
        "spread": max(used) - min(used),
        "ratio": max(limits) / min(limits),
        "estimate_error": max(errors),
    }


def _start(scenario: Scenario) -> dict[str, float]:
    """Time from the call of a launcher until the NF's first packet was sent, in milliseconds."""
    with running({}, []) as bed:
        bed.chain(bed.source("in", RUNNING_FLOWS, 20_000))
        begin = time.perf_counter()
        bed.launch(PASS, "pass-1", scenario.launcher)
        bed.until(lambda: bed.sent() > 0, "the first packet")
        return {"ms": (time.perf_counter() - begin) * 1000}


def _failure(number: signal.Signals) -> Callable[[Scenario], dict[str, float]]:
    def measure(scenario: Scenario) -> dict[str, float]:
        """One of two instances dies or stops: time to detection, and longest pause of traffic."""
        with running({}, _names(scenario)) as bed:
            near = bed.source("in", RUNNING_FLOWS, 2000)
            bed.chain(near)
            bed.run(1.5)
            victim = bed.serving()[0].pid
            last, longest = [time.perf_counter(), 0.0], [0.0]

            def look(now: float) -> bool:
                sent = bed.sent()
                if sent != last[1]:
                    last[:] = [now, sent]
                longest[0] = max(longest[0], now - last[0])
                return True

            watch = _Watch(look)
            bed.run(0.05)
            longest[0] = 0.0
            begin = time.perf_counter()
            os.kill(victim, number)
            bed.until(lambda: victim in bed.gone, "the failure is seen")
            bed.run(0.5)
            watch.finish()
        return {
            "seen_ms": (bed.gone[victim] - begin) * 1000,
            "gap_ms": longest[0] * 1000,
        }

    return measure


KINDS: dict[str, Callable[[Scenario], dict[str, float]]] = {
    "elastic_out": _out,
    "elastic_spread": _spread,
    "elastic_start": _start,
    "elastic_crash": _failure(signal.SIGKILL),
    "elastic_hang": _failure(signal.SIGSTOP),
}
