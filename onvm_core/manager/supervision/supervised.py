"""A supervised NF host: its description, its state, and its form for clients."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from onvm_core.launch.identity import ProcessId
from onvm_core.launch.launcher import DEFAULT_LAUNCHER, Handle
from onvm_core.manager.api.messages import LaunchedNf
from onvm_core.manager.nf_hosts.registry import HostState, NfHost

__all__ = [
    "CRASH_LOOP",
    "FIRST_DELAY_S",
    "HEALTHY_S",
    "LOG_LINES",
    "Supervised",
    "WantedHost",
    "digest_of",
]

FIRST_DELAY_S = 0.1
HEALTHY_S = 10.0
"""Time after which an NF host that was started again counts as well."""
CRASH_LOOP = 5
LOG_LINES = 5


class WantedHost(msgspec.Struct, frozen=True):
    """An NF host that should run.

    Attributes:
        nfs: plugins, in chain order; several are fused.
        services: their service types.
        instances: names of their instances.
        configs: configuration file by plugin.
        digest: digest of what the NFs read from those files and from files that these name; an NF
            host with an older one is replaced.
        launcher: name of the launcher that starts it.
        is_by_command: started by ``onvm nf run`` or the autoscaler, not by the file.
        is_standby: stands by until it is needed.
        stands_for: the instances of the file that it has replaced; empty: its own.
    """

    nfs: tuple[str, ...]
    services: tuple[str, ...]
    instances: tuple[str, ...]
    configs: dict[str, str] = {}
    digest: str = ""
    launcher: str = DEFAULT_LAUNCHER
    is_by_command: bool = False
    is_standby: bool = False
    stands_for: tuple[str, ...] = ()

    @property
    def of_file(self) -> WantedHost:
        """The same, under the names that the file gives it."""
        names = self.stands_for or self.instances
        return msgspec.structs.replace(self, instances=names, stands_for=())

    @classmethod
    def make(
        cls,
        nfs: tuple[str, ...],
        services: tuple[str, ...],
        instances: tuple[str, ...],
        configs: dict[str, Path],
        *,
        digests: Mapping[str, bytes] | None = None,
        launcher: str = DEFAULT_LAUNCHER,
        is_by_command: bool = False,
    ) -> WantedHost:
        """Make it with one digest of its configurations, from the digest of each."""
        files = {name: str(path) for name, path in configs.items()}
        digest = digest_of(digests or {})
        return cls(nfs, services, instances, files, digest, launcher, is_by_command)


def digest_of(digests: Mapping[str, bytes]) -> str:
    """One digest of the configurations of an NF host, from the digest of each."""
    whole = hashlib.sha256()
    for name, digest in sorted(digests.items()):
        whole.update(name.encode() + b"\0" + digest)
    return whole.hexdigest()


@dataclass(slots=True, eq=False)
class Supervised:
    """A supervised NF host; without a handle it waits to be started again."""

    wanted: WantedHost
    handle: Handle | None = None
    secret: str = ""
    log: str = ""
    process: ProcessId | None = None
    since: float = 0.0
    host: NfHost | None = None
    gone_at: float = 0.0
    is_draining: bool = False
    drain_until: float = 0.0
    drain_note: str = ""
    """The reason why its state was not handed over."""
    adopted: set[str] = field(default_factory=set)
    """Names of instances whose state it has taken over and still uses."""
    is_stopping: bool = False
    stop_at: float = 0.0
    delay_s: float = FIRST_DELAY_S
    retry_at: float = 0.0
    restarts: int = 0
    failures: int = 0
    reason: str = ""
    log_tail: list[str] = field(default_factory=list)
    has_served: bool = False
    is_reserved: bool = False
    """True while it is ready, or gets ready, for a change that may not happen."""
    is_slow: bool = False
    """True if it was ended because it was not ready in time."""

    @property
    def is_serving(self) -> bool:
        """True if it can get new flows."""
        return self._is(HostState.ACTIVE) and not self.is_leaving

    @property
    def is_on_standby(self) -> bool:
        """True if it could serve at once."""
        return self.is_ready and not self.is_reserved

    @property
    def is_ready(self) -> bool:
        """True if it is held back, and would serve at once."""
        return self._is(HostState.STANDBY) and not self.is_leaving

    @property
    def is_leaving(self) -> bool:
        """True if it will not come back."""
        return self.is_draining or self.is_stopping

    def _is(self, state: HostState) -> bool:
        return self.handle is not None and self.host is not None and self.host.state is state

    @property
    def part(self) -> str:
        """The field of `ServiceState` that counts it."""
        if self.is_leaving:
            return "draining"
        if self.wanted.is_standby:
            return "standby" if self.is_on_standby else "standby_starting"
        if self.is_serving:
            return "serving"
        return "failing" if self.restarts else "starting"

    def show(self) -> LaunchedNf:
        """Its form for clients."""
        tail = self.log_tail
        if self.handle is None:
            state = "crash-loop" if self.failures >= CRASH_LOOP else "waiting"
        elif self.is_leaving:
            state = "draining"
        elif self.host is None or self.host.state is HostState.ATTACHED:
            state = "starting"
            tail = tail or self.handle.log_tail()[-LOG_LINES:]
        elif self.failures >= CRASH_LOOP and time.monotonic() - self.since < HEALTHY_S:
            state = "crash-loop"
        else:
            state = self.host.state.value
        return LaunchedNf(
            nfs=list(self.wanted.nfs),
            instances=list(self.wanted.instances),
            launcher=self.wanted.launcher,
            state=state,
            pid=self.handle.pid if self.handle else 0,
            cpus=list(self.handle.spec.cpus) if self.handle else [],
            restarts=self.restarts,
            reason=self.drain_note if self.is_leaving and self.drain_note else self.reason,
            log=self.log,
            log_tail=tail,
        )
