"""Launcher "process": an NF host as an ordinary child process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property

from onvm_core.launch.cgroup import NO_CGROUP, Cgroup, Cgroups
from onvm_core.launch.identity import ProcessId, find_by_environment
from onvm_core.launch.launcher import (
    SECRET_VARIABLE,
    LaunchSpec,
    host_command,
    log_tail,
    pinned,
    refuse_options,
)
from onvm_core.launch.limits import Limits

__all__ = [
    "AdoptedHandle",
    "Fence",
    "ProcessHandle",
    "ProcessLauncher",
    "end_left_behind",
    "fenced",
]

KILL_TIMEOUT_S = 2.0


class Fence:
    """The cgroup around one NF host: says why the kernel ended it, and goes when it has ended.

    Args:
        cgroups: those of the launcher.
        cgroup: that of the NF host.
        spec: what the NF host was started with.
    """

    def __init__(self, cgroups: Cgroups, cgroup: Cgroup, spec: LaunchSpec) -> None:
        self._cgroups = cgroups
        self._cgroup = cgroup
        self._spec = spec

    def note_shortage(self) -> None:
        """Say in the NF host's log, before it is ended, if want of memory holds it up."""
        if self._cgroup.is_short_of_memory():
            _say(self._spec, "slowed down: it reads its files again and again, for want of memory")

    def open(self) -> None:
        """End what is left inside, and remove the cgroup; once is enough."""
        if self._cgroup.folders:
            if self._cgroup.memory_kills():
                _say(self._spec, "ended by the kernel: it reached its memory limit")
            self._cgroups.discard(self._cgroup)
            self._cgroup = NO_CGROUP


def _say(spec: LaunchSpec, what: str) -> None:
    """Write into the log of an NF host what its memory limit has done to it."""
    limit = f"; its limit is {spec.limits.memory_mib} MiB" if spec.limits is not None else ""
    with open(spec.log_path, "a", encoding="utf-8") as log:
        log.write(f"onvm: {what}{limit} (memory_mib in its manifest)\n")


class ProcessHandle:
    """A started NF host."""

    def __init__(self, spec: LaunchSpec, process: subprocess.Popen[bytes], fence: Fence) -> None:
        self.spec = spec
        self._process = process
        self._fence = fence

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status, or None while it runs; negative: the signal that ended it."""
        status = self._process.poll()
        if status is not None:
            self._fence.open()
        return status

    def stop(self) -> None:
        """Ask it to finish what it holds and leave."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for it to leave; None when it has not."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return self.poll()

    def kill(self) -> None:
        """End it, and, where it has a cgroup, all that it has started, at once."""
        if self._process.poll() is None:
            self._fence.note_shortage()
            self._process.kill()
            self._process.wait()
        self._fence.open()

    def log_tail(self) -> list[str]:
        """The last lines it wrote."""
        return log_tail(self.spec.log_path)


class AdoptedHandle:
    """An NF host that an earlier manager started: not a child, so its status stays unknown.

    Args:
        process: what runs the NFs.
        around: what ends with it, for instance the first process of its PID namespace.
        fence: its cgroup; None: it has none.
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
        self._fence = fence

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def poll(self) -> int | None:
        """0 when it has ended (how, its parent would know), None while it runs."""
        if self._process.is_alive:
            return None
        self._end_around()
        self._open_fence()
        return 0

    def stop(self) -> None:
        """Ask it to finish what it holds and leave."""
        self._process.send(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for it to leave; None when it has not."""
        return self.poll() if self._process.wait(timeout_s) else None

    def kill(self) -> None:
        """End it at once."""
        if self._fence is not None:
            self._fence.note_shortage()
        self._end_around()
        self._process.send(signal.SIGKILL)
        self._process.wait(KILL_TIMEOUT_S)
        self._open_fence()

    def log_tail(self) -> list[str]:
        """The last lines it wrote."""
        return log_tail(self.spec.log_path)

    def _end_around(self) -> None:
        for process in self._around:
            process.send(signal.SIGKILL)

    def _open_fence(self) -> None:
        if self._fence is not None:
            self._fence.open()


class ProcessLauncher:
    """Starts NF hosts with the interpreter, the user and the rights of the manager."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        refuse_options(options or {})

    def obstacle(self) -> str:
        """Nothing ever keeps it from working."""
        return ""

    @cached_property
    def cgroups(self) -> Cgroups:
        """Those of its NF hosts."""
        return Cgroups()

    def unenforced(self, limits: Limits) -> Mapping[str, str]:
        """Limits that cgroups do not enforce here."""
        return self.cgroups.unenforced(limits)

    def launch(self, spec: LaunchSpec) -> ProcessHandle:
        """Start an NF host; it attaches by itself."""
        cgroup = fenced(self.cgroups, spec)
        try:
            with open(spec.log_path, "ab") as log, pinned(spec.cpus):
                process = subprocess.Popen(
                    cgroup.command(host_command(spec)),
                    env={**os.environ, SECRET_VARIABLE: spec.secret},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C is for the manager; it stops its NFs in order.
                    start_new_session=True,
                )
        except BaseException:
            self.cgroups.discard(cgroup)
            raise
        return ProcessHandle(spec, process, Fence(self.cgroups, cgroup, spec))

    def adopt(self, spec: LaunchSpec, process: ProcessId) -> AdoptedHandle:
        """Take over an NF host of an earlier manager."""
        fence = Fence(self.cgroups, self.cgroups.find(process.pid), spec)
        return AdoptedHandle(spec, process, (), fence)

    def clean(self, spec: LaunchSpec) -> None:
        """End what an NF host had started, and remove its cgroup."""
        end_left_behind(spec)
        self.cgroups.sweep()


def end_left_behind(spec: LaunchSpec) -> None:
    """End what an NF host had started that has itself ended."""
    for process in find_by_environment(SECRET_VARIABLE, spec.secret):
        process.send(signal.SIGKILL)


def fenced(cgroups: Cgroups, spec: LaunchSpec) -> Cgroup:
    """A cgroup for an NF host with the limits that it is to have."""
    return NO_CGROUP if spec.limits is None else cgroups.make(spec.label, spec.limits)
