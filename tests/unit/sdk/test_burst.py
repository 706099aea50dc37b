"""Columns: values, writes, verdicts and lifetimes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from onvm_sdk import NetworkFunction, StaleViewError, Verdict
from onvm_sdk.burst import Burst
from onvm_sdk.nf import Context, Counters
from onvm_sdk.testing import Result, Runner, run

FRAMES = [
    bytes(frame)
    for frame in (
        Ether() / IP(src="10.0.0.1", ttl=9) / UDP(sport=5, dport=53) / b"x",
        Ether() / Dot1Q(vlan=7, prio=3) / IP(ttl=1) / TCP(dport=80, flags="S"),
        Ether() / IPv6(hlim=4) / UDP(dport=99),
        Ether() / IP() / ICMP(id=3),
        Ether() / ARP(),
    )
]


def process(handler: Callable[[Burst], Any], frames: list[bytes] = FRAMES) -> Result:
    """Run a function as the handler of an NF."""

    class Handler(NetworkFunction):
        def process(self, burst: Burst) -> None:
            handler(burst)

    return run(Handler, frames)


def read(name: str) -> list[int]:
    got: list[Any] = []

    def handler(burst: Burst) -> None:
        value: Any = burst
        for part in name.split("."):
            value = getattr(value, part)
        got.extend(value.tolist())

    process(handler)
    return got


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ipv4.ttl", [9, 1, 0, 64, 0]),
        ("ipv4.src", [0x0A000001, 0x7F000001, 0, 0x7F000001, 0]),
        ("udp.dst_port", [53, 0, 99, 0, 0]),
        ("tcp.flags", [0, 2, 0, 0, 0]),
        ("icmp.id", [0, 0, 0, 3, 0]),
        ("vlan.id", [0, 7, 0, 0, 0]),
        ("vlan.priority", [0, 3, 0, 0, 0]),
        ("vlan_count", [0, 1, 0, 0, 0]),
        ("eth.type", [0x800, 0x800, 0x86DD, 0x800, 0x806]),
        ("ipv6.hop_limit", [0, 0, 4, 0, 0]),
        ("protocol", [17, 6, 17, 1, 0]),
        ("is_udp", [True, False, True, False, False]),
        ("is_ipv4", [True, True, False, True, False]),
        ("length", [len(frame) for frame in FRAMES]),
    ],
)
def test_column_values(name: str, expected: list[int]) -> None:
    assert read(name) == expected


def test_absent_headers_are_never_written() -> None:
    def handler(burst: Burst) -> None:
        burst.tcp.dst_port[:] = 1
        burst.ipv4.ttl = np.full(len(burst), 77, dtype=np.uint8)

    result = process(handler)
    assert result.packets[2] == FRAMES[2]
    assert result.packets[4] == FRAMES[4]
    assert Ether(result.packets[0])[IP].ttl == 77
    assert Ether(result.packets[1])[TCP].dport == 1


def test_checksums_are_those_of_scapy() -> None:
    def handler(burst: Burst) -> None:
        burst.ipv4.ttl[burst.is_tcp] -= 1
        burst.ipv4.dst[:] = 0x01020304
        burst.ipv6.src[:, 15] = 9
        burst.udp.src_port += 1
        burst.icmp.sequence[:] = 500

    for packet in process(handler).packets:
        again = Ether(packet)
        for layer in (IP, UDP, TCP, ICMP):
            if layer in again:
                del again[layer].chksum
        assert bytes(again) == packet


def test_last_decision_counts() -> None:
    def handler(burst: Burst) -> None:
        burst.drop(burst.is_ipv4, 2)
        burst.out(burst.is_tcp, 5)
        burst.to_service([4], 6)
        burst.verdict[2] = Verdict.DROP

    result = process(handler)
    drop, out, service = Verdict.DROP, Verdict.OUT, Verdict.TO_SERVICE
    assert result.verdicts == [drop, out, drop, drop, service]
    assert result.destinations == [2, 5, 0, 2, 6]


def test_push_and_pull_move_the_headers() -> None:
    def handler(burst: Burst) -> None:
        tag = burst.eth.dst.shape == (5, 6)
        assert tag
        assert burst.push(b"\x02" * 12 + b"\x08\x00", burst.is_udp).tolist() == [1, 0, 1, 0, 0]
        assert not burst.is_udp.any()
        burst.pull(14, [0])
        assert burst.is_udp.tolist() == [True, False, False, False, False]

    result = process(handler)
    assert result.packets[0] == FRAMES[0]
    assert result.packets[2] == b"\x02" * 12 + b"\x08\x00" + FRAMES[2]


def test_packet_view_of_a_row_sees_what_columns_wrote() -> None:
    kept: list[Any] = []

    def handler(burst: Burst) -> None:
        burst.ipv4.ttl[0] = 33
        view = burst.packet(0)
        assert view.ipv4.ttl == 33
        view.ipv4.ttl = 44
        assert burst.ipv4.ttl[0] == 44
        kept.append(view)
        with pytest.raises(IndexError):
            burst.packet(5)

    process(handler)
    with pytest.raises(StaleViewError):
        _ = kept[0].ipv4.ttl


def test_originated_packets_leave_with_the_burst() -> None:
    result = process(lambda burst: burst.originate(FRAMES[4], port=3))
    assert result.originated == [(Verdict.OUT, 3, FRAMES[4])]


def test_masks_are_read_only() -> None:
    def handler(burst: Burst) -> None:
        burst.is_udp[0] = False

    with pytest.raises(ValueError, match="read-only"):
        process(handler)


def test_a_burst_whose_handler_raises_is_dropped() -> None:
    class Broken(NetworkFunction):
        def process(self, burst: Burst) -> None:
            raise KeyError("x")

    with pytest.raises(KeyError):
        run(Broken, FRAMES)


def test_bursts_of_changing_length_and_fused_nfs() -> None:
    class Hop(NetworkFunction):
        def process(self, burst: Burst) -> None:
            burst.ipv4.ttl -= 1

    with Runner([Hop, Hop]) as runner:
        for count in (5, 1, 0, 3):
            result = runner.run(FRAMES[:count], reverse=count == 3)
            assert len(result.packets) == count
            if count:
                assert Ether(result.packets[0])[IP].ttl == 7


def test_numbers_are_cut_to_the_field() -> None:
    def handler(burst: Burst) -> None:
        burst.ipv4.ttl = 300
        burst.udp.dst_port = -1
        burst.ipv4.dscp = np.full(len(burst), 64 + 3)

    packet = Ether(process(handler).packets[0])
    assert (packet[IP].ttl, packet[IP].tos >> 2, packet[UDP].dport) == (44, 3, 65535)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("ttl", AttributeError),
        ("ipv4.tll", AttributeError),
        ("udp.ports", AttributeError),
        ("length", ValueError),
        ("ipv4.header_length", ValueError),
        ("flow_hash", ValueError),
    ],
)
def test_what_cannot_be_written_is_no_silent_loss(name: str, error: type[Exception]) -> None:
    def handler(burst: Burst) -> None:
        *path, last = name.split(".")
        setattr(getattr(burst, path[0]) if path else burst, last, 3)

    with pytest.raises(error):
        process(handler)


def test_what_process_returns_is_an_error_with_its_line() -> None:
    class Handler(NetworkFunction):
        def process(self, burst: Burst) -> Any:
            return burst.is_udp

    with pytest.raises(TypeError, match=r"process returned .*, expected None \(.*test_burst.py:"):
        run(Handler, FRAMES)


@pytest.mark.parametrize("number", [-1, 65536])
def test_a_destination_beyond_its_range_is_refused(number: int) -> None:
    with pytest.raises(OverflowError, match="is below 65536"):
        process(lambda burst: burst.drop(None, number))


def test_unknown_names_of_the_manifest_name_the_choices() -> None:
    ctx = Context("nf", counters=Counters(["hits", "misses"]), reasons=("blocked",))
    with pytest.raises(ValueError, match=r"drop reason 'nope': expected one of .*: blocked"):
        ctx.reason("nope")
    with pytest.raises(KeyError, match=r"counter 'hit': expected one of .*: hits, misses"):
        ctx.counters["hit"] += 1
    with pytest.raises(ValueError, match="it has none"):
        Context("nf").reason("nope")
