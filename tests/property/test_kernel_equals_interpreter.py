"""One kernel, two ways to run it: the same packets, verdicts and state."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from onvm_sdk import NetworkFunction, Verdict, kernel
from onvm_sdk.nf import Context
from onvm_sdk.tables import FLOW_KEY_BYTES, FlowTable
from onvm_sdk.testing import Runner

pytest.importorskip("numba")


class Everything(NetworkFunction):
    """Reads and writes fields of every header."""

    def setup(self, ctx: Context) -> None:
        record = np.zeros(1, dtype=[("seen", "u8"), ("last_port", "u2")])
        flows = FlowTable(65536, FLOW_KEY_BYTES, value_bytes=1)
        self.state = (np.zeros(256, dtype=np.uint64), record, flows)

    @kernel
    def process_packet(pkt: Any, state: Any) -> Any:
        counts, record, flows = state
        slot = flows.try_add(pkt.flow_key, counts[0])
        if slot >= 0:
            flows.value(slot)[0] = pkt.vlan_count + 1
        counts[pkt.protocol] += 1
        record[0]["seen"] += 1
        if pkt.length < 20:
            return pkt.drop(3)
        pkt.eth.dst = pkt.eth.src ^ 0x020000000000
        pkt.vlan.id = pkt.vlan.id + 1
        if pkt.is_fragment:
            pkt.ipv4.id += 7
        pkt.ipv4.ttl -= 1
        pkt.ipv4.dscp = pkt.vlan_count + 3
        pkt.ipv4.src = pkt.ipv4.src ^ 0xFF00
        pkt.ipv6.hop_limit -= 1
        pkt.ipv6.flow_label = pkt.length * 77
        pkt.ipv6.dst_low = pkt.ipv6.src_high
        if pkt.is_udp:
            record[0]["last_port"] = pkt.udp.dst_port
            pkt.udp.dst_port = pkt.udp.src_port + 1
            if pkt.udp.dst_port == 54:
                return pkt.out(9)
        elif pkt.is_tcp:
            pkt.tcp.seq += 100000
            pkt.tcp.flags = pkt.tcp.flags | 1
            if pkt.is_reverse:
                return pkt.to_service(4)
        elif pkt.is_icmp:
            pkt.icmp.code += 1
            pkt.icmp.id = 0xFFFF
            if pkt.push(4):
                pkt.pull(4)
        else:
            return Verdict.DROP
        return None


def outer() -> st.SearchStrategy[Packet]:
    tags = st.lists(st.sampled_from([Dot1Q, Dot1AD]), max_size=3)
    return st.builds(
        lambda kinds, vid: _stack(Ether(src="02:00:00:00:00:01"), [k(vlan=vid) for k in kinds]),
        tags,
        st.integers(0, 4095),
    )


def _stack(base: Packet, parts: list[Packet]) -> Packet:
    for part in parts:
        base = base / part
    return base


NETWORK = st.one_of(
    st.builds(
        lambda ttl, frag, flags, options: IP(
            src="10.0.0.1",
            dst="10.9.8.7",
            ttl=ttl,
            frag=frag,
            flags=flags,
            options=[("NOP")] * options,
        ),
        st.integers(0, 255),
        st.sampled_from([0, 0, 0, 3]),
        st.sampled_from([0, 1, 2]),
        st.sampled_from([0, 0, 4]),
    ),
    st.builds(
        lambda hops: IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=hops), st.integers(0, 255)
    ),
    st.just(IPv6(src="2001:db8::1") / IPv6ExtHdrHopByHop()),
    st.just(IPv6(src="2001:db8::1") / IPv6ExtHdrFragment(offset=0, m=1)),
    st.just(IPv6(src="2001:db8::1") / IPv6ExtHdrFragment(offset=9, m=1)),
)
TRANSPORT = st.one_of(
    st.builds(lambda a, b: UDP(sport=a, dport=b), st.integers(0, 65535), st.integers(0, 65535)),
    st.just(UDP(sport=53, dport=1, chksum=0)),
    st.builds(lambda seq: TCP(seq=seq, flags="S"), st.integers(0, 2**32 - 1)),
    st.just(ICMP()),
    st.just(ICMPv6EchoRequest()),
)
FRAMES = st.builds(
    lambda eth, ip, l4, payload, cut: bytes(eth / ip / l4 / Raw(payload))[: -cut or None],
    outer(),
    NETWORK,
    TRANSPORT,
    st.binary(max_size=20),
    st.sampled_from([0, 0, 0, 1, 9, 30]),
)


@pytest.fixture(scope="module")
def runners() -> Any:
    return Runner(Everything()), Runner(Everything(), compiled=False)


@settings(max_examples=24)
@given(frames=st.lists(st.one_of(FRAMES, st.binary(max_size=70)), min_size=1, max_size=12))
def test_compiled_and_interpreted_agree(runners: Any, frames: list[bytes]) -> None:
    reverse = [number % 3 == 0 for number in range(len(frames))]
    fast, slow = (runner.run(frames, reverse=reverse) for runner in runners)
    assert fast.packets == slow.packets
    assert fast.verdicts == slow.verdicts
    assert fast.destinations == slow.destinations
    assert not fast.broken
    assert not slow.broken
    states = [runner.stages[0].nf.state for runner in runners]
    assert (states[0][0] == states[1][0]).all()
    assert states[0][1] == states[1][1]
    flows = [{table.key(i): table.value(i)[0] for i in table.slots()} for *_, table in states]
    assert flows[0] == flows[1]


def test_random_bytes_behind_an_ipv4_header() -> None:
    rng = random.Random(7)
    frames = [
        b"\x02" * 12 + b"\x08\x00" + bytes([0x45]) + rng.randbytes(rng.randrange(0, 80))
        for _ in range(500)
    ]
    for runner in (Runner(Everything()), Runner(Everything(), compiled=False)):
        result = runner.run(frames)
        assert not result.broken
    assert Runner(Everything()).run(frames) == Runner(Everything(), compiled=False).run(frames)
