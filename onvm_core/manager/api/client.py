"""The client end of the control socket, which the command line uses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import zmq

from onvm_core.manager.api.codec import pack_request, unpack_event, unpack_reply
from onvm_core.manager.api.directory import CONTROL_SOCKET, EVENT_SOCKET, ManagerRecord
from onvm_core.manager.api.messages import ErrorReply, Event, Reply, Request
from onvm_core.manager.api.server import endpoint
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["Client", "NoManagerError"]

REPLY_TIMEOUT_S = 10.0
RECONNECT_MS = 5

ReplyT = TypeVar("ReplyT")


class NoManagerError(ConfigError):
    """No manager of that name is running."""


class Client:
    """A connection to a running manager; a context manager.

    Args:
        directory: directory of the manager.

    Raises:
        NoManagerError: no manager runs there.
    """

    def __init__(self, directory: Path) -> None:
        record = ManagerRecord.read(directory)
        if record is None or not record.process.is_alive:
            raise NoManagerError(
                "expected a running manager; start one: onvm up -f onvm.toml",
                field="--name",
                value=directory.name,
            )
        self.process = record.process
        self._directory = directory
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        # A manager that is starting writes its record a moment before it makes its socket.
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self._socket.connect(endpoint(directory / CONTROL_SOCKET))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._context.destroy(linger=0)

    def ask(
        self, request: Request, expected: type[ReplyT], timeout_s: float = REPLY_TIMEOUT_S
    ) -> ReplyT:
        """Send a request and give its reply.

        Raises:
            ConfigError: the manager refuses the request; carries its line.
            OnvmError: the manager does not answer in time, or has ended.
        """
        self._socket.send_multipart([b"", pack_request(request)])
        reply = self._receive(timeout_s)
        if isinstance(reply, ErrorReply):
            raise ConfigError(reply.message)
        if not isinstance(reply, expected):
            raise OnvmError(f"manager {self._directory.name!r} answered something else")
        return reply

    def _receive(self, timeout_s: float) -> Reply:
        deadline = time.monotonic() + timeout_s
        while not self._socket.poll(100):
            if not self.process.is_alive:
                raise OnvmError(f"manager {self._directory.name!r} has ended")
            if time.monotonic() > deadline:
                raise OnvmError(
                    f"manager {self._directory.name!r} (pid {self.process.pid}) did not answer "
                    f"within {timeout_s:g} s"
                )
        return unpack_reply(self._socket.recv_multipart()[-1])

    def events(self) -> Iterator[Event]:
        """The events from now on, until the manager ends."""
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.subscribe(b"")
        socket.connect(endpoint(self._directory / EVENT_SOCKET))
        while self.process.is_alive:
            if socket.poll(100):
                yield unpack_event(socket.recv_multipart()[-1])
