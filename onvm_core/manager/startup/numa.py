"""NUMA nodes of CPUs and devices, and the choice of those that get packet memory.

Imports little, because a manager needs this before the rest of it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from onvm_core.manager.startup.cards import pci_address

__all__ = [
    "cpu_nodes",
    "device_node",
    "memory_nodes",
    "near_cpus",
    "parse_cpu_list",
    "process_node",
]

AREAS_MAX = 8
"""NUMA nodes with packet memory (ONVM_AREAS_MAX)."""


def cpu_nodes(root: Path = Path("/")) -> dict[int, int]:
    """NUMA node of each CPU of this host; empty if the kernel knows of none."""
    return {
        cpu: int(folder.name.removeprefix("node"))
        for folder in (root / "sys/devices/system/node").glob("node[0-9]*")
        for cpu in parse_cpu_list(_read(folder / "cpulist"))
    }


def device_node(scheme: str, target: str, root: Path = Path("/")) -> int | None:
    """NUMA node of a port's device; None if there is no device or it names none."""
    if scheme == "pci" and (address := pci_address(target)):
        folder = root / "sys/bus/pci/devices" / address
    elif scheme.startswith("af_") and target and "/" not in target:
        folder = root / "sys/class/net" / target / "device"
    else:
        return None
    text = _read(folder / "numa_node")
    return int(text) if text.isdecimal() else None  # -1: unknown, or there is one node only


def memory_nodes(workers: Sequence[int], devices: Iterable[int | None]) -> tuple[int, ...]:
    """NUMA nodes that get packet memory: those of workers, then those of ports' devices."""
    wanted = [*workers, *(node for node in devices if node is not None)]
    return tuple(dict.fromkeys(wanted or [0]))[:AREAS_MAX]


def near_cpus(
    n_workers: int, cpus: Sequence[int], nodes: Mapping[int, int], ports: Iterable[int | None]
) -> list[int]:
    """CPUs for workers, near the ports: CPUs of the ports' nodes in turn, then any.

    A worker far from a card moves each packet between nodes twice.

    Args:
        cpus: CPUs that may be used, in order.
        nodes: NUMA node of each CPU.
        ports: NUMA node of each port's device; None: it has none.
    """
    wanted = list(dict.fromkeys(node for node in ports if node is not None))
    free = list(cpus)
    chosen: list[int] = []
    for worker in range(n_workers):
        node = wanted[worker % len(wanted)] if wanted else None
        near = [cpu for cpu in free if nodes.get(cpu) == node] or free
        cpu = near[0] if near else cpus[worker % len(cpus)]
        if cpu in free:
            free.remove(cpu)
        chosen.append(cpu)
    return chosen


def process_node(pid: int, nodes: Mapping[int, int]) -> int | None:
    """The one node on whose CPUs a process may run; None: several, or unknown."""
    try:
        cpus = os.sched_getaffinity(pid) if pid > 0 else set()
    except OSError:  # it has ended
        return None
    found = {nodes.get(cpu) for cpu in cpus}
    return found.pop() if len(found) == 1 else None


def parse_cpu_list(text: str) -> list[int]:
    """Numbers of a list in the kernel's notation: ``0-3,8``."""
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
