"""Network namespaces for hosts of `onvm cluster dev` and of benchmarks: made here, and removed in
every case.

Needs root. Names contain the process ID, so namespaces of other processes are not touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["Spaces", "check_spaces", "make_spaces"]

NETNS = Path("/run/netns")
CLONE_NEWNET = 0x40000000

ResultT = TypeVar("ResultT")


class Spaces:
    """Namespaces by role."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def name(self, role: str) -> str:
        """The name of a role's namespace."""
        return f"{self.prefix}-{role}"

    def ip(self, role: str, *arguments: str) -> None:
        """Run ``ip`` in a namespace.

        Raises:
            OnvmError: the command fails.
        """
        _run("ip", "-n", self.name(role), *arguments)

    def run(self, role: str, *arguments: str) -> str:
        """Run a command in a namespace; returns its output.

        Raises:
            OnvmError: the command fails.
        """
        return _run(*self.command(role, *arguments))

    def command(self, role: str, *arguments: str) -> list[str]:
        """A command in the form that runs in a namespace."""
        return ["ip", "netns", "exec", self.name(role), *arguments]

    def kill(self, role: str) -> None:
        """Kill all processes of a namespace."""
        _kill(self.name(role))

    def inside(self, role: str, call: Callable[[], ResultT]) -> ResultT:
        """Call a function in a namespace: this thread enters it meanwhile, other threads do not."""
        with (
            (NETNS / self.name(role)).open("rb") as there,
            open("/proc/thread-self/ns/net", "rb") as here,
        ):
            _enter(there.fileno())
            try:
                return call()
            finally:
                _enter(here.fileno())


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OnvmError(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")


def check_spaces(field: str = "cluster dev") -> None:
    """Check that namespaces can be made here.

    Args:
        field: what needs them, for the error.

    Raises:
        ConfigError: this user may not make them, or this machine cannot.
    """
    if os.geteuid() != 0:
        raise ConfigError("expected root, for network namespaces; use sudo", field=field)
    if shutil.which("ip") is None:
        raise ConfigError("expected ip; run: apt-get install iproute2", field=field)


@contextlib.contextmanager
def make_spaces(roles: Sequence[str], folder: Path, *, prefix: str = "onvmdev") -> Iterator[Spaces]:
    """One namespace for each role, with a loopback interface.

    Args:
        folder: folder of their files; removed with them.
        prefix: the beginning of their names.

    Raises:
        ConfigError: this user may not make them, or this machine cannot.
    """
    check_spaces()
    spaces = Spaces(f"{prefix}{os.getpid()}")
    # It cleans up when its pipe closes; no signal can prevent that.
    cleaner = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "onvm_core.cluster.dev.namespaces",
            str(folder),
            *map(spaces.name, roles),
        ],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        for role in roles:
            _run("ip", "netns", "add", spaces.name(role))
            spaces.ip(role, "link", "set", "lo", "up")
        yield spaces
    finally:
        cleaner.communicate()


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OnvmError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _remove(names: Sequence[str]) -> None:
    """End the processes in the namespaces, and remove the namespaces."""
    for name in names:
        if not (NETNS / name).exists():
            continue
        _kill(name)
        subprocess.run(["ip", "netns", "del", name], check=False)


def _kill(name: str) -> None:
    listed = subprocess.run(
        ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
    )
    for pid in listed.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.read()
    _remove(sys.argv[2:])
    shutil.rmtree(sys.argv[1], ignore_errors=True)
