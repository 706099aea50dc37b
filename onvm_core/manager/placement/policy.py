"""The CPUs of an NF host: pure functions of its needs, the topology and earlier placements.

An NF host is admitted if

* the host has as many cores as it needs, and a cgroup's quota, rounded up, is as large;
* the memory it needs is left after all placed NF hosts have taken theirs.

Its place:

* CPUs of workers are for workers, unless there are no others; a CPU whose core a worker uses comes
  after all others.
* The NUMA node of its packets comes first: the node of its ports, or else of the workers. An NF
  whose manifest says ``numa = "port"`` goes nowhere else while that node has CPUs for NFs.
* A whole physical core that is free, on any node that will do, comes before sharing.
* Otherwise it shares the CPU with the least load; load is the sum of the ``cores`` of the NF hosts
  on that CPU.

NFs that may be fused (``fuse = "auto"``) share a process while cores are short: a burst that stays
on one core costs less than one that changes cores. They are separated when that core is not enough,
which shows only under traffic.

A policy (hook `onvm_placement_policies`) decides between these; three are here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from onvm_core.manager.placement.topology import Cpu, Topology
from onvm_sdk.manifest import Manifest

__all__ = [
    "DEFAULT_POLICY",
    "Balanced",
    "Decision",
    "Dedicated",
    "FreeResources",
    "Fusing",
    "Need",
    "Pack",
    "Placed",
    "PlacementPolicy",
    "Refusal",
    "admit",
    "fuse",
    "split",
]

DEFAULT_POLICY = "balanced"
SPLIT_AT = 0.85
"""Utilisation of a fused chain above which one core is not enough."""
FULL = 1.0 + 1e-9
"""Load of a fully loaded CPU; sums of decimal fractions are not exact."""


SHARED_MIB = 26
"""Memory that a process needs before its NF does anything: interpreter, SDK and NumPy."""


class Need(msgspec.Struct, frozen=True):
    """The resources that an NF host needs.

    Attributes:
        node: NUMA node of its packets; None if it is unknown.
        only_there: True if it must run there; otherwise it is a preference.
    """

    cores: float = 1.0
    memory_mib: int = 256
    node: int | None = None
    only_there: bool = False

    @classmethod
    def of(cls, manifests: Iterable[Manifest], node: int | None) -> Need:
        """The needs of NFs that share a process: one thread runs them all, each with its own
        memory.

        Each manifest states the need of a separate process; `SHARED_MIB` of it is needed only once.
        """
        given = list(manifests)
        if not given:
            return cls(node=node)
        return cls(
            cores=max(manifest.cores for manifest in given),
            memory_mib=SHARED_MIB
            + sum(max(manifest.memory_mib - SHARED_MIB, 0) for manifest in given)
            if len(given) > 1
            else given[0].memory_mib,
            node=node,
            only_there=any(manifest.numa == "port" for manifest in given),
        )


class Placed(msgspec.Struct, frozen=True):
    """An NF host and its CPUs; with none it may run anywhere."""

    name: str
    cpus: tuple[int, ...]
    cores: float
    memory_mib: int


class FreeResources(msgspec.Struct, frozen=True):
    """The host, and what is taken: CPUs of workers, and the NF hosts."""

    topology: Topology
    workers: tuple[int, ...] = ()
    placed: tuple[Placed, ...] = ()

    def load(self, cpu: int) -> float:
        """Cores that the NF hosts placed on a CPU need of it."""
        return sum(one.cores / len(one.cpus) for one in self.placed if cpu in one.cpus)

    def names_on(self, cpu: int) -> list[str]:
        """Names of the NF hosts on a CPU."""
        return [one.name for one in self.placed if cpu in one.cpus]

    def is_free(self, core: int) -> bool:
        """True if no worker and no NF host has a CPU of a physical core."""
        taken = {cpu for one in self.placed for cpu in one.cpus} | set(self.workers)
        return not any(cpu.number in taken for cpu in self.topology.cpus if cpu.core == core)


class Decision(msgspec.Struct, frozen=True):
    """The place of an NF host.

    Attributes:
        cpus: one for each core it needs, all of one node.
        is_dedicated: True if it has their physical cores to itself.
        reason: the reason, as one line for people.
    """

    cpus: tuple[int, ...]
    is_dedicated: bool
    node: int
    reason: str


class Refusal(msgspec.Struct, frozen=True):
    """The reason why there are no resources, in one line."""

    reason: str


class Fusing(msgspec.Struct, frozen=True):
    """The decision whether NFs share a process, and its reason in one line."""

    is_fused: bool
    reason: str


class PlacementPolicy(Protocol):
    """Decides where an NF host runs. It keeps no state: equal arguments give equal decisions."""

    def place(self, need: Need, resources: FreeResources) -> Decision | Refusal:
        """Choose CPUs for `need`."""


class Balanced:
    """A core for each NF host while there are any, then the least loaded CPU."""

    def place(self, need: Need, resources: FreeResources) -> Decision | Refusal:
        """Choose CPUs for `need`."""
        return admit(need, resources) or _dedicated(need, resources) or _shared(need, resources)


class Dedicated:
    """A core for each NF host, or a refusal."""

    def place(self, need: Need, resources: FreeResources) -> Decision | Refusal:
        """Choose CPUs for `need`."""
        found = admit(need, resources) or _dedicated(need, resources)
        if found is not None:
            return found
        where = f" on NUMA node {need.node}" if need.only_there and need.node is not None else ""
        count = _count(need)
        return Refusal(
            f"it needs {'a whole core' if count == 1 else f'{count} whole cores of a NUMA node'} "
            f"and {'none is' if count == 1 else 'as many are not'} free{where}"
        )


class Pack:
    """As few CPUs as can hold the load: for hosts that have other work too."""

    def place(self, need: Need, resources: FreeResources) -> Decision | Refusal:
        """Choose CPUs for `need`."""
        refusal = admit(need, resources)
        if refusal is not None:
            return refusal
        share = need.cores / _count(need)
        for node in _nodes_for(need, resources):
            fitting = [
                cpu
                for cpu in _for_nfs(resources, node)
                if resources.names_on(cpu.number) and resources.load(cpu.number) + share <= FULL
            ]
            fitting.sort(key=lambda cpu: (-resources.load(cpu.number), cpu.number))
            if len(fitting) >= _count(need):
                return _sharing(fitting[: _count(need)], resources, "it fits there")
        return _dedicated(need, resources) or _shared(need, resources)


def fuse(n_nfs: int, resources: FreeResources) -> Fusing:
    """Decide if NFs start fused: they do as long as there is not a whole core for each."""
    cpus = [cpu for node in _all_nodes(resources) for cpu in _for_nfs(resources, node)]
    free = len({cpu.core for cpu in cpus if resources.is_free(cpu.core)})
    if free >= n_nfs:
        return Fusing(False, f"separate: {free} whole cores are free")
    return Fusing(True, f"fused: {_cores(free)} free for {n_nfs} NFs")


def split(n_nfs: int, utilisation: float, resources: FreeResources) -> Fusing:
    """Decide if fused NFs stay fused: until one core is not enough and others would help."""
    if utilisation < SPLIT_AT:
        return Fusing(True, f"fused: one core is enough, it is used to {utilisation:.0%}")
    cpus = [cpu for node in _all_nodes(resources) for cpu in _for_nfs(resources, node)]
    if len(cpus) < 2:
        return Fusing(True, f"fused: one core is used to {utilisation:.0%}, there is no other")
    return Fusing(
        False,
        f"separate: one core is used to {utilisation:.0%}, "
        f"there are {len(cpus)} CPUs for {n_nfs} NFs",
    )


def _all_nodes(resources: FreeResources) -> list[int]:
    return sorted({cpu.node for cpu in resources.topology.cpus})


def _cores(count: int) -> str:
    return "1 whole core is" if count == 1 else f"{count or 'no'} whole cores are"


def admit(need: Need, resources: FreeResources) -> Refusal | None:
    """The reason why the host lacks the needed resources; None if it has them."""
    topology = resources.topology
    if _count(need) > len(topology.cpus):
        return Refusal(f"it needs {_count(need)} cores, {len(topology.cpus)} CPUs may be used here")
    # Rounded up: a manifest's usual 1 must run in a container with half a CPU, too.
    if topology.cpu_quota is not None and _count(need) > max(math.ceil(topology.cpu_quota), 1):
        return Refusal(
            f"it needs {need.cores:g} cores, its cgroup grants {topology.cpu_quota:g} CPUs of time"
        )
    left = topology.available_mib - sum(one.memory_mib for one in resources.placed)
    if need.memory_mib > left:
        return Refusal(
            f"it needs {need.memory_mib} MiB of memory, {max(left, 0)} of "
            f"{topology.available_mib} MiB are left"
        )
    return None


def _count(need: Need) -> int:
    return max(math.ceil(need.cores), 1)


def _nodes_for(need: Need, resources: FreeResources) -> list[int]:
    """NUMA nodes in the order in which they are tried: the node of the packets, then the emptiest.

    A node without the needed memory comes last: the memory would come from other nodes.
    """
    topology = resources.topology
    memory = {one.number: one.available_mib for one in topology.nodes}
    for one in resources.placed:
        if one.cpus:
            node = topology.node_of(one.cpus[0])
            if node in memory:
                memory[node] -= one.memory_mib

    def rank(node: int) -> tuple[bool, bool, float, int]:
        load = sum(resources.load(cpu.number) for cpu in topology.cpus if cpu.node == node)
        lacks = need.memory_mib > memory.get(node, need.memory_mib)
        return lacks, node != need.node, load, node

    ordered = sorted({cpu.node for cpu in topology.cpus}, key=rank)
    if need.only_there and need.node is not None and _for_nfs(resources, need.node):
        return [need.node]
    return ordered


def _for_nfs(resources: FreeResources, node: int) -> list[Cpu]:
    """CPUs of a node that NFs may have; CPUs of workers only where the host has no others."""
    cpus = resources.topology.cpus
    others = [cpu for cpu in cpus if cpu.number not in resources.workers] or cpus
    return [cpu for cpu in others if cpu.node == node]


def _dedicated(need: Need, resources: FreeResources) -> Decision | None:
    count = _count(need)
    for node in _nodes_for(need, resources):
        first_of = {cpu.core: cpu for cpu in reversed(_for_nfs(resources, node))}
        free = sorted(core for core in first_of if resources.is_free(core))
        if len(free) >= count:
            cpus = tuple(first_of[core].number for core in free[:count])
            return Decision(cpus, True, node, _why_dedicated(cpus, node, need))
    return None


def _why_dedicated(cpus: Sequence[int], node: int, need: Need) -> str:
    cores = "a whole core" if len(cpus) == 1 else f"{len(cpus)} whole cores"
    if need.node is None:
        return f"{cores} of NUMA node {node}"
    if node == need.node:
        return f"{cores} of NUMA node {node}, where its packets are"
    return (
        f"{cores} of NUMA node {node}: none is free on NUMA node {need.node}, where its packets are"
    )


def _shared(need: Need, resources: FreeResources) -> Decision | Refusal:
    count = _count(need)
    best: tuple[tuple[float, ...], list[Cpu]] | None = None
    workers_cores = {cpu.core for cpu in resources.topology.cpus if cpu.number in resources.workers}

    def rank(cpu: Cpu) -> tuple[float, ...]:
        core = [one for one in resources.topology.cpus if one.core == cpu.core]
        core_load = sum(resources.load(one.number) for one in core)
        return resources.load(cpu.number), cpu.core in workers_cores, core_load, cpu.number

    for order, node in enumerate(_nodes_for(need, resources)):
        cpus = sorted(_for_nfs(resources, node), key=rank)[:count]
        if len(cpus) == count:
            rated = (*rank(cpus[-1])[:2], order)
            if best is None or rated < best[0]:
                best = rated, cpus
    if best is None:
        return Refusal(f"it needs {count} CPUs of a NUMA node, no node has as many for NFs")
    return _sharing(best[1], resources, "no whole core is free")


def _sharing(cpus: Sequence[Cpu], resources: FreeResources, why: str) -> Decision:
    names = sorted({name for cpu in cpus for name in resources.names_on(cpu.number)})
    if any(cpu.number in resources.workers for cpu in cpus):
        names.append("a worker")
    if names:
        text = f"shared with {', '.join(names)}: {why}"
    else:
        text = f"its core is shared with {_neighbours(cpus, resources)}: {why}"
    return Decision(tuple(cpu.number for cpu in cpus), False, cpus[0].node, text)


def _neighbours(cpus: Sequence[Cpu], resources: FreeResources) -> str:
    """NF hosts that use the other CPUs of these CPUs' cores."""
    cores = {cpu.core for cpu in cpus}
    beside = [cpu.number for cpu in resources.topology.cpus if cpu.core in cores]
    names = sorted({name for cpu in beside for name in resources.names_on(cpu)})
    if set(beside) & set(resources.workers):
        names.append("a worker")
    return ", ".join(names) or "no other NF"
