"""Ctrl-C and SIGTERM as a request to end, SIGHUP as one to read the file again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["call_on_hangup", "stop_on_signals"]


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Make Ctrl-C and SIGTERM end the run, not the process: the report is still printed."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda n, frame: received.append(n))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def call_on_hangup(function: Callable[[], None]) -> Iterator[None]:
    """Call `function`, which must only take a note, when SIGHUP comes."""
    before = signal.signal(signal.SIGHUP, lambda number, frame: function())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
