"""Launchers: they start NF hosts, and give a handle on each.

A launcher is offered through the hook `onvm_launchers` and made once for each manager
(`Launchers`), with the table ``[launchers.NAME]`` of ``onvm.toml`` if there is one, else without
arguments. An NF behaves the same under all launchers, because all start the same command
(`host_command`). The manager recognises an NF host by the secret it was launched with, not by a
PID: the process that a launcher starts need not be the one that attaches.

Threads: everything here belongs to the thread that runs the manager.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from onvm_core.launch.identity import ProcessId
from onvm_core.launch.limits import LimitMode, Limits, describe_unenforced
from onvm_core.plugins import Offer, load_plugins
from onvm_sdk.errors import ConfigError, PluginError
from onvm_sdk.spelling import one_of

__all__ = [
    "DEFAULT_LAUNCHER",
    "HOOK",
    "OUTPUT_FOLDER",
    "OUTPUT_VARIABLE",
    "SECRET_VARIABLE",
    "Handle",
    "LaunchSpec",
    "Launcher",
    "Launchers",
    "host_arguments",
    "host_command",
    "log_tail",
    "pinned",
    "refuse_options",
]

HOOK = "onvm_launchers"
"""The hook through which plugins offer launchers."""
DEFAULT_LAUNCHER = "process"
SECRET_VARIABLE = "ONVM_ATTACH_SECRET"
OUTPUT_VARIABLE = "ONVM_OUTPUT_FOLDER"
OUTPUT_FOLDER = "/output"
"""The output folder, as an NF host sees it that does not see the file system."""
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 16384


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """The specification with which an NF host is started.

    Attributes:
        nfs: NF names; several are fused in this order.
        instances: instance names, in the same order; empty: the manager chooses them.
        configs: configuration file by NF name.
        files: files that their configurations name.
        folders: folders of the NFs' own packages.
        attach_path: the manager's attach socket. Its folder contains nothing else, and stays when
            one manager follows another: a launcher that hides the file system shows the folder.
        secret: the secret with which it may attach as these services; its environment contains it
            in `SECRET_VARIABLE`.
        cpus: the CPUs it may run on; empty: any CPU.
        limits: limits to enforce, as far as the launcher can; None: none.
        log_path: file for its stdout and stderr.
        survives_manager: True if it waits for a new manager when this one is gone.
        output: a folder that its NFs may write files into; None: none.
        permissions: those of its NFs, together: they share a process. "network" and "files" are for
            launchers that isolate it; the manager takes care of the others.
    """

    nfs: tuple[str, ...]
    attach_path: Path
    secret: str
    log_path: Path
    instances: tuple[str, ...] = ()
    configs: dict[str, Path] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    cpus: tuple[int, ...] = ()
    limits: Limits | None = None
    survives_manager: bool = False
    output: Path | None = None
    permissions: frozenset[str] = frozenset()

    @property
    def has_network(self) -> bool:
        """True if an NF may use the network of this host."""
        return "network" in self.permissions

    @property
    def has_files(self) -> bool:
        """True if an NF may use the files of the manager's user."""
        return "files" in self.permissions

    @property
    def label(self) -> str:
        """A name for people that no other NF host of this user has had."""
        tail = hashlib.sha256(self.secret.encode()).hexdigest()[:8]
        return f"{'+'.join(self.instances or self.nfs)}-{tail}"


class Handle(Protocol):
    """An NF host that was started or taken over."""

    @property
    def spec(self) -> LaunchSpec:
        """The specification with which it was started."""

    @property
    def pid(self) -> int:
        """The process that runs the NFs, as this process sees it; 0 while that is not known."""

    def poll(self) -> int | None:
        """Its exit status, or None while it runs; negative: the signal that ended it.

        When it gives a status, no part of the NF host runs any more.
        """

    def stop(self) -> None:
        """Ask it to finish the packets it holds and leave. Does not wait."""

    def wait(self, timeout_s: float) -> int | None:
        """Wait for it to leave; None if it has not."""

    def kill(self) -> None:
        """End it, and every process it has started, at once."""

    def log_tail(self) -> list[str]:
        """The last lines it wrote."""


class Launcher(Protocol):
    """A way to start NF hosts."""

    def obstacle(self) -> str:
        """The reason why it cannot work on this host, in one line; "" if it can."""

    def unenforced(self, limits: Limits) -> Mapping[str, str]:
        """The limits, of those given, that it cannot enforce on this host, each with the reason."""

    def launch(self, spec: LaunchSpec) -> Handle:
        """Start an NF host; it attaches by itself. Does not wait for that.

        Raises:
            OSError: it cannot be started.
            OnvmError: something is missing that the user can provide.
        """

    def adopt(self, spec: LaunchSpec, process: ProcessId) -> Handle:
        """Take over the NF host that runs in `process` and was launched by an earlier manager."""

    def clean(self, spec: LaunchSpec) -> None:
        """Remove the remains of an NF host of an earlier manager that has ended."""


class Launchers:
    """Launchers by name; each is made, and asked for its obstacle, when it is first used.

    Args:
        offers: offers of the hook `onvm_launchers`; None: those of the installed plugins.
        limits: how strictly the limits of NF hosts are enforced.
        with_quota: True if the limits include a CPU quota.
        options: options of the launchers, by name.
    """

    def __init__(
        self,
        offers: Mapping[str, Offer] | None = None,
        *,
        limits: LimitMode = LimitMode.AVAILABLE,
        with_quota: bool = False,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._offers = load_plugins().offers(HOOK) if offers is None else offers
        self._made: dict[str, Launcher] = {}
        self.limits = limits
        self.with_quota = with_quota
        self._options = options or {}

    @property
    def names(self) -> list[str]:
        """Names of the launchers on offer."""
        return list(self._offers)

    def get(self, name: str, *, file: object = None, field: str = "launcher") -> Launcher:
        """The launcher of that name; `file` and `field` name the place that asks for it.

        Raises:
            ConfigError: no plugin offers it, it cannot work on this host, or it cannot enforce
                limits that are required.
        """
        if name in self._made:
            return self._made[name]
        place = None if file is None else str(file)
        if name not in self._offers:
            raise ConfigError(
                f"expected {one_of(self._offers, name)}", file=place, field=field, value=name
            )
        options = self._options.get(name)
        try:
            launcher: Launcher = self._offers[name].make(*(() if options is None else (options,)))
        except PluginError:
            raise
        except ConfigError as error:
            raise ConfigError(
                error.expected,
                file=place,
                field=f"launchers.{name}.{error.field}",
                value=error.value,
            ) from None
        obstacle = launcher.obstacle()
        if obstacle:
            raise ConfigError(
                f"expected a launcher that works here: {obstacle}",
                file=place,
                field=field,
                value=name,
            )
        if self.limits is LimitMode.REQUIRED and (lacking := self._unenforced(launcher)):
            raise ConfigError(
                f"expected one that can enforce limits here ({lacking})",
                file=place,
                field=field,
                value=name,
            )
        self._made[name] = launcher
        return launcher

    def unenforced(self, name: str) -> str:
        """The limits that a launcher cannot enforce here, and why, in one line; "" if none."""
        return "" if self.limits is LimitMode.OFF else self._unenforced(self.get(name))

    def _unenforced(self, launcher: Launcher) -> str:
        return describe_unenforced(launcher.unenforced(Limits.example(with_quota=self.with_quota)))

    @property
    def warnings(self) -> list[str]:
        """The limits that the launchers in use cannot enforce here, one line each."""
        lines = {name: self.unenforced(name) for name in self._made}
        return [f"limits of launcher {name!r}: {line}" for name, line in lines.items() if line]


def host_command(spec: LaunchSpec, *, attach_path: Path | None = None) -> list[str]:
    """The command of an NF host, with the interpreter that runs the manager.

    Args:
        attach_path: path at which the host sees the attach socket, if it differs.
    """
    start = [sys.executable, "-P", "-m", "onvm_sdk.runtime"]
    return [*start, *host_arguments(spec, attach_path=attach_path or spec.attach_path)]


def host_arguments(spec: LaunchSpec, *, attach_path: Path) -> list[str]:
    """The part of that command that follows the program."""
    command = ["--socket", str(attach_path), "--nf", ",".join(spec.nfs)]
    if spec.instances:
        command += ["--instance", ",".join(spec.instances)]
    for name, path in spec.configs.items():
        command += ["--config", f"{name}={path}"]
    if not spec.survives_manager:
        command.append("--leave-with-manager")
    return command


def refuse_options(options: Mapping[str, object], known: Collection[str] = ()) -> None:
    """Raise ConfigError for an option that is not known."""
    for name in options:
        if name not in known:
            what = one_of(known, name) if known else "no options"
            raise ConfigError(f"expected {what}", field=name)


@contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Let processes that this thread starts run on `cpus` only; restore the thread's CPUs after
    that.
    """
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
