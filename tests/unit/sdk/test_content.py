"""Payloads, tails, checksums, clock and counters: alike in packets, kernels and columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData

from onvm_sdk import Burst, Context, NetworkFunction, Verdict, kernel
from onvm_sdk.testing import Faults, Result, Runner
from onvm_sdk.testing.frames import is_sound, tcp, udp

BODY = bytes(range(40))
FRAMES = [
    bytes(frame)
    for frame in (
        Ether() / IP() / UDP(dport=99) / BODY,
        Ether() / Dot1Q(vlan=7) / IP() / TCP(options=[("NOP", None)] * 4) / BODY,
        Ether() / IPv6() / UDP(dport=99) / BODY,
        Ether() / IPv6() / ICMPv6EchoRequest(data=BODY),
        Ether() / IP() / ICMP() / BODY,
        Ether() / IP() / SCTP() / SCTPChunkData(data=BODY),
        Ether() / IP(proto=47) / BODY,
        Ether() / IP(frag=3, proto=17) / BODY,
        Ether() / ARP(),
        Ether() / IP() / UDP(dport=99) / BODY / b"",
        bytes(Ether() / IP() / UDP(dport=99) / b"ab") + b"\xff" * 20,
        b"\x01" * 13,
    )
]
PAYLOADS = [
    BODY,
    BODY,
    BODY,
    BODY,
    BODY,
    bytes(SCTPChunkData(data=BODY)),
    BODY,
    BODY,
    bytes(ARP()),
    BODY,
    b"ab",
    b"",
]


def packets(function: Callable[[Any, Any], Any], frames: list[bytes], **options: Any) -> Result:
    """Run a function with packet views."""

    class Packets(NetworkFunction):
        def process_packet(self, pkt: Any) -> Any:
            return function(pkt, None)

    with Runner(Packets, **options) as runner:
        return runner.run(frames, now_ns=5_000)


def compiled(
    function: Callable[[Any, Any], Any], frames: list[bytes], state: Any = None, **options: Any
) -> Result:
    """Run a function as a kernel, compiled."""
    pytest.importorskip("numba")
    kind = type("Nf", (NetworkFunction,), {"process_packet": kernel(function), "state": state})
    with Runner(kind, **options) as runner:
        return runner.run(frames, now_ns=5_000)


def columns(function: Callable[[Burst], Any], frames: list[bytes]) -> Result:
    """Run a function with columns."""

    class Columns(NetworkFunction):
        def process(self, burst: Burst) -> None:
            function(burst)

    with Runner(Columns) as runner:
        return runner.run(frames, now_ns=5_000)


def test_payload_of_packets() -> None:
    got: list[bytes] = []
    packets(lambda pkt, state: got.append(bytes(pkt.payload)), FRAMES)
    assert got == PAYLOADS


def test_payload_of_columns() -> None:
    got: list[Any] = []

    def handler(burst: Burst) -> None:
        got.extend([burst.payload_length.tolist(), burst.payload(2, 8), burst.payload(0, 0)])

    columns(handler, FRAMES)
    assert got[0] == [len(payload) for payload in PAYLOADS]
    assert [bytes(row) for row in got[1]] == [payload[2:10].ljust(8, b"\0") for payload in PAYLOADS]
    assert got[2].shape == (len(FRAMES), 0)
    with pytest.raises(ValueError, match="expected an offset"):
        columns(lambda burst: burst.payload(-1, 4), FRAMES)


def _sum_into_counters(pkt: Any, state: Any) -> None:
    total = 0
    for index in range(len(pkt.payload)):
        total += pkt.payload[index]
    pkt.counters[0] += total
    pkt.counters[1] += len(pkt.payload)
    pkt.counters[2] += pkt.l3_offset
    pkt.counters[3] += pkt.l4_offset
    pkt.counters[4] = pkt.now_ns
    if len(pkt.payload) > 3:
        pkt.payload[3] = 77


def test_payload_offsets_clock_and_counters_of_kernels_are_those_of_packets() -> None:
    one, two = packets(_sum_into_counters, FRAMES), compiled(_sum_into_counters, FRAMES)
    counts = list(next(iter(one.counters.values())).values())
    assert counts[:2] == [sum(map(sum, PAYLOADS)), sum(map(len, PAYLOADS))]
    assert counts[4] == 5_000
    assert list(next(iter(two.counters.values())).values()) == counts
    assert one.packets == two.packets != FRAMES


def _time_into_counters(pkt: Any, state: Any) -> None:
    pkt.counters[pkt.port] = pkt.time_ns
    pkt.push(4)
    pkt.counters[8 + pkt.port] = pkt.time_ns  # it does not move with the headers


def test_the_time_of_a_capture_is_seen_in_all_ways() -> None:
    times, ports = [10**18 + 7 * number for number in range(6)], range(6)
    pytest.importorskip("numba")
    seen: list[list[int]] = []

    class Columns(NetworkFunction):
        def process(self, burst: Burst) -> None:
            seen.append(burst.time_ns.tolist())

    class Packets(NetworkFunction):
        def process_packet(self, pkt: Any) -> None:
            _time_into_counters(pkt, None)

    compiled = type("Nf", (NetworkFunction,), {"process_packet": kernel(_time_into_counters)})
    for kind in (Packets, compiled):
        with Runner(kind) as runner:
            counts = runner.run(FRAMES[:6], ports=list(ports), times_ns=times).counters
            told = list(next(iter(counts.values())).values())
            assert told[:6] == told[8:14] == times
    with Runner(Columns) as runner:
        runner.run(FRAMES[:6], times_ns=times)
        runner.run(FRAMES[:6], now_ns=5)  # of a port that is live: the clock
    assert seen == [times, [5] * 6]


def test_offsets_of_columns() -> None:
    got: list[Any] = []
    columns(lambda burst: got.extend([burst.l3_offset.tolist(), burst.l4_offset.tolist()]), FRAMES)
    assert got[0][:4] == [14, 18, 14, 14]
    assert got[1][:4] == [34, 38, 54, 54]


def _rewrite(pkt: Any, state: Any) -> None:
    if len(pkt.payload) > 20:
        pkt.payload[20] ^= 255
    pkt.update_checksums()


SOUND = FRAMES[:5]


@pytest.mark.parametrize("way", [packets, compiled])
def test_checksums_are_made_from_the_bytes(way: Any) -> None:
    result = way(_rewrite, [*SOUND, FRAMES[5]])
    assert all(map(is_sound, result.packets[:5]))
    again = Ether(result.packets[5])
    wrong = again[SCTP].chksum
    del again[SCTP].chksum
    assert Ether(bytes(again))[SCTP].chksum == wrong
    assert result.packets[5] != FRAMES[5]


def test_checksums_are_made_in_columns_where_asked() -> None:
    broken = [frame[:-1] + b"\xee" for frame in SOUND]

    def handler(burst: Burst) -> None:
        burst.ipv4.ttl -= 1
        burst.update_checksums(burst.is_udp)

    result = columns(handler, broken)
    assert [is_sound(packet) for packet in result.packets] == [True, False, True, False, False]
    assert result.packets[0][22] == 63


TAIL = np.frombuffer(b"TAIL", np.uint8)


def _lengthen(pkt: Any, state: Any) -> None:
    if pkt.append(state) and pkt.is_ipv4 and pkt.is_udp:
        pkt.ipv4.total_length += 4
        pkt.udp.length += 4
        pkt.update_checksums()


def _shorten(pkt: Any, state: Any) -> None:
    if not pkt.trim(4):
        pkt.drop(1)


def test_tails_grow_and_shrink_alike() -> None:
    frames = [udp("10.0.0.1", 1, "10.0.0.2", 2, b"abc"), tcp("10.0.0.1", 1, "10.0.0.2", 2), b"abc"]
    grown = compiled(_lengthen, frames, TAIL).packets
    assert grown == packets(lambda pkt, _: _lengthen(pkt, TAIL), frames).packets
    assert [packet[-4:] for packet in grown] == [b"TAIL"] * 3
    assert is_sound(grown[0])
    assert columns(lambda burst: burst.append(b"TAIL"), frames[1:]).packets == grown[1:]
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    kept = columns(lambda burst: burst.append(rows, [0, 2]), frames).packets
    assert [packet[-4:] for packet in kept] == [bytes(rows[0]), frames[1][-4:], bytes(rows[2])]
    for result in (compiled(_shorten, frames), packets(_shorten, frames)):
        assert result.packets == [frames[0][:-4], frames[1][:-4], b"abc"]
        assert result.destinations == [0, 0, 1]
    cut = columns(lambda burst: burst.trim(4), frames)
    assert cut.packets == [frames[0][:-4], frames[1][:-4], b"abc"]
    assert columns(lambda burst: burst.append(b"x" * 60_000), frames).packets == frames
    with pytest.raises(ValueError, match="expected a row"):
        columns(lambda burst: burst.append(rows[:2]), frames)


def _answer(pkt: Any, state: Any) -> Any:
    made = pkt.originate(state, 3, 7)
    return Verdict.DROP if made else Verdict.NEXT


def test_kernels_make_packets() -> None:
    frame = np.frombuffer(FRAMES[0], np.uint8)
    for result in (
        compiled(_answer, FRAMES[:2], frame),
        packets(lambda pkt, _: _answer(pkt, frame), FRAMES[:2]),
    ):
        assert result.originated == [(Verdict.OUT, 7, FRAMES[0])] * 2
        assert result.verdicts == [Verdict.DROP] * 2
    none = compiled(_answer, FRAMES[:2], frame, faults=Faults(no_buffers=True))
    assert none.verdicts == [Verdict.NEXT] * 2


def _delay_by_one(pkt: Any, state: Any) -> None:
    """Hold each packet until the next one comes."""
    before = state[0]
    state[0] = pkt.hold()
    if before != 0:
        pkt.release(before, 3, 5)


def test_kernels_hold_and_release_packets() -> None:
    for result in (
        compiled(_delay_by_one, FRAMES[:4], np.zeros(1, np.uint32)),
        packets(_stateful(_delay_by_one, [0]), FRAMES[:4]),
    ):
        assert result.verdicts == [Verdict.HOLD] * 4
        assert result.released == [(Verdict.OUT, 5, frame) for frame in FRAMES[:3]]


def _stateful(function: Callable[[Any, Any], Any], state: Any) -> Callable[[Any, Any], Any]:
    return lambda pkt, _: function(pkt, state)


def test_counters_have_indices() -> None:
    class Counting(NetworkFunction):
        def setup(self, ctx: Context) -> None:
            self.state = np.array([ctx.counter("c3")], np.int64)

        @kernel
        def process_packet(pkt: Any, state: Any) -> None:
            pkt.counters[state[0]] += 1

    with Runner(Counting) as runner:
        assert runner.run(FRAMES).counters["counting"]["c3"] == len(FRAMES)
        with pytest.raises(KeyError, match="expected one of counters"):
            runner.contexts[0].counter("nope")
