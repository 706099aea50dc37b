"""Install and remove NF packages with pip, in the environment that runs onvm."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement

from onvm_core.plugins.candidate import (
    candidates_of_folder,
    candidates_of_wheel,
    project_name,
    refuse_taken,
)
from onvm_core.plugins.discovery import NfPackage, NfStatus, discover
from onvm_sdk.errors import PluginError
from onvm_sdk.spelling import did_you_mean

if TYPE_CHECKING:
    from onvm_sdk.manifest import Manifest

__all__ = ["Installed", "install", "uninstall", "upgrade"]


@dataclass(frozen=True, slots=True)
class Installed:
    """An NF that `install` has installed, and its manifest before, if it was there."""

    package: NfPackage
    before: Manifest | None


def install(
    requirements: Sequence[str],
    pip_options: Sequence[str] = (),
    *,
    upgrade: bool = False,
    is_editable: bool = False,
) -> list[Installed]:
    """Install packages and look at the NFs they bring.

    A package that claims the name of another one's NF is refused before anything is installed.

    Args:
        requirements: arguments of ``pip install``: names, folders, wheels.
        pip_options: handed on to pip.
        upgrade: take newer versions of packages that are installed.
        is_editable: `requirements` are folders, which are installed in place.

    Returns:
        The NFs of the requested packages; not those of their dependencies.

    Raises:
        PluginError: pip failed, or a requested package has no usable NF. It stays installed, so
            that `onvm nf info` can show its fault.
    """
    before = discover()
    with tempfile.TemporaryDirectory(prefix="onvm-install-") as scratch:
        folders = [each for each in requirements if is_editable or Path(each).is_dir()]
        others = [each for each in requirements if each not in folders]
        requested = _install_wheels(others, pip_options, before, Path(scratch), upgrade)
        requested |= _install_folders(folders, pip_options, before, is_editable=is_editable)
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
    manifests = {package.name: package.manifest for package in before}
    return [Installed(package, manifests.get(package.name)) for package in brought]


def upgrade(names: Sequence[str], pip_options: Sequence[str] = ()) -> list[Installed]:
    """Take the newest versions of the packages of NFs.

    Args:
        names: of installed NFs; none: all.

    Raises:
        PluginError: one is not installed, or pip failed.
    """
    packages = {package.name: package.distribution for package in discover()}
    for name in names:
        if name not in packages:
            raise PluginError(
                f"expected an installed NF{did_you_mean(packages, name)}",
                field="nf upgrade",
                value=name,
            )
    wanted = sorted({packages[name] for name in names or packages})
    return install(wanted, pip_options, upgrade=True) if wanted else []


def uninstall(name: str) -> list[str]:
    """Remove the package of an NF.

    Returns:
        The removed distributions: several if they were in conflict over `name`.

    Raises:
        PluginError: no such NF, or pip failed.
    """
    owners = sorted({package.distribution for package in discover() if package.name == name})
    if not owners:
        hint = did_you_mean((package.name for package in discover()), name)
        raise PluginError(f"expected an installed NF{hint}", field="nf uninstall", value=name)
    _run_pip("uninstall", "--yes", *owners)
    return owners


def _install_folders(
    folders: Sequence[str],
    pip_options: Sequence[str],
    before: Sequence[NfPackage],
    *,
    is_editable: bool,
) -> set[str]:
    """Install source folders; return the names of their packages, normalised."""
    candidates = [each for folder in folders for each in candidates_of_folder(Path(folder))]
    refuse_taken(candidates, before)
    for folder in folders:
        place = ["--editable", folder] if is_editable else [folder]
        _run_pip("install", "--quiet", *pip_options, *place)
    return {_normal(project_name(Path(folder))) for folder in folders}


def _install_wheels(
    requirements: Sequence[str],
    pip_options: Sequence[str],
    before: Sequence[NfPackage],
    folder: Path,
    upgrade: bool,
) -> set[str]:
    """Fetch the wheels, look into them, and install them.

    Returns:
        The names of the packages, normalised.
    """
    there = set() if upgrade else {each for each in requirements if _is_there(each)}
    wanted = [each for each in requirements if each not in there]
    requested = {_normal(Requirement(each).name) for each in there}
    if not wanted:
        return requested
    options = [each for each in pip_options if each != "--no-deps"]
    _run_pip("wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", *options, *wanted)
    wheels = sorted(folder.glob("*.whl"))
    refuse_taken([each for wheel in wheels for each in candidates_of_wheel(wheel)], before)
    _run_pip("install", "--quiet", *pip_options, *map(str, wheels))
    return requested | {_normal(wheel.name.split("-")[0]) for wheel in wheels}


def _is_there(requirement: str) -> bool:
    """True if an installed package meets a requirement by name."""
    try:
        wanted = Requirement(requirement)
        version = metadata.version(wanted.name)
    except (InvalidRequirement, metadata.PackageNotFoundError):
        return False
    return wanted.url is None and wanted.specifier.contains(version, prereleases=True)


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
