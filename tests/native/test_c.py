"""Build native/tests once per sanitizer and run each program.

ThreadSanitizer needs address-space randomisation as it was when it was written: on kernels with
more random bits its programs run under ``setarch -R``.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "native" / "tests"
NAMES = re.findall(r"'(\w+)': \d+", (SOURCES / "meson.build").read_text())
SANITIZERS = {"asan-ubsan": "address,undefined", "tsan": "thread"}
OPTIONS = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}
PER_LIBRARY = ("crypto", "agreement")
NAMES += [f"{subject}_{library}" for library in ("imb", "evp") for subject in PER_LIBRARY]
THREADED = [name for name in NAMES if "stress" in name or name == "ring"]
CASES = [(name, "asan-ubsan") for name in NAMES] + [(name, "tsan") for name in THREADED]


@pytest.fixture(scope="session")
def built() -> dict[str, Path]:
    """Build folder by sanitizer."""
    folders = {name: ROOT / "build" / "native-tests" / name for name in SANITIZERS}
    for name, folder in folders.items():
        if not (folder / "build.ninja").exists():
            _call("meson", "setup", f"-Db_sanitize={SANITIZERS[name]}", str(folder), str(SOURCES))
        wanted = [f"test_{one}" for one in THREADED] if name == "tsan" else []
        # Not meson: it looks for the targets before it has read a file that has changed.
        _call("ninja", "-C", str(folder), *wanted)
    return folders


def _call(*command: str) -> None:
    # meson and ninja are in the environment of this Python, which may not be active.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    command = (shutil.which(command[0], path=path) or command[0], *command[1:])
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "sanitizer"), CASES)
def test_c(name: str, sanitizer: str, built: dict[str, Path]) -> None:
    command = ["setarch", platform.machine(), "-R"] if sanitizer == "tsan" else []
    done = subprocess.run(
        [*command, str(built[sanitizer] / f"test_{name}")],
        capture_output=True,
        text=True,
        timeout=900,  # on CPU time that others leave
        check=False,
        env={**os.environ, **OPTIONS},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_c_test_is_run() -> None:
    # gen_fuzz wants captures: test_generator_faults.py runs it
    found = {path.stem.removeprefix("test_") for path in SOURCES.rglob("test_*.c")}
    assert {re.sub("_(imb|evp)$", "", name) for name in NAMES} == found - {"gen_fuzz"}
