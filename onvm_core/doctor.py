"""Find out what this host can do for onvm, and how to fix what is missing.

`onvm run` with pcap and null ports needs nothing of this. Each finding says what it is for.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from pathlib import Path

from onvm_core.interfaces.checks import Severity, check_interface, missing_line
from onvm_core.interfaces.facts import InterfaceFacts, Snapshot
from onvm_core.interfaces.netlink import LOOPBACK
from onvm_core.interfaces.offloads import short_names
from onvm_core.interfaces.use import InterfaceUse
from onvm_core.launch.cgroup import Cgroups
from onvm_core.launch.cgroup_tree import kind_of, read_trees
from onvm_core.launch.container import ContainerLauncher
from onvm_core.launch.limits import Limits, describe_unenforced
from onvm_core.launch.sandbox import SandboxLauncher
from onvm_core.manager.startup.cards import (
    bind_command,
    iommu_obstacle,
    locked_memory_obstacle,
    memory_needed,
    needs_physical,
    network_cards,
)
from onvm_core.manager.startup.environment import DEFAULTS, packet_memory_bytes
from onvm_sdk.errors import ConfigError

__all__ = [
    "Finding",
    "Health",
    "InterfaceFinding",
    "InterfaceReport",
    "dpdk_drivers",
    "dpdk_version",
    "examine",
    "examine_interfaces",
]

# Bits of /proc/self/status CapEff, from linux/capability.h.
_CAPABILITIES = {"net_admin": 12, "net_raw": 13, "ipc_lock": 14, "sys_admin": 21}
_MEMORY_WANTED_MB = 512
_PACKET_BYTES = packet_memory_bytes(DEFAULTS)
_PORTS = {InterfaceUse.PACKETS: "af_packet", InterfaceUse.FRAMES: "af_xdp"}
_OFFLOADS = ("rx", "tx", "tso", "gso", "gro", "lro", "rx-gro-hw", "rxvlan", "txvlan")
_NO_IOMMU = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"


class Health(Enum):
    """True if a finding needs attention."""

    OK = "ok"
    LACK = "lack"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Args:
        subject: the subject of the check.
        found: the result.
        health: LACK if something works only, or works better, with more.
        purpose: the use of the subject.
        fix: the exact command that helps; empty if there is none. A check that is OK may have a
            command that changes it.
    """

    subject: str
    found: str
    health: Health = Health.OK
    purpose: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class InterfaceFinding:
    """A finding about an interface.

    Args:
        ports: the port kinds that it concerns.
        fix: the exact command that helps; empty if there is none.
    """

    severity: Severity
    ports: tuple[str, ...]
    text: str
    fix: str


@dataclass(frozen=True, slots=True)
class InterfaceReport:
    """The facts of an interface, and the findings for ports on it."""

    name: str
    facts: dict[str, str]
    findings: list[InterfaceFinding]


def examine_interfaces(names: Sequence[str]) -> list[InterfaceReport]:
    """Check interfaces for the ports that may use them.

    Raises:
        ConfigError: there is no interface of a name.
    """
    snapshot = Snapshot()
    host = snapshot.host()
    reports = []
    for name in dict.fromkeys(names):
        link = snapshot.find(name)
        if link is None:
            raise ConfigError(missing_line(name, host), field="INTERFACE", value=name)
        facts = snapshot.facts(link)
        ports: dict[tuple[Severity, str, str], list[str]] = {}
        for use, port in _PORTS.items():
            for one in check_interface(facts, host, use):
                ports.setdefault((one.severity, one.text, one.fix), []).append(port)
        findings = [
            InterfaceFinding(severity, tuple(concerned), text, fix)
            for (severity, text, fix), concerned in ports.items()
        ]
        weights = list(Severity)
        findings.sort(key=lambda one: weights.index(one.severity))
        reports.append(InterfaceReport(name, _facts(facts), findings))
    return reports


def _facts(facts: InterfaceFacts) -> dict[str, str]:
    """The facts of an interface for people, by what they are."""
    link, peer = facts.link, facts.peer
    state = "up" if link.is_up else "down"
    if link.is_up and not link.has_carrier:
        state = "up, no carrier"
    other = ""
    if peer is not None:
        place = " elsewhere" if peer.is_elsewhere else ""
        other = f"{peer.name or 'unknown'}{f' ({peer.command})' if peer.command else place}"
    active = [name for name, feature in facts.features.items() if feature.is_active]
    shown = [name for name in short_names(active) if name in _OFFLOADS]
    member = facts.member_of
    return {
        "kind": facts.kind,
        "driver": facts.driver,
        "state": state,
        "MTU": str(link.mtu),
        "addresses": " ".join(facts.addresses),
        "offloads": " ".join(shown),
        "member of": "" if member is None else f"{member.name} ({member.kind})",
        "on top of": facts.lower,
        "other end": other,
        "XDP program": str(link.xdp_program or ""),
    }


def examine(root: Path = Path("/")) -> list[Finding]:
    """Check the host.

    Args:
        root: folder with ``/proc``, ``/sys`` and ``/dev``.
    """
    checks: tuple[Callable[[Path], Finding], ...] = (
        _cores,
        _numa_nodes,
        _smt,
        _memory,
        _packet_memory,
        _huge_pages,
        _capabilities,
        _iommu,
        _vfio,
        _tun,
        _memlock,
        _runtime_dir,
        _cgroups,
        _sandbox,
        _container,
        _drivers,
        _compiled_kernels,
    )
    return [*(check(root) for check in checks), *_cards(root), *_interfaces(root)]


def dpdk_version() -> str:
    """Version of the linked DPDK."""
    return str(_build_info()["dpdk_version"])


def dpdk_drivers() -> list[str]:
    """Linked DPDK drivers, sorted."""
    return sorted(str(_build_info()["dpdk_drivers"]).split())


def _build_info() -> dict[str, str]:
    text = resources.files("onvm_core").joinpath("build_info.json").read_text()
    info: dict[str, str] = json.loads(text)
    return info


def _onvm() -> str:
    """Others have another PATH."""
    return shlex.quote(str(Path(sys.executable).parent / "onvm"))


def _lack_unless(is_fine: bool) -> Health:
    return Health.OK if is_fine else Health.LACK


def _read(path: Path, default: str = "") -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return default


def _cores(root: Path) -> Finding:
    usable = len(os.sched_getaffinity(0))
    return Finding(
        "cores",
        f"{usable} usable of {os.cpu_count()}",
        _lack_unless(usable >= 2),
        "one core for the manager's worker, one for NFs",
        "" if usable >= 2 else f"taskset -pc 0-{(os.cpu_count() or 1) - 1} $$",
    )


def _numa_nodes(root: Path) -> Finding:
    nodes = list((root / "sys/devices/system/node").glob("node[0-9]*"))
    return Finding(
        "NUMA nodes", str(len(nodes) or 1), purpose="NFs run on the NUMA node of their port"
    )


def _smt(root: Path) -> Finding:
    is_active = _read(root / "sys/devices/system/cpu/smt/active") == "1"
    return Finding(
        "hyper-threads",
        "on" if is_active else "off",
        Health.OK,
        "two busy-polling threads of one core share its speed",
    )


def _memory(root: Path) -> Finding:
    lines = _read(root / "proc/meminfo").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    available_mb = int(fields.get("MemAvailable", "0 kB").split()[0]) // 1024
    return Finding(
        "memory",
        f"{available_mb} MB available",
        _lack_unless(available_mb >= _MEMORY_WANTED_MB),
        "packet memory",
    )


def _packet_memory(root: Path) -> Finding:
    nodes = len(list((root / "sys/devices/system/node").glob("node[0-9]*")))
    knows = (root / "proc/self/numa_maps").exists()
    if nodes < 2:
        found = "on the only NUMA node"
    elif knows:
        found = "on each NUMA node with workers or ports, in its own memory"
    else:
        found = (
            "on each NUMA node with workers or ports, but anywhere: the kernel has no NUMA policies"
        )
    return Finding(
        "packet memory",
        found,
        _lack_unless(knows or nodes < 2),
        "packets stay in memory near the NIC and the worker",
    )


def _huge_pages(root: Path) -> Finding:
    folder = root / "sys/kernel/mm/hugepages/hugepages-2048kB"
    total = int(_read(folder / "nr_hugepages", "0"))
    free = int(_read(folder / "free_hugepages", "0"))
    is_needed = needs_physical((card.address for card in network_cards(root)), root)
    wanted = -(-memory_needed(_PACKET_BYTES) // (2 << 20))
    return Finding(
        "huge pages",
        f"{free} of {total} free (2 MB)",
        _lack_unless(not is_needed or free >= wanted),
        "needed for network cards without an IOMMU, optional for others",
        ""
        if free >= wanted
        else f"echo {total - free + wanted} | sudo tee /proc/sys/vm/nr_hugepages",
    )


def _capabilities(root: Path) -> Finding:
    fields = dict(
        line.split(":", 1) for line in _read(root / "proc/self/status").splitlines() if ":" in line
    )
    effective = int(fields.get("CapEff", "0"), 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    held = [name for name in _CAPABILITIES if name not in missing]
    added = ",".join(f"+{name}" for name in missing)
    return Finding(
        "capabilities",
        " ".join(held) or "none",
        _lack_unless(not missing),
        "af_packet: net_raw net_admin; tap: net_admin; af_xdp: also sys_admin ipc_lock",
        ""
        if not missing
        else f"sudo setpriv --reuid {os.getuid()} --regid {os.getgid()} --init-groups "
        f"--inh-caps {added} --ambient-caps {added} "
        f"{_onvm()} up",
    )


def _iommu(root: Path) -> Finding:
    folder = root / "sys/class/iommu"
    units = sorted(unit.name for unit in folder.iterdir()) if folder.is_dir() else []
    is_off = _read(root / _NO_IOMMU) in ("Y", "1")
    fix = (
        "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&intel_iommu=on iommu=pt /' /etc/default/grub"
        " && sudo update-grub && sudo reboot"
    )
    if (root / _NO_IOMMU).exists():  # not every kernel is built with this
        fix = f"echo 1 | sudo tee /{_NO_IOMMU}  # or, much safer: {fix}"
    return Finding(
        "IOMMU",
        " ".join(units) or ("none, and vfio does without" if is_off else "none"),
        _lack_unless(bool(units) or is_off),
        "network cards through vfio-pci (pci: ports)",
        "" if units or is_off else fix,
    )


def _cards(root: Path) -> list[Finding]:
    findings = []
    for card in network_cards(root):
        parts = [
            card.driver or "no driver",
            *card.interfaces,
            *([f"NUMA node {card.node}"] if card.node is not None else []),
            f"IOMMU group {card.group}" if card.has_iommu else "no IOMMU",
        ]
        fix = "" if card.driver == "vfio-pci" or iommu_obstacle(card, root) else bind_command(card)
        if fix and card.interfaces:
            fix += f"  # the kernel loses {', '.join(card.interfaces)}"
        findings.append(
            Finding(
                f"card {card.address}",
                ", ".join(parts),
                purpose=f"pci:{card.address}",
                fix=fix,
            )
        )
    return findings


def _interfaces(root: Path) -> list[Finding]:
    try:
        snapshot = Snapshot(root)
    except OSError:  # a sandbox without netlink
        return []
    findings = []
    for link in snapshot.links:
        if link.type == LOOPBACK:
            continue
        facts = _facts(snapshot.facts(link, with_peer=False))
        parts = (
            facts["kind"],
            facts["state"],
            f"MTU {link.mtu}",
            facts["addresses"].replace(" ", ", "),
            f"member of {facts['member of']}" if facts["member of"] else "",
        )
        findings.append(
            Finding(
                f"interface {link.name}",
                ", ".join(part for part in parts if part),
                purpose=f"af_packet:{link.name}, af_xdp:{link.name}",
            )
        )
    return findings


def _vfio(root: Path) -> Finding:
    is_loaded = (root / "sys/bus/pci/drivers/vfio-pci").exists()
    return Finding(
        "vfio-pci",
        "loaded" if is_loaded else "not loaded",
        _lack_unless(is_loaded),
        "real NICs (pci: ports)",
        "" if is_loaded else "sudo modprobe vfio-pci",
    )


def _tun(root: Path) -> Finding:
    exists = (root / "dev/net/tun").exists()
    return Finding(
        "/dev/net/tun",
        "there" if exists else "missing",
        _lack_unless(exists),
        "tap: ports",
        "" if exists else "sudo modprobe tun",
    )


def _memlock(root: Path) -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    obstacle, _, fix = locked_memory_obstacle(_PACKET_BYTES, root).partition("; run: ")
    if soft == resource.RLIM_INFINITY:
        found = "unlimited"
    else:
        found = f"{soft >> 20} MiB" + ("" if obstacle else " for others, unlimited here")
        if soft >= memory_needed(_PACKET_BYTES):
            found = f"{soft >> 20} MiB"
    return Finding(
        "locked memory",
        found,
        _lack_unless(not obstacle),
        f"pci: ports: {memory_needed(_PACKET_BYTES) >> 20} MiB with the defaults; af_xdp: ports",
        fix,
    )


def _runtime_dir(root: Path) -> Finding:
    name = next((one for one in ("ONVM_RUNTIME_DIR", "XDG_RUNTIME_DIR") if one in os.environ), "")
    folder = os.environ.get(name, "")
    is_fine = bool(folder) and (
        os.access(folder, os.W_OK | os.X_OK)
        or (name == "ONVM_RUNTIME_DIR" and not Path(folder).exists())  # it is made
    )
    wanted = f"/run/user/{os.getuid()}"
    return Finding(
        "runtime directory",
        folder or "XDG_RUNTIME_DIR is not set; sockets are in /tmp",
        _lack_unless(is_fine),
        "sockets of onvm up",
        ""
        if is_fine
        else f"sudo install -d -m 0700 -o {os.getuid()} {wanted}"
        f" && export XDG_RUNTIME_DIR={wanted}",
    )


def _cgroups(root: Path) -> Finding:
    """Read-only: creates no cgroup."""
    trees = read_trees(root)
    version = max((tree.version for tree in trees), default=0)
    lacking = describe_unenforced(Cgroups(root).unenforced(Limits.example(with_quota=False)))
    return Finding(
        "cgroups",
        f"{kind_of(trees)}{f', {lacking}' if lacking else ''}",
        _lack_unless(not lacking),
        "keeping NFs within their CPUs and memory",
        f"sudo systemd-run --scope -p Delegate=yes --uid={os.getuid()} {_onvm()} up"
        if lacking and version == 2
        else "",
    )


def _container(_root: Path) -> Finding:
    launcher = ContainerLauncher()
    try:
        obstacle, _, fix = launcher.obstacle().partition("; run: ")
    except ConfigError as error:
        obstacle, fix = str(error), ""
    if obstacle:
        lacking = ""
    else:
        lacking = describe_unenforced(launcher.unenforced(Limits.example(with_quota=False)))
    return Finding(
        "container",
        obstacle or f"{launcher.describe()}{f', {lacking}' if lacking else ''}",
        _lack_unless(not (obstacle or lacking)),
        'NFs with launcher = "container"',
        fix,
    )


def _sandbox(_root: Path) -> Finding:
    obstacle, _, fix = SandboxLauncher().obstacle().partition("; run: ")
    return Finding(
        "sandbox",
        obstacle or "works",
        _lack_unless(not obstacle),
        'NFs with launcher = "sandbox"',
        fix,
    )


def _drivers(root: Path) -> Finding:
    drivers = dpdk_drivers()
    ports = [name.removeprefix("net_") for name in drivers if name.startswith("net_")]
    return Finding("DPDK drivers", " ".join(ports), purpose=f"linked in, DPDK {dpdk_version()}")


def _compiled_kernels(root: Path) -> Finding:
    missing = [name for name in ("numpy", "numba") if importlib.util.find_spec(name) is None]
    return Finding(
        "compiled kernels",
        f"no {' and no '.join(missing)}" if missing else "numpy numba",
        _lack_unless(not missing),
        "NFs written as columns or @kernel",
        "" if not missing else f"{sys.executable} -m pip install 'onvm[kernels]'",
    )
