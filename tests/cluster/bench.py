"""What tests of the cluster share: sessions, hosts that are only nodes, and waiting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from kazoo.client import KazooClient

from onvm_core.cluster.credentials import Credentials
from onvm_core.cluster.member.membership import Membership
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.tree.definitions import Chains, Services
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.foundation import make_cluster
from onvm_core.cluster.tree.mirror import Mirror, Snapshot
from onvm_core.cluster.tree.nodes import (
    ChainNode,
    HostNode,
    InstanceNode,
    InstancesNode,
    Paths,
    PluginNode,
)
from onvm_core.manager.cluster_view.view import PortView

SESSION_S = 2.0
CALM_SESSION_S = 8.0
"""Of hosts: longer than a busy machine stops an agent. Tests end sessions by `expire`."""


def wait(condition: Callable[[], object], timeout_s: float = 30, what: str = "it") -> float:
    """Wait until it is so; the seconds that it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < timeout_s, f"{what} did not happen in {timeout_s:g} s"
        time.sleep(0.005)
    return time.monotonic() - begin


def expire(hosts: str, session: tuple[int, bytes]) -> None:
    """End a session, given by ID and password, as the server does when it has not heard of it."""
    thief = KazooClient(hosts=hosts, client_id=session)
    thief.start()
    thief.stop()
    thief.close()


class Cluster:
    """A cluster of one test; closes all sessions that it has made."""

    def __init__(self, hosts: str, credentials: Credentials, name: str, folder: Path) -> None:
        self.hosts = hosts
        self.credentials = credentials
        self.name = name
        self.folder = folder
        self.paths = Paths(name)
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Cluster:
        self.ensemble = self.connect(session_s=10)
        self.node = make_cluster(self.ensemble, self.name, vni=77)
        self.chains = Chains(self.ensemble, self.paths)
        self.services = Services(self.ensemble, self.paths)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def connect(self, session_s: float = SESSION_S, user: Credentials | None = None) -> Ensemble:
        """A session of its own."""
        made = Ensemble(self.hosts, user or self.credentials, session_s=session_s)
        made.connect()
        self.stack.callback(made.close)
        return made

    def state(self, name: str) -> StateDirectory:
        made = StateDirectory(self.folder / name)
        self.stack.callback(made.close)
        return made

    def member(self, name: str, folder: str | None = None) -> Membership:
        return Membership(self.connect(), self.paths, name, self.state(folder or name))

    def mirror(self) -> Mirror:
        return Mirror(self.ensemble, self.node, self.paths)

    def snapshot(self) -> Snapshot:
        mirror = self.mirror()
        mirror.refresh()
        return mirror.snapshot

    def names(self, folder: str) -> list[str]:
        children: list[str] = self.ensemble.client.get_children(getattr(self.paths, folder))
        return sorted(children)


def host_node(number: int = 1, election_number: int = 0, **fields: object) -> HostNode:
    given: dict[str, object] = {
        "number": number,
        "address": f"10.0.0.{number}",
        "version": "0.1",
        "election_number": election_number,
        "ports": ["client", "server"],
        **fields,
    }
    return HostNode(**given)  # type: ignore[arg-type]


def plugin(service: str, version: str = "1", digest: str = "d", cores: float = 1.0) -> PluginNode:
    return PluginNode(name=service, service=service, version=version, digest=digest, cores=cores)


def instance(number: int, service: str = "firewall", **fields: object) -> InstanceNode:
    given: dict[str, object] = {
        "number": number,
        "name": f"{service}-{number}",
        "services": [service],
        "plugin_versions": [("1", "d")],
        **fields,
    }
    return InstanceNode(**given)  # type: ignore[arg-type]


def instances_node(*instances: InstanceNode, cores: float = 1.0) -> InstancesNode:
    return InstancesNode(instances=list(instances), free_cores=cores)


def chain_node(
    number: int = 1, near: str = "a", far: str = "b", revision: int = 1, **fields: object
) -> ChainNode:
    given: dict[str, object] = {
        "number": number,
        "revision": revision,
        "near": PortView(host=near, port="client"),
        "far": PortView(host=far, port="server"),
        "services": ["firewall"],
        **fields,
    }
    return ChainNode(**given)  # type: ignore[arg-type]
