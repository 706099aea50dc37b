"""HTTP requests, each on a connection of its own: connect, request, 1,024 bytes of answer, close.

    python -P -m onvm_core.bench.wire.requests serve PORT
    python -P -m onvm_core.bench.wire.requests ask ADDRESS PORT SECONDS

The server says "ready" and answers until it is killed. The client keeps some connections going, and
prints how many it completed per second.
"""

from __future__ import annotations

import errno
import selectors
import socket
import sys
import time

__all__ = ["main"]

CONNECTIONS = 32
"""At the same time, as `ab -c 32` does."""
WARM_S = 0.2
REQUEST = b"GET / HTTP/1.0\r\nHost: wire\r\n\r\n"
BODY_BYTES = 1024
ANSWER = (
    b"HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Length: %d\r\n\r\n" % BODY_BYTES
) + bytes(BODY_BYTES)


def _serve(port: int) -> None:
    listener = socket.create_server(("", port), backlog=1024)
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            one = key.fileobj
            assert isinstance(one, socket.socket)
            if one is listener:
                accepted, _ = listener.accept()
                accepted.setblocking(False)
                selector.register(accepted, selectors.EVENT_READ)
                continue
            selector.unregister(one)
            try:
                if one.recv(4096):  # requests are short: one segment has all of it
                    one.send(ANSWER)
            except OSError:  # the client has ended
                pass
            one.close()


class _Client:
    """Connections that go on at the same time."""

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self._selector = selectors.DefaultSelector()
        self._left: dict[socket.socket, int] = {}
        """Bytes of the answer that are missing."""
        self.completed = 0

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            while len(self._left) < CONNECTIONS:
                self._begin()
            for key, events in self._selector.select(end - now):
                assert isinstance(key.fileobj, socket.socket)
                self._go_on(key.fileobj, events)

    def _begin(self) -> None:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setblocking(False)
        self._left[one] = len(ANSWER)
        if one.connect_ex(self._target) not in (0, errno.EINPROGRESS):
            self._end(one)
            return
        self._selector.register(one, selectors.EVENT_WRITE)

    def _go_on(self, one: socket.socket, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                one.send(REQUEST)
                self._selector.modify(one, selectors.EVENT_READ)
                return
            got = one.recv(4096)
        except OSError:  # refused or reset: it does not count
            got = b""
        self._left[one] -= len(got)
        if not got or not self._left[one]:
            self.completed += not self._left[one]
            self._selector.unregister(one)
            self._end(one)

    def _end(self, one: socket.socket) -> None:
        del self._left[one]
        one.close()


def _ask(address: str, port: int, seconds: float) -> float:
    client = _Client(address, port)
    client.run(WARM_S)
    before, begin = client.completed, time.monotonic()
    client.run(seconds)
    return (client.completed - before) / (time.monotonic() - begin)


def main(role: str, *arguments: str) -> None:
    """Play one of the two ends."""
    if role == "serve":
        _serve(int(arguments[0]))
    else:
        print(_ask(arguments[0], int(arguments[1]), float(arguments[2])), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
