"""Launcher "container": an NF host in a container of podman or docker.

The container's file system is an image that ``onvm nf image`` has made from the packages installed
here (`onvm_core.launch.image`). It is read-only except for a private /tmp; there is no network, no
capability, no way to new privileges, and the engine's own seccomp filter, made tighter. CPUs and
memory are limited by the engine. The only part of the host that it sees is the folder of the attach
socket.

Configuration files, and files that they name, come as a tar archive on its standard input. They are
copies in memory, at the same paths as here, and no other process sees them.

With the permission ``network`` of an NF, the network is this host's. It cannot get ``files``.

The engine's command line runs as long as the container (`process`): its exit status is that of the
NF host. With podman the NF host writes to its log directly. When everything has been killed, the
engine may still list the container: `ContainerLauncher` removes the containers of dead managers.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import tarfile
import time
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from onvm_core.launch.cgroup import is_abandoned, owner
from onvm_core.launch.engine import OWNER_LABEL, Engine, find_engine
from onvm_core.launch.handles import AdoptedHandle, StartedHandle
from onvm_core.launch.identity import ProcessId, find_by_environment
from onvm_core.launch.image import ATTACH_FOLDER, reference
from onvm_core.launch.launcher import (
    OUTPUT_FOLDER,
    OUTPUT_VARIABLE,
    SECRET_VARIABLE,
    LaunchSpec,
    host_arguments,
    pinned,
    refuse_options,
)
from onvm_core.launch.limits import Limits
from onvm_core.launch.process import end_left_behind
from onvm_core.launch.sandbox import TMP_BYTES
from onvm_core.launch.seccomp import make_filter
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["ContainerHandle", "ContainerLauncher"]

LOOK_S = 0.05
KILL_TIMEOUT_S = 5.0
_VARIABLES = re.compile(r"(?:LANG|LC_|TZ$|NUMBA_(?!CACHE_DIR)|OMP_|OPENBLAS_)")
_IN_THE_IMAGE = tuple(map(Path, ("/opt/onvm", "/proc", "/sys", "/dev", "/run/onvm")))


class ContainerHandle(StartedHandle):
    """A started NF host in a container; the child process is the engine's command line."""

    is_around = True

    def __init__(
        self, spec: LaunchSpec, process: subprocess.Popen[bytes], engine: Engine, name: str
    ) -> None:
        super().__init__(spec, process)
        self._engine = engine
        self._name = name
        self._host: ProcessId | None = None
        self._looked_at = 0.0
        self._memory_kills = _memory_kills()

    @property
    def pid(self) -> int:
        """Process ID of the NF host inside, as seen from outside; 0 while there is none yet."""
        now = time.monotonic()
        if self._host is None and now - self._looked_at > LOOK_S:
            self._looked_at = now
            found = find_by_environment(SECRET_VARIABLE, self.spec.secret)
            self._host = found[0] if found else None
        return self._host.pid if self._host is not None else 0

    def stop(self) -> None:
        """Ask it to finish the packets it holds and leave; if it has not begun yet, end it."""
        if self._process.poll() is None:
            if self.pid and self._host is not None and _catches(self._host, signal.SIGTERM):
                self._host.send(signal.SIGTERM)
            else:
                self.kill()

    def kill(self) -> None:
        """End it, and every process it has started, at once."""
        self._looked_at = 0.0
        if self._process.poll() is None and self.pid and self._host is not None:
            self._host.send(signal.SIGKILL)  # the first process of its PID namespace
            if self.wait(KILL_TIMEOUT_S) is not None:
                return
        self._remove_when_made()
        self._kill_process()
        self.poll()

    def _remove_when_made(self) -> None:
        # If the command line is killed while the container is being made, the container stays:
        # docker's daemon continues with it, and podman does not list it yet.
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._engine.has_container(self._name):
                self._remove()
            time.sleep(LOOK_S)

    def _clear_up(self, status: int) -> None:
        if self._process.returncode < 0:  # it ended by itself: its container may still be there
            self._remove()
        elif status == -signal.SIGKILL and _memory_kills() > self._memory_kills:
            self._say_memory()

    def _remove(self) -> None:
        end_left_behind(self.spec)
        self._engine.remove(self._name)

    def _say_memory(self) -> None:
        # The container is gone, and with it the kernel's count of its processes.
        limit = f"; its limit is {self.spec.limits.memory_mib} MiB" if self.spec.limits else ""
        with open(self.spec.log_path, "a", encoding="utf-8") as log:
            log.write(f"onvm: killed when the kernel ended processes for want of memory{limit}\n")


class ContainerLauncher:
    """Starts NF hosts in containers.

    Args:
        options: ``engine``: podman or docker; default: the first that works.

    Raises:
        ConfigError: an option is wrong.
    """

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        refuse_options(options or {}, ["engine"])
        self._choice = str((options or {}).get("engine", ""))
        self._found: Engine | None = None
        self._images: set[str] = set()

    @property
    def _engine(self) -> Engine:
        if self._found is None:
            self._found = find_engine(self._choice)
            self._sweep(self._found)
        return self._found

    def describe(self) -> str:
        """The engine and its version.

        Raises:
            OnvmError: no engine works.
        """
        return self._engine.describe()

    def obstacle(self) -> str:
        """The reason why no container can be started here, in one line; "" if an engine answers."""
        try:
            self._engine  # noqa: B018  it is looked for
        except ConfigError:
            raise
        except OnvmError as error:
            return str(error)
        return ""

    def unenforced(self, limits: Limits) -> Mapping[str, str]:
        """Limits that the engine cannot enforce here."""
        return self._engine.unenforced(limits)

    def launch(self, spec: LaunchSpec) -> ContainerHandle:
        """Start an NF host; it attaches by itself.

        Raises:
            ConfigError: there is no image of the installed versions of the NFs, or one needs files
                of this host.
        """
        if spec.has_files:
            raise ConfigError(
                "expected NFs without the permission 'files': a container has none of this host",
                field="launcher 'container'",
                value=",".join(spec.nfs),
            )
        image = self._image(spec.nfs)
        name = _name(spec)
        environment = {
            **{key: value for key, value in os.environ.items() if _VARIABLES.match(key)},
            SECRET_VARIABLE: spec.secret,
            OUTPUT_VARIABLE: OUTPUT_FOLDER if spec.output is not None else "",
        }
        files = _archive(spec)
        variables = _memory_file(
            "".join(f"{key}={value}\n" for key, value in environment.items()).encode()
        )
        given = _memory_file(files) if files else None
        program = self._engine.filter(has_network=spec.has_network)
        profile = _memory_file(program) if program else None
        opened = [one for one in (variables, given, profile) if one is not None]
        arguments = [
            *self._engine.isolation(has_network=spec.has_network),
            *(self._engine.limits(spec.limits) if spec.limits is not None else ()),
            f"--name={name}",
            f"--label={OWNER_LABEL}={owner()}",
            f"--env-file=/dev/fd/{variables}",
            *(() if profile is None else (f"--security-opt=seccomp=/dev/fd/{profile}",)),
            f"--tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777,size={TMP_BYTES}",
            *(f"--tmpfs={folder}:rw,nosuid,nodev,mode=1777" for folder in _folders(spec)),
            f"--mount=type=bind,source={spec.attach_path.parent},target={ATTACH_FOLDER},readonly",
            *(
                ()
                if spec.output is None
                else (f"--mount=type=bind,source={spec.output},target={OUTPUT_FOLDER}",)
            ),
        ]
        inside = host_arguments(spec, attach_path=Path(ATTACH_FOLDER / spec.attach_path.name))
        if files:
            inside.append("--files-from-stdin")
        if not program and (
            ours := make_filter(has_network=spec.has_network)
        ):  # in addition to the engine's own
            inside.append(f"--seccomp={b64encode(ours).decode()}")
        try:
            with open(spec.log_path, "ab") as log, pinned(spec.cpus):
                outer = subprocess.Popen(
                    [self._engine.program, "run", "--rm", *arguments, image, *inside],
                    stdin=subprocess.DEVNULL if given is None else given,
                    stdout=log,
                    stderr=log,
                    pass_fds=opened,
                    # Ctrl-C is for the manager; it stops its NFs in order.
                    start_new_session=True,
                )
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return ContainerHandle(spec, outer, self._engine, name)

    def adopt(self, spec: LaunchSpec, process: ProcessId) -> AdoptedHandle:
        """Take over an NF host of an earlier manager."""
        return AdoptedHandle(spec, process)

    def clean(self, spec: LaunchSpec) -> None:
        """Remove the container of an NF host that has ended."""
        end_left_behind(spec)
        self._engine.remove(_name(spec))

    def _image(self, nfs: tuple[str, ...]) -> str:
        name = reference(nfs)
        if name not in self._images:
            if not self._engine.has_image(name):
                command = f"onvm nf image {','.join(nfs)}"
                raise ConfigError(
                    f"expected an image of it as it is installed now; run: {command}",
                    field="launcher 'container'",
                    value=",".join(nfs),
                )
            self._images.add(name)
        return name

    def _sweep(self, engine: Engine) -> None:
        """Remove containers that do not run any more, of managers that do not run any more."""
        try:
            found = engine.containers()
        except OnvmError:
            return  # containers that it cannot list stay
        for one in found:
            is_running = ProcessId.of(one.pid) is not None if one.pid else one.is_running
            if is_abandoned(one.owner) and not is_running:
                engine.remove(one.name)


def _name(spec: LaunchSpec) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"onvm-{spec.label}")


def _files(spec: LaunchSpec) -> list[Path]:
    files = [path.absolute() for path in (*spec.configs.values(), *spec.files)]
    return sorted({path for path in files if path.exists()})


def _folders(spec: LaunchSpec) -> list[Path]:
    """The folders of its files: they are private to it and in memory."""
    kept: list[Path] = []
    for path in _files(spec):
        folder = path.parent
        if folder == Path("/") or any(folder.is_relative_to(one) for one in _IN_THE_IMAGE):
            raise ConfigError(
                "expected a file in a folder that a container does not have itself",
                field="launcher 'container'",
                value=str(path),
            )
        if not any(folder.is_relative_to(one) for one in (Path("/tmp"), *kept)):
            kept = [one for one in kept if not one.is_relative_to(folder)] + [folder]
    return kept


def _archive(spec: LaunchSpec) -> bytes:
    """Its files as a tar archive; empty if it has none."""
    files = _files(spec)
    if not files:
        return b""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in files:
            archive.add(path, str(path).lstrip("/"))
    return stream.getvalue()


def _memory_file(content: bytes) -> int:
    """A descriptor from which `content` can be read."""
    descriptor = os.memfd_create("onvm-container")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _memory_kills() -> int:
    """The number of processes that the kernel has ended since boot because memory was short."""
    lines = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return next((int(value) for name, value in lines if name == "oom_kill"), 0)


def _catches(process: ProcessId, number: signal.Signals) -> bool:
    """True if a process handles a signal; the first of a namespace gets no other signals."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)
