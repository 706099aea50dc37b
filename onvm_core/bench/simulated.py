"""A manager without a data plane: a control socket, and NF hosts that are only entries.

Its answers to the requests of a cluster are those of a real manager. The agent's tests and
`benchmarks/cluster_sim` run against it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import threading
import time
from pathlib import Path

import msgspec

from onvm_core.cluster.view.cluster_view import digest
from onvm_core.launch.identity import ProcessId
from onvm_core.manager.api import messages as m
from onvm_core.manager.api.directory import RECORD, ManagerRecord, write_private
from onvm_core.manager.api.server import ControlServer
from onvm_core.manager.api.state_messages import NfDrainRequest
from onvm_core.manager.cluster_view.view import ClusterView, LocalHost, LocalResources, PeerStatus
from onvm_core.manager.cluster_view.view_change import ViewTables
from onvm_sdk.errors import ConfigError

__all__ = ["SimulatedManager"]

POLL_S = 0.5
STARTING_POLL_S = 0.005


class SimulatedManager:
    """One manager; runs until `close`.

    Args:
        directory: the manager's directory; created if it does not exist.
        cores: cores for NF hosts; each takes one.
        start_s: time from a request until the instance serves.
        capacity_pps: capacity of each instance.
        is_quick: do not compute digests, for very many managers on one machine.

    Attributes:
        applied: times and digests of applied views, on the monotonic clock.
        refuses: reason for which it starts no NFs; "" if it does.
        silent: peers that do not answer its probes.
        slow: seconds from a request until an instance serves, of NFs that need other than
            `start_s`.
        utilisation: utilisation of each instance.
    """

    def __init__(
        self,
        directory: Path,
        *,
        cores: float = 4.0,
        start_s: float = 0.0,
        capacity_pps: int = 1_000_000,
        ports: tuple[str, ...] = ("client", "server"),
        is_quick: bool = False,
    ) -> None:
        self._thread = threading.Thread(
            target=self._run_thread, name=f"simulated-{directory.name}", daemon=True
        )
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.cores = cores
        self.start_s = start_s
        self.capacity_pps = capacity_pps
        self.ports = list(ports)
        self._is_quick = is_quick
        self._views: ViewTables | None = None
        self.applied: list[tuple[float, str]] = []
        self.n_applied = 0
        self.refuses = ""
        self.silent: frozenset[str] = frozenset()
        self.slow: dict[str, float] = {}
        self.utilisation = 0.0
        self._lock = threading.RLock()
        self._nfs: dict[str, tuple[str, str, float]] = {}
        self._digest = ""
        self._revision = secrets.randbits(48)
        self._is_ending = False
        self._selector = selectors.DefaultSelector()
        self._server = ControlServer(directory, self._selector, self._handle)
        # A change from another thread must be seen at once.
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._woken)
        self._events: list[m.Event] = []
        me = ProcessId.of(os.getpid())
        assert me is not None
        write_private(directory / RECORD, ManagerRecord(me.pid, me.start_time))

    # ---- for tests and benchmarks ----

    def set_nfs(self, *names: str) -> None:
        """Replace all instances at once; a name is SERVICE-NUMBER."""
        with self._lock:
            now = time.monotonic()
            self._nfs = {
                name: self._nfs.get(name, (name.rpartition("-")[0], "active", now))
                for name in names
            }
        self._tell(names[:1])

    def drain_nf(self, name: str) -> None:
        """Let an instance drain."""
        with self._lock:
            service, _, since = self._nfs[name]
            self._nfs[name] = (service, "draining", since)
        self._tell((name,))

    @property
    def view(self) -> ClusterView | None:
        """The last one that was applied."""
        with self._lock:
            return None if self._views is None else self._views.view

    def nfs(self) -> list[str]:
        """Names of all instances."""
        with self._lock:
            return sorted(self._nfs)

    def _tell(self, names: tuple[str, ...]) -> None:
        with self._lock:
            self._events.append(m.NfEvent(instances=list(names), state="changed", pid=0))
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """End the manager, as ``onvm down`` does."""
        self._is_ending = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        (self.directory / RECORD).unlink(missing_ok=True)
        self._server.close()
        self._selector.close()
        os.close(self._wake_fd)

    # ---- the manager ----

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run_thread(self) -> None:
        """See `SimulatedManager`."""
        while not self._is_ending:
            for key, mask in self._selector.select(self._timeout_s()):
                key.data(mask)
            self._server.turn()
            with self._lock:
                events, self._events = self._events, []
                self._grow_up()
            for event in events:
                self._server.publish(event)

    def _timeout_s(self) -> float:
        if self._server.has_more:
            return 0.0
        is_starting = any(state == "starting" for _, state, _ in list(self._nfs.values()))
        return STARTING_POLL_S if is_starting else POLL_S

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    def _grow_up(self) -> None:
        now = time.monotonic()
        for name, (service, state, ready_s) in self._nfs.items():
            if state == "starting" and now >= ready_s:
                self._nfs[name] = (service, "active", now)
                self._events.append(m.NfEvent(instances=[name], state="active", pid=0))

    def _handle(self, request: m.Request) -> m.Reply:
        with self._lock:
            self._grow_up()
            if isinstance(request, m.ClusterLocalRequest):
                return self._local()
            if isinstance(request, m.ClusterApplyRequest):
                view = request.view
                self._views = None if view is None else ViewTables(view)
                return self._applied()
            if isinstance(request, m.ClusterChangeRequest):
                if self._views is None or request.revision != self._revision:
                    raise ConfigError("expected a change of the view that is here")
                self._views.change(request.change)
                return self._applied()
            if isinstance(request, m.NfRunRequest):
                return self._run_nf(request)
            if isinstance(request, (m.NfStopRequest, NfDrainRequest)):  # it has no flows
                stopped = self._stop_nf(request.name)
                return m.DoneReply() if isinstance(request, NfDrainRequest) else stopped
            if isinstance(request, m.InstancesRequest):
                return m.InstancesReply(launched=[self._launched(name) for name in self._nfs])
        raise ConfigError("expected a request that a simulated manager serves")

    def _local(self) -> m.ClusterLocalReply:
        spare = round(self.capacity_pps * max(1 - self.utilisation, 0))
        return m.ClusterLocalReply(
            hosts=[
                LocalHost(
                    name=name,
                    services=[service],
                    state=state,
                    spare_pps=spare,
                    capacity_pps=self.capacity_pps,
                    utilisation=self.utilisation,
                    demand=self.utilisation,
                )
                for name, (service, state, _) in self._nfs.items()
            ],
            ports=self.ports,
            peers=[
                PeerStatus(
                    name=peer.name,
                    address=peer.address,
                    is_up=peer.name not in self.silent,
                    heard_ms=1.0,
                    tx=0,
                    rx=0,
                )
                for peer in (() if self._views is None else self._views.view.peers)
            ],
            digest=self._digest,
            resources=LocalResources(
                cores=self.cores,
                free_cores=max(self.cores - len(self._nfs), 0.0),
                memory_mib=8192,
                free_memory_mib=8192,
            ),
        )

    def _applied(self) -> m.ClusterReply:
        self._revision += 1
        self.n_applied += 1
        if self._views is None:
            self._digest = ""
        elif self._is_quick:
            self._digest = f"applied {self.n_applied}"
        else:
            self._digest = digest(self._views.view)
        if not self.applied or self.applied[-1][1] != self._digest:
            self.applied.append((time.monotonic(), self._digest))
        chains = [] if self._views is None else self._views.view.chains
        return m.ClusterReply(
            digest=self._digest,
            revision=self._revision,
            chains=[one.number for chain in chains for one in chain.definitions],
            bound=[chain.current.number for chain in chains],
        )

    def _run_nf(self, request: m.NfRunRequest) -> m.InstancesReply:
        if self.refuses:
            raise ConfigError(self.refuses)
        name = f"{request.name}-{request.instance}"
        if name in self._nfs:
            raise ConfigError("expected one that does not run", field="nf run", value=name)
        if len(self._nfs) >= self.cores:
            raise ConfigError(f"expected a free core for {name}")
        ready_s = time.monotonic() + self.slow.get(request.name, self.start_s)
        self._nfs[name] = (request.name, "starting", ready_s)
        return m.InstancesReply(launched=[self._launched(name)])

    def _stop_nf(self, name: str) -> m.InstancesReply:
        if name not in self._nfs:
            raise ConfigError("expected an instance or a service", field="nf stop", value=name)
        launched = self._launched(name)
        del self._nfs[name]
        self._tell((name,))
        return m.InstancesReply(launched=[msgspec.structs.replace(launched, state="draining")])

    def _launched(self, name: str) -> m.LaunchedNf:
        service, state, _ = self._nfs[name]
        return m.LaunchedNf(
            nfs=[service],
            instances=[name],
            launcher="simulated",
            state=state,
            pid=0,
            cpus=[],
            restarts=0,
            reason="",
            log="",
            log_tail=[],
        )
