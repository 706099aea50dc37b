"""The state of a cluster at one moment, for people: read once, without watches."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Sequence

import msgspec
from kazoo.exceptions import NoNodeError

from onvm_core.cluster.scaling.requests import RequestQueue
from onvm_core.cluster.scaling.scaler import is_leader
from onvm_core.cluster.tree import nodes as tree
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.mirror import Mirror, Snapshot, read_cluster
from onvm_core.cluster.tree.nodes import AppliedNode, DamagedError, NameNode, Paths
from onvm_core.cluster.view.cluster_view import mismatches, plugin_versions
from onvm_core.manager.cluster_view.view import DataSecurity

__all__ = [
    "ClusterStatus",
    "HostStatus",
    "RequestStatus",
    "ServiceStatus",
    "chain_problems",
    "read_requests",
    "read_snapshot",
    "read_status",
    "unserved",
]


STATES = {"leaving": "leaves", "no_manager": "has no manager"}


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A host that has joined; it may be away."""

    name: str
    number: int
    address: str
    state: str
    """up, draining, leaving, no_manager, or away: its agent has no session."""
    is_leader: bool
    version: str
    cores: float
    free_cores: float
    """Not reserved for NFs."""
    others_cores: float
    """Used by other programs, as measured."""
    pressure: float
    """Share of the last minute in which some program waited for a CPU, as measured."""
    instances: int
    view: str
    """Digest of the view that its manager was sent; equal on all hosts when nothing is changing."""
    tables: str
    """Digest of its manager's tables; equal likewise."""
    missing: list[str]
    """The parts that its manager could not apply."""
    unheard: list[str]
    """Hosts whose agents its agent does not hear."""
    clock_skew_s: int
    """Seconds by which its clock was ahead of ZooKeeper's when it registered."""
    key: str


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A service that runs or is configured to scale."""

    name: str
    plugin_version: str
    """Version that the cluster runs."""
    instances: dict[str, int]
    """Number of instances by host."""
    draining: int
    min: int | None
    max: int | None
    target: float | None


class RequestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A scale request and its outcome."""

    key: str
    service: str
    state: str
    reason: str
    made: float
    ended: float | None
    host: str | None
    instance: str | None
    why: str


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The whole status."""

    cluster: str
    id: str
    vni: int
    data_security: DataSecurity
    """Protection of packets between hosts."""
    ensemble: str
    is_equal: bool
    """True if all managers have been sent the same view, and have equal tables."""
    hosts: list[HostStatus]
    services: list[ServiceStatus]
    chains: dict[str, tree.ChainNode]
    requests: list[RequestStatus]
    problems: list[str]
    """Chains that lose packets as things are, one line each."""
    mismatches: list[str]
    damaged: dict[str, str]


def read_snapshot(ensemble: Ensemble, paths: Paths) -> Snapshot:
    """The current state of the cluster."""
    mirror = Mirror(ensemble, read_cluster(ensemble, paths), paths)
    mirror.refresh()
    return mirror.snapshot


def read_status(ensemble: Ensemble, paths: Paths) -> ClusterStatus:
    """Read the whole status.

    Raises:
        NoClusterError: there is no such cluster.
        NoEnsembleError: ZooKeeper does not answer.
    """
    snapshot = read_snapshot(ensemble, paths)
    names = _read(ensemble, paths.names, NameNode)
    applied = _read(ensemble, paths.applied, AppliedNode)
    hosts = [_host(snapshot, name, node, applied.get(name)) for name, node in sorted(names.items())]
    there = [host for host in hosts if host.state not in ("away", "no_manager")]
    views = {host.view for host in there}
    return ClusterStatus(
        cluster=snapshot.cluster.name,
        id=snapshot.cluster.id,
        vni=snapshot.cluster.vni,
        data_security=snapshot.cluster.data_security,
        ensemble=ensemble.hosts,
        is_equal=len(views) <= 1 and "" not in views and len({one.tables for one in there}) <= 1,
        hosts=hosts,
        services=_services(snapshot),
        chains=snapshot.chains,
        requests=read_requests(RequestQueue(ensemble, paths), snapshot),
        problems=[line for name in snapshot.chains for line in chain_problems(snapshot, name)],
        mismatches=mismatches(snapshot),
        damaged=snapshot.damaged,
    )


def chain_problems(snapshot: Snapshot, name: str) -> list[str]:
    """The reasons why a chain loses packets, one line each."""
    chain = snapshot.chains[name]
    lines = []
    for end in {end.host: end for end in (chain.near, chain.far)}.values():
        host = snapshot.hosts.get(end.host)
        if end.host not in snapshot.members:
            lines.append(f"{end.host}, where it ends, is no host of the cluster")
        elif host is None:
            lines.append(f"{end.host}, where it ends, is away")
        elif host.state != "up":
            lines.append(f"{end.host}, where it ends, {STATES[host.state]}")
    for end in (chain.near, chain.far):
        host = snapshot.hosts.get(end.host)
        if host is not None and host.state == "up" and end.port not in host.ports:
            lines.append(f"{end.host} has no port {end.port}")
    for service in unserved(snapshot, chain.services):
        lines.append(
            f"no instance of {service} serves; start one: onvm cluster scale out {service}"
        )
    return [f"chain {name}: {line}" for line in lines]


def unserved(snapshot: Snapshot, services: Sequence[str]) -> list[str]:
    """The services of which no instance serves, on hosts with a session or without."""
    nodes = [*snapshot.instances.values(), *(one.instances for one in snapshot.away.values())]
    there = {service for node in nodes for one in node.instances for service in one.services}
    return [service for service in dict.fromkeys(services) if service not in there]


def read_requests(queue: RequestQueue, snapshot: Snapshot) -> list[RequestStatus]:
    """Requests that wait or have ended recently, in the order in which they were made."""
    waiting = {request.key: request for request in snapshot.requests.values()}
    return [
        RequestStatus(
            key=key,
            service=outcome.service,
            state=outcome.state,
            reason=outcome.reason,
            made=outcome.made,
            ended=outcome.ended,
            host=outcome.host,
            instance=outcome.instance,
            why=outcome.why or _refusals(waiting[key].refused if key in waiting else {}),
        )
        for key, outcome in queue.outcomes().items()
    ]


def _refusals(refused: dict[str, str]) -> str:
    return "; ".join(f"{host}: {why}" for host, why in sorted(refused.items()))


def _read(ensemble: Ensemble, folder: str, kind: type[tree.NodeT]) -> dict[str, tree.NodeT]:
    found = {}
    with ensemble.call("read the cluster") as client:
        for name in client.get_children(folder):
            try:
                found[name] = tree.unpack(client.get(posixpath.join(folder, name))[0], kind)
            except (NoNodeError, DamagedError):
                continue
    return found


def _host(
    snapshot: Snapshot, name: str, owner: NameNode, applied: AppliedNode | None
) -> HostStatus:
    host = snapshot.hosts.get(name)
    has = snapshot.instances.get(name)
    state: str = "away" if host is None else host.state
    if state == "up" and name in snapshot.draining:
        state = "draining"
    return HostStatus(
        name=name,
        number=owner.number,
        address="" if host is None else host.address,
        state=state,
        is_leader=is_leader(snapshot, name),
        version="" if host is None else host.version,
        cores=0.0 if host is None else host.cores,
        free_cores=0.0 if has is None else has.free_cores,
        others_cores=0.0 if has is None else has.others_cores,
        pressure=0.0 if has is None else has.pressure,
        instances=0 if has is None else len(has.instances),
        view="" if applied is None else applied.view,
        tables="" if applied is None else applied.digest,
        missing=[] if applied is None else applied.missing,
        unheard=[] if applied is None else applied.unheard,
        clock_skew_s=0 if host is None else host.clock_skew_s,
        key=owner.key,
    )


def _services(snapshot: Snapshot) -> list[ServiceStatus]:
    active: dict[str, dict[str, int]] = defaultdict(dict)
    draining: dict[str, int] = defaultdict(int)
    for host, node in sorted(snapshot.instances.items()):
        for instance in node.instances:
            for service in instance.services:
                if instance.state == "active":
                    active[service][host] = active[service].get(host, 0) + 1
                else:
                    draining[service] += 1
    chosen = plugin_versions(snapshot)
    wanted = {service for chain in snapshot.chains.values() for service in chain.services}
    names = {*active, *draining, *snapshot.services, *wanted}
    return [
        ServiceStatus(
            name=name,
            plugin_version=chosen[name][0] if name in chosen else "",
            instances=active.get(name, {}),
            draining=draining.get(name, 0),
            min=None if name not in snapshot.services else snapshot.services[name].min,
            max=None if name not in snapshot.services else snapshot.services[name].max,
            target=None if name not in snapshot.services else snapshot.services[name].target,
        )
        for name in sorted(names)
    ]
