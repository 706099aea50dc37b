"""Placement on recorded topologies of servers and on any other: rows, and what always holds."""

from __future__ import annotations

import math
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onvm_core.dataplane.values import IdlePolicy
from onvm_core.manager.config.onvm_toml import parse_config
from onvm_core.manager.config.plan import make_plan
from onvm_core.manager.placement.allocator import (
    CpuAllocator,
    NoResourcesError,
    load_policy,
    policy_names,
)
from onvm_core.manager.placement.policy import (
    Balanced,
    Decision,
    Dedicated,
    FreeResources,
    Fusing,
    Need,
    Pack,
    Placed,
    PlacementPolicy,
    Refusal,
    fuse,
    split,
)
from onvm_core.manager.placement.topology import (
    Cpu,
    NumaNode,
    Topology,
    parse_cpu_list,
    read_topology,
)
from onvm_core.manager.ports import NULL, PCI
from onvm_core.manager.startup.environment import idle_policy
from onvm_core.plugins import NfPackage
from onvm_sdk.errors import ConfigError, PluginError
from onvm_sdk.manifest import parse_manifest

FOLDER = Path(__file__).parent / "topologies"
NAMES = ("one-socket", "two-sockets", "four-sockets")


def record(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text())


def recorded(name: str) -> Topology:
    data = record(name)
    cpus = []
    for node in data["nodes"]:
        threads = [parse_cpu_list(text) for text in node["threads"]]
        for siblings in zip(*threads, strict=True):
            cpus += [Cpu(cpu, min(siblings), node["number"]) for cpu in siblings]
    return Topology(
        cpus=tuple(sorted(cpus, key=lambda cpu: cpu.number)),
        nodes=tuple(
            NumaNode(one["number"], one["memory_mib"], one["available_mib"])
            for one in data["nodes"]
        ),
        available_mib=data["available_mib"],
        cpu_quota=data.get("cpu_quota"),
        ports=data.get("ports", {}),
    )


# ---- reading ----


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def write_host(root: Path, name: str) -> None:
    """The files in which the kernel would show a recorded host."""
    data = record(name)
    files = {"proc/meminfo": f"MemTotal: 999 kB\nMemAvailable: {data['available_mib'] << 10} kB"}
    for node in data["nodes"]:
        folder = f"sys/devices/system/node/node{node['number']}"
        number, free = node["number"], node["available_mib"] - 300
        files[f"{folder}/cpulist"] = ",".join(node["threads"])
        files[f"{folder}/meminfo"] = (
            f"Node {number} MemTotal:   {node['memory_mib'] << 10} kB\n"
            f"Node {number} MemFree:    {free << 10} kB\nNode {number} Dirty:  7 kB\n"
            f"Node {number} Active(file): {200 << 10} kB\nNode {number} Inactive(file): 1024 kB\n"
            f"Node {number} SReclaimable: {99 << 10} kB"
        )
        for siblings in zip(*map(parse_cpu_list, node["threads"]), strict=True):
            for cpu in siblings:
                files[f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = ",".join(
                    map(str, siblings)
                )
    if "cpu_quota" in data:
        files["proc/self/cgroup"] = "0::/a/b"
        files["sys/fs/cgroup/a/cpu.max"] = f"{int(data['cpu_quota'] * 100_000)} 100000"
        files["sys/fs/cgroup/a/b/cpu.max"] = "max 100000"
    for port, number in data.get("ports", {}).items():
        files[f"sys/class/net/{port}0/device/numa_node"] = str(number)
    write(root, files)


@pytest.mark.parametrize("name", NAMES)
def test_topology_is_read_from_the_kernels_files(name: str, tmp_path: Path) -> None:
    write_host(tmp_path, name)
    expected = recorded(name)
    ports = {port: f"af_packet:{port}0" for port in ("lan", "wan")}
    usable = {cpu.number for cpu in expected.cpus}
    assert read_topology(ports, root=tmp_path, usable=usable) == expected


def test_only_cpus_that_may_be_used_are_there(tmp_path: Path) -> None:
    write_host(tmp_path, "one-socket")
    found = read_topology(root=tmp_path, usable={3, 11, 5}).cpus
    assert found == (Cpu(3, 3), Cpu(5, 5), Cpu(11, 3))


# ---- deciding ----

ONE, TWO, FOUR = map(recorded, NAMES)
PAIR = Topology((Cpu(0, 0), Cpu(1, 1)), (NumaNode(0, 4096, 2048),), 2048)
SMT_PAIR = Topology((Cpu(0, 0), Cpu(1, 0)), (NumaNode(0, 4096, 2048),), 2048)
LONELY = Topology((Cpu(0, 0),), (NumaNode(0, 4096, 2048),), 2048)

ANY = Need()
LAN = Need(node=0)
WAN = Need(node=1)
WAN_ONLY = Need(node=1, only_there=True)
HALF = Need(cores=0.5)

# what, policy, topology, workers, needs, CPUs of each and whether they are its own
ROWS = {
    "each a core of its own, then siblings": (
        Balanced(),
        ONE,
        [0],
        [ANY] * 9,
        [(cpu, True) for cpu in range(1, 8)] + [(9, False), (10, False)],
    ),
    "nodes of the packets": (
        Balanced(),
        TWO,
        [1],
        [WAN, LAN, WAN],
        [(3, True), (0, True), (5, True)],
    ),
    "a core elsewhere comes before sharing": (
        Balanced(),
        TWO,
        [1],
        [WAN] * 16,
        [(cpu, True) for cpu in range(3, 33, 2)] + [(0, True)],
    ),
    "but not for who is to be with its packets": (
        Balanced(),
        TWO,
        [1],
        [WAN_ONLY] * 16,
        [(cpu, True) for cpu in range(3, 33, 2)] + [(35, False)],
    ),
    "node without memory last": (
        Balanced(),
        FOUR,
        [0],
        [Need(node=3), Need(node=3, memory_mib=600)],
        [(24, True), (1, True)],
    ),
    "several cores are of one node": (
        Balanced(),
        TWO,
        [0],
        [Need(cores=15.5, node=0), Need(cores=3, node=0)],
        [((1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), True), ((2, 4, 6), True)],
    ),
    "two CPUs, one for the worker": (
        Balanced(),
        PAIR,
        [0],
        [ANY, ANY],
        [(1, True), (1, False)],
    ),
    "nothing but the worker's core": (Balanced(), SMT_PAIR, [0], [ANY], [(1, False)]),
    "nothing but the worker's CPU": (Balanced(), LONELY, [0], [ANY], [(0, False)]),
    "workers everywhere: the least loaded": (
        Balanced(),
        PAIR,
        [0, 1],
        [ANY, HALF, HALF, HALF],
        [(0, False), (1, False), (1, False), (0, False)],
    ),
    "a usual need and a quota of half a CPU": (
        Balanced(),
        Topology((Cpu(0, 0), Cpu(1, 1)), (), 256, 0.5),
        [0],
        [ANY],
        [(1, True)],
    ),
    "packed until a CPU is full": (
        Pack(),
        ONE,
        [0],
        [HALF, HALF, HALF, ANY, HALF],
        [(1, True), (1, False), (2, True), (3, True), (2, False)],
    ),
    "packed beyond what fits": (
        Pack(),
        PAIR,
        [0],
        [HALF, ANY],
        [(1, True), (1, False)],
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_row(row: str) -> None:
    policy, topology, workers, needs, expected = ROWS[row]
    allocator = CpuAllocator(policy, topology, workers)
    found = [allocator.place(str(n), f"nf-{n}", need) for n, need in enumerate(needs)]
    assert [(one.cpus, one.is_dedicated) for one in found] == [
        (cpus if isinstance(cpus, tuple) else (cpus,), is_own) for cpus, is_own in expected
    ]


REASONS = [
    (Balanced(), TWO, [1], [WAN], "a whole core of NUMA node 1, where its packets are"),
    (Balanced(), ONE, [0], [ANY], "a whole core of NUMA node 0"),
    (
        Balanced(),
        TWO,
        [0],
        [Need(cores=16, node=0)],
        "16 whole cores of NUMA node 1: none is free on NUMA node 0, where its packets are",
    ),
    (Balanced(), PAIR, [0], [HALF, ANY], "shared with nf-0: no whole core is free"),
    (Balanced(), LONELY, [0], [ANY], "shared with a worker: no whole core is free"),
    (
        Balanced(),
        SMT_PAIR,
        [],
        [ANY, ANY],
        "its core is shared with nf-0: no whole core is free",
    ),
    (Pack(), ONE, [0], [HALF, HALF], "shared with nf-0: it fits there"),
    (Balanced(), PAIR, [0], [Need(cores=3)], "it needs 3 cores, 2 CPUs may be used here"),
    (
        Balanced(),
        PAIR,
        [0],
        [Need(cores=2)],
        "it needs 2 CPUs of a NUMA node, no node has as many for NFs",
    ),
    (
        Balanced(),
        FOUR,
        [0],
        [Need(cores=50)],
        "it needs 50 cores, its cgroup grants 48 CPUs of time",
    ),
    (
        Balanced(),
        PAIR,
        [0],
        [Need(memory_mib=1500), Need(memory_mib=600)],
        "it needs 600 MiB of memory, 548 of 2048 MiB are left",
    ),
    (Dedicated(), PAIR, [0], [ANY, ANY], "it needs a whole core and none is free"),
    (
        Dedicated(),
        TWO,
        [1],
        [Need(cores=16, node=1, only_there=True)],
        "it needs 16 whole cores of a NUMA node and as many are not free on NUMA node 1",
    ),
]


@pytest.mark.parametrize("row", REASONS, ids=lambda row: row[-1])
def test_reason_is_a_line_for_people(row: Any) -> None:
    policy, topology, workers, needs, reason = row
    allocator = CpuAllocator(policy, topology, workers)
    for number, need in enumerate(needs[:-1]):
        allocator.place(str(number), f"nf-{number}", need)
    try:
        found = allocator.place("last", "last", needs[-1]).reason
    except NoResourcesError as error:
        assert str(error) == f"no resources for last: {error.reason}"
        found = error.reason
    assert found == reason


def test_fused_nfs_need_the_memory_of_all_and_the_cores_of_one() -> None:
    text = {"schema": 1, "name": "x", "sdk": ">=0.1,<1"}
    manifests = [
        parse_manifest({**text, "cores": cores, "memory_mib": 100, "numa": numa}, "x")
        for cores, numa in ((0.5, "any"), (2.0, "port"))
    ]
    assert Need.of(manifests, 1) == Need(2.0, 26 + 74 + 74, 1, True)
    assert Need.of([], None) == Need()


# ---- what always holds ----


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Hosts with nodes of unequal size, one to three threads a core, and gaps."""
    cpus: list[Cpu] = []
    nodes = []
    for node in range(draw(st.integers(1, 4))):
        threads = draw(st.integers(1, 3))
        for _ in range(draw(st.integers(1, 5))):
            first = len(cpus)
            cpus += [Cpu(first + n, first, node) for n in range(threads)]
        nodes.append(NumaNode(node, 4096, draw(st.integers(0, 4096))))
    kept = draw(st.sets(st.sampled_from(cpus), min_size=1))
    return Topology(
        tuple(sorted(kept, key=lambda cpu: cpu.number)),
        tuple(nodes),
        draw(st.integers(0, 8192)),
        draw(st.none() | st.floats(0.1, 16)),
    )


NEEDS = st.builds(
    Need,
    cores=st.sampled_from([0, 0.1, 0.25, 0.5, 1, 1, 1, 1.5, 2, 3, 9]),
    memory_mib=st.integers(0, 1000),
    node=st.none() | st.integers(0, 4),
    only_there=st.booleans(),
)


@given(
    topologies(),
    st.data(),
    st.sampled_from([Balanced(), Dedicated(), Pack()]),
    st.lists(NEEDS, max_size=10),
)
def test_what_always_holds(
    topology: Topology, data: st.DataObject, policy: PlacementPolicy, needs: list[Need]
) -> None:
    numbers = [cpu.number for cpu in topology.cpus]
    workers = tuple(data.draw(st.sets(st.sampled_from(numbers), max_size=3)))
    core_of = {cpu.number: cpu.core for cpu in topology.cpus}
    placed: list[Placed] = []
    for order, need in enumerate(needs):
        resources = FreeResources(topology, workers, tuple(placed))
        found = policy.place(need, resources)
        assert policy.place(need, resources) == found
        assert found.reason
        assert "\n" not in found.reason
        if isinstance(found, Refusal):
            continue
        check(found, need, resources, core_of)
        placed.append(Placed(f"nf-{order}", found.cpus, need.cores, need.memory_mib))
        assert sum(one.memory_mib for one in placed) <= topology.available_mib


def check(found: Decision, need: Need, resources: FreeResources, core_of: dict[int, int]) -> None:
    topology = resources.topology
    assert len(set(found.cpus)) == len(found.cpus) == max(math.ceil(need.cores), 1)
    assert {topology.node_of(cpu) for cpu in found.cpus} == {found.node}
    taken = {cpu for one in resources.placed for cpu in one.cpus} | set(resources.workers)
    used_cores = {core_of[cpu] for cpu in taken}
    if found.is_dedicated:
        assert not {core_of[cpu] for cpu in found.cpus} & used_cores
        assert len({core_of[cpu] for cpu in found.cpus}) == len(found.cpus)
    for_nfs = [cpu for cpu in topology.cpus if cpu.number not in resources.workers]
    if for_nfs:
        assert not set(found.cpus) & set(resources.workers)
    on_node = [cpu for cpu in (for_nfs or topology.cpus) if cpu.node == need.node]
    if need.only_there and on_node:
        assert found.node == need.node
    if not found.is_dedicated and len(found.cpus) == 1:
        there = [cpu.number for cpu in (for_nfs or topology.cpus) if cpu.node == found.node]
        packed = any(resources.load(cpu) + need.cores <= 1 + 1e-9 for cpu in found.cpus)
        assert packed or resources.load(found.cpus[0]) == min(resources.load(cpu) for cpu in there)


@given(topologies(), st.lists(NEEDS, max_size=8))
def test_balanced_shares_only_when_no_core_is_free(topology: Topology, needs: list[Need]) -> None:
    placed: list[Placed] = []
    for need in needs:
        resources = FreeResources(topology, (), tuple(placed))
        found = Balanced().place(need, resources)
        if isinstance(found, Refusal):
            continue
        if not found.is_dedicated:
            assert isinstance(Dedicated().place(need, resources), Refusal)
        placed.append(Placed("x", found.cpus, need.cores, need.memory_mib))


# ---- what keeps the places ----


def test_released_place_is_free_again() -> None:
    allocator = CpuAllocator(Dedicated(), PAIR, [0])
    first = allocator.place("a", "a", ANY)
    with pytest.raises(NoResourcesError):
        allocator.place("b", "b", ANY)
    allocator.release("a")
    assert allocator.place("b", "b", ANY) == first


def test_adopted_host_has_its_cpus_and_needs_no_more_memory() -> None:
    mine = tuple(sorted(os.sched_getaffinity(0)))
    cpus = tuple(Cpu(cpu, cpu) for cpu in (*mine, 1000, 1001))
    allocator = CpuAllocator(Balanced(), Topology(cpus, (NumaNode(0, 64, 64),), 64), [])
    assert allocator.adopt("a", "a", Need(memory_mib=1000), os.getpid()) == mine
    assert allocator.adopt("gone", "gone", ANY, 1 << 30) == ()
    found = allocator.place("b", "b", Need(memory_mib=64))
    assert (found.cpus, found.is_dedicated) == ((1000,), True)


def test_packets_are_on_the_node_of_their_ports_or_of_the_workers() -> None:
    allocator = CpuAllocator(Balanced(), FOUR, [8])
    assert allocator.node_of(["wan", "lan"]) == 2
    assert allocator.node_of(["other", "lan"]) == 3
    assert allocator.node_of([]) == 1


class Careless:
    """A policy that gives what is not there."""

    def place(self, _need: Need, _resources: FreeResources) -> Decision:
        return Decision((77,), True, 0, "why not")


def test_policy_that_gives_other_cpus_is_found_out() -> None:
    with pytest.raises(PluginError, match="expected CPUs that may be used here"):
        CpuAllocator(Careless(), PAIR, []).place("a", "a", ANY)


def test_policies_come_through_the_hook() -> None:
    assert policy_names() == ["balanced", "dedicated", "pack"]
    assert isinstance(load_policy("pack"), Pack)
    with pytest.raises(ConfigError) as caught:
        load_policy("luck", file="f.toml", field="manager.placement")
    assert str(caught.value) == (
        "f.toml: manager.placement: 'luck': expected one of balanced, dedicated, pack"
    )


# ---- a whole file ----

FILE = """
[ports.lan]
uri = "null:"
[ports.wan]
uri = "pci:0000:3b:00.0"
[nfs.firewall]
instances = 2
[nfs.greedy]
launcher = "sandbox"
[[fused]]
nfs = ["nat", "lb"]
[chains.main]
in = "lan"
out = "wan"
services = ["firewall", "nat", "lb"]
"""


@pytest.fixture
def packages() -> list[NfPackage]:
    def package(name: str, **values: Any) -> NfPackage:
        data = {"schema": 1, "name": name, "service": name, "sdk": ">=0.1,<1", **values}
        manifest = parse_manifest(data, name)
        return NfPackage(name, f"onvm-nf-{name}", "0.1", "x:Y", name, manifest, Path(name))

    return [
        package("firewall", numa="port"),
        package("nat"),
        package("lb"),
        package("greedy", memory_mib=1 << 20),
    ]


def test_plan_shows_each_place_and_why(packages: list[NfPackage]) -> None:
    kinds = {"null": NULL, "pci": PCI}
    config = parse_config(FILE.encode(), Path("f"), kinds, packages, ["process", "sandbox"])
    plan = make_plan(config, packages, Balanced(), TWO, [0])
    assert not plan.is_complete
    assert [(nf.instances, nf.cpus, nf.is_dedicated, nf.node) for nf in plan.nfs] == [
        (["firewall-1"], [1], True, 1),
        (["firewall-2"], [3], True, 1),
        (["greedy-1"], [], False, None),
        (["nat-1", "lb-1"], [5], True, 1),
    ]
    refused = plan.nfs[2]
    assert refused.launcher == "sandbox"
    assert refused.reason == ("it needs 1048576 MiB of memory, 179488 of 180000 MiB are left")
    assert plan.nfs[3].memory_mib == 26 + 2 * (256 - 26)


def test_plan_says_who_shares_in_the_end(packages: list[NfPackage]) -> None:
    kinds = {"null": NULL, "pci": PCI}
    text = FILE.replace("[nfs.greedy]\nlauncher", "[nfs.nat]\n[nfs.lb]\n#")
    config = parse_config(text.encode(), Path("f"), kinds, packages)
    plan = make_plan(config, packages, Balanced(), PAIR, [0])
    assert plan.is_complete
    assert [nf.is_dedicated for nf in plan.nfs] == [False, False, False]
    assert plan.nfs[0].reason == (
        "a whole core of NUMA node 0, where its packets are; "
        "later shared with firewall-2, nat-1+lb-1"
    )


SHARED = (
    "so these NFs sleep when idle; to stay busy, each needs a CPU of its own"  # the end of a note
)


@pytest.mark.parametrize(
    ("topology", "n_nfs", "notes"),
    [
        (PAIR, 1, []),
        (PAIR, 2, [f"CPU 1 is shared by firewall-1 and firewall-2, {SHARED}"]),
        (LONELY, 1, [f"CPU 0 is shared by firewall-1 and a worker, {SHARED}"]),
        (
            PAIR,
            6,
            [
                "CPU 1 is shared by firewall-1, firewall-2, firewall-3, firewall-4 and "
                f"2 other NFs, {SHARED}"
            ],
        ),
    ],
)
@pytest.mark.parametrize("idle", ["busy", "adaptive"])
def test_plan_notes_busy_nfs_without_a_cpu_of_their_own(
    packages: list[NfPackage], topology: Topology, n_nfs: int, notes: list[str], idle: str
) -> None:
    text = f"[dataplane]\nidle = '{idle}'\n[nfs.firewall]\ninstances = {n_nfs}\n"
    config = parse_config(text.encode(), Path("f"), {"null": NULL}, packages)
    plan = make_plan(config, packages, Balanced(), topology, [0])
    assert plan.warnings == (notes if idle == "busy" else [])


@pytest.mark.parametrize(
    ("is_busy", "others", "policy"),
    [
        (True, [1], IdlePolicy.BUSY),
        (True, [0, 1], IdlePolicy.BUSY),
        (True, [0], IdlePolicy.ADAPTIVE),  # a worker that never sleeps would leave no CPU to NFs
        (False, [1], IdlePolicy.ADAPTIVE),
    ],
)
def test_idle_policy(is_busy: bool, others: list[int], policy: IdlePolicy) -> None:
    assert idle_policy(is_busy, [0], others) is policy


def cores_of(n_cores: int, n_workers: int, placed: int = 0) -> FreeResources:
    cpus = tuple(Cpu(number, number) for number in range(n_cores))
    topology = Topology(cpus, (NumaNode(0, 4096, 4096),), 4096)
    hosts = tuple(Placed(f"nf-{i}", (n_workers + i,), 1.0, 64) for i in range(placed))
    return FreeResources(topology, tuple(range(n_workers)), hosts)


@pytest.mark.parametrize(
    ("n_cores", "n_workers", "placed", "is_fused", "reason"),
    [
        (2, 1, 0, True, "fused: 1 whole core is free for 2 NFs"),
        (4, 1, 0, False, "separate: 3 whole cores are free"),
        (4, 1, 2, True, "fused: 1 whole core is free for 2 NFs"),
        (4, 1, 3, True, "fused: no whole cores are free for 2 NFs"),
        (3, 1, 0, False, "separate: 2 whole cores are free"),
    ],
)
def test_nfs_are_fused_while_cores_are_short(
    n_cores: int, n_workers: int, placed: int, is_fused: bool, reason: str
) -> None:
    assert fuse(2, cores_of(n_cores, n_workers, placed)) == Fusing(is_fused, reason)


@pytest.mark.parametrize(
    ("n_cores", "utilisation", "is_fused", "reason"),
    [
        (4, 0.5, True, "fused: one core is enough, it is used to 50%"),
        (4, 0.97, False, "separate: one core is used to 97%, there are 3 CPUs for 2 NFs"),
        (2, 0.97, True, "fused: one core is used to 97%, there is no other"),
    ],
)
def test_fused_nfs_are_separated_when_one_core_is_not_enough(
    n_cores: int, utilisation: float, is_fused: bool, reason: str
) -> None:
    assert split(2, utilisation, cores_of(n_cores, 1)) == Fusing(is_fused, reason)
