"""Scenarios of one chain: throughput, new flows, start, latency, crash."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from onvm_core.bench.bench_nf import start_nf
from onvm_core.bench.harness import (
    READY_TIMEOUT_S,
    count_active,
    end_all,
    manager_of,
    nf_cpu,
    pass_time,
    start_nfs,
    wait_until,
)
from onvm_core.bench.scenario import Scenario
from onvm_core.dataplane.interface import PortPlane
from onvm_core.dataplane.values import NullPort
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_core.manager.reporting import cpu_seconds, latency_of
from onvm_sdk.errors import OnvmError

__all__ = ["KINDS"]


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
        processes = start_nfs(manager, scenario)
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
        processes = start_nfs(manager, scenario)
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
    """Memory of a process, without memory shared with others (packet memory, rings)."""
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    rss, shared_files = int(fields[1]), 0
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssShmem:"):
            shared_files = int(line.split()[1]) * 1024
    return (rss * 4096 - shared_files) / (1 << 20)


def _latency(scenario: Scenario) -> dict[str, float]:
    with manager_of(scenario) as manager:
        processes = start_nfs(manager, scenario)
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
        """Sample about every millisecond."""
        seen, since = 0, time.perf_counter()
        while not self._is_over.wait(0.001):
            now, count = time.perf_counter(), self._plane.read_port(self._port).tx
            if count != seen:
                seen, since = count, now
            self.longest_s = max(self.longest_s, now - since)

    def finish(self) -> float:
        """Stop; returns the longest gap in seconds."""
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
        wait_until(
            manager, lambda: manager.plane.read_port(ports[1]).tx > 0, 10, "traffic of the other"
        )
        watch = _Watch(manager.plane, ports[1])
        watch.start()
        restarts = [_kill_once(manager, ports[0], scenario) for _ in range(scenario.kills)]
        gap = watch.finish()
        manager.plane.pause_sources(True)
        pass_time(manager, 0.3)
        end_all([other])
        wait_until(manager, lambda: count_active(manager) == 0, 5, "the other NF gone")
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
    wait_until(
        manager, lambda: manager.plane.read_port(port).tx > sent, 10, "traffic of the victim"
    )
    elapsed = time.perf_counter() - begin
    pass_time(manager, 0.01)
    process.kill()
    process.wait()
    wait_until(manager, lambda: bool(gone), 5, "the victim gone")
    return elapsed


KINDS: dict[str, Callable[[Scenario], dict[str, float]]] = {
    "throughput": _throughput,
    "startup": _startup,
    "latency": _latency,
    "new_flows": _new_flows,
    "crash": _crash,
}
