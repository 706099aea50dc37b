"""Facts of an interface, of the other end of a veth, and of this host and process."""

from __future__ import annotations

import re
import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from onvm_core.interfaces.namespaces import find_namespace
from onvm_core.interfaces.netlink import Link, Rtnetlink
from onvm_core.interfaces.offloads import Ethtool, Feature

__all__ = ["CAPABILITIES", "HostFacts", "InterfaceFacts", "Member", "Peer", "Snapshot"]

CAPABILITIES = {
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_ADMIN": 21,
}
"""Bits of CapEff in /proc/self/status, from linux/capability.h."""
_WIRELESS = ("phy80211", "wireless")
_BRIDGE_FILTERS = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a veth.

    Attributes:
        name: its name; "" if it cannot be seen.
        command: beginning of a command that runs in its namespace; "" if that is this one.
        features: None if they cannot be seen.
    """

    name: str = ""
    command: str = ""
    is_elsewhere: bool = False
    is_up: bool = True
    mtu: int = 0
    features: Mapping[str, Feature] | None = None
    bridge: str = ""
    reverse_path: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """The bridge or bond to which an interface belongs."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class InterfaceFacts:
    """All that the kernel says about an interface.

    Attributes:
        link: as the kernel describes it.
        driver: name of its driver; "" if it has none.
        addresses: its addresses with prefix length, without link-local ones.
        forwards: the IP versions of which the kernel forwards packets that it receives.
        queues: queues that only receive, and queues that also send; zeros: unknown.
        member_of: None: it is no member.
        lower: name of the interface below it, as of a VLAN; "" if it has none.
        peer: the other end, if it is a veth.
    """

    link: Link
    driver: str = ""
    is_wireless: bool = False
    addresses: tuple[str, ...] = ()
    forwards: tuple[int, ...] = ()
    features: Mapping[str, Feature] = field(default_factory=dict)
    queues: tuple[int, int] = (0, 0)
    member_of: Member | None = None
    lower: str = ""
    peer: Peer | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.link.name

    @property
    def kind(self) -> str:
        """The kernel's word for what it is, or the name of its driver."""
        return self.link.kind or ("wireless" if self.is_wireless else self.driver) or "unknown"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Settings of the host, and rights of this process.

    Attributes:
        interfaces: names of the interfaces there are.
        capabilities: effective ones among `CAPABILITIES`.
        may_lock_memory: locked memory has no limit.
        filters_bridges: bridged packets pass the host's packet filter.
    """

    interfaces: tuple[str, ...] = ()
    capabilities: frozenset[str] = frozenset(CAPABILITIES)
    may_lock_memory: bool = False
    filters_bridges: bool = False


class Snapshot:
    """The interfaces of this namespace, at one moment.

    Args:
        root: folder with ``/proc``, ``/sys`` and ``/run``.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        with Rtnetlink() as netlink:
            self._links = {link.index: link for link in netlink.links()}
            self._addresses = netlink.addresses()

    def find(self, name: str) -> Link | None:
        """The interface of that name; None if there is none."""
        return next((link for link in self._links.values() if link.name == name), None)

    @property
    def links(self) -> list[Link]:
        """All interfaces, by index."""
        return list(self._links.values())

    def host(self) -> HostFacts:
        """Facts of the host."""
        filters = (self._setting(f"net/bridge/{name}") for name in _BRIDGE_FILTERS)
        return HostFacts(
            tuple(link.name for link in self._links.values()),
            capabilities(self._root),
            resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY,
            any(filters),
        )

    def facts(self, link: Link, *, with_peer: bool = True) -> InterfaceFacts:
        """Facts of one of the interfaces; looking for the other end of a veth takes longest."""
        master = self._links.get(link.master)
        lower = self._links.get(link.lower) if link.namespace is None else None
        folder = self._root / "sys/class/net" / link.name
        with Ethtool() as ethtool:
            driver, features = ethtool.driver(link.name), _features(ethtool, link.name)
            queues = ethtool.receive_queues(link.name)
        return InterfaceFacts(
            link,
            driver,
            any((folder / name).exists() for name in _WIRELESS),
            tuple(self._addresses.get(link.index, ())),
            self._forwards(link.name),
            features or {},
            queues,
            None if master is None else Member(master.name, master.kind),
            "" if lower is None or link.kind == "veth" else lower.name,
            self._peer(link) if with_peer and link.kind == "veth" else None,
        )

    def _peer(self, link: Link) -> Peer:
        if link.namespace is not None:
            return self._peer_elsewhere(link, link.namespace)
        peer = self._links.get(link.lower)
        if peer is None:
            return Peer()
        bridge = self._links.get(peer.master)
        with Ethtool() as ethtool:
            return Peer(
                peer.name,
                is_up=peer.is_up,
                mtu=peer.mtu,
                features=_features(ethtool, peer.name),
                bridge="" if bridge is None or bridge.kind != "bridge" else bridge.name,
                reverse_path=max(
                    self._setting(f"net/ipv4/conf/{name}/rp_filter") for name in ("all", peer.name)
                ),
            )

    def _peer_elsewhere(self, link: Link, number: int) -> Peer:
        with Rtnetlink() as netlink:
            namespace = find_namespace(netlink, number, self._root)
        if namespace is None:
            return Peer(is_elsewhere=True)

        def look() -> Peer:
            with Rtnetlink() as netlink, Ethtool() as ethtool:
                found = next((one for one in netlink.links() if one.index == link.lower), None)
                if found is None:
                    return Peer(is_elsewhere=True)
                return Peer(
                    found.name,
                    namespace.command,
                    True,
                    found.is_up,
                    found.mtu,
                    _features(ethtool, found.name),
                )

        try:
            return namespace.inside(look)
        except OSError:
            return Peer(command=namespace.command, is_elsewhere=True)

    def _forwards(self, name: str) -> tuple[int, ...]:
        # The interface's own setting counts for IPv4; for IPv6 it only makes the host a router.
        settings = {4: f"net/ipv4/conf/{name}/forwarding", 6: "net/ipv6/conf/all/forwarding"}
        return tuple(version for version, path in settings.items() if self._setting(path))

    def _setting(self, path: str) -> int:
        try:
            return int((self._root / "proc/sys" / path).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0


def capabilities(root: Path = Path("/")) -> frozenset[str]:
    """The capabilities in `CAPABILITIES` that this process may use."""
    status = ""
    with suppress(OSError):
        status = (root / "proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    mask = 0 if found is None else int(found[1], 16)
    return frozenset(name for name, bit in CAPABILITIES.items() if mask >> bit & 1)


def _features(ethtool: Ethtool, name: str) -> dict[str, Feature] | None:
    try:
        return ethtool.features(name)
    except OSError:
        return None
