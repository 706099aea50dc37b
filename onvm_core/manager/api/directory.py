"""The directories in which a user's managers keep their sockets, records and logs."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from onvm_core.launch.identity import ProcessId
from onvm_sdk.errors import ConfigError

__all__ = [
    "CONTROL_SOCKET",
    "EVENT_SOCKET",
    "DirectoryLock",
    "ManagerRecord",
    "check_socket_path",
    "check_socket_paths",
    "manager_directory",
    "manager_names",
    "runtime_directory",
    "temporary_directory",
    "write_private",
]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
RECORD = "manager.json"
LOCK = "lock"
CONTROL_SOCKET = "control.sock"
EVENT_SOCKET = "events.sock"
PATH_BYTES_MAX = 107  # size of sun_path in a UNIX socket address, with its final 0
UNLOCKED_S = 60.0
"""The longest time that a run may take from making its directory to locking it."""


def check_socket_paths(directory: Path) -> None:
    """Raise ConfigError if the name of a manager's directory is too long for its sockets."""
    for name in (CONTROL_SOCKET, EVENT_SOCKET):
        check_socket_path(directory / name)


def check_socket_path(path: Path) -> None:
    """Raise ConfigError if a path is too long for a socket."""
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise ConfigError(
            f"expected a path of at most {PATH_BYTES_MAX} bytes; set ONVM_RUNTIME_DIR",
            field="control socket",
            value=str(path),
        )


def runtime_directory() -> Path:
    """The user's directory for sockets: ``$ONVM_RUNTIME_DIR``, ``$XDG_RUNTIME_DIR/onvm`` or
    ``/tmp/onvm-UID``. It is made if it is missing, and only the user may enter it.

    Raises:
        ConfigError: it belongs to another user, or cannot be made.
    """
    base = os.environ.get("ONVM_RUNTIME_DIR")
    if base is None:
        user = os.environ.get("XDG_RUNTIME_DIR")
        is_usable = user is not None and os.access(user, os.W_OK)
        base = f"{user}/onvm" if is_usable else f"{tempfile.gettempdir()}/onvm-{os.getuid()}"
    path = Path(base)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"expected a folder that can be made ({error.strerror}); set ONVM_RUNTIME_DIR",
            field="runtime directory",
            value=base,
        ) from None
    status = path.lstat()
    if status.st_uid != os.getuid() or not path.is_dir() or path.is_symlink():
        raise ConfigError(
            "expected a directory of this user", field="runtime directory", value=base
        )
    if status.st_mode & 0o077:
        path.chmod(0o700)
    return path.resolve()


@contextmanager
def temporary_directory() -> Iterator[str]:
    """A directory for one run inside `runtime_directory`, removed when the context ends.

    Directories of runs that were killed are removed first. A lock in each directory tells them
    apart: the kernel releases it when its process dies.
    """
    base = runtime_directory()
    for folder in base.glob("run-*"):
        _remove_abandoned(folder)
    with tempfile.TemporaryDirectory(prefix="run-", dir=base) as name:
        descriptor = os.open(Path(name) / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield name
        finally:
            os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > UNLOCKED_S:
                shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # its run is still alive
    finally:
        os.close(descriptor)


def manager_directory(name: str) -> Path:
    """The directory of the manager of that name; it may not exist yet.

    Raises:
        ConfigError: the name is not valid.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            "expected 1 to 32 letters, digits, '_', '.' or '-', a letter or digit first",
            field="--name",
            value=name,
        )
    return runtime_directory() / name


def manager_names() -> list[str]:
    """The running managers of this user."""
    return sorted(
        folder.name
        for folder in runtime_directory().iterdir()
        if (record := ManagerRecord.read(folder)) is not None and record.process.is_alive
    )


class ManagerRecord(msgspec.Struct, frozen=True):
    """``manager.json``: the process that is the manager of a directory."""

    pid: int
    start_time: int

    @property
    def process(self) -> ProcessId:
        """The process ID; the process may have ended."""
        return ProcessId(self.pid, self.start_time)

    @classmethod
    def read(cls, directory: Path) -> ManagerRecord | None:
        """The record in `directory`; None if there is none."""
        try:
            return msgspec.json.decode((directory / RECORD).read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError):
            return None


class DirectoryLock:
    """Makes this process the one manager of a directory; the kernel releases it when the process
    dies.

    Raises:
        ConfigError: another process already is.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._record = directory / RECORD
        self._fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            record = ManagerRecord.read(directory)
            who = f" (pid {record.pid})" if record else ""
            raise ConfigError(
                f"expected a name that no running manager has{who}; end that one with: onvm down"
                f"{'' if directory.name == 'main' else f' --name {directory.name}'}",
                field="--name",
                value=directory.name,
            ) from None
        self._record.unlink(missing_ok=True)  # left by a manager that was killed

    def announce(self) -> None:
        """Write the record: from now on clients may connect."""
        me = ProcessId.of(os.getpid())
        assert me is not None
        write_private(self._record, ManagerRecord(me.pid, me.start_time))

    def release(self) -> None:
        """Remove the record and let another manager start."""
        self._record.unlink(missing_ok=True)
        os.close(self._fd)


def write_private(path: Path, value: Any) -> None:
    """Write `value` as JSON, completely or not at all, readable by this user alone."""
    scratch = path.with_name(f".{path.name}.new")
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(value))
    scratch.rename(path)
