"""Rewrites with checksums, byte for byte, by every way to write an NF."""

from __future__ import annotations

import gzip
import ipaddress
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onvm_sdk import NetworkFunction
from onvm_sdk.burst import Burst
from onvm_sdk.packet import PacketView
from onvm_sdk.testing import Runner

Vector = dict[str, Any]


class PacketRewriter(NetworkFunction):
    def __init__(self, vectors: list[Vector]) -> None:
        self.vectors = iter(vectors)

    def process_packet(self, pkt: PacketView) -> None:
        rewrite = next(self.vectors)["rewrite"]
        ip: Any = pkt.ipv4 if pkt.is_ipv4 else pkt.ipv6
        for side in ("src", "dst"):
            if rewrite[side]:
                setattr(ip, side, int(ipaddress.ip_address(rewrite[side])))
        l4: Any = pkt.tcp if pkt.is_tcp else pkt.udp
        if rewrite.get("sport") is not None:
            l4.src_port = rewrite["sport"]
        if rewrite.get("dport") is not None:
            l4.dst_port = rewrite["dport"]
        if rewrite.get("icmp_id") is not None:
            pkt.icmp.id = rewrite["icmp_id"]
        if rewrite.get("ttl_dec"):
            if pkt.is_ipv4:
                pkt.ipv4.ttl -= 1
            else:
                pkt.ipv6.hop_limit -= 1


class ColumnRewriter(NetworkFunction):
    def __init__(self, vectors: list[Vector]) -> None:
        self.vectors = iter(vectors)

    def process(self, burst: Burst) -> None:
        rewrites = [next(self.vectors)["rewrite"] for _ in range(len(burst))]
        for side in ("src", "dst"):
            rows = [row for row, rewrite in enumerate(rewrites) if rewrite[side]]
            for row in rows:
                address = ipaddress.ip_address(rewrites[row][side])
                if address.version == 4:
                    getattr(burst.ipv4, side)[row] = int(address)
                else:
                    getattr(burst.ipv6, side)[row] = np.frombuffer(address.packed, np.uint8)
        for key, side in (("sport", "src_port"), ("dport", "dst_port")):
            for row, rewrite in enumerate(rewrites):
                if rewrite.get(key) is not None:
                    getattr(burst.tcp, side)[row] = rewrite[key]
                    getattr(burst.udp, side)[row] = rewrite[key]
        for row, rewrite in enumerate(rewrites):
            if rewrite.get("icmp_id") is not None:
                burst.icmp.id[row] = rewrite["icmp_id"]
        older = np.array([bool(rewrite.get("ttl_dec")) for rewrite in rewrites])
        burst.ipv4.ttl[older] -= 1
        burst.ipv6.hop_limit[older] -= 1


@pytest.mark.parametrize("kind", [PacketRewriter, ColumnRewriter])
def test_rewritten_frames_are_those_of_the_vectors(shared_data: Path, kind: Any) -> None:
    with gzip.open(shared_data / "checksum" / "rewrite_vectors.json.gz") as file:
        vectors = json.load(file)["vectors"]
    with Runner(kind(vectors)) as runner:
        result = runner.run([bytes.fromhex(vector["input"]) for vector in vectors])
    wrong = [
        (number, vector["rewrite"], vector["l4_in"])
        for number, (vector, packet) in enumerate(zip(vectors, result.packets, strict=True))
        if packet.hex() not in (vector["expected"], *vector.get("also_ok", ()))
    ]
    assert not wrong, f"{len(wrong)} of {len(vectors)}: {wrong[:5]}"
    assert not result.broken
