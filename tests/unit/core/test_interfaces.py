"""Checks of interfaces, from made-up facts to the line that a user reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onvm_core.interfaces.checks import (
    FRAME_MTU_MAX,
    Severity,
    check_interface,
    check_mtus,
    missing_line,
)
from onvm_core.interfaces.facts import (
    CAPABILITIES,
    HostFacts,
    InterfaceFacts,
    Member,
    Peer,
    Snapshot,
)
from onvm_core.interfaces.netlink import IFF_UP, LOOPBACK, Link
from onvm_core.interfaces.offloads import Feature, short_names
from onvm_core.interfaces.settings import restore_abandoned
from onvm_core.interfaces.use import InterfaceUse
from onvm_core.manager.interfaces import PortInterfaces, check_ports
from onvm_core.manager.ports import AF_PACKET, AF_XDP, NULL, PortUri, parse_uri
from onvm_sdk.errors import ConfigError

PACKETS, FRAMES = InterfaceUse.PACKETS, InterfaceUse.FRAMES
ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
ON, OFF = Feature(True, True, True), Feature(False, False, True)
LINK = Link(5, "d0", IFF_UP)
VETH = replace(LINK, kind="veth", lower=2)
FINE = InterfaceFacts(LINK, "e1000e")
HOST = HostFacts()
ELSEWHERE = "ip netns exec blue"
AS_MADE = {"tx-checksum-ip-generic": ON, "tx-tcp-segmentation": ON, "tx-vlan-hw-insert": ON}


def link(**changes: object) -> InterfaceFacts:
    return replace(FINE, link=replace(LINK, **changes))


def veth(peer: Peer, **changes: object) -> InterfaceFacts:
    return InterfaceFacts(replace(VETH, **changes), "veth", peer=peer)


ROWS = [
    ("fine", FINE, HOST, PACKETS, []),
    ("fine", FINE, HOST, FRAMES, []),
    (
        "down",
        link(flags=0),
        HOST,
        PACKETS,
        [(ERROR, "expected an interface that is up", "ip link set dev d0 up")],
    ),
    (
        "no cable",
        link(has_carrier=False),
        HOST,
        PACKETS,
        [(WARNING, "d0 has no carrier: no cable, or the other side is down", "")],
    ),
    (
        "tap without a program",
        link(has_carrier=False, kind="tun"),
        HOST,
        PACKETS,
        [(WARNING, "d0 has no carrier: no program has opened it", "")],
    ),
    (
        "other end down",
        veth(Peer("c0", ELSEWHERE, True, False, 1500, {}), has_carrier=False),
        HOST,
        PACKETS,
        [
            (
                WARNING,
                "d0 has no carrier: the other end is down",
                "ip netns exec blue ip link set dev c0 up",
            )
        ],
    ),
    (
        "no Ethernet",
        link(type=65534, kind="tun"),
        HOST,
        PACKETS,
        [(ERROR, "expected an interface with Ethernet frames, d0 (tun) has others", "")],
    ),
    (
        "loopback",
        link(type=LOOPBACK),
        HOST,
        PACKETS,
        [(WARNING, "d0 gives back each packet that is sent: packets go in circles", "")],
    ),
    (
        "wireless",
        replace(FINE, is_wireless=True),
        HOST,
        PACKETS,
        [
            (
                WARNING,
                "d0 is wireless: a station may send only from its own address, and packets of "
                "others are lost; route instead, or make it an access point",
                "",
            )
        ],
    ),
    (
        "macvlan",
        link(kind="macvlan"),
        HOST,
        PACKETS,
        [(WARNING, "d0 is a macvlan: it gets only packets for its own address", "")],
    ),
    (
        "VLAN",
        replace(link(kind="vlan", lower=3), lower="eth0"),
        HOST,
        PACKETS,
        [(NOTE, "d0 is a VLAN of eth0: packets come without that tag", "")],
    ),
    (
        "bridge",
        link(kind="bridge"),
        HOST,
        PACKETS,
        [
            (
                NOTE,
                "d0 is a bridge, which forwards packets between its members by itself as well",
                "",
            )
        ],
    ),
    ("bridge by XDP", link(kind="bridge"), HOST, FRAMES, []),
    ("bond", link(kind="bond"), HOST, PACKETS, []),
    (
        "member of a bridge",
        replace(FINE, member_of=Member("br0", "bridge")),
        HOST,
        PACKETS,
        [
            (
                WARNING,
                "d0 is a member of the bridge br0, which forwards the same packets",
                "ip link set dev d0 nomaster",
            )
        ],
    ),
    (
        "member of a bridge by XDP",
        replace(FINE, member_of=Member("br0", "bridge")),
        HOST,
        FRAMES,
        [
            (
                WARNING,
                "d0 is a member of the bridge br0, which gets no packets from it",
                "ip link set dev d0 nomaster",
            )
        ],
    ),
    (
        "member of a bond",
        replace(FINE, member_of=Member("bond0", "bond")),
        HOST,
        PACKETS,
        [
            (
                WARNING,
                "d0 is a member of the bond bond0, which spreads packets over its members; use "
                "bond0",
                "",
            )
        ],
    ),
    (
        "addresses",
        replace(FINE, addresses=("10.0.0.1/24",), forwards=(6,)),
        HOST,
        PACKETS,
        [
            (
                NOTE,
                "this host has addresses on d0 (10.0.0.1/24): the kernel answers packets to them, "
                "which also enter the chain",
                "",
            )
        ],
    ),
    (
        "addresses and forwarding",
        replace(FINE, addresses=("10.0.0.1/24", "fd00::1/64"), forwards=(4, 6)),
        HOST,
        PACKETS,
        [
            (
                WARNING,
                "this host has addresses on d0 (10.0.0.1/24, fd00::1/64) and forwards packets, so "
                "the kernel forwards the same packets as the chain",
                "sysctl -w net.ipv4.conf.d0.forwarding=0 net.ipv6.conf.d0.disable_ipv6=1",
            )
        ],
    ),
    (
        "addresses by XDP",
        replace(FINE, addresses=("fd00::1/64",)),
        HOST,
        FRAMES,
        [
            (
                WARNING,
                "this host has addresses on d0 (fd00::1/64), which can no longer be reached",
                "",
            )
        ],
    ),
    (
        "LRO",
        replace(FINE, features={"rx-lro": ON}),
        HOST,
        PACKETS,
        [
            (
                WARNING,
                "d0 merges received packets (LRO), and they cannot be sent on as they came",
                "ethtool -K d0 lro off",
            )
        ],
    ),
    ("LRO by XDP, which the port switches off", FINE, HOST, FRAMES, []),
    (
        "XDP program",
        link(xdp_program=7),
        HOST,
        PACKETS,
        [
            (
                WARNING,
                "an XDP program (number 7) sees packets first: a port, or what a killed one left",
                "ip link set dev d0 xdp off",
            )
        ],
    ),
    (
        "large MTU by XDP",
        link(mtu=9000),
        HOST,
        FRAMES,
        [
            (
                WARNING,
                "the MTU of d0 is 9000: packets of more than 1770 bytes do not fit XDP frames and "
                "are lost",
                "ip link set dev d0 mtu 1770",
            )
        ],
    ),
    (
        "MTU of the other end",
        veth(Peer("c0", "", mtu=9000)),
        HOST,
        PACKETS,
        [
            (
                WARNING,
                "the MTU of d0 is 1500, that of the other end (c0) 9000: larger packets are lost",
                "ip link set dev c0 mtu 1500",
            )
        ],
    ),
    ("offloads pass", veth(Peer("c0", ELSEWHERE, True, True, 1500, AS_MADE)), HOST, PACKETS, []),
    (
        "offloads by XDP",
        veth(Peer("c0", ELSEWHERE, True, True, 1500, AS_MADE)),
        HOST,
        FRAMES,
        [
            (
                WARNING,
                "the other end of d0 (c0) leaves work to a card that is not there, so its TCP and "
                "UDP packets are wrong",
                "ip netns exec blue ethtool -K c0 tx off tso off txvlan off",
            )
        ],
    ),
    (
        "only tags by XDP",
        veth(Peer("c0", ELSEWHERE, True, True, 1500, {"tx-vlan-hw-insert": ON})),
        HOST,
        FRAMES,
        [
            (
                NOTE,
                "the other end of d0 (c0) keeps VLAN tags beside packets, where they are lost",
                "ip netns exec blue ethtool -K c0 txvlan off",
            )
        ],
    ),
    (
        "hidden other end by XDP",
        veth(Peer(command="nsenter -t 7 -n", is_elsewhere=True)),
        HOST,
        FRAMES,
        [
            (
                WARNING,
                "the other end of d0 is in another namespace, which this process may not enter, "
                "and must send whole packets",
                "nsenter -t 7 -n ethtool -K PEER tx off tso off gso off txvlan off",
            )
        ],
    ),
    ("offloads off", veth(Peer("c0", features={"rx-gro": OFF})), HOST, FRAMES, []),
    ("other end here, which the port sets", veth(Peer("c0", features=AS_MADE)), HOST, FRAMES, []),
    (
        "other end in a filtered bridge",
        veth(Peer("c0", bridge="docker0", reverse_path=1)),
        replace(HOST, filters_bridges=True),
        PACKETS,
        [
            (
                NOTE,
                "packets of docker0, to which the other end (c0) belongs, pass this host's packet "
                "filter",
                "sysctl -w net.bridge.bridge-nf-call-iptables=0 "
                "net.bridge.bridge-nf-call-ip6tables=0",
            )
        ],
    ),
    (
        "reverse path",
        veth(Peer("c0", reverse_path=1)),
        HOST,
        PACKETS,
        [
            (
                NOTE,
                "the other end (c0) drops packets whose source it would reach another way",
                "sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.c0.rp_filter=2",
            )
        ],
    ),
]


@pytest.mark.parametrize(
    ("facts", "host", "use", "expected"),
    [row[1:] for row in ROWS],
    ids=[f"{row[0]}-{row[3].value}" for row in ROWS],
)
def test_findings(
    facts: InterfaceFacts,
    host: HostFacts,
    use: InterfaceUse,
    expected: list[tuple[Severity, str, str]],
) -> None:
    found = check_interface(facts, host, use)
    assert [(one.severity, one.text, one.fix) for one in found] == expected


def test_errors_say_what_was_expected() -> None:
    errors = [text for row in ROWS for severity, text, _ in row[4] if severity is ERROR]
    assert errors
    assert all(text.startswith("expected ") for text in errors)


@pytest.mark.parametrize(
    ("use", "held", "mtu", "missing"),
    [
        (PACKETS, ["CAP_NET_RAW"], 0, []),
        (PACKETS, ["CAP_NET_RAW"], 1500, []),
        (PACKETS, ["CAP_NET_RAW"], 9000, ["CAP_NET_ADMIN"]),
        (PACKETS, [], 0, ["CAP_NET_RAW"]),
        (FRAMES, ["CAP_NET_RAW"], 0, ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_IPC_LOCK"]),
        (FRAMES, list(CAPABILITIES), 0, []),
    ],
)
def test_missing_rights_are_named(
    use: InterfaceUse, held: list[str], mtu: int, missing: list[str]
) -> None:
    found = check_interface(FINE, replace(HOST, capabilities=frozenset(held)), use, mtu=mtu)
    rights = [one for one in found if "expected the capabilit" in one.text]
    assert bool(rights) == bool(missing)
    word = "capability" if len(missing) == 1 else "capabilities"
    for one in rights:
        assert one.severity is ERROR
        assert one.text.startswith(f"expected the {word} {', '.join(missing)} (")
        added = next(word for word in one.fix.split() if word.startswith("+")).split(",")
        wanted = {f"+{name.removeprefix('CAP_').lower()}" for name in (*held, *missing)}
        assert set(added) == wanted, "with those that are held: sudo takes them away"


def test_locked_memory_needs_no_right_without_a_limit() -> None:
    rights = frozenset(CAPABILITIES) - {"CAP_IPC_LOCK"}
    assert check_interface(FINE, replace(HOST, capabilities=rights), FRAMES) != []
    assert (
        check_interface(FINE, replace(HOST, capabilities=rights, may_lock_memory=True), FRAMES)
        == []
    )


def test_mtu_of_the_port_counts() -> None:
    peer = Peer("c0", mtu=1500)
    assert check_interface(veth(peer), HOST, PACKETS, mtu=1500) == []
    assert check_interface(veth(peer), HOST, PACKETS, mtu=1508) == [], "for tags"
    (found,) = check_interface(veth(peer), HOST, PACKETS, mtu=9000)
    assert found.fix == "ip link set dev c0 mtu 9000"
    assert check_interface(FINE, HOST, FRAMES, mtu=FRAME_MTU_MAX) == []
    (found,) = check_interface(FINE, HOST, FRAMES, mtu=FRAME_MTU_MAX + 1)
    assert (found.severity, found.text) == (
        ERROR,
        "expected an MTU of at most 1770: larger packets do not fit XDP frames",
    )
    six = replace(FINE, addresses=("fd00::1/64",))
    assert "removes the IPv6 addresses" in check_interface(six, HOST, PACKETS, mtu=1000)[-1].text


def test_queues_of_the_port_count() -> None:
    card = replace(FINE, queues=(0, 4))
    assert check_interface(card, HOST, PACKETS, queues=2) == []
    assert check_interface(card, HOST, FRAMES, queues=4) == []
    (more,) = check_interface(card, HOST, FRAMES, queues=2)
    assert (more.severity, more.line) == (
        WARNING,
        "d0 has 4 receive queues, and the port takes packets of 2: those of others do not enter "
        "the chain; set ?queues=4; run: ethtool -L d0 combined 2",
    )
    (fewer,) = check_interface(replace(FINE, queues=(1, 0)), HOST, FRAMES, queues=2)
    assert (fewer.severity, fewer.line) == (
        ERROR,
        "expected at most 1 queues, as many as d0 has; set ?queues=1; run: ethtool -L d0 rx 2",
    )


def test_xdp_program_of_an_open_port_is_its_own() -> None:
    assert check_interface(link(xdp_program=7), HOST, FRAMES) != []
    assert check_interface(link(xdp_program=7), HOST, FRAMES, is_open=True) == []
    assert check_interface(link(xdp_program=7), HOST, PACKETS, is_open=True) != []


def test_mtus_of_a_chain_are_compared() -> None:
    assert check_mtus({"d0": 1500, "d1": 1500}) == []
    (found,) = check_mtus({"d0": 1500, "d1": 9000})
    assert found.text.startswith("MTUs differ (d0 1500, d1 9000): ")


def test_missing_interface_names_the_closest() -> None:
    host = HostFacts((*(f"eth{n}" for n in range(9)), "enp3s0"))
    expected = "expected the name of a network interface (enp3s0, eth0, eth1, eth2, eth3, eth4, …)"
    assert missing_line("enp3s1", host) == expected
    assert missing_line("x", HostFacts()).endswith("(there are none)")


def test_short_names_are_those_of_ethtool() -> None:
    names = ("tx-checksum-ipv4", "tx-checksum-ipv6", "tx-tcp6-segmentation", "rx-gro-hw")
    assert short_names(names) == ["tx", "tso", "rx-gro-hw"]


def test_kernel_and_process_are_read() -> None:
    snapshot = Snapshot()
    lo = snapshot.find("lo")
    assert lo is not None and lo.type == LOOPBACK
    facts = snapshot.facts(lo)
    assert (facts.name, facts.peer, facts.member_of) == ("lo", None, None)
    assert facts.features["loopback"].is_active
    assert not facts.features["loopback"].can_change
    host = snapshot.host()
    assert "lo" in host.interfaces
    assert host.capabilities <= set(CAPABILITIES)


# ---- ports ----

KINDS = {"af_packet": AF_PACKET, "af_xdp": AF_XDP, "null": NULL}


def test_missing_interface_of_a_port_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        check_ports({"--in": "af_packet:nowhere"}, KINDS, file="onvm.toml")
    line = "onvm.toml: --in: 'af_packet:nowhere': expected the name of a network interface ("
    assert str(caught.value).startswith(line)


def test_ports_without_interfaces_need_no_check() -> None:
    assert (
        check_ports({"--in": "null:", "--out": "null:?size=80"}, KINDS, [("--in", "--out")]) == []
    )


def uri(text: str) -> PortUri:
    return parse_uri(text)


def test_use_of_a_kind_is_an_interface_use() -> None:
    assert AF_XDP.fault() == ""
    fault = replace(AF_XDP, interface="frames").fault()
    assert fault == "expected PortKind.interface to be an InterfaceUse, got 'frames'"


def test_nothing_is_noted_for_other_ports(tmp_path: Path) -> None:
    interfaces = PortInterfaces(tmp_path / "notes", KINDS)
    for text in ("null:", "af_packet:nowhere"):  # opening it says what is wrong
        with interfaces.opening("one", uri(text), file=None, field=None):
            pass
    interfaces.closed("one")
    interfaces.close()
    assert not (tmp_path / "notes").exists()


def test_unreadable_notes_are_removed(tmp_path: Path) -> None:
    (tmp_path / "1-2-eth0.json").write_text("{")
    assert restore_abandoned(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
