"""After kill -9 of everything the next start finds nothing in its way, and leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import ONVM
from up_host import HOP_CONFIG

from onvm_core.launch.cgroup_tree import read_trees
from onvm_core.launch.engine import find_engine
from onvm_core.launch.identity import ProcessId, namespace_init

if TYPE_CHECKING:
    from up_host import Host


def cgroups_of(manager: int) -> list[Path]:
    return [
        folder
        for tree in read_trees()
        for base in (tree.own, *tree.above)
        for folder in base.glob(f"onvm/*-{manager}-*/*")
    ]


def with_parents(process: ProcessId, manager: int) -> list[ProcessId]:
    """A process and those above it, up to the manager or the first process of the host."""
    found = [process]
    while True:
        status = Path(f"/proc/{found[-1].pid}/status").read_text().splitlines()
        parent = int(next(line.split()[1] for line in status if line.startswith("PPid:")))
        above = ProcessId.of(parent)
        if above is None or parent in (1, manager) or b"conmon" not in command(parent):
            return found
        found.append(above)


def contained_cgroups() -> set[str]:
    """Containers that have a cgroup of the engine's."""
    top = Path("/sys/fs/cgroup")
    found = [*top.glob("**/libpod-*"), *top.glob("**/docker/*"), *top.glob("**/docker-*")]
    return {path.name for path in found if path.is_dir()}


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_start_after_everything_was_killed(host: Host, launcher: str) -> None:
    host.configure(HOP_CONFIG.replace("LAUNCHER", launcher))
    others = contained_cgroups()
    host.do("up", "-d")
    manager = host.manager_pid()
    nf = ProcessId.of(host.nf_pids()["hop-1"])
    assert nf is not None
    first = namespace_init(nf)
    assert launcher != "container" or contained_cgroups() - others
    # conmon last of all would remove the container: it goes first.
    victims = [*reversed(with_parents(nf, manager)), *([first] if first else [])]
    os.kill(manager, signal.SIGKILL)
    for victim in victims:
        victim.send(signal.SIGKILL)
    for victim in victims:
        assert victim.wait(10)

    host.configure(HOP_CONFIG.replace("LAUNCHER", "process"))  # nothing of it is wanted any more
    host.do("up", "-d")
    host.wait(lambda: not cgroups_of(manager))
    if launcher == "container":
        host.wait(lambda: not find_engine().containers())
        host.wait(lambda: not contained_cgroups() - others)
    host.wait(lambda: host.status()["report"]["tx"] > 100)
    second = host.manager_pid()
    report = host.json("down")["report"]
    assert report["buffers"]["free"] == report["buffers"]["total"]
    host.wait(lambda: not cgroups_of(second))
    host.wait(lambda: not list(host.runtime.glob("**/*.sock")))
    host.wait(lambda: not list(host.runtime.glob("main/*.json")))


@pytest.fixture
def interface() -> Iterator[list[str]]:
    """A command that runs another in a network namespace with interfaces near and far."""
    name = f"onvm-xdp-{os.getpid()}"
    made = shutil.which("ip") and subprocess.run(
        ["ip", "netns", "add", name], capture_output=True, check=False
    )
    if not made or made.returncode != 0:
        pytest.skip("cannot make a network namespace here")
    inside = ["ip", "netns", "exec", name]
    try:
        for arguments in (
            ("link", "add", "near", "type", "veth", "peer", "name", "far"),
            ("link", "set", "near", "up"),
            ("link", "set", "far", "up"),
        ):
            subprocess.run([*inside, "ip", *arguments], check=True)
        yield inside
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def test_xdp_program_of_a_killed_run_is_replaced_and_goes(host: Host, interface: list[str]) -> None:
    def programs() -> int:
        shown = subprocess.run(
            [*interface, "ip", "link", "show", "near"], capture_output=True, text=True, check=True
        )
        return shown.stdout.count("prog/xdp")

    options = ["run", "--in", "af_xdp:near", "--out", "null:", "--chain", ""]
    with subprocess.Popen(
        [*interface, *ONVM, *options],
        env=host.environment,
        cwd=host.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            host.wait(lambda: run.poll() is not None or programs() == 1)
        finally:
            run.kill()
        assert run.stderr is not None
        said = run.stderr.read()
    if run.returncode != -signal.SIGKILL:
        pytest.skip(f"no XDP here: {said.strip()}")
    assert programs() == 1
    done = subprocess.run(
        [*interface, *ONVM, *options, "--duration", "0.2"],
        env=host.environment,
        cwd=host.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert programs() == 0
