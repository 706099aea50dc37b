# SPDX-License-Identifier: Apache-2.0
"""firewall → nat → lb with no configuration, both ways."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from shared_data import need_data

from onvm_sdk.headers import read_headers
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import SYN, icmp_error, is_sound, tcp, udp
from onvm_sdk.testing.runner import load_frames
from onvm_sdk.verdict import Verdict

pytest.importorskip("onvm_nf_firewall")
pytest.importorskip("onvm_nf_nat")
pytest.importorskip("onvm_nf_lb")


CLIENT, VIP, EXTERNAL = "10.0.0.5", "198.51.100.10", "192.0.2.1"


def ends(frame: bytes) -> tuple[tuple[str, int], tuple[str, int]]:
    h = read_headers(frame)
    return (str(ip_address(h.src)), h.src_port), (str(ip_address(h.dst)), h.dst_port)


@pytest.mark.parametrize("make", [tcp, udp])
def test_request_and_reply(make: Any) -> None:
    with Runner(["firewall", "nat", "lb"]) as chain:
        sent = chain.run([make(CLIENT, 4000, VIP, 80)]).packets[0]
        (address, external_port), (backend, port) = ends(sent)
        assert address == EXTERNAL
        assert (backend[:10], port) == ("203.0.113.", 80)
        assert is_sound(sent)
        replies = chain.run([make(backend, 80, EXTERNAL, external_port)], reverse=True)
        assert replies.verdicts == [Verdict.NEXT]
        assert replies.packets == [make(VIP, 80, CLIENT, 4000)]


@pytest.mark.parametrize("make", [tcp, udp])
def test_only_what_was_asked_for_comes_back(make: Any) -> None:
    config = {"firewall": {"default": "drop", "rules": [{"action": "accept", "dst": f"{VIP}/32"}]}}
    with Runner(["firewall", "nat", "lb"], config=config) as chain:
        unasked = chain.run([make("203.0.113.1", 80, EXTERNAL, 4000)], reverse=True)
        assert unasked.reasons == ["no_mapping"]
        begin = (SYN,) if make is tcp else ()
        (_, port), (backend, _) = ends(chain.run([make(CLIENT, 4000, VIP, 80, *begin)]).packets[0])
        both = [make(backend, 80, EXTERNAL, port), make(backend, 81, EXTERNAL, port)]
        assert chain.run(both, reverse=True).reasons == [None, "default"]


def test_errors_about_requests_come_back() -> None:
    """From beyond the VIP's router: the load balancer has no part in it."""
    with Runner(["firewall", "nat"]) as chain:
        sent = chain.run([udp(CLIENT, 4000, VIP, 80)]).packets[0]
        error = chain.run([icmp_error("203.0.113.99", EXTERNAL, sent)], reverse=True)
        assert error.packets == [icmp_error("203.0.113.99", CLIENT, udp(CLIENT, 4000, VIP, 80))]


def test_capture_and_its_replies() -> None:
    path = need_data("pcap", "mix", "glb__1k_pkts.pcap")
    frames = [f for f in load_frames(path) if read_headers(f).has_ports]
    frames = [f for f in frames if read_headers(f).version == 4 and not read_headers(f).is_fragment]
    with Runner(["firewall", "nat", "lb"]) as chain:
        there = chain.run(frames)
        passed = [
            (before, after)
            for before, after, reason in zip(frames, there.packets, there.reasons, strict=True)
            if reason is None
        ]
        assert len(passed) > len(frames) / 2
        back = chain.run([_swapped(after) for _, after in passed], reverse=True)
    assert set(back.verdicts) == {Verdict.NEXT}
    for (before, _), reply in zip(passed, back.packets, strict=True):
        assert ends(reply) == ends(before)[::-1]


def _swapped(frame: bytes) -> bytes:
    h = read_headers(frame)
    at, l4 = h.l3_offset + 12, h.l4_offset
    frame = frame[:at] + h.dst + h.src + frame[at + 8 :]
    return frame[:l4] + frame[l4 + 2 : l4 + 4] + frame[l4 : l4 + 2] + frame[l4 + 4 :]


def test_garbage_is_dropped_by_the_firewall() -> None:
    with Runner(["firewall", "nat", "lb"]) as chain:
        result = chain.run([b"", bytes(13), tcp("10.0.0.1", 1, "10.0.0.2", 2)[:40]])
        assert result.verdicts == [Verdict.DROP] * 3
        assert set(result.reasons) == {"malformed"}
