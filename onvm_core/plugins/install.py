"""Install and remove NF packages with pip, in the environment that runs onvm."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from onvm_core.plugins.discovery import NfPackage, NfStatus, discover
from onvm_sdk.errors import PluginError

__all__ = ["install", "uninstall"]


def install(requirements: Sequence[str], pip_options: Sequence[str] = ()) -> list[NfPackage]:
    """Install packages and look at the NFs they bring.

    Args:
        requirements: arguments of ``pip install``: names, folders, wheels.
        pip_options: handed on to pip.

    Returns:
        The NFs of the requested packages; not those of their dependencies.

    Raises:
        PluginError: pip failed, or a requested package has no usable NF. It stays installed, so
            that `onvm nf info` can show its fault.
    """
    requested = _pip_install(requirements, pip_options)
    importlib.invalidate_caches()
    brought = [package for package in discover() if _normal(package.distribution) in requested]
    for package in brought:
        if package.status is not NfStatus.OK:
            raise PluginError(
                f"expected an NF that can run; {package.status.value}: {package.reason}",
                field=package.name,
            )
    without = requested - {_normal(package.distribution) for package in brought}
    if without:
        raise PluginError(
            "expected a package with an entry point in group 'onvm.nf'",
            field="nf install",
            value=", ".join(sorted(without)),
        )
    return brought


def uninstall(name: str) -> list[str]:
    """Remove the package of an NF.

    Returns:
        The removed distributions: several if they were in conflict over `name`.

    Raises:
        PluginError: no such NF, or pip failed.
    """
    owners = sorted({package.distribution for package in discover() if package.name == name})
    if not owners:
        raise PluginError("expected the name of an installed NF", field="nf uninstall", value=name)
    _run_pip("uninstall", "--yes", *owners)
    return owners


def _pip_install(requirements: Sequence[str], pip_options: Sequence[str]) -> set[str]:
    """Run pip; return the normalised names of the requested packages."""
    with tempfile.TemporaryDirectory(prefix="onvm-install-") as folder:
        report = Path(folder) / "report.json"
        # pip reports nothing about installed packages, so their names are asked for first.
        plan = ("--dry-run", "--ignore-installed", "--no-deps", "--report", str(report))
        _run_pip("install", "--quiet", *plan, *pip_options, *requirements)
        items = json.loads(report.read_text())["install"]
    _run_pip("install", "--quiet", *pip_options, *requirements)
    return {_normal(item["metadata"]["name"]) for item in items if item["requested"]}


def _run_pip(*arguments: str) -> None:
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", *arguments]
    # Without build isolation, meson and ninja come from this environment, even if it has not
    # been activated.
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": tools},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = "; ".join(lines) or done.stderr.strip()[-500:]
        raise PluginError(f"expected pip {arguments[0]} to succeed: {reason}")


def _normal(distribution: str) -> str:
    return distribution.lower().replace("_", "-").replace(".", "-")
