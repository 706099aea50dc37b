"""Processes that continue when the command that started them has returned."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

__all__ = ["last_line", "start_detached", "wait_for_line"]


def start_detached(
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Run ``onvm`` with `arguments` in a new session.

    Args:
        log: file for its stdout and stderr; its old content is lost.
        environment: variables that it gets in addition to those of this process.
        descriptors: descriptors that it inherits, under the same numbers.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "onvm_core.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
            pass_fds=descriptors,
        )


def wait_for_line(pipe: BinaryIO, timeout_s: float) -> str:
    """The line that a process writes into `pipe`; "" if it ends without one.

    Raises:
        TimeoutError: it does neither in time.
    """
    readable, _, _ = select.select([pipe], [], [], timeout_s)
    if not readable:
        raise TimeoutError
    return pipe.readline().decode().strip()


def last_line(log: Path) -> str:
    """The last line of a log, without the word that marks errors of the command line."""
    nothing = "it wrote nothing"
    if shutil.disk_usage(log.parent).free == 0:
        nothing = f"expected room in {log.parent}: No space left on device"
    lines = log.read_text(errors="replace").strip().splitlines() or [nothing]
    return lines[-1].removeprefix("error: ")
