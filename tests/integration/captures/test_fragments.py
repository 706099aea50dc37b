"""Datagrams in fragments, in any order, as NFs get them and as they leave.

Scapy cuts the datagrams and puts together what comes out.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from python_path import python_path

scapy = pytest.importorskip("scapy.all")

RUN = [sys.executable, "-P", "-m", "onvm_core.cli", "run", "--json", "-"]
SIZES = (20, 1400, 1480, 3000, 9000, 60_000)
NFS = """
from pathlib import Path

from onvm_sdk import NetworkFunction


class Reports(NetworkFunction):
    manifest = {"fragments": "FORM"}

    def setup(self, ctx):
        self.seen = (Path("FOLDER") / "seen").open("w", buffering=1)

    def report(self, length, key, is_fragment):
        print(length, bytes(key).hex(), bool(is_fragment), file=self.seen)


class Views(Reports):
    def process_packet(self, pkt):
        self.report(len(pkt.data), pkt.flow_key, pkt.is_fragment)


class Columns(Reports):
    def process(self, burst):
        for row in zip(burst.length, burst.flow_key, burst.is_fragment):
            self.report(*row)
"""


@dataclass
class Datagram:
    """A datagram as one frame, and its fragments."""

    whole: bytes
    fragments: list[bytes]
    ports: bytes


def datagram(size: int, number: int, *, is_v6: bool, vlan: int) -> Datagram:
    link = scapy.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    if vlan:
        link /= scapy.Dot1Q(vlan=vlan)
    udp = scapy.UDP(sport=4000 + number, dport=9000) / random.Random(number).randbytes(size)
    if is_v6:
        ip = scapy.IPv6(src="2001:db8::1", dst="2001:db8::2")
        made = scapy.fragment6(ip / scapy.IPv6ExtHdrFragment(id=number) / udp, 1500)
    else:
        ip = scapy.IP(src="10.0.0.1", dst="10.0.0.2", id=number)
        made = (ip / udp).fragment(1480)
    whole = bytes(link / ip / udp)
    return Datagram(
        whole,
        [bytes(link / one) for one in made] if len(made) > 1 else [whole],
        (4000 + number).to_bytes(2, "big") + (9000).to_bytes(2, "big"),
    )


def datagrams() -> list[Datagram]:
    kinds = [(is_v6, vlan) for is_v6 in (False, True) for vlan in (0, 7)]
    return [
        datagram(size, 1 + number + len(kinds) * index, is_v6=is_v6, vlan=vlan)
        for number, (is_v6, vlan) in enumerate(kinds)
        for index, size in enumerate(SIZES)
    ]


def put_together(frames: list[bytes]) -> set[bytes]:
    """What a host makes of fragments: by addresses and identification, in the order of offsets."""
    whole, pieces = set(), {}
    for data in frames:
        frame = scapy.Ether(data)
        own = scapy.IPv6ExtHdrFragment if scapy.IPv6 in frame else scapy.IP
        if own not in frame:
            whole.add(data)
            continue
        at = frame[own].offset * 8 if own is not scapy.IP else frame[own].frag * 8
        more = frame[own].m if own is not scapy.IP else int(frame[own].flags.MF)
        if own is scapy.IP and not at and not more:
            whole.add(data)
            continue
        link = bytes(frame)[: 18 if scapy.Dot1Q in frame else 14]
        pieces.setdefault((link, frame[own].id), []).append((at, more, frame))
    for (link, _), parts in pieces.items():
        parts.sort(key=lambda part: part[0])
        payload = b""
        for at, _, frame in parts:
            assert at == len(payload), "no piece is missing, and none is there twice"
            ip = frame[scapy.IPv6] if scapy.IPv6 in frame else frame[scapy.IP]
            payload += (
                bytes(ip)[48 : 40 + ip.plen] if scapy.IPv6 in frame else bytes(ip)[20 : ip.len]
            )
        assert [bool(more) for _, more, _ in parts] == [True] * (len(parts) - 1) + [False]
        ip = parts[0][2][scapy.IPv6 if scapy.IPv6 in parts[0][2] else scapy.IP]
        if isinstance(ip, scapy.IPv6):
            head = scapy.IPv6(src=ip.src, dst=ip.dst, nh=17, plen=len(payload), hlim=ip.hlim)
        else:
            head = scapy.IP(src=ip.src, dst=ip.dst, id=ip.id, proto=17, ttl=ip.ttl)
            head.len = 20 + len(payload)
        whole.add(link + bytes(head) + payload)
    return whole


def run(folder: Path, nf: str, form: str, frames: list[bytes]) -> dict[str, Any]:
    text = NFS.replace("FORM", form).replace("FOLDER", str(folder))
    (folder / "fragment_nfs.py").write_text(text, encoding="utf-8")
    scapy.wrpcap(str(folder / "in.pcap"), [scapy.Ether(frame) for frame in frames])
    ports = ("--in", f"pcap:{folder}/in.pcap", "--out", f"pcap:{folder}/out.pcap")
    done = subprocess.run(
        [*RUN, *ports, "--chain", f"{folder}/fragment_nfs.py:{nf}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **python_path(folder)},
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def shuffled(made: list[Datagram]) -> list[bytes]:
    frames = [fragment for one in made for fragment in one.fragments]
    random.Random(13).shuffle(frames)
    return frames


def out(folder: Path) -> list[bytes]:
    return [bytes(frame) for frame in scapy.rdpcap(str(folder / "out.pcap"))]


def seen(folder: Path) -> list[tuple[int, bytes, bool]]:
    rows = [line.split() for line in (folder / "seen").read_text().splitlines()]
    return [(int(n), bytes.fromhex(key), flag == "True") for n, key, flag in rows]


@pytest.mark.parametrize("nf", ["Views", "Columns"])
def test_datagrams_are_whole_for_an_nf_and_leave_in_fragments(tmp_path: Path, nf: str) -> None:
    made = datagrams()
    frames = shuffled(made)
    report = run(tmp_path, nf, "reassemble", frames)
    assert sorted(n for n, _, _ in seen(tmp_path)) == sorted(len(one.whole) for one in made)
    assert not any(is_fragment for _, _, is_fragment in seen(tmp_path))
    assert put_together(out(tmp_path)) == {one.whole for one in made}
    assert max(map(len, out(tmp_path))) <= max(map(len, frames))
    assert report["rx"] == len(frames)
    assert report["drops"] == {"reassembled": sum(len(one.fragments) - 1 for one in made)}


@pytest.mark.parametrize("nf", ["Views", "Columns"])
def test_fragments_have_the_ports_of_their_datagram(tmp_path: Path, nf: str) -> None:
    made = datagrams()
    frames = shuffled(made)
    report = run(tmp_path, nf, "virtual", frames)
    rows = seen(tmp_path)
    assert len(rows) == len(frames)
    assert {key[36:40] for _, key, _ in rows} <= {one.ports for one in made}
    counts = [sum(key[36:40] == one.ports for _, key, _ in rows) for one in made]
    assert counts == [len(one.fragments) for one in made]
    assert sorted(out(tmp_path)) == sorted(frames)
    assert report["drops"] == {}


def test_what_is_not_complete_at_the_end_is_counted(tmp_path: Path) -> None:
    made = datagrams()
    frames = [fragment for one in made for fragment in one.fragments[1:]]
    alone = sum(len(one.fragments) == 1 for one in made)
    report = run(tmp_path, "Views", "reassemble", frames)
    assert report["drops"] == {"fragment_timeout": len(frames)}
    assert alone == 8
    assert seen(tmp_path) == []
