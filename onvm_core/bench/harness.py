"""Actions of scenarios on a manager: start it, start NF hosts, let time pass."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onvm_core.bench.bench_nf import start_nf
from onvm_core.bench.scenario import PLANE, Scenario
from onvm_core.dataplane.values import DataplaneSettings, IdlePolicy
from onvm_core.manager.api.directory import temporary_directory
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts.registry import HostState
from onvm_core.manager.startup.environment import split_cpus
from onvm_sdk.errors import OnvmError

__all__ = [
    "READY_TIMEOUT_S",
    "await_hosts",
    "count_active",
    "end_all",
    "manager_of",
    "nf_cpu",
    "pass_time",
    "start_nfs",
    "wait_until",
]

READY_TIMEOUT_S = 60.0
POLL_S = 0.02


@contextmanager
def manager_of(scenario: Scenario) -> Iterator[Manager]:
    """The manager of a scenario; a context manager."""
    workers, _ = split_cpus(1)
    settings = DataplaneSettings(
        idle_policy=IdlePolicy.BUSY if scenario.is_busy else IdlePolicy.ADAPTIVE,
        ring_length=scenario.ring_length,
        n_buffers=scenario.n_buffers,
        flow_capacity=scenario.flow_capacity,
        sample_every=1 if scenario.kind == "latency" else PLANE.sample_every,
    )
    with (
        temporary_directory() as directory,
        Manager(Path(directory), settings, workers) as manager,
    ):
        yield manager


def nf_cpu() -> int:
    """The core for NFs."""
    return split_cpus(1)[1][0]


def wait_until(manager: Manager, is_done: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll until a condition holds.

    Raises:
        OnvmError: it does not hold within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not is_done():
        manager.poll(POLL_S / 10)
        if time.monotonic() > deadline:
            raise OnvmError(f"{what}: not within {timeout_s:g} s")


def count_active(manager: Manager) -> int:
    """Number of serving NF hosts."""
    return sum(host.state is HostState.ACTIVE for host in manager.registry.living())


def pass_time(manager: Manager, seconds: float) -> None:
    """Let the manager work for some seconds."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        manager.poll(min(left, POLL_S * 5))


def start_nfs(manager: Manager, scenario: Scenario) -> list[subprocess.Popen[bytes]]:
    """Start the NF hosts of a scenario, and wait until they serve."""
    hosts = [services for services in scenario.hosts for _ in range(scenario.instances)]
    processes = [
        start_nf(scenario.way, manager.attach_path, services, scenario.burst, nf_cpu())
        for services in hosts
    ]
    await_hosts(manager, len(hosts))
    return processes


def await_hosts(manager: Manager, count: int) -> None:
    """Poll until so many NF hosts serve."""
    wait_until(manager, lambda: count_active(manager) == count, READY_TIMEOUT_S, "NFs ready")


def end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End NF hosts."""
    for process in processes:
        process.kill()
        process.wait()
