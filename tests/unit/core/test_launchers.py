"""Launchers by name: what is offered, what is refused, and how."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onvm_core.launch.handles import AdoptedHandle
from onvm_core.launch.identity import ProcessId, children, find_by_environment, namespace_init
from onvm_core.launch.launcher import Launchers, LaunchSpec, host_command, log_tail, pinned
from onvm_core.plugins import Offer
from onvm_sdk.errors import ConfigError


class Lame:
    """A launcher that cannot work."""

    made = 0

    def __init__(self) -> None:
        Lame.made += 1

    def obstacle(self) -> str:
        return "the kernel has no wings"


class Fine(Lame):
    """One that can."""

    def obstacle(self) -> str:
        return ""


OFFERS = {
    "fine": Offer("fine", "works", Fine),
    "lame": Offer("lame", "does not", Lame),
    "lost": Offer("lost", "is not there", "onvm_core.no_such_module:Launcher"),
}


def test_launcher_is_made_once_and_only_when_wanted() -> None:
    Lame.made = 0
    launchers = Launchers(OFFERS)
    assert launchers.names == ["fine", "lame", "lost"]
    assert launchers.get("fine") is launchers.get("fine")
    assert Lame.made == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("none", "onvm.toml: nfs.hop.launcher: 'none': expected one of fine, lame, lost"),
        (
            "lame",
            "onvm.toml: nfs.hop.launcher: 'lame': expected a launcher that works here: "
            "the kernel has no wings",
        ),
    ],
)
def test_refusal_names_file_field_value_and_reason(name: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Launchers(OFFERS).get(name, file=Path("onvm.toml"), field="nfs.hop.launcher")
    assert str(caught.value) == line


def test_installed_plugins_offer_the_built_in_ones() -> None:
    assert {"process", "sandbox"} <= set(Launchers().names)


def test_command_of_an_nf_host_says_what_the_spec_says(tmp_path: Path) -> None:
    spec = LaunchSpec(
        nfs=("a", "b"),
        attach_path=tmp_path / "s",
        secret="hush",
        log_path=tmp_path / "log",
        instances=("a-1", "b-1"),
        configs={"b": tmp_path / "b.toml"},
    )
    command = host_command(spec)
    assert command[: command.index("--socket")] == [
        sys.executable,
        "-P",
        "-m",
        "onvm_sdk.runtime",
    ]
    rest = " ".join(command[command.index("--socket") :])
    assert rest == (
        f"--socket {tmp_path}/s --nf a,b --instance a-1,b-1 --config b={tmp_path}/b.toml "
        "--leave-with-manager"
    )
    assert "hush" not in rest  # every user of the host can read command lines


def test_child_is_pinned_and_this_thread_is_not() -> None:
    before = os.sched_getaffinity(0)
    cpu = max(before)
    with pinned([cpu]):
        seen = subprocess.check_output(
            [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], text=True
        )
    assert seen.strip() == str({cpu})
    assert os.sched_getaffinity(0) == before


def test_processes_are_found_by_their_secret_oldest_first(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True);"
        "sys.stdin.read(); c.kill(); c.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ONVM_TEST_SECRET": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        # A process that begins another program has no environment for a moment.
        deadline = time.monotonic() + 10
        found = find_by_environment("ONVM_TEST_SECRET", str(tmp_path))
        while len(found) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
            found = find_by_environment("ONVM_TEST_SECRET", str(tmp_path))
        assert [one.pid for one in found] == [process.pid, child]
        assert [one.pid for one in children(process.pid)] == [child]
        assert namespace_init(found[1]) is None
    assert find_by_environment("ONVM_TEST_SECRET", str(tmp_path)) == []


def test_handle_of_an_adopted_host_ends_what_is_around_it_too(tmp_path: Path) -> None:
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    ids = [ProcessId.of(one.pid) for one in sleepers]
    assert ids[0] is not None and ids[1] is not None
    spec = LaunchSpec(nfs=("a",), attach_path=tmp_path, secret="", log_path=tmp_path / "log")
    handle = AdoptedHandle(spec, ids[0], [ids[1]])
    try:
        assert handle.poll() is None
        handle.stop()
        sleepers[0].wait(10)
        assert handle.poll() == 0
        assert sleepers[1].wait(10) == -9
    finally:
        for one in sleepers:
            one.kill()
            one.wait()


def test_log_tail_is_short_whatever_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_tail(log) == []
    log.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(10_000)))
    lines = log_tail(log)
    assert len(lines) == 20
    assert lines[-1] == "line 9999 �"
