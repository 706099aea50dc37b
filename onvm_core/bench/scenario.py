"""One measurement in a process of its own: ``python -m onvm_core.bench.scenario JSON``."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from onvm_core.bench.bench_nf import start_nf
from onvm_core.dataplane.interface import PortPlane
from onvm_core.dataplane.values import DataplaneSettings, NullPort
from onvm_core.manager.api.directory import temporary_directory
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_core.manager.reporting import cpu_seconds, latency_of
from onvm_core.manager.startup.environment import split_cpus
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = [
    "Scenario",
    "await_hosts",
    "end_all",
    "manager_of",
    "nf_cpu",
    "pass_time",
    "run_scenario",
]

READY_TIMEOUT_S = 60.0
POLL_S = 0.02


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured.

    `hosts` lists the NF hosts, each with the services that it runs fused; the chain is their
    services in order, or just the first host's when `instances` is above 1.
    """

    kind: str = "throughput"
    """throughput, startup, latency, new_flows, crash, or one of `elastic`, `turns`, `remote`,
    `restart` or `cluster`."""
    way: str = "c"
    hosts: list[list[str]] = []
    instances: int = 1
    burst: int = 64
    is_busy: bool = False
    flows: int = 0
    track_flows: bool = False
    is_bidirectional: bool = False
    ring_length: int = 1024
    n_buffers: int = 8192
    flow_capacity: int = 1 << 20
    rate_pps: int = 0
    count: int = 0
    warmup_s: float = 0.5
    seconds: float = 1.0
    kills: int = 200
    standby: int = 0
    ways: list[str] = []
    """For the scenario pair: that of each of the two NF hosts."""
    launcher: str = "process"
    """For elastic_start and elastic_through."""
    waits_us: list[int] = []
    """For elastic scenarios: the time for a packet, of each instance."""
    slowed_us: int = 0
    """For elastic_spread: what the last one takes from half-way on; 0: as before."""
    cycles: int = 100
    """For the scenario elastic_estimate: what a packet costs each NF."""
    fused: int = 1
    """For the scenario elastic_estimate: NFs of the host."""
    is_remote: bool = False
    """For remote scenarios: the NF is at a peer."""


def run_scenario(scenario: Scenario) -> dict[str, float]:
    """Measure in a new process; the figures by name.

    Raises:
        OnvmError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "onvm_core.bench.scenario"],
        input=msgspec.json.encode(scenario),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise OnvmError(f"benchmark scenario ended with status {done.returncode}")
    return msgspec.json.decode(done.stdout, type=dict[str, float])


@contextmanager
def manager_of(scenario: Scenario) -> Iterator[Manager]:
    """A manager as the scenario wants it, for a while."""
    workers, _ = split_cpus(1)
    settings = DataplaneSettings(
        idle_policy=1 if scenario.is_busy else 0,
        ring_length=scenario.ring_length,
        n_buffers=scenario.n_buffers,
        flow_capacity=scenario.flow_capacity,
        sample_every=1 if scenario.kind == "latency" else 64,
    )
    with (
        temporary_directory() as directory,
        Manager(Path(directory), settings, workers) as manager,
    ):
        yield manager


def nf_cpu() -> int:
    """The core that is for NFs."""
    return split_cpus(1)[1][0]


def _wait(manager: Manager, is_done: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_done():
        manager.poll(POLL_S / 10)
        if time.monotonic() > deadline:
            raise OnvmError(f"{what}: not within {timeout_s:g} s")


def _active(manager: Manager) -> int:
    return sum(host.state is HostState.ACTIVE for host in manager.registry.living())


def pass_time(manager: Manager, seconds: float) -> None:
    """Let the manager do its work for so long."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        manager.poll(min(left, POLL_S * 5))


def _start(manager: Manager, scenario: Scenario) -> list[subprocess.Popen[bytes]]:
    hosts = [services for services in scenario.hosts for _ in range(scenario.instances)]
    processes = [
        start_nf(scenario.way, manager.attach_path, services, scenario.burst, nf_cpu())
        for services in hosts
    ]
    await_hosts(manager, len(hosts))
    return processes


def await_hosts(manager: Manager, count: int) -> None:
    """Poll until so many NF hosts serve."""
    _wait(manager, lambda: _active(manager) == count, READY_TIMEOUT_S, "NFs ready")


def _chain(scenario: Scenario) -> list[str]:
    return [service for services in scenario.hosts for service in services]


def _set_up(manager: Manager, scenario: Scenario) -> tuple[int, int]:
    source = NullPort(
        n_flows=scenario.flows,
        is_random=scenario.kind == "throughput",
        rate_pps=scenario.rate_pps,
        count=scenario.count,
    )
    near = manager.plane.open_port("in", source)
    far = manager.plane.open_port("out", NullPort(is_source=False))
    manager.set_chain(
        1,
        near,
        far,
        _chain(scenario),
        is_bidirectional=scenario.is_bidirectional,
        track_flows=scenario.track_flows,
    )
    return near, far


def _throughput(scenario: Scenario) -> dict[str, float]:
    with manager_of(scenario) as manager:
        processes = _start(manager, scenario)
        near, far = _set_up(manager, scenario)
        pass_time(manager, scenario.warmup_s)
        before, sent = manager.plane.read_port(near).rx, manager.plane.read_port(far).tx
        begin = time.perf_counter()
        pass_time(manager, scenario.seconds)
        received = manager.plane.read_port(near).rx - before
        sent = manager.plane.read_port(far).tx - sent
        elapsed = time.perf_counter() - begin
        flows = manager.plane.read_plane().flows
        end_all(processes)
    return {"mpps": received / elapsed / 1e6, "tx_share": sent / max(received, 1), "flows": flows}


def _new_flows(scenario: Scenario) -> dict[str, float]:
    with manager_of(scenario) as manager:
        processes = _start(manager, scenario)
        begin = time.perf_counter()
        near, _ = _set_up(manager, scenario)
        while not manager.plane.read_port(near).is_finished:
            manager.poll(0.002)
        elapsed = time.perf_counter() - begin
        pass_time(manager, 0.1)
        plane = manager.plane.read_plane()
        end_all(processes)
    return {
        "flows_per_s": plane.new_flows / elapsed,
        "learned_share": plane.learned_flows / max(plane.new_flows, 1),
    }


def _startup(scenario: Scenario) -> dict[str, float]:
    with manager_of(scenario) as manager:
        _, far = _set_up(manager, scenario)
        begin = time.perf_counter()
        process = start_nf(
            scenario.way, manager.attach_path, scenario.hosts[0], scenario.burst, nf_cpu()
        )
        while manager.plane.read_port(far).tx == 0:
            manager.poll(0.0002)
            if process.poll() is not None or time.perf_counter() - begin > READY_TIMEOUT_S:
                raise OnvmError("the NF did not start")
        elapsed = time.perf_counter() - begin
        pass_time(manager, 0.05)
        rss = _rss_mib(process.pid)
        own = _rss_mib("self")
        end_all([process])
    return {"ms": elapsed * 1000, "nf_rss_mib": rss, "manager_rss_mib": own}


def _rss_mib(pid: int | str) -> float:
    """Memory of a process but for what it shares with others (packet memory, rings)."""
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    rss, shared_files = int(fields[1]), 0
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssShmem:"):
            shared_files = int(line.split()[1]) * 1024
    return (rss * 4096 - shared_files) / (1 << 20)


def _latency(scenario: Scenario) -> dict[str, float]:
    with manager_of(scenario) as manager:
        processes = _start(manager, scenario)
        _, far = _set_up(manager, scenario)
        pass_time(manager, scenario.warmup_s)
        before = manager.plane.read_port(far).latency
        cpu = -_cpu_ns(manager, processes)
        begin = time.perf_counter()
        pass_time(manager, scenario.seconds)
        elapsed = time.perf_counter() - begin
        cpu += _cpu_ns(manager, processes)
        after = manager.plane.read_port(far).latency
        end_all(processes)
    histogram = [now - then for now, then in zip(after, before, strict=True)]
    latency = latency_of(manager.plane, histogram)
    return {
        "p50_us": latency.p50_us or 0.0,
        "p99_us": latency.p99_us or 0.0,
        "cpu_percent": cpu / elapsed / 1e7,
    }


def _cpu_ns(manager: Manager, processes: Sequence[subprocess.Popen[bytes]]) -> float:
    """CPU time of the worker and the NFs."""
    used = sum(_process_cpu_ns(process.pid) for process in processes)
    return manager.plane.worker_cpu_ns(0) + used


def _process_cpu_ns(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return float(file.read().split()[0])
    except OSError:
        return cpu_seconds(pid) * 1e9


class _Watch(threading.Thread):
    """Watches a port's counter and keeps the longest time without progress."""

    def __init__(self, plane: PortPlane, port: int) -> None:
        super().__init__(daemon=True)
        self._plane = plane
        self._port = port
        self._is_over = threading.Event()
        self.longest_s = 0.0

    def run(self) -> None:
        """Look about every millisecond."""
        seen, since = 0, time.perf_counter()
        while not self._is_over.wait(0.001):
            now, count = time.perf_counter(), self._plane.read_port(self._port).tx
            if count != seen:
                seen, since = count, now
            self.longest_s = max(self.longest_s, now - since)

    def finish(self) -> float:
        """Stop; the longest gap in seconds."""
        self._is_over.set()
        self.join()
        return self.longest_s


def _crash(scenario: Scenario) -> dict[str, float]:
    """Kill one chain's NF again and again while another chain carries traffic."""
    with manager_of(scenario) as manager:
        ports = []
        for number, service in enumerate(("victim", "other"), 1):
            near = manager.plane.open_port(f"in-{service}", NullPort(rate_pps=scenario.rate_pps))
            far = manager.plane.open_port(f"out-{service}", NullPort(is_source=False))
            manager.set_chain(
                number, near, far, [service], is_bidirectional=False, track_flows=False
            )
            ports.append(far)
        other = start_nf("c", manager.attach_path, ["other"], scenario.burst, nf_cpu())
        _wait(manager, lambda: manager.plane.read_port(ports[1]).tx > 0, 10, "traffic of the other")
        watch = _Watch(manager.plane, ports[1])
        watch.start()
        restarts = [_kill_once(manager, ports[0], scenario) for _ in range(scenario.kills)]
        gap = watch.finish()
        manager.plane.pause_sources(True)
        pass_time(manager, 0.3)
        end_all([other])
        _wait(manager, lambda: _active(manager) == 0, 5, "the other NF gone")
        plane = manager.plane.read_plane()
    restarts.sort()
    return {
        "lost": plane.buffers_total - plane.buffers_free,
        "gap_ms": gap * 1000,
        "restart_p50_ms": restarts[len(restarts) // 2] * 1000,
        "restart_max_ms": restarts[-1] * 1000,
        "n_died": float(plane.drops["nf_died"]),
    }


def _kill_once(manager: Manager, port: int, scenario: Scenario) -> float:
    """Start the victim, wait for its traffic, kill it under load; start to first packet, in s."""
    sent = manager.plane.read_port(port).tx
    gone: list[NfHost] = []
    manager.on_host_change = lambda h: gone.append(h) if h.state is HostState.DEAD else None
    begin = time.perf_counter()
    process = start_nf("c", manager.attach_path, ["victim"], scenario.burst, nf_cpu())
    _wait(manager, lambda: manager.plane.read_port(port).tx > sent, 10, "traffic of the victim")
    elapsed = time.perf_counter() - begin
    pass_time(manager, 0.01)
    process.kill()
    process.wait()
    _wait(manager, lambda: bool(gone), 5, "the victim gone")
    return elapsed


def end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End NF hosts."""
    for process in processes:
        process.kill()
        process.wait()


_KINDS: dict[str, Callable[[Scenario], dict[str, float]]] = {
    "throughput": _throughput,
    "startup": _startup,
    "latency": _latency,
    "new_flows": _new_flows,
    "crash": _crash,
}


def main() -> None:
    """Read a scenario on stdin, measure, write the figures to stdout."""
    scenario = msgspec.json.decode(sys.stdin.buffer.read(), type=Scenario)
    from onvm_core.bench.cluster import KINDS as CLUSTER  # they import this module
    from onvm_core.bench.elastic import KINDS as ELASTIC
    from onvm_core.bench.remote import KINDS as REMOTE
    from onvm_core.bench.restart import KINDS as RESTART
    from onvm_core.bench.turns import KINDS as TURNS

    try:
        kinds = {**_KINDS, **CLUSTER, **ELASTIC, **REMOTE, **RESTART, **TURNS}
        figures = kinds[scenario.kind](scenario)
    except ConfigError as error:
        sys.exit(f"{error}")
    sys.stdout.buffer.write(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
