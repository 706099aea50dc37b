"""Headers that few packets have, alike in packets, columns and kernels, and as scapy makes them."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.ppp import PPPoE
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.layers.vxlan import VXLAN

from onvm_sdk import Burst, NetworkFunction, PacketView, kernel
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import is_sound

BODY = bytes(Ether() / IP() / UDP() / b"inner")
FRAMES: dict[str, bytes] = {
    "arp": bytes(Ether() / ARP(op=2, psrc="10.0.0.1", pdst="10.0.0.2", hwsrc="02:00:00:00:00:09")),
    "mpls": bytes(Ether() / Dot1Q(vlan=3) / MPLS(label=70_000, cos=5, s=1, ttl=9) / IP()),
    "pppoe": bytes(Ether() / PPPoE(sessionid=77) / b"\x00\x21" / IP()),
    "sctp": bytes(Ether() / IP() / SCTP(sport=5, dport=6, tag=7) / SCTPChunkData(data=b"abc")),
    "gre": bytes(Ether() / IPv6() / GRE(proto=0x6558) / BODY),
    "vxlan": bytes(Ether() / IP() / UDP(dport=4789) / VXLAN(vni=0xABCDE, flags=8) / BODY),
    "geneve": bytes(Ether() / IPv6() / UDP(dport=6081) / GENEVE(vni=0x1234, proto=0x6558) / BODY),
    "gtpu": bytes(Ether() / IP() / UDP(dport=2152) / GTP_U_Header(teid=0x55667788) / IP() / UDP()),
}
VALUES: list[tuple[str, str, int]] = [
    ("arp", "operation", 2),
    ("arp", "sender_ip", 0x0A000001),
    ("arp", "target_ip", 0x0A000002),
    ("arp", "sender_mac", 0x020000000009),
    ("mpls", "label", 70_000),
    ("mpls", "traffic_class", 5),
    ("mpls", "bottom", 1),
    ("mpls", "ttl", 9),
    ("pppoe", "session", 77),
    ("pppoe", "length", 22),
    ("sctp", "src_port", 5),
    ("sctp", "dst_port", 6),
    ("sctp", "tag", 7),
    ("gre", "protocol", 0x6558),
    ("gre", "flags", 0),
    ("vxlan", "vni", 0xABCDE),
    ("vxlan", "flags", 8),
    ("geneve", "vni", 0x1234),
    ("geneve", "protocol", 0x6558),
    ("geneve", "options", 0),
    ("gtpu", "teid", 0x55667788),
    ("gtpu", "type", 255),
]
ALL = list(FRAMES.values())


class Packets(NetworkFunction):
    """Reads everything, packet by packet."""

    def setup(self, ctx: Any) -> None:
        self.got: list[list[Any]] = []

    def process_packet(self, pkt: PacketView) -> None:
        masks = [getattr(pkt, f"is_{name}") for name in FRAMES]
        self.got.append([masks, [getattr(getattr(pkt, h), f) for h, f, _ in VALUES]])


class Columns(NetworkFunction):
    """Reads everything as columns."""

    def setup(self, ctx: Any) -> None:
        self.got: list[list[Any]] = []

    def process(self, burst: Burst) -> None:
        masks = [getattr(burst, f"is_{name}").tolist() for name in FRAMES]
        columns = [_numbers(getattr(getattr(burst, h), f)) for h, f, _ in VALUES]
        self.got = [
            [[mask[row] for mask in masks], [column[row] for column in columns]]
            for row in range(len(burst))
        ]


def _numbers(column: Any) -> list[int]:
    if column.ndim == 2:
        return [int.from_bytes(row.tobytes(), "big") for row in column]
    numbers: list[int] = column.tolist()
    return numbers


@pytest.mark.parametrize("kind", [Packets, Columns])
def test_each_packet_has_its_header_alone(kind: type[Any]) -> None:
    with Runner(kind) as runner:
        runner.run(ALL)
        nf: Any = runner.stages[0].nf
    for name, (masks, values) in zip(FRAMES, nf.got, strict=True):
        assert masks == [name == other for other in FRAMES], name
        assert values == [value if name == header else 0 for header, _, value in VALUES], name


@pytest.mark.parametrize("kind", [Packets, Columns])
def test_cut_headers_are_none(kind: type[Any]) -> None:
    cut = [frame[:size] for frame in ALL for size in (13, 16, 33, 36, 41, 44, 49)]
    with Runner(kind) as runner:
        assert not runner.run(cut).broken


def _write(pkt: Any, state: Any) -> None:
    if pkt.is_vxlan:
        pkt.vxlan.vni = 0x1FFFFFF
    pkt.geneve.vni += 1
    pkt.arp.operation = 1
    pkt.mpls.label += 1
    pkt.gtpu.teid = 3


class Write(NetworkFunction):
    """Writes some fields, packet by packet."""

    def process_packet(self, pkt: PacketView) -> None:
        _write(pkt, None)


class WriteColumns(NetworkFunction):
    """Writes the same fields as columns."""

    def process(self, burst: Burst) -> None:
        burst.vxlan.vni[burst.is_vxlan] = 0x1FFFFFF
        burst.geneve.vni += 1
        burst.arp.operation = 1
        burst.drop(burst.is_tcp)
        burst.mpls.label += 1
        burst.gtpu.teid = 3


def test_writes_are_alike_and_keep_the_checksum_of_udp() -> None:
    pytest.importorskip("numba")
    compiled = type("Nf", (NetworkFunction,), {"process_packet": kernel(_write)})
    results = []
    for kind in (Write, WriteColumns, compiled):
        with Runner(kind) as runner:
            results.append(runner.run(ALL).packets)
    assert results[0] == results[1] == results[2]
    after = dict(zip(FRAMES, results[0], strict=True))
    assert Ether(after["vxlan"])[VXLAN].vni == 0xFFFFFF
    assert Ether(after["geneve"])[GENEVE].vni == 0x1235
    assert Ether(after["arp"])[ARP].op == 1
    assert Ether(after["mpls"])[MPLS].label == 70_001
    for name in ("vxlan", "geneve", "gtpu"):
        assert is_sound(after[name]), name
    for name in ("sctp", "gre", "pppoe"):
        assert after[name] == FRAMES[name]
