"""The time that the threads of an NF host run and wait for a CPU, as the kernel has it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ThreadTimes", "read_thread_times"]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ThreadTimes:
    """A thread at one moment.

    Attributes:
        state: the letter in /proc/PID/stat; R: it runs or could run.
        ran_s: CPU time that it has used.
        waited_s: time for which it could have run, but others had the CPU. The kernel adds to it
            when the thread gets its CPU.
    """

    state: str
    ran_s: float
    waited_s: float


def read_thread_times(pid: int) -> dict[int, ThreadTimes]:
    """The times of the threads of a process, by thread ID; none if it is gone.

    The thread that has the ID of the process is the one that runs the NFs.
    """
    found = {}
    with contextlib.suppress(OSError):
        for folder in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                found[int(folder.name)] = _read(folder)
    return found


def _read(folder: Path) -> ThreadTimes:
    fields = (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
    state, *numbers = fields.split()
    try:
        ran_ns, waited_ns, _ = map(int, (folder / "schedstat").read_text().split())
    except OSError:  # a kernel without CONFIG_SCHED_INFO
        return ThreadTimes(state, (int(numbers[10]) + int(numbers[11])) * _TICK_S, 0.0)
    return ThreadTimes(state, ran_ns / 1e9, waited_ns / 1e9)
