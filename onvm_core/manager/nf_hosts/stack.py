"""The place at which an NF host hangs: the author's line, from the stack that it writes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from onvm_core.launch.launcher import log_tail
from onvm_sdk._hosting.output import STACK_SIGNAL

__all__ = ["innermost", "place_of_hang"]

WRITTEN_S = 0.1
"""The longest wait for the stack: an NF host that computes writes it within microseconds."""
POLL_S = 0.002
_FRAME = re.compile(r'\s+File "([^"]+)", line (\d+) in (\S+)')
_OURS = "/onvm_sdk/"


def place_of_hang(pid: int, log: Path) -> str:
    """``" in FUNCTION (FILE:LINE)"`` of the NF's code; "" if its process does not tell.

    Args:
        pid: the process that runs the NFs.
        log: its log, to which it writes its stack.
    """
    before = log.stat().st_size if log.exists() else 0
    try:
        os.kill(pid, STACK_SIGNAL)
    except OSError:
        return ""
    deadline = time.monotonic() + WRITTEN_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        if log.exists() and log.stat().st_size > before and (place := innermost(log_tail(log))):
            return place
    return ""


def innermost(lines: Sequence[str]) -> str:
    """The innermost frame that is not ours, of the last stack in these lines."""
    frames: list[str] = []
    for line in lines:
        if "most recent call first" in line:
            frames.clear()
        found = _FRAME.fullmatch(line)
        if found and _OURS not in found[1] and not found[1].startswith("<"):
            frames.append(f" in {found[3]} ({found[1]}:{found[2]})")
    return frames[0] if frames else ""
