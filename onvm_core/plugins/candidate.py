"""The NFs of a package before it is installed: from its wheel, or its folder."""

from __future__ import annotations

import configparser
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onvm_core.plugins.discovery import GROUP, MANIFEST, NfPackage
from onvm_sdk.errors import PluginError
from onvm_sdk.manifest import Manifest, parse_manifest

__all__ = [
    "Candidate",
    "candidates_of_folder",
    "candidates_of_wheel",
    "project_name",
    "refuse_taken",
    "summary",
]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One NF of a package that may be installed.

    Args:
        manifest: None if its file is not where it can be seen beforehand.
    """

    name: str
    distribution: str
    version: str
    manifest: Manifest | None


def candidates_of_wheel(wheel: Path) -> list[Candidate]:
    """The NFs of a wheel.

    Raises:
        PluginError: it is no wheel.
        ManifestError: a manifest has a mistake.
    """
    distribution, version = wheel.name.split("-")[:2]
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = archive.namelist()
            points = next((name for name in files if name.endswith("/entry_points.txt")), None)
            entries = {} if points is None else _entry_points(archive.read(points).decode())
            found = []
            for name, target in entries.items():
                path = _manifest_path(target, files)
                text = "" if path is None else archive.read(path).decode()
                found.append(_candidate(name, distribution, version, text, f"{wheel.name}/{path}"))
            return found
    except (OSError, zipfile.BadZipFile) as error:
        raise PluginError(f"expected a wheel: {error}", file=wheel) from error


def candidates_of_folder(folder: Path) -> list[Candidate]:
    """The NFs of a source folder, as far as its pyproject.toml says.

    Raises:
        PluginError: it has no pyproject.toml that can be read.
        ManifestError: a manifest has a mistake.
    """
    project = _project(folder)
    entries = project.get("entry-points", {}).get(GROUP, {})
    files = [str(path.relative_to(folder)) for path in folder.rglob(MANIFEST)]
    found = []
    for name, target in entries.items():
        path = _manifest_path(target, [*files, *(each.removeprefix("src/") for each in files)])
        place = None if path is None else next(folder / each for each in files if path in each)
        text = "" if place is None else place.read_text()
        version = str(project.get("version", ""))
        found.append(_candidate(name, project["name"], version, text, str(place)))
    return found


def project_name(folder: Path) -> str:
    """The name of the package in a source folder.

    Raises:
        PluginError: it has no pyproject.toml that can be read.
    """
    return str(_project(folder).get("name", ""))


def _project(folder: Path) -> dict[str, Any]:
    file = folder / "pyproject.toml"
    try:
        return dict(tomllib.loads(file.read_text()).get("project", {}))
    except (OSError, ValueError) as error:
        raise PluginError(f"expected the folder of a package: {error}", file=file) from error


def refuse_taken(candidates: Iterable[Candidate], installed: Iterable[NfPackage]) -> None:
    """See that no name belongs to another package.

    Raises:
        PluginError: one does; its owner goes on.
    """
    owners = {package.name: package for package in installed}
    for candidate in candidates:
        owner = owners.get(candidate.name)
        if owner is not None and _key(owner.distribution) != _key(candidate.distribution):
            raise PluginError(
                f"expected a name that is free: {owner.distribution} {owner.version} has it; "
                f"{candidate.distribution} was not installed",
                field="nf install",
                value=candidate.name,
            )


def summary(new: Manifest, old: Manifest | None = None) -> list[str]:
    """Permissions and needs of an NF, a line each, with those of `old` where they differ."""
    before = _rows(new if old is None else old)
    return [
        f"{title}: {text}" + ("" if text == before[title] else f" (was: {before[title]})")
        for title, text in _rows(new).items()
    ]


def _rows(manifest: Manifest) -> dict[str, str]:
    cores = f"{manifest.cores:g} core{'s' if manifest.cores != 1 else ''}"
    pages = ", huge pages" if manifest.huge_pages else ""
    return {
        "permissions": ", ".join(manifest.permissions),
        "resources": f"{cores}, {manifest.memory_mib} MiB{pages}",
        "state": manifest.state,
    }


def _candidate(name: str, distribution: str, version: str, text: str, place: str) -> Candidate:
    manifest = None
    if text:
        try:
            content: Mapping[str, object] = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            content = {}  # discovery says where the mistake is, once it is installed
        if content:
            manifest = parse_manifest(content, place)
    return Candidate(name, distribution.replace("_", "-"), version, manifest)


def _entry_points(text: str) -> dict[str, str]:
    parser = configparser.ConfigParser(delimiters="=", interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(text)
    return dict(parser[GROUP]) if GROUP in parser else {}


def _manifest_path(target: str, files: Iterable[str]) -> str | None:
    """The manifest beside the module of an entry point, as in discovery."""
    package = target.partition(":")[0].strip().replace(".", "/")
    wanted = [f"{package}/{MANIFEST}", f"{package.rpartition('/')[0]}/{MANIFEST}".lstrip("/")]
    present = set(files)
    return next((path for path in wanted if path in present), None)


def _key(distribution: str) -> str:
    return distribution.lower().replace("_", "-").replace(".", "-")
