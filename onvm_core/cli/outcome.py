"""Exit statuses and last lines, for all entry points of the command line.

0 done, 1 failed, as each command defines it, 2 a user's mistake (one line on stderr), 130
interrupted. A bug shows its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from onvm_core.cli.signals import INTERRUPTED
from onvm_core.plugins import PluginManager
from onvm_sdk.errors import OnvmError

__all__ = ["outcome_of", "refuse", "warn"]

_USER_MISTAKE = 2
_NO_ROOM = {errno.EDQUOT, errno.EFBIG, errno.ENOSPC}
_REFUSALS_OF_PATHS = {
    errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM,
    errno.EROFS, *_NO_ROOM,
}  # fmt: skip
"""Errors of the system for a path that a user has named. A missing one can be a bug."""


def outcome_of(command: Callable[[], object]) -> int:
    """The exit status of `command`: its result, if that is a number."""
    try:
        status = command()
    except SystemExit as exit_:
        return _flush(_status(exit_))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _close_pipe()
    except OnvmError as error:
        return refuse(str(error))
    except OSError as error:
        return _refuse_by_system(error)
    return _flush(status if isinstance(status, int) else 0)


def refuse(message: str) -> int:
    """Print the user's mistake in one line; return the exit status for it."""
    if message:  # typer has none if it has just printed its help
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return _USER_MISTAKE


def _refuse_by_system(error: OSError) -> int:
    if error.errno not in _REFUSALS_OF_PATHS:
        raise error
    if isinstance(error.filename, (str, bytes)):
        return refuse(f"{os.fsdecode(error.filename)!r}: expected a usable path: {error.strerror}")
    if error.errno not in _NO_ROOM:
        raise error
    _leave_stdout()
    return refuse(f"expected room for what is written: {error.strerror}")


def warn(plugins: PluginManager) -> None:
    """Print the faults of installed plugins."""
    for problem in plugins.problems:
        print(f"warning: {problem}", file=sys.stderr)


def _status(exit_: SystemExit) -> int:
    if exit_.code is None or isinstance(exit_.code, int):
        return exit_.code or 0
    print(exit_.code, file=sys.stderr)
    return 1


def _flush(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _close_pipe()
    except OSError as error:
        return _refuse_by_system(error)
    return status


def _close_pipe() -> int:
    """The reader is gone, as in ``onvm nf list | head``: end without a message."""
    _leave_stdout()
    return 0


def _leave_stdout() -> None:
    """Let what is still in its buffer go nowhere when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
