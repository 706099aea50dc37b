"""What an NF host answers when its state is asked for, or another's is given to it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from onvm_sdk import NetworkFunction
from onvm_sdk._hosting import handover
from onvm_sdk._native.nf import Message, MessageType
from onvm_sdk.manifest import Manifest


class Stateless(NetworkFunction):
    """Has nothing to give."""


class Keeper(NetworkFunction):
    """Gives and takes bytes."""

    def __init__(self, mine: bytes = b"") -> None:
        self.mine = mine
        self.used = True

    def snapshot(self) -> bytes:
        if self.mine == b"boom":
            raise LookupError("no")
        return self.mine

    def restore(self, snapshot: bytes) -> None:
        if snapshot == b"bad":
            raise ValueError("bad")
        self.mine = snapshot

    def inherits(self) -> bool:
        return self.used


class Halfway(NetworkFunction):
    """Can only give."""

    def snapshot(self) -> bytes:
        return b"x"


class FakeHost:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, str, bytes]] = []

    def send(self, kind: int, stage: int, peer: str = "", payload: bytes = b"") -> None:
        self.sent.append((kind, stage, peer, payload))


def made(*nfs: NetworkFunction, state: str = "per-flow") -> tuple[handover.HandOver, FakeHost]:
    host: Any = FakeHost()
    manifests = [
        Manifest(schema=1, name=f"nf{i}", service="s", sdk=">=0.1", state=state)
        for i in range(len(nfs))
    ]
    return handover.HandOver(host, nfs, manifests), host


def message(kind: int, stage: int = 0, payload: bytes = b"", peer: str = "") -> Message:
    return Message(kind, stage, peer, payload)


@pytest.mark.parametrize(
    ("nf", "state", "answer"),
    [
        (Keeper(), "per-flow", MessageType.OFFER),
        (Stateless(), "none", MessageType.OFFER),
        (Stateless(), "per-flow", MessageType.REFUSED),
        (Halfway(), "shared", MessageType.REFUSED),
    ],
)
def test_who_can_give_its_state(nf: NetworkFunction, state: str, answer: int) -> None:
    transfer, host = made(nf, state=state)
    transfer.take(message(MessageType.OFFER))
    assert [kind for kind, *_ in host.sent] == [answer]


def test_state_arrives_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "PIECE_BYTES", 3)
    source, sent = made(Keeper(b"0123456789"), Stateless(), Keeper(b"ab"))
    nfs = Keeper(), Stateless(), Keeper()
    heir, answers = made(*nfs)
    source.take(message(MessageType.SNAPSHOT))
    assert len(sent.sent) == 4 + 1 + 1 + 1 + 1
    heir.take(message(MessageType.RESTORE, peer="a-2"))
    for kind, stage, _, payload in sent.sent:
        assert not answers.sent
        heir.take(message(kind, stage, payload))
    assert (nfs[0].mine, nfs[2].mine) == (b"0123456789", b"ab")
    assert answers.sent == [(MessageType.RESTORED, 0, "a-2", b"")]
    assert heir.is_watching
    heir.turn()
    assert heir.is_watching
    nfs[0].used = nfs[2].used = False
    heir.turn()
    assert not heir.is_watching
    assert answers.sent[1:] == [(MessageType.RELEASED, 0, "", b"")]


def test_what_an_author_raises_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    source, host = made(Keeper(b"boom"))
    source.take(message(MessageType.SNAPSHOT))
    ((kind, stage, peer, line),) = host.sent
    assert (kind, stage, peer) == (MessageType.REFUSED, 0, "")
    assert re.fullmatch(rb"nf0\.snapshot raised LookupError: no \(.*/test_handover\.py:\d+\)", line)
    heir, host = made(keeper := Keeper(b"own"))
    heir.take(message(MessageType.RESTORE, peer="a-2"))
    heir.take(message(MessageType.STATE, 0, b"bad"))
    heir.take(message(MessageType.STATE, 0))
    ((kind, stage, peer, line),) = host.sent
    assert (kind, stage, peer) == (MessageType.REFUSED, 0, "a-2")
    assert line.startswith(b"nf0.restore raised ValueError: bad (")
    assert keeper.mine == b"own"
    assert "nf0.restore raised" in capsys.readouterr().err


def test_too_much_state_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "STATE_BYTES_MAX", 8)
    source, host = made(Keeper(b"123456789"))
    source.take(message(MessageType.SNAPSHOT))
    assert host.sent[0][3] == b"its state has 9 bytes, more than 8"
    heir, host = made(keeper := Keeper(b"own"))
    heir.take(message(MessageType.RESTORE, peer="a-2"))
    for _ in range(3):
        heir.take(message(MessageType.STATE, 0, b"12345"))
    heir.take(message(MessageType.STATE, 0))
    assert [kind for kind, *_ in host.sent] == [MessageType.REFUSED]
    assert keeper.mine == b"own"


def test_pieces_without_a_beginning_are_nothing() -> None:
    heir, host = made(Keeper())
    heir.take(message(MessageType.STATE, 0, b"x"))
    heir.take(message(MessageType.STATE, 7, b"x"))
    assert host.sent == []
