"""How many hosts a cluster bears: real agents and a real ZooKeeper, simulated managers.

    python -P benchmarks/cluster_sim.py [--hosts 50,100,200,400] [--instances 10] [--servers 3]

For each number of hosts it starts that many agents (threads of a few processes) with managers that
have no data plane, and prints:

* join: until all managers have the same view with all hosts and instances;
* chain: from a chain's change until all managers have it;
* dead host: from the end of its session in ZooKeeper until no manager sends anything new there;
* operations of ZooKeeper per second, at rest and in the 5 s around the death; watches;
* memory and CPU of an agent with its simulated manager, the latter at rest.

It goes on with the next number until a step takes longer than --limit seconds: that is where it
breaks on this machine. All agents share the machine here, while each has one of its own in a
cluster; so the times are those of too few CPUs, and the counts are real.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from onvm_core.bench.simulated import SimulatedManager
from onvm_core.cluster.agent import Agent
from onvm_core.cluster.credentials import Credentials
from onvm_core.cluster.dev.local_ensemble import LocalEnsemble
from onvm_core.cluster.errors import ClusterError
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.tree.definitions import Chains
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.foundation import make_cluster
from onvm_core.cluster.tree.nodes import ChainNode, Paths, PluginNode
from onvm_core.cluster.view.cluster_view import digest
from onvm_core.manager.cluster_view.view import PortView

SERVICES = ("firewall", "nat", "lb", "router", "monitor")
SESSION_S = 15.0  # as hundreds of agents share the CPUs of one machine
LINGER_S = 120.0
STARTERS = 2
SWITCH_S = 0.05


class Host:
    """A simulated manager and its agent."""

    def __init__(
        self,
        folder: Path,
        hosts: str,
        credentials: Credentials,
        cluster: str,
        number: int,
        instances: int,
    ) -> None:
        self.name = f"host-{number:04d}"
        self.manager = SimulatedManager(folder / "r" / self.name, cores=64.0, is_quick=True)
        self.manager.start()
        self.manager.set_nfs(
            *(f"{SERVICES[index % len(SERVICES)]}-{index}" for index in range(instances))
        )
        plugins = [
            PluginNode(name=name, service=name, version="1.0", digest="0" * 16) for name in SERVICES
        ]
        self.state = StateDirectory(folder / "s" / self.name)
        while True:
            try:
                self.agent = Agent(
                    Ensemble(hosts, credentials, session_s=SESSION_S),
                    self.state,
                    cluster,
                    self.name,
                    f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
                    self.manager.directory,
                    make_peers=False,
                    linger_s=LINGER_S,
                    plugins=lambda: plugins,
                )
                break
            except ClusterError:  # ZooKeeper is busy; systemd would start it again
                time.sleep(0.5)
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(
            target=self.agent.run, args=(self._is_stopping.is_set,), daemon=True
        )
        self._thread.start()

    def die(self) -> None:
        """Without a word to ZooKeeper."""
        self._is_stopping.set()
        self._thread.join()
        self.agent.close()
        self.state.close()
        self.manager.close()


def work(pipe: Pipe, folder: Path, hosts: str, credentials: Credentials, cluster: str) -> None:
    """One process with a share of the hosts; obeys what comes through the pipe."""
    logging.disable(logging.WARNING)
    threading.stack_size(256 * 1024)
    # Hundreds of threads that want the interpreter wake up this often, only to want it still.
    sys.setswitchinterval(SWITCH_S)
    here: dict[int, Host] = {}
    base_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while True:
        try:
            command, *arguments = pipe.recv()
        except EOFError:  # the process that started us is gone
            os._exit(1)
        if command == "start":
            start(here, folder, hosts, credentials, cluster, *arguments)
            pipe.send(len(here))
        elif command == "look":
            pipe.send([(host.agent.digest, host.agent.applied_s) for host in here.values()])
        elif command == "verify":
            views = [host.manager.view for host in here.values()]
            pipe.send([None if view is None else digest(view) for view in views])
        elif command == "die":
            number = arguments[0]
            if number in here:
                here.pop(number).die()
            pipe.send(None)
        elif command == "usage":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(
                {
                    "kib": usage.ru_maxrss - base_kib,
                    "cpu_s": usage.ru_utime + usage.ru_stime,
                    "writes": sum(host.agent.session_thread.writes for host in here.values()),
                    "reads": sum(host.agent.session_thread.mirror.reads for host in here.values()),
                    "events": sum(
                        host.agent.session_thread.mirror.events for host in here.values()
                    ),
                    "applies": sum(host.agent.applies for host in here.values()),
                }
            )
        else:
            os._exit(0)  # hundreds of threads need not be asked


def start(
    here: dict[int, Host],
    folder: Path,
    hosts: str,
    credentials: Credentials,
    cluster: str,
    numbers: list[int],
    instances: int,
) -> None:
    """Start hosts, some at once."""
    lock = threading.Lock()
    left = list(reversed(numbers))

    def run() -> None:
        while True:
            with lock:
                if not left:
                    return
                number = left.pop()
            host = Host(folder, hosts, credentials, cluster, number, instances)
            with lock:
                here[number] = host

    threads = [threading.Thread(target=run) for _ in range(STARTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Simulation:
    """All processes, and the session that looks at ZooKeeper."""

    def __init__(
        self,
        folder: Path,
        servers: LocalEnsemble,
        credentials: Credentials,
        processes: int,
        instances: int,
    ) -> None:
        self._servers = servers
        self._instances = instances
        self.ensemble = Ensemble(servers.hosts, credentials, session_s=60)
        self.ensemble.connect()
        make_cluster(self.ensemble, "sim")
        self.paths = Paths("sim")
        self._pipes: list[Any] = []
        self._processes = []
        context = multiprocessing.get_context("spawn")
        for index in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=work, args=(theirs, folder, servers.hosts, credentials, "sim"), daemon=True
            )
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
            (folder / "r").mkdir(exist_ok=True)
            del index

    def close(self) -> None:
        """End all processes."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(("end",))
        for process in self._processes:
            process.join(10)
            process.kill()
        self.ensemble.close()

    def _all(self, command: str, *arguments: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((command, *arguments))
        return [pipe.recv() for pipe in self._pipes]

    def start(self, first: int, end: int) -> None:
        """Start hosts of these numbers."""
        shares = [
            list(range(first + index, end, len(self._pipes))) for index in range(len(self._pipes))
        ]
        for pipe, share in zip(self._pipes, shares, strict=True):
            pipe.send(("start", share, self._instances))
        for pipe in self._pipes:
            pipe.recv()

    def wait_equal(
        self, hosts: int, begin: float, before: str, limit_s: float
    ) -> tuple[float, str]:
        """Wait until all have an equal view that is not `before`; the seconds, and its digest."""
        while True:
            seen = [one for part in self._all("look") for one in part]
            digests = {digest for digest, _ in seen}
            if (
                len(seen) == hosts
                and len(digests) == 1
                and digests != {before}
                and "" not in digests
            ):
                return max(at for _, at in seen) - begin, digests.pop()
            if time.monotonic() - begin > limit_s:
                raise TimeoutError(f"{len(digests)} views of {len(seen)} hosts after {limit_s:g} s")
            time.sleep(0.1)

    def verify(self, expected: str) -> None:
        """See that the managers have, in full, what their agents say that they have."""
        found = {one for part in self._all("verify") for one in part}
        if found != {expected}:
            raise AssertionError(f"the managers' views are {found}, and not {expected}")

    def counters(self) -> dict[str, int]:
        """Of all servers together."""
        total: dict[str, int] = {}
        for index in range(len(self._servers.ports)):
            for line in self._servers.word(index, "mntr").splitlines():
                name, _, value = line.partition("\t")
                if value.isdigit():
                    total[name] = total.get(name, 0) + int(value)
        return total

    def usage(self) -> dict[str, float]:
        """Of all processes together."""
        parts = self._all("usage")
        return {name: sum(part[name] for part in parts) for name in parts[0]}

    def operations(self, seconds: float) -> float:
        """Requests per second that the servers get."""
        before = self.counters().get("zk_packets_received", 0)
        time.sleep(seconds)
        return (self.counters().get("zk_packets_received", 0) - before) / seconds

    def die(self, number: int) -> None:
        """Let a host die."""
        self._all("die", number)

    def wait_gone(self, number: int) -> float:
        """When the session of a host has ended, on the monotonic clock."""
        path = f"{self.paths.hosts}/host-{number:04d}"
        gone = threading.Event()
        while self.ensemble.client.exists(path, lambda _: gone.set()) is not None:
            gone.wait(0.5)
        return time.monotonic()


def step(
    sim: Simulation, first: int, end: int, digest: str, limit_s: float
) -> tuple[dict[str, Any], str]:
    """Grow to `end` hosts and measure; the results, and the digest of the last view."""
    hosts = end - 1
    begin = time.monotonic()
    sim.start(first, end)
    started_s = time.monotonic() - begin
    join_s, digest = sim.wait_equal(hosts, begin, digest, limit_s + started_s)
    time.sleep(2)
    before = sim.usage()
    at_rest = sim.operations(5.0)
    usage = sim.usage()
    chains = Chains(sim.ensemble, sim.paths)
    name = f"chain-{hosts}"
    ends = [
        PortView(host=f"host-{number:04d}", port=port)
        for number, port in ((1, "client"), (2, "server"))
    ]
    node = ChainNode(
        number=chains.new_number(), revision=1, near=ends[0], far=ends[1], services=list(SERVICES)
    )
    begin = time.monotonic()
    chains.put(name, node, "sim")
    chain_s, digest = sim.wait_equal(hosts, begin, digest, limit_s)
    watches = sim.counters().get("zk_watch_count", 0)
    victim = hosts
    sim.die(victim)
    gone = sim.wait_gone(victim)
    packets = sim.counters().get("zk_packets_received", 0)
    dead_s, digest = sim.wait_equal(hosts - 1, gone, digest, limit_s)
    sim.verify(digest)
    time.sleep(max(0.0, gone + 5 - time.monotonic()))
    around = (sim.counters().get("zk_packets_received", 0) - packets) / 5
    result = {
        "hosts": hosts,
        "join_s": round(join_s, 2),
        "chain_s": round(chain_s, 2),
        "dead_host_s": round(dead_s, 2),
        "zookeeper_ops_at_rest": round(at_rest),
        "zookeeper_ops_death": round(around),
        "watches": watches,
        "mib_per_agent": round(usage["kib"] / 1024 / hosts, 2),
        "cpu_share_per_agent_at_rest": round((usage["cpu_s"] - before["cpu_s"]) / 5 / hosts, 5),
    }
    sim.start(victim, victim + 1)  # it comes back
    _, digest = sim.wait_equal(hosts, time.monotonic(), digest, limit_s)
    return result, digest


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", default="25,50,100,200,300,400")
    parser.add_argument("--instances", type=int, default=10, help="of each host")
    parser.add_argument("--servers", type=int, default=3, help="of ZooKeeper")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--limit", type=float, default=30.0, help="seconds for a step")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.hosts.split(",")]
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    results = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onvm-sim-")))
        credentials = Credentials.make()
        servers = stack.enter_context(
            LocalEnsemble(folder, arguments.servers, credentials=credentials, heap_mib=512)
        )
        sim = Simulation(folder, servers, credentials, arguments.processes, arguments.instances)
        stack.callback(sim.close)
        first, digest = 1, ""
        for size in sizes:
            try:
                result, digest = step(sim, first, size + 1, digest, arguments.limit)
            except TimeoutError as error:
                print(f"{size} hosts: {error}: too many for this machine", file=sys.stderr)
                break
            results.append(result)
            if not arguments.json:
                print("  ".join(f"{name}={value}" for name, value in result.items()), flush=True)
            first = size + 1
    if arguments.json:
        print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
