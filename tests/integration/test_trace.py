"""`onvm trace` and filters: chosen packets, followed whatever NFs make of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from up_host import Host, install_nf

from onvm_core.manager.captures.headers import difference, fields_of, summary
from onvm_core.manager.captures.pcapng import read_sights

SOURCE = """
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def setup(self, ctx):
        self.ctx = ctx

    def process_packet(self, pkt):
        if pkt.is_udp:
            return pkt.drop(self.ctx.reason("no_udp"))
        if pkt.is_tcp:
            pkt.ipv4.ttl = 9
"""
MANIFEST = """
schema = 1
name = "marker"
sdk = ">=0.1,<1"
permissions = ["read", "rewrite", "drop"]
drop_reasons = ["other", "no_udp"]
"""
CONFIG = """
[dataplane]
flows = 4096
buffers = 2048
[ports.lan]
uri = "gen:?rate=1000&flows=32&ipv6=0"
[ports.wan]
uri = "gen:"
[nfs.hop]
[nfs.marker]
[chains.main]
in = "lan"
out = "wan"
services = ["hop", "marker"]
"""


@pytest.fixture
def marking(host: Host) -> Host:
    install_nf(host.site, "marker", SOURCE)
    (host.site / "onvm_nf_marker/onvm-nf.toml").write_text(MANIFEST)
    host.configure(CONFIG)
    host.do("up", "-d")
    return host


def test_packets_are_followed_with_verdicts_and_changes(marking: Host, tmp_path: Path) -> None:
    file = tmp_path / "way.pcapng"
    (dropped,) = marking.json("trace", "udp")
    assert [(hop["point"], hop["what"]) for hop in dropped["hops"]] == [
        ("lan", "in"),
        ("hop-1", "to"),
        ("hop-1", "next"),
        ("marker-1", "to"),
        ("marker-1", "drop no_udp"),
    ]
    assert dropped["end"] == "dropped"
    assert dropped["summary"].startswith("udp 10.")
    times = [hop["at_us"] for hop in dropped["hops"]]
    assert times == sorted(times)
    assert times[0] == 0.0
    ways = tmp_path / "ways.json"
    arguments = ("--count", "3", "--pcapng", str(file), "--perfetto", str(ways))
    sent = marking.json("trace", "tcp and src net 10.0.0.0/8", *arguments)
    slices = [
        one["name"] for one in json.loads(ways.read_text())["traceEvents"] if one["ph"] == "b"
    ]
    assert slices[1::3] == ["hop-1"] * 3
    assert slices[2::3] == ["marker-1"] * 3
    assert len(sent) == 3
    for packet in sent:
        assert [hop["what"] for hop in packet["hops"]] == ["in", "to", "next", "to", "next", "out"]
        assert packet["end"] == "sent"
        (change,) = packet["hops"][4]["changes"]
        assert change.startswith("ip.ttl ")
        assert change.endswith(" → 9")
    assert {sight.number for sight in read_sights(file)} == {1, 2, 3}
    text = marking.do("trace", "udp")
    assert "drop no_udp" in text


def test_filters_choose_packets_and_flows(marking: Host, tmp_path: Path) -> None:
    file = tmp_path / "icmp.pcapng"
    marking.do("capture", "lan", "-o", str(file), "--filter", "icmp", "--count", "5")
    kinds = {fields_of(sight.data)["ip.protocol"] for sight in read_sights(file)}
    assert kinds == {"icmp"}
    flows = marking.json("flow", "list", "--filter", "udp")["flows"]
    assert {flow["protocol"] for flow in flows} == {17}
    address = flows[0]["src"]
    found = marking.json("flow", "list", "--filter", f"src host {address} and udp")["flows"]
    assert found
    assert {flow["src"] for flow in found} == {address}
    done = marking.onvm("trace", "udp prot 53")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: filter: 'udp prot 53': expected a filter as in pcap-filter(7): "
    )
    assert marking.onvm("trace", "ip6", "--duration", "0.2").returncode == 1


def test_headers_are_compared_by_fields() -> None:
    frame = bytes.fromhex(
        "020000000002020000000001080045000024000100004006000"
        "00a0000010a000002"
        "03e8003500000001000000025018040000000000"
    )
    assert summary(frame) == "tcp 10.0.0.1:1000 → 10.0.0.2:53, 54 bytes"
    assert fields_of(frame)["tcp.flags"] == "PA"
    changed = frame[:22] + b"\x3f" + frame[23:]
    assert difference(frame, changed) == ["ip.ttl 64 → 63"]
    assert difference(frame, frame[:-1] + b"\x01") == ["other bytes"]
    assert difference(frame, frame) == []
    tagged = frame[:12] + b"\x81\x00\x00\x07" + frame[12:]
    assert "vlan - → 7" in difference(frame, tagged)
    assert fields_of(b"\0" * 5) == {"length": "5"}
