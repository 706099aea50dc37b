"""Launcher "process": an NF host as an ordinary child process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from functools import cached_property

from onvm_core.launch.cgroup import NO_CGROUP, Cgroup, Cgroups
from onvm_core.launch.handles import AdoptedHandle, Fence, StartedHandle
from onvm_core.launch.identity import ProcessId, find_by_environment
from onvm_core.launch.launcher import (
    OUTPUT_VARIABLE,
    SECRET_VARIABLE,
    LaunchSpec,
    host_command,
    pinned,
    refuse_options,
)
from onvm_core.launch.limits import Limits

__all__ = ["ProcessHandle", "ProcessLauncher", "end_left_behind", "fenced"]


class ProcessHandle(StartedHandle):
    """A started NF host that is itself the child process."""

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to finish the packets it holds and leave."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and, if it has a cgroup, every process it has started, at once."""
        if self._process.poll() is None:
            self._fence.note_shortage()
            self._kill_process()
        self._fence.open()


class ProcessLauncher:
    """Starts NF hosts with the interpreter, the user and the rights of the manager."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        refuse_options(options or {})

    def obstacle(self) -> str:
        """No obstacle: it works on every host."""
        return ""

    @cached_property
    def cgroups(self) -> Cgroups:
        """The cgroups of its NF hosts."""
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
                    env={
                        **os.environ,
                        SECRET_VARIABLE: spec.secret,
                        OUTPUT_VARIABLE: str(spec.output or ""),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C is for the manager; it stops its NFs in order.
                    start_new_session=True,
                )
        except BaseException:
            self.cgroups.discard(cgroup)
            raise
        return ProcessHandle(spec, process, Fence(spec, self.cgroups, cgroup))

    def adopt(self, spec: LaunchSpec, process: ProcessId) -> AdoptedHandle:
        """Take over an NF host of an earlier manager."""
        fence = Fence(spec, self.cgroups, self.cgroups.find(process.pid))
        return AdoptedHandle(spec, process, (), fence)

    def clean(self, spec: LaunchSpec) -> None:
        """End the processes that an NF host had started, and remove its cgroup."""
        end_left_behind(spec)
        self.cgroups.sweep()


def end_left_behind(spec: LaunchSpec) -> None:
    """End the processes of an NF host that has itself ended."""
    for process in find_by_environment(SECRET_VARIABLE, spec.secret):
        process.send(signal.SIGKILL)


def fenced(cgroups: Cgroups, spec: LaunchSpec) -> Cgroup:
    """Make a cgroup for an NF host with its limits."""
    return NO_CGROUP if spec.limits is None else cgroups.make(spec.label, spec.limits)
