# SPDX-License-Identifier: Apache-2.0
"""Mappings and sessions as operators see and end them."""

from __future__ import annotations

from onvm_nf_nat import Nat

from onvm_sdk import Verdict
from onvm_sdk.headers import read_headers
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import ACK, SYN, tcp, udp

I1, I2, O1, O2, E = "10.1.0.1", "10.1.0.2", "198.51.100.1", "198.51.100.2", "192.0.2.1"


def opened() -> Runner:
    runner = Runner(Nat, config={"external": E, "inside": ["10.1.0.0/24"]})
    frames = [tcp(I1, 1000, O1, 80, SYN), tcp(I1, 1000, O2, 80, SYN), udp(I2, 5353, O1, 53)]
    # sessions are listed by the clock of the machine, so they begin in its future
    runner.run(frames, now_ns=1 << 62)
    return runner


def test_mappings_and_sessions_are_listed() -> None:
    with opened() as runner:
        both = {(one["inside"], one["sessions"]) for one in runner.show("mappings")}
        assert both == {(I1, 2), (I2, 1)}
        (mapping,) = runner.show("mappings", {"protocol": "udp"})
        assert mapping["inside_port"] == 5353
        assert mapping["external"] == E
        (session,) = runner.show("sessions", {"remote": O2})
        assert session == {
            "protocol": "tcp",
            "inside": I1,
            "inside_port": 1000,
            "external": E,
            "external_port": session["external_port"],
            "remote": O2,
            "remote_port": 80,
            "state": "opening",
            "idle_s": 0,
            "vlan": "",
        }


def test_ended_session_leaves_the_mapping_to_the_others() -> None:
    with opened() as runner:
        assert runner.kill("sessions", {"remote": O2}) == 1
        assert len(runner.show("sessions")) == 2
        assert [one["sessions"] for one in runner.show("mappings", {"inside": I1})] == [1]


def test_ended_mapping_takes_its_sessions_along() -> None:
    with opened() as runner:
        (mapping,) = runner.show("mappings", {"inside": I1})
        assert runner.kill("mappings", {"inside": I1}) == 1
        assert [one["inside"] for one in runner.show("sessions")] == [I2]
        reply = tcp(O1, 80, E, mapping["external_port"], SYN | ACK)
        result = runner.run([reply], reverse=True, now_ns=1 << 62)
        assert (result.verdicts, result.reasons) == ([Verdict.DROP], ["no_mapping"])
        again = runner.run([tcp(I1, 1000, O1, 80, SYN)], now_ns=1 << 62).packets[0]
        assert str(read_headers(again).src, "latin-1") == "\xc0\x00\x02\x01"


def test_ipv6_hosts_are_listed_by_their_address() -> None:
    host, server = "2001:db8:1::1", "2001:db8:64::c633:6401"
    with Runner(Nat, config={"external": E, "nat64": "2001:db8:64::/96"}) as runner:
        runner.run([udp(host, 1000, server, 53)], now_ns=1 << 62)
        (mapping,), (session,) = runner.show("mappings"), runner.show("sessions")
        assert mapping["inside"] == session["inside"] == host
        assert session["remote"] == O1
        assert runner.kill("mappings", {"inside": host}) == 1
        assert list(runner.show("sessions")) == []
