"""Hosts for tests: a simulated manager and the real agent, in threads of the test."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from bench import CALM_SESSION_S, Cluster, expire, plugin

from onvm_core.bench.simulated import SimulatedManager
from onvm_core.cluster.agent import Agent
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.nodes import PluginNode
from onvm_core.cluster.view.cluster_view import digest

PLUGINS = [plugin("firewall"), plugin("nat"), plugin("lb")]


class SimulatedHost:
    """A manager and its agent."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        number: int,
        *,
        cores: float = 4.0,
        session_s: float = CALM_SESSION_S,
        linger_s: float = 1.0,
        start_s: float = 0.0,
        hosts: str | None = None,
        make_peers: bool = True,
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.number = number
        self.session_s = session_s
        self.linger_s = linger_s
        self.hosts = hosts or cluster.hosts
        self.make_peers = make_peers
        self.plugins: list[PluginNode] = list(PLUGINS)
        self.manager = SimulatedManager(
            Path(os.environ["ONVM_RUNTIME_DIR"]) / name, cores=cores, start_s=start_s
        )
        self.manager.start()
        self.agent: Agent | None = None
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._is_stopping = threading.Event()

    def start_agent(self, state: str | None = None) -> SimulatedHost:
        directory = StateDirectory(self.cluster.folder / f"state-{state or self.name}")
        self._stack = contextlib.ExitStack()
        self._stack.callback(directory.close)
        try:
            self.agent = Agent(
                Ensemble(self.hosts, self.cluster.credentials, session_s=self.session_s),
                directory,
                self.cluster.name,
                self.name,
                f"10.0.0.{self.number}",
                self.manager.directory,
                control="127.0.0.1" if self.make_peers else "",
                make_peers=self.make_peers,
                linger_s=self.linger_s,
                plugins=lambda: self.plugins,
            )
        except BaseException:
            self._stack.close()
            raise
        self._is_stopping.clear()
        self.error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        assert self.agent is not None
        try:
            self.agent.run(self._is_stopping.is_set)
        except Exception as error:  # noqa: BLE001 -- the test looks at it
            self.error = error

    def stop_agent(self, is_leaving: bool = False) -> None:
        """As a signal does: the nodes stay for the length of a session."""
        if self.agent is None or self._thread is None:
            return
        self._is_stopping.set()
        self._thread.join()
        self.agent.close(is_leaving)
        self._stack.close()
        self.agent = self._thread = None

    @property
    def session(self) -> tuple[int, bytes]:
        """ID and password of its agent's session."""
        found: tuple[int, bytes] = self.live.session_thread._ensemble.client.client_id
        return found

    def vanish(self) -> None:
        """Stop the agent, and end its session as the server does after a while."""
        session = self.session
        self.stop_agent()
        expire(self.hosts, session)

    def close(self) -> None:
        self.stop_agent(is_leaving=True)
        self.manager.close()

    @property
    def live(self) -> Agent:
        assert self.agent is not None
        return self.agent

    @property
    def digest(self) -> str:
        """Of the view that the manager has."""
        return "" if self.manager.view is None else digest(self.manager.view)


def start_hosts(cluster: Cluster, count: int, **settings: object) -> list[SimulatedHost]:
    """Hosts a, b, c… of a cluster, that end with it."""
    made = []
    for number in range(1, count + 1):
        name = chr(ord("a") + number - 1)
        host = SimulatedHost(cluster, name, number, **settings)  # type: ignore[arg-type]
        cluster.stack.callback(host.close)
        made.append(host)
    for host in made:
        host.start_agent()
    return made


def are_equal(hosts: list[SimulatedHost], members: int | None = None) -> bool:
    """Whether all managers have equal views, with so many hosts in them."""
    views = [host.manager.view for host in hosts]
    digests = {host.digest for host in hosts}
    n_hosts = len(hosts) if members is None else members
    return (
        len(digests) == 1
        and "" not in digests
        and all(view is not None and len(view.peers) == n_hosts - 1 for view in views)
    )


def instances_seen(host: SimulatedHost) -> dict[str, str]:
    """Instances in the view of a host, as HOST/NAME, and their states."""
    view = host.manager.view
    assert view is not None
    return {f"{one.host}/{one.name}": one.state for one in view.instances}
