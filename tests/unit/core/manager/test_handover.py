"""The manager's side of a handover, step by step, against a data plane that only counts."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from onvm_core.manager.handover import handover
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.nf_hosts.registry import HostState, Instance, NfHost
from onvm_sdk.errors import ConfigError


class World:
    """Two hosts, what is sent to them, and what comes of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.reserved = 3
        self.paused: list[bool] = []
        self.sent: list[tuple[str, codec.Message]] = []
        self.unsent = 0
        self.ended: list[handover.HandoverFailure | None] = []
        self.received: list[str] = []
        self.released = 0
        plane = SimpleNamespace(
            pause_host=lambda slot, is_paused: self.paused.append(is_paused),
            read_host=lambda slot: SimpleNamespace(reserved=self.reserved),
        )
        monkeypatch.setattr(handover.time, "monotonic", lambda: self.now_s)
        manager: Any = SimpleNamespace(
            plane=plane,
            send=lambda host, data: self.sent.append(
                (host.instances[0].name, codec.unpack_message(data))
            ),
            attach=SimpleNamespace(n_unsent=lambda slot: self.unsent),
        )
        self.handovers = handover.Handovers(
            manager,
            on_end=lambda source, successors, why: self.ended.append(why),
            on_received=lambda successor, name: self.received.append(name),
            on_released=lambda successor: setattr(self, "released", self.released + 1),
        )
        self.manager = manager
        self.source = self.host(1, "a-2", HostState.DRAINING)
        self.successor = self.host(2, "a-1", HostState.ACTIVE)
        self.handovers.begin(self.source, [self.successor], 0.25)

    @staticmethod
    def host(slot: int, name: str, state: HostState) -> NfHost:
        return NfHost(slot, 1, [Instance("a", name, (), ())], 32, state)

    def says(self, host: NfHost, kind: int, payload: bytes = b"", peer: str = "") -> None:
        self.manager.on_state_message(host, codec.Message(kind, 0, peer, payload))

    def kinds(self) -> list[tuple[str, int]]:
        return [(name, message.kind) for name, message in self.sent]

    def until_taking(self) -> None:
        self.says(self.source, codec.OFFER)
        self.reserved = 0
        self.handovers.turn()

    def until_giving(self) -> None:
        self.until_taking()
        self.says(self.source, codec.STATE, b"12")
        self.says(self.source, codec.STATE)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield World(monkeypatch)


def test_flows_move_when_the_state_has_moved(world: World) -> None:
    assert not world.paused
    world.says(world.source, codec.OFFER)
    assert world.paused == [True]
    assert world.handovers.is_urgent
    world.handovers.turn()
    assert world.kinds() == [("a-2", codec.OFFER)], "it holds packets still"
    world.until_giving()
    assert world.kinds()[1:] == [
        ("a-2", codec.SNAPSHOT),
        ("a-1", codec.RESTORE),
        ("a-1", codec.STATE),
        ("a-1", codec.STATE),
    ]
    assert [m.payload for _, m in world.sent[3:]] == [b"12", b""]
    assert world.sent[2][1].peer == "a-2"
    assert world.handovers.is_excused(world.successor)
    assert not world.ended
    world.says(world.successor, codec.RESTORED, peer="a-2")
    assert world.ended == [None]
    assert world.received == ["a-2"]
    assert world.paused == [True], "its flows have gone: there is nothing to let in again"
    world.says(world.successor, codec.RELEASED)
    assert world.released == 1


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (0, "it did not answer whether it can in time"),
        (1, "its packets did not come back in time"),
        (2, "it did not give its state in time"),
        (3, "a-1 did not take the state in time"),
    ],
)
def test_what_takes_too_long_is_given_up(world: World, steps: int, why: str) -> None:
    [
        lambda: None,
        lambda: world.says(world.source, codec.OFFER),
        world.until_taking,
        world.until_giving,
    ][steps]()
    world.now_s += 0.24
    world.handovers.turn()
    assert not world.ended
    world.now_s += 3 if steps == 0 else 0.02
    world.handovers.turn()
    assert world.ended == [handover.HandoverFailure(why, is_timeout=True)]
    assert world.paused == ([True, False] if steps else [])
    assert not world.handovers.is_urgent
    # A late answer changes nothing, except which instance keeps the name.
    world.says(world.successor, codec.RESTORED, peer="a-2")
    world.says(world.source, codec.STATE, b"x")
    assert [str(one) for one in world.ended] == [why]
    assert world.received == ["a-2"]


def test_refusals_are_passed_on(world: World) -> None:
    world.says(world.source, codec.REFUSED, b"a has no snapshot\nand restore")
    assert [str(one) for one in world.ended] == ["a has no snapshot?and restore"]
    assert not world.paused
    world.handovers.begin(world.source, [world.successor], 0.25)
    world.until_giving()
    world.says(world.successor, codec.REFUSED, b"no", peer="another")
    assert len(world.ended) == 1
    world.says(world.successor, codec.REFUSED, b"no", peer="a-2")
    assert [str(one) for one in world.ended[1:]] == ["a-1: no"]
    assert world.paused == [True, False]


def test_too_much_state_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "STATE_BYTES_MAX", 3)
    world.until_taking()
    world.says(world.source, codec.STATE, b"12")
    world.says(world.source, codec.STATE, b"34")
    assert [str(one) for one in world.ended] == ["its state has more than 3 bytes"]


def test_successor_gets_pieces_as_it_reads_them(world: World) -> None:
    world.until_taking()
    for _ in range(100):
        world.says(world.source, codec.STATE, b"x")
    world.says(world.source, codec.STATE)
    sent = len(world.sent)
    world.unsent = handover.QUEUED_MAX
    world.handovers.turn()
    assert len(world.sent) == sent
    world.unsent = 0
    world.handovers.turn()
    assert len(world.sent) == 3 + 101


def test_successor_that_dies_or_stops_ends_it(world: World) -> None:
    world.until_giving()
    world.handovers.on_gone(world.successor)
    assert [str(one) for one in world.ended] == ["a-1 is gone"]
    world.handovers.begin(world.source, [world.successor], 0.25)
    world.successor.state = HostState.DRAINING
    world.handovers.turn()
    assert [str(one) for one in world.ended[1:]] == ["a-1 does not serve any more"]


def test_source_that_is_gone_or_taken_back_is_forgotten(world: World) -> None:
    world.until_taking()
    world.handovers.cancel(world.source)
    assert world.paused == [True, False]
    world.handovers.begin(world.source, [world.successor], 0.25)
    world.until_taking()
    world.source.state = HostState.DEAD
    world.handovers.on_gone(world.source)
    world.handovers.turn()
    assert world.ended == []


def test_each_nf_of_a_fused_host_may_have_a_successor_of_its_own(world: World) -> None:
    world.handovers.cancel(world.source)
    world.sent.clear()
    fused = world.host(3, "a-1+", HostState.DRAINING)
    fused.instances.append(Instance("b", "b-1", (), ()))
    other = world.host(4, "b-2", HostState.ACTIVE)
    world.handovers.begin(fused, [world.successor, other], 0.25)
    world.says(fused, codec.OFFER)
    world.reserved = 0
    world.handovers.turn()
    for stage, piece in ((0, b"a"), (0, b""), (1, b"b"), (1, b"")):
        world.manager.on_state_message(fused, codec.Message(codec.STATE, stage, "", piece))
    given = [(name, m.stage, m.payload) for name, m in world.sent if m.kind == codec.STATE]
    assert given == [("a-1", 0, b"a"), ("a-1", 0, b""), ("b-2", 0, b"b"), ("b-2", 0, b"")]
    world.says(world.successor, codec.RESTORED, peer="a-1+")
    assert not world.ended
    world.says(other, codec.RESTORED, peer="a-1+")
    assert world.ended == [None]


# ---- to and from another host ----


def leave(world: World) -> None:
    """Let the source's state leave for another host, as far as it is known here."""
    world.handovers.cancel(world.source)
    world.paused.clear()
    world.handovers.begin_leaving(world.source, 0.25)


def test_state_leaves_in_pieces_and_packets_wait_until_another_has_it(world: World) -> None:
    leave(world)
    assert world.handovers.read(world.source, 100) == ([], False)
    world.until_giving()
    assert world.paused == [True]
    assert world.handovers.read(world.source, 1) == ([(0, b"12")], False)
    assert not world.handovers.end_leaving(world.source)  # not all of it has been read
    assert world.handovers.read(world.source, 1) == ([(0, b"")], True)
    assert world.handovers.end_leaving(world.source)
    assert world.paused == [
        True
    ]  # they go on to the successor with the paths, when the host leaves
    assert not world.handovers.is_going_on(world.source)


def test_other_host_that_never_answers_leaves_everything_as_it_was(world: World) -> None:
    leave(world)
    world.until_giving()
    world.handovers.read(world.source, 100)
    world.now_s += 0.3
    world.handovers.turn()
    assert world.paused == [True, False]
    assert not world.handovers.end_leaving(world.source)
    with pytest.raises(ConfigError, match="it was not taken over by another host in time"):
        world.handovers.read(world.source, 100)


def test_source_that_refuses_says_why_to_who_reads(world: World) -> None:
    leave(world)
    world.says(world.source, codec.REFUSED, b"no snapshot")
    with pytest.raises(ConfigError, match="no snapshot"):
        world.handovers.read(world.source, 100)
    with pytest.raises(ConfigError, match="hands its state to another host"):
        world.handovers.read(world.source, 100)


def test_successor_gets_the_state_of_another_host_under_its_number(world: World) -> None:
    given = world.handovers.receipts
    world.sent.clear()
    given.give(world.successor, 77, [(0, b"12")], is_first=True)
    given.give(world.successor, 77, [(0, b"")], is_first=False)
    assert [(message.kind, message.peer, message.payload) for _, message in world.sent] == [
        (codec.RESTORE, "@77", b""),
        (codec.STATE, "", b"12"),
        (codec.STATE, "", b""),
    ]
    assert given.look(77) == ("waiting", "")
    world.says(world.successor, codec.RESTORED, peer="@77")
    assert given.look(77) == ("done", "")
    assert world.received == ["@77"]


def test_successor_that_refuses_or_dies_or_has_no_room_is_told(world: World) -> None:
    given = world.handovers.receipts
    given.give(world.successor, 77, [(0, b"")], is_first=True)
    world.says(world.successor, codec.REFUSED, b"of another address", "@77")
    assert given.look(77) == ("failed", "a-1: of another address")
    given.give(world.successor, 78, [(0, b"")], is_first=True)
    world.handovers.on_gone(world.successor)
    assert given.look(78) == ("failed", "a-1 is gone")
    assert given.look(79) == ("failed", "it is not known")
    with pytest.raises(ConfigError, match="'@79': expected a state that has begun"):
        given.give(world.successor, 79, [(0, b"1")], is_first=False)
    with pytest.raises(ConfigError, match="'a-2': expected a serving instance"):
        given.give(world.source, 80, [], is_first=True)
    world.unsent = 1 << 20  # its socket is full: nothing is lost
    world.sent.clear()
    given.give(world.successor, 81, [(0, b"1")], is_first=True)
    assert world.kinds() == [("a-1", codec.RESTORE)]
    world.unsent = 0
    given.turn(world.now_s)
    assert world.kinds() == [("a-1", codec.RESTORE), ("a-1", codec.STATE)]
