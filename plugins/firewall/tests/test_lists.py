# SPDX-License-Identifier: Apache-2.0
"""Connections and rules as operators see them, and connections as they end them."""

from __future__ import annotations

from onvm_nf_firewall import Firewall

from onvm_sdk import Verdict
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import ACK, SYN, echo, tcp, udp

A, B = "10.0.0.2", "10.0.0.1"
NOW = 1 << 62
"""Connections are listed by the clock of the machine, so they begin in its future."""
CONFIG = {
    "default": "drop",
    "rules": [
        {"action": "accept", "protocol": "tcp", "dst_ports": 80, "comment": "web"},
        {"action": "accept", "protocol": ["udp", "icmp"]},
    ],
}


def opened() -> Runner:
    runner = Runner(Firewall, config=CONFIG)
    runner.run([tcp(A, 1000, B, 80, SYN), udp(A, 5, B, 53), echo(A, B, 7)], now_ns=NOW)
    runner.run([tcp(B, 80, A, 1000, SYN | ACK)], reverse=True, now_ns=NOW)
    runner.run([tcp(A, 1000, B, 80, ACK)], now_ns=NOW)
    return runner


def test_connections_are_listed_from_the_end_that_opened_them() -> None:
    with opened() as runner:
        assert len(runner.show("connections")) == 3
        (web,) = runner.show("connections", {"dst_port": "80"})
        assert web == {
            "protocol": "tcp",
            "src": A,
            "src_port": 1000,
            "dst": B,
            "dst_port": 80,
            "state": "established",
            "idle_s": 0,
            "vlan": "",
        }
        (dns,) = runner.show("connections", {"protocol": "udp", "src": "10.0.0.0/24"})
        assert (dns["src"], dns["state"]) == (A, "unanswered")


def test_killed_connection_is_unknown() -> None:
    with opened() as runner:
        assert runner.kill("connections", {"dst_port": "80"}) == 1
        assert len(runner.show("connections")) == 2
        result = runner.run([tcp(B, 80, A, 1000, ACK, b"x")], reverse=True, now_ns=NOW)
        assert result.verdicts == [Verdict.DROP]


def test_rules_have_their_packets() -> None:
    with opened() as runner:
        assert runner.show("rules") == [
            {
                "rule": "rules[0]",
                "action": "accept",
                "chain": "",
                "packets": 1,
                "comment": "web",
            },
            {"rule": "rules[1]", "action": "accept", "chain": "", "packets": 2, "comment": ""},
        ]
        assert runner.kill("rules", {"rule": "rules[0]"}) == 0
