"""The agent's session with ZooKeeper: it keeps the mirror and this host's nodes up to date.

It has its own thread, so that the agent can serve its manager whatever ZooKeeper does. It takes
*offers* (the current state of the host) and gives snapshots.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from onvm_core.cluster.errors import (
    ClusterError,
    ConflictError,
    FencedError,
    NameTakenError,
    NoClusterError,
    NoEnsembleError,
)
from onvm_core.cluster.member import facts
from onvm_core.cluster.member.cpu_use import CpuUse
from onvm_core.cluster.member.membership import Membership
from onvm_core.cluster.member.moved_instances import MovedInstances
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.tree.copy import member_copy
from onvm_core.cluster.tree.ensemble import Ensemble, Session
from onvm_core.cluster.tree.mirror import Mirror, Snapshot, check_cluster
from onvm_core.cluster.tree.nodes import (
    AppliedNode,
    ClusterNode,
    HostNode,
    InstancesNode,
    Paths,
    PluginNode,
)
from onvm_core.cluster.tree.numbers import HOST_MAX, INSTANCES, NumberSource
from onvm_core.manager.api.messages import ClusterLocalReply
from onvm_core.manager.cluster_view.view import LocalResources
from onvm_sdk.errors import OnvmError

__all__ = ["Offer", "SessionThread"]

log = logging.getLogger("onvm.cluster")

IDLE_S = 0.5
RETRY_S = 0.1
COPY_S = 1.0
COPY_HOST_S = 0.1
LOST_RETRY_S = 1.0
"""The same while ZooKeeper has no tree for us."""
COALESCE_S = 0.004
COALESCE_HOST_S = 0.0003
BURST_HOST_S = 0.0025
BURST_S = 1.0
"""Changes that follow each other within this time are handled together."""
COALESCE_MAX_S = 0.5
APPLIED_HOST_S = 0.005
"""All hosts follow a change, and each publishes that it has. It does so at most once in this time,
multiplied by the number of hosts.
"""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of a host."""

    host: HostNode
    plugins: list[PluginNode]
    local: ClusterLocalReply | None
    """None: there is no manager."""
    resources: LocalResources | None
    use: CpuUse | None = None
    others: tuple[float, float] = (0.0, 0.0)
    """The figures of `use`, so that offers can be compared."""


class SessionThread:
    """Runs until `stop`.

    Args:
        wake: called, by this thread, when `snapshot`, `numbers` or `failure` has changed.

    Attributes:
        snapshot: the last one; None at first.
        numbers: numbers of this host's NF hosts, by name.
        moved: instances that have moved from here; those that are back get no number yet.
        absences: number of times that the connection was lost and restored.
        failure: the reason why it has ended by itself; the agent must end, too.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        cluster: ClusterNode,
        paths: Paths,
        name: str,
        state: StateDirectory,
        wake: Callable[[], None],
    ) -> None:
        self._thread = threading.Thread(target=self._run_thread, name="onvm-session", daemon=True)
        self._ensemble = ensemble
        self._state = state
        self._cluster = cluster
        self._paths = paths
        self._notify = wake
        self._woken = threading.Event()
        self._is_stopping = threading.Event()
        self._offer: Offer | None = None
        self._applied: AppliedNode | None = None
        self._applied_at_s = 0.0
        self._session: int | None = None
        self._was_away = False
        self._seen = InstancesNode()
        self._complaint = ""
        self._read_at_s = 0.0
        self._read_s = 0.0
        """Duration of the last read; where that is long, more changes are taken at once."""
        self.moved = MovedInstances(state)
        self.membership = Membership(ensemble, paths, name, state)
        self.mirror = Mirror(ensemble, cluster, paths, self._woken.set)
        self._numbers = NumberSource(
            ensemble,
            paths,
            INSTANCES,
            HOST_MAX,
            self._used_numbers,
            max((state.state.highest, *state.state.numbers.values())),
        )
        self.snapshot: Snapshot | None = None
        self.numbers: dict[str, int] = dict(state.state.numbers)
        self._copied: Snapshot | None = None
        self._copy_at_s = 0.0
        self.absences = 0
        self.writes = 0
        self.failure: OnvmError | None = None
        ensemble._on_change = self._on_session

    # ---- called by others ----

    def offer(self, offer: Offer) -> None:
        """Offer the current state of the host."""
        if offer != self._offer:
            self._offer = offer
            self._woken.set()

    def offer_applied(self, node: AppliedNode) -> None:
        """Record the view that the manager has now."""
        if node != self._applied:
            self._applied = node
            self._woken.set()

    def look_again(self) -> None:
        """Publish a change in the state directory."""
        self._woken.set()

    @property
    def may_decide(self) -> bool:
        """True if this agent is connected and registered in this session, so that its decisions
        count.
        """
        return (
            self._ensemble.is_connected
            and self._session is not None
            and self._ensemble.session_id == self._session
        )

    def begin_stop(self) -> None:
        """Ask the thread to end as soon as it can; while it waits for ZooKeeper it cannot."""
        self._is_stopping.set()
        self._woken.set()

    def stop(self) -> None:
        """End the thread; our nodes stay."""
        self.begin_stop()
        if self._thread.is_alive():
            self._thread.join()

    def _on_session(self, session: Session) -> None:  # by kazoo's threads
        if session is not Session.CONNECTED:
            self._was_away = True
        self._woken.set()

    # ---- the thread ----

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run_thread(self) -> None:
        try:
            self._loop()
        finally:
            if not self._is_stopping.is_set() and self.failure is None:
                self.failure = OnvmError("the session thread has failed; see the traceback above")
            self._notify()

    def _loop(self) -> None:
        while not self._is_stopping.is_set():
            self._woken.wait(self._idle_s())
            self._woken.clear()
            try:
                self._turn()
            except NoClusterError as error:  # emptied or replaced: packets go on, and so do we
                self._complain(error)
                self.mirror.forget()
                self._session = None
                self._retry(LOST_RETRY_S)
            except (FencedError, NameTakenError) as error:
                self.failure = error
                return
            except NoEnsembleError as error:
                self._complain(error)
                self._retry()
            except ClusterError as error:
                # A conflict: our nodes have been changed. `check` tells if they are ours.
                self._complain(error)
                if isinstance(error, ConflictError):
                    self._session = None
                self._retry()
            else:
                self._complaint = ""

    def _idle_s(self) -> float:
        if self._applied is None or self._applied == self.membership.applied:
            return IDLE_S
        left_s = self._applied_at_s - time.monotonic()
        return min(left_s, IDLE_S) if left_s > 0 else RETRY_S

    def _complain(self, error: OnvmError) -> None:
        if str(error) != self._complaint:
            self._complaint = str(error)
            log.warning("%s", error)

    def _retry(self, after_s: float = RETRY_S) -> None:
        self._is_stopping.wait(after_s)
        self._woken.set()

    def _turn(self) -> None:
        self._ensemble.revive()
        offer = self._offer
        if offer is None or not self._ensemble.is_connected:
            return
        if self._session is None or self._ensemble.session_id != self._session:
            self._register(offer)
        if self._was_away:
            self._was_away = False
            self.absences += 1
        if self.mirror.is_stale and self.snapshot is not None:
            self._is_stopping.wait(self._coalesce_s(len(self.snapshot.hosts)))
        begin = time.monotonic()
        has_changed = self.mirror.refresh()
        now = time.monotonic()
        self._read_s = now - begin
        if has_changed:
            self._read_at_s = now
        if has_changed or self.snapshot is None:
            self.snapshot = self.mirror.snapshot
            self._notify()
        if has_changed:
            self._check_numbers()
        if self.membership.name not in self.mirror.snapshot.hosts:
            self.membership.check()
            self._session = None  # another process has deleted our node
            self._woken.set()
            return
        self._publish(offer)
        self._keep_copy()

    def _keep_copy(self) -> None:
        """Keep what is known of the cluster on this host, if it has changed and not too often."""
        now, snapshot = time.monotonic(), self.mirror.snapshot
        if snapshot is self._copied or now < self._copy_at_s:
            return
        # Requests come and go, and are no part of it.
        if self._copied is None or self._copied != msgspec.structs.replace(
            snapshot, requests=self._copied.requests
        ):
            self._state.keep_copy(member_copy(snapshot, self._numbers.highest))
        self._copied = snapshot
        self._copy_at_s = now + COPY_S + COPY_HOST_S * len(snapshot.hosts)

    def _coalesce_s(self, hosts: int) -> float:
        """The time to wait for more changes: short for a single change, longer for one of many.

        Every change costs every host something. An action that many hosts take at once, such as
        joining, therefore costs the cluster the square of their number.
        """
        is_burst = time.monotonic() - self._read_at_s < BURST_S
        wait_s = COALESCE_S + hosts * (BURST_HOST_S if is_burst else COALESCE_HOST_S)
        return min(max(wait_s, self._read_s), COALESCE_MAX_S)

    def _register(self, offer: Offer) -> None:
        check_cluster(self._ensemble, self._paths, self._cluster.id)
        if self.membership.is_registered:
            self.membership.check()
        session = self._ensemble.session_id
        self._seen = self._instances(offer)
        self.membership.register(offer.host, self._seen, self._is_stopping.is_set)
        if self._applied is not None:
            self.membership.publish_applied(self._applied)
        self._session = session

    def _publish(self, offer: Offer) -> None:
        instances = self._instances(offer)
        self.writes += self.membership.publish_instances(instances)
        self._seen = instances
        self.writes += self.membership.publish_host(offer.host)
        now = time.monotonic()
        if self._applied is None or now < self._applied_at_s:
            return
        if self.membership.publish_applied(self._applied):
            self.writes += 1
            self._applied_at_s = now + APPLIED_HOST_S * len(self.mirror.snapshot.hosts)

    def _instances(self, offer: Offer) -> InstancesNode:
        if offer.local is None or offer.resources is None:
            # Its manager is away; the NF hosts wait for the next one, and keep their numbers.
            return self._seen
        hosts = facts.of_cluster(offer.local.hosts)
        known = self.numbers.keys() | {one.name for one in self._seen.instances}
        held_back = self.moved.hold_back([host.name for host in hosts], known, self.mirror.snapshot)
        hosts = [host for host in hosts if host.name not in held_back]
        self._give_numbers([host.name for host in hosts])
        return facts.instance_facts(
            msgspec.structs.replace(offer.local, hosts=hosts),
            self.numbers,
            offer.plugins,
            offer.resources,
            self._seen,
            self._state.successors(),
            offer.use,
        )

    def _give_numbers(self, names: list[str]) -> None:
        new = [name for name in names if name not in self.numbers]
        if not new and len(names) == len(self.numbers):
            return
        numbers = {name: self.numbers[name] for name in names if name in self.numbers}
        if new:
            numbers |= dict(zip(new, self._numbers.take(len(new)), strict=True))
        self.numbers = numbers
        self._state.state.numbers = dict(numbers)
        self._state.save()
        self._notify()

    def _used_numbers(self) -> set[int]:
        snapshot = self.mirror.snapshot
        nodes = [*snapshot.instances.values(), *(one.instances for one in snapshot.away.values())]
        return {instance.number for node in nodes for instance in node.instances} | set(
            self.numbers.values()
        )

    def _check_numbers(self) -> None:
        """Remember the highest number, and give up those that another host has as well.

        Numbers are given twice only by a tree that was restored from a backup. Of two hosts, the
        one with the lower number keeps it.
        """
        snapshot = self.mirror.snapshot
        mine = set(self.numbers.values())
        twice: set[int] = set()
        highest = self._numbers.highest
        for name, node in snapshot.instances.items():
            numbers = {one.number for one in node.instances}
            highest = max(highest, *numbers, 0)
            if name != self.membership.name and not numbers.isdisjoint(mine):
                other = snapshot.hosts.get(name)
                if other is not None and other.number < self.membership.number:
                    twice |= numbers & mine
        if highest > self._numbers.highest:
            self._numbers.highest = self._state.state.highest = highest
            self._state.save()
        if twice:
            log.warning("another host has numbers %s, too; taking others", sorted(twice))
            kept = {name: one for name, one in self.numbers.items() if one not in twice}
            self.numbers = kept
