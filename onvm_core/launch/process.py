"""Launcher "process": an NF host as an ordinary child process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

from onvm_core.launch.identity import ProcessId
from onvm_core.launch.launcher import (
    SECRET_VARIABLE,
    LaunchSpec,
    host_command,
    log_tail,
    pinned,
)

__all__ = ["AdoptedHandle", "ProcessHandle", "ProcessLauncher"]

KILL_TIMEOUT_S = 2.0


class ProcessHandle:
    """A started NF host."""

    def __init__(self, spec: LaunchSpec, process: subprocess.Popen[bytes]) -> None:
        self.spec = spec
        self._process = process

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status, or None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to finish what it holds and leave."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for it to leave; None when it has not."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it at once."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log_tail(self) -> list[str]:
        """The last lines it wrote."""
        return log_tail(self.spec.log_path)


class AdoptedHandle:
    """An NF host that an earlier manager started: not a child, so its status stays unknown.

    Args:
        process: what runs the NFs.
        around: what ends with it, for instance the first process of its PID namespace.
    """

    def __init__(
        self, spec: LaunchSpec, process: ProcessId, around: Sequence[ProcessId] = ()
    ) -> None:
        self.spec = spec
        self._process = process
        self._around = tuple(around)

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def poll(self) -> int | None:
        """0 when it has ended (how, its parent would know), None while it runs."""
        if self._process.is_alive:
            return None
        self._end_around()
        return 0

    def stop(self) -> None:
        """Ask it to finish what it holds and leave."""
        self._process.send(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for it to leave; None when it has not."""
        return self.poll() if self._process.wait(timeout_s) else None

    def kill(self) -> None:
        """End it at once."""
        self._end_around()
        self._process.send(signal.SIGKILL)
        self._process.wait(KILL_TIMEOUT_S)

    def log_tail(self) -> list[str]:
        """The last lines it wrote."""
        return log_tail(self.spec.log_path)

    def _end_around(self) -> None:
        for process in self._around:
            process.send(signal.SIGKILL)


class ProcessLauncher:
    """Starts NF hosts with the interpreter, the user and the rights of the manager."""

    def obstacle(self) -> str:
        """Nothing ever keeps it from working."""
        return ""

    def launch(self, spec: LaunchSpec) -> ProcessHandle:
        """Start an NF host; it attaches by itself."""
        with open(spec.log_path, "ab") as log, pinned(spec.cpus):
            process = subprocess.Popen(
                host_command(spec),
                env={**os.environ, SECRET_VARIABLE: spec.secret},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the manager; it stops its NFs in order.
                start_new_session=True,
            )
        return ProcessHandle(spec, process)

    def adopt(self, spec: LaunchSpec, process: ProcessId) -> AdoptedHandle:
        """Take over an NF host of an earlier manager."""
        return AdoptedHandle(spec, process)
