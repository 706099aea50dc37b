"""The agent: one process beside each manager, the only one that knows ZooKeeper.

```
 ZooKeeper ◀──▶ session (thread) ──snapshot──▶ agent ──view──▶ manager
                    ▲                           │ ▲
                    └────────── offer ──────────┘ └── local state, events
 other agents ◀────────── loads, CURVE ─────────┘
 ZooKeeper ◀──▶ scaler (thread): queue, outcomes, leadership ──▶ manager: start, drain
 other agents ◀─── state sender, state server (threads): state that moves, CURVE ───▶ manager
```

It may be killed, frozen or replaced while packets flow: the manager goes on with the last view, and
the next agent finds names, numbers and unfinished work in its state directory and in ZooKeeper.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec
import zmq

from onvm_core.cluster.handover.state_sender import StateSender
from onvm_core.cluster.handover.state_server import StateServer
from onvm_core.cluster.links.manager import ManagerLink
from onvm_core.cluster.links.peers import Peer, PeerLoad, PeerNetwork, interval_s
from onvm_core.cluster.member import facts
from onvm_core.cluster.member.cpu_use import CpuUse
from onvm_core.cluster.member.pair_secrets import PairSecrets, check_installed
from onvm_core.cluster.member.session import Offer, SessionThread
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.scaling.scaler import Scaler
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.foundation import ensure_folders
from onvm_core.cluster.tree.mirror import Snapshot, check_cluster, read_cluster
from onvm_core.cluster.tree.nodes import AppliedNode, Paths, PluginNode, check_name
from onvm_core.cluster.view.absence import LINGER_S, Absences
from onvm_core.cluster.view.view_maker import ViewMaker
from onvm_core.manager.api.client import NoManagerError
from onvm_core.manager.api.messages import ClusterLocalReply, ClusterReply
from onvm_core.manager.cluster_view.view import ClusterView, LocalResources
from onvm_core.manager.cluster_view.view_change import difference
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["Agent"]

log = logging.getLogger("onvm.cluster")

LOCAL_S = 0.15
"""Interval at which the manager is asked; it is asked at once when it reports an event."""
QUIET_S = 0.6
"""The same while the NF hosts have nothing to do."""
QUIET_SHARE = 0.01
PLUGINS_S = 10.0
SPARE_S = 0.2
SPARE_INSTANCE_S = 0.0005
SPARE_STEP = 0.1
"""Spare capacities that differ by less than this share of the instance's capacity count as equal.
"""
APPLY_RETRY_S = 1.0


class _Loads:
    """The load of all instances, by number.

    Attributes:
        now: loads that are not too old.
        last: the last load of each, however old.
        unheard: hosts that send no load.
    """

    def __init__(self) -> None:
        self.now: Mapping[int, PeerLoad] = {}
        self.last: Mapping[int, PeerLoad] = {}
        self.unheard: list[str] = []


class Agent:
    """One host's agent; a context manager.

    Args:
        ensemble: not connected yet; closed by the agent.
        state: its directory, locked.
        cluster: name of the cluster.
        name: name of the host.
        address: address of the host on the data network.
        manager: directory of its manager.
        control: address to listen at for other agents; "": none.
        make_peers: True to talk to other agents at all.
        use: measures the CPU use of other programs; None: it does not count.
        plugins: gives the NFs installed here.

    Attributes:
        applies: number of times that the manager was sent a view or a change.
        digest: digest of the view that it was sent last.
        applied_s: time of that, on the monotonic clock.

    Raises:
        ConfigError: the name is taken, or the cluster is another one.
        NoEnsembleError: ZooKeeper does not answer.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        state: StateDirectory,
        cluster: str,
        name: str,
        address: str,
        manager: Path,
        *,
        control: str = "",
        control_port: int = 0,
        make_peers: bool = True,
        linger_s: float = LINGER_S,
        use: CpuUse | None = None,
        plugins: Callable[[], list[PluginNode]] = facts.installed_plugins,
    ) -> None:
        self.name = check_name(name, "--name")
        self._address = address
        self._ensemble = ensemble
        self._state = state
        self._plugins_of, self._use = plugins, use
        self._plugins: list[PluginNode] = []
        self._plugins_at_s = 0.0
        self._local: ClusterLocalReply | None = None
        self._resources: LocalResources | None = None
        self._snapshot: Snapshot | None = None
        self._merged: Snapshot | None = None
        self._vanished = self._silent = frozenset[str]()
        """Hosts that get nothing new; hosts that do not answer the manager's probes."""
        self._absences = Absences(ensemble.session_s, linger_s)
        self._n_absences = 0
        self._maker = ViewMaker(name, self._secret_of)
        self._secrets: PairSecrets | None = None
        self._view: ClusterView | None = None
        self._revision = 0
        self._is_applied = False
        self._apply_at_s = 0.0
        self._priced_at_s = 0.0
        self._told: Snapshot | None = None
        self._told_spare_pps: dict[int, int] = {}
        self._complaint = ""
        self.applies, self.digest, self.applied_s = 0, "", 0.0
        self._applied: AppliedNode | None = None
        self._loads = _Loads()
        self._paths = Paths(cluster)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._link = ManagerLink(manager)
        self._peers: PeerNetwork | None = None
        self._state_server: StateServer | None = None
        self.state_sender: StateSender | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._events = self._link.subscribe(self._context)
            ensemble.connect()
            self._session_thread = self._join(cluster)
            if make_peers:
                self._peers = PeerNetwork(
                    name, control, state.state.key, state.state.key_secret, control_port
                )
                self._state_server = StateServer(
                    self._peers, ManagerLink(manager), lambda: self._session_thread.numbers
                )
            self.scaler = Scaler(
                ensemble,
                self._paths,
                self._session_thread,
                state,
                ManagerLink(manager),
                self._last_loads,
                self._living,
            )
            if self._peers is not None:
                self.state_sender = StateSender(
                    self._session_thread,
                    state,
                    self._peers,
                    ManagerLink(manager),
                    self.scaler.queue,
                    self._last_loads,
                )
        except BaseException:
            self._close_local()
            ensemble.close()
            raise

    def _secret_of(self, key: str) -> str:
        return "" if self._secrets is None else self._secrets.of(key)

    def _join(self, cluster: str) -> SessionThread:
        state = self._state.state
        if state.cluster_id:
            node = check_cluster(self._ensemble, self._paths, state.cluster_id)
        else:
            node = read_cluster(self._ensemble, self._paths)
        if state.name not in ("", self.name):
            raise ConfigError(
                f"expected {state.name!r}, the name with which this host has joined; "
                "for another one: onvm cluster leave, then join",
                field="--name",
                value=self.name,
            )
        if node.data_security != "none":
            check_installed()
            self._secrets = PairSecrets(state.key, state.key_secret, node.id)
        session_thread = SessionThread(
            self._ensemble, node, self._paths, self.name, self._state, self._wake
        )
        ensure_folders(self._ensemble, self._paths)
        session_thread.membership.check_address(self._address)
        session_thread.membership.reserve_name()
        state.cluster_id, state.name = node.id, self.name
        self._state.save()
        return session_thread

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, is_leaving: bool = False) -> None:
        """End it. Our nodes in ZooKeeper stay for the length of a session, so that the next agent
        can take them over, unless the host leaves.
        """
        self.scaler.begin_stop()
        self._session_thread.begin_stop()
        if self.state_sender is not None:
            self.state_sender.stop()
        if is_leaving:
            self._ensemble.close()
        else:
            self._ensemble.abandon()
        self.scaler.stop()  # it may have waited for ZooKeeper
        self._session_thread.stop()
        self._close_local()

    def _close_local(self) -> None:
        if self._state_server is not None:
            self._state_server.close()
        if self._peers is not None:
            self._peers.close()
        self._link.close()
        self._context.destroy(linger=0)
        os.close(self._wake_fd)

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)
        self.scaler.wake()
        if self.state_sender is not None:
            self.state_sender.wake()

    @property
    def session_thread(self) -> SessionThread:
        """The thread of its ZooKeeper session."""
        return self._session_thread

    @property
    def unheard(self) -> list[str]:
        """Hosts whose agents are not heard."""
        return self._loads.unheard

    @property
    def view(self) -> ClusterView | None:
        """The view that the manager was sent last."""
        return self._view

    # ---- running ----

    def run(
        self, should_stop: Callable[[], bool], on_ready: Callable[[], None] = lambda: None
    ) -> None:
        """Serve until asked to end.

        Args:
            on_ready: called once, when the host is in the cluster.

        Raises:
            FencedError: this host's name was taken over or removed.
            OnvmError: the cluster is gone.
        """
        self._session_thread.start()
        self.scaler.start()
        if self._state_server is not None and self.state_sender is not None:
            self._state_server.start()
            self.state_sender.start()
        poller = zmq.Poller()
        poller.register(self._wake_fd, zmq.POLLIN)
        poller.register(self._events, zmq.POLLIN)
        if self._peers is not None:
            poller.register(self._peers.subscriber, zmq.POLLIN)
        local_at_s, is_ready = 0.0, False
        while not should_stop():
            now = time.monotonic()
            if now >= local_at_s:
                self._look(now)
                local_at_s = now + self._interval_s()
            self._follow(now)
            self._apply(now)
            if not is_ready and self._session_thread.may_decide and self._snapshot is not None:
                is_ready = True
                on_ready()
            if self._session_thread.failure is not None:
                raise self._session_thread.failure
            if self.scaler.has_failed:
                raise OnvmError("the scaler has failed; see the traceback above")
            if self.state_sender is not None and self.state_sender.has_failed:
                raise OnvmError("the state sender has failed; see the traceback above")
            is_held_back = self._merged is not self._told and self._apply_at_s > now
            until_s = min(self._apply_at_s, local_at_s) if is_held_back else local_at_s
            for source, _ in poller.poll(_wait_ms(until_s)):
                if source == self._wake_fd:
                    os.eventfd_read(self._wake_fd)
                elif source is self._events:
                    self._drain_events()
                    local_at_s = 0.0
            if self._peers is not None:
                self._peers.receive()

    def forget_manager(self) -> None:
        """Tell the manager that it is no longer in a cluster."""
        try:
            self._link.apply(None)
        except OnvmError as error:
            log.warning("%s", error)

    def _interval_s(self) -> float:
        hosts = 0 if self._snapshot is None else len(self._snapshot.hosts)
        return max(QUIET_S if self._is_quiet() else LOCAL_S, interval_s(hosts))

    def _is_quiet(self) -> bool:
        """True if no NF host here has anything to do, so that there is no news of their load."""
        return self._local is not None and all(
            (host.utilisation or 0.0) < QUIET_SHARE and not host.sheds for host in self._local.hosts
        )

    def _drain_events(self) -> None:
        while self._events.poll(0):
            self._events.recv_multipart()

    def _look(self, now: float) -> None:
        """Ask the manager, and offer its answer to the cluster."""
        if now >= self._plugins_at_s:
            self._plugins = self._plugins_of()
            self._plugins_at_s = now + PLUGINS_S
        try:
            local = self._link.local()
        except NoManagerError:
            self._local = self._resources = None
            self._is_applied = False
        except OnvmError as error:  # it hangs, or is ending: keep the last known state
            self._complain(error)
            return
        else:
            if local.digest == "":
                self._is_applied = False  # it has just started
            elif self._applied is not None and self._is_applied:
                self._tell_applied(msgspec.structs.replace(self._applied, digest=local.digest))
            self._local, self._resources = local, facts.local_resources(local, self._plugins)
        self._session_thread.offer(
            Offer(
                host=facts.host_facts(
                    address=self._address,
                    control="" if self._peers is None else self._peers.endpoint,
                    state_server="" if self._state_server is None else self._state_server.endpoint,
                    key=self._state.state.key,
                    local=self._local,
                    plugins=self._plugins,
                    resources=self._resources,
                ),
                plugins=self._plugins,
                local=self._local,
                resources=self._resources,
                use=self._use,
                others=self._measure(),
            )
        )
        self._share()

    def _measure(self) -> tuple[float, float]:
        """CPUs that others use, and the pressure."""
        if self._use is None:
            return 0.0, 0.0
        self._use.read([os.getpid(), *self._link.processes()])
        return self._use.others_cores, self._use.pressure

    def _share(self) -> None:
        """Send the spare capacities here to the other agents."""
        mine: list[PeerLoad] = []
        numbers = self._session_thread.numbers
        for host in self._local.hosts if self._local is not None else ():
            if host.name in numbers:
                mine.append(
                    PeerLoad(
                        numbers[host.name],
                        host.spare_pps,
                        host.utilisation,
                        host.capacity_pps or 0,
                        host.demand,
                        host.sheds,
                    )
                )
        loads = {load.number: load for load in mine}
        self._loads.now = self._loads.last = loads
        if self._peers is not None:
            self._peers.publish(mine)
            self._loads.now = {**self._peers.loads(), **loads}
            self._loads.last = {**self._peers.last_loads(), **loads}
            self._note_unheard(self._peers.unheard())

    def _note_unheard(self, unheard: list[str]) -> None:
        """Say which agents are not heard, in the log and for `onvm cluster status`."""
        if unheard == self._loads.unheard:
            return
        for name in sorted(set(unheard) - set(self._loads.unheard)):
            log.warning("the agent of %s is not heard; its load counts as last seen", name)
        for name in sorted(set(self._loads.unheard) - set(unheard)):
            log.info("the agent of %s is heard, or is gone", name)
        self._loads.unheard = unheard
        if self._applied is not None:
            self._tell_applied(self._applied)

    def _tell_applied(self, applied: AppliedNode) -> None:
        self._applied = applied
        self._session_thread.offer_applied(
            msgspec.structs.replace(applied, unheard=self._loads.unheard)
        )

    def _last_loads(self) -> Mapping[int, PeerLoad]:
        return self._loads.last

    def _living(self) -> Collection[str]:
        """Hosts without a session that answer probes; their instances count."""
        if self._merged is None or self._snapshot is None:
            return ()
        return self._merged.hosts.keys() - self._snapshot.hosts.keys() - self._silent

    def _follow(self, now: float) -> None:
        """Take the newest snapshot, and add the hosts that have vanished."""
        snapshot = self._session_thread.snapshot
        if snapshot is None:
            return
        if self._session_thread.absences != self._n_absences:
            self._n_absences = self._session_thread.absences
            self._absences.reconnected(now)
        due_s = self._absences.due_s
        if self._local is not None:
            silent = frozenset(peer.name for peer in self._local.peers if not peer.is_up)
        else:
            silent = self._silent
        if (
            snapshot is self._snapshot
            and (due_s is None or now < due_s)
            and (silent == self._silent or not snapshot.away)
        ):
            return
        is_new = snapshot is not self._snapshot
        self._snapshot, self._silent = snapshot, silent
        merged, vanished = self._absences.update(snapshot, now, silent)
        if is_new or vanished != self._vanished or merged.hosts.keys() != self._hosts_there():
            self._merged, self._vanished = merged, vanished
        if is_new and self._peers is not None:
            self._peers.set_peers(
                {
                    name: Peer(host.control, host.key)
                    for name, host in snapshot.hosts.items()
                    if name != self.name
                }
            )

    def _hosts_there(self) -> Collection[str]:
        return () if self._merged is None else self._merged.hosts.keys()

    def _apply(self, now: float) -> None:
        """Send the manager the changes."""
        if self._merged is None or self._local is None or now < self._apply_at_s:
            return
        is_new = self._merged is not self._told or not self._is_applied
        spare_pps = {number: load.spare_pps for number, load in self._loads.now.items()}
        if not is_new and (
            now < self._priced_at_s or not _differs(spare_pps, self._told_spare_pps)
        ):
            return
        view = self._maker.make(self._merged, spare_pps, self._vanished)
        if view is None:
            return
        self._told, self._told_spare_pps = self._merged, spare_pps
        if self._is_applied and view == self._view:
            return
        try:
            reply = self._tell(view)
        except OnvmError as error:
            self._complain(error)
            self._is_applied = False
            self._apply_at_s = now + APPLY_RETRY_S
            return
        self._complaint = ""
        # If sending takes long, more changes are sent at once; other processes need CPU time, too.
        self._apply_at_s = now + min(2 * (time.monotonic() - now), APPLY_RETRY_S)
        self.applies += 1
        self._view = view
        self._revision = reply.revision
        self._is_applied = True
        self._priced_at_s = now + max(SPARE_S, SPARE_INSTANCE_S * len(view.instances))
        self.digest = self._maker.digest
        self.applied_s = time.monotonic()
        self._tell_applied(
            AppliedNode(
                view=self.digest,
                digest=reply.digest,
                missing=reply.missing,
                chains=reply.chains,
                bound=reply.bound,
            )
        )

    def _tell(self, view: ClusterView) -> ClusterReply:
        """The manager's answer to a change, or to the whole view where a change is not enough."""
        if self._is_applied and self._revision and self._view is not None:
            change = difference(self._view, view)
            if change is not None:
                try:
                    return self._link.change(self._revision, change)
                except ConfigError as error:
                    log.info("manager: %s; it is told the whole view", error)
        return self._link.apply(view)

    def _complain(self, error: OnvmError) -> None:
        if str(error) != self._complaint:
            self._complaint = str(error)
            log.warning("manager: %s", error)


def _wait_ms(until_s: float) -> int:
    return int(max(0.0, until_s - time.monotonic()) * 1000) + 1


def _differs(spare_pps: Mapping[int, int], told: Mapping[int, int]) -> bool:
    """True if spare capacities differ by more than their usual fluctuation."""
    return spare_pps.keys() != told.keys() or any(
        abs(value - told[number]) > SPARE_STEP * max(value, told[number])
        for number, value in spare_pps.items()
    )
