"""What an agent keeps on its host: who it is, and what it had begun.

The state directory makes a name ours: it holds the secret whose hash stands beside the name in
ZooKeeper, and a lock that lets one agent at a time have it. An agent that was killed finds here the
numbers of its NF hosts and the requests on which it was working.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
import time
from pathlib import Path
from types import TracebackType

import msgspec
import zmq

from onvm_core.cluster.credentials import check_private
from onvm_core.manager.api.directory import write_private
from onvm_sdk.errors import ConfigError

__all__ = ["AgentState", "Connection", "StateDirectory", "read_state", "state_directory"]

FILE = "agent.json"
HEIRS_S = 600.0
"""Longer than any packet or view of another host still names who has moved."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the cluster; paths are absolute. No secret is in it."""

    ensemble: str
    cluster: str
    credentials: str | None = None
    tls: tuple[str, str, str] | None = None
    """CA, certificate and key."""
    session_s: float = 6.0


class AgentState(msgspec.Struct, kw_only=True):
    """``agent.json``."""

    secret: str
    key: str
    """Public CURVE key."""
    key_secret: str
    connection: Connection | None = None
    cluster_id: str = ""
    name: str = ""
    address: str = ""
    """On the data network."""
    numbers: dict[str, int] = {}
    """Of NF hosts, by the name of their first instance."""
    started: dict[str, str] = {}
    """Instance by the request for which it was started, until that is told to the cluster."""
    heirs: dict[int, tuple[int, float]] = {}
    """Of NF hosts that have moved from here, by number: who has their state, and since when, in
    seconds since 1970."""

    @classmethod
    def make(cls) -> AgentState:
        """Of a new agent."""
        public, secret = zmq.curve_keypair()
        return cls(secret=secrets.token_hex(32), key=public.decode(), key_secret=secret.decode())

    @property
    def proof(self) -> str:
        """What others may know of the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def state_directory(manager: str) -> Path:
    """Where the agent of a manager keeps its state: below ``$ONVM_STATE_DIR``, /var/lib/onvm for
    root, ``$XDG_STATE_HOME/onvm`` or ~/.local/state/onvm.
    """
    base = os.environ.get("ONVM_STATE_DIR")
    if base is None:
        home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        base = "/var/lib/onvm" if os.getuid() == 0 else f"{home}/onvm"
    return Path(base) / manager


class StateDirectory:
    """An agent's directory while it runs; a context manager that holds the lock.

    Threads: any may change a field of `state` that is its own, and `save`.

    Raises:
        ConfigError: another agent runs with it, others may read it, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._saving = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"cannot be used: {error.strerror}", file=folder, field="state directory"
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._fd, 16, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise ConfigError(
                f"an agent runs with it already (pid {pid}); end that one first",
                file=folder,
                field="state directory",
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        try:
            self.state = read_state(folder) or AgentState.make()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> StateDirectory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another agent have it."""
        os.close(self._fd)

    def forget(self) -> None:
        """Be of no cluster any more; the keys stay."""
        old = self.state
        self.state = AgentState(secret=old.secret, key=old.key, key_secret=old.key_secret)
        self.save()

    def heirs(self) -> list[tuple[int, int]]:
        """NF hosts that have moved from here not long ago, and who has their state."""
        return [(number, heir) for number, (heir, _) in sorted(self.state.heirs.items())]

    def add_heir(self, number: int, heir: int) -> None:
        """Keep who has the state of an NF host now, and forget those of long ago."""
        now = time.time()
        self.state.heirs = {
            **{one: at for one, at in self.state.heirs.items() if now - at[1] < HEIRS_S},
            number: (heir, now),
        }
        self.save()

    def save(self) -> None:
        """Write the state, whole or not at all."""
        with self._saving:
            write_private(self.folder / FILE, self.state)

    @property
    def boot(self) -> str:
        """This directory in this run of this kernel.

        An agent that finds its own name taken under the same value knows that who had it is dead,
        for it holds the lock; under another value it may be a copy that lives elsewhere.
        """
        status = self.folder.stat()
        boot = BOOT_ID.read_text(encoding="ascii").strip()
        return f"{boot}/{status.st_dev:x}:{status.st_ino:x}"


def read_state(folder: Path) -> AgentState | None:
    """What an agent has kept; None when there is nothing.

    Raises:
        ConfigError: others may read it, or it is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    check_private(path)
    try:
        return msgspec.json.decode(path.read_bytes(), type=AgentState)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"is damaged ({error}); without it this host must leave the cluster "
            "and join it again: onvm cluster leave --host NAME",
            file=path,
        ) from None
