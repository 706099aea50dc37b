"""Test an NF package: its own tests and the checks that every plugin must pass."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from onvm_core.plugins.discovery import NfPackage, discover, find
from onvm_sdk.errors import PluginError

__all__ = ["run_tests"]

# Asks the SDK's generic checks of the NF named in ONVM_NF.
_GENERIC_CHECKS = "onvm_sdk.testing.checks"


def run_tests(name_or_path: str, pytest_options: Sequence[str] = ()) -> int:
    """Run pytest over the package's tests and the SDK's checks.

    The tests of an installed NF are those of the folder that it was installed from, or those in its
    package. A wheel mostly has none.

    Args:
        name_or_path: an installed NF, or the folder of a package that is installed.
        pytest_options: handed on to pytest.

    Returns:
        pytest's exit status.

    Raises:
        PluginError: no such NF or folder, or pytest is missing.
    """
    if importlib.util.find_spec("pytest") is None:
        raise PluginError(
            "expected the extra 'author'; run: pip install 'onvm[author]'", field="nf test"
        )
    folder = Path(name_or_path)
    if folder.is_dir():
        names = _names_in(folder)
        own_tests = [folder / "tests"] if (folder / "tests").is_dir() else []
    else:
        package = find(name_or_path)
        names = [package.name]
        own_tests = _tests_of(package)
    status = 0
    if own_tests:
        status = _pytest([*map(str, own_tests), *pytest_options])
    for name in names:
        checks = _pytest(["--pyargs", _GENERIC_CHECKS, f"--onvm-nf={name}", *pytest_options])
        status = status or checks
    return status


def _tests_of(package: NfPackage) -> list[Path]:
    """The folder with the tests of an installed NF; none if it came as a wheel without them."""
    folders = [] if package.manifest_path is None else [package.manifest_path.parent / "tests"]
    try:
        origin = metadata.distribution(package.distribution).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        origin = None
    url = str(json.loads(origin).get("url", "")) if origin else ""
    if url.startswith("file://"):
        folders.append(Path(unquote(urlsplit(url).path)) / "tests")
    return [folder for folder in folders if folder.is_dir()][:1]


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
