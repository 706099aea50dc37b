"""The state of NF hosts that move, on its way from agent to agent.

Each agent listens on a second ZeroMQ socket, for requests of agents whose keys are known (CURVE, as
in `peers`), and passes their data to its manager. Each request gets one answer before the next is
sent; the sender gives up after a while and lets packets go to the old instance again.

Threads: the server has its own; a `StateTransfer` belongs to the thread that makes it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
import zmq

from onvm_core.cluster.links.manager import ManagerLink
from onvm_core.cluster.links.peers import Peer, PeerNetwork
from onvm_core.manager.api.state_messages import StatePiece
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["StateServer", "StateTransfer"]

log = logging.getLogger("onvm.cluster.state_server")

ANSWER_TIMEOUT_MS = 2000
MESSAGE_BYTES_MAX = 4 << 20


class _Question(msgspec.Struct, frozen=True, array_like=True):
    """A request about the state of NF host `source`, for NF host `successor` of the agent asked."""

    kind: Literal["can", "begin", "more", "done"]
    source: int
    successor: int
    pieces: list[StatePiece] = []


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    step: Literal["waiting", "done", "failed"]
    reason: str = ""


class StateServer:
    """Receives state from other agents; ends with `close`.

    Args:
        network: its keys and address are used here too.
        link: link to the manager; closed here.
        numbers: gives the numbers of this host's NF hosts, by name.
    """

    def __init__(
        self, network: PeerNetwork, link: ManagerLink, numbers: Callable[[], Mapping[str, int]]
    ) -> None:
        self._link = link
        self._numbers = numbers
        self._socket = network.listen(zmq.ROUTER, MESSAGE_BYTES_MAX)
        self.endpoint = network.endpoint_of(self._socket)
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="onvm-state-server", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        os.eventfd_write(self._stop_fd, 1)
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._stop_fd)
        self._socket.close(linger=0)
        self._link.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._stop_fd, zmq.POLLIN)
        poller.register(self._socket, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._stop_fd in ready:
                return
            if self._socket not in ready:
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
        name = next((name for name, one in numbers.items() if one == question.successor), None)
        if name is None:
            return _Answer("failed", f"NF host {question.successor} is not here")
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


class StateTransfer:
    """One state on its way to another host; a context manager.

    Args:
        peer: endpoint of the other agent's state server.
        source, successor: numbers of the two NF hosts.
    """

    def __init__(self, network: PeerNetwork, peer: Peer, source: int, successor: int) -> None:
        self._source = source
        self._successor = successor
        self._has_begun = False
        self._socket = network.connect(zmq.DEALER, peer, MESSAGE_BYTES_MAX)

    def __enter__(self) -> StateTransfer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(linger=0)

    def _ask(
        self, kind: Literal["can", "begin", "more", "done"], pieces: list[StatePiece] | None = None
    ) -> bool:
        """Tell if the other host has done it.

        Raises:
            ConfigError: the other host refuses.
            OnvmError: it does not answer.
        """
        question = _Question(kind, self._source, self._successor, pieces or [])
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
        """Check that the successor is there, before any packet waits for it.

        Raises:
            OnvmError: it is not there, or does not answer.
        """
        self._ask("can")

    def bring(self, pieces: list[StatePiece]) -> None:
        """Send it a piece of the state, in order."""
        self._ask("more" if self._has_begun else "begin", pieces)
        self._has_begun = True

    def is_done(self) -> bool:
        """Tell if it has taken the state over."""
        return self._ask("done")
