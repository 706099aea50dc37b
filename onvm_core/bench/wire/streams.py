"""TCP streams, as iperf3 makes them.

    python -P -m onvm_core.bench.wire.streams receive PORT SECONDS
    python -P -m onvm_core.bench.wire.streams send ADDRESS PORT STREAMS

The receiver says "ready", measures after a warm-up, prints gigabits per second of payload and ends.
The sender sends until its connections end.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

__all__ = ["main"]

BLOCK_BYTES = 128 * 1024
"""As iperf3 does; a call of Python costs little beside such a block."""
WARM_S = 0.3
CONNECT_S = 5.0


def _receive(port: int, seconds: float) -> float:
    """Gigabits per second that arrive; 0: no connection came."""
    listener = socket.create_server(("", port), backlog=128)
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    buffer = bytearray(BLOCK_BYTES)
    n_bytes = 0
    begin = end = 0.0
    deadline = time.monotonic() + CONNECT_S
    while (now := time.monotonic()) < deadline:
        for key, _ in selector.select(deadline - now):
            one = key.fileobj
            assert isinstance(one, socket.socket)
            if one is listener:
                accepted, _ = listener.accept()
                accepted.setblocking(False)
                selector.register(accepted, selectors.EVENT_READ)
                if not begin:
                    begin = time.monotonic() + WARM_S
                    deadline = begin + seconds
                continue
            got = one.recv_into(buffer)
            if not got:
                selector.unregister(one)
            if time.monotonic() >= begin:
                n_bytes += got
    end = time.monotonic()
    return n_bytes * 8 / (end - begin) / 1e9 if begin else 0.0


def _send(address: str, port: int, streams: int) -> None:
    selector = selectors.DefaultSelector()
    for _ in range(streams):
        one = socket.create_connection((address, port), timeout=CONNECT_S)
        one.setblocking(False)
        selector.register(one, selectors.EVENT_WRITE)
    block = bytes(BLOCK_BYTES)
    while selector.get_map():
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            try:
                key.fileobj.send(block)
            except OSError:  # the receiver has ended
                selector.unregister(key.fileobj)


def main(role: str, *arguments: str) -> None:
    """Play one of the two ends."""
    if role == "receive":
        print(_receive(int(arguments[0]), float(arguments[1])), flush=True)
    else:
        _send(arguments[0], int(arguments[1]), int(arguments[2]))


if __name__ == "__main__":
    main(*sys.argv[1:])
