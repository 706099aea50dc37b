"""The attach socket: NF hosts connect, get their memory, and talk.

One UNIX socket (SEQPACKET). A host sends a hello within a second, gets a reply with file
descriptors, and sends READY when it can work. When its socket closes, it is gone. A host that
breaks the layout is refused or detached with the reason, and no host can make the manager wait.

Threads: all of it runs in the thread that calls `AttachServer.handle`.
"""

from __future__ import annotations

import array
import contextlib
import errno
import logging
import os
import selectors
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from onvm_core.manager.nf_hosts import codec
from onvm_sdk.errors import OnvmError

__all__ = ["PROCESS_ENDED", "AttachHandler", "AttachServer", "Connection"]

log = logging.getLogger("onvm.attach")

PROCESS_ENDED = "process ended"
"""The reason given for a host that has closed its socket by itself."""
HELLO_TIMEOUT_S = 1.0
PENDING_MAX = 64
MESSAGES_PER_TURN = 64
SEND_QUEUE_MAX = 256
HOSTS_PER_PROCESS_MAX = 16
"""Limit that keeps one process from taking every slot."""


@dataclass(slots=True, eq=False)
class Connection:
    """One NF host's socket. `slot` is 0 until it has attached."""

    socket: socket.socket
    since: float
    uid: int
    pid: int
    slot: int = 0
    unsent: list[bytes] = field(default_factory=list)


class AttachHandler(Protocol):
    """The manager's reactions to events on a socket."""

    def on_hello(
        self, connection: Connection, hello: codec.Hello
    ) -> tuple[bytes, tuple[int, ...], int]:
        """Make a host; return the reply, the descriptors that go with it and the slot.

        The second descriptor (the attach area) is closed when it has been sent.
        """

    def on_message(self, connection: Connection, message: codec.Message) -> None:
        """Handle a message of an attached host."""

    def on_flushed(self, connection: Connection) -> None:
        """Handle that messages which waited for space have been sent."""

    def on_gone(self, connection: Connection, reason: str) -> None:
        """Handle the end of the host's socket."""


class AttachServer:
    """Listens for NF hosts and carries their messages.

    Args:
        path: path to listen at; an abandoned socket there is removed first.
        selector: watched by the caller, who calls `handle` for events of this server.
    """

    def __init__(
        self, path: Path, selector: selectors.BaseSelector, handler: AttachHandler
    ) -> None:
        self.path = path
        self._selector = selector
        self._handler = handler
        self._connections: dict[int, Connection] = {}
        self._pending: list[Connection] = []
        remove_stale_socket(path)
        self._listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(128)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Close every socket and remove the path."""
        for connection in [*self._connections.values(), *self._pending]:
            self._forget(connection)
        self._selector.unregister(self._listener)
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def expire(self) -> None:
        """Refuse connections that have sent nothing in time."""
        now = time.monotonic()
        for connection in [c for c in self._pending if now - c.since > HELLO_TIMEOUT_S]:
            self._refuse(connection, errno.ETIMEDOUT, "no attach message within 1 s")

    def send(self, slot: int, message: bytes) -> None:
        """Send to an attached host; it waits for space in the socket, and a host that never reads
        is dropped.
        """
        connection = self._connections.get(slot)
        if connection is None:
            return
        connection.unsent.append(message)
        self._flush(connection)

    def n_unsent(self, slot: int) -> int:
        """Number of messages that wait for space in a host's socket."""
        connection = self._connections.get(slot)
        return 0 if connection is None else len(connection.unsent)

    def detach(self, slot: int, reason: str) -> None:
        """Detach a host; `AttachHandler.on_gone` follows."""
        connection = self._connections.get(slot)
        if connection is None:
            return
        with contextlib.suppress(OSError):  # it is detached anyway
            connection.socket.send(codec.pack_message(codec.DETACH, payload=reason.encode()))
        self._gone(connection, reason)

    # ---- sockets ----

    def _accept(self, _mask: int) -> None:
        for _ in range(PENDING_MAX):
            try:
                peer, _address = self._listener.accept()
            except OSError:  # none left, or out of descriptors: the next turn sees them
                return
            peer.setblocking(False)
            pid, uid, _gid = struct.unpack(
                "3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            )
            connection = Connection(peer, time.monotonic(), uid, pid)
            if len(self._pending) >= PENDING_MAX:
                self._refuse(self._noisiest(), errno.EBUSY, "too many connections say nothing")
            self._pending.append(connection)
            self._selector.register(
                peer, selectors.EVENT_READ, lambda mask, c=connection: self._ready(c, mask)
            )

    def _noisiest(self) -> Connection:
        """The oldest silent connection of the process that has most of them."""
        counts = Counter(connection.pid for connection in self._pending)
        worst = max(counts, key=lambda pid: counts[pid])
        return next(connection for connection in self._pending if connection.pid == worst)

    def _ready(self, connection: Connection, mask: int) -> None:
        if connection.socket.fileno() < 0:
            return  # an earlier event of the same turn has closed it
        if mask & selectors.EVENT_WRITE:
            self._flush(connection)
            self._handler.on_flushed(connection)
        if not mask & selectors.EVENT_READ:
            return
        for _ in range(MESSAGES_PER_TURN):
            if connection.socket.fileno() < 0:
                return
            try:
                data = connection.socket.recv(codec.HELLO_BYTES + 1)
            except BlockingIOError:
                return
            except OSError as error:
                self._gone(connection, error.strerror or "connection failed")
                return
            if not data:
                self._gone(connection, PROCESS_ENDED)
                return
            self._received(connection, data)

    def _received(self, connection: Connection, data: bytes) -> None:
        if connection.slot == 0:
            self._attach(connection, data)
            return
        try:
            self._handler.on_message(connection, codec.unpack_message(data))
        except OnvmError as error:
            self.detach(connection.slot, f"bad message: {error}")

    def _attach(self, connection: Connection, data: bytes) -> None:
        if connection.uid not in (os.getuid(), 0):
            self._refuse(connection, errno.EPERM, f"user {connection.uid} may not attach")
            return
        # pid 0: a process of another namespace; it cannot be identified.
        own = connection.pid and sum(
            other.pid == connection.pid for other in self._connections.values()
        )
        if own >= HOSTS_PER_PROCESS_MAX:
            self._refuse(connection, errno.EAGAIN, f"a process may attach {own} times")
            return
        try:
            reply, descriptors, slot = self._handler.on_hello(connection, codec.unpack_hello(data))
        except OnvmError as error:
            self._refuse(connection, getattr(error, "errno", errno.EPROTO), str(error))
            return
        self._pending.remove(connection)
        connection.slot = slot
        self._connections[slot] = connection
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            connection.socket.sendmsg([reply], rights)
        except OSError as error:
            self._gone(connection, error.strerror or "connection failed")
        finally:
            os.close(descriptors[1])

    def _flush(self, connection: Connection) -> None:
        try:
            while connection.unsent:
                connection.socket.send(connection.unsent[0])
                connection.unsent.pop(0)
        except BlockingIOError:
            pass
        except OSError as error:
            self._gone(connection, error.strerror or "connection failed")
            return
        if len(connection.unsent) > SEND_QUEUE_MAX:
            self._gone(connection, "does not read its messages")
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        key = self._selector.get_key(connection.socket)
        if key.events != events:
            self._selector.modify(connection.socket, events, key.data)

    def _refuse(self, connection: Connection, number: int, reason: str) -> None:
        log.warning("refused an NF host (pid %d): %s", connection.pid, reason)
        with contextlib.suppress(OSError):  # the host does not read
            connection.socket.send(codec.pack_refusal(number, reason))
        self._forget(connection)

    def _gone(self, connection: Connection, reason: str) -> None:
        is_open = connection.socket.fileno() >= 0
        slot = connection.slot
        self._forget(connection)
        if is_open and slot != 0:
            self._handler.on_gone(connection, reason)

    def _forget(self, connection: Connection) -> None:
        if connection in self._pending:
            self._pending.remove(connection)
        self._connections.pop(connection.slot, None)
        if connection.socket.fileno() >= 0:
            self._selector.unregister(connection.socket)
            connection.socket.close()


def remove_stale_socket(path: Path) -> None:
    """Remove a socket at `path` that no process listens on.

    Raises:
        OnvmError: a process listens on it, or the path is not a socket.
    """
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket():
        raise OnvmError(f"{path}: exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                raise OnvmError(f"{path}: a socket of another kind is in use there") from None
            raise
    raise OnvmError(f"{path}: another manager listens there")
