"""The scaler of an agent: it serves the scale requests meant for its host, and leads when it is
elected.

*Serving*: for each request in the queue it computes which host should serve it (`host_policy`). If
that is this host, it takes the request, records the instance's name, starts it, waits until it
serves, and ends the request. Instances that start are waited for by threads of their own, so a slow
one holds up nothing else. The recorded name makes it safe to interrupt this at any point:

* killed or cut off before the end: the entry is free again when the session ends. The restarted
  agent reads its record: if the request is still open, it continues with the instance that it had
  started; if another host has served it, the instance here is stopped.
* frozen, and resumed when another host has served it: ending fails, and the instance here is
  stopped.

So each request ends with one instance, no matter which agents die meanwhile.

*Leading*: the host with the lowest election number ends requests whose time is over, removes old
outcomes, moves chains on to their new definitions (`tree.chain_changes`), and asks the scaling
policies of the services (`autoscaler`). Each of its writes checks
its election node, so decisions of a former leader have no effect. A request is over when the leader
has seen it for as long as it may wait, by its monotonic clock: the clocks of hosts need not agree.

Threads: it has its own, and one for each instance that starts.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from onvm_core.cluster.errors import ClusterError, ConflictError
from onvm_core.cluster.links.manager import ManagerLink
from onvm_core.cluster.links.peers import PeerLoad
from onvm_core.cluster.member.session import SessionThread
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.scaling.autoscaler import ClusterAutoscaler
from onvm_core.cluster.scaling.host_policy import (
    GONE,
    ROUNDING,
    Choice,
    HostPolicy,
    choose,
    serving,
)
from onvm_core.cluster.scaling.requests import RequestQueue, Taken
from onvm_core.cluster.tree.chain_changes import ChainChanges
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
STARTS_MAX = 16
"""Instances that start at the same time."""
POLL_S = 0.02
PUBLISHED_S = 2.0
KEPT_S = 3600.0
FORGET_S = 60.0
REPLACE_S = 30.0
"""Interval at which the manager is asked to replace an instance, if it cannot."""
HOOK = "onvm_host_policies"
NUMBER = re.compile(r"(.+)-(\d+)")


def is_leader(snapshot: Snapshot, name: str) -> bool:
    """True if a host has the lowest election number of all."""
    numbers = [host.election_number for host in snapshot.hosts.values()]
    return name in snapshot.hosts and snapshot.hosts[name].election_number == min(numbers)


class _Start(NamedTuple):
    """An instance that starts."""

    service: str
    thread: threading.Thread


class _Stop(NamedTuple):
    """An instance that has been told to end, and until when others may see it serve."""

    taken: Taken
    until_s: float
    why: str


def _is_launched(link: ManagerLink, instance: str) -> bool:
    return any(instance in one.instances for one in link.launched().launched)


def _is_serving(link: ManagerLink, instance: str) -> str | None:
    """Tell if an instance serves ("") or has failed (the reason); None: neither yet."""
    hosts = {host.name: host.state for host in link.local().hosts}
    if hosts.get(instance) == "active":
        return ""
    failed = [
        one.reason or one.state
        for one in link.launched().launched
        if instance in one.instances and one.state in ("waiting", "crash-loop")
    ]
    return f"{instance}: {failed[0]}" if failed else None


class Scaler:
    """Runs until `stop`.

    Args:
        link: link to the manager; closed here.
        loads: gives the load of all instances, by number.
        living: gives the hosts without a session whose instances serve.

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
        living: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._thread = threading.Thread(target=self._run_thread, name="onvm-scaler", daemon=True)
        self._session_thread = session_thread
        self._membership = session_thread.membership
        self._state = state
        self._link = link
        self.queue = RequestQueue(ensemble, paths, session_thread.membership.name)
        self._autoscaler = ClusterAutoscaler(
            self.queue, session_thread.membership.fence, loads, living
        )
        self._chain_changes = ChainChanges(ensemble, paths, session_thread.membership.fence)
        self._policies: dict[str, HostPolicy] = {}
        self._is_stopping = threading.Event()
        self._woken = threading.Event()
        self._requests: Mapping[str, RequestNode] = {}
        self._led: tuple[Snapshot | None, bool] = (None, False)
        self._forget_at_s = 0.0
        self._complaint = ""
        self._starts: dict[str, _Start] = {}
        """Threads that wait for instances to serve, by the keys of their requests."""
        self._stops: dict[str, _Stop] = {}
        """By the keys of their requests."""
        self._unsure: set[str] = set()
        """Entries of which it is not known if they are taken here."""
        self._replaced_s: dict[str, float] = {}
        """Times at which instances were last asked to be replaced."""
        self._seen_s: dict[str, float] = {}
        """Times at which this leader has first seen each entry."""
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
        for start in list(self._starts.values()):
            start.thread.join()
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
                self._replace_held_back()
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

    def _replace_held_back(self) -> None:
        """Have instances that came back, while others use their traffic, replaced."""
        now, moved = time.monotonic(), self._session_thread.moved
        self._replaced_s = {
            name: at for name, at in self._replaced_s.items() if name in moved.held_back
        }
        for name in sorted(moved.held_back):
            if now - self._replaced_s.get(name, -REPLACE_S) < REPLACE_S:
                continue
            self._replaced_s[name] = now
            log.warning("%s is back, and its successor uses what it had; it is replaced", name)
            try:
                self._link.replace(name, sorted(moved.names))
            except OnvmError as error:
                log.warning("%s gets no flows until its successor's have ended: %s", name, error)

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

    def _take(self, entry: str) -> Taken | None:
        """Take an entry; if there is no answer, it may be taken all the same."""
        self._unsure.add(entry)
        taken = self.queue.take(entry, self._membership.fence)
        self._unsure.discard(entry)
        return taken

    def _serve(self, snapshot: Snapshot) -> None:
        for entry in sorted(self._unsure):  # another host may be the one to serve it by now
            self.queue.release_mine(entry)
            self._unsure.discard(entry)
        self._end_stops()
        for entry, request in snapshot.requests.items():
            if self._is_stopping.is_set() or not self._session_thread.may_decide:
                return
            if request.key in self._stops:
                continue
            if request.key in self._starts or len(self._starts) >= STARTS_MAX:
                continue
            # Computed each time: the instance for the previous request has taken its share.
            choice = self._choose(request, self._session_thread.snapshot or snapshot)
            if choice.host != self.name_of_host:
                continue
            now = self._session_thread.snapshot or snapshot
            if self._starts and not request.stop and not self._has_room(request, choice, now):
                continue
            taken = self._take(entry)
            if taken is None:
                continue
            if request.stop:
                self._stop_one(taken)
            else:
                assert choice.plugin is not None
                self._start_one(taken, choice.plugin.name, choice.reason)

    def _has_room(self, request: RequestNode, choice: Choice, snapshot: Snapshot) -> bool:
        """Tell if an instance fits beside those that start: others need not know of them yet."""
        assert choice.plugin is not None
        settings = snapshot.services.get(request.service)
        starting = sum(start.service == request.service for start in self._starts.values())
        if settings is not None and serving(snapshot, request.service) + starting >= settings.max:
            return False
        resources = self._link.local().resources
        if resources is None:
            return True
        has_cores = resources.free_cores >= choice.plugin.cores - ROUNDING
        return has_cores and resources.free_memory_mib >= choice.plugin.memory_mib

    def _stop_one(self, taken: Taken) -> None:
        """Have an instance drain; one that is gone was stopped before, maybe by the last agent."""
        instance = taken.request.stop
        try:
            is_there = any(host.name == instance for host in self._link.local().hosts)
            if is_there:
                self._link.drain(instance)
        except OnvmError as error:
            self.queue.refuse(taken, self.name_of_host, str(error), self._membership.fence)
            return
        why = "drains" if is_there else GONE
        until_s = time.monotonic() + PUBLISHED_S
        self._stops[taken.request.key] = _Stop(taken, until_s, why)
        self._end_stops()

    def _end_stops(self) -> None:
        """End the requests whose instances others no longer see serve.

        Not earlier: between the end of its request and the news of its end, an instance would look
        as if it served, and the leader might ask for its end again.
        """
        for key, stop in list(self._stops.items()):
            instance = stop.taken.request.stop
            snapshot = self._session_thread.snapshot
            node = None if snapshot is None else snapshot.instances.get(self.name_of_host)
            seen = () if node is None else node.instances
            is_seen = any(one.name == instance and one.state == "active" for one in seen)
            if is_seen and time.monotonic() < stop.until_s:
                continue
            del self._stops[key]  # if it cannot be ended, it is taken and looked at again
            self._end(stop.taken, instance, stop.why)

    def _start_one(self, taken: Taken, nf: str, why: str) -> None:
        key = taken.request.key
        started = self._state.state.started
        if key not in started:
            started[key] = self._free_name(nf)
            self._state.save()
        instance = started[key]
        log.info("%s: starting %s: %s", key, instance, why)
        problem = self._launch(nf, instance)
        if problem:
            self._give_up(taken, instance, problem, self._link)
            return
        thread = threading.Thread(
            target=self._finish_start,
            args=(taken, instance, why),
            name=f"onvm-start-{instance}",
            daemon=True,
        )
        self._starts[key] = _Start(taken.request.service, thread)
        thread.start()

    def _finish_start(self, taken: Taken, instance: str, why: str) -> None:
        """Wait until an instance serves, and end its request; the thread of this start."""
        key = taken.request.key
        try:
            with self._link.another() as link:
                problem = self._wait_serving(link, instance)
                if problem:
                    self._give_up(taken, instance, problem, link)
                else:
                    self._wait_published(instance)
                    self._end(taken, instance, why)
        except OnvmError as error:  # the next turn, or the next agent, looks at what has begun
            log.info("%s: %s", key, error)
        finally:
            del self._starts[key]
            self._woken.set()

    def _wait_published(self, instance: str) -> None:
        """Let others see the instance before its request is gone, so that one of both counts."""
        deadline = time.monotonic() + PUBLISHED_S
        while time.monotonic() < deadline and not self._is_stopping.is_set():
            snapshot = self._session_thread.snapshot
            node = None if snapshot is None else snapshot.instances.get(self.name_of_host)
            if node is not None and any(one.name == instance for one in node.instances):
                return
            time.sleep(POLL_S)

    def _give_up(self, taken: Taken, instance: str, problem: str, link: ManagerLink) -> None:
        self._undo(taken.request.key, instance, link)
        log.warning("%s: %s", taken.request.key, problem)
        self.queue.refuse(taken, self.name_of_host, problem, self._membership.fence)

    def _free_name(self, nf: str) -> str:
        taken = {name for one in self._link.launched().launched for name in one.instances}
        local = self._link.local()
        taken |= {host.name for host in local.hosts} | set(local.reserved)
        taken |= set(self._state.state.started.values()) | self._session_thread.moved.names
        number = 1
        while f"{nf}-{number}" in taken:
            number += 1
        return f"{nf}-{number}"

    def _launch(self, nf: str, instance: str) -> str:
        """Start an instance, if it does not run; return "", or the reason why it does not."""
        match = NUMBER.fullmatch(instance)
        assert match is not None
        try:
            if not _is_launched(self._link, instance):
                self._link.run(nf, int(match[2]))
        except OnvmError as error:
            if self._is_stopping.is_set():
                raise
            return str(error)
        return ""

    def _wait_serving(self, link: ManagerLink, instance: str) -> str:
        """Wait until an instance serves; return "", or the reason why it does not.

        Raises:
            ClusterError: the agent must end.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_stopping.is_set():
            try:
                problem = _is_serving(link, instance)
            except OnvmError as error:
                problem = str(error)
            if problem is not None:
                return problem
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

    def _undo(self, key: str, instance: str, link: ManagerLink) -> None:
        """Stop an instance that is not requested, or no longer."""
        try:
            if _is_launched(link, instance):
                link.stop(instance)
        except OnvmError as error:
            log.warning("%s: cannot stop %s: %s", key, instance, error)
            return
        self._note_done(key)

    def _finish_started(self) -> None:
        """Complete the work of an earlier agent, or of this one before it was cut off."""
        for key, instance in list(self._state.state.started.items()):
            if key in self._starts:
                continue
            outcome = self.queue.outcome(key)
            if outcome is None or (outcome.host, outcome.instance) == (self.name_of_host, instance):
                self._note_done(key)
            elif outcome.state != "waiting":
                log.info("%s was served by %s; stopping %s", key, outcome.host, instance)
                self._undo(key, instance, self._link)
            else:
                self._resume(key, instance)

    def _resume(self, key: str, instance: str) -> None:
        entry = self.queue.entry_of(key)
        taken = None if entry is None else self._take(entry)
        if taken is None:
            return  # another host works on it; its outcome decides
        match = NUMBER.fullmatch(instance)
        assert match is not None
        self._start_one(taken, match[1], "begun before")

    # ---- leading ----

    def _lead(self, snapshot: Snapshot) -> None:
        now, here = time.time(), time.monotonic()
        self._seen_s = {entry: self._seen_s.get(entry, here) for entry in snapshot.requests}
        for entry, request in snapshot.requests.items():
            if here - self._seen_s[entry] > request.patience_s:
                why = self._choose(request, snapshot).reason
                outcome = self.queue.expire(entry, why, self._membership.fence)
                if outcome is not None:
                    log.warning("%s for %s expired: %s", request.key, request.service, why)
        if time.monotonic() >= self._forget_at_s:
            self._forget_at_s = time.monotonic() + FORGET_S
            for key, outcome in self.queue.outcomes().items():
                if outcome.ended is not None and outcome.ended < now - KEPT_S:
                    self.queue.forget(key, self._membership.fence)
        self._chain_changes.turn(snapshot)
        self._autoscaler.turn(snapshot, self._membership.election_number)
