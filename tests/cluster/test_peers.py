"""Agents among themselves: only known keys get a connection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import zmq
from bench import wait

from onvm_core.cluster.links import peers
from onvm_core.cluster.links.peers import Peer, PeerLoad, PeerNetwork
from onvm_sdk.errors import ConfigError

LOAD = PeerLoad(7, 1234, 0.5, 2000)


def make(stack: ExitStack, name: str, address: str = "127.0.0.1") -> tuple[PeerNetwork, str, str]:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return stack.enter_context(PeerNetwork(name, address, public, secret)), public, secret


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def hears(listener: PeerNetwork, speaker: PeerNetwork, timeout_s: float) -> bool:
    def turn() -> bool:
        speaker.publish([LOAD])
        listener.publish([])
        listener.receive()
        return bool(listener.loads())

    try:
        wait(turn, timeout_s)
    except AssertionError:
        return False
    return True


def test_known_keys_hear_each_other_and_strangers_do_not(stack: ExitStack) -> None:
    a, a_key, _ = make(stack, "a")
    b, b_key, _ = make(stack, "b")
    stranger, stranger_key, _ = make(stack, "stranger")
    a.set_peers({"b": Peer(b.endpoint, b_key)})
    b.set_peers({"a": Peer(a.endpoint, a_key)})
    stranger.set_peers({"a": Peer(a.endpoint, a_key)})
    assert hears(b, a, 20)
    assert b.loads() == {7: LOAD}
    assert not hears(stranger, a, 1.5)
    a.set_peers({"b": Peer(b.endpoint, b_key), "s": Peer(stranger.endpoint, stranger_key)})
    assert hears(stranger, a, 20)


def test_without_curve_nothing_is_heard_or_injected(stack: ExitStack) -> None:
    a, a_key, _ = make(stack, "a")
    b, b_key, _ = make(stack, "b")
    b.set_peers({"a": Peer(a.endpoint, a_key)})
    a.set_peers({"b": Peer(b.endpoint, b_key)})
    with zmq.Context() as context, context.socket(zmq.SUB) as plain:
        plain.subscribe(b"")
        plain.connect(a.endpoint)
        assert hears(b, a, 20)
        assert not plain.poll(1000)
    # one who pretends to be a, at a's place but without its key, is not listened to
    with zmq.Context() as context, context.socket(zmq.PUB) as liar:
        public, secret = zmq.curve_keypair()
        liar.curve_publickey, liar.curve_secretkey, liar.curve_server = public, secret, True
        port = liar.bind_to_random_port("tcp://127.0.0.1")
        fresh, _, _ = make(stack, "fresh", "")
        fresh.set_peers({"a": Peer(f"tcp://127.0.0.1:{port}", a_key)})

        def lie() -> bool:
            liar.send(b"\x92\xa1a\x91\x92\x07\xcd\x04\xd2")  # ["a", [[7, 1234]]]
            return fresh.receive() > 0

        with pytest.raises(AssertionError):
            wait(lie, 1.5)


def test_peer_that_falls_silent_is_named_and_its_last_load_kept(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, a_key, _ = make(stack, "a")
    b, b_key, _ = make(stack, "b")
    a.set_peers({"b": Peer(b.endpoint, b_key)})
    b.set_peers({"a": Peer(a.endpoint, a_key)})
    assert hears(b, a, 20)
    assert b.unheard() == []
    now = time.monotonic()
    monkeypatch.setattr(peers.time, "monotonic", lambda: now + 10)
    assert (b.unheard(), b.loads(), b.last_loads()) == (["a"], {}, {7: LOAD})
    assert hears(b, a, 20)
    assert b.unheard() == []


def test_rubbish_of_a_member_is_left_out(stack: ExitStack) -> None:
    a, a_key, _ = make(stack, "a")
    b, b_key, _ = make(stack, "b")
    a.set_peers({"b": Peer(b.endpoint, b_key)})
    b.set_peers({"a": Peer(a.endpoint, a_key)})
    assert hears(b, a, 20)
    for rubbish in (b"", b"\xff", b"[]", b"\x92\xa1a\x91\x91\xa1x", b"\x91" * 10_000):
        a._publisher.send(rubbish)
    wait(lambda: b.receive() > 0)
    assert hears(b, a, 20)


def test_address_that_is_not_here_is_a_line(stack: ExitStack) -> None:
    with pytest.raises(
        ConfigError, match=r"--control-address: '192\.0\.2\.1:0': expected an address"
    ):
        make(stack, "a", "192.0.2.1")
