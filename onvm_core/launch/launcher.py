"""What a launcher is: it starts NF hosts, and gives a handle on each.

A launcher is offered through the hook `onvm_launchers` and made without arguments, once for each
manager (`Launchers`). The same NF behaves the same under all of them, because all start the same
command (`host_command`) and what tells the manager which NF host attaches is the secret it was
launched with, not a PID: the process that a launcher starts need not be the one that attaches.

Threads: everything here belongs to the thread that runs the manager.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from onvm_core.launch.identity import ProcessId
from onvm_core.plugins import Offer, load_plugins
from onvm_sdk.errors import ConfigError

__all__ = [
    "DEFAULT_LAUNCHER",
    "SECRET_VARIABLE",
    "Handle",
    "LaunchSpec",
    "Launcher",
    "Launchers",
    "host_command",
    "log_tail",
    "pinned",
]

HOOK = "onvm_launchers"
DEFAULT_LAUNCHER = "process"
SECRET_VARIABLE = "ONVM_ATTACH_SECRET"
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 16384


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What an NF host is started with.

    Attributes:
        nfs: NF names; several are fused in this order.
        instances: instance names, in the same order; empty: the manager makes them.
        configs: configuration file by NF name.
        files: what else the NFs read: files that their configurations name, folders of NFs.
        attach_path: the manager's attach socket. Its folder holds nothing else, and stays when
            a manager comes after another: a launcher that hides the file system shows the folder.
        secret: what lets it attach as these services; its environment has it in `SECRET_VARIABLE`.
        cpus: the CPUs it may run on; empty leaves it free.
        log_path: file for its stdout and stderr.
        survives_manager: whether it waits for a new manager when this one is gone.
    """

    nfs: tuple[str, ...]
    attach_path: Path
    secret: str
    log_path: Path
    instances: tuple[str, ...] = ()
    configs: dict[str, Path] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    cpus: tuple[int, ...] = ()
    survives_manager: bool = False


class Handle(Protocol):
    """An NF host that was started or taken over."""

    @property
    def spec(self) -> LaunchSpec:
        """What it was started with."""

    @property
    def pid(self) -> int:
        """The process that runs the NFs, as this process sees it; 0 while that is not known."""

    def poll(self) -> int | None:
        """Its exit status, or None while it runs; negative: the signal that ended it.

        When it gives a status, nothing of the NF host runs any more.
        """

    def stop(self) -> None:
        """Ask it to finish what it holds and leave. Does not wait."""

    def wait(self, timeout_s: float) -> int | None:
        """Wait for it to leave; None when it has not."""

    def kill(self) -> None:
        """End it, and all that it has started, at once."""

    def log_tail(self) -> list[str]:
        """The last lines it wrote."""


class Launcher(Protocol):
    """A way to start NF hosts."""

    def obstacle(self) -> str:
        """Why it cannot work on this host, in one line; "" when it can."""

    def launch(self, spec: LaunchSpec) -> Handle:
        """Start an NF host; it attaches by itself. Does not wait for that.

        Raises:
            OSError: it cannot be started.
        """

    def adopt(self, spec: LaunchSpec, process: ProcessId) -> Handle:
        """Take over the NF host that runs in `process` and was launched by an earlier manager."""


class Launchers:
    """Launchers by name; each is made, and asked for its obstacle, when it is first wanted.

    Args:
        offers: of the hook `onvm_launchers`; None: those of the installed plugins.
    """

    def __init__(self, offers: Mapping[str, Offer] | None = None) -> None:
        self._offers = load_plugins().offers(HOOK) if offers is None else offers
        self._made: dict[str, Launcher] = {}

    @property
    def names(self) -> list[str]:
        """What is offered."""
        return list(self._offers)

    def get(self, name: str, *, file: object = None, field: str = "launcher") -> Launcher:
        """The launcher of that name; `file` and `field` say who wants it.

        Raises:
            ConfigError: nobody offers it, or it cannot work on this host.
        """
        if name in self._made:
            return self._made[name]
        place = None if file is None else str(file)
        if name not in self._offers:
            raise ConfigError(
                f"expected one of {', '.join(self._offers)}", file=place, field=field, value=name
            )
        launcher: Launcher = self._offers[name].load()()
        obstacle = launcher.obstacle()
        if obstacle:
            raise ConfigError(obstacle, file=place, field=field, value=name)
        self._made[name] = launcher
        return launcher


def host_command(spec: LaunchSpec, *, attach_path: Path | None = None) -> list[str]:
    """The command of an NF host, with the interpreter that runs the manager.

    Args:
        attach_path: where the host sees the attach socket, when that is another place.
    """
    command = [
        sys.executable, "-P", "-m", "onvm_sdk.runtime",
        "--socket", str(attach_path or spec.attach_path), "--nf", ",".join(spec.nfs),
    ]  # fmt: skip
    if spec.instances:
        command += ["--instance", ",".join(spec.instances)]
    for name, path in spec.configs.items():
        command += ["--config", f"{name}={path}"]
    if not spec.survives_manager:
        command.append("--leave-with-manager")
    return command


@contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Let what this thread starts run on `cpus` only; the thread itself has its own back after."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        if cpus:
            os.sched_setaffinity(0, before)


def log_tail(path: Path) -> list[str]:
    """The last lines of a file that may be large."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - LOG_TAIL_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text.splitlines()[-LOG_TAIL_LINES:]
