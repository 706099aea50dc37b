"""The identity of a process: a PID together with the time at which the process began."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ProcessId",
    "children",
    "find_by_environment",
    "is_in_other_namespace",
    "namespace_init",
]

WAIT_STEP_S = 0.01


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process; `start_time` in clock ticks since boot tells it from a later one with its PID."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has `pid` now; None if there is none, or only its zombie."""
        if pid <= 0:
            return None
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def is_alive(self) -> bool:
        """True if it still runs."""
        return ProcessId.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.is_alive:  # the descriptor holds the process: its PID cannot be reused now
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            pass  # it has just ended
        finally:
            os.close(descriptor)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is gone; return True if it is."""
        deadline = time.monotonic() + timeout_s
        while self.is_alive:
            if time.monotonic() >= deadline:
                return False
            time.sleep(WAIT_STEP_S)
        return True


def find_by_environment(name: str, value: str) -> list[ProcessId]:
    """Processes of this user that were started with the environment variable `name`=`value`.

    The oldest comes first: processes that it has started have inherited the variable.
    """
    wanted = f"{name}={value}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone, or another user's
        process = ProcessId.of(int(folder.name)) if wanted in variables else None
        if process is not None:
            found.append(process)
    return sorted(found, key=lambda process: (process.start_time, process.pid))


def namespace_init(process: ProcessId) -> ProcessId | None:
    """The first process of the PID namespace in which `process` is; None if that is ours.

    When it ends, the kernel ends everything in the namespace.
    """
    pid = process.pid
    while pid > 1:
        numbers = _status(pid, "NSpid:")
        if len(numbers) < 2:  # outside: one number only
            return None
        if numbers[-1] == "1":
            return ProcessId.of(pid)
        pid = int((_status(pid, "PPid:") or ["0"])[0])
    return None


def is_in_other_namespace(pid: int) -> bool:
    """True if a process is in a PID namespace below ours."""
    return len(_status(pid, "NSpid:")) > 1


def children(pid: int) -> list[ProcessId]:
    """The child processes of `pid`, the oldest first."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and _status(int(folder.name), "PPid:") == [str(pid)]:
            process = ProcessId.of(int(folder.name))
            if process is not None:
                found.append(process)
    return sorted(found, key=lambda process: (process.start_time, process.pid))


def _status(pid: int, field: str) -> list[str]:
    """The values of a line of /proc/PID/status; none if the process is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            return next((line.split()[1:] for line in file if line.startswith(field)), [])
    except OSError:
        return []
