"""Ctrl-C while the modules of a command load: one exit status, and no word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_FILE = """
[ports.near]
uri = "null:"
[ports.far]
uri = "null:"
[chains.main]
in = "near"
out = "far"
services = []
"""
_RUN = ("run", "--in", "null:?count=1000", "--out", "null:", "--chain", "")
_INTERRUPTED = """
import os, signal, sys
from onvm_core.cli.entry import main

def hook(event, arguments):
    if event == "import" and arguments[0] == module:
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.{handler})
module = sys.argv.pop(1)
sys.addaudithook(hook)
main()
"""


def _interrupt(
    folder: Path, module: str, *command: str, handler: str = "default_int_handler"
) -> subprocess.CompletedProcess[str]:
    """Run a command that gets Ctrl-C when it begins to import `module`."""
    (folder / "onvm.toml").write_text(_FILE)
    return subprocess.run(
        [sys.executable, "-P", "-c", _INTERRUPTED.format(handler=handler), module, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("onvm_core.cli.app", ("--help",)),
        ("typer", ("nf", "list")),
        ("rich.progress", _RUN),
        ("onvm_core.manager.ports", _RUN),
        ("onvm_core.manager.service.service", ("up", "--name", "interrupted")),
    ],
)
def test_ctrl_c_while_modules_load_ends_without_a_word(
    tmp_path: Path, module: str, command: tuple[str, ...]
) -> None:
    done = _interrupt(tmp_path, module, *command)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_command_that_ignores_ctrl_c_goes_on(tmp_path: Path) -> None:
    done = _interrupt(tmp_path, "typer", "nf", "list", "-o", "name", handler="SIG_IGN")
    assert (done.returncode, done.stderr) == (0, "")
