"""The installed NFs, read from metadata and manifests, without importing any of them.

The order does not depend on `sys.path`; a broken plugin is listed as broken and does not affect
others; of two distributions that use one name the one that was there first runs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import importlib_metadata

from onvm_sdk.errors import PluginError
from onvm_sdk.source import is_source, source_manifest, source_name
from onvm_sdk.spelling import one_of

if TYPE_CHECKING:
    from importlib_metadata import EntryPoint, IDistribution

    from onvm_sdk.manifest import Manifest

__all__ = ["GROUP", "MANIFEST", "NfPackage", "NfStatus", "discover", "find"]

GROUP = "onvm.nf"
MANIFEST = "onvm-nf.toml"


class NfStatus(Enum):
    """The usability of a plugin."""

    OK = "ok"
    BROKEN = "broken"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class NfPackage:
    """One NF as it is installed.

    Args:
        target: ``module:attribute`` of its entry point.
        service: service type; None if the manifest cannot be read.
        reason: the fault; empty if the status is OK.
    """

    name: str
    distribution: str
    version: str
    target: str
    service: str | None = None
    manifest: Manifest | None = None
    manifest_path: Path | None = None
    status: NfStatus = NfStatus.OK
    reason: str = ""
    since_ns: int = 0
    """Time of its installation, as that of a file, in nanoseconds."""


def discover(path: list[str] | None = None) -> list[NfPackage]:
    """All installed NFs, sorted by name and distribution.

    Args:
        path: folders to search instead of `sys.path`.
    """
    distributions = _first_of_each(
        importlib_metadata.distributions()
        if path is None
        else importlib_metadata.distributions(path=path)
    )
    packages = [package for distribution in distributions for package in _packages_of(distribution)]
    packages.sort(key=lambda package: (package.name, package.distribution))
    return [
        marked
        for _, group in groupby(packages, key=lambda package: package.name)
        for marked in _mark_conflicts(list(group))
    ]


def find(name: str, packages: Iterable[NfPackage] | None = None) -> NfPackage:
    """The usable NF of this name, or of a file, as in ``./my.py:Class``.

    The name of an NF of a file is the path of the file and the class.

    Raises:
        PluginError: it is not installed, broken, or claimed by two distributions.
    """
    if is_source(name):
        return _of_source(source_name(name))
    installed = list(discover() if packages is None else packages)
    for package in installed:
        if package.name == name:
            if package.status is NfStatus.OK:
                return package
            raise PluginError(
                f"expected an NF that can run; {package.status.value}: {package.reason}",
                field=f"nf {name}",
            )
    if name.endswith(".py"):
        raise PluginError(
            "expected FILE.py:Class, with a class of that file", field="nf", value=name
        )
    names = [package.name for package in installed if package.status is NfStatus.OK]
    what = one_of(names, name) if names else "none is installed"
    raise PluginError(f"expected an installed NF: {what}", field="nf", value=name)


def _of_source(name: str) -> NfPackage:
    manifest = source_manifest(name)
    return NfPackage(
        name=name,
        distribution="",
        version="",
        target=name,
        service=manifest.service,
        manifest=manifest,
        manifest_path=Path(name.rpartition(":")[0]),
    )


def _first_of_each(
    distributions: Iterable[IDistribution],
) -> list[IDistribution]:
    """Drop distributions that an earlier entry of the path shadows, as import would; then sort."""
    by_name: dict[str, IDistribution] = {}
    for distribution in distributions:
        name = _key(distribution)
        if name:
            by_name.setdefault(name, distribution)
    return [by_name[name] for name in sorted(by_name)]


def _key(distribution: IDistribution) -> str:
    """The key by which an earlier entry of the path hides it: its name, in one spelling.

    It comes from the folder, as in importlib. Metadata are read only if there is no folder, because
    reading all of them takes 40 ms of a manager's start.
    """
    quick = getattr(distribution, "_normalized_name", None)
    return (quick or _name(distribution)).lower().replace("-", "_").replace(".", "_")


def _name(distribution: IDistribution) -> str:
    """The distribution's name, or "" for a folder that an interrupted uninstall left behind."""
    try:
        return distribution.metadata["Name"] or ""
    except Exception:  # a third-party file; the possible errors depend on the library's version
        return ""


def _packages_of(distribution: IDistribution) -> list[NfPackage]:
    try:
        entry_points = list(distribution.entry_points.select(group=GROUP))
    except Exception as error:
        name = _name(distribution)
        reason = f"entry points cannot be read: {error}"
        return [NfPackage(name, name, "", "", status=NfStatus.BROKEN, reason=reason)]
    return [_describe(distribution, entry_point) for entry_point in entry_points]


def _describe(distribution: IDistribution, entry_point: EntryPoint) -> NfPackage:
    bare = NfPackage(
        name=entry_point.name,
        distribution=distribution.metadata["Name"],
        version=distribution.version,
        target=entry_point.value,
        since_ns=_since_ns(distribution),
    )
    try:
        path = _manifest_path(distribution, entry_point)
        return _with_manifest(replace(bare, manifest_path=path), path)
    # The plugin boundary: metadata and manifest come from others, and one that cannot be read
    # must not hide the others.
    except Exception as error:
        return replace(bare, status=NfStatus.BROKEN, reason=str(error) or type(error).__name__)


def _with_manifest(package: NfPackage, path: Path) -> NfPackage:
    # Imported here: `onvm --help` needs no manifest reader.
    from onvm_sdk.manifest import read_manifest

    manifest = read_manifest(path)
    if manifest.name != package.name:
        raise PluginError(
            f"expected {package.name!r}, the name of the entry point",
            file=path,
            field="name",
            value=manifest.name,
        )
    return replace(package, manifest=manifest, service=manifest.service)


def _manifest_path(distribution: IDistribution, entry_point: EntryPoint) -> Path:
    """The manifest beside the module, found through the list of installed files."""
    package = entry_point.module.replace(".", "/")
    wanted = [f"{package}/{MANIFEST}", f"{package.rpartition('/')[0]}/{MANIFEST}".lstrip("/")]
    for relative in wanted:
        path = Path(str(distribution.locate_file(relative)))
        if path.is_file():
            return path
    # An editable install keeps its files elsewhere; its import hook knows the place. A top-level
    # package is found without being imported.
    spec = importlib.util.find_spec(entry_point.module.partition(".")[0])
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / MANIFEST
        if path.is_file():
            return path
    raise PluginError(f"expected {MANIFEST} beside module {entry_point.module}")


def _mark_conflicts(same_name: list[NfPackage]) -> list[NfPackage]:
    if len(same_name) == 1:
        return same_name
    first = min(same_name, key=lambda package: (package.since_ns, package.distribution))
    return [
        package
        if package is first
        else replace(
            package,
            status=NfStatus.CONFLICT,
            reason=f"{package.name!r} belongs to {first.distribution}, which was there first",
        )
        for package in sorted(same_name, key=lambda package: package is not first)
    ]


def _since_ns(distribution: IDistribution) -> int:
    """The time of the file that the SDK looks at, too (`onvm_sdk._hosting.plugin`)."""
    folder = getattr(distribution, "_path", None)
    try:
        return (folder / "entry_points.txt").stat().st_mtime_ns if folder is not None else 0
    except (AttributeError, OSError):  # a distribution in an archive
        return 0
