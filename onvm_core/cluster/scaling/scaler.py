"""What an agent does about scale requests: serve those that are its own, and lead when it leads.

*Serving*: of each request in the queue it computes who is to serve it (`host_policy`). If that is
this host, it takes the request, writes down the instance's name, starts it, waits until it serves,
and ends the request. A name that was written down makes this safe to be cut anywhere:

* killed or cut off before the end: the entry is free again when the session ends. The agent that
  comes back looks at its notes: if the request is still open it goes on with the instance that it
  had started; if another host has served it, the instance here is stopped.
* frozen, and woken when another has served it: ending fails, and the instance here is stopped.

So each request ends with one instance, whoever dies when.

*Leading*: the host with the lowest seat ends requests whose time is over, forgets old claims, and
asks the scaling policies of the services (`autoscaler`). Each of its writes checks its seat, so
what a former leader decides has no effect.

Threads: one of its own.
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
from onvm_core.cluster.member.session import Keeper
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
"""Where there is nothing to do: no request, and another leads."""
START_TIMEOUT_S = 20.0
POLL_S = 0.02
KEPT_S = 3600.0
FORGET_S = 60.0
HOOK = "onvm_host_policies"
NUMBER = re.compile(r"(.+)-(\d+)")


def is_leader(snapshot: Snapshot, name: str) -> bool:
    """Whether a host has the lowest seat of all."""
    seats = [host.seat for host in snapshot.hosts.values()]
    return name in snapshot.hosts and snapshot.hosts[name].seat == min(seats)


class Scaler:
    """Runs until `stop`.

    Args:
        link: to the manager; closed here.
        loads: gives the load of all instances, by number.

    Attributes:
        served: requests that this agent has served.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        paths: Paths,
        keeper: Keeper,
        state: StateDirectory,
        link: ManagerLink,
        loads: Callable[[], Mapping[int, PeerLoad]],
    ) -> None:
        self._thread = threading.Thread(target=self._run_thread, name="onvm-scaler", daemon=True)
        self._keeper = keeper
        self._membership = keeper.membership
        self._state = state
        self._link = link
        self.queue = RequestQueue(ensemble, paths, keeper.membership.name)
        self._autoscaler = ClusterAutoscaler(self.queue, keeper.membership.fence, loads)
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
        """This host."""
        return self._membership.name

    def begin_stop(self) -> None:
        """Let the thread end when it can; one that waits for ZooKeeper cannot."""
        self._is_stopping.set()
        self._woken.set()

    def wake(self) -> None:
        """There is another snapshot; called by the keeper's thread."""
        snapshot = self._keeper.snapshot
        if snapshot is not None and snapshot.requests is not self._requests:
            self._requests = snapshot.requests  # the same object as long as none comes or goes
            self._woken.set()

    def stop(self) -> None:
        """End the thread; what it had begun the next agent ends."""
        self.begin_stop()
        if self._thread.is_alive():
            self._thread.join()
        self._link.close()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """Whether it has ended by itself."""
        return not self._is_stopping.is_set() and not self._thread.is_alive()

    def _run_thread(self) -> None:
        while not self._is_stopping.is_set():
            self._woken.wait(TURN_S if self._is_busy else IDLE_S)
            self._woken.clear()
            snapshot = self._keeper.snapshot
            if snapshot is None or not self._keeper.may_decide:
                continue
            try:
                self._finish_started()
                self._serve(snapshot)
                if self._leads(snapshot):
                    self._lead(snapshot)
            except OnvmError as error:
                # Cut off, or not registered any more: the keeper sees to that.
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
        except OnvmError as error:  # it is installed elsewhere, perhaps
            return Choice(None, None, str(error))
        return choose(request, snapshot, policy)

    def _serve(self, snapshot: Snapshot) -> None:
        for entry, request in snapshot.requests.items():
            if self._is_stopping.is_set() or not self._keeper.may_decide:
                return
            if request.deadline < time.time():
                continue
            # Each time anew: what was started for the one before takes its share of what is free.
            choice = self._choose(request, self._keeper.snapshot or snapshot)
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
        """Start an instance, if it does not run, and wait until it serves; "" or why it does not.

        Raises:
            ClusterError: the agent is to end.
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
            # Not ours any more. What we have started is looked at again when we are registered.
            log.warning("%s: another has taken it over", key)
            return
        self.served += 1
        self._note_done(key)

    def _note_done(self, key: str) -> None:
        if self._state.state.started.pop(key, None) is not None:
            self._state.save()

    def _undo(self, key: str, instance: str) -> None:
        """Stop an instance that nobody has asked for (any more)."""
        try:
            if self._is_launched(instance):
                self._link.stop(instance)
        except OnvmError as error:
            log.warning("%s: cannot stop %s: %s", key, instance, error)
            return
        self._note_done(key)

    def _finish_started(self) -> None:
        """End what an agent before us, or we before we were cut off, had begun."""
        for key, instance in list(self._state.state.started.items()):
            claim = self.queue.claim(key)
            if claim is None or (claim.host, claim.instance) == (self.name_of_host, instance):
                self._note_done(key)
            elif claim.state != "waiting":
                log.info("%s was served by %s; stopping %s", key, claim.host, instance)
                self._undo(key, instance)
            else:
                self._resume(key, instance)

    def _resume(self, key: str, instance: str) -> None:
        entry = self.queue.entry_of(key)
        taken = None if entry is None else self.queue.take(entry, self._membership.fence)
        if taken is None:
            return  # another works on it; what comes of it decides
        match = NUMBER.fullmatch(instance)
        assert match is not None
        self._start_one(taken, match[1], "begun before")

    # ---- leading ----

    def _lead(self, snapshot: Snapshot) -> None:
        now = time.time()
        for entry, request in snapshot.requests.items():
            if request.deadline < now:
                why = self._choose(request, snapshot).reason
                claim = self.queue.expire(entry, why, self._membership.fence)
                if claim is not None:
                    log.warning("%s for %s expired: %s", request.key, request.service, why)
        if time.monotonic() >= self._forget_at_s:
            self._forget_at_s = time.monotonic() + FORGET_S
            for key, claim in self.queue.claims().items():
                if claim.ended is not None and claim.ended < now - KEPT_S:
                    self.queue.forget(key, self._membership.fence)
        self._autoscaler.turn(snapshot, self._membership.seat)
