# SPDX-License-Identifier: Apache-2.0
"""Explanations: a packet as users write it, and the rule that decides about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from onvm_nf_firewall.config import load
from onvm_nf_firewall.explain import explain, main, read_packet

from onvm_sdk.errors import ConfigError
from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import SYN, is_sound, tcp

CONFIG = {
    "default": "drop",
    "chains": {"web": [{"action": "accept", "dst_ports": [80, 443], "comment": "the web"}]},
    "rules": [
        {"action": "drop", "src": "203.0.113.0/24"},
        {"action": "jump", "chain": "web", "protocol": "tcp", "in": "wan"},
        {"action": "accept", "icmp": "echo-request", "limit": {"rate": "1/hour", "burst": 1}},
        {"action": "reject", "from": "far", "vlan": 7},
    ],
}


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        ("in=wan tcp 1.2.3.4:5 > 10.0.0.1:80 syn", "accept: chains.web[0] (the web) matches"),
        ("in=lan tcp 1.2.3.4:5>10.0.0.1:80", "drop: no rule decides, and the default is drop"),
        ("in=wan tcp 1.2.3.4:5 > 10.0.0.1:80 ack",
         "drop: chains.web[0] (the web) matches; then drop reason invalid"),
        ("udp 203.0.113.9:1 > 10.0.0.1:53", "drop: rules[0] matches"),
        ("icmp 1.2.3.4 > 10.0.0.1", "accept: rules[2] matches"),
        ("icmpv6 2001:db8::1 > 2001:db8::2 echo-request", "accept: rules[2] matches"),
        ("tcp [2001:db8::1]:5 > [2001:db8::2]:80",
         "drop: no rule decides, and the default is drop"),
        ("far vlan=7 udp 1.2.3.4:5 > 10.0.0.1:80", "reject: rules[3] matches"),
        ("far vlan=7 gre 1.2.3.4 > 10.0.0.1", "reject: rules[3] matches"),
        (bytes(12).hex() + "0806" + bytes(28).hex(), "accept: no rule is asked"),
        (tcp("203.0.113.1", 5, "10.0.0.1", 80, SYN).hex(), "drop: rules[0] matches"),
    ],
)  # fmt: skip
def test_the_rule_that_decides_is_named(packet: str, expected: str) -> None:
    first, *_ = explain(load(CONFIG), read_packet([packet]))
    assert first == expected


def test_each_rule_on_the_way_says_why_not() -> None:
    lines = list(
        explain(load(CONFIG), read_packet(["in=wan", "udp", "1.2.3.4:5", ">", "10.0.0.1:80"]))
    )
    assert lines[1:] == [
        "  rules[0]: does not match: src",
        "  rules[1]: does not match: protocol",
        "  rules[2]: does not match: protocol",
        "  rules[3]: does not match: from",
    ]


def test_packets_are_sound() -> None:
    packet = read_packet(
        ["mac=02:00:00:00:00:99", "tcp", "1.2.3.4:5", ">", "10.0.0.1:80", "fin,ack"]
    )
    assert is_sound(packet.frame)
    assert packet.frame[6:12].hex() == "020000000099"
    assert read_headers(packet.frame).tcp_flags == 17


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        ("tcp", "packet: 'tcp': expected hex, or"),
        ("tcp 1.2.3.4:5 > nowhere", "packet: 'nowhere': expected ADDRESS"),
        ("tcp 1.2.3.4:70000 > 1.2.3.4", "packet: '1.2.3.4:70000': expected ADDRESS"),
        ("tcp 1.2.3.4 > 1.2.3.5 ping", "packet: 'ping': expected flags of fin, syn"),
        ("icmp 1.2.3.4 > 1.2.3.5 ping", "packet: 'ping': expected TYPE"),
        ("ping 1.2.3.4 > 1.2.3.5", "packet: 'ping': expected 0..255 or one of icmp"),
    ],
)
def test_mistakes_are_named(packet: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_packet([packet])
    assert str(caught.value).startswith(message)


def test_usage_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "fw.toml")]) == 2
    assert capsys.readouterr().err.startswith("usage: onvm nf explain firewall FILE PACKET")
