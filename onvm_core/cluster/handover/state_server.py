"""From agent to agent: the state of NF hosts that move.

Each agent listens on a second ZeroMQ socket, for questions of agents whose keys are known (CURVE,
as in `peers`), and passes what they bring to its manager. One question at a time has one answer;
who asks gives up after a while and lets packets go to the old instance again.

Threads: the server has one of its own; an `Errand` belongs to who makes it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
import zmq

from onvm_core.cluster.links.manager import ManagerLink
from onvm_core.cluster.links.peers import Peer, PeerNetwork
from onvm_core.manager.api.state_messages import StatePiece
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["Courier", "Errand"]

log = logging.getLogger("onvm.cluster.courier")

POLL_MS = 100
ANSWER_TIMEOUT_MS = 2000
MESSAGE_BYTES_MAX = 4 << 20


class _Question(msgspec.Struct, frozen=True, array_like=True):
    """About the state of NF host `source`, for NF host `heir` of the one who is asked."""

    kind: Literal["can", "begin", "more", "done"]
    source: int
    heir: int
    pieces: list[StatePiece] = []


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    step: Literal["waiting", "done", "failed"]
    reason: str = ""


class Courier:
    """Takes in what others bring; ends with `close`.

    Args:
        network: whose keys and address it uses.
        link: to the manager; closed here.
        numbers: gives the numbers of this host's NF hosts, by name.
    """

    def __init__(
        self, network: PeerNetwork, link: ManagerLink, numbers: Callable[[], Mapping[str, int]]
    ) -> None:
        self._link = link
        self._numbers = numbers
        self._socket = network.listen(zmq.ROUTER, MESSAGE_BYTES_MAX)
        self.endpoint = network.endpoint_of(self._socket)
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="onvm-courier", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close(linger=0)
        self._link.close()

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            if not self._socket.poll(POLL_MS):
                continue
            frames = self._socket.recv_multipart()
            if len(frames) != 2:
                continue
            try:
                question = msgspec.msgpack.decode(frames[1], type=_Question)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                answer = _Answer("failed", "a question of another version")
            else:
                answer = self._answer(question)
            try:
                self._socket.send_multipart([frames[0], msgspec.msgpack.encode(answer)])
            except zmq.ZMQError as error:
                log.info("an answer was lost: %s", error)

    def _answer(self, question: _Question) -> _Answer:
        numbers = self._numbers()
        name = next((name for name, one in numbers.items() if one == question.heir), None)
        if name is None:
            return _Answer("failed", f"NF host {question.heir} is not here")
        try:
            if question.kind == "can":
                hosts = {host.name: host.state for host in self._link.local().hosts}
                is_there = hosts.get(name) == "active"
                return _Answer("done") if is_there else _Answer("failed", f"{name} does not serve")
            if question.kind == "done":
                reply = self._link.state_given(name, question.source)
                return _Answer(reply.step, reply.reason)
            self._link.give_state(
                name, question.source, question.pieces, is_first=question.kind == "begin"
            )
        except OnvmError as error:
            return _Answer("failed", str(error))
        return _Answer("waiting")


class Errand:
    """One state on its way to another host; a context manager.

    Args:
        peer: the other agent's courier.
        source, heir: numbers of the NF hosts.
    """

    def __init__(self, network: PeerNetwork, peer: Peer, source: int, heir: int) -> None:
        self._source = source
        self._heir = heir
        self._has_begun = False
        self._socket = network.connect(zmq.DEALER, peer, MESSAGE_BYTES_MAX)

    def __enter__(self) -> Errand:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(linger=0)

    def _ask(
        self, kind: Literal["can", "begin", "more", "done"], pieces: list[StatePiece] | None = None
    ) -> bool:
        """Whether it is done there.

        Raises:
            ConfigError: the other host says no.
            OnvmError: it does not answer.
        """
        question = _Question(kind, self._source, self._heir, pieces or [])
        try:
            self._socket.send(msgspec.msgpack.encode(question), zmq.NOBLOCK)
        except zmq.Again:
            raise OnvmError("its agent does not answer") from None
        if not self._socket.poll(ANSWER_TIMEOUT_MS):
            raise OnvmError("its agent does not answer")
        try:
            answer = msgspec.msgpack.decode(self._socket.recv(), type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise OnvmError("its agent is of another version") from None
        if answer.step == "failed":
            raise ConfigError(answer.reason)
        return answer.step == "done"

    def check(self) -> None:
        """See that the heir is there, before anything waits for it.

        Raises:
            OnvmError: it is not, or does not answer.
        """
        self._ask("can")

    def bring(self, pieces: list[StatePiece]) -> None:
        """Give it some of the state, in order."""
        self._ask("more" if self._has_begun else "begin", pieces)
        self._has_begun = True

    def is_done(self) -> bool:
        """Whether it has taken the state over."""
        return self._ask("done")
