# SPDX-License-Identifier: Apache-2.0
"""Lines about mappings: who had which external port, and when (RFC 6888 REQ-12)."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from nat_bed import I1, NS, O1, E, Nat, src, tagged
from onvm_nf_nat import Nat as NatNF
from onvm_nf_nat.log import lines

from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import echo, tcp, udp
from onvm_sdk.testing.kernel import Packet


def taken(nat: Nat) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines(nat.kernel)]


def test_each_mapping_is_logged_when_it_opens_and_closes() -> None:
    nat = Nat(log_mappings=True, nat64="2001:db8:64::/96")
    host = "2001:db8:1::1"
    frames = [
        udp(I1, 5000, O1, 53),
        tagged(echo(I1, O1, 7), 5, 6),
        tcp(host, 9, "2001:db8:64::c633:6401", 80),
    ]
    ports = [src(nat.out(frame))[1] for frame in frames]
    nat.out(udp(I1, 5000, O1, 54))
    opened = taken(nat)
    wanted = [("udp", I1, 5000, ""), ("icmp", I1, 7, "5.6"), ("tcp", host, 9, "")]
    for line, port, (protocol, inside, inside_port, vlan) in zip(
        opened, ports, wanted, strict=True
    ):
        datetime.fromisoformat(str(line.pop("time"))).astimezone(UTC)
        assert line == {
            "event": "nat",
            "mapping": "opened",
            "protocol": protocol,
            "inside": inside,
            "inside_port": inside_port,
            "external": E,
            "external_port": port,
            "vlan": vlan,
        }
    nat.wait(400)
    closed = taken(nat)
    assert {line["mapping"] for line in closed} == {"closed"}
    assert sorted(str(line["inside"]) for line in closed) == sorted((I1, I1, host))
    assert taken(nat) == []


def test_packets_never_wait_for_the_log() -> None:
    nat = Nat(log_mappings=True)
    frames = [Packet(udp(I1, port, O1, 9)) for port in range(1, 10_001)]
    nat.runner.run(frames, NS)
    assert nat.count("mappings_opened") == 10_000
    assert nat.count("events_lost") == 10_000 - 8192
    assert len(taken(nat)) == 8192
    quiet = Nat()
    quiet.out(udp(I1, 1, O1, 2))
    assert taken(quiet) == []


def test_lines_go_to_the_log_of_the_nf(capfd: pytest.CaptureFixture[str]) -> None:
    with Runner(NatNF, config={"log_mappings": True}) as runner:
        runner.run([udp(I1, 5000, O1, 53)])
        runner.stages[0].nf.on_timer(runner.now_ns)
        (line,) = capfd.readouterr().err.splitlines()
        assert json.loads(line)["mapping"] == "opened"
        runner.run([udp(I1, 5001, O1, 53)])
        runner.reconfigure({})
        assert json.loads(capfd.readouterr().err)["inside_port"] == 5001, "it is not lost"
        runner.run([udp(I1, 5002, O1, 53)])
        runner.stages[0].nf.on_timer(runner.now_ns)
        assert capfd.readouterr().err == ""
