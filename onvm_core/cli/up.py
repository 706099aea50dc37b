"""``onvm up``."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from onvm_core.cli.connect import NameOption
from onvm_core.cli.report import print_report
from onvm_core.cli.run import port_kinds
from onvm_core.cli.signals import stop_on_signals
from onvm_core.launch.launcher import Launchers
from onvm_core.manager.client import Client, NoManagerError
from onvm_core.manager.config import load_config
from onvm_core.manager.directory import manager_directory
from onvm_core.manager.extensions import load_extensions
from onvm_core.manager.messages import StatusReply, StatusRequest
from onvm_core.manager.placer import policy_names
from onvm_core.manager.service import Service
from onvm_core.plugins import discover, load_plugins
from onvm_sdk.errors import OnvmError

__all__ = ["up"]

READY_TIMEOUT_S = 60.0
POLL_S = 0.02


def up(
    file: Annotated[
        Path, typer.Option("--file", "-f", metavar="FILE", help="What it is to run.")
    ] = Path("onvm.toml"),
    name: NameOption = "main",
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready; it stays.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check the file.")] = False,
) -> None:
    """Start a manager with the ports, NFs and chains of a file.

    It stays in the foreground until Ctrl-C, SIGTERM or `onvm down`, and prints what it has done.
    NFs that a killed manager has left are taken over with their state.
    """
    plugins = load_plugins()
    kinds = port_kinds(plugins)
    launchers = Launchers(plugins.offers("onvm_launchers"))
    config = load_config(file, kinds, discover(), launchers.names, policy_names())
    extensions = load_extensions(config, file, plugins)
    directory = manager_directory(name)
    if check:
        print(f"{file}: fine")
        return
    if detach:
        _detach(file, name, directory)
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    with (
        stop_on_signals() as received,
        Service(directory, config, file, kinds, extensions, launchers) as service,
    ):
        service.start()
        report = service.run(lambda: bool(received), lambda: _announce(name))
    print_report(report)


def _announce(name: str) -> None:
    option = "" if name == "main" else f" --name {name}"
    print(f"manager {name!r} is ready; see: onvm status{option}; end: onvm down{option}")
    sys.stdout.flush()


def _detach(file: Path, name: str, directory: Path) -> None:
    """Start the manager in a session of its own and wait until it is ready."""
    directory.mkdir(mode=0o700, exist_ok=True)
    logs = directory / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    log = logs / "manager.log"
    command = [sys.executable, "-P", "-m", "onvm_core.cli", "up"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--file", str(file.absolute()), "--name", name],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _is_ready(directory, process.pid):
        status = process.poll()
        if status is not None:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise OnvmError(f"{lines[-1].removeprefix('error: ')}")
        if time.monotonic() > deadline:
            raise OnvmError(f"not ready within {READY_TIMEOUT_S:g} s; see onvm status, {log}")
        time.sleep(POLL_S)
    _announce(name)


def _is_ready(directory: Path, pid: int) -> bool:
    try:
        with Client(directory) as client:
            if client.process.pid != pid:
                return False
            return client.ask(StatusRequest(), StatusReply).state == "ready"
    except NoManagerError:
        return False
