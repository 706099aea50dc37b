"""Network cards: the facts that the kernel gives, and the obstacles to their use by DPDK.

A card is used through vfio-pci: the kernel releases it, and an IOMMU lets it reach only the
manager's memory. Without an IOMMU it uses physical addresses, through vfio-pci's no-IOMMU mode or a
UIO driver; then all memory that it touches must be huge pages.

Light, because a manager asks this before the rest of it is imported.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Card",
    "bind_command",
    "card_obstacle",
    "cards_obstacle",
    "iommu_obstacle",
    "locked_memory_obstacle",
    "memory_needed",
    "needs_physical",
    "network_cards",
    "pci_address",
    "read_card",
]

_ADDRESS = re.compile(r"(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])")
_UIO = ("uio_pci_generic", "igb_uio")
_NETWORK_CLASS = "0x02"
_IPC_LOCK = 14
"""Bit of CapEff, from linux/capability.h; a process that has it has no limit on locked memory."""
EAL_MIB = 512
"""Memory that DPDK's environment takes at its start; with a card, all of it is locked."""
_HUGE_MIB = 2


def pci_address(text: str) -> str:
    """An address in full, as in sysfs, from the form that ``lspci`` prints; "" if it is not an
    address.
    """
    match = _ADDRESS.fullmatch(text.lower())
    if match is None:
        return ""
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(device, 16):02x}.{function}"


@dataclass(frozen=True, slots=True)
class Card:
    """A PCI device.

    Attributes:
        driver: its kernel driver; "" if it has none.
        group: its IOMMU group, which DPDK opens as a whole; "" when it has none.
        has_iommu: its accesses to memory are translated.
        node: its NUMA node; None when it is unknown or there is one only.
        interfaces: network interfaces that the kernel makes for it.
    """

    address: str
    driver: str = ""
    group: str = ""
    has_iommu: bool = False
    node: int | None = None
    interfaces: tuple[str, ...] = ()

    @property
    def device_file(self) -> str:
        """The device file that DPDK opens to use it through vfio-pci."""
        return f"dev/vfio/{'' if self.has_iommu else 'noiommu-'}{self.group}"


def read_card(address: str, root: Path = Path("/")) -> Card | None:
    """A device; None if there is no such device."""
    folder = root / "sys/bus/pci/devices" / address
    if not folder.exists():
        return None
    group = folder / "iommu_group"
    node = _read(folder / "numa_node")
    return Card(
        address,
        _target(folder / "driver"),
        _target(group),
        group.exists() and _read(group / "name") != "vfio-noiommu",
        int(node) if node.isdecimal() else None,
        tuple(sorted(path.name for path in (*folder.glob("net/*"), *folder.glob("virtio*/net/*")))),
    )


def network_cards(root: Path = Path("/")) -> list[Card]:
    """All network cards of this host."""
    return [
        card
        for folder in sorted((root / "sys/bus/pci/devices").glob("*"))
        if _read(folder / "class").startswith(_NETWORK_CLASS)
        and (card := read_card(folder.name, root)) is not None
    ]


def bind_command(card: Card) -> str:
    """The command line that gives a card to vfio-pci."""
    device = f"/sys/bus/pci/devices/{card.address}"
    unbind = f"echo {card.address} > {device}/driver/unbind; " if card.driver else ""
    return (
        f"sudo sh -c 'modprobe vfio-pci; {unbind}echo vfio-pci > {device}/driver_override; "
        f"echo {card.address} > /sys/bus/pci/drivers_probe'"
    )


def card_obstacle(address: str, root: Path = Path("/")) -> str:
    """The reason why DPDK cannot use a card, with the command that helps; "" if it can."""
    card = read_card(address, root)
    if card is None:
        found = ", ".join(one.address for one in network_cards(root)) or "none"
        return f"expected the address of a network card of this host ({found}); run: lspci -D"
    if card.driver != "vfio-pci" and card.driver not in _UIO:
        bound = f"bound to {card.driver}" if card.driver else "bound to no driver"
        used = f", which makes it {', '.join(card.interfaces)}" if card.interfaces else ""
        missing = iommu_obstacle(card, root)
        return f"expected a card bound to vfio-pci, is {bound}{used}; " + (
            missing or f"run: {bind_command(card)}"
        )
    return _held(card, root) if card.driver == "vfio-pci" and card.group else ""


def iommu_obstacle(card: Card, root: Path = Path("/")) -> str:
    """The reason why vfio-pci does not take a card, with the remedy; "" if it does."""
    if card.group:
        return ""
    option = root / "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    if _read(option) in ("Y", "1"):
        return ""
    boot = "boot with intel_iommu=on iommu=pt (AMD: iommu=pt)"
    if not option.exists():
        return f"there is no IOMMU for it: {boot}"
    return (
        f"there is no IOMMU for it: {boot}, or run: echo 1 | sudo tee /{option.relative_to(root)}"
    )


def _held(card: Card, root: Path) -> str:
    """One line if another process has the group of a card or this user may not open it."""
    path = root / card.device_file
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        user = f"sudo chown {os.getuid()} /{card.device_file}"
        return f"expected a card that this user may open; run: {user}"
    except OSError as error:
        if error.errno != errno.EBUSY:
            return ""  # DPDK reports the problem
        holder = _holder(f"/{card.device_file}", root)
        if holder == os.getpid():
            return ""
        by = f"process {holder}" if holder else "a process"
        command = f"ps -fp {holder}" if holder else f"sudo fuser -v /{card.device_file}"
        return f"expected a card that is free, {by} has its group {card.group}; run: {command}"
    return ""


def _holder(device_file: str, root: Path) -> int:
    for link in (root / "proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) == device_file:
                return int(link.parents[1].name)
        except OSError:
            continue
    return 0


def memory_needed(packet_bytes: int) -> int:
    """Bytes that a manager with a card locks, or has in huge pages where there is no IOMMU."""
    return (EAL_MIB << 20) + packet_bytes


def cards_obstacle(
    addresses: Sequence[str], packet_bytes: int, root: Path = Path("/")
) -> tuple[str, str]:
    """The first address whose card cannot be used, and the reason; two empty texts if all can.

    Args:
        addresses: addresses in the form of `pci_address`.
        packet_bytes: size of packet memory.
    """
    for address in addresses:
        if line := card_obstacle(address, root):
            return address, line
    if not addresses:
        return "", ""
    if needs_physical(addresses, root):
        return addresses[0], _huge_pages_obstacle(packet_bytes, root)
    return addresses[0], locked_memory_obstacle(packet_bytes, root)


def needs_physical(addresses: Iterable[str], root: Path = Path("/")) -> bool:
    """True if one of the cards is used without an IOMMU."""
    cards = (read_card(address, root) for address in addresses)
    return any(
        card is not None
        and (card.driver in _UIO or (card.driver == "vfio-pci" and not card.has_iommu))
        for card in cards
    )


def _huge_pages_obstacle(packet_bytes: int, root: Path) -> str:
    wanted = -(-memory_needed(packet_bytes) // (_HUGE_MIB << 20))
    folder = root / "sys/kernel/mm/hugepages/hugepages-2048kB"
    free, total = (int(_read(folder / name) or 0) for name in ("free_hugepages", "nr_hugepages"))
    if free >= wanted:
        return ""
    return (
        f"expected {wanted} free huge pages for a card without an IOMMU, there are {free}; run: "
        f"echo {total - free + wanted} | sudo tee /proc/sys/vm/nr_hugepages"
    )


def locked_memory_obstacle(packet_bytes: int, root: Path = Path("/")) -> str:
    """One line if the limit of locked memory is too low for a card; "" if it is not."""
    fields = dict(
        line.split(":", 1) for line in _read(root / "proc/self/status").splitlines() if ":" in line
    )
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    wanted = memory_needed(packet_bytes)
    is_free = int(fields.get("CapEff", "0"), 16) >> _IPC_LOCK & 1
    if is_free or soft == resource.RLIM_INFINITY or soft >= wanted:
        return ""
    return (
        f"expected {wanted >> 20} MiB of locked memory, the limit is {soft >> 20} MiB; run: "
        f"sudo prlimit --pid $$ --memlock={wanted}"
    )


def _target(link: Path) -> str:
    try:
        return link.readlink().name
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
