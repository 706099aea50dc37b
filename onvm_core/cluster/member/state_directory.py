"""The state that an agent keeps on its host: its identity, and its unfinished work.

The state directory gives an agent its name: it contains the secret whose hash is stored with the
name in ZooKeeper, and a lock that admits one agent at a time. An agent that was killed finds here
the numbers of its NF hosts and the requests on which it was working.
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
from onvm_core.cluster.tree.nodes import InstanceNode
from onvm_core.manager.api.directory import write_private
from onvm_core.manager.cluster_view.view import ClaimView
from onvm_sdk.errors import ConfigError

__all__ = [
    "COPY_FILE",
    "AgentState",
    "Connection",
    "Moved",
    "StateDirectory",
    "read_state",
    "state_directory",
]

FILE = "agent.json"
COPY_FILE = "cluster.json"
"""The state of the cluster as the agent knew it last, for `onvm cluster recover`."""
SUCCESSORS_S = 600.0
"""Longer than any packet or view of another host names an NF host that has moved."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """The way to reach the cluster; paths are absolute. It contains no secret."""

    ensemble: str
    cluster: str
    credentials: str | None = None
    tls: tuple[str, str, str] | None = None
    """CA, certificate and key."""
    session_s: float = 6.0


class Moved(msgspec.Struct, frozen=True):
    """An instance that has moved to another host."""

    claims: list[ClaimView]
    """The traffic that was its own."""
    at: float
    """Time of the move, in seconds since 1970."""


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
    """Address on the data network."""
    numbers: dict[str, int] = {}
    """Numbers of NF hosts, by the name of their first instance."""
    highest: int = 0
    """Highest number of an NF host that was ever seen in the cluster."""
    started: dict[str, str] = {}
    """Instance by the request for which it was started, until the cluster knows of it."""
    successors: dict[int, tuple[int, float]] = {}
    """For NF hosts that have moved from here, by number: the NF host that has their state, and the
    time of the move, in seconds since 1970.
    """
    moved: dict[str, Moved] = {}
    """Instances that have moved from here, by name, while their traffic belongs to others."""

    @classmethod
    def make(cls) -> AgentState:
        """The state of a new agent."""
        public, secret = zmq.curve_keypair()
        return cls(secret=secrets.token_hex(32), key=public.decode(), key_secret=secret.decode())

    @property
    def proof(self) -> str:
        """The hash of the secret, which others may know."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def state_directory(manager: str) -> Path:
    """The state directory of a manager's agent: below ``$ONVM_STATE_DIR``, /var/lib/onvm for
    root, ``$XDG_STATE_HOME/onvm`` or ~/.local/state/onvm.
    """
    base = os.environ.get("ONVM_STATE_DIR")
    if base is None:
        home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        base = "/var/lib/onvm" if os.getuid() == 0 else f"{home}/onvm"
    return Path(base) / manager


class StateDirectory:
    """An agent's directory while it runs; a context manager that holds the lock.

    Threads: any thread may change the fields of `state` that belong to it, and call `save`.

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
                f"expected a folder that can be used ({error.strerror})",
                file=folder,
                field="state directory",
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._fd, 16, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise ConfigError(
                f"expected a folder that no agent uses (pid {pid} does); end that agent first",
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
        """Release the lock, so that another agent can have it."""
        os.close(self._fd)

    def forget(self) -> None:
        """Leave the cluster; the keys stay, and what is known of instances that moved away."""
        old = self.state
        self.state = AgentState(
            secret=old.secret, key=old.key, key_secret=old.key_secret, moved=old.moved
        )
        self.save()
        (self.folder / COPY_FILE).unlink(missing_ok=True)

    def keep_copy(self, copy: msgspec.Struct) -> None:
        """Write what is known of the cluster, completely or not at all."""
        write_private(self.folder / COPY_FILE, copy)

    def successors(self) -> list[tuple[int, int]]:
        """NF hosts that have moved from here recently, and the NF hosts that have their state."""
        return [
            (number, successor) for number, (successor, _) in sorted(self.state.successors.items())
        ]

    def add_moved(self, one: InstanceNode, successor: int) -> None:
        """Record which NF host has the state of another, and drop records of long ago."""
        now = time.time()
        if one.claims:
            self.state.moved = {**self.state.moved, one.name: Moved(one.claims, now)}
        self.state.successors = {
            **{n: at for n, at in self.state.successors.items() if now - at[1] < SUCCESSORS_S},
            one.number: (successor, now),
        }
        self.save()

    def save(self) -> None:
        """Write the state, completely or not at all."""
        with self._saving:
            write_private(self.folder / FILE, self.state)

    @property
    def boot(self) -> str:
        """This directory in this run of this kernel.

        An agent that finds its own name taken under the same value knows that the former owner is
        dead, because the agent now holds the lock. Under another value, the owner may be a copy
        that lives elsewhere.
        """
        status = self.folder.stat()
        boot = BOOT_ID.read_text(encoding="ascii").strip()
        return f"{boot}/{status.st_dev:x}:{status.st_ino:x}"


def read_state(folder: Path) -> AgentState | None:
    """The state that an agent has kept; None if there is none.

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
            f"expected what an agent has written ({error}); without it this host must leave the "
            "cluster and join it again: onvm cluster leave --host NAME",
            file=path,
        ) from None
