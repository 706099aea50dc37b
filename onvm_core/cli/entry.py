"""The entry point of ``onvm``.

``onvm up FILE`` becomes a manager, and until it has started no packet flows. So a plain command
(the file and the name, nothing else) starts the data plane at once, and does not wait for the
library that reads command lines. Every other command, and every doubtful one, is left to the
command line itself.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Sequence

from onvm_core.cli.signals import end_at_once, raise_interrupts

__all__ = ["main"]

_FILE = ("--file", "-f")
_DEFAULT_FILE = "onvm.toml"
_DEFAULT_NAME = "main"


def main() -> None:
    """Run the command line and exit."""
    end_at_once()
    _open_standard_streams()
    plain = _plain_up(sys.argv[1:])
    if plain is None:
        from onvm_core.cli.app import main as run

        run()
    else:
        _end(_up(*plain))


def _open_standard_streams() -> None:
    """Let what a caller has closed (`>&-`) lead nowhere: else the next file that is opened, such as
    packet memory, gets its number, and what C prints.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _plain_up(arguments: Sequence[str]) -> tuple[str, str] | None:
    """File and name of an ``onvm up`` that becomes a manager and has no other options."""
    if not arguments or arguments[0] != "up":
        return None
    file, name = _DEFAULT_FILE, _DEFAULT_NAME
    rest = list(arguments[1:])
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option not in (*_FILE, "--name") or (equals and option == "-f"):
            return None
        if not equals:
            if not rest:
                return None
            value = rest.pop(0)
        if option in _FILE:
            file = value
        else:
            name = value
    return file, name


def _end(status: int) -> None:
    """End this process as the interpreter would, but without collecting all that a manager was: its
    successor, and ``onvm down``, wait for that.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter calls as well
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nothing reads it any more
            stream.flush()
    os._exit(status)


def _up(file: str, name: str) -> int:
    from pathlib import Path

    from onvm_core.manager.startup import early_start, times

    times.lap("begin")
    early_start.begin(Path(file))
    from onvm_core.cli.installed import plugins_of_process
    from onvm_core.cli.manager.serve import serve
    from onvm_core.cli.outcome import outcome_of, warn

    raise_interrupts()
    warn(plugins_of_process())
    return outcome_of(lambda: serve(Path(file), name))
