"""No circles between the C files of a part, and none between its folders.

A file depends on another when it calls a function or uses a variable of it (the symbols of the
object files) or includes its header. ``x.c`` and ``x.h`` in one folder count as one file.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {
    "dataplane": ROOT / "native" / "dataplane",
    "nf": ROOT / "native" / "nf",
    "tables": ROOT / "native" / "tables",
    **{path.parent.name: path for path in sorted(ROOT.glob("plugins/*/native"))},
}
INCLUDE = re.compile(r'^#include "(?:\.\./)*([^"]+)"', re.MULTILINE)
DEFINED = frozenset("TDBRVWCG")

# from one node to another, and the names that tie them
Graph = dict[str, dict[str, set[str]]]


@pytest.mark.parametrize("part", PARTS)
def test_files_form_no_circle(part: str) -> None:
    assert _told(_circles(_files(part))) == ""


@pytest.mark.parametrize("part", PARTS)
def test_folders_form_no_circle(part: str) -> None:
    assert _told(_circles(_folders(_files(part)))) == ""


def test_a_circle_is_told_with_its_symbols() -> None:
    graph: Graph = {"a": {"b": {"call_b"}}, "b": {"c": {"c.h"}}, "c": {"a": {"x", "y"}}, "d": {}}
    assert _told(_circles(graph)) == "a -> b: call_b\nb -> c: c.h\nc -> a: x, y"


def test_a_line_is_no_circle() -> None:
    assert _circles({"a": {"b": {"f"}, "c": {"g"}}, "b": {"c": {"h"}}, "c": {}}) == []


def _circles(graph: Mapping[str, Mapping[str, set[str]]]) -> list[tuple[str, str, set[str]]]:
    """The arrows that lie on a circle: those whose end leads back to their beginning."""
    reach: dict[str, set[str]] = {}
    for node in graph:
        reach[node], open_ends = set(), list(graph[node])
        while open_ends:
            end = open_ends.pop()
            if end not in reach[node]:
                reach[node].add(end)
                open_ends.extend(graph[end])
    return [
        (node, end, names)
        for node, ends in graph.items()
        for end, names in ends.items()
        if node in reach[end]
    ]


def _told(circles: Iterable[tuple[str, str, set[str]]]) -> str:
    return "\n".join(f"{a} -> {b}: {', '.join(sorted(names))}" for a, b, names in circles)


def _folders(files: Graph) -> Graph:
    folders: Graph = defaultdict(lambda: defaultdict(set))
    for file, ends in files.items():
        own = str(Path(file).parent)
        folders[own]  # a folder without arrows is one, too
        for end in ends:
            if str(Path(end).parent) != own:
                folders[own][str(Path(end).parent)].add(f"{file} -> {end}")
    return folders


@cache
def _files(part: str) -> Graph:
    folder = PARTS[part]
    graph: Graph = {_node(path, folder): defaultdict(set) for path in _sources(folder, "ch")}
    for path in _sources(folder, "ch"):
        for name in INCLUDE.findall(path.read_text()):
            for base in (folder, path.parent):
                end = _node(base / name, folder) if (base / name).is_file() else None
                if end in graph and end != _node(path, folder):
                    graph[_node(path, folder)][end].add(name)
                    break
    objects = {_node(path, folder): _object(path) for path in _sources(folder, "c")}
    with ThreadPoolExecutor() as pool:
        symbols = dict(zip(objects, pool.map(_symbols, objects.values()), strict=True))
    home = {name: node for node, (defined, _) in symbols.items() for name in defined}
    for node, (_, undefined) in symbols.items():
        for name in undefined & home.keys():
            graph[node][home[name]].add(name)
    return graph


def _sources(folder: Path, kinds: str) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*.*")) if path.suffix in {f".{k}" for k in kinds})


def _node(path: Path, folder: Path) -> str:
    return str(path.resolve().relative_to(folder).with_suffix(""))


def _symbols(object_file: Path) -> tuple[set[str], set[str]]:
    """Global names that an object file defines, and those that it needs."""
    listing = subprocess.run(
        ["nm", "--format=posix", str(object_file)], capture_output=True, text=True, check=True
    ).stdout
    kinds = [line.split()[:2] for line in listing.splitlines()]
    defined = {name for name, kind in kinds if kind in DEFINED}
    return defined, {name for name, kind in kinds if kind == "U"}


@cache
def _built() -> dict[Path, Path]:
    """Object file of each source that a build of the wheels has compiled."""
    objects = {}
    for database in ROOT.glob("build/*/**/compile_commands.json"):
        if "native-tests" in database.parts:
            continue
        for entry in json.loads(database.read_text()):
            source = (Path(entry["directory"]) / entry["file"]).resolve()
            objects[source] = Path(entry["directory"]) / entry["output"]
    return objects


def _object(source: Path) -> Path:
    """The object file of the last build where it is newer than its source, or one of our own."""
    for built in (_built().get(source), _own_object(source)):
        if built is not None and built.is_file() and built.stat().st_mtime > _changed(source):
            return built
    target = _own_object(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = next(folder for folder in PARTS.values() if source.is_relative_to(folder))
    subprocess.run(
        [
            "cc",
            "-std=gnu11",
            "-O1",
            "-w",
            "-D_GNU_SOURCE",
            "-DALLOW_EXPERIMENTAL_API",
            "-I",
            ROOT / "native" / "include",
            "-I",
            part,
            "-I",
            sysconfig.get_path("include"),
            *_dpdk(),
            "-c",
            source,
            "-o",
            target,
        ],
        check=True,
    )
    return target


def _own_object(source: Path) -> Path:
    return ROOT / "build" / "layers" / source.relative_to(ROOT).with_suffix(".o")


def _changed(source: Path) -> float:
    return source.stat().st_mtime


@cache
def _dpdk() -> list[str]:
    flags = subprocess.run(
        ["pkg-config", "--cflags", "libdpdk"], capture_output=True, text=True, check=True
    )
    return shlex.split(flags.stdout)
