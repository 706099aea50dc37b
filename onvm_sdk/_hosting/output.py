"""The output of an NF host: what NFs print and log, line by line, and where they hang."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

__all__ = ["LOG_FORMAT", "STACK_SIGNAL", "begin_output", "formatter", "show_logging"]

STACK_SIGNAL = 12
"""SIGUSR2: write the Python stack to stderr. A manager sends it to an NF host that hangs."""
LOG_FORMAT = "ONVM_LOG_FORMAT"
"""The environment variable that says how managers, agents and NF hosts log: text or json."""
FORMAT = "%(levelname)s %(name)s: %(message)s"


def begin_output() -> None:
    """Write out each line at once, and the stack when a manager asks for it.

    Threads: the main thread.
    """
    import faulthandler  # part of the interpreter

    if sys.stdout is not None and not sys.stdout.isatty():
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.register(STACK_SIGNAL, all_threads=False)
    faulthandler.enable()


def formatter(text: str) -> logging.Formatter:
    """The formatter that the environment asks for: `text`, or JSON."""
    import logging

    if os.environ.get(LOG_FORMAT) != "json":
        return logging.Formatter(text)
    from onvm_sdk._hosting.json_log import JsonFormatter

    return JsonFormatter()


def show_logging() -> None:
    """Let records of `logging` be written to stderr, from level INFO, if an NF logs at all.

    An NF that has configured logging itself is left alone.
    """
    if "logging" in sys.modules:  # importing it takes some of the time to the first packet
        import logging

        handler = logging.StreamHandler()
        handler.setFormatter(formatter(FORMAT))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
