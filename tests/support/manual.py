"""Run what a page of the documentation tells its reader to do."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

__all__ = ["commands", "follow", "run"]

_STEP = re.compile(
    r"^`(?P<file>[\w./-]+)`:\n\n```(?:python|toml)\n(?P<text>.*?)^```"
    r"|^```console\n(?P<commands>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


def commands(text: str) -> list[list[str]]:
    """The commands of the blocks ``console``."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.M | re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line]


def environment(folder: Path) -> dict[str, str]:
    """That of a reader whose virtual environment is the one of this Python."""
    tools = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "ONVM_RUNTIME_DIR": str(folder / "r"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def run(command: list[str], folder: Path) -> str:
    """Run a command; what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def follow(page: str, folder: Path) -> dict[str, str]:
    """Write the files of a page and run its commands, in the order of the page.

    Returns:
        What each command printed.
    """
    printed: dict[str, str] = {}
    for step in _STEP.finditer(page):
        if step["file"]:
            (folder / step["file"]).write_text(step["text"], encoding="utf-8")
        else:
            for line in step["commands"].splitlines():
                printed[line] = run(shlex.split(line), folder)
    return printed
