"""Datagrams through a chain while something fails: running flows, and a stream of new ones.

A running flow sends every few milliseconds from one port. Each new flow is one datagram from its
own port. All datagrams are numbered, so an answer names its request.

Threads: one sends and one receives. Read the figures after both have ended.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Probes", "probes"]

RUNNING = 16
PERIOD_S = 0.005
"""Time between two datagrams of a running flow, and between two new flows."""
ANSWER_S = 0.5
"""A request without an answer within this time is lost."""
WAIT_S = 10.0
NUMBER = struct.Struct("!I")


@dataclass
class _Flow:
    """Times of datagrams, and their answers."""

    port: int = 0
    """Time of the last datagram."""
    sent_s: list[float] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)

    def pause_s(self, since_s: float) -> float:
        """The longest time between two answered datagrams, from the last one before `since_s` on;
        infinite if the last ones were not answered.
        """
        times = [self.sent_s[number] for number in sorted(self.answered)]
        before = [one for one in times if one < since_s][-1:]
        after = [one for one in times if one >= since_s]
        if not after:
            return float("inf")
        steps = [*before, *after]
        return max((b - a for a, b in itertools.pairwise(steps)), default=0.0)


class Probes:
    """Sends from the network namespace of the thread that creates and runs it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._flows = [_Flow() for _ in range(RUNNING)]
        self._new = _Flow()
        self._selector = selectors.DefaultSelector()
        self._sockets = [self._socket(flow) for flow in self._flows]
        self._is_ending = threading.Event()
        self._opened: list[socket.socket] = []

    def _socket(self, flow: _Flow) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.connect(self._address)
        self._selector.register(made, selectors.EVENT_READ, flow)
        flow.port = made.getsockname()[1]
        return made

    def run(self) -> None:
        """Send and receive until `finish` is called; in a thread."""
        next_s = time.monotonic()
        while not self._is_ending.is_set():
            for flow, one in zip(self._flows, self._sockets, strict=True):
                self._send(flow, one)
            self._opened.append(self._socket(self._new))
            self._send(self._new, self._opened[-1])
            self._forget()
            next_s = max(next_s + PERIOD_S, time.monotonic())
            self._receive(next_s)
        self._receive(time.monotonic() + ANSWER_S)
        for one in [*self._sockets, *self._opened]:
            one.close()
        self._selector.close()

    def _send(self, flow: _Flow, one: socket.socket) -> None:
        flow.sent_s.append(time.monotonic())
        with contextlib.suppress(OSError):  # no route, or a full buffer: it is lost
            one.send(NUMBER.pack(len(flow.sent_s) - 1))

    def _forget(self) -> None:
        """Close sockets of new flows that are old."""
        while len(self._opened) > ANSWER_S / PERIOD_S:
            old = self._opened.pop(0)
            self._selector.unregister(old)
            old.close()

    def _receive(self, until_s: float) -> None:
        while (left_s := until_s - time.monotonic()) > 0:
            for key, _ in self._selector.select(left_s):
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(OSError, struct.error):
                    key.data.answered.add(NUMBER.unpack(key.fileobj.recv(64))[0])

    def finish(self) -> None:
        """End `run`."""
        self._is_ending.set()

    # ---- figures ----

    @property
    def ports(self) -> list[int]:
        """Records of the running flows."""
        return [flow.port for flow in self._flows]

    def pause_ms(self, since_s: float) -> float:
        """The longest pause of a running flow since then, in milliseconds."""
        return max(flow.pause_s(since_s) for flow in self._flows) * 1e3

    def lost_until_ms(self, since_s: float) -> float:
        """From then until the last new flow that had no answer, in milliseconds; 0: none."""
        lost = [
            at_s - since_s
            for number, at_s in enumerate(self._new.sent_s)
            if at_s >= since_s and number not in self._new.answered
        ]
        return max(lost, default=0.0) * 1e3


@contextlib.contextmanager
def probes(
    address: tuple[str, int], inside: Callable[[Callable[[], None]], None]
) -> Iterator[Probes]:
    """Send probes meanwhile; a context manager.

    Args:
        address: address of an echo server.
        inside: calls a function in the network namespace of the clients.
    """
    made: list[Probes] = []
    is_made = threading.Event()

    def run() -> None:
        made.append(Probes(address))
        is_made.set()
        made[0].run()

    thread = threading.Thread(target=inside, args=(run,), name="probes", daemon=True)
    thread.start()
    is_made.wait(WAIT_S)
    try:
        yield made[0]
    finally:
        made[0].finish()
        thread.join()
