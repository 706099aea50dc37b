"""The control socket by itself: every request gets an answer, and no client makes it wait."""

from __future__ import annotations

import selectors
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from onvm_core.manager.api import codec
from onvm_core.manager.api import messages as m
from onvm_core.manager.api.directory import CONTROL_SOCKET
from onvm_core.manager.api.server import ControlServer, endpoint
from onvm_sdk.errors import ConfigError


def handle(request: m.Request) -> m.Reply:
    if isinstance(request, m.AskRequest):
        if request.name == "no":
            raise ConfigError("expected something else", field="send", value="no")
        if request.name == "bug":
            raise ZeroDivisionError("a bug")
    return m.DoneReply(count=7)


class Pair:
    """A server and a way to ask it, in one thread."""

    def __init__(self, folder: Path) -> None:
        self.selector = selectors.DefaultSelector()
        self.server = ControlServer(folder, self.selector, handle)
        self.context = zmq.Context()
        self.path = folder / CONTROL_SOCKET

    def client(self) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint(self.path))
        return socket

    def turn(self) -> None:
        for key, mask in self.selector.select(0 if self.server.has_more else 0.05):
            key.data(mask)
        self.server.turn()

    def ask(self, frames: list[bytes]) -> m.Reply:
        client = self.client()
        client.send_multipart(frames)
        deadline = time.monotonic() + 5
        while not client.poll(0):
            assert time.monotonic() < deadline
            self.turn()
        reply = codec.unpack_reply(client.recv_multipart()[-1])
        client.close()
        return reply


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.context.destroy(linger=0)
    made.server.close()
    made.selector.close()


def test_request_gets_its_reply(pair: Pair) -> None:
    assert pair.ask([b"", codec.pack_request(m.StatusRequest())]) == m.DoneReply(count=7)


def test_socket_is_for_its_user_alone(pair: Pair) -> None:
    assert pair.path.stat().st_mode & 0o777 == 0o600


NO = m.AskRequest(name="no", message="")
BUG = m.AskRequest(name="bug", message="")


@pytest.mark.parametrize(
    ("frames", "line"),
    [
        ([b""], "expected 2 frames, an empty one first: 1"),
        ([b"x", b"{}"], "expected 2 frames, an empty one first: 2"),
        ([b"", b""], "request: Input data was truncated"),
        ([b"", b"{}"], "request: Object missing required field `version`"),
        ([b"", b'{"version":2,"request":{"type":"new"}}'], "request of protocol version 2"),
        ([b"", b'{"version":1,"request":{"type":"new"}}'], "request: Invalid value 'new'"),
        ([b"", b'{"version":1,"request":{"type":"status","x":1}}'], "request: Object contains un"),
        ([b"", b"[" * 200_000], "request: "),
        ([b"", b'{"x":' * 40_000], "request: "),
        (
            [b"", codec.pack_request(m.AskRequest(name="no", message=""))],
            "send: 'no': expected som",
        ),
        (
            [b"", codec.pack_request(m.AskRequest(name="bug", message=""))],
            "the manager failed: Zero",
        ),
    ],
)
def test_what_is_wrong_gets_one_line(pair: Pair, frames: list[bytes], line: str) -> None:
    reply = pair.ask(frames)
    assert isinstance(reply, m.ErrorReply)
    assert reply.message.startswith(line)
    assert "\n" not in reply.message


def test_clients_that_never_read_do_not_stop_the_others(pair: Pair) -> None:
    deaf = [pair.client() for _ in range(20)]
    for client in deaf:
        for _ in range(300):
            client.send_multipart([b"", codec.pack_request(m.StatusRequest())])
    begin = time.monotonic()
    assert pair.ask([b"", codec.pack_request(m.StatusRequest())]) == m.DoneReply(count=7)
    assert time.monotonic() - begin < 5


def test_message_beyond_the_limit_ends_only_its_connection(pair: Pair) -> None:
    client = pair.client()
    client.send_multipart([b"", bytes(codec.REQUEST_BYTES_MAX + 1)])
    assert pair.ask([b"", codec.pack_request(m.StatusRequest())]) == m.DoneReply(count=7)


def test_events_reach_who_listens(pair: Pair) -> None:
    listener = pair.context.socket(zmq.SUB)
    listener.subscribe(b"chain")
    listener.connect(endpoint(pair.path.with_name("events.sock")))
    event = m.ChainEvent(name="main", action="added")
    deadline = time.monotonic() + 5
    while not listener.poll(10):  # a subscription takes a moment to arrive
        assert time.monotonic() < deadline
        pair.server.publish(m.ManagerEvent(state="ready"))
        pair.server.publish(event)
    topic, data = listener.recv_multipart()
    assert topic == b"chain"
    assert codec.unpack_event(data) == event


def test_long_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a path of at most 107 bytes"):
        endpoint(Path("/" + "x" * 107))


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        codec.unpack_request(data)
    except codec.MessageError as error:
        assert "\n" not in str(error)


@given(st.text(min_size=1, max_size=31), st.text(max_size=200))
def test_request_survives_its_bytes(name: str, text: str) -> None:
    request = m.AskRequest(name=name, message=text)
    assert codec.unpack_request(codec.pack_request(request)) == request
