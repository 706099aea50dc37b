"""Test an NF package: its own tests and the checks that every plugin must pass."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from onvm_core.plugins.discovery import discover, find
from onvm_sdk.errors import PluginError

__all__ = ["run_tests"]

# Asks the SDK's generic checks of the NF named in ONVM_NF.
_GENERIC_CHECKS = "onvm_sdk.testing.checks"


def run_tests(name_or_path: str, pytest_options: Sequence[str] = ()) -> int:
    """Run pytest over the package's tests and the SDK's checks.

    Args:
        name_or_path: an installed NF, or the folder of a package that is installed.
        pytest_options: handed on to pytest.

    Returns:
        pytest's exit status.

    Raises:
        PluginError: no such NF or folder, or pytest is missing.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        names = _names_in(folder)
        own_tests = [folder / "tests"] if (folder / "tests").is_dir() else []
    else:
        names = [find(name_or_path).name]
        own_tests = []
    status = 0
    if own_tests:
        status = _pytest([*map(str, own_tests), *pytest_options])
    for name in names:
        checks = _pytest(["--pyargs", _GENERIC_CHECKS, f"--onvm-nf={name}", *pytest_options])
        status = status or checks
    return status


def _names_in(folder: Path) -> list[str]:
    """The installed NFs whose manifest is a copy of one in `folder`."""
    names = {path.parent.name for path in folder.glob("*/onvm-nf.toml")}
    found = [
        package.name
        for package in discover()
        if package.manifest_path is not None and package.manifest_path.parent.name in names
    ]
    if not found:
        raise PluginError(
            f"expected its NF to be installed; run: onvm nf install {folder}",
            field="nf test",
            value=str(folder),
        )
    return found


def _pytest(arguments: Sequence[str]) -> int:
    command = [sys.executable, "-P", "-m", "pytest", "--import-mode=importlib", *arguments]
    return subprocess.run(command, check=False).returncode
