"""Moves NF hosts that drain to others of their kind on other hosts, with their state and flows.

An instance drains when its host does (`onvm cluster drain`, `leave`), or when one instance less is
wanted and no sibling on its own host can take its state. Then

1. the agent asks the agent of the successor's host if the successor is there;
2. the manager suspends the instance and reads its state, which goes to the successor in pieces;
3. the successor restores it and confirms that;
4. the manager forwards packets that still come for the instance to the successor, and ends the
   instance;
5. the cluster is told (`InstancesNode.successors`), and the other hosts send its flows there.

Up to step 4, a failure leaves the instance as it was. An instance whose state cannot be handed over
stays until its flows have ended. If no other instance serves, one more instance is requested first.

Threads: it has its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from onvm_core.cluster.errors import ClusterError
from onvm_core.cluster.handover.state_server import StateTransfer
from onvm_core.cluster.links.manager import ManagerLink
from onvm_core.cluster.links.peers import Peer, PeerLoad, PeerNetwork
from onvm_core.cluster.member.session import SessionThread
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.scaling.requests import RequestQueue
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import InstanceNode, RequestNode
from onvm_core.cluster.view.cluster_view import successors_of
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["StateSender", "successors_for", "to_move"]

log = logging.getLogger("onvm.cluster.state_sender")

TURN_S = 0.1
IDLE_S = 1.0
"""Interval of its turns while nothing is to be moved; snapshots wake it."""
STEP_S = 0.001
PAUSE_MS = 2000
"""The longest time that packets may wait; on hosts that are not busy it takes a few milliseconds.
"""
TRIES_MAX = 5
RETRY_S = 1.0
REQUEST_S = 60.0


def to_move(snapshot: Snapshot, host: str) -> list[InstanceNode]:
    """NF hosts of a host that must end, and whose state is still there."""
    node = snapshot.instances.get(host)
    drain = snapshot.draining.get(host)
    if node is None or not (drain or any(one.state == "draining" for one in node.instances)):
        return []
    moved = successors_of(snapshot)

    def must_end(one: InstanceNode) -> bool:
        drains = drain is not None and (drain.numbers is None or one.number in drain.numbers)
        return one.state == "draining" or drains

    return [one for one in node.instances if must_end(one) and one.number not in moved]


def successors_for(
    snapshot: Snapshot, host: str, one: InstanceNode, loads: Mapping[int, PeerLoad]
) -> list[tuple[str, InstanceNode]]:
    """NF hosts on other hosts that could continue with its flows, best first."""
    moved = successors_of(snapshot)
    found = [
        (name, other)
        for name, node in snapshot.instances.items()
        if name != host
        and name in snapshot.hosts
        and snapshot.hosts[name].state == "up"
        and name not in snapshot.draining
        for other in node.instances
        if other.state == "active"
        and (other.services, other.plugin_versions) == (one.services, one.plugin_versions)
        and other.number not in moved
    ]

    def spare_capacity(found: tuple[str, InstanceNode]) -> tuple[int, int]:
        load = loads.get(found[1].number)
        return (found[1].capacity_pps if load is None else load.spare_pps), -found[1].number

    return sorted(found, key=spare_capacity, reverse=True)


class StateSender:
    """Runs until `stop`.

    Args:
        network: connections to the other agents.
        link: link to the manager; closed here.
        loads: gives the load of all instances, by number.

    Attributes:
        moved: number of NF hosts that have moved.
    """

    def __init__(
        self,
        session_thread: SessionThread,
        state: StateDirectory,
        network: PeerNetwork,
        link: ManagerLink,
        queue: RequestQueue,
        loads: Callable[[], Mapping[int, PeerLoad]],
    ) -> None:
        self._session_thread = session_thread
        self._state = state
        self._network = network
        self._link = link
        self._queue = queue
        self._loads = loads
        self._tries: dict[int, int] = {}
        self._retry_at_s: dict[int, float] = {}
        self._asked: set[int] = set()
        self._is_stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(
            target=self._run_thread, name="onvm-state-sender", daemon=True
        )
        self.moved = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin_stop(self) -> None:
        """Ask the thread to end as soon as it can."""
        self._is_stopping.set()
        self._woken.set()

    def wake(self) -> None:
        """Take another snapshot; called by the session thread."""
        self._woken.set()

    def stop(self) -> None:
        """End the thread; an unfinished move leaves the state where it is."""
        self.begin_stop()
        if self._thread.is_alive():
            self._thread.join()
        self._link.close()

    @property
    def has_failed(self) -> bool:
        """True if it has ended by itself."""
        return not self._is_stopping.is_set() and not self._thread.is_alive()

    def _run_thread(self) -> None:
        is_busy = False
        while not self._is_stopping.is_set():
            self._woken.wait(TURN_S if is_busy else IDLE_S)
            self._woken.clear()
            snapshot = self._session_thread.snapshot
            if snapshot is not None and self._session_thread.may_decide:
                is_busy = self._turn(snapshot, self._session_thread.membership.name)

    def _turn(self, snapshot: Snapshot, me: str) -> bool:
        """Move what is to be moved; return False if there is nothing."""
        wanted = to_move(snapshot, me)
        numbers = {one.number for one in wanted}
        self._tries = {number: n for number, n in self._tries.items() if number in numbers}
        for one in wanted:
            if (
                self._tries.get(one.number, 0) >= TRIES_MAX
                or time.monotonic() < self._retry_at_s.get(one.number, 0.0)
                or one.number in self._state.state.successors
            ):
                continue
            successors = successors_for(snapshot, me, one, self._loads())
            try:
                if successors:
                    self._move(one, *successors[0], snapshot)
                elif me in snapshot.draining:
                    self._ask_for_another(one, me, snapshot)
            except OnvmError as error:
                self._complain(one, error)
        return bool(wanted)

    def _complain(self, one: InstanceNode, error: OnvmError) -> None:
        # A refusal is an answer; an attempt that takes too long may succeed another time.
        is_final = isinstance(error, ConfigError) and not str(error).endswith("in time")
        tries = TRIES_MAX if is_final else self._tries.get(one.number, 0) + 1
        self._tries[one.number] = tries
        self._retry_at_s[one.number] = time.monotonic() + RETRY_S
        rest = "its flows may end by themselves" if tries >= TRIES_MAX else "it is tried again"
        log.warning("%s drains: state not handed over: %s; %s", one.name, error, rest)

    def _ask_for_another(self, one: InstanceNode, me: str, snapshot: Snapshot) -> None:
        if one.number in self._asked or len(one.services) != 1:
            return
        now, since = time.time(), int(snapshot.draining[me].since)
        request = RequestNode(
            key=f"drain-{one.number}-{since}",
            service=one.services[0],
            reason=f"{me} drains, and no other instance serves",
            preferred=[],
            deadline=round(now + REQUEST_S, 3),
            made=round(now, 3),
        )
        try:
            self._queue.put(request, self._session_thread.membership.fence)
        except ClusterError as error:
            log.warning("%s", error)
            return
        self._asked.add(one.number)
        log.info("%s drains: another %s is asked for", one.name, one.services[0])

    # ---- one move ----

    def _move(
        self, one: InstanceNode, where: str, successor: InstanceNode, snapshot: Snapshot
    ) -> None:
        """Move an NF host.

        Raises:
            OnvmError: it was not moved, and is unchanged.
        """
        begin = time.monotonic()
        host = snapshot.hosts[where]
        if not host.state_server:
            raise ConfigError(f"expected an agent of {where} that takes state")
        peer = Peer(host.state_server, host.key)
        with StateTransfer(self._network, peer, one.number, successor.number) as transfer:
            transfer.check()
            self._link.take_state(one.name, PAUSE_MS)
            try:
                self._carry(one, transfer)
                self._link.end_state(one.name, successor.number)
            except BaseException:
                self._give_up(one)
                raise
        self._state.add_moved(one, successor.number)
        self._session_thread.look_again()
        self.moved += 1
        took_ms = (time.monotonic() - begin) * 1e3
        log.info("%s has moved to %s at %s (%.0f ms)", one.name, successor.name, where, took_ms)

    def _carry(self, one: InstanceNode, transfer: StateTransfer) -> None:
        deadline = time.monotonic() + 2 * PAUSE_MS / 1000
        is_whole = False
        while not is_whole:
            reply = self._link.read_state(one.name)
            if reply.step == "failed":
                raise ConfigError(reply.reason)
            if reply.pieces:
                transfer.bring(reply.pieces)
            is_whole = reply.step == "done"
            self._wait(deadline)
        while not transfer.is_done():
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        if self._is_stopping.is_set():
            raise OnvmError("the agent ends")
        if time.monotonic() > deadline:
            raise OnvmError("it was not taken over in time")
        time.sleep(STEP_S)

    def _give_up(self, one: InstanceNode) -> None:
        try:
            self._link.end_state(one.name, None)
        except OnvmError as error:  # the manager lets packets pass again by itself
            log.warning("%s: %s", one.name, error)
