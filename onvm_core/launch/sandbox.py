"""Launcher "sandbox": an NF host that sees only the parts of this host that it needs (bubblewrap).

It has its own network (none), PID, IPC, UTS and, where that is allowed, user and cgroup namespaces;
no capabilities, no way to new privileges, a seccomp filter (`onvm_core.launch.seccomp`), an
environment with only the variables that Python and its libraries read, and a file system of

* the system's programs and libraries, the Python environment, the NF's folder, its configuration
  and the kernels compiled earlier: all read-only;
* /proc, a minimal /dev, the CPUs and nodes of /sys, and a private /tmp of limited size;
* the folder of the attach socket: the only way out.

With the permission ``network`` of an NF, the network is this host's. With ``files`` the whole file
system is that of the manager's user, with the rights of that user.

Three processes belong to it: bwrap outside, the first process of the PID namespace (its end ends
everything inside), and the NF host, whose PID is the one that the manager sees on the attach
socket. They outlive a killed manager only if the NF host should.

The secret goes through a file descriptor. It is neither on a command line nor in the environment of
the outer two processes, so it identifies the NF host itself if a manager was killed before it knew
the PID.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from onvm_core.launch.cgroup import Cgroups
from onvm_core.launch.handles import AdoptedHandle, Fence, StartedHandle
from onvm_core.launch.identity import ProcessId, children, find_by_environment, namespace_init
from onvm_core.launch.launcher import (
    OUTPUT_FOLDER,
    OUTPUT_VARIABLE,
    SECRET_VARIABLE,
    LaunchSpec,
    host_command,
    pinned,
    refuse_options,
)
from onvm_core.launch.limits import Limits
from onvm_core.launch.process import end_left_behind, fenced
from onvm_core.launch.seccomp import make_filter

__all__ = ["SandboxHandle", "SandboxLauncher"]

PROGRAM = "bwrap"
ATTACH_FOLDER = Path("/run/onvm")
TMP_BYTES = 64 << 20
TRIAL_TIMEOUT_S = 10.0

# The parts of the system that programs and libraries need. The rest of /etc stays hidden.
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",  # DPDK's tables count CPUs there
)
# What name resolution and TLS read.
_NETWORK = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
)
_VARIABLES = ("LANG", "LANGUAGE", "LD_LIBRARY_PATH", "PATH", "TZ", "VIRTUAL_ENV")
_PREFIXES = ("LC_", "NUMBA_", "OMP_", "OPENBLAS_", "PYTHON")


class SandboxHandle(StartedHandle):
    """A started NF host in a sandbox; the child process is bwrap.

    Args:
        info: descriptor of the memory file in which bwrap reports the process it has started.
        fence: the cgroup of all three processes.
    """

    is_around = True

    def __init__(
        self, spec: LaunchSpec, process: subprocess.Popen[bytes], info: int, fence: Fence
    ) -> None:
        super().__init__(spec, process, fence)
        self._info = info
        self._init: ProcessId | None = None
        self._host: ProcessId | None = None

    @property
    def pid(self) -> int:
        """Process ID of the NF host inside, as seen from outside; 0 while there is none yet."""
        if self._host is None:
            init = self._first_inside()
            # Processes that the NF host starts may become children of `init` too, but later.
            self._host = next(iter(children(init.pid)), None) if init is not None else None
        return self._host.pid if self._host is not None else 0

    def stop(self) -> None:
        """Ask it to finish the packets it holds and leave; if it has not begun yet, end it."""
        if self._process.poll() is None:
            if self.pid and self._host is not None:
                self._host.send(signal.SIGTERM)
            else:
                self.kill()

    def kill(self) -> None:
        """End it, and every process it has started, at once."""
        if self._process.poll() is None:
            self._fence.note_shortage()
        self._end_inside()
        self._kill_process()
        self._fence.open()

    def _clear_up(self, status: int) -> None:
        self._end_inside()  # bwrap may have been killed by itself, or an NF may have left a child
        super()._clear_up(status)

    def _first_inside(self) -> ProcessId | None:
        """The first process of its PID namespace, once bwrap has made it."""
        if self._init is None and self._info >= 0:
            try:
                said = json.loads(os.pread(self._info, 4096, 0))
            except ValueError:  # not yet, or not completely
                return None
            self._init = ProcessId.of(said["child-pid"])
            os.close(self._info)
            self._info = -1
        return self._init

    def _end_inside(self) -> None:
        first = self._first_inside()
        if first is not None:
            first.send(signal.SIGKILL)
            return
        # Very early, or never: the process that bwrap has made waits for it, maybe forever.
        found = find_by_environment(SECRET_VARIABLE, self.spec.secret)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)  # it makes nothing while we look
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            found += children(self._process.pid)
        for process in found:
            process.send(signal.SIGKILL)

    def __del__(self) -> None:
        if self._info >= 0:
            os.close(self._info)


class SandboxLauncher:
    """Starts NF hosts in sandboxes."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        refuse_options(options or {})

    def obstacle(self) -> str:
        """The reason why no sandbox can be made here, in one line; "" if one was made."""
        if shutil.which(PROGRAM) is None:
            return "bubblewrap is not installed; run: sudo apt-get install bubblewrap"
        arguments = [*_isolation(survives=False), *_own_files(), *_system(), "--remount-ro", "/"]
        try:
            tried = subprocess.run(
                [PROGRAM, *arguments, "--", "true"],
                capture_output=True,
                text=True,
                timeout=TRIAL_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap cannot make a sandbox here: {error}"
        if tried.returncode == 0:
            return ""
        said = (tried.stderr.strip().splitlines() or [f"status {tried.returncode}"])[-1]
        return f"bubblewrap cannot make a sandbox here: {said.removeprefix(f'{PROGRAM}: ')}"

    @cached_property
    def cgroups(self) -> Cgroups:
        """The cgroups of its NF hosts."""
        return Cgroups()

    def unenforced(self, limits: Limits) -> Mapping[str, str]:
        """Limits that cgroups do not enforce here."""
        return self.cgroups.unenforced(limits)

    def launch(self, spec: LaunchSpec) -> SandboxHandle:
        """Start an NF host; it attaches by itself."""
        cgroup = fenced(self.cgroups, spec)
        program = make_filter(has_network=spec.has_network)
        info = os.memfd_create("onvm-sandbox-info")
        opened = [info]
        try:
            with open(spec.log_path, "ab") as log, pinned(spec.cpus):
                arguments = [*_arguments(spec), "--info-fd", str(info)]
                if program:
                    opened.append(_memory_file(program))
                    arguments += ["--seccomp", str(opened[-1])]
                opened.append(_memory_file(b"".join(os.fsencode(a) + b"\0" for a in arguments)))
                attach_path = spec.attach_path
                if not spec.has_files:
                    attach_path = ATTACH_FOLDER / attach_path.name
                command = host_command(spec, attach_path=attach_path)
                outer = subprocess.Popen(
                    cgroup.command([PROGRAM, "--args", str(opened[-1]), "--", *command]),
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=opened,
                    # Ctrl-C is for the manager; it stops its NFs in order.
                    start_new_session=True,
                )
        except BaseException:
            os.close(info)
            self.cgroups.discard(cgroup)
            raise
        finally:
            for descriptor in opened[1:]:
                os.close(descriptor)
        return SandboxHandle(spec, outer, info, Fence(spec, self.cgroups, cgroup))

    def adopt(self, spec: LaunchSpec, process: ProcessId) -> AdoptedHandle:
        """Take over an NF host of an earlier manager."""
        first = namespace_init(process)
        fence = Fence(spec, self.cgroups, self.cgroups.find(process.pid))
        return AdoptedHandle(spec, process, () if first is None else (first,), fence)

    def clean(self, spec: LaunchSpec) -> None:
        """End the processes that an NF host had started, and remove its cgroup."""
        end_left_behind(spec)
        self.cgroups.sweep()


def _memory_file(content: bytes) -> int:
    """A descriptor from which `content` can be read."""
    descriptor = os.memfd_create("onvm-sandbox")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _environment() -> dict[str, str]:
    """The part of the manager's environment that Python and its libraries read."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _VARIABLES or name.startswith(_PREFIXES)
    }


def _isolation(*, survives: bool, has_network: bool = False) -> list[str]:
    """Namespaces, and what a process may do in them."""
    arguments = [
        "--unshare-user-try",
        "--unshare-cgroup-try",
        *([] if has_network else ["--unshare-net"]),
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--hostname",
        "onvm-nf",
        "--cap-drop",
        "ALL",
    ]
    return arguments if survives else [*arguments, "--die-with-parent"]


def _own_files() -> list[str]:
    """The kernel's file systems that a process needs, and a private /tmp."""
    return [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--size",
        str(TMP_BYTES),
        "--tmpfs",
        "/tmp",
        # For DPDK's tables: root's lock is in one, and without the other DPDK does not start.
        "--symlink",
        "/tmp",
        "/var/run",
        "--dir",
        "/sys/module",
        "--chdir",
        "/tmp",
    ]


def _system() -> Iterator[str]:
    for place in _SYSTEM:
        path = Path(place)
        if path.is_symlink():  # of a merged /usr
            yield from ("--symlink", str(path.readlink()), place)
        elif path.exists():
            yield from ("--ro-bind", place, place)


def _arguments(spec: LaunchSpec) -> Iterator[str]:
    yield from _isolation(survives=spec.survives_manager, has_network=spec.has_network)
    yield from _all_files(spec) if spec.has_files else _few_files(spec)
    yield from ("--setenv", SECRET_VARIABLE, spec.secret)


def _all_files(spec: LaunchSpec) -> Iterator[str]:
    """The file system as it is, but for /proc and devices."""
    yield from ("--bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        if name in os.environ:
            yield from ("--setenv", name, os.environ[name])
    if spec.output is not None:
        yield from ("--setenv", OUTPUT_VARIABLE, str(spec.output))


def _few_files(spec: LaunchSpec) -> Iterator[str]:
    """Only what the NFs need: read-only, but for /tmp and the output folder."""
    yield from _own_files()
    yield from _system()
    if spec.has_network:
        for place in _NETWORK:
            yield from ("--ro-bind-try", os.path.realpath(place), place)
    files = [path.absolute() for path in (*spec.configs.values(), *spec.files, *spec.folders)]
    for path in _outermost([*_python_folders(), *files]):
        yield from ("--ro-bind", str(path), str(path))
    # The folder, not the socket: after a restart of the manager it contains another socket.
    yield from ("--ro-bind", str(spec.attach_path.parent), str(ATTACH_FOLDER))
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    yield from ("--ro-bind-try", str(home / "onvm"), "/tmp/.cache/onvm")
    if spec.output is not None:
        yield from ("--bind", str(spec.output), OUTPUT_FOLDER)
        yield from ("--setenv", OUTPUT_VARIABLE, OUTPUT_FOLDER)
    yield from ("--remount-ro", "/")
    for name, value in {
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "XDG_CACHE_HOME": "/tmp/.cache",
        "XDG_RUNTIME_DIR": "/tmp",
    }.items():
        yield from ("--setenv", name, value)


def _python_folders() -> list[Path]:
    """The folders of this interpreter and of all that it can import; links and their targets."""
    names = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path]
    names += [os.environ[name] for name in ("NUMBA_CACHE_DIR",) if name in os.environ]
    paths = [Path(name).absolute() for name in names if name]
    return [*paths, *(path.resolve() for path in paths)]


def _outermost(paths: Sequence[Path]) -> list[Path]:
    """The folders that exist and are not inside another of them, or of those every sandbox has."""
    kept: list[Path] = []
    for path in sorted(set(paths), key=lambda path: len(path.parts)):
        inside = any(path.is_relative_to(outer) for outer in [*kept, *map(Path, _SYSTEM)])
        if path.exists() and not inside and path != Path("/"):
            kept.append(path)
    return kept
