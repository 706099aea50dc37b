"""Checks of an interface for a port: from facts to findings, without a look at the system.

Each finding is one line. An error says what was expected, because nothing would pass; a warning
says what goes wrong for some packets; a note says what else happens on the interface.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from onvm_core.interfaces.facts import HostFacts, InterfaceFacts, Peer
from onvm_core.interfaces.netlink import ETHERNET, LOOPBACK
from onvm_core.interfaces.offloads import CHECKSUMS, SEGMENTATION, VLAN_INSERTION, short_names
from onvm_core.interfaces.use import InterfaceUse

__all__ = [
    "FRAME_MTU_MAX",
    "Finding",
    "Severity",
    "check_interface",
    "check_mtus",
    "missing_line",
    "with_capabilities",
]

FRAME_MTU_MAX = 1770
"""Largest MTU whose packets, with two VLAN tags, fit a frame of an XDP socket of DPDK's driver."""
IPV6_MTU_MIN = 1280
"""RFC 8200, section 5."""
_NAMES_SHOWN = 6
_TAGS_BYTES = 8
"""Two VLAN tags: an MTU may be larger by them."""
_RIGHTS = {
    InterfaceUse.PACKETS: ("CAP_NET_RAW",),
    InterfaceUse.FRAMES: ("CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
}
_DO_NOT_FORWARD = {4: "net.ipv4.conf.{}.forwarding=0", 6: "net.ipv6.conf.{}.disable_ipv6=1"}
_OWN_ADDRESS = ("macvlan", "ipvlan")


class Severity(Enum):
    """The weight of a finding."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """A result of a check.

    Args:
        text: one line; that of an error begins with "expected".
        fix: the command that helps; "" if there is none.
    """

    severity: Severity
    text: str
    fix: str = ""

    @property
    def line(self) -> str:
        """Text and command."""
        return f"{self.text}; run: {self.fix}" if self.fix else self.text


def missing_line(name: str, host: HostFacts) -> str:
    """The line for an interface that does not exist, with the names that come closest."""
    import difflib  # not on the way of a port that is fine

    close = difflib.get_close_matches(name, host.interfaces, _NAMES_SHOWN, 0.5)
    names = [*close, *(one for one in host.interfaces if one not in close)]
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
    return f"expected the name of a network interface ({shown or 'there are none'})"


def check_interface(
    facts: InterfaceFacts,
    host: HostFacts,
    use: InterfaceUse,
    *,
    mtu: int = 0,
    queues: int = 1,
    is_open: bool = False,
) -> list[Finding]:
    """All findings for a port that uses an interface in one way.

    Args:
        mtu: the MTU that the port sets; 0: it leaves it.
        queues: receive queues of the port.
        is_open: the port is open, and an XDP program on the interface may be its own.
    """
    checks = (
        _rights(facts, host, use, mtu),
        _state(facts),
        _type(facts, use),
        _membership(facts, use),
        _addresses(facts, use),
        _sizes(facts, use, mtu),
        _queues(facts, use, queues),
        _merging(facts, use),
        () if is_open and use is InterfaceUse.FRAMES else _programs(facts, use),
        _other_end(facts, host, use),
    )
    return [finding for check in checks for finding in check]


def check_mtus(mtus: dict[str, int]) -> list[Finding]:
    """Findings about the ports of a manager together.

    Args:
        mtus: MTU by the name of the interface.
    """
    if len(set(mtus.values())) < 2:
        return []
    listed = ", ".join(f"{name} {mtu}" for name, mtu in mtus.items())
    text = (
        f"MTUs differ ({listed}): a packet larger than the MTU of the interface it leaves is lost, "
        "unless a router in the chain says so to its sender"
    )
    return [Finding(Severity.WARNING, text)]


def with_capabilities(names: Sequence[str]) -> str:
    """The command that runs this manager again, as this user and with capabilities.

    Args:
        names: such as CAP_NET_RAW. All that are needed: what this process holds does not survive
            sudo.
    """
    added = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names)
    program = str(Path(sys.executable).parent / "onvm")  # sudo has another PATH
    arguments = sys.argv[1:] if sys.argv[1:2] in (["run"], ["up"]) else ["up"]
    return (
        f"sudo setpriv --reuid $(id -u) --regid $(id -g) --init-groups --inh-caps {added} "
        f"--ambient-caps {added} {shlex.join([program, *arguments])}"
    )


def _rights(
    facts: InterfaceFacts, host: HostFacts, use: InterfaceUse, mtu: int
) -> Iterator[Finding]:
    wanted = list(_RIGHTS[use])
    if mtu not in (0, facts.link.mtu) and "CAP_NET_ADMIN" not in wanted:
        wanted.append("CAP_NET_ADMIN")
    if use is InterfaceUse.FRAMES and not host.may_lock_memory:
        wanted.append("CAP_IPC_LOCK")
    missing = [name for name in wanted if name not in host.capabilities]
    if missing:
        yield Finding(
            Severity.ERROR,
            f"expected the {'capability' if len(missing) == 1 else 'capabilities'} "
            f"{', '.join(missing)} (as root has, or a systemd unit with "
            f"AmbientCapabilities={' '.join(wanted)})",
            with_capabilities(wanted),
        )


def _state(facts: InterfaceFacts) -> Iterator[Finding]:
    if not facts.link.is_up:
        yield Finding(
            Severity.ERROR, "expected an interface that is up", f"ip link set dev {facts.name} up"
        )
    elif not facts.link.has_carrier:
        if facts.peer is None:
            text, fix = f"{facts.name} has no carrier: no cable, or the other side is down", ""
            if facts.kind in ("tun", "tap"):
                text = f"{facts.name} has no carrier: no program has opened it"
        else:
            text, fix = f"{facts.name} has no carrier: the other end is down", ""
            if facts.peer.name:
                fix = _there(facts.peer, f"ip link set dev {facts.peer.name} up")
        yield Finding(Severity.WARNING, text, fix)


def _type(facts: InterfaceFacts, use: InterfaceUse) -> Iterator[Finding]:
    name = facts.name
    if facts.link.type == LOOPBACK:
        yield Finding(
            Severity.WARNING, f"{name} gives back each packet that is sent: packets go in circles"
        )
    elif facts.link.type != ETHERNET:
        yield Finding(
            Severity.ERROR,
            f"expected an interface with Ethernet frames, {name} ({facts.kind}) has others",
        )
    elif facts.is_wireless:
        yield Finding(
            Severity.WARNING,
            f"{name} is wireless: a station may send only from its own address, and packets of "
            f"others are lost; route instead, or make it an access point",
        )
    elif facts.kind in _OWN_ADDRESS:
        yield Finding(
            Severity.WARNING, f"{name} is a {facts.kind}: it gets only packets for its own address"
        )
    elif facts.kind == "bridge" and use is InterfaceUse.PACKETS:
        yield Finding(
            Severity.NOTE,
            f"{name} is a bridge, which forwards packets between its members by itself as well",
        )
    elif facts.kind == "vlan":
        lower = f" of {facts.lower}" if facts.lower else ""
        yield Finding(Severity.NOTE, f"{name} is a VLAN{lower}: packets come without that tag")


def _membership(facts: InterfaceFacts, use: InterfaceUse) -> Iterator[Finding]:
    if facts.member_of is None:
        return
    master, name = facts.member_of, facts.name
    fix = f"ip link set dev {name} nomaster"
    if master.kind == "bridge":
        if use is InterfaceUse.PACKETS:
            text = (
                f"{name} is a member of the bridge {master.name}, which forwards the same packets"
            )
        else:
            text = f"{name} is a member of the bridge {master.name}, which gets no packets from it"
        yield Finding(Severity.WARNING, text, fix)
    elif master.kind in ("bond", "team"):
        yield Finding(
            Severity.WARNING,
            f"{name} is a member of the {master.kind} {master.name}, which spreads packets over "
            f"its members; use {master.name}",
        )


def _addresses(facts: InterfaceFacts, use: InterfaceUse) -> Iterator[Finding]:
    if not facts.addresses:
        return
    name, listed = facts.name, ", ".join(facts.addresses)
    versions = [
        version
        for version in facts.forwards
        if any((":" in one) == (version == 6) for one in facts.addresses)
    ]
    if use is InterfaceUse.FRAMES:
        yield Finding(
            Severity.WARNING,
            f"this host has addresses on {name} ({listed}), which can no longer be reached",
        )
    elif versions:
        yield Finding(
            Severity.WARNING,
            f"this host has addresses on {name} ({listed}) and forwards packets, so the kernel "
            f"forwards the same packets as the chain",
            " ".join(("sysctl -w", *(_DO_NOT_FORWARD[one].format(name) for one in versions))),
        )
    else:
        yield Finding(
            Severity.NOTE,
            f"this host has addresses on {name} ({listed}): the kernel answers packets to them, "
            f"which also enter the chain",
        )


def _sizes(facts: InterfaceFacts, use: InterfaceUse, mtu: int) -> Iterator[Finding]:
    name = facts.name
    own = mtu or facts.link.mtu
    if use is InterfaceUse.FRAMES and mtu > FRAME_MTU_MAX:
        yield Finding(
            Severity.ERROR,
            f"expected an MTU of at most {FRAME_MTU_MAX}: larger packets do not fit XDP frames",
        )
    elif use is InterfaceUse.FRAMES and own > FRAME_MTU_MAX:
        yield Finding(
            Severity.WARNING,
            f"the MTU of {name} is {own}: packets of more than {FRAME_MTU_MAX} bytes do not fit "
            f"XDP frames and are lost",
            f"ip link set dev {name} mtu {FRAME_MTU_MAX}",
        )
    if 0 < mtu < IPV6_MTU_MIN and any(":" in one for one in facts.addresses):
        yield Finding(
            Severity.WARNING,
            f"below an MTU of {IPV6_MTU_MIN} the kernel removes the IPv6 addresses of {name}, and "
            f"does not give them back",
        )
    peer = facts.peer
    if peer is not None and peer.mtu and not 0 <= own - peer.mtu <= _TAGS_BYTES:
        yield Finding(
            Severity.WARNING,
            f"the MTU of {name} is {own}, that of the other end ({peer.name}) {peer.mtu}: larger "
            f"packets are lost",
            _there(peer, f"ip link set dev {peer.name} mtu {own}"),
        )


def _queues(facts: InterfaceFacts, use: InterfaceUse, queues: int) -> Iterator[Finding]:
    """A packet socket gets packets of all queues, an XDP socket those of one."""
    found = sum(facts.queues)
    if use is InterfaceUse.PACKETS or found in (0, queues):
        return
    kind = "combined" if facts.queues[1] else "rx"
    fix = f"ethtool -L {facts.name} {kind} {queues}"
    if found < queues:
        yield Finding(
            Severity.ERROR,
            f"expected at most {found} queues, as many as {facts.name} has; set ?queues={found}",
            fix,
        )
    else:
        yield Finding(
            Severity.WARNING,
            f"{facts.name} has {found} receive queues, and the port takes packets of {queues}: "
            f"those of others do not enter the chain; set ?queues={found}",
            fix,
        )


def _merging(facts: InterfaceFacts, use: InterfaceUse) -> Iterator[Finding]:
    lro = facts.features.get("rx-lro")
    if use is InterfaceUse.PACKETS and lro is not None and lro.is_active:
        yield Finding(
            Severity.WARNING,
            f"{facts.name} merges received packets (LRO), and they cannot be sent on as they came",
            f"ethtool -K {facts.name} lro off",
        )


def _programs(facts: InterfaceFacts, use: InterfaceUse) -> Iterator[Finding]:
    number = facts.link.xdp_program
    if number:
        effect = "sees packets first" if use is InterfaceUse.PACKETS else "is on the interface"
        yield Finding(
            Severity.WARNING,
            f"an XDP program (number {number}) {effect}: a port, or what a killed one left",
            f"ip link set dev {facts.name} xdp off",
        )


def _other_end(facts: InterfaceFacts, host: HostFacts, use: InterfaceUse) -> Iterator[Finding]:
    peer = facts.peer
    if peer is None:
        return
    if use is InterfaceUse.FRAMES and peer.is_elsewhere:
        yield from _offloads_elsewhere(facts, peer)
    if peer.bridge and host.filters_bridges:
        yield Finding(
            Severity.NOTE,
            f"packets of {peer.bridge}, to which the other end ({peer.name}) belongs, pass this "
            f"host's packet filter",
            "sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
        )
    if peer.reverse_path == 1 and not peer.bridge:
        yield Finding(
            Severity.NOTE,
            f"the other end ({peer.name}) drops packets whose source it would reach another way",
            f"sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{peer.name}.rp_filter=2",
        )


def _offloads_elsewhere(facts: InterfaceFacts, peer: Peer) -> Iterator[Finding]:
    """A veth has no hardware that would do the work: its other end must do it before it sends."""
    if peer.features is None:
        yield Finding(
            Severity.WARNING,
            f"the other end of {facts.name} is in another namespace, which this process may not "
            f"enter, and must send whole packets",
            _there(peer, f"ethtool -K {peer.name or 'PEER'} tx off tso off gso off txvlan off"),
        )
        return
    wrong = _active(peer, *CHECKSUMS, *SEGMENTATION)
    tags = _active(peer, *VLAN_INSERTION)
    off = " ".join(f"{name} off" for name in short_names([*wrong, *tags]))
    fix = _there(peer, f"ethtool -K {peer.name} {off}")
    if wrong:
        yield Finding(
            Severity.WARNING,
            f"the other end of {facts.name} ({peer.name}) leaves work to a card that is not there, "
            f"so its TCP and UDP packets are wrong",
            fix,
        )
    elif tags:
        yield Finding(
            Severity.NOTE,
            f"the other end of {facts.name} ({peer.name}) keeps VLAN tags beside packets, where "
            f"they are lost",
            fix,
        )


def _active(peer: Peer, *names: str) -> list[str]:
    features = peer.features or {}
    return [name for name in names if name in features and features[name].is_active]


def _there(peer: Peer, command: str) -> str:
    return f"{peer.command} {command}".lstrip()
