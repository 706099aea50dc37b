"""The choice of the host for a new instance: pure functions of the request and the cluster.

The rule of onvm, ``locality``:

1. the host of the overloaded instance, if it has what the NF needs;
2. else, of the hosts that already run the service, the one with the most free resources;
3. else the host with the most free resources.

A host on which other programs use the CPU time that the NF needs comes after all others: free cores
are only what is not reserved.

Every agent evaluates the rule for every request and gets the same answer from the same snapshot;
the agent of the chosen host takes the request. A host can serve if it is up, does not drain, has
the cluster's version of the NF and enough free cores and memory, and has not refused this request.

Other rules come through the hook `onvm_host_policies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import PluginNode, RequestNode
from onvm_core.cluster.view.cluster_view import plugin_versions, successors_of

__all__ = [
    "GONE",
    "Candidate",
    "Choice",
    "HostPolicy",
    "Locality",
    "MostFree",
    "candidates",
    "choose",
    "serving",
]

ROUNDING = 1e-6
BUSY_PRESSURE = 0.25
GONE = "it is gone"
"""The reason of a request to end an instance that has ended already."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A host that can serve a request.

    Attributes:
        free_cores: cores that are not reserved.
        idle_cores: as many of them as other programs leave idle, as measured.
        instances: number of instances of the service that serve there.
        is_busy: True if other programs use the CPU time that the NF needs.
    """

    name: str
    plugin: PluginNode
    free_cores: float
    free_memory_mib: int
    instances: int
    idle_cores: float = 0.0
    is_busy: bool = False

    @property
    def most_free(self) -> tuple[bool, float, int]:
        """Sort key: the candidate with the most free resources comes first."""
        return self.is_busy, -self.idle_cores, -self.free_memory_mib


class HostPolicy(Protocol):
    """Made without arguments; keeps no state between two calls."""

    def order(self, request: RequestNode, candidates: Sequence[Candidate]) -> Sequence[str]:
        """Names of candidates, best first; hosts that are left out do not get it.

        Args:
            candidates: by name.
        """


class Choice(msgspec.Struct, frozen=True):
    """The host chosen to serve a request, if any, and the reason."""

    host: str | None
    plugin: PluginNode | None
    reason: str


class Locality:
    """The request's own host, then hosts that run the service, then the one with the most free."""

    def order(self, request: RequestNode, candidates: Sequence[Candidate]) -> Sequence[str]:
        """See `HostPolicy`."""
        own = request.preferred[:1]
        ranked = sorted(
            candidates,
            key=lambda one: (
                one.is_busy,
                one.name not in own,
                one.instances == 0,
                one.most_free,
            ),
        )
        return [one.name for one in ranked]


class MostFree:
    """The host with the most free resources, wherever the service runs."""

    def order(self, request: RequestNode, candidates: Sequence[Candidate]) -> Sequence[str]:
        """See `HostPolicy`."""
        return [one.name for one in sorted(candidates, key=lambda one: one.most_free)]


def candidates(request: RequestNode, snapshot: Snapshot) -> tuple[list[Candidate], dict[str, str]]:
    """Hosts that can serve it, by name; and for the others, the reason why they cannot."""
    plugin_version = plugin_versions(snapshot).get(request.service)
    able: list[Candidate] = []
    unable: dict[str, str] = {}
    settings = snapshot.services.get(request.service)
    if settings is not None and _coming(request, snapshot) >= settings.max:
        return [], {request.service: f"has its --max of {settings.max} instances"}
    for name, host in sorted(snapshot.hosts.items()):
        plugin = next((one for one in host.plugins if one.service == request.service), None)
        has = snapshot.instances.get(name)
        if name in request.refused:
            unable[name] = request.refused[name]
        elif host.state != "up":
            unable[name] = "has no manager" if host.state == "no_manager" else "leaves"
        elif name in snapshot.draining:
            unable[name] = "drains"
        elif plugin is None:
            unable[name] = f"has no NF for {request.service}"
        elif plugin.plugin_version != plugin_version:
            unable[name] = f"has another version of {plugin.name} ({plugin.version})"
        elif has is None or has.free_cores < plugin.cores - ROUNDING:
            free = 0.0 if has is None else has.free_cores
            unable[name] = f"{free:g} cores are free, {plugin.cores:g} needed"
        elif has.free_memory_mib < plugin.memory_mib:
            unable[name] = f"{has.free_memory_mib} MiB are free, {plugin.memory_mib} needed"
        else:
            idle_cores = min(has.free_cores, max(host.cores - has.others_cores, 0.0))
            able.append(
                Candidate(
                    name=name,
                    plugin=plugin,
                    free_cores=has.free_cores,
                    free_memory_mib=has.free_memory_mib,
                    idle_cores=idle_cores if has.others_cores else has.free_cores,
                    is_busy=has.others_cores > 0
                    and idle_cores < plugin.cores - ROUNDING
                    and has.pressure >= BUSY_PRESSURE,
                    instances=sum(
                        request.service in one.services and one.state == "active"
                        for one in has.instances
                    ),
                )
            )
    return able, unable


def serving(snapshot: Snapshot, service: str) -> int:
    """Number of its instances, except those that drain: others are to take their place."""
    moved = successors_of(snapshot)
    return sum(
        service in one.services and one.state == "active" and one.number not in moved
        for host, node in snapshot.instances.items()
        if host not in snapshot.draining
        for one in node.instances
    )


def _coming(request: RequestNode, snapshot: Snapshot) -> int:
    """Instances of its service that serve, or are requested before it."""
    before = 0
    for other in snapshot.requests.values():
        if other.key == request.key:
            break
        before += other.service == request.service and not other.stop
    return serving(snapshot, request.service) + before


def choose(request: RequestNode, snapshot: Snapshot, policy: HostPolicy) -> Choice:
    """The host that should serve a request."""
    if request.stop:
        return _stop(request, snapshot)
    able, unable = candidates(request, snapshot)
    by_name = {one.name: one for one in able}
    for name in policy.order(request, able):
        if name in by_name:
            return Choice(name, by_name[name].plugin, _reason(request, by_name[name]))
    why = "; ".join(f"{name}: {line}" for name, line in unable.items())
    return Choice(None, None, why or "no host can")


def _stop(request: RequestNode, snapshot: Snapshot) -> Choice:
    """Choose the host where the instance runs, for a request to end it; or has run, to say so."""
    hosts = [name for name in request.preferred if name in snapshot.instances]
    runs = [
        name
        for name in hosts
        if any(one.name == request.stop for one in snapshot.instances[name].instances)
    ]
    for name, reason in [
        *((one, "it runs there") for one in runs),
        *((one, GONE) for one in hosts),
    ]:
        if name in request.refused:
            return Choice(None, None, f"{name}: {request.refused[name]}")
        return Choice(name, None, reason)
    return Choice(None, None, GONE)


def _reason(request: RequestNode, one: Candidate) -> str:
    if one.name in request.preferred[:1]:
        return "the overloaded host has free resources"
    if one.instances:
        return f"runs the service, {one.idle_cores:g} cores free"
    return f"{one.idle_cores:g} cores free"
