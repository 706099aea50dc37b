"""Launcher "process": an NF host as an ordinary child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from onvm_core.launch.identity import ProcessId

__all__ = ["SECRET_VARIABLE", "AdoptedHandle", "LaunchSpec", "ProcessHandle", "ProcessLauncher"]

SECRET_VARIABLE = "ONVM_ATTACH_SECRET"
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 16384
KILL_TIMEOUT_S = 2.0


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
        return _log_tail(self.spec.log_path)


class AdoptedHandle:
    """An NF host that an earlier manager started: not a child, so its status stays unknown."""

    def __init__(self, spec: LaunchSpec, process: ProcessId) -> None:
        self.spec = spec
        self._process = process

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def poll(self) -> int | None:
        """0 when it has ended (how, its parent would know), None while it runs."""
        return None if self._process.is_alive else 0

    def stop(self) -> None:
        """Ask it to finish what it holds and leave."""
        self._process.send(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for it to leave; None when it has not."""
        return 0 if self._process.wait(timeout_s) else None

    def kill(self) -> None:
        """End it at once."""
        self._process.send(signal.SIGKILL)
        self._process.wait(KILL_TIMEOUT_S)

    def log_tail(self) -> list[str]:
        """The last lines it wrote."""
        return _log_tail(self.spec.log_path)


def _log_tail(path: Path) -> list[str]:
    """The last lines of a file that may be large."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - LOG_TAIL_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text.splitlines()[-LOG_TAIL_LINES:]


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
        environment = {**os.environ, SECRET_VARIABLE: spec.secret}
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
