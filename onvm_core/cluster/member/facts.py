"""What a host tells its cluster about itself: plugins, ports, NF hosts, and what is free; coarsely,
so that it changes seldom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version

from onvm_core.cluster.tree.nodes import HostNode, InstanceNode, InstancesNode, PluginNode
from onvm_core.cluster.view.cluster_view import Edition
from onvm_core.manager.api.messages import ClusterLocalReply
from onvm_core.manager.cluster_view.view import LocalHost, LocalResources
from onvm_core.manager.placement.topology import read_topology
from onvm_core.plugins import NfPackage, NfStatus, discover

__all__ = [
    "coarse",
    "host_facts",
    "installed_plugins",
    "instance_facts",
    "local_room",
    "of_cluster",
]

CAPACITY_STEP = 0.25
"""A capacity that differs by a smaller share is the same one."""
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


def local_room(local: ClusterLocalReply, plugins: Sequence[PluginNode]) -> LocalResources:
    """What there is and what is free: as the manager says, or as far as can be seen from here."""
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
    courier: str,
    key: str,
    local: ClusterLocalReply | None,
    plugins: list[PluginNode],
    room: LocalResources | None,
    is_leaving: bool = False,
) -> HostNode:
    """A host as others are to see it; `local` is None while there is no manager."""
    state = "leaving" if is_leaving else "no_manager" if local is None else "up"
    return HostNode(
        number=1,
        seat=0,  # the membership knows them
        address=address,
        control=control,
        courier=courier,
        key=key,
        version=_version(),
        state=state,  # type: ignore[arg-type]
        cores=0.0 if room is None else room.cores,
        memory_mib=0 if room is None else room.memory_mib,
        ports=[] if local is None else sorted(local.ports),
        plugins=plugins,
    )


@cache
def _version() -> str:
    return version("onvm")  # reads files


def of_cluster(hosts: Iterable[LocalHost]) -> list[LocalHost]:
    """Those that are the cluster's matter."""
    return [host for host in hosts if host.state in ("active", "draining")]


def instance_facts(
    local: ClusterLocalReply,
    numbers: Mapping[str, int],
    plugins: Sequence[PluginNode],
    room: LocalResources,
    before: InstancesNode,
    heirs: Iterable[tuple[int, int]] = (),
) -> InstancesNode:
    """The NF hosts as others are to see them.

    Args:
        numbers: of all of them, by name.
        before: what others see now: what has hardly changed stays as it is there.
        heirs: of NF hosts that have moved from here, by numbers.
    """
    editions = {plugin.service: plugin.edition for plugin in plugins}
    known = {instance.number: instance for instance in before.instances}
    memory = room.free_memory_mib // MEMORY_STEP_MIB * MEMORY_STEP_MIB
    if abs(memory - before.free_memory_mib) <= MEMORY_STEP_MIB:
        memory = before.free_memory_mib
    return InstancesNode(
        free_cores=round(room.free_cores * 4) / 4,
        free_memory_mib=memory,
        instances=sorted(
            (
                _instance(host, numbers[host.name], known.get(numbers[host.name]), editions)
                for host in of_cluster(local.hosts)
            ),
            key=lambda instance: instance.number,
        ),
        heirs=sorted(heirs),
    )


def _instance(
    host: LocalHost, number: int, before: InstanceNode | None, editions: Mapping[str, Edition]
) -> InstanceNode:
    """One NF host.

    Its edition is that which was installed when it was first seen; what is installed later is not
    what runs.
    """
    return InstanceNode(
        number=number,
        name=host.name,
        services=host.services,
        editions=(
            [editions.get(service, ("", "")) for service in host.services]
            if before is None
            else before.editions
        ),
        state="draining" if host.state == "draining" else "active",
        capacity_pps=coarse(host.capacity_pps or 0, 0 if before is None else before.capacity_pps),
        claims=host.claims,
    )


def coarse(value: int, before: int) -> int:
    """Two digits of a value; the one before, when it hardly differs or the new one says nothing."""
    if value == 0 or abs(value - before) <= before * CAPACITY_STEP:
        return before
    unit = 10 ** max(len(str(value)) - 2, 0)
    return int(value // unit * unit)
