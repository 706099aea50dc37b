"""Launcher "process": an NF host as an ordinary child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["LaunchSpec", "ProcessHandle", "ProcessLauncher"]

LOG_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What an NF host is started with.

    Attributes:
        nfs: NF names; several are fused in this order.
        instances: instance names, in the same order; empty: the manager makes them.
        configs: configuration file by NF name.
        attach_path: the manager's attach socket.
        secret: what lets it attach as these services.
        cpu: the CPU it is pinned to; None leaves it free.
        log_path: file for its stdout and stderr.
        survives_manager: whether it waits for a new manager when this one is gone.
    """

    nfs: tuple[str, ...]
    attach_path: Path
    secret: str
    log_path: Path
    instances: tuple[str, ...] = ()
    configs: dict[str, Path] = field(default_factory=dict)
    cpu: int | None = None
    survives_manager: bool = False


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
        try:
            with open(self.spec.log_path, encoding="utf-8", errors="replace") as file:
                return [line.rstrip("\n") for line in deque(file, LOG_TAIL_LINES)]
        except OSError:
            return []


class ProcessLauncher:
    """Starts NF hosts with the interpreter that runs the manager."""

    def launch(self, spec: LaunchSpec) -> ProcessHandle:
        """Start an NF host; it attaches by itself."""
        command = [
            sys.executable, "-P", "-m", "onvm_sdk.runtime",
            "--socket", str(spec.attach_path), "--nf", ",".join(spec.nfs),
        ]  # fmt: skip
        if spec.instances:
            command += ["--instance", ",".join(spec.instances)]
        for name, path in spec.configs.items():
            command += ["--config", f"{name}={path}"]
        if spec.cpu is not None:
            command += ["--core", str(spec.cpu)]
        if not spec.survives_manager:
            command.append("--leave-with-manager")
        environment = {**os.environ, "ONVM_ATTACH_SECRET": spec.secret}
        with open(spec.log_path, "ab") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the manager; it stops its NFs in order.
                start_new_session=True,
            )
        return ProcessHandle(spec, process)
