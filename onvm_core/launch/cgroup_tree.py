"""The mounted trees of cgroups, and the place of a process in each.

Sources: proc(5) for /proc/PID/mountinfo, cgroups(7) for /proc/PID/cgroup. Both are read as this
process sees them: in a container the root of a mount is a cgroup far below the real root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["Tree", "kind_of", "parse_trees", "read_trees"]

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Tree:
    """A mounted tree.

    Attributes:
        version: 1, with the controllers it was mounted with, or 2, where each cgroup lists its own.
        mount: its root, as far as it is visible.
        own: the cgroup of the process in question.
    """

    version: int
    controllers: frozenset[str]
    mount: Path
    own: Path

    @property
    def above(self) -> list[Path]:
        """The cgroups above `own`, the nearest first."""
        if self.own == self.mount:
            return []
        parents = list(self.own.parents)
        return parents[: parents.index(self.mount) + 1]


def read_trees(root: Path = Path("/"), process: str = "self") -> tuple[Tree, ...]:
    """The trees that contain a process, as this process sees them; none if the process is gone."""
    try:
        mounts = (root / "proc/self/mountinfo").read_text()
        cgroups = (root / "proc" / process / "cgroup").read_text()
    except OSError:
        return ()
    return parse_trees(mounts, cgroups, root)


def parse_trees(mountinfo: str, cgroups: str, root: Path = Path("/")) -> tuple[Tree, ...]:
    """Trees, parsed from the kernel's tables.

    Args:
        mountinfo: text of /proc/self/mountinfo.
        cgroups: text of /proc/PID/cgroup.
        root: prefix of all mount points.
    """
    own_of = _own_paths(cgroups)
    trees: dict[tuple[int, frozenset[str]], Tree] = {}
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or len(fields) < 6 or len(kind) < 3:
            continue
        options = frozenset(kind[2].split(","))
        version = {"cgroup": 1, "cgroup2": 2}.get(kind[0], 0)
        controllers = frozenset[str]()
        if version == 1:
            controllers = next((key for key in own_of if key and key <= options), controllers)
        if version == 0 or bool(controllers) != (version == 1) or controllers not in own_of:
            continue  # a tree without controllers (name=systemd), or without this process
        own = PurePosixPath(own_of[controllers])
        top = PurePosixPath(_unescape(fields[3]))
        if ".." in own.parts or not own.is_relative_to(top):
            continue  # outside of the mounted part
        mount = root / _unescape(fields[4]).lstrip("/")
        # Of several mounts of a tree, the last one lies on top or is equivalent to the others.
        trees[version, controllers] = Tree(
            version, controllers, mount, mount.joinpath(own.relative_to(top))
        )
    return tuple(trees.values())


def kind_of(trees: tuple[Tree, ...]) -> str:
    """The name of this layout: v1, v2, hybrid (both), or none."""
    versions = {tree.version for tree in trees}
    return {frozenset({1}): "v1", frozenset({2}): "v2", frozenset({1, 2}): "hybrid"}.get(
        frozenset(versions), "none"
    )


def _own_paths(cgroups: str) -> dict[frozenset[str], str]:
    """Path by controllers; that of v2 has none."""
    found = {}
    for line in cgroups.splitlines():
        number, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if not colon or "name=" in names or (number == "0") == bool(names):
            continue
        found[frozenset(filter(None, names.split(",")))] = path
    return found


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
