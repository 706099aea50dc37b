"""``onvm up``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from onvm_core.cli.detached import last_line, start_detached
from onvm_core.cli.manager.serve import announce, notes, serve
from onvm_core.cli.manager.serve import check as check_file
from onvm_core.cli.options import DEFAULT_FILE, FileOption, NameOption
from onvm_core.manager.api.directory import manager_directory
from onvm_core.manager.config.rehearsal import rehearse
from onvm_core.manager.interfaces import check_ports
from onvm_sdk._hosting.output import LOG_FORMAT
from onvm_sdk.errors import OnvmError

if TYPE_CHECKING:
    from onvm_core.manager.api.messages import StatusReply

__all__ = ["up"]

READY_TIMEOUT_S = 30.0
"""Time in addition to the time that an NF has."""
POLL_S = 0.02


def up(
    file: FileOption = DEFAULT_FILE,
    name: NameOption = "main",
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when the manager is ready; it goes on.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Check the file and its interfaces, and start nothing.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(
            "--log-format",
            help="Form of the logs, also of NFs.",
            show_default="ONVM_LOG_FORMAT, else text",
        ),
    ] = None,
) -> None:
    """Start a manager with the ports, NFs and chains of a file.

    It stays in the foreground until Ctrl-C, SIGTERM or `onvm down`, and prints the last counters.
    NFs that a killed manager has left are taken over with their state.

    Examples:
        onvm up -f onvm.toml --check
        onvm up -f onvm.toml --detach
    """
    if not check and not detach:
        serve(file, name, log_format or "")
        return
    made = check_file(file)
    directory = manager_directory(name)
    if check:
        for note in notes(made):
            print(f"note: {note}", file=sys.stderr)
        warnings = [
            *check_ports(made.config.port_uris, made.kinds, made.config.port_pairs, file=str(file)),
            *rehearse(made),
        ]
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(f"{file}: fine")
    else:
        if log_format:
            os.environ[LOG_FORMAT] = log_format
        _detach(file, name, directory, READY_TIMEOUT_S + made.config.faults.ready_s)


def _detach(file: Path, name: str, directory: Path, timeout_s: float) -> None:
    """Start the manager in a new session and wait until it is ready."""
    directory.mkdir(mode=0o700, exist_ok=True)
    logs = directory / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    log = logs / "manager.log"
    process = start_detached(["up", "--file", str(file.absolute()), "--name", name], log)
    deadline = time.monotonic() + timeout_s
    while (ready := _ask(directory, process.pid)) is None or ready.state != "ready":
        failed = [nf.reason for nf in (ready.launched if ready else ()) if nf.reason]
        if failed:  # a manager that has taken over NFs stays for them
            raise OnvmError(f"{failed[0]}; the manager runs, see: onvm status")
        status = process.poll()
        if status is not None:
            raise OnvmError(last_line(log))
        if time.monotonic() > deadline:
            raise OnvmError(f"not ready within {timeout_s:g} s; see onvm status, {log}")
        time.sleep(POLL_S)
    for warning in ready.warnings:
        print(f"note: {warning}", file=sys.stderr)
    announce(name)


def _ask(directory: Path, pid: int) -> StatusReply | None:
    """The state that the manager reports, once it answers."""
    from onvm_core.manager.api.client import Client
    from onvm_core.manager.api.messages import StatusReply, StatusRequest

    try:
        with Client(directory) as client:
            if client.process.pid != pid:
                return None
            return client.ask(StatusRequest(), StatusReply)
    except OnvmError:  # not there yet, or no longer: its process tells which
        return None
