"""A plain ``onvm up`` is recognised, and begins only what the file allows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onvm_core.cli import entry
from onvm_core.manager.startup import early_start


@pytest.mark.parametrize(
    ("arguments", "plain"),
    [
        ("up", ("onvm.toml", "main")),
        ("up -f x.toml --name b", ("x.toml", "b")),
        ("up --file=x.toml --name=b", ("x.toml", "b")),
        ("up --file x=y.toml", ("x=y.toml", "main")),
        ("up -f", None),
        ("up -f=x.toml", None),
        ("up -fx.toml", None),
        ("up x.toml", None),
        ("up --detach", None),
        ("up -f x.toml --check", None),
        ("up --help", None),
        ("--help up", None),
        ("status", None),
        ("", None),
    ],
)
def test_only_a_plain_command_goes_the_short_way(
    arguments: str, plain: tuple[str, str] | None
) -> None:
    assert entry._plain_up(arguments.split()) == plain


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("", True),
        ('[ports.a]\nuri = "null:"\n', True),
        ("[dataplane]\nbuffers = 4096\n", True),
        ('[ports.a]\nuri = "pci:0000:00:00.0"\n', False),
        ("[ports]\na = 1\n", False),
        ("[ports.a]\nuri = 1\n", False),
        ("[ports.a]\n", False),
        ("[dataplane]\nbuffers = 1\n", False),
        ("[dataplane]\ncpus = [4095]\n", False),
        ("[dataplane]\nring_length = 1000\n", False),
        ("dataplane = 1\n", False),
        ("[dataplane\n", False),
        ("\xff", False),
    ],
)
def test_data_plane_begins_early_only_if_its_part_of_the_file_is_right(
    tmp_path: Path, text: str, begins: bool
) -> None:
    file = tmp_path / "onvm.toml"
    file.write_bytes(text.encode("latin-1"))
    assert (early_start._plan(file) is not None) == begins
    assert early_start._plan(tmp_path / "none.toml") is None


ENDING = """
import atexit, sys, threading, time
from onvm_core.cli import entry

class Kept:
    def __del__(self):
        print("collected", flush=True)

kept = Kept()
atexit.register(print, "exit function")
threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()
entry._end(3)
"""


def test_manager_ends_with_all_that_it_has_said() -> None:
    command = [sys.executable, "-P", "-c", ENDING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "thread\nexit function\n", "")
