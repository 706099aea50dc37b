"""The topology on which NFs are placed: CPUs, cores, NUMA nodes, memory and the nodes of ports, as
one value.

`read_topology` looks at /sys, /proc, this process's CPU affinity and its cgroup's limits once;
everything that decides (`onvm_core.manager.placement.policy`) works on the value, so it can be
tested with the topology of any host.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from onvm_core.manager.ports import parse_uri
from onvm_core.manager.startup.numa import cpu_nodes, device_node, parse_cpu_list

__all__ = ["Cpu", "NumaNode", "Topology", "parse_cpu_list", "port_node", "read_topology"]

_NO_LIMIT_MIB = 1 << 40
"""cgroup v1 writes "no limit" as a number of pages that no host has."""


class Cpu(msgspec.Struct, frozen=True):
    """A CPU that may be used: a hardware thread.

    Attributes:
        core: its physical core, named by the lowest of the core's CPUs on the host.
    """

    number: int
    core: int
    node: int = 0


class NumaNode(msgspec.Struct, frozen=True):
    """A NUMA node with CPUs or memory."""

    number: int
    memory_mib: int
    available_mib: int


class Topology(msgspec.Struct, frozen=True):
    """A host, as far as this process may use it.

    Attributes:
        available_mib: memory that is still available on the host, or less by a cgroup's limit.
        cpu_quota: CPU time that a cgroup grants, in CPUs; None without a limit.
        ports: node of each port whose device has one, by the port's name.
    """

    cpus: tuple[Cpu, ...]
    nodes: tuple[NumaNode, ...]
    available_mib: int
    cpu_quota: float | None = None
    ports: dict[str, int] = {}

    def node_of(self, cpu: int) -> int | None:
        """NUMA node of a CPU; None if the CPU may not be used."""
        return next((one.node for one in self.cpus if one.number == cpu), None)


def read_topology(
    ports: Mapping[str, str] | None = None,
    *,
    root: Path = Path("/"),
    usable: Collection[int] | None = None,
) -> Topology:
    """Read the topology of this host.

    Args:
        ports: URI by name.
        root: folder that contains /sys and /proc.
        usable: CPUs that may be used; None: those of this process.
    """
    cpus = sorted(os.sched_getaffinity(0) if usable is None else usable)
    nodes = {
        int(folder.name.removeprefix("node")): folder
        for folder in (root / "sys/devices/system/node").glob("node[0-9]*")
    }
    node_of = cpu_nodes(root)
    available = _memory(root / "proc/meminfo").get("MemAvailable", 0)
    memory_left, quota = _cgroup_limits(root)
    placed = {name: port_node(uri, root) for name, uri in (ports or {}).items()}
    return Topology(
        cpus=tuple(Cpu(cpu, _core(root, cpu), node_of.get(cpu, 0)) for cpu in cpus),
        nodes=tuple(_node(number, nodes[number]) for number in sorted(nodes))
        or (NumaNode(0, _memory(root / "proc/meminfo").get("MemTotal", 0), available),),
        available_mib=min(available, memory_left),
        cpu_quota=quota,
        ports={name: node for name, node in placed.items() if node is not None},
    )


def port_node(uri: str, root: Path = Path("/")) -> int | None:
    """NUMA node of a port's device; None if there is no device or it names none."""
    parts = parse_uri(uri)
    return device_node(parts.scheme, parts.target, root)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _core(root: Path, cpu: int) -> int:
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return min(parse_cpu_list(_read(folder / "thread_siblings_list")), default=cpu)


def _memory(path: Path) -> dict[str, int]:
    """A meminfo file, in MiB. Lines of a node's file begin with ``Node 0``."""
    lines = (line.rpartition(":") for line in _read(path).splitlines())
    return {
        name.split()[-1]: int(value.split()[0]) >> 10 for name, _, value in lines if name and value
    }


def _node(number: int, folder: Path) -> NumaNode:
    memory = _memory(folder / "meminfo")
    # Memory that the kernel would give up for it counts as available, as in MemAvailable.
    names = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")
    return NumaNode(number, memory.get("MemTotal", 0), sum(memory.get(name, 0) for name in names))


def _cgroup_limits(root: Path) -> tuple[int, float | None]:
    """MiB and CPUs that the cgroups of this process, and those above them, leave to it."""
    memory, quotas = [_NO_LIMIT_MIB], []
    for folder in _cgroups(root, "memory"):
        for limit, usage, inactive in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            text, used = _read(folder / limit), _read(folder / usage)
            if text.isdecimal() and used.isdecimal():
                held = int(used) - _statistic(folder / "memory.stat", inactive)
                memory.append(max(int(text) - held, 0) >> 20)
    for folder in _cgroups(root, "cpu"):
        words = _read(folder / "cpu.max").split() or [
            _read(folder / "cpu.cfs_quota_us"),
            _read(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal():
            quotas.append(int(words[0]) / int(words[1]))
    return min(memory), min(quotas, default=None)


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's cgroups that may set a limit, up to the root of each tree."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            trees = [mounts / controllers, mounts / controller]
        elif number == "0":
            trees = [mounts, mounts / "unified"]  # v2 alone, or beside v1
        else:
            continue
        for tree in trees:
            yield tree
            folder = tree
            for part in Path(path).parts[1:]:
                folder /= part
                yield folder


def _statistic(path: Path, name: str) -> int:
    lines = (line.split() for line in _read(path).splitlines())
    return next((int(words[1]) for words in lines if words[:1] == [name]), 0)
