"""Real managers, real agents, real ZooKeeper: a chain across hosts, and what its flows survive.

The hosts are managers on loopback addresses; what the managers do with a view by themselves is
tested in tests/integration/spanning/test_spanning.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest
from bench import Cluster, wait
from commands import ONVM, run_onvm
from up_host import Host, managed

PLANE = "[dataplane]\nflows = 65536\nbuffers = 8192\nring_length = 2048\n"
CONFIGS = {
    "a": PLANE + '[ports.clients]\nuri = "gen:?flows=50&rate=4000&timeout_ms=4000"\n'
    'direction = "in"\n[nfs.hop]\n',
    "b": PLANE + "[nfs.skip]\n",
    "c": PLANE + '[ports.servers]\nuri = "gen:?role=server"\ndirection = "out"\n',
}


@pytest.fixture
def host() -> Iterator[Host]:
    yield from managed()


# More than `slow` can do, which takes 0.3 ms for a packet; a has a core for one of it.
LOADED = {
    "a": PLANE + '[ports.clients]\nuri = "gen:?flows=400&rate=12000&timeout_ms=4000"\n'
    'direction = "in"\n[nfs.slow]\n',
    "b": PLANE,
    "c": CONFIGS["c"],
}


class RealHosts:
    """Managers and agents of one machine."""

    def __init__(self, cluster: Cluster, host: Host, configs: dict[str, str]) -> None:
        self.configs = configs
        self.cluster = cluster
        self.host = host
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        net = 2 + os.getpid() % 250
        self.addresses = {name: f"127.{net}.77.{index + 2}" for index, name in enumerate(configs)}

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.host.environment,
            "ONVM_STATE_DIR": str(self.host.folder / "state"),
            "ONVM_CLUSTER_CREDENTIALS": self.cluster.credentials.line.strip(),
        }

    def start_manager(self, name: str) -> None:
        (self.host.folder / f"{name}.toml").write_text(self.configs[name])
        self.host.do("up", "-d", "--name", name, "-f", f"{name}.toml")

    def start_agent(self, name: str) -> None:
        with (self.host.folder / f"{name}-agent.log").open("ab") as log:
            self.agents[name] = subprocess.Popen(
                [
                    *ONVM,
                    "cluster",
                    "join",
                    self.cluster.hosts,
                    "--cluster",
                    self.cluster.name,
                    "--manager",
                    name,
                    "--name",
                    name,
                    "--data-address",
                    self.addresses[name],
                    "--session-timeout",
                    "2",
                    "--no-measure-cpu",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )

    def do(self, *arguments: str, manager: str = "a") -> str:
        done = run_onvm("cluster", *arguments, "--manager", manager, env=self.environment)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def status(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.do("status", "--json"))
        return shown

    def completed(self) -> int:
        (one,) = self.host.status("a")["report"]["generators"]
        return int(one["completed"])

    def has_joined(self) -> bool:
        shown = self.status()
        there = [one for one in shown["hosts"] if one["state"] == "up"]
        return len(there) == len(self.configs) and shown["is_equal"]

    def running(self, service: str) -> dict[str, int]:
        """Active instances, by host."""
        found = [one for one in self.status()["services"] if one["name"] == service]
        return dict(found[0]["instances"]) if found else {}

    def flows_go_on(self) -> None:
        before = self.completed()
        wait(lambda: self.completed() > before + 200, 60, "connections that complete")

    def close(self) -> None:
        for agent in self.agents.values():
            if agent.poll() is None:
                agent.kill()
                agent.wait()


@pytest.fixture
def hosts(cluster: Cluster, host: Host, request: pytest.FixtureRequest) -> Iterator[RealHosts]:
    made = RealHosts(cluster, host, getattr(request, "param", CONFIGS))
    try:
        for name in made.configs:
            made.start_manager(name)
            made.start_agent(name)
        yield made
    finally:
        made.close()


def test_chain_across_hosts_and_agents_that_come_and_go(hosts: RealHosts) -> None:
    def has_joined() -> bool:
        shown = hosts.status()
        there = [one for one in shown["hosts"] if one["state"] == "up"]
        return len(there) == 3 and shown["is_equal"] and len(shown["services"]) >= 2

    state = hosts.host.folder / "state" / "a" / "agent.json"
    wait(lambda: state.exists() and '"connection":{' in state.read_text(), what="joining")
    wait(has_joined, 60, "three hosts that know each other")
    print(
        hosts.do(
            "chain",
            "add",
            "web",
            "--in",
            "a:clients",
            "--out",
            "c:servers",
            "--services",
            "hop,skip",
        )
    )
    hosts.flows_go_on()
    # without agents, packets go on; with new ones, too
    for agent in hosts.agents.values():
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    time.sleep(3)
    hosts.flows_go_on()
    for name in CONFIGS:
        hosts.start_agent(name)
    wait(has_joined, 60, "the new agents")
    hosts.flows_go_on()
    # one more where there is room: the request goes through the queue, the instance serves
    out = hosts.do("scale", "out", "skip", "--prefer", "b")
    assert "skip-" in out
    wait(
        lambda: (
            sum(
                next(one for one in hosts.status()["services"] if one["name"] == "skip")[
                    "instances"
                ].values()
            )
            == 2
        )
    )
    hosts.flows_go_on()
    shown = hosts.status()
    assert [one["missing"] for one in shown["hosts"]] == [[], [], []]
    assert shown["damaged"] == {}
    hosts.do("chain", "remove", "web")
    hosts.do("leave", manager="c")
    wait(lambda: hosts.agents["c"].poll() is not None, what="the end of its agent")
    assert hosts.agents["c"].returncode == 0
    assert hosts.host.json("chain", "list", "--name", "c") == []


@pytest.mark.parametrize("hosts", [LOADED], indirect=True)
def test_load_on_a_full_host_leads_to_an_instance_on_another(hosts: RealHosts) -> None:
    """Real packets, measured load, the policy of the leader, the queue, another host's manager."""
    state = hosts.host.folder / "state" / "a" / "agent.json"
    wait(lambda: state.exists() and '"connection":{' in state.read_text(), what="joining")
    wait(lambda: hosts.has_joined() and hosts.running("slow") == {"a": 1}, 60, "three hosts")
    full = next(one for one in hosts.status()["hosts"] if one["name"] == "a")
    if full["free_cores"] >= 1:
        pytest.skip("a machine with so many cores is not full")
    hosts.do("service", "set", "slow", "--min", "1", "--max", "2", "--target", "0.7")
    hosts.do("chain", "add", "web", "--in", "a:clients", "--out", "c:servers", "--services", "slow")
    wait(lambda: sum(hosts.running("slow").values()) == 2, 60, "another instance")
    (other,) = hosts.running("slow").keys() - {"a"}
    hosts.flows_go_on()
    # It serves what comes now, and was asked for once.
    wait(
        lambda: any(one["rx"] > 500 for one in hosts.host.status(other)["report"]["nfs"]),
        60,
        "packets at the new instance",
    )
    served = [one for one in hosts.status()["requests"] if one["service"] == "slow"]
    assert [(one["state"], one["host"]) for one in served] == [("done", other)]
    assert hosts.has_joined()


def test_readable_when_there_is_no_cluster() -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = run_onvm(
            "cluster",
            "status",
            env={**os.environ, "ONVM_STATE_DIR": folder, "ONVM_RUNTIME_DIR": folder},
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "this host has joined no cluster" in done.stderr
