"""Ctrl-C and SIGTERM as a request to end, SIGHUP as one to read the file again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["INTERRUPTED", "call_on_hangup", "end_at_once", "raise_interrupts", "stop_on_signals"]

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def end_at_once() -> None:
    """Let Ctrl-C end the process without a word while modules load: nothing is open yet.

    The interpreter's own handler would raise in the middle of an import. That prints a traceback,
    or is lost where C code calls Python.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_interrupts() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` again, so that a command can clear up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: object) -> None:
    os._exit(INTERRUPTED)


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
