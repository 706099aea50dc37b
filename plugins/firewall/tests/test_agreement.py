# SPDX-License-Identifier: Apache-2.0
"""The C kernel against the model on random traffic, and real conversations that must pass."""

from __future__ import annotations

import random

import pytest
from firewall_case import NS, REASONS, WEB, FirewallCase
from firewall_frames import frames
from hypothesis import given, settings
from hypothesis import strategies as st
from onvm_nf_firewall.config import load
from onvm_nf_firewall.kernel import make_kernel
from onvm_nf_firewall.model import FirewallModel

from onvm_sdk.testing.frames import ACK, FIN, SYN, tcp
from onvm_sdk.testing.kernel import DROP, MERGED, PARTIAL, KernelRunner, Packet

NETWORKS = st.sampled_from(
    ["any", "10.0.0.0/16", "10.0.0.1/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8::2/128", "::/0"]
)
PORT_RANGES = st.sampled_from(["0-65535", "80", "1-100", 443])
RULES = st.fixed_dictionaries(
    {"action": st.sampled_from(["accept", "accept", "drop"])},
    optional={
        "src": NETWORKS, "dst": NETWORKS, "src_ports": PORT_RANGES, "dst_ports": PORT_RANGES,
        "protocol": st.sampled_from(["any", "tcp", "udp", "icmp", "icmpv6", 0]),
        "from": st.sampled_from(["any", "near", "far"]),
    },
)  # fmt: skip
BURSTS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 20, 50, 200, 400]),
        st.lists(st.tuples(frames(), st.booleans(), st.sampled_from([0, 0, PARTIAL, MERGED | PARTIAL])), max_size=40),
    ),
    max_size=5,
)  # fmt: skip
CONFIGS = st.fixed_dictionaries(
    {"default": st.sampled_from(["accept", "drop"]), "max_connections": st.sampled_from([3, 16])},
    optional={
        "stateful": st.sampled_from([True, True, False]),
        "midstream": st.booleans(),
        "liberal": st.booleans(),
        "verify_checksums": st.booleans(),
        "fragments": st.sampled_from(["pass", "drop"]),
        "ip_options": st.sampled_from(["pass", "drop"]),
        "source_route": st.sampled_from(["pass", "drop"]),
        "ndp": st.sampled_from(["pass", "rules"]),
        "vlan_stack": st.sampled_from(["pass", "drop", "default"]),
        "max_per_source": st.sampled_from([0, 2]),
        "tcp_established_s": st.just(300),
        "tcp_transitory_s": st.just(100),
    },
)


def fits(rule: dict) -> bool:
    """Whether a packet can match: others are refused."""
    versions = {":" in rule[key] for key in ("src", "dst") if rule.get(key, "any") != "any"}
    protocol = rule.get("protocol")
    has_ports = any(rule.get(f"{end}_ports", "0-65535") != "0-65535" for end in ("src", "dst"))
    return (
        len(versions) < 2
        and versions <= {"icmp": {False}, "icmpv6": {True}}.get(protocol, {False, True})
        and (not has_ports or protocol in (None, "any", "tcp", "udp"))
    )


@settings(max_examples=120, deadline=None)
@given(rules=st.lists(RULES, max_size=6), options=CONFIGS, bursts=BURSTS)
def test_kernel_agrees_with_model(rules: list, options: dict, bursts: list) -> None:
    config = load({"rules": [rule for rule in rules if fits(rule)], **options})
    runner, model, now_s = KernelRunner(make_kernel(config)), FirewallModel(config), 1
    for step, burst in bursts:
        now_s += step
        runner.run([], now_s * NS)
        model.expire(now_s * NS)
        expected = [
            model.judge(data, now_s * NS, reverse=reverse, partial=bool(flags & PARTIAL))
            for data, reverse, flags in burst
        ]
        packets = [Packet(data, reverse=reverse, flags=flags) for data, reverse, flags in burst]
        done = runner.run(packets, now_s * NS)
        assert [p.data for p in done] == [data for data, _, _ in burst]
        assert [REASONS[p.destination] if p.verdict == DROP else None for p in done] == expected


@settings(max_examples=120)
@given(st.lists(st.binary(max_size=120), max_size=8), st.sampled_from([b"\x08\x00E", b"\x86\xdd`"]))
def test_garbage_is_survived(tails: list[bytes], head: bytes) -> None:
    GARBAGE(*[bytes(12) + head + tail for tail in tails])


GARBAGE = FirewallCase()


class Endpoint:
    """One end of a TCP connection that keeps to RFC 9293. Numbers count from the first."""

    def __init__(self, ends: tuple[str, int, str, int], draw: random.Random, scale: int) -> None:
        self.ends, self.scale = ends, scale
        self.first = draw.randrange(1 << 32)
        self.next = 0  # what it sends next
        self.acked = 0  # by the other end
        self.limit = 0  # the end of the other end's window
        self.got = 0  # of the other end
        self.window = draw.choice([512, 8192, 65535])

    def segment(
        self, other: Endpoint, flags: int, payload: bytes = b"", seq: int | None = None
    ) -> bytes:
        """Make a segment; the other end learns its acknowledgement and window."""
        number = self.first + (self.next if seq is None else seq)
        options = b"\x01\x03\x03" + bytes([self.scale]) if flags & SYN else b""
        if flags & ACK:
            other.acked = self.got
            shift = 0 if flags & SYN else self.scale
            other.limit = max(other.limit, self.got + (self.window << shift))
        return tcp(
            *self.ends, flags, payload, seq=number, ack=other.first + self.got,
            window=self.window, options=options,
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
def test_real_conversations_pass_whole(seed: int) -> None:
    """Merged, lost and repeated segments, late acknowledgements: none of it is invalid."""
    draw = random.Random(seed)
    ends = ("10.0.0.1", 9, "10.0.0.2", 80)
    scales = draw.choice([(0, 0), (7, 2), (14, 14)])
    here = Endpoint(ends, draw, scales[0])
    there = Endpoint((*ends[2:], *ends[:2]), draw, scales[1])
    firewall = FirewallCase(**WEB)

    def send(frame: bytes) -> None:
        flags = MERGED | PARTIAL if len(frame) > 1514 else 0
        assert firewall(frame, flags=flags) == [None]

    send(here.segment(there, SYN))
    there.got = here.next = 1
    send(there.segment(here, SYN | ACK))
    here.got = there.next = 1
    send(here.segment(there, ACK))
    for _ in range(200):
        sender, receiver = draw.choice([(here, there), (there, here)])
        room, flying = sender.limit - sender.next, sender.next - sender.acked
        match draw.randrange(5):
            case 0 | 1 if room > 0:
                payload = bytes(draw.randrange(1, min(room, 64_000) + 1))
                send(sender.segment(receiver, ACK, payload))
                sender.next += len(payload)
            case 2:
                receiver.got = sender.next
                send(receiver.segment(sender, ACK))
            case 3 if flying > 0:  # again what was not acknowledged
                size = draw.randrange(1, min(flying, 64_000) + 1)
                send(sender.segment(receiver, ACK, bytes(size), sender.next - size))
            case _:
                receiver.window = draw.choice([512, 8192, 65535])
    for sender, receiver in ((here, there), (there, here)):
        receiver.got = sender.next
        send(receiver.segment(sender, ACK))
        send(sender.segment(receiver, FIN | ACK))
        sender.next += 1
        receiver.got = sender.next
        send(receiver.segment(sender, ACK))
