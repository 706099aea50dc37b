"""Agents as processes, that can be killed and frozen, for managers that are simulated here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from bench import Cluster, wait

from onvm_core.bench.simulated import SimulatedManager
from onvm_core.cluster.view.cluster_view import digest
from onvm_core.plugins import discover

ONVM = [sys.executable, "-P", "-m", "onvm_core.cli"]
SERVICES = sorted(package.name for package in discover())


class ProcessHost:
    """A simulated manager and an agent's process: `onvm cluster join`."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        number: int,
        session_s: float = 2.0,
        *,
        cores: float = 4.0,
        start_s: float = 0.0,
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.number = number
        self.session_s = session_s
        self.manager = SimulatedManager(
            Path(os.environ["ONVM_RUNTIME_DIR"]) / name, cores=cores, start_s=start_s
        )
        self.manager.start()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = cluster.folder / f"{name}.log"

    @property
    def command(self) -> list[str]:
        options = {
            "--cluster": self.cluster.name,
            "--manager": self.name,
            "--name": self.name,
            "--data-address": f"127.0.0.{self.number}",
            "--session-timeout": str(self.session_s),
        }
        flat = [word for option in options.items() for word in option]
        return [*ONVM, "cluster", "join", self.cluster.hosts, *flat, "--no-measure-cpu"]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ONVM_STATE_DIR": str(self.cluster.folder / "state"),
            "ONVM_CLUSTER_CREDENTIALS": self.cluster.credentials.line.strip(),
        }

    def start_agent(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.manager.close()

    @property
    def digest(self) -> str:
        return "" if self.manager.view is None else digest(self.manager.view)


def start_processes(cluster: Cluster, count: int, **settings: float) -> list[ProcessHost]:
    """Hosts a, b, c… that know each other; they end with the cluster."""
    hosts = []
    for number in range(1, count + 1):
        host = ProcessHost(cluster, chr(ord("a") + number - 1), number, **settings)
        cluster.stack.callback(host.close)
        host.start_agent()
        hosts.append(host)
    wait_equal(hosts)
    return hosts


def are_equal(hosts: list[ProcessHost], instances: int | None = None) -> bool:
    """Whether all managers have equal views of all hosts, with so many active instances."""
    views = [host.manager.view for host in hosts]
    return (
        len({host.digest for host in hosts}) == 1
        and all(view is not None and len(view.peers) == len(hosts) - 1 for view in views)
        and (instances is None or active(hosts[0]) == instances)
    )


def active(host: ProcessHost) -> int:
    view = host.manager.view
    return 0 if view is None else sum(one.state == "active" for one in view.instances)


def wait_equal(hosts: list[ProcessHost], instances: int | None = None) -> float:
    return wait(lambda: are_equal(hosts, instances), 60, "equal views")
