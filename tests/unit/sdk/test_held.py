"""Packets that an NF holds: in packets and in columns, released by calls, timers and messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onvm_sdk import (
    Burst,
    ConfigError,
    Context,
    NetworkFunction,
    PacketView,
    StaleViewError,
    Verdict,
)
from onvm_sdk.testing import Faults, Runner
from onvm_sdk.testing.frames import udp

NEXT, DROP, OUT, HOLD = Verdict.NEXT, Verdict.DROP, Verdict.OUT, Verdict.HOLD


def frame(number: int) -> bytes:
    return udp("10.0.0.1", number, "10.0.0.2", 53, bytes([number]))


FRAMES = [frame(number) for number in range(1, 7)]


class Shaper(NetworkFunction):
    """Hold all; release two at each turn of the timer."""

    timer_interval_s = 0.001

    def setup(self, ctx: Context) -> None:
        self.ctx = ctx
        self.tokens: list[int] = []

    def process_packet(self, pkt: PacketView) -> Verdict | None:
        token = pkt.hold()
        if not token:
            return pkt.drop()
        self.tokens.append(token)
        return None

    def on_timer(self, now_ns: int) -> None:
        for _ in range(2):
            if self.tokens:
                self.ctx.held.release(self.tokens.pop(0))


class Columns(Shaper):
    """The same, in columns."""

    process_packet = NetworkFunction.process_packet

    def process(self, burst: Burst) -> None:
        tokens = burst.hold(burst.udp.src_port != 99)
        burst.drop(tokens == 0)
        self.tokens += tokens[tokens != 0].tolist()


class Hop(NetworkFunction):
    """Counts hops."""

    def process_packet(self, pkt: PacketView) -> None:
        pkt.ipv4.ttl -= 1


BOTH = pytest.mark.parametrize("kind", [Shaper, Columns])


@BOTH
def test_held_packets_leave_when_the_timer_releases_them(kind: type[Shaper]) -> None:
    with Runner(kind) as runner:
        result = runner.run(FRAMES[:5])
        assert result.verdicts == [HOLD] * 5
        assert result.released == []
        assert len(runner.contexts[0].held) == 5
        left = [runner.advance(0.001).released for _ in range(4)]
        assert [[packet for _, _, packet in each] for each in left] == [
            FRAMES[:2],
            FRAMES[2:4],
            FRAMES[4:5],
            [],
        ]
        assert len(runner.contexts[0].held) == 0
        assert runner.contexts[0].held.total == 5


@BOTH
def test_without_room_nothing_is_held(kind: type[Shaper]) -> None:
    with Runner(kind, faults=Faults(hold_limit=4)) as runner:
        assert runner.run(FRAMES).verdicts == [HOLD] * 4 + [DROP] * 2
        assert runner.contexts[0].held.refused == 2
        assert runner.contexts[0].held.capacity == 4


@BOTH
def test_released_packets_pass_the_nfs_behind(kind: type[Shaper]) -> None:
    with Runner([kind, Hop]) as runner:
        runner.run(FRAMES[:1])
        ((verdict, _, packet),) = runner.advance(0.001).released
    assert (verdict, packet[22]) == (NEXT, 63)
    with Runner([Hop, kind]) as runner:
        runner.run(FRAMES[:1], reverse=True)
        ((_, _, packet),) = runner.advance(0.001).released
    assert packet[22] == 63


def test_each_verdict_of_a_release() -> None:
    with Runner(Shaper) as runner:
        runner.run(FRAMES[:4])
        nf: Any = runner.stages[0].nf
        held = runner.contexts[0].held
        a, b, c, d = nf.tokens
        nf.tokens.clear()
        assert a in held
        assert held.out(c, 7)
        assert held.drop(a, 3)
        assert held.to_service(b, 5)
        assert held.release(d)
        assert not any([held.release(a), held.drop(a), a in held, held.packet(a)])
        assert not any(held.release(token) for token in (-1, 0, 1, 1 << 40))
        with pytest.raises(OverflowError):
            held.out(d, 70_000)
        left = [(verdict, number) for verdict, number, _ in runner.advance(0).released]
    assert left == [(OUT, 7), (DROP, 3), (Verdict.TO_SERVICE, 5), (NEXT, 0)]


def test_a_view_of_a_held_packet_lives_until_its_release() -> None:
    with Runner(Shaper) as runner:
        runner.run(FRAMES[:2])
        nf: Any = runner.stages[0].nf
        held = runner.contexts[0].held
        view = held.packet(nf.tokens[0])
        assert view is not None
        view.ipv4.ttl = 9
        header = view.ipv4
        assert view.push(4)
        with pytest.raises(RuntimeError, match="held already"):
            view.hold()
        ((_, _, packet),) = runner.advance(0.001).released[:1]
        assert packet[4:] == FRAMES[0][:22] + b"\x09" + FRAMES[0][23:24] + packet[28:]
        for use in (lambda: view.length, lambda: header.ttl):
            with pytest.raises(StaleViewError):
                use()


def test_another_verdict_undoes_it() -> None:
    class Undecided(Shaper):
        def process_packet(self, pkt: PacketView) -> Verdict:
            self.tokens.append(pkt.hold())
            assert pkt.verdict is HOLD
            return pkt.out(2)

    with Runner(Undecided) as runner:
        result = runner.run(FRAMES[:2])
        assert result.verdicts == [OUT] * 2
        assert len(runner.contexts[0].held) == 0
        assert runner.advance(0.01).released == []


def test_hold_without_a_call_is_an_error_of_the_author() -> None:
    class Author(NetworkFunction):
        def process_packet(self, pkt: PacketView) -> Verdict:
            return HOLD

    with Runner(Author) as runner, pytest.raises(TypeError, match=r"expected a call of pkt.hold"):
        runner.run(FRAMES)


def test_without_the_manifest_nothing_may_be_held_or_made() -> None:
    class Modest(NetworkFunction):
        def process_packet(self, pkt: PacketView) -> None:
            pkt.hold()

    class Maker(NetworkFunction):
        def process(self, burst: Burst) -> None:
            burst.originate(FRAMES[0])

    for kind, expected in ((Modest, "held_packets"), (Maker, "permission originate")):
        with Runner(kind) as runner:
            runner._manifests[0] = _MODEST
            runner._held[0] = None
            with pytest.raises(PermissionError, match=f"expected .*{expected}"):
                runner.run(FRAMES)
    with pytest.raises(PermissionError, match="held_packets"):
        _ = Context("nf").held


def test_messages_and_timers_make_packets() -> None:
    class Beacon(NetworkFunction):
        timer_interval_s = 1.0

        def setup(self, ctx: Context) -> None:
            self.ctx = ctx

        def process(self, burst: Burst) -> None:
            pass

        def on_timer(self, now_ns: int) -> None:
            assert now_ns == self.ctx.now_ns
            self.ctx.originate(FRAMES[0], port=self.ctx.port("wan"))

        def on_message(self, sender: str, payload: bytes) -> bytes:
            done = self.ctx.originate(payload, port=1)
            return b"sent" if done else b"no room"

    with Runner(Beacon) as runner:
        runner.connect({"lan": 0, "wan": 4}, {"dpi": 9})
        assert runner.contexts[0].service("dpi") == 9
        assert runner.advance(2.5).originated == [(OUT, 4, FRAMES[0])] * 2
        reply, result = runner.send(FRAMES[1])
        assert (reply, result.originated) == (b"sent", [(OUT, 1, FRAMES[1])])
    with Runner(Beacon, faults=Faults(no_buffers=True)) as runner:
        assert runner.send(FRAMES[1])[0] == b"no room"


def test_names_of_ports_and_services_name_the_choices() -> None:
    ctx = Context("nf")
    with pytest.raises(ConfigError, match="only after the first call of on_ports"):
        ctx.port("wan")
    ctx._ports = {"lan": 0, "wan": 1}
    with pytest.raises(ConfigError, match="port: 'wann': expected a port of the manager: lan, wan"):
        ctx.port("wann")


def test_a_configuration_may_come_within_a_burst() -> None:
    class Port(NetworkFunction):
        def setup(self, ctx: Context) -> None:
            self.port = 1

        def process(self, burst: Burst) -> None:
            burst.out(None, self.port)

        def reconfigure(self, config: Any) -> None:
            self.port = config["port"]

    with Runner(Port, faults=Faults(configurations={4: {"port": 2}})) as runner:
        assert runner.run(FRAMES).destinations == [1] * 4 + [2] * 2


def test_tokens_are_those_of_the_packets() -> None:
    class Last(NetworkFunction):
        def setup(self, ctx: Context) -> None:
            self.ctx = ctx

        def process(self, burst: Burst) -> None:
            tokens = burst.hold(burst.udp.src_port > 2)
            assert tokens.dtype == np.uint32
            for row in range(len(burst) - 1, -1, -1):
                view = self.ctx.held.packet(int(tokens[row]))
                assert (view is None) == (row < 2)
                if view is not None:
                    assert view.udp.src_port == row + 1
                    self.ctx.held.release(int(tokens[row]))

    with Runner(Last) as runner:
        result = runner.run(FRAMES)
        assert result.verdicts == [NEXT] * 2 + [HOLD] * 4
        assert [packet for _, _, packet in result.released] == FRAMES[:1:-1]


_MODEST: Any = type("Modest", (), {"permissions": ["read"], "held_packets": 0})()
