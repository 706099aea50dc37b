# SPDX-License-Identifier: Apache-2.0
"""The firewall against nft with conntrack: the same policy and packets, equal verdicts.

nft forwards between two interfaces in a namespace. Behind each packet goes a marker that passes
untracked: when it has arrived, the packet has, too, or never will.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from firewall_case import FirewallCase
from namespaces import missing, namespaces
from nft_box import A6, B6, MARKER_PORT, OUTSIDE, A, B, Nft, V

from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import ACK, FIN, RST, SYN, echo, icmp_error, ip, tcp, udp

REASON = missing("nft", "sysctl")
pytestmark = [pytest.mark.skipif(bool(REASON), reason=REASON), pytest.mark.once]

RULESET = f"""
table inet firewall {{
    chain before {{
        type filter hook prerouting priority -300;
        udp dport {MARKER_PORT} notrack
    }}
    chain forward {{
        type filter hook forward priority 0; policy drop;
        udp dport {MARKER_PORT} accept
        ct state invalid drop
        ct state established,related accept
        iifname "near" tcp dport 80 accept
        iifname "near" udp dport 53 accept
        iifname "near" meta l4proto {{ icmp, ipv6-icmp, 47 }} accept
    }}
}}
"""
RULES = [
    {"action": "accept", "from": "near", "protocol": "tcp", "dst_ports": 80},
    {"action": "accept", "from": "near", "protocol": "udp", "dst_ports": 53},
    {"action": "accept", "from": "near", "protocol": "icmp"},
    {"action": "accept", "from": "near", "protocol": "icmpv6"},
    {"action": "accept", "from": "near", "protocol": "gre"},
]


@pytest.fixture(scope="module")
def nft() -> Iterator[Nft]:
    with namespaces(["box"]) as net:
        made = Nft(net, RULESET)
        yield made
        made.close()


def fresh() -> FirewallCase:
    return FirewallCase(default="drop", rules=RULES, verify_checksums=True)


PORTS = iter(range(10_000, 60_000))
OUT, BACK = False, True


def conversation(v6: bool = False) -> tuple[int, list[tuple[bytes, bool]]]:
    """Return the port of a client, and the segments that open its connection."""
    port, (a, b) = next(PORTS), (A6, B6) if v6 else (A, B)
    window = {"window": 65535}
    return port, [
        (tcp(a, port, b, 80, SYN, seq=1000, ack=0, **window), OUT),
        (tcp(b, 80, a, port, SYN | ACK, seq=9000, ack=1001, **window), BACK),
        (tcp(a, port, b, 80, ACK, seq=1001, ack=9001, **window), OUT),
    ]


@pytest.mark.parametrize(
    "flags",
    [0, FIN, FIN | 8 | 32, FIN | SYN, SYN | RST, RST, RST | ACK, SYN | ACK, ACK, FIN | ACK, SYN],
)
def test_first_segments(nft: Nft, flags: int) -> None:
    firewall, frame = fresh(), tcp(A, next(PORTS), B, 80, flags)
    assert nft(frame, OUT) == (firewall(frame) == [None])


def damaged(frame: bytes) -> bytes:
    return frame[:-1] + bytes([frame[-1] ^ 1])


GRE = ip(A, B, 47, bytes(20))
SINGLE = {
    "echo": [(echo(A, B, 11), OUT), (echo(B, A, 11, 0), BACK), (echo(B, A, 12, 0), BACK)],
    "echo6": [(echo(A6, B6, 11), OUT), (echo(B6, A6, 11, 129), BACK),
              (echo(B6, A6, 12, 129), BACK)],
    "unasked": [(echo(A, B, 21, 0), OUT), (echo(B, A, 21, 0), BACK), (echo(A6, B6, 21, 129), OUT)],
    "timestamp": [(echo(A, B, 31, 13), OUT), (echo(B, A, 31, 14), BACK), (echo(B, A, 31, 0), BACK)],
    "other icmp": [(echo(A, B, 41, 9), OUT), (echo(A, B, 41, 40), OUT),
                   (echo(A6, B6, 41, 155), OUT)],
    "damaged": [(damaged(echo(A, B, 51)), OUT), (damaged(udp(A, 1, B, 53, b"x")), OUT)],
    "udp": [(udp(A, 71, B, 53), OUT), (udp(B, 53, A, 71), BACK), (udp(B, 53, A, 72), BACK)],
    "gre": [(GRE, OUT), (ip(B, A, 47, bytes(20)), BACK), (icmp_error(OUTSIDE, A, GRE), BACK)],
    "error about udp": [(udp(A, 81, B, 53), OUT), (icmp_error(OUTSIDE, A, udp(A, 81, B, 53)), BACK),
                        (icmp_error(OUTSIDE, V, udp(A, 81, B, 53)), BACK)],
    "error about nothing": [(icmp_error(OUTSIDE, A, udp(A, 91, B, 53)), BACK),
                            (icmp_error(A, B, udp(B, 53, A, 91)), OUT)],
    "error about a query": [(echo(A, B, 61), OUT), (icmp_error(OUTSIDE, A, echo(A, B, 61)), BACK),
                            (icmp_error(OUTSIDE, A, echo(A, B, 62)), BACK)],
}  # fmt: skip


@pytest.mark.parametrize("title", SINGLE)
def test_packets_without_connection(nft: Nft, title: str) -> None:
    firewall = fresh()
    for number, (frame, reverse) in enumerate(SINGLE[title]):
        ours = firewall(frame, reverse=reverse)
        assert nft(frame, reverse) == (ours == [None]), (title, number, ours)


OFFSETS = [0, 0, 0, 1, -1, 5, -5, 600, -600, 1 << 20, -(1 << 20), 1 << 30]


@pytest.mark.parametrize("seed", range(30))
def test_segments_of_a_connection(nft: Nft, seed: int) -> None:
    """In and outside the windows, old, damaged, with impossible flags, blind resets; and errors."""
    draw, firewall, n_passed = random.Random(seed), fresh(), 0
    for _ in range(30):
        v6 = draw.random() < 0.3
        port, script = conversation(v6)
        a, b = (A6, B6) if v6 else (A, B)
        sent = [1001, 9001]
        for number in range(30):
            side, end = draw.randrange(2), draw.choice(OFFSETS)
            acknowledged = sent[1 - side] + draw.choice([0, 0, 0, -1, -600, 1, 5, 1 << 20])
            flags = draw.choice([ACK] * 6 + [ACK | 8, 0, FIN, SYN | FIN, SYN | RST, RST | FIN])
            if abs(end) > 1 << 19 and draw.random() < 0.5:
                flags = RST
            payload = draw.choice([b"", b"x", bytes(100)])
            ends = (a, port, b, 80) if side == 0 else (b, 80, a, port)
            frame = tcp(*ends, flags, payload, seq=sent[side] + end, ack=acknowledged, window=65535)
            reverse = side == 1
            if draw.random() < 0.05:
                frame = damaged(frame)
            if draw.random() < 0.1:
                frame, reverse = icmp_error(ends[2], ends[0], frame, size=96), not reverse
            if number < len(script):
                frame, reverse = script[number]
            ours = firewall(frame, reverse=reverse)
            assert nft(frame, reverse) == (ours == [None]), (number, ours, frame.hex())
            n_passed += ours == [None]
            if (
                number >= len(script)
                and ours == [None]
                and end == 0
                and read_headers(frame).tcp_flags & ACK
            ):
                sent[side] += len(payload)
    assert 300 < n_passed < 870
