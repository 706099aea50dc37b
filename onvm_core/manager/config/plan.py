"""The plan of a file: each NF host, its CPUs and the reason, decided without starting anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from onvm_core.manager.config.onvm_toml import Config, NfGroup
from onvm_core.manager.placement.allocator import CpuAllocator, NoResourcesError
from onvm_core.manager.placement.busy import busy_notes
from onvm_core.manager.placement.memory import sized_by
from onvm_core.manager.placement.policy import Decision, Need, PlacementPolicy, fuse
from onvm_core.manager.placement.topology import Topology
from onvm_core.manager.startup.environment import DataplaneConfig, buffer_bytes
from onvm_core.manager.startup.numa import memory_nodes
from onvm_core.plugins import NfPackage, find

__all__ = ["Plan", "PlannedNf", "make_plan"]


class PlannedNf(msgspec.Struct, frozen=True):
    """An NF host that would be started.

    Attributes:
        cpus: its CPUs; empty if it is refused.
        is_dedicated: True if it would have their physical cores to itself once all are started.
        node: its NUMA node; None if it is refused.
        reason: reason for the decision or the refusal.
    """

    nfs: list[str]
    instances: list[str]
    launcher: str
    cores: float
    memory_mib: int
    is_placed: bool
    cpus: list[int]
    is_dedicated: bool
    node: int | None
    reason: str

    @property
    def group(self) -> NfGroup:
        """The group as which it would be started."""
        return NfGroup(tuple(self.nfs), tuple(self.instances), self.launcher, "")


class PlannedMemory(msgspec.Struct, frozen=True):
    """Packet memory near one NUMA node."""

    node: int
    buffers: int
    memory_mib: int


class Plan(msgspec.Struct, frozen=True):
    """All of a file's NF hosts, in the order in which they would be started."""

    policy: str
    workers: list[int]
    nfs: list[PlannedNf]
    topology: Topology
    packet_memory: list[PlannedMemory] = []
    warnings: list[str] = []
    """Limits that this host puts on a manager and its NFs, one line each."""

    @property
    def is_complete(self) -> bool:
        """True if there are resources for each NF host."""
        return all(nf.is_placed for nf in self.nfs)


def _config_of(config: Config, name: str, folder: Path) -> Path | Mapping[str, Any]:
    given = config.nfs[name].config
    return folder / given if isinstance(given, str) else given


def make_plan(
    config: Config,
    packages: Sequence[NfPackage],
    policy: PlacementPolicy,
    topology: Topology,
    workers: Sequence[int],
    folder: Path = Path(),
) -> Plan:
    """Decide for each NF host of a checked file.

    Args:
        folder: the folder of the file, where paths in it begin.
    """
    allocator = CpuAllocator(policy, topology, workers)
    planned = []
    for group, why in _decided(config, allocator):
        installed = [find(config.nfs[name].plugin or name, packages) for name in group.names]
        services = [package.service or package.name for package in installed]
        manifests = [
            sized_by(package.manifest, _config_of(config, name, folder))
            for name, package in zip(group.names, installed, strict=True)
            if package.manifest is not None
        ]
        need = Need.of(manifests, allocator.node_of(config.ports_of(services)))
        label = "+".join(group.instances)
        decision: Decision | None = None
        try:
            decision = allocator.place(label, label, need)
            reason = decision.reason
        except NoResourcesError as error:
            reason = error.reason
        planned.append(
            PlannedNf(
                nfs=list(group.names),
                instances=list(group.instances),
                launcher=group.launcher,
                cores=need.cores,
                memory_mib=need.memory_mib,
                is_placed=decision is not None,
                cpus=list(decision.cpus) if decision else [],
                is_dedicated=decision.is_dedicated if decision else False,
                node=decision.node if decision else None,
                reason=f"{why}; {reason}" if why else reason,
            )
        )
    shown = [_with_later(nf, planned[number + 1 :], topology) for number, nf in enumerate(planned)]
    return Plan(
        config.manager.placement,
        list(workers),
        shown,
        topology,
        _packet_memory(config.dataplane, topology, workers),
        busy_notes(allocator.resources) if config.dataplane.is_busy else [],
    )


def _packet_memory(
    plane: DataplaneConfig, topology: Topology, workers: Sequence[int]
) -> list[PlannedMemory]:
    of_workers = [topology.node_of(cpu) or 0 for cpu in workers]
    mib = (plane.buffers * buffer_bytes(plane.buffer_size) + (1 << 20) - 1) >> 20
    return [
        PlannedMemory(node, plane.buffers, mib)
        for node in memory_nodes(of_workers, topology.ports.values())
    ]


def _decided(config: Config, allocator: CpuAllocator) -> Iterator[tuple[NfGroup, str]]:
    """The groups in the file; those with ``fuse = "auto"`` fused or not, by the free resources
    then.
    """
    for group in config.groups():
        if not group.is_auto:
            yield group, ""
            continue
        fusing = fuse(len(group.names), allocator.resources)
        for one in [group] if fusing.is_fused else group.separate():
            yield one, fusing.reason


def _with_later(nf: PlannedNf, later: Sequence[PlannedNf], topology: Topology) -> PlannedNf:
    """Name the NF hosts that share a core once all are started."""
    core_of = {cpu.number: cpu.core for cpu in topology.cpus}
    own = {core_of[cpu] for cpu in nf.cpus}
    names = ["+".join(one.instances) for one in later if own & {core_of[cpu] for cpu in one.cpus}]
    if not nf.is_dedicated or not names:
        return nf
    reason = f"{nf.reason}; later shared with {', '.join(names)}"
    return msgspec.structs.replace(nf, is_dedicated=False, reason=reason)
