"""The scaler of an agent: it serves the scale requests meant for its host, and leads when it is
elected.

*Serving*: for each request in the queue it computes which host should serve it (`host_policy`). If
that is this host, it takes the request, records the instance's name, starts it, waits until it
serves, and ends the request. The recorded name makes it safe to interrupt this at any point:

* killed or cut off before the end: the entry is free again when the session ends. The restarted
  agent reads its record: if the request is still open, it continues with the instance that it had
  started; if another host has served it, the instance here is stopped.
* frozen, and resumed when another host has served it: ending fails, and the instance here is
  stopped.

So each request ends with one instance, no matter which agents die meanwhile.

*Leading*: the host with the lowest election number ends requests whose time is over, removes old
outcomes, and asks the scaling policies of the services (`autoscaler`). Each of its writes checks
its election node, so decisions of a former leader have no effect.

Threads: it has its own.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping

from onvm_core.cluster.errors import ClusterError, ConflictError
from onvm_core.cluster.links.manager import ManagerLink
from onvm_core.cluster.links.peers import PeerLoad
from onvm_core.cluster.member.session import SessionThread
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.scaling.autoscaler import ClusterAutoscaler
from onvm_core.cluster.scaling.host_policy import Choice, HostPolicy, choose
from onvm_core.cluster.scaling.requests import RequestQueue, Taken
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import Paths, RequestNode
from onvm_core.plugins import load_plugins
from onvm_sdk.errors import OnvmError

__all__ = ["Scaler", "is_leader"]

log = logging.getLogger("onvm.cluster.scale")

TURN_S = 0.1
IDLE_S = 0.5
"""Interval of its turns when it has nothing to do: no request, and another host leads."""
START_TIMEOUT_S = 20.0
POLL_S = 0.02
KEPT_S = 3600.0
FORGET_S = 60.0
HOOK = "onvm_host_policies"
NUMBER = re.compile(r"(.+)-(\d+)")


def is_leader(snapshot: Snapshot, name: str) -> bool:
    """True if a host has the lowest election number of all."""
    numbers = [host.election_number for host in snapshot.hosts.values()]
    return name in snapshot.hosts and snapshot.hosts[name].election_number == min(numbers)


class Scaler:
    """Runs until `stop`.

    Args:
        link: link to the manager; closed here.
        loads: gives the load of all instances, by number.

    Attributes:
        served: number of requests that this agent has served.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        paths: Paths,
        session_thread: SessionThread,
        state: StateDirectory,
        link: ManagerLink,
        loads: Callable[[], Mapping[int, PeerLoad]],
    ) -> None:
        self._thread = threading.Thread(target=self._run_thread, name="onvm-scaler", daemon=True)
        self._session_thread = session_thread
        self._membership = session_thread.membership
        self._state = state
        self._link = link
        self.queue = RequestQueue(ensemble, paths, session_thread.membership.name)
        self._autoscaler = ClusterAutoscaler(self.queue, session_thread.membership.fence, loads)
        self._policies: dict[str, HostPolicy] = {}
        self._is_stopping = threading.Event()
        self._woken = threading.Event()
        self._requests: Mapping[str, RequestNode] = {}
        self._led: tuple[Snapshot | None, bool] = (None, False)
        self._forget_at_s = 0.0
        self._complaint = ""
        self.served = 0

    @property
    def name_of_host(self) -> str:
        """The name of this host."""
        return self._membership.name

    def begin_stop(self) -> None:
        """Ask the thread to end as soon as it can; while it waits for ZooKeeper it cannot."""
        self._is_stopping.set()
        self._woken.set()

    def wake(self) -> None:
        """Take another snapshot; called by the session thread."""
        snapshot = self._session_thread.snapshot
        if snapshot is not None and snapshot.requests is not self._requests:
            self._requests = snapshot.requests  # the same object as long as none comes or goes
            self._woken.set()

    def stop(self) -> None:
        """End the thread; the next agent completes its unfinished work."""
        self.begin_stop()
        if self._thread.is_alive():
            self._thread.join()
        self._link.close()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """True if it has ended by itself."""
        return not self._is_stopping.is_set() and not self._thread.is_alive()

    def _run_thread(self) -> None:
        while not self._is_stopping.is_set():
            self._woken.wait(TURN_S if self._is_busy else IDLE_S)
            self._woken.clear()
            snapshot = self._session_thread.snapshot
            if snapshot is None or not self._session_thread.may_decide:
                continue
            try:
                self._finish_started()
                self._serve(snapshot)
                if self._leads(snapshot):
                    self._lead(snapshot)
            except OnvmError as error:
                # Cut off, or no longer registered: the session thread handles that.
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    log.warning("%s", error)

    def _leads(self, snapshot: Snapshot) -> bool:
        if self._led[0] is not snapshot:
            self._led = snapshot, is_leader(snapshot, self.name_of_host)
        return self._led[1]

    @property
    def _is_busy(self) -> bool:
        return self._led[1] or bool(self._requests) or bool(self._state.state.started)

    # ---- serving ----

    def _policy(self, name: str) -> HostPolicy:
        if name not in self._policies:
            self._policies[name] = load_plugins().load(HOOK, name)()
        return self._policies[name]

    def _choose(self, request: RequestNode, snapshot: Snapshot) -> Choice:
        try:
            policy = self._policy(request.placement)
        except OnvmError as error:  # it may be installed elsewhere
            return Choice(None, None, str(error))
        return choose(request, snapshot, policy)

    def _serve(self, snapshot: Snapshot) -> None:
        for entry, request in snapshot.requests.items():
            if self._is_stopping.is_set() or not self._session_thread.may_decide:
                return
            if request.deadline < time.time():
                continue
            # Computed each time: the instance for the previous request has taken its share.
            choice = self._choose(request, self._session_thread.snapshot or snapshot)
            if choice.host != self.name_of_host:
                continue
            taken = self.queue.take(entry, self._membership.fence)
            if taken is None:
                continue
            if request.stop:
                self._stop_one(taken)
            else:
                assert choice.plugin is not None
                self._start_one(taken, choice.plugin.name, choice.reason)

    def _stop_one(self, taken: Taken) -> None:
        instance = taken.request.stop
        try:
            self._link.drain(instance)
        except OnvmError as error:
            self.queue.refuse(taken, self.name_of_host, str(error), self._membership.fence)
            return
        self._end(taken, instance, "drains")

    def _start_one(self, taken: Taken, nf: str, why: str) -> None:
        key = taken.request.key
        started = self._state.state.started
        if key not in started:
            started[key] = self._free_name(nf)
            self._state.save()
        instance = started[key]
        log.info("%s: starting %s: %s", key, instance, why)
        problem = self._start(nf, instance)
        if not problem:
            self._end(taken, instance, why)
            return
        self._undo(key, instance)
        log.warning("%s: %s", key, problem)
        self.queue.refuse(taken, self.name_of_host, problem, self._membership.fence)

    def _free_name(self, nf: str) -> str:
        taken = {name for one in self._link.launched().launched for name in one.instances}
        local = self._link.local()
        taken |= {host.name for host in local.hosts} | set(local.reserved)
        taken |= set(self._state.state.started.values())
        number = 1
        while f"{nf}-{number}" in taken:
            number += 1
        return f"{nf}-{number}"

    def _start(self, nf: str, instance: str) -> str:
        """Start an instance, if it does not run, and wait until it serves; return "", or the reason
        why it does not.

        Raises:
            ClusterError: the agent must end.
        """
        match = NUMBER.fullmatch(instance)
        assert match is not None
        try:
            if not self._is_launched(instance):
                self._link.run(nf, int(match[2]))
            return self._wait_serving(instance)
        except OnvmError as error:
            if self._is_stopping.is_set():
                raise
            return str(error)

    def _is_launched(self, instance: str) -> bool:
        return any(instance in one.instances for one in self._link.launched().launched)

    def _wait_serving(self, instance: str) -> str:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_stopping.is_set():
            hosts = {host.name: host.state for host in self._link.local().hosts}
            if hosts.get(instance) == "active":
                return ""
            failed = [
                one.reason or one.state
                for one in self._link.launched().launched
                if instance in one.instances and one.state in ("waiting", "crash-loop")
            ]
            if failed:
                return f"{instance}: {failed[0]}"
            if time.monotonic() > deadline:
                return f"{instance} does not serve after {START_TIMEOUT_S:g} s"
            time.sleep(POLL_S)
        raise ClusterError("the agent ends")

    def _end(self, taken: Taken, instance: str, why: str) -> None:
        key = taken.request.key
        try:
            self.queue.done(taken, self.name_of_host, instance, why, self._membership.fence)
        except ConflictError:
            # No longer ours. The instance that we started is checked when we are registered again.
            log.warning("%s: another has taken it over", key)
            return
        self.served += 1
        self._note_done(key)

    def _note_done(self, key: str) -> None:
        if self._state.state.started.pop(key, None) is not None:
            self._state.save()

    def _undo(self, key: str, instance: str) -> None:
        """Stop an instance that is not requested, or no longer."""
        try:
            if self._is_launched(instance):
                self._link.stop(instance)
        except OnvmError as error:
            log.warning("%s: cannot stop %s: %s", key, instance, error)
            return
        self._note_done(key)

    def _finish_started(self) -> None:
        """Complete the work of an earlier agent, or of this one before it was cut off."""
        for key, instance in list(self._state.state.started.items()):
            outcome = self.queue.outcome(key)
            if outcome is None or (outcome.host, outcome.instance) == (self.name_of_host, instance):
                self._note_done(key)
            elif outcome.state != "waiting":
                log.info("%s was served by %s; stopping %s", key, outcome.host, instance)
                self._undo(key, instance)
            else:
                self._resume(key, instance)

    def _resume(self, key: str, instance: str) -> None:
        entry = self.queue.entry_of(key)
        taken = None if entry is None else self.queue.take(entry, self._membership.fence)
        if taken is None:
            return  # another host works on it; its outcome decides
        match = NUMBER.fullmatch(instance)
        assert match is not None
        self._start_one(taken, match[1], "begun before")

    # ---- leading ----

    def _lead(self, snapshot: Snapshot) -> None:
        now = time.time()
        for entry, request in snapshot.requests.items():
            if request.deadline < now:
                why = self._choose(request, snapshot).reason
                outcome = self.queue.expire(entry, why, self._membership.fence)
                if outcome is not None:
                    log.warning("%s for %s expired: %s", request.key, request.service, why)
        if time.monotonic() >= self._forget_at_s:
            self._forget_at_s = time.monotonic() + FORGET_S
            for key, outcome in self.queue.outcomes().items():
                if outcome.ended is not None and outcome.ended < now - KEPT_S:
                    self.queue.forget(key, self._membership.fence)
        self._autoscaler.turn(snapshot, self._membership.election_number)
