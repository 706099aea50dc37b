"""A manager to do things to, in a process of its own: DPDK starts once per process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from onvm_core.dataplane.values import DataplaneSettings, NullPort
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts.registry import HostState, NfHost

__all__ = ["Bed", "say"]


def say(**values: object) -> None:
    """One line of the driver's result."""
    print(json.dumps(values), flush=True)


class Bed:
    """A manager, its ports and the processes that attach to it."""

    def __init__(self, directory: Path, **settings: int) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        self.n_workers = settings.get("n_workers", 1)
        workers = [cpus[i % len(cpus)] for i in range(self.n_workers)]
        self.nf_cpus = cpus[1:] or cpus
        self.ports: list[int] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.closed = [0, 0]
        defaults = {"n_buffers": 8192, "ring_length": 256}
        self.manager = Manager(directory, DataplaneSettings(**{**defaults, **settings}), workers)
        self.plane = self.manager.plane

    def __enter__(self) -> Bed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self.processes:
            self.kill(process)
        self.manager.close()

    # ---- processes ----

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
        os.sched_setaffinity(process.pid, self.nf_cpus)
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        if process in self.processes:
            self.processes.remove(process)

    def hosts_of(self, process: subprocess.Popen[bytes]) -> list[NfHost]:
        return [host for host in self.manager.registry.hosts if host.pid == process.pid]

    def serving(self, service: str) -> list[NfHost]:
        return [
            host
            for host in self.manager.registry.living()
            if service in host.services and host.state is HostState.ACTIVE
        ]

    # ---- time ----

    def until(self, is_true: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_true():
            if time.monotonic() > deadline:
                print(f"waited {timeout_s} s for: {what}", file=sys.stderr)
                raise SystemExit(3)
            self.manager.poll(0.005)

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.manager.poll(0.01)

    def longest_gap_s(self, port: int, seconds: float) -> float:
        """Longest time in which nothing left through a port, seen every few milliseconds."""
        longest = gap = 0.0
        last, seen = time.monotonic(), self.plane.read_port(port).tx
        deadline = last + seconds
        while last < deadline:
            self.manager.poll(0.003)
            now, tx = time.monotonic(), self.plane.read_port(port).tx
            gap = gap + now - last if tx == seen else 0.0
            longest = max(longest, gap)
            last, seen = now, tx
        return longest

    # ---- counting ----

    def add(self, port: int) -> int:
        self.ports.append(port)
        return port

    def close_port(self, port: int) -> None:
        counters = self.plane.read_port(port)
        self.closed[0] += counters.rx
        self.closed[1] += counters.tx
        self.plane.close_port(port)
        self.ports.remove(port)

    def is_drained(self) -> bool:
        return not any(self.plane.read_port(port).n_held for port in self.ports) and not any(
            self.plane.read_host(host.slot).reserved for host in self.manager.registry.living()
        )

    def drain(self, timeout_s: float = 5.0) -> None:
        """Pause the sources until nothing is inside."""
        self.plane.pause_sources(True)
        for _ in range(3):
            self.run(0.01)
            self.until(self.is_drained, timeout_s, f"drained: {self.reserved()}")

    def resume(self) -> None:
        self.plane.pause_sources(False)

    def reserved(self) -> dict[str, int]:
        """Places taken, by instance."""
        return {
            host.instances[0].name: self.plane.read_host(host.slot).reserved
            for host in self.manager.registry.living()
        }

    def balance(self) -> dict[str, int]:
        """Packets in, out and dropped; `missing` is 0 when nothing vanished.

        A worker counts a packet as sent after it has sent it: that may take a moment.
        """
        deadline = time.monotonic() + 2
        while (found := self._balance())["missing"] and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    def _balance(self) -> dict[str, int]:
        plane = self.plane.read_plane()
        rx = self.closed[0] + sum(self.plane.read_port(port).rx for port in self.ports)
        tx = self.closed[1] + sum(self.plane.read_port(port).tx for port in self.ports)
        drops = sum(plane.drops.values())
        for host in self.manager.registry.hosts:
            counters = host.last if host.last is not None else self.plane.read_host(host.slot)
            drops += sum(sum(row) for row in counters.drops)
        return {
            "rx": rx,
            "tx": tx,
            "originated": plane.originated,
            "drops": drops,
            "missing": rx + plane.originated - tx - drops,
        }

    def buffers(self) -> dict[str, int]:
        """Buffers: how many there are, how many are free, how many NFs hold."""
        plane = self.plane.read_plane()
        return {
            "total": plane.buffers_total,
            "free": plane.buffers_free,
            "with_nfs": plane.buffers_with_nfs,
        }

    def null_pair(self, rate_pps: int = 0, flows: int = 0, count: int = 0) -> tuple[int, int]:
        """A source and a sink."""
        number = len(self.ports)
        near = self.plane.open_port(
            f"in{number}", NullPort(n_flows=flows, rate_pps=rate_pps, count=count)
        )
        far = self.plane.open_port(f"out{number}", NullPort(is_source=False))
        return self.add(near), self.add(far)

    def chain(
        self, number: int, ports: Sequence[int], services: Sequence[str], **how: bool
    ) -> None:
        self.manager.set_chain(number, ports[0], ports[1], services, **how)
