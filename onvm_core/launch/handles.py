"""Handles on NF hosts: the parts that all launchers share.

The handle of a started NF host has a child process that lasts as long as the NF host: the NF host
itself, or a process around it.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence

from onvm_core.launch.cgroup import NO_CGROUP, Cgroup, Cgroups
from onvm_core.launch.identity import ProcessId
from onvm_core.launch.launcher import LaunchSpec, log_tail

__all__ = ["AdoptedHandle", "Fence", "StartedHandle"]

KILL_TIMEOUT_S = 2.0
SIGNALLED = 128
"""A program that runs another ends with this plus the number of the signal that ended the other."""


class Fence:
    """The cgroup around one NF host: it tells why the kernel ended the NF host, and is removed
    then.

    Args:
        spec: the specification with which the NF host was started.
        cgroups: the cgroups of the launcher; None: there is no cgroup around it.
        cgroup: the cgroup of the NF host.
    """

    def __init__(
        self, spec: LaunchSpec, cgroups: Cgroups | None = None, cgroup: Cgroup = NO_CGROUP
    ) -> None:
        self._spec = spec
        self._cgroups = cgroups
        self._cgroup = cgroup

    def note_shortage(self) -> None:
        """Record in the NF host's log, before it is ended, if a lack of memory slows it down."""
        if self._cgroup.is_short_of_memory():
            _say(self._spec, "slowed down: it reads its files again and again, for want of memory")

    def open(self) -> None:
        """End the processes left inside, and remove the cgroup; needed only once."""
        if self._cgroups is not None and self._cgroup.folders:
            if self._cgroup.memory_kills():
                _say(self._spec, "ended by the kernel: it reached its memory limit")
            self._cgroups.discard(self._cgroup)
            self._cgroup = NO_CGROUP


def _say(spec: LaunchSpec, what: str) -> None:
    """Record in the log of an NF host what its memory limit has done to it."""
    limit = f"; its limit is {spec.limits.memory_mib} MiB" if spec.limits is not None else ""
    with open(spec.log_path, "a", encoding="utf-8") as log:
        log.write(f"onvm: {what}{limit} (memory_mib in its manifest)\n")


class StartedHandle:
    """A started NF host.

    Args:
        process: child of this process; it ends when the NF host has ended.
        fence: the cgroup around it; None: there is none.
    """

    is_around = False
    """True if the child process runs the NF host as its own child."""

    def __init__(
        self, spec: LaunchSpec, process: subprocess.Popen[bytes], fence: Fence | None = None
    ) -> None:
        self.spec = spec
        self._process = process
        self._fence = fence or Fence(spec)
        self._is_over = False

    def poll(self) -> int | None:
        """Its exit status, or None while it runs; negative: the signal that ended it."""
        status = self._process.poll()
        if status is None:
            return None
        if self.is_around and status > SIGNALLED:
            status = SIGNALLED - status
        if not self._is_over:
            self._is_over = True
            self._clear_up(status)
        return status

    def wait(self, timeout_s: float) -> int | None:
        """Wait for it to leave; None if it has not."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return self.poll()

    def log_tail(self) -> list[str]:
        """The last lines it wrote."""
        return log_tail(self.spec.log_path)

    def _clear_up(self, status: int) -> None:
        """Called once, when the child process has ended."""
        del status
        self._fence.open()

    def _kill_process(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class AdoptedHandle:
    """An NF host that an earlier manager started: not a child, so its status stays unknown.

    Args:
        process: the process that runs the NFs.
        around: a process that ends with it, for example the first process of its PID namespace.
        fence: the cgroup around it; None: there is none.
    """

    def __init__(
        self,
        spec: LaunchSpec,
        process: ProcessId,
        around: Sequence[ProcessId] = (),
        fence: Fence | None = None,
    ) -> None:
        self.spec = spec
        self._process = process
        self._around = tuple(around)
        self._fence = fence or Fence(spec)

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def poll(self) -> int | None:
        """0 if it has ended (only its parent would know how), None while it runs."""
        if self._process.is_alive:
            return None
        self._end_around()
        self._fence.open()
        return 0

    def stop(self) -> None:
        """Ask it to finish the packets it holds and leave."""
        self._process.send(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for it to leave; None if it has not."""
        return self.poll() if self._process.wait(timeout_s) else None

    def kill(self) -> None:
        """End it at once."""
        self._fence.note_shortage()
        self._end_around()
        self._process.send(signal.SIGKILL)
        self._process.wait(KILL_TIMEOUT_S)
        self._fence.open()

    def log_tail(self) -> list[str]:
        """The last lines it wrote."""
        return log_tail(self.spec.log_path)

    def _end_around(self) -> None:
        for process in self._around:
            process.send(signal.SIGKILL)
