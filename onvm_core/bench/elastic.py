"""Scenarios of the suite "elastic": a manager that scales and heals by itself.

The NFs wait instead of computing, so that two cores carry several instances of any speed; what is
measured is how soon the manager sees a change, and where it sends the flows.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onvm_core._native import dataplane
from onvm_core._native.dataplane import DataplaneSettings
from onvm_core.bench.scenario import Scenario
from onvm_core.launch.launcher import DEFAULT_LAUNCHER, Launchers
from onvm_core.manager.automation import Automation
from onvm_core.manager.config import Config
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.directory import temporary_directory
from onvm_core.manager.extensions import Extensions
from onvm_core.manager.placement import DEFAULT_POLICY
from onvm_core.manager.placer import load_policy
from onvm_core.manager.registry import HostState, NfHost
from onvm_core.manager.sections import ScaleConfig
from onvm_core.manager.supervisor import Supervisor, WantedHost
from onvm_core.scaling.policy import UtilisationPolicy
from onvm_sdk.errors import OnvmError

__all__ = ["KINDS"]

WAIT = "onvm_core.bench.nfs:Wait"
SPIN = "onvm_core.bench.nfs:Spin"
PASS = "onvm_core.bench.nfs:Pass"
W2 = "onvm_core.bench.nfs:W2Kernel"
SERVICE = "w"
RING_LENGTH = 256
NEW_FLOWS = 1 << 20
"""So many that each packet is the first of a flow, as long as a scenario lasts."""
RUNNING_FLOWS = 200
FULL_BURST = 64
"""Packets that `Spin` takes at once."""
ESTIMATE_LOAD = 0.4
"""Of the limit: the load at which the limit is estimated."""
WAIT_MAX_S = 20.0


class _Bed:
    """What `onvm up` is made of, without its sockets for commands."""

    def __init__(
        self, directory: Path, scale: dict[str, ScaleConfig], instances: Sequence[str], nf: str
    ) -> None:
        settings = DataplaneSettings(ring_length=RING_LENGTH, n_buffers=4096, flow_capacity=1 << 21)
        self.deployment = Deployment(
            directory, settings, kinds={}, package=lambda name: None, launchers=Launchers(),
            placement=load_policy(DEFAULT_POLICY),
        )  # fmt: skip
        self.supervisor = Supervisor(directory, self.deployment, lambda event: None)
        policies = {name: UtilisationPolicy(one.settings()) for name, one in scale.items()}
        self.automation = Automation(
            "bench", self.deployment, self.supervisor, Config(scale=scale),
            Extensions(policies=dict(policies)), lambda event: None,
        )  # fmt: skip
        self.deployment.on_host_change = self._on_host_change
        self.gone: dict[int, float] = {}
        for name in instances:
            self.launch(nf, name)
        self.until(lambda: len(self.serving()) == len(instances), "NFs serve")
        self.far = dataplane.open_null("out", is_source=False)

    def launch(self, nf: str, name: str, launcher: str = DEFAULT_LAUNCHER) -> None:
        self.supervisor.run(WantedHost.make((nf,), (SERVICE,), (name,), {}, launcher=launcher))

    def close(self) -> None:
        self.automation.close()
        self.supervisor.stop_all()
        self.deployment.close()

    def _on_host_change(self, host: NfHost) -> None:
        if host.state is HostState.DEAD:
            self.gone[host.pid] = time.perf_counter()
        self.automation.on_host_change(host)

    def turn(self) -> None:
        """As `Service.run` does."""
        self.deployment.poll(self.automation.poll_s)
        self.supervisor.turn()
        self.automation.turn()

    def run(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.turn()

    def until(self, is_true: Callable[[], bool], what: str) -> None:
        deadline = time.perf_counter() + WAIT_MAX_S
        while not is_true():
            self.turn()
            if time.perf_counter() > deadline:
                raise OnvmError(f"{what}: not within {WAIT_MAX_S:g} s")

    def serving(self) -> list[NfHost]:
        return self.supervisor.serving(SERVICE)

    def source(self, name: str, flows: int, rate_pps: int) -> int:
        return dataplane.open_null(name, n_flows=flows, rate_pps=rate_pps)

    def chain(self, near: int, services: Sequence[str] = (SERVICE,)) -> None:
        self.deployment.manager.set_chain(1, near, self.far, services)

    def sent_pps(self, seconds: float) -> float:
        """Packets that leave in a second, over so many seconds by the wall clock."""
        count, begin = dataplane.read_port(self.far).tx, time.perf_counter()
        self.run(seconds)
        return (dataplane.read_port(self.far).tx - count) / (time.perf_counter() - begin)


@contextmanager
def _bed(scale: dict[str, ScaleConfig], instances: Sequence[str], nf: str = WAIT) -> Iterator[_Bed]:
    with temporary_directory() as directory:
        bed = _Bed(Path(directory), scale, instances, nf)
        try:
            yield bed
        finally:
            bed.close()


class _Watch(threading.Thread):
    """Looks every millisecond, whatever the manager does."""

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
    """From a load step until a new instance has its first packet."""
    scale = {SERVICE: ScaleConfig(max=2, spares=scenario.spares)}
    with _bed(scale, ["300us-1"]) as bed:
        old = bed.serving()[0].slot
        calm = bed.source("calm", RUNNING_FLOWS, 500)
        bed.chain(calm)
        bed.run(2.0)  # and the spare stands by
        before = _places()
        steep = bed.source("steep", NEW_FLOWS, 6000)
        first: list[float] = []

        def look(now: float) -> bool:
            slots = [host.slot for host in bed.serving() if host.slot != old]
            if any(dataplane.read_load(slot).packets for slot in slots):
                first.append(now)
            return not first

        # The calm flows go on through a chain of their own.
        far = dataplane.open_null("out2", is_source=False)
        watch = _Watch(look)
        # Loads do not rise just after the manager has looked.
        time.sleep(random.random() * bed.automation.poll_s)
        begin, wall = time.perf_counter(), time.time()
        bed.deployment.manager.set_chain(2, steep, far, [SERVICE])
        bed.until(lambda: bool(first), "a new instance has packets")
        watch.finish()
        bed.run(1.0)
        after = _places()
        decision = bed.automation.scaling.decisions()[0]
    moved = sum(after.get(flow, hosts) != hosts for flow, hosts in before.items())
    return {
        "serving_ms": (first[0] - begin) * 1000,
        "decided_ms": (decision.time - wall) * 1000,
        "moved": moved,
        "running": len(before),
    }


def _places() -> dict[tuple[object, ...], tuple[int, ...]]:
    """Hosts of each flow of the first chain."""
    return {
        (flow.src, flow.src_port, flow.dst, flow.dst_port, flow.is_reverse): flow.hosts
        for flow in dataplane.read_flows(1 << 16)
        if flow.chain == 1
    }


def _names(scenario: Scenario) -> list[str]:
    return [f"{wait_us}us-{number}" for number, wait_us in enumerate(scenario.waits_us, 1)]


def _limits(bed: _Bed, seconds: float) -> list[float]:
    """Packets per second that each instance does when there are always more."""
    bed.chain(bed.source(f"flood{time.perf_counter_ns()}", NEW_FLOWS, 20_000))
    bed.run(1.5)
    counts = [dataplane.read_load(host.slot).done for host in bed.serving()]
    begin = time.perf_counter()
    bed.run(seconds)
    elapsed = time.perf_counter() - begin
    return [
        (dataplane.read_load(host.slot).done - count) / elapsed
        for host, count in zip(bed.serving(), counts, strict=True)
    ]


def _spread(scenario: Scenario) -> dict[str, float]:
    """Utilisation of instances of unequal speed, and how far their capacity is misjudged."""
    with _bed({}, _names(scenario)) as bed:
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


def _estimate(scenario: Scenario) -> dict[str, float]:
    """How far the capacity of NFs that compute is misjudged, at a load of `ESTIMATE_LOAD`.

    The limit is what leaves through the port in a time by the wall clock while the source always
    has more. It knows nothing of the counters that the estimate is made of. It is that of the NF
    host only while this is slower than the worker: quick NFs are fused, `fused` of them, so that a
    packet costs each of them what is asked and the host enough.
    """
    with _bed({}, []) as bed:
        services = (SERVICE,) * scenario.fused
        names = tuple(f"{scenario.cycles}cy-{number}" for number, _ in enumerate(services, 1))
        bed.supervisor.run(WantedHost.make((SPIN,) * scenario.fused, services, names, {}))
        bed.until(lambda: len(bed.serving()) == 1, "the NFs serve")
        meters, host = bed.deployment.manager.meters, bed.serving()[0]
        bed.chain(bed.source("flood", RUNNING_FLOWS, 0), services)
        bed.run(1.0)
        before, limit = dataplane.read_load(host.slot), bed.sent_pps(scenario.seconds)
        after = dataplane.read_load(host.slot)
        is_full = after.turns.packets - before.turns.packets >= 0.9 * FULL_BURST * (
            after.turns.turns - before.turns.turns
        )
        full = meters.load(host, 1.0)
        bed.chain(bed.source("some", RUNNING_FLOWS, int(ESTIMATE_LOAD * limit)), services)
        bed.run(0.5)
        meters.forget(host)  # it is to judge by this load alone
        bed.run(scenario.seconds)
        meter = meters.of(host)
        estimate = None if meter is None else meter.capacity_pps
    if estimate is None or full is None:
        raise OnvmError("no load was measured")
    if not is_full:
        raise OnvmError("the worker is slower than the NF host, whose limit so cannot be measured")
    return {
        "error": 100 * abs(estimate / limit - 1),
        "limit_mpps": limit / 1e6,
        "full_percent": 100 * full.utilisation,
    }


def _start(scenario: Scenario) -> dict[str, float]:
    """From the call of a launcher until the NF's first packet has left, in milliseconds."""
    with _bed({}, []) as bed:
        bed.chain(bed.source("in", RUNNING_FLOWS, 20_000))
        begin = time.perf_counter()
        bed.launch(PASS, "pass-1", scenario.launcher)
        bed.until(lambda: dataplane.read_port(bed.far).tx > 0, "the first packet")
        return {"ms": (time.perf_counter() - begin) * 1000}


def _through(scenario: Scenario) -> dict[str, float]:
    """Packets per second through a compiled NF, in millions."""
    with _bed({}, []) as bed:
        bed.launch(W2, "w2-1", scenario.launcher)
        bed.until(lambda: len(bed.serving()) == 1, "the NF serves")
        bed.chain(bed.source("in", 0, 0))
        bed.run(0.5)
        return {"mpps": bed.sent_pps(scenario.seconds) / 1e6}


def _failure(number: signal.Signals) -> Callable[[Scenario], dict[str, float]]:
    def measure(scenario: Scenario) -> dict[str, float]:
        """One of two instances dies or stops: until it is seen, and traffic's longest pause."""
        with _bed({}, _names(scenario)) as bed:
            near = bed.source("in", RUNNING_FLOWS, 2000)
            bed.chain(near)
            bed.run(1.5)
            victim = bed.serving()[0].pid
            last, longest = [time.perf_counter(), 0.0], [0.0]

            def look(now: float) -> bool:
                sent = dataplane.read_port(bed.far).tx
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
    "elastic_estimate": _estimate,
    "elastic_start": _start,
    "elastic_through": _through,
    "elastic_crash": _failure(signal.SIGKILL),
    "elastic_hang": _failure(signal.SIGSTOP),
}
