"""A small machine with network cards: qemu boots Debian's kernel on this host's own root.

The root is shared read-only, so the machine runs what is installed here, and nothing it writes
stays. It has two NUMA nodes with a CPU and a card each. Each card shares a hub with a virtio-net
device, which stands for the host at the other end of the wire. `guest.py` runs in the machine; it
tells its results in lines on the console.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CARDS", "Machine", "Outcome", "lacking", "lacks_card", "prepare"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MARK = "@onvm "
"""Begins a line on the console that holds a result, as JSON."""

_EARLY = (
    *("virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"),
    *("netfs", "fscache", "9pnet", "9pnet_virtio", "9p", "overlay"),
)
"""What the root needs, in the order in which they load. Not every kernel has each as a module."""
_LATE = (
    *("failover", "net_failover", "virtio_net", "irqbypass", "iommufd", "vfio", "vfio_virqfd"),
    *("vfio_iommu_type1", "vfio-pci-core", "vfio-pci", "uio", "uio_pci_generic"),
)
_KVM_BOOT_S = 40
"""With KVM it boots in a few seconds, or never."""
CARDS = {
    "e1000e": "e1000e",
    "igb": "igb",
    "vmxnet3": "vmxnet3",
    "virtio-net": "virtio-net-pci,disable-legacy=on,iommu_platform=on,packed=on",
}


def lacking() -> str:
    """Why no machine can be made here; "" when one can."""
    for tool, package in (
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("cpio", "cpio"),
        ("apt-get", ""),
        ("dpkg-deb", ""),
    ):
        if shutil.which(tool) is None:
            return f"no {tool}" + (f" (apt-get install {package})" if package else "")
    return ""


def lacks_card(card: str) -> str:
    """Why qemu cannot emulate `card`; "" when it can."""
    known = subprocess.run(
        ["qemu-system-x86_64", "-device", "help"], capture_output=True, text=True, check=False
    ).stdout
    device = CARDS[card].partition(",")[0]
    return "" if f'name "{device}"' in known else f"this qemu has no {device}"


def prepare(folder: Path) -> None:
    """Fetch kernel and busybox, and make the initrd.

    Raises:
        RuntimeError: a package cannot be had.
    """
    if (folder / "initrd").exists():
        return
    packages = folder / "packages"
    shutil.rmtree(folder, ignore_errors=True)
    packages.mkdir(parents=True)
    depends = _run("apt-cache", "depends", "linux-image-amd64")
    kernel = re.search(r"Depends: (linux-image-[0-9]\S+)", depends)
    if kernel is None:
        raise RuntimeError("no package linux-image-amd64")
    _run("apt-get", "download", "-q", kernel[1], "busybox-static", cwd=packages)
    for package in packages.glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(packages))
    shutil.copy(next(packages.glob("boot/vmlinuz-*")), folder / "vmlinuz")
    _modules(packages, folder / "modules", _LATE)
    tree = folder / "tree"
    for name in ("bin", "modules", "proc", "sys", "dev", "low", "upper", "merged"):
        (tree / name).mkdir(parents=True)
    busybox = next(path for path in packages.rglob("bin/busybox") if path.is_file())
    shutil.copy(busybox, tree / "bin/busybox")
    shutil.copy(HERE / "init", tree / "init")
    (tree / "init").chmod(0o755)
    _modules(packages, tree / "modules", _EARLY)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        input=names.encode(),
        capture_output=True,
        cwd=tree,
        check=True,
    )
    shutil.rmtree(packages)
    (folder / "initrd").write_bytes(archive.stdout)


def _modules(packages: Path, folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    found = []
    for name in names:
        path = next((path for path in packages.rglob(f"{name}.ko*")), None)
        if path is None:
            continue
        data = path.read_bytes()
        (folder / f"{name}.ko").write_bytes(lzma.decompress(data) if path.suffix == ".xz" else data)
        found.append(name)
    (folder / "order").write_text("\n".join(found) + "\n", encoding="ascii")


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a machine told: results by the names of cases, and its console."""

    results: dict[str, dict[str, Any]]
    console: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that can be booted.

    Attributes:
        folder: see `prepare`.
        card: a name of `CARDS`.
        address_bits: how far its IOMMU reaches; 0: it has none.
    """

    folder: Path
    card: str = "e1000e"
    address_bits: int = 48

    def run(self, cases: Sequence[Mapping[str, Any]], timeout_s: float) -> Outcome:
        """Boot, and let `guest.py` do the cases; see there for what each may have."""
        plan = {"cases": list(cases)}
        (self.folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        deadline = time.monotonic() + timeout_s
        console = ""
        for accelerator in ("kvm", "tcg,thread=multi"):
            if accelerator == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
                continue
            console = self._boot(accelerator, deadline)
            if MARK in console:  # where /dev/kvm is there, it need not work
                break
        results = {}
        for line in console.splitlines():
            if MARK in line and line.rstrip().endswith("}"):
                result = json.loads(line.partition(MARK)[2])
                results[result.pop("name")] = result
        return Outcome(results, console)

    def _boot(self, accelerator: str, deadline: float) -> str:
        """Run it to its end or the deadline; what it wrote on the console."""
        file = self.folder / "console"
        patience = time.monotonic() + _KVM_BOOT_S
        with (
            file.open("wb") as console,
            subprocess.Popen(
                self._command(accelerator),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.5)
                    is_late = accelerator == "kvm" and time.monotonic() > patience
                    if is_late and MARK not in file.read_text(errors="replace"):
                        break
            finally:
                process.kill()
        return file.read_text(errors="replace")

    def _command(self, accelerator: str) -> list[str]:
        device = f"{CARDS[self.card]},romfile="
        if self.address_bits == 0:
            device = device.replace("iommu_platform=on,", "")
        guest = f"{sys.executable},{HERE / 'guest.py'},{self.folder}"
        words = "console=ttyS0 quiet panic=-1 mitigations=off"
        if self.address_bits:
            words += " intel_iommu=on iommu=pt"
        command = [
            *("qemu-system-x86_64", "-machine", "q35,kernel-irqchip=split"),
            *("-accel", accelerator, "-cpu", "max" if "tcg" in accelerator else "host"),
            *("-m", "2G", "-smp", "2,sockets=2", "-nographic", "-nodefaults", "-no-reboot"),
            *("-serial", "stdio"),
        ]
        for node in (0, 1):
            command += [
                *("-object", f"memory-backend-ram,id=m{node},size=1G"),
                *("-numa", f"node,nodeid={node},cpus={node},memdev=m{node}"),
            ]
        if self.address_bits:
            command += ["-device", f"intel-iommu,intremap=on,aw-bits={self.address_bits}"]
        for node in (0, 1):
            bridge = f"pxb-pcie,id=x{node},bus=pcie.0,bus_nr={64 * (node + 1)},numa_node={node}"
            command += [
                *("-device", bridge),
                *("-device", f"pcie-root-port,id=r{node},bus=x{node},chassis={node + 1}"),
                *("-netdev", f"hubport,id=c{node},hubid={node}"),
                *("-device", f"{device},netdev=c{node},bus=r{node}"),
                *("-netdev", f"hubport,id=p{node},hubid={node}"),
                *("-device", f"virtio-net-pci,netdev=p{node},bus=pcie.0,romfile="),
            ]
        return [
            *command,
            *("-fsdev", "local,id=f,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=f,mount_tag=root,bus=pcie.0"),
            *("-kernel", str(self.folder / "vmlinuz"), "-initrd", str(self.folder / "initrd")),
            *("-append", f"{words} onvm.guest={guest}"),
        ]
