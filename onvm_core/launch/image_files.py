"""The content of an image of NFs: files of this host's Python environment, by layer.

    /opt/onvm/python    the interpreter and its standard library
    /opt/onvm/site      the SDK, the NFs' distributions and their requirements
    /opt/onvm/lib       shared libraries of the system that these need, by name
    /opt/onvm/cache     kernels that were compiled on this host before

and the dynamic loader where programs expect it. Nothing else: no shell, no package manager, no part
of ``onvm_core``. So an image needs neither a registry nor a base image, and its libc matches the
programs in it.

Layers are in the order in which they change; podman and docker keep equal layers once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import importlib_metadata
from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from onvm_sdk.errors import ConfigError

if TYPE_CHECKING:
    from importlib_metadata import IDistribution

__all__ = [
    "HOME",
    "Layer",
    "LayerFiles",
    "Source",
    "closure",
    "collect",
    "digest",
    "find_sources",
    "is_editable",
]

HOME = PurePosixPath("/opt/onvm")
SDK = "onvm"
GROUP = "onvm.nf"
FORMAT = 1
"""Format of images; it increases when older ones cannot be used any more."""

_SDK_PARTS = ("onvm_sdk", "onvm.libs")
_SDK_REQUIRES = ("cffi",)
_SDK_OPTIONAL = ("numpy", "numba")
_STDLIB_OMITTED = re.compile(
    r"(?:test|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|site-packages|dist-packages"
    r"|config-[^/]*)(?:/|$)|turtle\.py$|lib-dynload/(?:_tkinter|_test|_ctypes_test|xx)"
)
_PYC = re.compile(r"__pycache__/.*\.(?P<tag>[a-z]+-\d+)(?P<opt>\.opt-\d)?\.pyc$")
_LDD = re.compile(r"^\s+(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$")


@dataclass(frozen=True, slots=True)
class Source:
    """An NF, and the distribution or folder that it comes from.

    Attributes:
        name: name of an installed NF, or ``module:Class``.
        distribution: None for ``module:Class``.
        folder: the package of its module, or the module's file.
    """

    name: str
    distribution: IDistribution | None
    module: str
    folder: Path


LayerFiles = dict[PurePosixPath, Path]
"""The place of a file in the image, and its place here."""


@dataclass(slots=True)
class Layer:
    """One layer; `text` describes its content."""

    text: str
    files: LayerFiles = field(default_factory=dict)


def find_sources(nfs: Sequence[str]) -> list[Source]:
    """Find NFs.

    Raises:
        ConfigError: an NF is not installed.
    """
    installed = {point.name: point for point in importlib_metadata.entry_points(group=GROUP)}
    sources = []
    for name in nfs:
        point = installed.get(name)
        if point is None and ":" not in name:
            known = ", ".join(sorted(installed)) or "none is installed"
            raise ConfigError(f"expected an installed NF ({known})", field="NF", value=name)
        module = point.module if point is not None else name.partition(":")[0]
        distribution = None if point is None else point.dist
        sources.append(Source(name, distribution, module, _module_folder(name, module)))
    return sources


def digest(sources: Sequence[Source]) -> str:
    """Digest that identifies an image of these NFs as they are now: 12 hexadecimal digits."""
    seen = hashlib.sha256(f"{FORMAT} {sys.version} {os.uname().machine}".encode())
    for one in closure(sources):
        seen.update(f"{one.name} {one.version}".encode())
        if canonicalize_name(one.name) == SDK:
            seen.update((one.read_text("RECORD") or "").encode())
    for source in sources:
        for relative, path in sorted(_folder_files(source).items()):
            if path.suffix != ".pyc":
                seen.update(f"{relative}\0".encode() + path.read_bytes())
    return seen.hexdigest()[:12]


def closure(sources: Sequence[Source], extra: Iterable[str] = ()) -> list[IDistribution]:
    """The distributions of NFs with all their requirements; the SDK is always among them.

    Args:
        extra: names of other distributions to include.

    Raises:
        ConfigError: a distribution is not installed.
    """
    wanted = [Requirement(name) for name in (SDK, *_SDK_REQUIRES, *extra)]
    for source in sources:
        if source.distribution is None:  # there are no metadata that list its requirements
            wanted += [
                Requirement(name) for name in _SDK_OPTIONAL if importlib.util.find_spec(name)
            ]
        else:
            wanted.append(Requirement(source.distribution.name))
    found: dict[str, IDistribution] = {}
    seen: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        try:
            found.setdefault(name, importlib_metadata.distribution(name))
        except importlib_metadata.PackageNotFoundError:
            raise ConfigError(
                "expected an installed distribution; run: "
                f"{sys.executable} -m pip install '{requirement}'",
                field="image",
                value=name,
            ) from None
        wanted += _required(found[name], requirement.extras)
    return [found[name] for name in sorted(found)]


def _required(distribution: IDistribution, extras: set[str]) -> Iterator[Requirement]:
    """The requirements of a distribution here; for the SDK, only those that its extras name."""
    is_sdk = canonicalize_name(distribution.name) == SDK
    environment = {key: str(value) for key, value in default_environment().items()}
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # pip has installed it all the same
        marker = requirement.marker
        plain = marker is None or marker.evaluate({**environment, "extra": ""})
        asked = marker is not None and any(
            marker.evaluate({**environment, "extra": extra}) for extra in extras
        )
        if (plain and not is_sdk) or (asked and not plain):
            yield requirement


def collect(sources: Sequence[Source], extra: Iterable[str] = ()) -> list[Layer]:
    """The layers of an image of these NFs.

    Raises:
        ConfigError: a requirement is not installed, or the SDK is installed in place.
    """
    if is_editable(SDK):
        raise ConfigError(
            "expected an installed wheel; an editable install has its files elsewhere", field=SDK
        )
    own = {one.distribution.name for one in sources if one.distribution is not None}
    python, packages = Layer("interpreter"), Layer("SDK and requirements")
    nf = Layer(f"NF {', '.join(source.name for source in sources)}")
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    python.files[HOME / "python/bin/python3"] = program
    stdlib = Path(sysconfig.get_path("stdlib"))
    target = HOME / "python" / sys.platlibdir / stdlib.name
    for relative, path in _files_below(stdlib).items():
        if not _STDLIB_OMITTED.match(str(relative)) and not _is_idle(relative):
            python.files[target / relative] = path
    for distribution in closure(sources, extra):
        layer = nf if distribution.name in own else packages
        layer.files |= _distribution_files(distribution)
    for source in sources:
        nf.files |= {HOME / "site" / key: path for key, path in _folder_files(source).items()}
    layers = [python, packages, nf]
    _add_libraries(layers)
    return layers


def is_editable(name: str) -> bool:
    """True if a distribution is installed in place: its record of its origin tells it (PEP 610)."""
    record = importlib_metadata.distribution(name).read_text("direct_url.json")
    return bool(record and json.loads(record).get("dir_info", {}).get("editable"))


def _distribution_files(distribution: IDistribution) -> LayerFiles:
    is_sdk = canonicalize_name(distribution.name) == SDK
    found: LayerFiles = {}
    if distribution.files is None:  # without a list: the file that shows that it is there
        site = Path(str(distribution.locate_file("")))
        for folder in site.glob("*.dist-info"):
            if canonicalize_name(folder.name.partition("-")[0]) == canonicalize_name(
                distribution.name
            ):
                found |= {
                    HOME / "site" / folder.name / k: v for k, v in _files_below(folder).items()
                }
    for entry in distribution.files or ():
        relative = PurePosixPath(str(entry))
        outside = relative.is_absolute() or ".." in relative.parts
        manager = (
            is_sdk and relative.parts[0] not in _SDK_PARTS and "dist-info" not in str(relative)
        )
        path = Path(str(distribution.locate_file(entry)))
        if not (outside or manager or _is_idle(relative)) and path.is_file():
            found[HOME / "site" / relative] = path
    return found


def _module_folder(name: str, module: str) -> Path:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise ConfigError("expected a module that can be imported", field="NF", value=name)
    origin = Path(spec.origin)
    return origin.parent if spec.submodule_search_locations or "." in module else origin


def _folder_files(source: Source) -> LayerFiles:
    """The package of an NF's module, and the ``__init__.py`` of those above; editable ones too."""
    if source.folder.is_file():
        return {PurePosixPath(source.folder.name): source.folder}
    spec = importlib.util.find_spec(source.module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    parts = source.module.split(".") if is_package else source.module.split(".")[:-1]
    inside = PurePosixPath(*parts)
    found = {inside / key: path for key, path in _files_below(source.folder).items()}
    for count in range(1, len(parts)):
        above = source.folder.parents[len(parts) - count - 1] / "__init__.py"
        if above.is_file():
            found[PurePosixPath(*parts[:count]) / "__init__.py"] = above
    return {key: path for key, path in found.items() if not _is_idle(key)}


def _files_below(folder: Path) -> LayerFiles:
    found: LayerFiles = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        base = PurePosixPath(Path(parent).relative_to(folder).as_posix())
        for name in sorted(names):
            path = Path(parent) / name
            if path.is_file():
                found[base / name] = path
    return found


def _is_idle(relative: PurePosixPath) -> bool:
    """True if this interpreter would never read it: byte code of another one, static libraries."""
    if relative.suffix in (".a", ".pyi"):
        return True
    match = _PYC.search(str(relative))
    return match is not None and (
        match["tag"] != sys.implementation.cache_tag or match["opt"] is not None
    )


def _add_libraries(layers: Sequence[Layer]) -> None:
    """Put the shared libraries that the programs of a layer need into it."""
    inside = {path.resolve() for layer in layers for path in layer.files.values()}
    seen: set[str] = set()
    for layer in layers:
        programs = sorted({path for path in layer.files.values() if _is_elf(path)})
        for name, path in _needed(programs):
            if path.resolve() in inside or name in seen:
                continue
            seen.add(name)
            is_loader = name.startswith("/")
            layer.files[PurePosixPath(name) if is_loader else HOME / "lib" / name] = path


def _is_elf(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _needed(programs: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Libraries that the system's loader would use for these, by name; the loader itself by its
    path.
    """
    for start in range(0, len(programs), 64):
        said = subprocess.run(
            ["ldd", *map(str, programs[start : start + 64])],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        for line in said.stdout.splitlines():
            match = _LDD.match(line)
            if match is not None:
                yield match["name"] or match["path"], Path(match["path"])
