"""Scenarios that compare two figures, taken in turns in one process.

Virtual machines have a fast and a slow mode that differ by a factor of two and last from parts of a
second to minutes. So two figures taken one after the other may differ because the machine has
changed. Figures from neighbouring parts of a second do not, and the median of many such pairs even
less.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from onvm_core.bench.bed import SERVICE, Bed, running, sent_pps
from onvm_core.bench.bench_nf import start_nf
from onvm_core.bench.harness import await_hosts, end_all, manager_of, nf_cpu, pass_time
from onvm_core.bench.scenario import Scenario
from onvm_core.dataplane.values import NullPort
from onvm_core.launch.launcher import DEFAULT_LAUNCHER
from onvm_core.manager.nf_hosts.registry import NfHost
from onvm_core.manager.supervision.supervised import WantedHost
from onvm_sdk.errors import OnvmError

__all__ = ["KINDS", "TWIN"]

SPIN = "onvm_core.bench.nfs:Spin"
W2 = "onvm_core.bench.nfs:W2Kernel"
TWIN = "onvm_core.bench.nfs:W2Twin"
TWIN_SERVICE = "twin"
RUNNING_FLOWS = 200
FULL_BURST = 64
"""Packets that `Spin` takes at once."""
ESTIMATE_LOAD = 0.4
"""Load at which the limit is estimated, as a share of the limit."""
TURNS = 9
SETTLE_S = 0.15
"""Time after a change of the load until measurements cover only the new one."""
SLICE_S = 0.03
SLICE_SETTLE_S = 0.01
WARMUP_S = 0.5


def _estimate(scenario: Scenario) -> dict[str, float]:
    """Error of the estimated capacity of NFs that compute, at a load of `ESTIMATE_LOAD`.

    The limit is the number of packets that leave through the port per second of the wall clock
    under full load. It does not depend on the counters behind the estimate. It is the limit of the
    NF host only if the host is slower than the worker. Therefore `fused` quick NFs share a host: a
    packet then costs each NF the given cycles, and the host enough. Each estimate is compared with
    the limits just before and just after it.
    """
    part_s = scenario.seconds / TURNS
    with running({}, []) as bed:
        services = (SERVICE,) * scenario.fused
        names = tuple(f"{scenario.cycles}cy-{number}" for number, _ in enumerate(services, 1))
        bed.supervisor.run(WantedHost.make((SPIN,) * scenario.fused, services, names, {}))
        bed.until(lambda: len(bed.serving()) == 1, "the NFs serve")
        host = bed.serving()[0]
        flood = bed.source("flood", RUNNING_FLOWS, 0)
        bed.chain(flood, services)
        bed.run(1.0)
        some = bed.source("some", RUNNING_FLOWS, int(ESTIMATE_LOAD * bed.sent_pps(0.5)))
        full = [_limit(bed, host, flood, services, part_s)]
        ratios = []
        for _ in range(TURNS):
            estimate = _estimated(bed, host, some, services, part_s)
            full.append(_limit(bed, host, flood, services, part_s))
            ratios.append(2 * estimate / (full[-2][0] + full[-1][0]))
    limits, utilisations = zip(*full, strict=True)
    return {
        "error": 100 * abs(statistics.median(ratios) - 1),
        "limit_mpps": statistics.median(limits) / 1e6,
        "full_percent": 100 * statistics.median(utilisations),
    }


def _limit(
    bed: Bed, host: NfHost, near: int, services: Sequence[str], seconds: float
) -> tuple[float, float]:
    """Packets per second that leave under full load, and the utilisation then."""
    bed.chain(near, services)
    bed.run(SETTLE_S)
    before = bed.plane.read_load(host.slot).turns
    sent = bed.sent_pps(seconds)
    after = bed.plane.read_load(host.slot).turns
    load = bed.deployment.manager.meters.load(host, seconds)
    if after.packets - before.packets < 0.9 * FULL_BURST * (after.turns - before.turns):
        raise OnvmError("the worker is slower than the NF host, whose limit cannot be measured so")
    return sent, 0.0 if load is None else load.utilisation


def _estimated(bed: Bed, host: NfHost, near: int, services: Sequence[str], seconds: float) -> float:
    """The manager's estimate of the capacity from this load alone, in packets per second."""
    bed.chain(near, services)
    bed.run(SETTLE_S)
    bed.deployment.manager.meters.forget(host)
    bed.run(max(seconds, SETTLE_S))
    meter = bed.deployment.manager.meters.of(host)
    if meter is None or meter.capacity_pps is None:
        raise OnvmError("no load was measured")
    return meter.capacity_pps


def _through(scenario: Scenario) -> dict[str, float]:
    """Packets per second through a compiled NF of a launcher, against one in another process."""
    services = (SERVICE, TWIN_SERVICE)
    with running({}, []) as bed:
        bed.launch(W2, "w-1", DEFAULT_LAUNCHER, SERVICE)
        bed.launch(TWIN, "twin-1", scenario.launcher, TWIN_SERVICE)
        bed.until(lambda: all(bed.serving(service) for service in services), "the NFs serve")
        near = bed.source("in", 0, 0)
        return _compare(
            lambda side: bed.chain(near, (services[side],)), bed.run, bed.sent, scenario.seconds
        )


def _pair(scenario: Scenario) -> dict[str, float]:
    """Packets per second through the second of two NF hosts, against the first."""
    with manager_of(scenario) as manager:
        processes = [
            start_nf(way, manager.attach_path, services, scenario.burst, nf_cpu())
            for way, services in zip(scenario.ways, scenario.hosts, strict=True)
        ]
        await_hosts(manager, len(processes))
        near = manager.plane.open_port("in", NullPort())
        far = manager.plane.open_port("out", NullPort(is_source=False))
        figures = _compare(
            lambda side: manager.set_chain(1, near, far, scenario.hosts[side]),
            lambda seconds: pass_time(manager, seconds),
            lambda: manager.plane.read_port(far).tx,
            scenario.seconds,
        )
        end_all(processes)
    return figures


def _compare(
    use: Callable[[int], None],
    run: Callable[[float], None],
    sent: Callable[[], int],
    seconds: float,
) -> dict[str, float]:
    """Give the packets to two sides in turns, while the other side sleeps.

    Args:
        use: directs the packets to side 0 or 1.
        run: lets time pass, in seconds.
        sent: returns the number of packets sent so far.
        seconds: length of the measurement.
    """
    ratios: list[float] = []
    rates: list[float] = []
    for side in (0, 1):
        use(side)
        run(WARMUP_S)
    for _ in range(max(int(seconds / (4 * SLICE_S)), 1)):
        turn = [0.0, 0.0]
        # There and back: a machine that becomes slower meanwhile affects both alike.
        for side in (0, 1, 1, 0):
            use(side)
            run(SLICE_SETTLE_S)
            turn[side] += sent_pps(sent, run, SLICE_S)
        ratios.append(turn[1] / turn[0])
        rates.append(turn[1] / 2)
    return {"ratio": statistics.median(ratios), "mpps": statistics.median(rates) / 1e6}


KINDS: dict[str, Callable[[Scenario], dict[str, float]]] = {
    "elastic_estimate": _estimate,
    "elastic_through": _through,
    "pair": _pair,
}
