"""The topology of hosts that show little, with limits of cgroups and with network cards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onvm_core.manager.placement.topology import Cpu, NumaNode, Topology, port_node, read_topology
from onvm_core.manager.startup.numa import near_cpus


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_host_that_shows_little_is_one_socket(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal: 2048 kB\nMemAvailable: 1024 kB"})
    assert read_topology(root=tmp_path, usable={0, 1}) == Topology(
        (Cpu(0, 0), Cpu(1, 1)), (NumaNode(0, 2, 1),), 1
    )


def test_this_host_can_be_read() -> None:
    found = read_topology()
    assert {cpu.number for cpu in found.cpus} == os.sched_getaffinity(0)
    assert found.available_mib > 0


GIB = 1 << 30
LIMITS = {
    "v2": (
        "0::/x/y",
        {
            "x/memory.max": str(GIB),
            "x/memory.current": str(GIB // 2),
            "x/memory.stat": f"anon 5\ninactive_file {GIB // 4}",
            "x/y/memory.max": "max",
            "x/y/memory.current": "5",
            "x/y/cpu.max": "150000 100000",
        },
        768,
        1.5,
    ),
    "v1": (
        "4:memory:/x\n1:cpu,cpuacct:/y\n0::/",
        {
            "memory/x/memory.limit_in_bytes": str(GIB),
            "memory/x/memory.usage_in_bytes": "0",
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": "77",
            "cpu,cpuacct/y/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/y/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
        1024,
        0.5,
    ),
    "hybrid": (
        "4:memory:/x\n0::/z",
        {
            "memory/x/memory.limit_in_bytes": str(2 * GIB),
            "memory/x/memory.usage_in_bytes": "0",
            "unified/z/cpu.max": "max 100000",
        },
        2048,
        None,
    ),
    "container that sees its own root": (
        "0::/",
        {"memory.max": str(GIB), "memory.current": "0", "cpu.max": "200000 100000"},
        1024,
        2.0,
    ),
    "none": ("0::/", {}, 4096, None),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_cgroups_count(name: str, tmp_path: Path) -> None:
    groups, files, memory_mib, quota = LIMITS[name]
    write(tmp_path, {f"sys/fs/cgroup/{path}": text for path, text in files.items()})
    write(tmp_path, {"proc/self/cgroup": groups, "proc/meminfo": "MemAvailable: 4194304 kB"})
    found = read_topology(root=tmp_path, usable={0})
    assert (found.available_mib, found.cpu_quota) == (memory_mib, quota)


def test_port_has_the_node_of_its_device(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "sys/class/net/eth1/device/numa_node": "1",
            "sys/class/net/eth2/device/numa_node": "-1",
            "sys/bus/pci/devices/0000:3b:00.0/numa_node": "2",
        },
    )
    expected = {
        "af_packet:eth1?queues=2": 1,
        "af_xdp:eth1": 1,
        "af_packet:eth2": None,
        "af_packet:none": None,
        "af_packet:": None,
        "pci:0000:3B:00.0": 2,
        "pci:3b:00.0": 2,
        "pci:../../x": None,
        "null:": None,
        "tap:eth1": None,
    }
    assert {uri: port_node(uri, tmp_path) for uri in expected} == expected


TWO_NODES = {0: 0, 1: 0, 2: 1, 3: 1}


@pytest.mark.parametrize(
    ("n_workers", "ports", "chosen"),
    [
        (1, [], [0]),
        (1, [None, None], [0]),
        (1, [1, 1], [2]),
        (1, [None, 1], [2]),
        (2, [0, 1], [0, 2]),
        (2, [1, 0], [2, 0]),
        (2, [1, 1], [2, 3]),
        (3, [1, 1], [2, 3, 0]),
        (2, [7, 7], [0, 1]),
        (5, [1, None], [2, 3, 0, 1, 0]),
    ],
)
def test_workers_run_near_the_ports(
    n_workers: int, ports: list[int | None], chosen: list[int]
) -> None:
    assert near_cpus(n_workers, [0, 1, 2, 3], TWO_NODES, ports) == chosen


def test_workers_take_the_first_cpus_of_a_host_without_nodes() -> None:
    assert near_cpus(2, [4, 5], {}, [None]) == [4, 5]
