"""The control socket: ZeroMQ on ``ipc://`` in the manager's directory, for this user alone.

Requests arrive on a ROUTER socket, events leave on a PUB socket. Neither ever blocks: a client that
does not read loses the messages that exceed its queue. A malformed message gets an error reply. A
fault in a handler gets one too, and a traceback goes to the log, because the packets must go on.

Threads: all of it runs in the thread that calls `ControlServer.turn`.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
from collections.abc import Callable
from pathlib import Path

import zmq

from onvm_core.manager.api.codec import REQUEST_BYTES_MAX, pack_reply, unpack_request
from onvm_core.manager.api.directory import CONTROL_SOCKET, EVENT_SOCKET, check_socket_path
from onvm_core.manager.api.messages import ErrorReply, Event, Reply, Request
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["ControlServer", "endpoint"]

log = logging.getLogger("onvm.control")

REQUESTS_PER_TURN = 16
QUEUE_LENGTH = 256


def endpoint(path: Path) -> str:
    """The ZeroMQ address of a socket file.

    Raises:
        ConfigError: the path is too long for a socket.
    """
    check_socket_path(path)
    return f"ipc://{path}"


class ControlServer:
    """Answers requests and publishes events.

    Args:
        directory: a directory that only this user may enter.
        selector: wakes the caller, who calls `turn` after each select.
        handle: gives the reply to a request; raises OnvmError to refuse it.
    """

    def __init__(
        self,
        directory: Path,
        selector: selectors.BaseSelector,
        handle: Callable[[Request], Reply],
    ) -> None:
        self._handle = handle
        self._selector = selector
        self._paths = (directory / CONTROL_SOCKET, directory / EVENT_SOCKET)
        self._context = zmq.Context(io_threads=1)
        try:
            self._router = self._bind(zmq.ROUTER, self._paths[0])
            self._publisher = self._bind(zmq.PUB, self._paths[1])
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.has_more = True
        # ZeroMQ's descriptor is edge-triggered: it signals once that something may have happened.
        self._fd = int(self._router.getsockopt(zmq.FD))
        selector.register(self._fd, selectors.EVENT_READ, self._wake)

    def _bind(self, kind: int, path: Path) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, QUEUE_LENGTH)
        socket.setsockopt(zmq.RCVHWM, QUEUE_LENGTH)
        socket.setsockopt(zmq.MAXMSGSIZE, REQUEST_BYTES_MAX)
        try:
            socket.bind(endpoint(path))
        except zmq.ZMQError as error:
            raise ConfigError(
                f"expected a path for a socket: {error.strerror}",
                field="control socket",
                value=str(path),
            ) from None
        path.chmod(0o600)
        return socket

    def close(self) -> None:
        """Close the sockets and remove their files; messages being sent get a moment."""
        self._selector.unregister(self._fd)
        for socket in (self._router, self._publisher):
            socket.close(linger=100)
        self._context.term()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _wake(self, _mask: int) -> None:
        self.has_more = True

    def turn(self) -> None:
        """Answer some of the requests; `has_more` tells the caller to come back at once."""
        for _ in range(REQUESTS_PER_TURN):
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                self.has_more = False
                return
            self._answer(frames)
        self.has_more = True

    def _answer(self, frames: list[bytes]) -> None:
        sender, *rest = frames
        # A DEALER's frames: an empty one, then the request.
        if len(rest) != 2 or rest[0]:
            reply: Reply = ErrorReply(message=f"expected 2 frames, an empty one first: {len(rest)}")
        else:
            reply = self._reply(rest[1])
        try:
            self._router.send_multipart([sender, b"", pack_reply(reply)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.info("a client lost its reply: %s", error)

    def _reply(self, data: bytes) -> Reply:
        try:
            return self._handle(unpack_request(data))
        except OnvmError as error:
            return ErrorReply(message=str(error))
        except Exception as error:
            log.exception("a request failed")
            return ErrorReply(message=f"the manager failed: {type(error).__name__}: {error}")

    def publish(self, event: Event) -> None:
        """Send an event to all subscribers."""
        data = pack_reply(event)
        topic = event.__struct_config__.tag
        with contextlib.suppress(zmq.Again):  # PUB drops messages by itself and gives no sign of it
            self._publisher.send_multipart([str(topic).encode(), data], zmq.NOBLOCK)
