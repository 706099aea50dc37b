"""Packet views: fields, verdicts and lifetimes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from onvm_sdk import FiveTuple, NetworkFunction, PacketView, StaleViewError, Verdict
from onvm_sdk.testing import run

FRAME = bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=53) / b"abc")


def each(handler: Any, frames: list[bytes]) -> Any:
    class Handler(NetworkFunction):
        def process_packet(self, pkt: PacketView) -> Any:
            return handler(pkt)

    return run(Handler, frames)


def test_kept_views_headers_and_data_are_stale() -> None:
    kept: list[Any] = []

    def handler(pkt: PacketView) -> None:
        kept.append((pkt, pkt.ipv4, pkt.data))
        assert pkt.data[-3:] == b"abc"

    each(handler, [FRAME, FRAME])
    for pkt, ipv4, data in kept:
        with pytest.raises(StaleViewError):
            _ = pkt.length
        with pytest.raises(StaleViewError):
            ipv4.ttl = 3
        with pytest.raises(ValueError, match="released"):
            bytes(data)


def test_a_header_outlives_its_view_safely() -> None:
    kept: list[Any] = []
    each(lambda pkt: kept.append(pkt.udp), [FRAME] * 3)
    for udp in kept:
        with pytest.raises(StaleViewError):
            _ = udp.src_port


def test_five_tuple_of_a_packet_and_its_reverse() -> None:
    got: list[Any] = []
    each(lambda pkt: got.append(FiveTuple.of(pkt)), [FRAME, bytes(64)])
    assert got[1] is None
    assert got[0] == FiveTuple.make("10.0.0.1", 5, "10.0.0.2", 53, 17)
    assert got[0].reversed().reversed() == got[0]
    assert str(got[0]) == "10.0.0.1:5 > 10.0.0.2:53 / 17"


def test_values_are_cut_to_the_field() -> None:
    def handler(pkt: PacketView) -> None:
        pkt.ipv4.ttl = -1
        pkt.udp.dst_port = 65536 + 7
        pkt.tcp.window = 5

    again = Ether(each(handler, [FRAME]).packets[0])
    assert (again[IP].ttl, again[UDP].dport) == (255, 7)


def test_ipv6_addresses_are_numbers() -> None:
    address = 0x20010DB8_00000000_00000000_00000009

    def handler(pkt: PacketView) -> None:
        pkt.ipv6.src = address
        assert pkt.ipv6.src == address
        assert pkt.ipv6.src_low == 9

    packet = each(handler, [bytes(Ether() / IPv6() / UDP())]).packets[0]
    again = Ether(packet)
    assert again[IPv6].src == "2001:db8::9"
    del again[UDP].chksum
    assert bytes(again) == packet


def test_verdicts() -> None:
    assert each(lambda pkt: pkt.drop(4), [FRAME]).destinations == [4]
    assert each(lambda pkt: pkt.out(3), [FRAME]).verdicts == [Verdict.OUT]
    assert each(lambda pkt: Verdict.DROP, [FRAME]).verdicts == [Verdict.DROP]
    assert each(lambda pkt: None, [FRAME]).verdicts == [Verdict.NEXT]
    assert each(lambda pkt: pkt.out(3), [FRAME]).destinations == [3]


@pytest.mark.parametrize("result", [9, -1, True, "drop", 1 << 70], ids=str)
def test_what_is_no_verdict_is_an_error_with_the_line_of_the_function(result: object) -> None:
    line = inspect.getsourcelines(each)[1] + 2
    with pytest.raises(TypeError) as raised:
        each(lambda pkt: result, [FRAME])
    text = f"process_packet returned {result!r}, expected a Verdict or None ({__file__}:{line})"
    assert str(raised.value).endswith(text)


def test_decisions_are_verdicts() -> None:
    def handler(pkt: PacketView) -> Verdict:
        assert pkt.drop() is Verdict.DROP
        assert pkt.verdict is Verdict.DROP
        return pkt.out(1)

    assert each(handler, [FRAME]).verdicts == [Verdict.OUT]


def test_push_and_pull() -> None:
    def handler(pkt: PacketView) -> None:
        assert not pkt.push(10000)
        assert not pkt.pull(pkt.length)
        assert pkt.push(4)
        pkt.data[:4] = b"HEAD"
        assert not pkt.is_udp

    assert each(handler, [FRAME]).packets == [b"HEAD" + FRAME]
