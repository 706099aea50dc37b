"""Cgroups of NF hosts: they keep NF hosts within the CPUs and the memory they were given.

Each NF host gets its own cgroup, in each tree that exists: those of v1 with one controller each,
the one of v2, or both beside each other (*hybrid*). Its path below the cgroup in which the manager
may make others::

    onvm/NAMESPACE-PID-START/INSTANCE      e.g. onvm/4026531836-812-41007/firewall-1

so that the name tells which manager made it, and if that manager is alive. A manager removes its
own cgroups when their NF host has ended, and empty ones of dead managers; never those of others.

Their place: in v1 below the manager's own cgroup. In v2 a cgroup whose processes are limited has no
children with limits, so it is the first of

* the manager's own, if it is the root or has no other process: the manager then moves into a child
  (systemd calls this delegation);
* one above, if it already gives the controllers to its children.

This changes only the manager's own cgroups: in cgroups above, nothing is switched on.

The ``cpu`` controller is used for a quota only. Weights would do nothing for NFs that have their
CPUs to themselves, and each level of it makes every wake-up more expensive.

A process enters its cgroup by itself, before it becomes the NF host (`Cgroup.command`), so that all
its memory, and every process it starts, is counted there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onvm_core.launch.cgroup_tree import Tree, read_trees
from onvm_core.launch.identity import ProcessId
from onvm_core.launch.limits import Limits

__all__ = ["NO_CGROUP", "Cgroup", "Cgroups", "is_abandoned", "owner"]

FOLDER = "onvm"
_OWNER = re.compile(r"(\d+)-(\d+)-(\d+)")
_PERIOD_US = 10_000
"""Period of a CPU quota. The kernel's usual 100 ms would stop an NF for longer than the limit for a
hung one.
"""
_QUOTA_LEAST_US = 1_000
_REMOVE_S = 0.05
_LOOK_S = 0.1
_FAULTS_LEAST = 5
"""Number of major faults in that time. A process with too little memory has 100 to 260 major faults
in each second; a complete start with an empty page cache has 60 to 220.
"""
_STEP_S = 0.005

# Write the PID of this process into the given files, then become the rest of the command.
_ENTER = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit 126; shift; n=$((n-1)); done; '
    'exec "$@"'
)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The cgroup of one NF host: a folder in each tree that sets a limit."""

    folders: tuple[Path, ...] = ()

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that enters the cgroup and then becomes `command`, with the same PID."""
        if not self.folders:
            return list(command)
        files = [str(folder / "cgroup.procs") for folder in self.folders]
        return ["/bin/sh", "-c", _ENTER, "onvm-cgroup", str(len(files)), *files, *command]

    def processes(self) -> list[int]:
        """PIDs of the processes in it."""
        return sorted({pid for folder in self.folders for pid in _processes(folder)})

    def memory_kills(self) -> int:
        """The number of its processes that the kernel has ended because they needed more memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                for line in _read(folder / name).splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def is_short_of_memory(self) -> bool:
        """True if it uses all the memory it may have, and now reads pages again that it had to
        free.

        The kernel frees pages of files first, including an NF's libraries: then nothing is ended,
        but everything is very slow. If its memory is full this takes 0.1 s.
        """
        for folder in self.folders:
            for has, limit in (
                ("memory.current", "memory.max"),
                ("memory.usage_in_bytes", "memory.limit_in_bytes"),
            ):
                most = _read(folder / limit)
                if most.isdigit() and int(_read(folder / has) or 0) > 0.9 * int(most):
                    before = _major_faults(folder)
                    time.sleep(_LOOK_S)
                    return _major_faults(folder) - before >= _FAULTS_LEAST
        return False

    def kill(self) -> None:
        """End the processes in it. They may still be exiting when it returns."""
        for pid in self.processes():
            process = ProcessId.of(pid)
            if process is not None:
                process.send(signal.SIGKILL)

    def remove(self) -> bool:
        """End the processes that are left in it, and remove it; return True if it is gone."""
        deadline = time.monotonic() + _REMOVE_S
        while not all(_remove(folder) for folder in self.folders):
            self.kill()
            if time.monotonic() > deadline:
                return False
            time.sleep(_STEP_S)
        for folder in self.folders:
            _remove(folder.parent) and _remove(folder.parent.parent)
        return True


NO_CGROUP = Cgroup()


class _LackError(Exception):
    """The reason why a limit cannot be enforced."""


class Cgroups:
    """Makes the cgroups of this process's NF hosts.

    Args:
        root: folder that contains /proc and the trees.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._trees = read_trees(root)
        self._owner = owner()
        self._bases: dict[Tree, Path | _LackError] = {}
        self._left: list[Cgroup] = []
        self.sweep()

    def unenforced(self, limits: Limits) -> dict[str, str]:
        """The limits that cannot be enforced here, each with the reason. Changes nothing."""
        lacking = {}
        for controller in limits.controllers:
            try:
                self._base(controller, is_asked_only=True)
            except _LackError as lack:
                lacking[limits.controllers[controller]] = str(lack)
        return lacking

    def make(self, name: str, limits: Limits) -> Cgroup:
        """Make a cgroup for an NF host; limits that cannot be enforced are left out.

        Args:
            name: a unique name, because an earlier cgroup of the same name may not be empty yet.

        Raises:
            OSError: the kernel does not accept a limit.
        """
        self.sweep()
        folders: list[Path] = []
        made: Cgroup = NO_CGROUP
        try:
            for controller in limits.controllers:
                try:
                    folder = self._base(controller) / FOLDER / self._owner / _folder_name(name)
                except _LackError:
                    continue
                if folder not in folders:
                    _make(folder, self._bases_of(controller))
                    folders.append(folder)
                    made = Cgroup(tuple(folders))
                _set(folder, self._tree(controller).version, controller, limits)
        except OSError as error:
            made.remove()
            raise OSError(
                error.errno, f"cgroup: {error.strerror}", error.filename and str(error.filename)
            ) from None
        return made

    def find(self, pid: int) -> Cgroup:
        """The cgroup of an NF host that runs already, whichever manager made it."""
        folders = {
            folder
            for tree in read_trees(self._root, str(pid))
            for folder in (tree.own, *tree.own.parents)
            if folder.parent.parent.name == FOLDER and _OWNER.fullmatch(folder.parent.name)
        }
        return Cgroup(tuple(sorted(folders)))

    def discard(self, cgroup: Cgroup) -> None:
        """Remove a cgroup whose NF host has ended; if it is not empty yet, do so a little later."""
        if not cgroup.remove():
            self._left.append(cgroup)

    def sweep(self) -> None:
        """Remove empty cgroups of dead managers, and own ones that were still in use before."""
        left, self._left = self._left, []
        for cgroup in left:
            self.discard(cgroup)
        for tree in self._trees:
            for base in (tree.own, *tree.above):
                for folder in _folders(base / FOLDER):
                    if is_abandoned(folder.name):
                        for below in _folders(folder):
                            _remove(below)
                        _remove(folder) and _remove(folder.parent)

    # ---- place ----

    def _base(self, controller: str, *, is_asked_only: bool = False) -> Path:
        """The cgroup below which cgroups with a controller are made.

        Args:
            is_asked_only: True to change nothing; a controller that can be switched on counts then.

        Raises:
            _LackError: there is no such cgroup.
        """
        tree = self._tree(controller)
        if tree.version == 1:
            return _writable(tree.own)
        if tree not in self._bases and is_asked_only and self._is_own(tree):
            if controller not in _words(tree.own / "cgroup.controllers"):
                raise _LackError(f"{tree.own} has no {controller!r}")
            return tree.own
        if tree not in self._bases:
            try:
                self._bases[tree] = self._base_v2(tree)
            except _LackError as lack:
                self._bases[tree] = lack
        base = self._bases[tree]
        if isinstance(base, _LackError):
            raise base
        if controller not in _words(base / "cgroup.subtree_control"):
            raise _LackError(f"{base} does not give {controller!r} to its children")
        return base

    def _bases_of(self, controller: str) -> frozenset[Path]:
        tree = self._tree(controller)
        return frozenset((tree.own, *tree.above))

    def _tree(self, controller: str) -> Tree:
        v1 = next((tree for tree in self._trees if controller in tree.controllers), None)
        v2 = next((tree for tree in self._trees if tree.version == 2), None)
        if v1 is not None:
            return v1
        if v2 is None:
            raise _LackError(f"no cgroups with {controller!r} are mounted")
        if controller not in _words(v2.own / "cgroup.controllers"):
            places = [at for at in v2.above if controller in _words(at / "cgroup.subtree_control")]
            if not places:
                raise _LackError(f"{v2.own} has no {controller!r}")
        return v2

    def _is_own(self, tree: Tree) -> bool:
        """True if this process may give the controllers of its cgroup to its children."""
        is_alone = _processes(tree.own) == [os.getpid()]
        given = _words(tree.own / "cgroup.controllers") & set(_CONTROLLERS)
        return bool(given) and os.access(tree.own, os.W_OK) and (_is_root(tree.own) or is_alone)

    def _base_v2(self, tree: Tree) -> Path:
        wanted = set(_CONTROLLERS) & _words(tree.own / "cgroup.controllers")
        if wanted and os.access(tree.own, os.W_OK):
            # First leave it, then switch on: `cpu` and `cpuset` can be switched on with processes,
            # but make it a thread root then, whose children take no process (cgroups(7)).
            if not _is_root(tree.own) and _processes(tree.own) == [os.getpid()]:
                _mkdir(inside := tree.own / FOLDER / self._owner / "manager")
                _write(inside / "cgroup.procs", str(os.getpid()))
            if _is_root(tree.own) or not _processes(tree.own):
                self._enable(tree.own, wanted)
                if wanted & _words(tree.own / "cgroup.subtree_control"):
                    return tree.own
        given = {at: set(_CONTROLLERS) & _words(at / "cgroup.subtree_control") for at in tree.above}
        usable = [at for at in tree.above if given[at] and os.access(at, os.W_OK)]
        if usable:
            return max(usable, key=lambda at: (len(given[at]), len(at.parts)))
        _writable(tree.own)
        raise _LackError(
            f"other processes are in {tree.own}; start the manager by: "
            "systemd-run --scope -p Delegate=yes"
        )

    def _enable(self, folder: Path, controllers: set[str]) -> None:
        for controller in sorted(controllers - _words(folder / "cgroup.subtree_control")):
            with contextlib.suppress(OSError):  # the controllers that are on are checked
                _write(folder / "cgroup.subtree_control", f"+{controller}")


_CONTROLLERS = ("cpuset", "memory", "cpu")


def is_abandoned(name: str) -> bool:
    """True if a name in the form of `owner` is that of a dead manager."""
    match = _OWNER.fullmatch(name)
    if match is None or match[1] != owner().partition("-")[0]:
        return False  # of another PID namespace: its PIDs mean nothing here
    return not ProcessId(int(match[2]), int(match[3])).is_alive


def owner() -> str:
    """A manager's mark on things that may outlive it: namespace, PID and start time."""
    me = ProcessId.of(os.getpid())
    assert me is not None
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return f"{namespace}-{me.pid}-{me.start_time}"


def _is_root(folder: Path) -> bool:
    """True if it is the root of v2, which may have processes beside children with limits."""
    return not (folder / "cgroup.type").exists()


def _folder_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name)


def _writable(folder: Path) -> Path:
    if not os.access(folder, os.W_OK):
        raise _LackError(f"user {os.geteuid()} may not write to {folder}")
    return folder


def _make(folder: Path, bases: frozenset[Path]) -> None:
    """Make a cgroup and those between it and its base, each with the controllers of the base."""
    path = [folder]
    while path[-1].parent not in bases:
        path.append(path[-1].parent)
    base = path[-1].parent
    given = set(_CONTROLLERS) & _words(base / "cgroup.subtree_control")
    for below in reversed(path):
        _mkdir(below)
        for name in ("cpuset.cpus", "cpuset.mems"):  # a new one in v1 has none and takes no process
            if not given and (below / name).exists() and not _read(below / name):
                _write(below / name, _read(below.parent / name))
        if below != folder:
            for controller in given - _words(below / "cgroup.subtree_control"):
                _write(below / "cgroup.subtree_control", f"+{controller}")


def _set(folder: Path, version: int, controller: str, limits: Limits) -> None:
    is_v2 = version == 2
    if controller == "cpuset":
        _write(folder / "cpuset.cpus", ",".join(map(str, limits.cpus)))
    elif controller == "memory":
        size = str(limits.memory_mib << 20)
        _write(folder / ("memory.max" if is_v2 else "memory.limit_in_bytes"), size)
        swap = ("memory.swap.max", "0") if is_v2 else ("memory.memsw.limit_in_bytes", size)
        if (folder / swap[0]).exists():  # an NF that waits for a disk is of no use
            _write(folder / swap[0], swap[1])
        if (folder / "memory.oom.group").exists():
            _write(folder / "memory.oom.group", "1")
    else:
        assert limits.cpu_quota is not None
        quota = max(int(limits.cpu_quota * _PERIOD_US), _QUOTA_LEAST_US)
        if is_v2:
            _write(folder / "cpu.max", f"{quota} {_PERIOD_US}")
        else:
            _write(folder / "cpu.cfs_period_us", str(_PERIOD_US))
            _write(folder / "cpu.cfs_quota_us", str(quota))


def _mkdir(folder: Path) -> None:
    for _ in range(3):  # another process may remove an empty one above meanwhile
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def _remove(folder: Path) -> bool:
    """Remove one cgroup; return True if it is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.EACCES, errno.EPERM):
            raise
        return False
    return True


def _folders(folder: Path) -> Iterator[Path]:
    try:
        yield from [below for below in folder.iterdir() if below.is_dir()]
    except OSError:
        return


def _processes(folder: Path) -> list[int]:
    return sorted(int(line) for line in _read(folder / "cgroup.procs").split())


def _major_faults(folder: Path) -> int:
    for line in _read(folder / "memory.stat").splitlines():
        if line.startswith("pgmajfault "):
            return int(line.split()[1])
    return 0


def _words(path: Path) -> set[str]:
    return set(_read(path).split())


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:  # the error of a write does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from None
