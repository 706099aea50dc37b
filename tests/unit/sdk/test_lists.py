"""Lists of an NF's state: filtered, in parts, and between bursts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from onvm_sdk import NetworkFunction
from onvm_sdk._hosting.lists import PIECE_BYTES, Question, Questions
from onvm_sdk._native.nf import Message, MessageType
from onvm_sdk.errors import ConfigError


class Table(NetworkFunction):
    """An NF with entries, which may break."""

    lists: ClassVar[Mapping[str, str]] = {"hosts": "hosts", "broken": "nothing but a bug"}

    def __init__(self, count: int) -> None:
        self.entries = {
            i: {"host": f"10.0.{i >> 8}.{i & 255}", "even": i % 2 == 0, "_number": i}
            for i in range(count)
        }

    def show(self, what: str) -> Iterator[dict[str, Any]]:
        if what == "broken":
            raise KeyError("bug")
        yield from list(self.entries.values())

    def kill(self, what: str, entry: Mapping[str, Any]) -> bool:
        return self.entries.pop(entry["_number"], None) is not None


def answer(nf: NetworkFunction, what: str, **options: Any) -> dict[str, Any]:
    question = Question(nf, what, options.pop("where", {}), **options)
    while not question.is_over:
        question.work(0)  # an entry a turn
    return question.answer


def test_entries_are_filtered_by_value_and_by_network() -> None:
    nf = Table(600)
    one = answer(nf, "hosts", where={"host": "10.0.1.1"})
    assert one == {
        "entries": [{"host": "10.0.1.1", "even": False}],
        "has_more": False,
        "killed": 0,
    }
    found = answer(nf, "hosts", where={"host": "10.0.2.0/24", "even": "true"})
    assert len(found["entries"]) == 44


def test_entries_come_in_pages() -> None:
    nf = Table(5)
    first = answer(nf, "hosts", limit=3)
    second = answer(nf, "hosts", first=3, limit=3)
    assert first["has_more"]
    assert not second["has_more"]
    hosts = [entry["host"] for page in (first, second) for entry in page["entries"]]
    assert hosts == [f"10.0.0.{i}" for i in range(5)]


def test_a_turn_ends_in_time_and_goes_on_where_it_was() -> None:
    question = Question(Table(10), "hosts", {})
    question.work(0)
    assert len(question.found) == 1
    question.work(1 << 63)
    assert len(question.found) == 10
    assert question.is_over


def test_only_what_matches_is_killed() -> None:
    nf = Table(600)
    assert answer(nf, "hosts", where={"host": "10.0.2.0/24"}, kills=True)["killed"] == 88
    assert len(nf.entries) == 512


@pytest.mark.parametrize(
    ("what", "where", "text"),
    [
        ("flows", {}, "list: 'flows': expected a list of the NF (hosts, broken)"),
        ("hosts", {"name": "a"}, "--where: 'name': expected a field of hosts (host, even)"),
        ("hosts", {"_number": "1"}, "--where: '_number': expected a field of hosts (host, even)"),
        ("hosts", {"host": "10.0.0.1/8"}, "host: '10.0.0.1/8': expected a network, host bits zero"),
    ],
)
def test_mistakes_name_the_choices(what: str, where: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        answer(Table(1), what, where=where)
    assert str(error.value) == text


class Host:
    """Keeps what an NF host sends."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, str, bytes]] = []

    def send(self, kind: int, stage: int = 0, peer: str = "", payload: bytes = b"") -> None:
        self.sent.append((kind, stage, peer, payload))


def ask(host: Host, nf: NetworkFunction, **asked: Any) -> Any:
    """Ask as the manager does, and give the answer."""
    questions = Questions(host, [nf])  # type: ignore[arg-type]
    whole = {"list": "", "where": {}, "first": 0, "limit": 10_000, "kills": False} | asked
    payload = json.dumps(whole).encode()
    questions.take(Message(MessageType.QUESTION, 0, "7", payload))
    turns = 0
    while questions.is_busy:
        questions.turn()
        turns += 1
    assert {(kind, stage, peer) for kind, stage, peer, _ in host.sent} == {
        (MessageType.ANSWER, 0, "7")
    }
    assert host.sent[-1][3] == b""
    return json.loads(b"".join(payload for *_, payload in host.sent))


def test_answers_go_in_pieces() -> None:
    host = Host()
    told = ask(host, Table(3000), list="hosts")
    assert len(told["entries"]) == 3000
    assert len(host.sent) > 2
    assert max(len(payload) for *_, payload in host.sent) == PIECE_BYTES


def test_lists_are_told() -> None:
    assert ask(Host(), Table(1)) == {"lists": dict(Table.lists)}


def test_a_bug_of_the_author_is_told_with_its_line() -> None:
    told = ask(Host(), Table(1), list="broken")
    assert told["error"].startswith("KeyError: 'bug' (")
    assert "test_lists.py" in told["error"]
