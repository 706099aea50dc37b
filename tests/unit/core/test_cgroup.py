"""Cgroups: which there are on hosts of each kind, where NF hosts go, and what is cleaned up."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onvm_core.launch import cgroup
from onvm_core.launch.cgroup import NO_CGROUP, Cgroup, Cgroups
from onvm_core.launch.cgroup_tree import Tree, kind_of, parse_trees, read_trees
from onvm_core.launch.handles import Fence
from onvm_core.launch.identity import ProcessId
from onvm_core.launch.launcher import LaunchSpec
from onvm_core.launch.limits import Limits, describe_unenforced

# /proc/self/mountinfo and /proc/self/cgroup as hosts have them; mounts of other kinds shortened.
V1 = (
    """\
23 29 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
30 23 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct
36 30 0:32 / /sys/fs/cgroup/memory rw,nosuid,nodev shared:16 - cgroup cgroup rw,memory
37 30 0:33 / /sys/fs/cgroup/cpuset rw,nosuid,nodev shared:17 - cgroup cgroup rw,cpuset
""",
    """\
6:cpuset:/
5:memory:/user.slice/user-1000.slice/session-2.scope
4:cpu,cpuacct:/user.slice
1:name=systemd:/user.slice/user-1000.slice/session-2.scope
""",
)
HYBRID = (
    V1[0]
    + "31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n",
    V1[1] + "0::/user.slice/user-1000.slice/session-2.scope\n",
)
V2 = (
    """\
24 31 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
34 24 0:29 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate
""",
    "0::/user.slice/user-0.slice/session-4.scope\n",
)
# A container that shares the host's cgroup namespace sees its own cgroup as the root of a mount.
V1_CONTAINER = (
    """\
612 611 0:31 /docker/4f1a /sys/fs/cgroup/memory ro,nosuid master:16 - cgroup cgroup rw,memory
613 611 0:32 /docker/4f1a /sys/fs/cgroup/cpuset ro,nosuid master:17 - cgroup cgroup rw,cpuset
""",
    "5:memory:/docker/4f1a\n4:cpuset:/docker/4f1a/inner\n",
)
V2_CONTAINER = (
    "722 720 0:29 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n",
    "0::/\n",
)
ELSEWHERE = (V2[0].replace(" / /sys/fs/cgroup ", " /lxc /sys/fs/cgroup "), "0::/../other\n")
SPACE = (
    "34 24 0:29 / /mnt/c\\040groups rw shared:9 - cgroup2 cgroup2 rw\n",
    "0::/a\n",
)
SESSION = "user.slice/user-1000.slice/session-2.scope"


@pytest.mark.parametrize(
    ("texts", "kind", "own"),
    [
        (
            V1,
            "v1",
            {
                "cpu,cpuacct": "cpu,cpuacct/user.slice",
                "memory": f"memory/{SESSION}",
                "cpuset": "cpuset",
            },
        ),
        (
            HYBRID,
            "hybrid",
            {
                "cpu,cpuacct": "cpu,cpuacct/user.slice",
                "memory": f"memory/{SESSION}",
                "cpuset": "cpuset",
                "": f"unified/{SESSION}",
            },
        ),
        (V2, "v2", {"": "user.slice/user-0.slice/session-4.scope"}),
        (V1_CONTAINER, "v1", {"memory": "memory", "cpuset": "cpuset/inner"}),
        (V2_CONTAINER, "v2", {"": ""}),
        (ELSEWHERE, "none", {}),
        (("", ""), "none", {}),
        (("not a line\n1 2\n - cgroup2\n", "0\n::\nx:y\n"), "none", {}),
    ],
)
def test_trees_of_each_kind_of_host(texts: tuple[str, str], kind: str, own: dict[str, str]) -> None:
    trees = parse_trees(*texts)
    assert kind_of(trees) == kind
    assert {",".join(sorted(tree.controllers)): tree.own for tree in trees} == {
        name: Path("/sys/fs/cgroup") / path for name, path in own.items()
    }


def test_mount_point_with_a_space() -> None:
    (tree,) = parse_trees(*SPACE)
    assert tree == Tree(2, frozenset(), Path("/mnt/c groups"), Path("/mnt/c groups/a"))
    assert tree.above == [Path("/mnt/c groups")]


def test_this_host_is_read() -> None:
    for tree in read_trees():
        assert str(os.getpid()) in (tree.own / "cgroup.procs").read_text().split()


# ---- v2, as far as plain files can show it: where NF hosts go and what is written there ----


class Tall:
    """A root with a v2 tree: cgroups with their controllers, those for children, and processes."""

    def __init__(self, root: Path, own: str) -> None:
        self.root = root
        self.top = root / "sys/fs/cgroup"
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/mountinfo").write_text(V2[0])
        (root / "proc/self/cgroup").write_text(f"0::{own}\n")
        self.own = self.add(own.lstrip("/"))

    def add(self, path: str, has: str = "", gives: str = "", processes: str = "") -> Path:
        folder = self.top / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.controllers").write_text(has)
        (folder / "cgroup.subtree_control").write_text(gives)
        (folder / "cgroup.procs").write_text(processes)
        if path:
            (folder / "cgroup.type").write_text("domain")
        return folder


LIMITS = Limits(cpus=(1, 3), memory_mib=64, cpu_quota=0.25)
ALL = "cpuset cpu io memory pids"


def test_v2_with_the_cgroup_to_itself_takes_it(tmp_path: Path) -> None:
    host = Tall(tmp_path, "/system.slice/onvm.service")
    own = host.add("system.slice/onvm.service", ALL, ALL)
    cgroups = Cgroups(tmp_path)
    assert cgroups.unenforced(LIMITS) == {}
    made = cgroups.make("fw+nat-1/x", LIMITS)
    (folder,) = made.folders
    assert folder.parent.parent == own / "onvm"
    assert folder.name == "fw+nat-1_x"
    written = {
        name: (folder / name).read_text() for name in ("cpuset.cpus", "memory.max", "cpu.max")
    }
    assert written == {
        "cpuset.cpus": "1,3",
        "memory.max": str(64 << 20),
        "cpu.max": "2500 10000",
    }
    assert (folder.parent / "cgroup.subtree_control").read_text().startswith("+")


def as_the_kernel(top: Path, write: Callable[[Path, str], None]) -> Callable[[Path, str], None]:
    """Writes to cgroups below `top` with the kernel's rules for processes (cgroups(7))."""

    def checked(path: Path, text: str) -> None:
        if path.name == "cgroup.procs":
            for other in top.rglob(path.name):
                other.write_text(other.read_text().replace(f"{text}\n", ""))
            write(path, f"{text}\n")
        elif path.name == "cgroup.subtree_control":
            name, before = text.removeprefix("+"), path.read_text() if path.exists() else ""
            if _read_processes(path.parent):
                if name == "memory":
                    raise OSError(errno.EBUSY, "processes are in it")
                (path.parent / "cgroup.type").write_text("domain threaded")
            write(path, f"{before} {name}".strip())
        else:
            write(path, text)

    return checked


def _read_processes(folder: Path) -> str:
    path = folder / "cgroup.procs"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("controllers", ["memory pids", ALL])
def test_v2_alone_in_its_cgroup_moves_into_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, controllers: str
) -> None:
    host = Tall(tmp_path, "/system.slice/onvm.service")
    own = host.add("system.slice/onvm.service", controllers, "", f"{os.getpid()}\n")
    monkeypatch.setattr(cgroup, "_write", as_the_kernel(host.top, cgroup._write))
    cgroups = Cgroups(tmp_path)
    lacking = {"CPU set", "CPU quota"} if controllers != ALL else set()
    assert set(cgroups.unenforced(LIMITS)) == lacking
    assert not (own / "onvm").exists()  # only asked
    (folder,) = cgroups.make("a", LIMITS).folders
    assert (folder / "memory.max").read_text() == str(64 << 20)
    assert (folder / "cpuset.cpus").exists() == (not lacking)
    (moved,) = own.glob("onvm/*/manager/cgroup.procs")
    assert moved.read_text() == f"{os.getpid()}\n"
    assert set((own / "cgroup.subtree_control").read_text().split()) == (
        {"memory"} if lacking else {"memory", "cpu", "cpuset"}
    )
    # With processes inside it would be "domain threaded", whose children take none.
    assert (own / "cgroup.type").read_text() == "domain"
    assert set(cgroups.unenforced(LIMITS)) == lacking


def test_v2_beside_others_uses_what_is_given_above_and_changes_nothing(tmp_path: Path) -> None:
    host = Tall(tmp_path, "/user.slice/user-0.slice/session-4.scope")
    host.add("", ALL, ALL)
    above = host.add("user.slice/user-0.slice", "memory pids", "memory pids")
    host.add("user.slice", "cpu memory pids", "memory pids")
    own = host.add("user.slice/user-0.slice/session-4.scope", "memory pids", "", "1\n2\n")
    cgroups = Cgroups(tmp_path)
    # The root gives most of what is wanted.
    (folder,) = cgroups.make("a", LIMITS).folders
    assert folder.parent.parent == host.top / "onvm"
    host.add("", ALL, "memory pids")
    cgroups = Cgroups(tmp_path)
    assert cgroups.unenforced(LIMITS).keys() == {"CPU set", "CPU quota"}
    (folder,) = cgroups.make("b", LIMITS).folders
    assert folder.parent.parent == above / "onvm"
    assert not (folder / "cpuset.cpus").exists()
    assert not (own / "onvm").exists()
    assert (above / "cgroup.subtree_control").read_text() == "memory pids"


def test_v2_where_nothing_can_be_made_says_why(tmp_path: Path) -> None:
    host = Tall(tmp_path, "/session-4.scope")
    host.add("session-4.scope", "memory", "", "1\n2\n")
    host.add("", "memory", "")
    lacking = Cgroups(tmp_path).unenforced(Limits((), 64))
    reason = lacking["memory limit"]
    assert "other processes are in" in reason or reason.endswith("has no 'memory'")
    assert Cgroups(tmp_path).make("a", Limits((), 64)) == NO_CGROUP


def test_host_without_cgroups_says_so_once(tmp_path: Path) -> None:
    cgroups = Cgroups(tmp_path)
    assert describe_unenforced(cgroups.unenforced(LIMITS)) == (
        "no CPU set: no cgroups with 'cpuset' are mounted; "
        "no memory limit: no cgroups with 'memory' are mounted; "
        "no CPU quota: no cgroups with 'cpu' are mounted"
    )
    assert cgroups.make("a", LIMITS) == NO_CGROUP
    assert NO_CGROUP.command(["true"]) == ["true"]


def test_same_reason_is_said_once() -> None:
    assert describe_unenforced({"CPU set": "why", "memory limit": "why"}) == (
        "no CPU set and no memory limit: why"
    )
    assert describe_unenforced({}) == ""


# ---- the real thing ----

HOG = "b = bytearray({mib} << 20); b[::4096] = bytes(len(b[::4096])); print(len(b))"


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    """Those of this process; only where they can be made."""
    made = Cgroups()
    lacking = describe_unenforced(made.unenforced(Limits((cpu(),), 64, 1.0)))
    if lacking:
        pytest.skip(f"cgroups cannot be made here: {lacking}")
    yield made
    made.sweep()


def cpu() -> int:
    return max(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("used", "faults", "is_short"), [(159, 26, True), (159, 0, False), (100, 26, False)]
)
@pytest.mark.parametrize(
    "names",
    [("memory.usage_in_bytes", "memory.limit_in_bytes"), ("memory.current", "memory.max")],
)
def test_want_of_memory_is_seen_and_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, str],
    used: int,
    faults: int,
    is_short: bool,
) -> None:
    def sleep(seconds: float) -> None:
        assert seconds <= 0.1
        (tmp_path / "memory.stat").write_text(f"cache 5\npgmajfault {900 + faults}\n")

    monkeypatch.setattr(cgroup.time, "sleep", sleep)
    limits = Limits((cpu(),), 160, None)
    for name, text in (
        (names[0], f"{used << 20}\n"),
        (names[1], f"{160 << 20}\n"),
        ("memory.stat", "cache 5\npgfault 90000\npgmajfault 900\n"),
    ):
        (tmp_path / name).write_text(text)
    fenced = Cgroup((tmp_path / "cpuset", tmp_path))
    spec = LaunchSpec(("router",), tmp_path, "secret", tmp_path / "log", limits=limits)
    Fence(spec, Cgroups(), fenced).note_shortage()
    assert spec.log_path.exists() == is_short
    if is_short:
        assert spec.log_path.read_text() == (
            "onvm: slowed down: it reads its files again and again, for want of memory; "
            "its limit is 160 MiB (memory_mib in its manifest)\n"
        )


def test_no_limit_is_no_want_of_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.stat").write_text("pgmajfault 90000\n")
    assert not Cgroup((tmp_path,)).is_short_of_memory()


def test_limits_hold_and_the_cgroup_goes_with_its_processes(cgroups: Cgroups) -> None:
    cgroup = cgroups.make("hog", Limits((cpu(),), 64, 0.5))
    enough = subprocess.run(
        cgroup.command([sys.executable, "-c", HOG.format(mib=16)]), check=False, timeout=60
    )
    assert (enough.returncode, cgroup.memory_kills()) == (0, 0)
    too_much = subprocess.run(
        cgroup.command([sys.executable, "-c", HOG.format(mib=200)]), check=False, timeout=60
    )
    assert too_much.returncode == -signal.SIGKILL
    assert cgroup.memory_kills() >= 1

    command = "import os, time; print(sorted(os.sched_getaffinity(0)), flush=True); time.sleep(60)"
    with subprocess.Popen(
        cgroup.command([sys.executable, "-c", command]), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"[{cpu()}]\n"
        assert cgroup.processes() == [process.pid]
        assert cgroups.find(process.pid) == Cgroup(tuple(sorted(cgroup.folders)))
        deadline = time.monotonic() + 10
        while not cgroup.remove() and time.monotonic() < deadline:
            pass
        assert process.wait(10) == -signal.SIGKILL
    assert not any(folder.exists() for folder in cgroup.folders)
    assert not any(folder.parent.exists() for folder in cgroup.folders)


def test_limit_that_cannot_be_is_an_error_and_leaves_nothing(cgroups: Cgroups) -> None:
    with pytest.raises(OSError, match="cgroup"):
        cgroups.make("nowhere", Limits((4095,), 64))
    assert not any(cgroups.find(pid).folders for pid in (os.getpid(),))
    assert not list_own()


def list_own() -> list[Path]:
    """Cgroups that this process has made."""
    return [
        folder
        for tree in read_trees()
        for base in (tree.own, *tree.above)
        for folder in base.glob(f"onvm/*-{os.getpid()}-*/*")
        if folder.name != "manager"
    ]


KILLED = """
import os, subprocess, sys
from onvm_core.launch.cgroup import Cgroups
from onvm_core.launch.limits import Limits
cgroups = Cgroups()
empty = cgroups.make("empty", Limits((), 64))
used = cgroups.make("used", Limits((), 64))
left = subprocess.Popen(used.command(["sleep", "120"]), stdout=subprocess.DEVNULL)
while left.pid not in used.processes():
    pass
print(left.pid, empty.folders[0], used.folders[0], flush=True)
sys.stdin.read()
"""


def test_empty_cgroups_of_dead_managers_go_and_nobody_elses(cgroups: Cgroups) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", KILLED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as manager:
        assert manager.stdout is not None
        pid, empty, used = manager.stdout.readline().split()
        left = ProcessId.of(int(pid))
        assert left is not None
        try:
            cgroups.sweep()
            assert Path(empty).exists()  # its manager lives
            manager.kill()
            manager.wait()
            Cgroups()
            assert not Path(empty).exists()
            assert left.is_alive
            assert Path(used).exists()  # it may be an NF host that waits for its next manager
        finally:
            left.send(signal.SIGKILL)
    assert left.wait(10)
    deadline = time.monotonic() + 10
    while Path(used).parent.exists() and time.monotonic() < deadline:
        cgroups.sweep()
    assert not Path(used).parent.exists()
