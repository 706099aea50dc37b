"""Scenario of the suite "cluster": how soon the three hosts of `onvm cluster dev` follow changes.

```
 client ── h1 ─┐   ┌─ h3 ── server        the NF runs on h2, then also on h1 or h3
               ├───┤
    ZooKeeper ─┘   └─ h2
```

Everything but the wires is real. One process watches all managers, so one clock times them. All
three hosts and ZooKeeper share this machine's CPUs.
"""

from __future__ import annotations

import contextlib
import math
import posixpath
import time
from collections.abc import Callable, Collection, Iterator

import msgspec

from onvm_core.bench.probes import probes
from onvm_core.bench.restart import installed_nf
from onvm_core.bench.scenario import Scenario
from onvm_core.cluster.dev.dev_cluster import (
    CHAIN,
    ECHO_PORT,
    SERVER_ADDRESS,
    SESSION_S,
    DevCluster,
)
from onvm_core.cluster.member.membership import remove_host
from onvm_core.cluster.scaling.requests import RequestQueue
from onvm_core.cluster.tree.definitions import Chains
from onvm_core.cluster.tree.nodes import AppliedNode, RequestNode, unpack
from onvm_core.manager.api import messages as m
from onvm_core.manager.api.client import Client
from onvm_core.plugins import discover
from onvm_sdk.errors import OnvmError

__all__ = ["FIGURES", "KINDS"]

HOSTS = 3
VICTIM = "h2"
ECHO = (SERVER_ADDRESS, ECHO_PORT)
POLL_S = 0.002
WAIT_MAX_S = 40.0
SETTLE_S = 1.5
CHANGES = 3
WARM_S = 1.0
CUT_S = 2.0
"""Shorter than a session: ZooKeeper has not noticed yet."""
FIGURES = (
    "join",
    "join.tables",
    "leave",
    "chain",
    "nf",
    "scale",
    "scale.launch",
    "scale.outside",
    "failover.cut.running",
    "failover.cut.new",
    "failover.kill.running",
    "failover.kill.new",
    "failover.kill.views",
)
"""Names of the lines, in milliseconds."""


class _Tables:
    """Watches managers."""

    def __init__(self, cluster: DevCluster) -> None:
        self._cluster = cluster
        self._clients: dict[str, Client] = {}

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def forget(self, name: str) -> None:
        """Its manager has ended."""
        self._clients.pop(name).close()

    def client(self, name: str) -> Client:
        if name not in self._clients:
            self._clients[name] = Client(self._cluster.manager(name))
        return self._clients[name]

    def of(self, name: str) -> m.ClusterLocalReply:
        return self.client(name).ask(m.ClusterLocalRequest(), m.ClusterLocalReply)

    def launched(self, name: str) -> set[str]:
        reply = self.client(name).ask(m.InstancesRequest(), m.InstancesReply)
        return {instance for one in reply.launched for instance in one.instances}

    def is_serving(self, name: str, instance: str) -> bool:
        return any(one.name == instance and one.state == "active" for one in self.of(name).hosts)

    def digests(self, names: Collection[str]) -> set[str]:
        return {self.of(name).digest for name in names}

    def all_follow(self, names: Collection[str], before: Collection[str]) -> float:
        """Wait until all have equal tables that differ from the earlier ones; returns the time."""

        def is_so() -> bool:
            found = self.digests(names)
            return len(found) == 1 and "" not in found and found.isdisjoint(before)

        return _until(is_so, "equal tables on all hosts")

    def know(self, names: Collection[str], host: str, *, is_there: bool) -> bool:
        return all(
            (host in [peer.name for peer in self.of(name).peers]) == is_there
            for name in names
            if name != host
        )


def _until(is_true: Callable[[], bool], what: str) -> float:
    """Wait until a condition holds; returns the time."""
    deadline = time.monotonic() + WAIT_MAX_S
    while not is_true():
        if time.monotonic() > deadline:
            raise OnvmError(f"{what}: not within {WAIT_MAX_S:g} s")
        time.sleep(POLL_S)
    return time.monotonic()


@contextlib.contextmanager
def _bed(nf: str) -> Iterator[tuple[DevCluster, _Tables]]:
    with DevCluster(HOSTS, [nf]) as cluster:
        tables = _Tables(cluster)
        try:
            yield cluster, tables
        finally:
            tables.close()


def _chain_ms(cluster: DevCluster, tables: _Tables) -> float:
    """Time from the change of a chain until all hosts have it: the median of several."""
    chains = Chains(cluster.ensemble, cluster.paths)
    times = []
    for _ in range(CHANGES):
        time.sleep(SETTLE_S)
        node = chains.get(CHAIN)
        assert node is not None
        other = "wait" if node.on_failure == "drop" else "drop"
        before = tables.digests(cluster.names)
        changed = msgspec.structs.replace(node, revision=node.revision + 1, on_failure=other)
        begin = time.monotonic()
        chains.put(CHAIN, changed, "bench")
        times.append(tables.all_follow(cluster.names, before) - begin)
    return sorted(times)[CHANGES // 2] * 1e3


def _scale(cluster: DevCluster, tables: _Tables, nf: str, service: str) -> dict[str, float]:
    """The service's host has no free resources: time from the request until flows of all hosts can
    go to the new instance on another host.
    """
    time.sleep(SETTLE_S)
    others = [name for name in cluster.names if name != VICTIM]
    known = {name: tables.launched(name) for name in others}
    before = tables.digests(cluster.names)
    now = time.time()
    request = RequestNode(
        key=f"bench-{time.monotonic_ns()}",
        service=service,
        reason="bench",
        preferred=[VICTIM],
        deadline=now + WAIT_MAX_S,
        made=now,
        refused={VICTIM: "has no room, says the benchmark"},
    )
    found: list[tuple[str, str]] = []

    def is_launched() -> bool:
        for name in others:
            found.extend((name, one) for one in tables.launched(name) - known[name])
        return bool(found)

    begin = time.monotonic()
    RequestQueue(cluster.ensemble, cluster.paths).put(request)
    launched_s = _until(is_launched, f"an instance of {nf}")
    name, instance = found[0]
    serving_s = _until(lambda: tables.is_serving(name, instance), f"{instance} serves")
    done_s = tables.all_follow(cluster.names, before)
    launch_s = serving_s - launched_s
    return {
        "scale": (done_s - begin) * 1e3,
        "scale.launch": launch_s * 1e3,
        "scale.outside": (done_s - begin - launch_s) * 1e3,
        "nf": (done_s - serving_s) * 1e3,
    }


def _come_and_go(cluster: DevCluster, tables: _Tables) -> dict[str, float]:
    """Time until all follow when a host leaves, and when it joins again."""
    time.sleep(SETTLE_S)
    others = [name for name in cluster.names if name != VICTIM]
    before = tables.digests(cluster.names)
    begin = time.monotonic()
    remove_host(cluster.ensemble, cluster.paths, VICTIM)
    left_s = tables.all_follow(others, before)
    cluster.end_agent(VICTIM)
    _until(lambda: tables.of(VICTIM).digest == "", "its manager is in no cluster")
    node = posixpath.join(cluster.paths.hosts, VICTIM)
    time.sleep(SETTLE_S)
    before = tables.digests(others)
    joined = time.monotonic()
    cluster.start_agent(VICTIM)
    there_s = _until(lambda: cluster.ensemble.client.exists(node) is not None, "its node")
    done_s = tables.all_follow(cluster.names, before)
    _until(lambda: tables.know(cluster.names, VICTIM, is_there=True), "its peers")
    return {
        "leave": (left_s - begin) * 1e3,
        "join": (done_s - joined) * 1e3,
        "join.tables": (done_s - there_s) * 1e3,
    }


def _failover(cluster: DevCluster, tables: _Tables) -> dict[str, float]:
    """Time lost when one of two hosts with the service is cut off and returns, and when it dies."""
    others = [name for name in cluster.names if name != VICTIM]
    time.sleep(SETTLE_S)
    with probes(ECHO, cluster.in_client) as cut:
        time.sleep(WARM_S)
        cut_s = time.monotonic()
        cluster.cut(VICTIM)
        time.sleep(CUT_S)
    cluster.cut(VICTIM, is_cut=False)
    _until(
        lambda: (
            all(peer.is_up for name in cluster.names for peer in tables.of(name).peers)
            and len(tables.digests(cluster.names)) == 1
        ),
        "the host that was cut off is back",
    )
    time.sleep(SESSION_S)  # earlier it does not judge others
    before = _views(cluster, others)
    with probes(ECHO, cluster.in_client) as kill:
        time.sleep(WARM_S)
        kill_s = time.monotonic()
        cluster.kill(VICTIM)
        tables.forget(VICTIM)
        time.sleep(CUT_S)
    node = posixpath.join(cluster.paths.hosts, VICTIM)
    gone_s = _until(lambda: cluster.ensemble.client.exists(node) is None, "the end of its session")
    views_s = _until(lambda: _have_followed(cluster, others, before), "views without it")
    return {
        "failover.cut.running": cut.pause_ms(cut_s),
        "failover.cut.new": cut.lost_until_ms(cut_s),
        "failover.kill.running": kill.pause_ms(kill_s),
        "failover.kill.new": kill.lost_until_ms(kill_s),
        "failover.kill.views": (views_s - gone_s) * 1e3,
    }


def _views(cluster: DevCluster, names: Collection[str]) -> set[str]:
    """Digests of the managers' views, as reported by their agents."""
    found = set()
    for name in names:
        data, _ = cluster.ensemble.client.get(posixpath.join(cluster.paths.applied, name))
        found.add(unpack(data, AppliedNode).view)
    return found


def _have_followed(cluster: DevCluster, names: Collection[str], before: set[str]) -> bool:
    now = _views(cluster, names)
    return len(now) == 1 and now.isdisjoint(before)


def _measure(scenario: Scenario) -> dict[str, float]:
    """Measure all figures once, on a new cluster."""
    del scenario
    nf = installed_nf()
    if nf is None:
        raise OnvmError("no NF is installed")
    service = next(one.service or one.name for one in discover() if one.name == nf)
    with _bed(nf) as (cluster, tables):
        figures = {"chain": _chain_ms(cluster, tables)}
        figures |= _scale(cluster, tables, nf, service)
        figures |= _come_and_go(cluster, tables)
        figures |= _failover(cluster, tables)
    never = [name for name, value in figures.items() if math.isinf(value)]
    if never:
        raise OnvmError(f"{', '.join(never)}: flows did not come back")
    return {name: figures[name] for name in FIGURES}


KINDS: dict[str, Callable[[Scenario], dict[str, float]]] = {"cluster": _measure}
