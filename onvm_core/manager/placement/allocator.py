"""CPU allocation: the CPUs and memory of each NF host; the policy chooses them for each new one."""

from __future__ import annotations

import os
from collections.abc import Sequence

from onvm_core.manager.cluster_view.view import LocalResources
from onvm_core.manager.placement.policy import (
    Decision,
    FreeResources,
    Need,
    Placed,
    PlacementPolicy,
    Refusal,
)
from onvm_core.manager.placement.topology import Topology
from onvm_core.plugins import PluginManager, load_plugins
from onvm_sdk.errors import ConfigError, OnvmError, PluginError
from onvm_sdk.spelling import one_of

__all__ = ["CpuAllocator", "NoResourcesError", "load_policy", "policy_names"]

HOOK = "onvm_placement_policies"


class NoResourcesError(OnvmError):
    """There are no free resources for an NF host; `reason` explains it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"no resources for {name}: {reason}")
        self.reason = reason


def policy_names(plugins: PluginManager | None = None) -> list[str]:
    """Placement policies offered by plugins (of those installed)."""
    return list((plugins or load_plugins()).offers(HOOK))


def load_policy(
    name: str,
    plugins: PluginManager | None = None,
    *,
    file: object = None,
    field: str = "placement",
) -> PlacementPolicy:
    """Make the policy of that name, as plugins (of those installed) offer it.

    Raises:
        ConfigError: no plugin offers it.
    """
    plugins = plugins or load_plugins()
    names = list(plugins.offers(HOOK))
    if name not in names:
        raise ConfigError(
            f"expected {one_of(names, name)}",
            file=None if file is None else str(file),
            field=field,
            value=name,
        )
    policy: PlacementPolicy = plugins.load(HOOK, name)()
    return policy


class CpuAllocator:
    """The CPUs and memory of the NF hosts of one manager.

    Args:
        topology: the host before the first NF host was placed: their needs are subtracted from it.
        workers: CPUs of the manager's workers.
    """

    def __init__(self, policy: PlacementPolicy, topology: Topology, workers: Sequence[int]) -> None:
        self.topology = topology
        self._policy = policy
        self._workers = tuple(workers)
        self._placed: dict[str, Placed] = {}

    def node_of(self, ports: Sequence[str]) -> int | None:
        """NUMA node of the packets of these ports: the node of their devices, or else of the
        workers.
        """
        known = (self.topology.ports.get(port) for port in ports)
        workers = (self.topology.node_of(cpu) for cpu in self._workers)
        return next((node for node in (*known, *workers) if node is not None), None)

    @property
    def resources(self) -> FreeResources:
        """The resources of the host and the current allocations."""
        return FreeResources(self.topology, self._workers, tuple(self._placed.values()))

    def place(self, key: str, name: str, need: Need) -> Decision:
        """Choose CPUs; they belong to `key` until they are released.

        Raises:
            NoResourcesError: there are no free resources.
            PluginError: the policy gives CPUs that may not be used.
        """
        found = self._policy.place(need, self.resources)
        if isinstance(found, Refusal):
            raise NoResourcesError(name, found.reason)
        usable = {cpu.number for cpu in self.topology.cpus}
        if not found.cpus or not usable.issuperset(found.cpus):
            raise PluginError(
                "expected CPUs that may be used here", field="placement", value=found.cpus
            )
        self._placed[key] = Placed(name, found.cpus, need.cores, need.memory_mib)
        return found

    def adopt(self, key: str, name: str, need: Need, pid: int) -> tuple[int, ...]:
        """Enter an NF host that runs already: it states its CPUs, and has taken its memory."""
        usable = {cpu.number for cpu in self.topology.cpus}
        try:
            cpus = os.sched_getaffinity(pid) & usable
        except OSError:  # it has just ended
            return ()
        pinned = () if cpus == usable and len(usable) > 1 else tuple(sorted(cpus))
        self._placed[key] = Placed(name, pinned, need.cores, 0)
        return pinned

    @property
    def local(self) -> LocalResources:
        """Resources that NF hosts can have here, and the free part of them.

        CPUs of workers count only where there are no others, because they are in use.
        """
        cpus = [cpu for cpu in self.topology.cpus if cpu.number not in self._workers]
        cores = float(len(cpus) or len(self.topology.cpus))
        if self.topology.cpu_quota is not None:
            cores = min(cores, self.topology.cpu_quota)
        used = sum(one.cores for one in self._placed.values())
        memory = self.topology.available_mib - sum(one.memory_mib for one in self._placed.values())
        return LocalResources(
            cores=cores,
            free_cores=max(cores - used, 0.0),
            memory_mib=sum(node.memory_mib for node in self.topology.nodes),
            free_memory_mib=max(memory, 0),
        )

    def release(self, key: str) -> None:
        """Free the resources of an NF host."""
        self._placed.pop(key, None)
