"""Port "gen": the same seed, right checksums, whole conversations, and faults that are counted."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from scenario import run

scapy = pytest.importorskip("scapy.all")

ONE_WAY = """
source = plane.open_port("in", GenPort(role="client", answer=False, **arguments["gen"]))
sink = plane.open_port("out", PcapPort(tx_path=arguments["path"]))
manager.set_chain(1, source, sink, [], is_bidirectional=False, track_flows=False)
plane.pause_sources(False)
until(lambda: plane.read_gen(source).is_finished)
until(lambda: plane.read_port(sink).tx == plane.read_gen(source).sent)
result = counters(plane.read_gen(source))
"""

CONVERSATION = """
client = plane.open_port("in", GenPort(role="client", **arguments["gen"]))
server = plane.open_port("out", GenPort(role="server"))
manager.set_chain(1, client, server, [], track_flows=arguments["track"])
plane.pause_sources(False)
until(lambda: plane.read_gen(client).is_finished)
until(lambda: plane.read_plane().buffers_free == settings.n_buffers)
result = {
    "client": counters(plane.read_gen(client)),
    "server": counters(plane.read_gen(server)),
}
"""


def one_way(tmp_path: Path, name: str, **gen: Any) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / name
    answer = run(ONE_WAY, tmp_path, path=str(path), gen=gen)
    assert answer["plane"]["buffers_free"] == answer["plane"]["buffers_total"]
    return path, answer["result"]


def conversation(tmp_path: Path, *, track: bool = False, **arguments: Any) -> dict[str, Any]:
    # A busy machine may stop a side for longer than some RTTs: that is no answer that got lost.
    arguments["gen"] = {"timeout_ms": 5000} | arguments["gen"]
    answer = run(CONVERSATION, tmp_path, track=track, **arguments)
    assert not any(answer["plane"]["drops"].values())
    result: dict[str, Any] = answer["result"]
    return result


def frames(path: Path) -> list[bytes]:
    return [data for data, _ in scapy.RawPcapReader(str(path))]


def test_same_seed_makes_the_same_packets(tmp_path: Path) -> None:
    first, _ = one_way(tmp_path, "1.pcap", seed=7, count=4000, n_flows=64)
    again, _ = one_way(tmp_path, "2.pcap", seed=7, count=4000, n_flows=64)
    other, _ = one_way(tmp_path, "3.pcap", seed=8, count=4000, n_flows=64)
    assert frames(first) == frames(again)
    assert frames(first) != frames(other)


def test_count_is_exact_and_the_mix_is_as_asked(tmp_path: Path) -> None:
    path, counted = one_way(tmp_path, "mix.pcap", seed=3, count=30000, n_flows=500, ipv6_percent=30)
    packets = frames(path)
    assert len(packets) == counted["sent"] == 30000
    assert counted["opened"] == counted["completed"]
    assert 0.25 < counted["ipv6"] / counted["opened"] < 0.35
    assert 0.65 < counted["tcp"] / counted["opened"] < 0.75
    data = [len(packet) for packet in packets]
    assert min(data) == 60 and max(data) == 1514
    assert 0.2 < data.count(590) / len(data) < 0.35
    assert 0.03 < data.count(1514) / len(data) < 0.1


def test_every_checksum_is_right_for_scapy(tmp_path: Path) -> None:
    path, _ = one_way(tmp_path, "sums.pcap", seed=5, count=3000, n_flows=100, ipv6_percent=40)
    kinds = set()
    for data in frames(path):
        packet = scapy.Ether(data)
        network = packet[scapy.IP] if scapy.IP in packet else packet[scapy.IPv6]
        again = network.copy()
        for layer in (scapy.IP, scapy.TCP, scapy.UDP, scapy.ICMP):
            if layer in again:
                kinds.add(layer.__name__)
                del again[layer].chksum
        echo = next((c for c in (scapy.ICMPv6EchoRequest,) if c in again), None)
        if echo is not None:
            kinds.add(echo.__name__)
            del again[echo].cksum
        assert bytes(again) == bytes(network)
    assert kinds == {"IP", "TCP", "UDP", "ICMP", "ICMPv6EchoRequest"}


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_finds_nothing_wrong(tmp_path: Path) -> None:
    path, _ = one_way(tmp_path, "whole.pcap", seed=11, count=20000, n_flows=200)
    wrong = (
        "ip.checksum.status == Bad || tcp.checksum.status == Bad || udp.checksum.status == Bad"
        " || icmp.checksum.status == Bad || icmpv6.checksum.status == Bad || _ws.malformed"
        " || tcp.analysis.out_of_order || tcp.analysis.retransmission"
    )
    found = subprocess.run(
        [
            "tshark",
            "-n",
            "-r",
            path,
            "-o",
            "ip.check_checksum:TRUE",
            "-o",
            "tcp.check_checksum:TRUE",
            "-o",
            "udp.check_checksum:TRUE",
            "-Y",
            wrong,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == ""


@pytest.mark.parametrize("track", [False, True], ids=["one path", "flows looked up"])
def test_every_conversation_comes_to_its_end(tmp_path: Path, track: bool) -> None:
    result = conversation(tmp_path, track=track, gen={"seed": 1, "count": 200_000, "n_flows": 500})
    client, server = result["client"], result["server"]
    assert client["sent"] == server["received"] == 200_000
    assert client["received"] == server["sent"]
    assert client["opened"] == client["completed"]
    assert client["replies"] == client["requests"]
    assert sum(client["rtt"]) > client["opened"] / 2
    for name in ("failed", "lost", "bad_checksum", "bad_payload", "out_of_order", "unexpected"):
        assert client[name] == server[name] == 0, name


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two CPUs")
def test_two_workers_may_share_a_generator(tmp_path: Path) -> None:
    client = conversation(tmp_path, workers=2, gen={"seed": 2, "count": 100_000, "n_flows": 200})[
        "client"
    ]
    assert client["opened"] == client["completed"]
    assert client["bad_checksum"] == client["bad_payload"] == client["unexpected"] == 0


@pytest.mark.parametrize("size", [64, 594, 1518])
def test_fixed_sizes_and_one_flow(tmp_path: Path, size: int) -> None:
    client = conversation(tmp_path, gen={"size": size, "count": 2000, "n_flows": 1})["client"]
    assert client["sent"] == 2000
    assert client["opened"] == client["completed"]


def test_silence_fails_connections_and_never_stalls(tmp_path: Path) -> None:
    result = run(
        """
        generator = GenPort(role="client", n_flows=100, count=5000, timeout_ms=5, seed=1)
        client = plane.open_port("in", generator)
        sink = plane.open_port("out", NullPort(count=1))
        manager.set_chain(1, client, sink, [], is_bidirectional=False, track_flows=False)
        begin = time.monotonic()
        plane.pause_sources(False)
        until(lambda: plane.read_gen(client).is_finished)
        result = counters(plane.read_gen(client)) | {"seconds": time.monotonic() - begin}
        """,
        tmp_path,
    )["result"]
    assert result["sent"] == 5000
    assert result["failed"] == result["opened"] > 1000
    assert result["lost"] == result["requests"]
    assert result["seconds"] < 5


def test_answers_go_home_when_sources_rest(tmp_path: Path) -> None:
    result = run(
        """
        client = plane.open_port("in", GenPort(role="client", n_flows=300))
        server = plane.open_port("out", GenPort(role="server"))
        manager.set_chain(1, client, server, [])
        for _ in range(3):
            sent = plane.read_gen(client).sent
            plane.pause_sources(False)
            until(lambda: plane.read_gen(client).sent > sent + 20000)
            plane.pause_sources(True)
            until(lambda: plane.read_plane().buffers_free == settings.n_buffers)
        result = counters(plane.read_gen(client))
        """,
        tmp_path,
    )["result"]
    assert result["replies"] == result["requests"]
    assert result["failed"] == result["unexpected"] == 0


def test_paced_client_keeps_its_rate(tmp_path: Path) -> None:
    result = run(
        """
        client = plane.open_port("in", GenPort(role="client", n_flows=50, rate_pps=20000))
        server = plane.open_port("out", GenPort(role="server"))
        manager.set_chain(1, client, server, [])
        plane.pause_sources(False)
        end = time.monotonic() + 1
        until(lambda: time.monotonic() > end)
        result = counters(plane.read_gen(client))
        """,
        tmp_path,
    )["result"]
    assert 10_000 < result["sent"] < 22_000


def test_bad_options_are_one_line(tmp_path: Path) -> None:
    lines = run(
        """
        result = []
        for bad in ({"size": 20}, {"ipv6_percent": 120}, {"servers": ["nowhere"]},
                    {"vip": "::1"}, {"n_flows": 1 << 21}, {"role": "both"}):
            try:
                plane.open_port("in", GenPort(**({"role": "client"} | bad)))
            except DataplaneError as error:
                result.append(str(error))
        """,
        tmp_path,
    )["result"]
    assert len(lines) == 6
    assert all("expected" in line for line in lines)
