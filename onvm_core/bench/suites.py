"""The suites: which scenarios they run and which figures they give."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import msgspec

from onvm_core.bench.bench_nf import measure_wakeups
from onvm_core.bench.cluster import FIGURES as CLUSTER_FIGURES
from onvm_core.bench.images import images
from onvm_core.bench.line import BenchLine
from onvm_core.bench.ndr.suite import ndr
from onvm_core.bench.plugins import FLOWS, PLUGINS
from onvm_core.bench.restart import N_ENDED, WITH_TABLES, installed_nf
from onvm_core.bench.scenario import Scenario, run_scenario
from onvm_core.bench.wire.suite import wire
from onvm_core.cluster.dev.dev_cluster import check_machine
from onvm_core.launch.launcher import Launchers
from onvm_core.manager.startup.environment import split_cpus
from onvm_sdk.errors import ConfigError, OnvmError
from onvm_sdk.spelling import one_of

__all__ = ["SUITES", "run_suite"]

Suite = Callable[[int, float], Iterator[BenchLine]]
_CHAIN_LENGTHS = (1, 2, 3, 5)
SPREADS = (("2", [300, 650], 0), ("10", [150, 2900], 0), ("slowed", [300, 300], 1000))
"""Unequal instances: name, microseconds for a packet of each, and of the last one in the end."""


ESTIMATED = ((100, 8), (500, 2), (2000, 1), (5000, 1))
"""Cycles that an NF takes for a packet, and so many of them fused that they are slower than the
worker."""
PAIRS_MIN = 7
PAIR_S = 3.0


def _repeat(scenario: Scenario, runs: int) -> list[dict[str, float]]:
    return [run_scenario(scenario) for _ in range(runs)]


def _column(figures: list[dict[str, float]], name: str) -> list[float]:
    return [figure[name] for figure in figures]


def _throughputs(scenarios: dict[str, Scenario], runs: int) -> Iterator[BenchLine]:
    """Run all scenarios in turn, so fast and slow spells of the machine affect all alike."""
    figures: dict[str, list[float]] = {name: [] for name in scenarios}
    for _ in range(runs):
        for name, scenario in scenarios.items():
            figures[name].append(run_scenario(scenario)["mpps"])
    for name, column in figures.items():
        yield BenchLine.of(name, "Mpps", column)


def _pairs(name: str, scenario: Scenario, runs: int) -> Iterator[BenchLine]:
    """Ratios of the second side to the first."""
    figures = _repeat(scenario, max(runs, PAIRS_MIN))
    yield BenchLine.of(name, "ratio", _column(figures, "ratio"))


def hop_scenario(way: str, seconds: float = 1.0) -> Scenario:
    """One hop: port, manager, NF, manager, port. `way` is none, c, kernel, packets, columns.N."""
    way, _, burst = way.partition(".")
    if way == "none":
        return Scenario(hosts=[], seconds=seconds, is_busy=True)
    n_burst = int(burst or 64)
    return Scenario(
        way=way,
        hosts=[["w"]],
        burst=n_burst,
        # A burst is taken whole: the ring must hold the one in work and the next.
        ring_length=max(1024, n_burst * 2),
        is_busy=True,
        seconds=seconds,
        warmup_s=1.0 if way in ("kernel", "columns") else 0.5,
    )


def chain_scenario(form: str, length: int, seconds: float = 1.0) -> Scenario:
    """A chain of `length` NFs; `form` is fused (one process) or processes (on one core)."""
    services = [f"w{i}" for i in range(length)]
    if form == "fused":
        return Scenario(hosts=[services if length > 1 else ["w"]], is_busy=True, seconds=seconds)
    return Scenario(hosts=[[service] for service in services], seconds=seconds)


def _hop(runs: int, seconds: float) -> Iterator[BenchLine]:
    ways = ("none", "c", "kernel", "columns.256", "columns.1024", "columns.2048", "packets")
    scenarios = {f"hop.{way}": hop_scenario(way, seconds) for way in ways}
    yield from _throughputs(scenarios, runs)
    pair = Scenario(
        kind="pair", ways=["c", "kernel"], hosts=[["c"], ["kernel"]], seconds=max(seconds, PAIR_S)
    )
    yield from _pairs("hop.kernel.to_c", pair, runs)


def _chain(runs: int, seconds: float) -> Iterator[BenchLine]:
    for form in ("fused", "processes"):
        names = {length: f"chain.{form}.{length}" for length in _CHAIN_LENGTHS}
        scenarios = {names[n]: chain_scenario(form, n, seconds) for n in _CHAIN_LENGTHS}
        yield from _throughputs(scenarios, runs)
    hosts = [["one"], [f"w{number}" for number in range(5)]]
    pair = Scenario(kind="pair", ways=["c", "c"], hosts=hosts, seconds=max(seconds, PAIR_S))
    yield from _pairs("chain.fused.5.to_1", pair, runs)


def plugins_scenario(form: str, seconds: float) -> Scenario:
    """Firewall, NAT and load balancer; form is fused (one process) or processes (on one core)."""
    is_fused = form == "fused"
    return Scenario(
        way="plugins",
        hosts=[list(PLUGINS)] if is_fused else [[name] for name in PLUGINS],
        burst=32,
        is_busy=is_fused,
        flows=FLOWS,
        track_flows=True,
        flow_capacity=1 << 18,
        warmup_s=2.0,
        seconds=seconds,
    )


def _chain_of_plugins(runs: int, seconds: float) -> Iterator[BenchLine]:
    missing = [name for name in PLUGINS if importlib.util.find_spec(f"onvm_nf_{name}") is None]
    if missing:
        names = ", ".join(f"onvm-nf-{name}" for name in missing)
        print(f"not measured: chain --plugins: not installed: {names}", file=sys.stderr)
        return
    scenarios = {
        f"chain.plugins.{form}": plugins_scenario(form, seconds) for form in ("fused", "processes")
    }
    yield from _throughputs(scenarios, runs)


def _handlers(runs: int, seconds: float) -> Iterator[BenchLine]:
    ways = ("c", "kernel", "columns.1024", "packets")
    yield from _throughputs({f"hop.{way}": hop_scenario(way, seconds) for way in ways}, runs)


def _steering(runs: int, seconds: float) -> Iterator[BenchLine]:
    scenarios = {
        f"steering.{name}": Scenario(
            hosts=[["w"]],
            instances=2,
            flows=flows,
            track_flows=True,
            warmup_s=3.0 if flows > 1 << 16 else 0.5,
            seconds=seconds,
        )
        for name, flows in (("1", 1), ("64k", 1 << 16), ("1m", 1_000_000))
    }
    yield from _throughputs(scenarios, runs)
    scenario = Scenario(
        kind="new_flows",
        hosts=[["w"]],
        instances=2,
        flows=1_500_000,
        count=1_500_000,
        track_flows=True,
        is_bidirectional=True,
        flow_capacity=1 << 21,
    )
    figures = _repeat(scenario, runs)
    if min(_column(figures, "learned_share")) < 1.0:
        raise ConfigError("expected the reverse of every flow to be learned", field="steering.new")
    yield BenchLine.of("steering.new", "flows/s", _column(figures, "flows_per_s"))


def _startup(runs: int, seconds: float) -> Iterator[BenchLine]:
    del seconds
    for way in ("c", "python", "columns", "kernel"):
        scenario = Scenario(kind="startup", way=way, hosts=[["w"]], rate_pps=20_000)
        if way == "kernel":
            run_scenario(scenario)  # the first start compiles
        figures = _repeat(scenario, max(runs, 5))
        yield BenchLine.of(f"startup.{way}", "ms", _column(figures, "ms"))
        yield BenchLine.of(f"startup.{way}.rss", "MiB", _column(figures, "nf_rss_mib"))
    yield BenchLine.of("startup.manager.rss", "MiB", _column(figures, "manager_rss_mib"))


def _latency(runs: int, seconds: float) -> Iterator[BenchLine]:
    for policy in ("busy", "adaptive"):
        scenario = Scenario(
            kind="latency",
            hosts=[["w"]],
            rate_pps=10_000,
            is_busy=policy == "busy",
            seconds=max(seconds, 2.0),
        )
        figures = _repeat(scenario, runs)
        yield BenchLine.of(f"latency.{policy}", "us", _column(figures, "p50_us"))
        yield BenchLine.of(f"latency.{policy}.p99", "us", _column(figures, "p99_us"))
        yield BenchLine.of(f"latency.{policy}.cpu", "% of a core", _column(figures, "cpu_percent"))
    # What sleeping and waking cost on this machine, without packets: what any adaptive policy pays.
    workers, nfs = split_cpus(1)
    for name, cpus in (("wakeups", (workers[0], nfs[0])), ("sleeps", (workers[0],))):
        bare = [measure_wakeups(10_000, max(seconds, 2.0), cpus) for _ in range(runs)]
        if name == "wakeups":
            yield BenchLine.of("latency.wakeups", "us", [one[1] for one in bare])
        yield BenchLine.of(f"latency.{name}.cpu", "% of a core", [one[0] for one in bare])


def _crash(runs: int, seconds: float) -> Iterator[BenchLine]:
    del runs, seconds
    figures = run_scenario(Scenario(kind="crash", rate_pps=500_000))
    yield BenchLine.of("crash.lost", "buffers", [figures["lost"]])
    yield BenchLine.of("crash.gap", "ms", [figures["gap_ms"]])
    yield BenchLine.of("crash.restart", "ms", [figures["restart_p50_ms"]])
    yield BenchLine.of("crash.restart.max", "ms", [figures["restart_max_ms"]])


def _elastic(runs: int, seconds: float) -> Iterator[BenchLine]:
    for name, standby in (("launch", 0), ("spare", 1)):
        figures = _repeat(Scenario(kind="elastic_out", standby=standby), runs)
        yield BenchLine.of(f"elastic.out.{name}", "ms", _column(figures, "serving_ms"))
        yield BenchLine.of(f"elastic.out.{name}.decided", "ms", _column(figures, "decided_ms"))
        yield BenchLine.of(f"elastic.out.{name}.moved", "flows", _column(figures, "moved"))
    for ratio, waits, slowed in SPREADS:
        scenario = Scenario(
            kind="elastic_spread", waits_us=waits, slowed_us=slowed, seconds=max(seconds, 2.0)
        )
        figures = _repeat(scenario, runs)
        yield BenchLine.of(f"elastic.spread.{ratio}", "points", _column(figures, "spread"))
        yield BenchLine.of(f"elastic.spread.{ratio}.speed", "ratio", _column(figures, "ratio"))
        errors = _column(figures, "estimate_error")
        yield BenchLine.of(f"elastic.spread.{ratio}.estimate", "% off", errors)
    for cycles, fused in ESTIMATED:
        scenario = Scenario(
            kind="elastic_estimate", cycles=cycles, fused=fused, seconds=max(seconds, 2.0)
        )
        figures = _repeat(scenario, runs)
        yield BenchLine.of(f"elastic.estimate.{cycles}", "% off", _column(figures, "error"))
        yield BenchLine.of(
            f"elastic.estimate.{cycles}.limit", "Mpps", _column(figures, "limit_mpps")
        )
        yield BenchLine.of(f"elastic.estimate.{cycles}.util", "%", _column(figures, "full_percent"))
    yield from _launchers(runs, seconds)
    yield from _restart(runs)
    for name in ("crash", "hang"):
        figures = _repeat(Scenario(kind=f"elastic_{name}", waits_us=[150, 150]), runs)
        yield BenchLine.of(f"elastic.{name}.seen", "ms", _column(figures, "seen_ms"))
        yield BenchLine.of(f"elastic.{name}.gap", "ms", _column(figures, "gap_ms"))


def _cluster(runs: int, seconds: float) -> Iterator[BenchLine]:
    try:
        check_machine()
        if installed_nf() is None:
            raise ConfigError("expected an installed NF")
    except ConfigError as error:
        names = ", ".join(f"cluster.{name}" for name in CLUSTER_FIGURES)
        print(f"not measured: {names}: {error}", file=sys.stderr)
    else:
        figures = _repeat(Scenario(kind="cluster"), runs)
        for name in CLUSTER_FIGURES:
            yield BenchLine.of(f"cluster.{name}", "ms", _column(figures, name))
    yield from _remote(runs, seconds)


REMOTE_LINES = {
    "hop.local": Scenario(kind="remote_hop"),
    "hop.remote": Scenario(kind="remote_hop", is_remote=True),
    "link": Scenario(kind="remote_link", is_remote=True, is_bare=True),
    "link.none": Scenario(kind="remote_link", is_remote=True, is_bare=True, data_security="none"),
    "link.encrypt": Scenario(
        kind="remote_link", is_remote=True, is_bare=True, data_security="encrypt"
    ),
    "link.1400": Scenario(kind="remote_link", is_remote=True, is_bare=True, frame_bytes=1400),
    "rtt.local": Scenario(kind="remote_rtt"),
    "rtt.remote": Scenario(kind="remote_rtt", is_remote=True),
    "rtt.remote.bare": Scenario(kind="remote_rtt", is_remote=True, is_bare=True),
    "rtt.remote.busy": Scenario(kind="remote_rtt", is_remote=True, is_bare=True, is_busy=True),
}
"""Hops at a peer, and local ones to compare with. Links, the network between two hosts alone:
packets of 64 or 1,400 bytes that one worker sends and one receives, authenticated unless the name
says otherwise. The time to a server and back, over an NF or (bare) over the network alone."""


def _remote(runs: int, seconds: float) -> Iterator[BenchLine]:
    """A hop at a peer against a local one."""
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in REMOTE_LINES}
    for _ in range(runs):
        for name, scenario in REMOTE_LINES.items():
            timed = msgspec.structs.replace(scenario, seconds=max(seconds, 1.0))
            figures[name].append(run_scenario(timed))
    for name, scenario in REMOTE_LINES.items():
        if scenario.kind != "remote_rtt":
            yield BenchLine.of(f"cluster.{name}", "Mpps", _column(figures[name], "mpps"))
            if scenario.kind == "remote_link":
                yield BenchLine.of(f"cluster.{name}.gbps", "Gbit/s", _column(figures[name], "gbps"))
        else:
            yield BenchLine.of(f"cluster.{name}", "us", _column(figures[name], "p50_us"))
            yield BenchLine.of(f"cluster.{name}.p99", "us", _column(figures[name], "p99_us"))


def _launchers(runs: int, seconds: float) -> Iterator[BenchLine]:
    """Start time of an NF under each launcher that works here, and throughput against `process`.

    The ratio of `process` to another process shows the noise.
    """
    with images() as has_images:
        names = [
            name
            for name in usable_launchers()
            if (name != "container" or has_images) and _starts(name)
        ]
        starts: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(max(runs, 5)):
            for name in names:
                figures = run_scenario(Scenario(kind="elastic_start", launcher=name))
                starts[name].append(figures["ms"])
        for name, column in starts.items():
            yield BenchLine.of(f"elastic.start.{name}", "ms", column)
        for name in names:
            pair = Scenario(kind="elastic_through", launcher=name, seconds=max(seconds, PAIR_S))
            yield from _pairs(f"elastic.through.{name}", pair, runs)


def _starts(launcher: str) -> bool:
    """Return whether the launcher can start the benchmark's NFs; also compiles their kernel."""
    try:
        run_scenario(Scenario(kind="elastic_start", launcher=launcher))
        run_scenario(Scenario(kind="elastic_through", launcher=launcher, seconds=0.1))
    except OnvmError as error:
        print(f"not measured: launcher {launcher}: {error}", file=sys.stderr)
        return False
    return True


def usable_launchers() -> list[str]:
    """Launchers that work on this host; the reasons for others go to stderr."""
    launchers = Launchers()
    usable = []
    for name in launchers.names:
        try:
            launchers.get(name)
        except ConfigError as error:
            print(f"not measured: {error}", file=sys.stderr)
        else:
            usable.append(name)
    return usable


def _restart(runs: int) -> Iterator[BenchLine]:
    if installed_nf() is None:
        print("not measured: elastic.restart: no NF is installed", file=sys.stderr)
        return
    for kind in ("restart", "down_up"):
        figures = _repeat(Scenario(kind=f"elastic_{kind}"), runs)
        name, gaps = f"elastic.{kind}", _column(figures, "gap")
        eals = _column(figures, "beside.environment")
        beside = [gap - eal for gap, eal in zip(gaps, eals, strict=True)]
        yield BenchLine.of(name, "ms", gaps)
        yield BenchLine.of(f"{name}.eal", "ms", eals)
        yield BenchLine.of(f"{name}.without_eal", "ms", beside)
        # What the gap is made of, one after the other; EAL and tables are made meanwhile.
        for part in figures[0]:
            if part not in ("gap", "beside.environment"):
                short = part.rpartition(".")[2].replace(" ", "_")
                yield BenchLine.of(f"{name}.{short}", "ms", _column(figures, part))
    if installed_nf(WITH_TABLES) is not None:
        figures = _repeat(Scenario(kind="elastic_end"), runs)
        yield BenchLine.of(f"elastic.end.{N_ENDED}", "ms", _column(figures, "ms"))


def _plugin(name: str) -> Suite:
    """The suite of a plugin that measures itself, without a manager."""

    def measure(runs: int, seconds: float) -> Iterator[BenchLine]:
        package = f"onvm_nf_{name}"
        if importlib.util.find_spec(package) is None:
            print(f"not measured: {name}: onvm-nf-{name} is not installed", file=sys.stderr)
            return
        command = [sys.executable, "-P", "-m", f"{package}.bench", str(runs), str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                figure = json.loads(line)
                yield BenchLine.of(figure["name"], figure["unit"], figure["values"], cores=1)
        if process.returncode != 0:
            raise OnvmError(f"{name}: its benchmark ended with status {process.returncode}")

    return measure


SUITES: dict[str, Suite] = {
    "hop": _hop,
    "chain": _chain,
    "handlers": _handlers,
    "steering": _steering,
    "startup": _startup,
    "latency": _latency,
    "ndr": ndr,
    "crash": _crash,
    "elastic": _elastic,
    "cluster": _cluster,
    "router": _plugin("router"),
    "firewall": _plugin("firewall"),
    "nat": _plugin("nat"),
    "lb": _plugin("lb"),
    "wire": wire,
}


def run_suite(
    name: str,
    runs: int,
    seconds: float,
    *,
    plugins: bool = False,
    chain: Sequence[str] = PLUGINS,
) -> Iterator[BenchLine]:
    """Run a suite, and yield lines as they are measured.

    Args:
        plugins: the suite chain has firewall, NAT and load balancer in place of its own NFs.
        chain: NFs of the suite ndr.

    Raises:
        ConfigError: there is no such suite.
    """
    if name not in SUITES:
        raise ConfigError(f"expected {one_of(SUITES, name)}", field="SUITE", value=name)
    if plugins and name != "chain":
        raise ConfigError("expected it with the suite chain", field="--plugins", value=name)
    if name == "ndr":
        return ndr(runs, seconds, chain)
    return _chain_of_plugins(runs, seconds) if plugins else SUITES[name](runs, seconds)
