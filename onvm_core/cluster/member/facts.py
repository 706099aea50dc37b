"""The facts that a host publishes about itself: plugins, ports, NF hosts, and free resources. They
are coarse, so that they seldom change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version

from onvm_core.cluster.member.cpu_use import CpuUse
from onvm_core.cluster.tree.nodes import HostNode, InstanceNode, InstancesNode, PluginNode
from onvm_core.cluster.view.cluster_view import PluginVersion
from onvm_core.manager.api.messages import ClusterLocalReply
from onvm_core.manager.cluster_view.view import LocalHost, LocalResources
from onvm_core.manager.placement.topology import read_topology
from onvm_core.plugins import NfPackage, NfStatus, discover

__all__ = [
    "coarse",
    "host_facts",
    "installed_plugins",
    "instance_facts",
    "local_resources",
    "of_cluster",
]

CAPACITY_STEP = 0.25
"""Capacities that differ by less than this share count as equal."""
MEMORY_STEP_MIB = 256


def installed_plugins() -> list[PluginNode]:
    """The NFs that can be started here."""
    return [_plugin(package) for package in discover() if package.status is NfStatus.OK]


def _plugin(package: NfPackage) -> PluginNode:
    manifest = package.manifest
    text = b"" if package.manifest_path is None else package.manifest_path.read_bytes()
    return PluginNode(
        name=package.name,
        service=package.service or package.name,
        version=package.version,
        digest=hashlib.sha256(text).hexdigest()[:16],
        cores=1.0 if manifest is None else manifest.cores,
        memory_mib=0 if manifest is None else manifest.memory_mib,
    )


def local_resources(local: ClusterLocalReply, plugins: Sequence[PluginNode]) -> LocalResources:
    """All resources and the free ones, as the manager reports them or the agent can see them."""
    if local.resources is not None:
        return local.resources
    topology = read_topology()
    by_service = {plugin.service: plugin for plugin in plugins}
    used = sum(
        max((by_service[name].cores for name in host.services if name in by_service), default=1.0)
        for host in local.hosts
    )
    cores = float(len(topology.cpus))
    return LocalResources(
        cores=cores,
        free_cores=max(cores - used, 0.0),
        memory_mib=sum(node.memory_mib for node in topology.nodes),
        free_memory_mib=topology.available_mib,
    )


def host_facts(
    *,
    address: str,
    control: str,
    state_server: str,
    key: str,
    local: ClusterLocalReply | None,
    plugins: list[PluginNode],
    resources: LocalResources | None,
    is_leaving: bool = False,
) -> HostNode:
    """A host as others see it; `local` is None while there is no manager."""
    state = "leaving" if is_leaving else "no_manager" if local is None else "up"
    return HostNode(
        number=1,
        election_number=0,  # the membership knows them
        address=address,
        control=control,
        state_server=state_server,
        key=key,
        version=_version(),
        state=state,  # type: ignore[arg-type]
        cores=0.0 if resources is None else resources.cores,
        memory_mib=0 if resources is None else resources.memory_mib,
        ports=[] if local is None else sorted(local.ports),
        plugins=plugins,
    )


@cache
def _version() -> str:
    return version("onvm")  # reads files


def of_cluster(hosts: Iterable[LocalHost]) -> list[LocalHost]:
    """The NF hosts that concern the cluster."""
    return [host for host in hosts if host.state in ("active", "draining")]


def instance_facts(
    local: ClusterLocalReply,
    numbers: Mapping[str, int],
    plugins: Sequence[PluginNode],
    resources: LocalResources,
    before: InstancesNode,
    successors: Iterable[tuple[int, int]] = (),
    use: CpuUse | None = None,
) -> InstancesNode:
    """The NF hosts as others see them.

    Args:
        numbers: numbers of all of them, by name.
        before: the facts that others see now; values that have hardly changed are kept.
        successors: successors of NF hosts that have moved from here, by numbers.
        use: what others use; None: that is not measured.
    """
    plugin_versions = {plugin.service: plugin.plugin_version for plugin in plugins}
    known = {instance.number: instance for instance in before.instances}
    memory = resources.free_memory_mib // MEMORY_STEP_MIB * MEMORY_STEP_MIB
    if abs(memory - before.free_memory_mib) <= MEMORY_STEP_MIB:
        memory = before.free_memory_mib
    return InstancesNode(
        free_cores=round(resources.free_cores * 4) / 4,
        free_memory_mib=memory,
        others_cores=0.0 if use is None else use.others_cores,
        pressure=0.0 if use is None else use.pressure,
        instances=sorted(
            (
                _instance(host, numbers[host.name], known.get(numbers[host.name]), plugin_versions)
                for host in of_cluster(local.hosts)
            ),
            key=lambda instance: instance.number,
        ),
        successors=sorted(successors),
    )


def _instance(
    host: LocalHost,
    number: int,
    before: InstanceNode | None,
    plugin_versions: Mapping[str, PluginVersion],
) -> InstanceNode:
    """One NF host.

    Its plugin version is the version that was installed when it was first seen. A version installed
    later is not the one that runs.
    """
    return InstanceNode(
        number=number,
        name=host.name,
        services=host.services,
        plugin_versions=(
            [plugin_versions.get(service, ("", "")) for service in host.services]
            if before is None
            else before.plugin_versions
        ),
        state="draining" if host.state == "draining" else "active",
        capacity_pps=coarse(host.capacity_pps or 0, 0 if before is None else before.capacity_pps),
        claims=host.claims,
    )


def coarse(value: int, before: int) -> int:
    """A value with two digits; the previous one if it hardly differs or the new one is unknown."""
    if value == 0 or abs(value - before) <= before * CAPACITY_STEP:
        return before
    unit = 10 ** max(len(str(value)) - 2, 0)
    return int(value // unit * unit)
