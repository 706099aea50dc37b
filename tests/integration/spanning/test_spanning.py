"""Chains that span hosts: NSH in VXLAN-GPE between managers, each on a loopback address.

Nothing here needs root or ZooKeeper: the test plays the agents, and in some cases a host.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from buffers import are_back
from cluster_hosts import TUNNEL_PORT, VNI, Managers, ask, chain, data_socket, receive, wait_for

from onvm_core.manager.api import messages as m
from onvm_core.manager.cluster_view.view import InstanceView

if TYPE_CHECKING:
    from up_host import Host

    from onvm_core.manager.cluster_view.view import DataSecurity


PLANE = """
[dataplane]
flows = 65536
buffers = 8192
ring_length = 2048
"""
CLIENTS = """
[ports.clients]
uri = "gen:?flows=100&rate=8000&timeout_ms=4000"
direction = "in"
"""
SERVERS = """
[ports.servers]
uri = "gen:?role=server"
direction = "out"
"""


def nf(name: str, plugin: str = "", **config: str) -> str:
    lines = [f"[nfs.{name}]"] + ([f'plugin = "{plugin}"'] if plugin else [])
    lines += [f"[nfs.{name}.config]"] if config else []
    return "\n".join(lines + [f'{key} = "{value}"' for key, value in config.items()]) + "\n"


def base(n: int) -> dict[str, str]:
    """Addresses that another run of these tests does not use."""
    net = 2 + os.getpid() % 250
    return {name: f"127.{net}.{n}.{index + 2}" for index, name in enumerate("abcx")}


def generator(managers: Managers, name: str) -> dict[str, Any]:
    (one,) = managers.status(name)["report"]["generators"]
    return one


def check_books(reports: dict[str, dict[str, Any]]) -> None:
    """Nothing vanishes: on each host, and between them."""
    for report in reports.values():
        assert report["rx"] + report["originated"] == report["tx"] + sum(report["drops"].values())
        assert are_back(report), report["buffers"]


@pytest.mark.parametrize("security", ["none", "auth", "encrypt"])
def test_flows_pass_three_hosts_both_ways(host: Host, security: DataSecurity) -> None:
    addresses = base(1)
    addresses.pop("x")
    managers = Managers(
        host,
        {
            "a": PLANE + CLIENTS + nf("firewall"),
            "b": PLANE + nf("nat"),
            "c": PLANE + SERVERS + nf("lb"),
        },
        addresses,
        [chain("a:clients", "c:servers", "firewall", "nat", "lb")],
        security=security,
    )
    managers.start()
    replies = managers.apply()
    assert [reply["missing"] for reply in replies.values()] == [[], [], []]
    assert len({reply["digest"] for reply in replies.values()}) == 1
    is_whole = security == "auth"  # the others seal packets in another way, and no more
    seen = watch(managers, 2000 if is_whole else 400)
    assert [seen[key] for key in ("bad_checksum", "bad_payload", "out_of_order")] == [0, 0, 0]
    if is_whole:
        paths = ask_paths(managers, "a")
        assert {tuple(hop["instance"] for hop in path["hops"]) for path in paths} == {
            ("firewall-1", "nat-1@b", "lb-1@c")
        }
        assert all(path["spi"] == 14 for path in paths)
        # Everything that b's NF gets goes on to a peer.
        assert 0.4 < managers.status("b")["crossing"] < 0.6
        assert "of hops led to another host" in host.do("status", "--name", "b")
    reports = managers.down()
    check_books(reports)
    assert not any(reports[name]["drops"].get("no_path") for name in "bc")
    # Both directions have met all three.
    counts = {nf["instance"]: nf["rx"] for name in "abc" for nf in reports[name]["nfs"]}
    assert len(counts) == 3
    assert min(counts.values()) > (8000 if is_whole else 1500)
    assert max(counts.values()) - min(counts.values()) < 2000  # what was on its way


def watch(managers: Managers, flows: int = 1000) -> dict[str, Any]:
    """Let traffic run for a while: of what began after the chain was there, all completes."""
    before = generator(managers, "a")
    early = before["opened"]
    wait_for(lambda: generator(managers, "a")["completed"] > before["completed"] + flows)
    seen = generator(managers, "a")
    assert seen["failed"] <= early
    return seen


def ask_paths(managers: Managers, name: str) -> list[dict[str, Any]]:
    shown = managers.host.json("chain", "show", "edge", "--name", name)
    return shown["paths"]


def test_replies_meet_the_instance_that_holds_their_state(host: Host) -> None:
    """Two NATs and two balancers on different hosts, and every connection completes."""
    addresses = base(2)
    addresses.pop("x")
    managers = Managers(
        host,
        {
            "a": PLANE + CLIENTS + nf("firewall") + nf("nat", ports="1024-30000"),
            "b": PLANE + nf("nat", ports="30001-65535") + nf("lb"),
            "c": PLANE + SERVERS + nf("lb"),
        },
        addresses,
        [chain("a:clients", "c:servers", "firewall", "nat", "lb")],
    )
    managers.start()
    assert not any(reply["missing"] for reply in managers.apply().values())
    watch(managers)
    reports = managers.down()
    check_books(reports)
    for name in "abc":
        for one in reports[name]["nfs"]:
            assert one["rx"] > 1000, one["instance"]
            assert not one["drops"], one["instance"]


def test_flows_of_a_dead_host_go_on_elsewhere(host: Host) -> None:
    """A manager is stopped without a word: probes find out, and new flows take other instances."""
    addresses = base(3)
    addresses.pop("x")
    managers = Managers(
        host,
        {
            "a": PLANE + CLIENTS.replace("timeout_ms=4000", "timeout_ms=300") + SERVERS + nf("lb"),
            "b": PLANE + nf("lb"),
        },
        {name: addresses[name] for name in "ab"},
        [chain("a:clients", "a:servers", "lb")],
    )
    managers.start()
    assert not any(reply["missing"] for reply in managers.apply().values())
    wait_for(lambda: managers.local("b")["peers"][0]["is_up"] and rx_of(managers, "b") > 1000)
    os.kill(host.manager_pid("b"), signal.SIGSTOP)
    try:
        wait_for(lambda: not managers.local("a")["peers"][0]["is_up"])
        before = generator(managers, "a")
        wait_for(lambda: generator(managers, "a")["completed"] > before["completed"] + 1000)
        failed = generator(managers, "a")["failed"]
        wait_for(lambda: generator(managers, "a")["completed"] > before["completed"] + 2000)
        assert generator(managers, "a")["failed"] <= failed + 5
    finally:
        os.kill(host.manager_pid("b"), signal.SIGCONT)
    wait_for(lambda: managers.local("a")["peers"][0]["is_up"])
    there = rx_of(managers, "b")
    wait_for(lambda: rx_of(managers, "b") > there + 1000)


def test_change_of_a_chain_loses_nothing(host: Host) -> None:
    """Whichever host comes first; with an NF more, with one less, and in another order."""
    addresses = base(6)
    addresses.pop("x")
    managers = Managers(
        host,
        {
            "a": PLANE + CLIENTS.replace("rate=8000", "rate=2000") + nf("firewall"),
            "b": PLANE + nf("hop"),
            "c": PLANE + SERVERS + nf("skip"),
        },
        addresses,
        [chain("a:clients", "c:servers", "firewall", "hop")],
    )
    managers.start()
    assert not any(reply["missing"] for reply in managers.apply().values())
    watch(managers, 100)
    before = {name: Counter(managers.status(name)["report"]["drops"]) for name in "abc"}
    changes = (["firewall", "hop", "skip"], ["skip", "firewall"], ["hop"])
    for number, services in enumerate(changes, 8):
        change(managers, number, services)
    paths = ask_paths(managers, "a")
    assert {hop["instance"] for one in paths for hop in one["hops"]} == {"hop-1@b"}
    after = {name: Counter(managers.status(name)["report"]["drops"]) for name in "abc"}
    assert {name: after[name] - before[name] for name in "abc"} == {name: {} for name in "abc"}
    check_books(managers.down())


def change(managers: Managers, number: int, services: list[str]) -> None:
    """The steps of a change, on one host after the other; traffic goes on between all of them."""
    (known,) = managers.chains
    new = msgspec.structs.replace(known, number=number, services=services)
    staged = msgspec.structs.replace(new, formers=[known], is_staged=True)
    used = msgspec.structs.replace(staged, is_staged=False)
    for step, names in ((staged, "abc"), (used, "cab" if number % 2 else "acb"), (new, "bca")):
        managers.chains = [step]
        instances = managers.instances()
        for name in names:
            reply = ask(
                managers.host, name, m.ClusterApplyRequest(view=managers.view(name, instances))
            )
            assert reply["missing"] == []
            assert number in reply["chains"]
            assert (number in reply["bound"]) is (step is not staged)
            done = generator(managers, "a")["completed"]
            wait_for(lambda done=done: generator(managers, "a")["completed"] > done + 20)  # type: ignore[misc]


def rx_of(managers: Managers, name: str) -> int:
    return sum(one["rx"] for one in managers.status(name)["report"]["nfs"])


# ---- the test is a host: what is on the wire ----


@pytest.fixture
def wire(host: Host) -> Managers:
    """One manager with an NF, and a chain whose ends are at host x: the test."""
    addresses = {name: address for name, address in base(4).items() if name in "bx"}
    managers = Managers(host, {"b": PLANE + nf("hop")}, addresses, [chain("x:in", "x:out", "hop")])
    managers.start()
    assert managers.apply()["b"]["missing"] == []
    return managers


def nsh_packet(frame: Any, **fields: Any) -> bytes:
    scapy_nsh = pytest.importorskip("scapy.contrib.nsh")
    vxlan = pytest.importorskip("scapy.layers.vxlan")
    vni = fields.pop("vni", VNI)
    header = {"mdtype": 1, "nextproto": 3, "spi": 14, "si": 2, "context_header": bytes(16)}
    return bytes(
        vxlan.VXLAN(flags=0x0C, NextProtocol=4, vni=vni)
        / scapy_nsh.NSH(**{**header, **fields})
        / frame
    )


def inner(tos: int = 0, dport: int = 53, size: int = 100) -> Any:
    layers = pytest.importorskip("scapy.layers.inet")
    ether = pytest.importorskip("scapy.layers.l2").Ether
    return (
        ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / layers.IP(src="10.0.0.1", dst="10.0.0.2", tos=tos)
        / layers.UDP(sport=1234, dport=dport)
        / bytes(size)
    )


def drops(managers: Managers) -> dict[str, int]:
    return {key: value for key, value in managers.local("b")["drops"].items() if value}


def test_packets_made_by_others_are_accepted(wire: Managers, tmp_path: Path) -> None:
    target = (wire.addresses["b"], TUNNEL_PORT)
    number = wire.numbers["b", "hop-1"]
    context = number.to_bytes(2, "big") + bytes(14)
    frame = inner(tos=0xB8 | 2)
    with data_socket(wire.addresses["x"]) as peer:
        for spi, named in ((14, context), (14, bytes(16)), (15, context)):
            peer.sendto(nsh_packet(frame, spi=spi, context_header=named), target)
            data, ancillary, sender = receive(peer)
            # The source port tells flows apart (RFC 7348), so it is another than ours.
            assert sender[0] == target[0]
            assert 49152 <= sender[1] < 65536
            scapy_vxlan = pytest.importorskip("scapy.layers.vxlan").VXLAN
            reply = scapy_vxlan(data)
            assert reply.vni == VNI
            nsh = reply["NSH"]
            assert (nsh.spi, nsh.si, nsh.ttl, nsh.mdtype) == (spi, 1, 63, 1)
            assert bytes(nsh.context_header) == context
            assert data[32:] == bytes(frame)
            # The outer header has the inner one's DSCP and ECN.
            assert [int.from_bytes(value, "little") for _, _, value in ancillary] == [0xB8 | 2]
        # MD type 2, with and without metadata.
        for metadata in (
            [],
            [pytest.importorskip("scapy.contrib.nsh").NSHTLV(metadata=[0x61626364])],
        ):
            peer.sendto(nsh_packet(frame, mdtype=2, context_header=b"", vlch=metadata), target)
            assert receive(peer)[0][32:] == bytes(frame)
    assert drops(wire) == {}
    check_dissection(data, tmp_path)


def check_dissection(data: bytes, folder: Path) -> None:
    """tshark reads what we send as NSH in VXLAN-GPE with our numbers."""
    if not shutil.which("tshark"):
        pytest.skip("not installed: tshark")
    layers = pytest.importorskip("scapy.layers.inet")
    utils = pytest.importorskip("scapy.utils")
    ether = pytest.importorskip("scapy.layers.l2").Ether
    outer = ether() / layers.IP() / layers.UDP(sport=TUNNEL_PORT, dport=TUNNEL_PORT) / data
    utils.wrpcap(str(folder / "sent.pcap"), [outer])
    fields = [
        "vxlan.vni",
        "vxlan.next_proto",
        "nsh.spi",
        "nsh.si",
        "nsh.ttl",
        "udp.dstport",
        "_ws.malformed",
    ]
    shown = (
        subprocess.run(
            [
                "tshark",
                "-r",
                str(folder / "sent.pcap"),
                "-T",
                "fields",
                *(argument for name in fields for argument in ("-e", name)),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        .stdout.rstrip("\n")
        .split("\t")
    )
    vni, protocol, spi, si, ttl, ports, *malformed = shown
    assert [int(value, 0) for value in (vni, protocol, spi, si, ttl)] == [VNI, 4, 15, 1, 63]
    assert ports == f"{TUNNEL_PORT},53"
    assert not any(malformed)


def test_congestion_marks_come_out_of_the_tunnel(wire: Managers) -> None:
    target = (wire.addresses["b"], TUNNEL_PORT)
    with data_socket(wire.addresses["x"]) as peer:
        for inner_ecn, outer_ecn, wanted in ((2, 3, 3), (1, 3, 3), (2, 1, 1), (2, 0, 2)):
            peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, outer_ecn)
            peer.sendto(nsh_packet(inner(tos=0x28 | inner_ecn)), target)
            data = receive(peer)[0]
            assert data[32 + 15] == 0x28 | wanted
            layers = pytest.importorskip("scapy.layers.inet")
            again = layers.IP(data[32 + 14 :])
            checksum = again.chksum
            del again.chksum
            assert layers.IP(bytes(again)).chksum == checksum
        peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 3)
        peer.sendto(nsh_packet(inner(tos=0)), target)
        wait_for(lambda: drops(wire) == {"shed": 1})


def test_strangers_are_dropped_and_counted(wire: Managers) -> None:
    target = (wire.addresses["b"], TUNNEL_PORT)
    good = nsh_packet(inner())
    stranger = base(5)["x"]
    with data_socket(stranger) as outside, data_socket(wire.addresses["x"]) as peer:
        outside.sendto(good, target)
        wait_for(lambda: drops(wire) == {"foreign": 1})
        bad = [
            nsh_packet(inner(), vni=VNI + 1),
            b"",
            b"\0",
            bytes(64),
            good[:31],
            good[:40],
            nsh_packet(inner(), oam=1),
            nsh_packet(inner(), ver=1),
            nsh_packet(inner(), nextproto=1),
        ]
        for packet in bad:
            peer.sendto(packet, target)
        wait_for(lambda: drops(wire) == {"foreign": 1 + len(bad)})
        for fields in ({"spi": 16}, {"si": 9}, {"si": 0}):
            peer.sendto(nsh_packet(inner(), **fields), target)
        wait_for(lambda: drops(wire) == {"foreign": 1 + len(bad), "no_path": 3})
        peer.sendto(good, target)
        assert receive(peer)[0][32:] == bytes(inner())
    (report,) = wire.down().values()
    assert report["rx"] == report["tx"] + sum(report["drops"].values())


def test_thousand_nf_hosts_in_a_chain_of_five_drop_nothing(host: Host) -> None:
    """There are none: b has nothing but their numbers, and the flows of a are sent to them."""
    addresses = {name: address for name, address in base(9).items() if name in "ab"}
    services = [f"s{index}" for index in range(5)]
    clients = '[ports.clients]\nuri = "gen:?flows=30000&rate=30000&timeout_ms=1000"\n'
    managers = Managers(
        host,
        {"a": PLANE + clients + 'direction = "in"\n', "b": PLANE + SERVERS},
        addresses,
        [chain("a:clients", "b:servers", *services)],
    )
    managers.start()
    many = [
        InstanceView(
            number=1000 + number,
            host="b",
            name=f"{service}-{number}",
            services=[service],
            spare_pps=1000,
        )
        for number, service in enumerate(service for service in services for _ in range(200))
    ]
    for name in "ba":
        view = managers.view(name, many)
        assert ask(host, name, m.ClusterApplyRequest(view=view))["missing"] == []
    wait_for(lambda: int(managers.status("a")["report"]["flows"]) > 30_000)
    drops = managers.status("a")["report"]["drops"]
    assert not {"no_instance", "paths_full"} & drops.keys()
    assert len(ask_paths(managers, "a")) <= 8192
    check_books({"a": managers.down()["a"]})
