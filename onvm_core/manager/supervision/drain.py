"""NF hosts that drain: they get no new flows, and end.

A host that can hand over its state to a sibling does so at once, and its flows go with it. Any
other host ends when its flows have ended and its NFs agree that their state may go, or after a
timeout; then its remaining flows move to other hosts.

The flow table may have millions of entries: each turn looks at some of them. A host that no entry
has named in a whole pass has no flows any more, because it gets no new ones. Flows that came in at
another host of the cluster are in that host's table: then the NF host must also have had no packets
for as long as a flow is kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onvm_core.dataplane.interface import ChainPlane
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.handover.handover import HandoverFailure, Handovers
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_core.manager.supervision.supervised import Supervised

__all__ = ["Drains", "FlowWatch"]

log = logging.getLogger("onvm.drain")

FLOWS_PER_TURN = 2048
PAUSE_S = 0.2
TRIES_MAX = 5
"""Attempts at a handover: one fails if a queue does not run empty within the pause."""
RETRY_S = 2.0


class FlowWatch:
    """Watches slots of draining hosts."""

    def __init__(self, plane: ChainPlane) -> None:
        self._plane = plane
        self._watched: set[int] = set()
        self._asked: frozenset[int] = frozenset()
        self._seen: set[int] = set()
        self._cursor = 0
        self._next_s = 0.0

    def add(self, slot: int) -> None:
        """Watch a slot."""
        self._watched.add(slot)

    def discard(self, slot: int) -> None:
        """Stop watching a slot."""
        self._watched.discard(slot)

    def turn(self, now_s: float) -> set[int]:
        """Examine some flows; return the slots that were found to have none."""
        if not self._watched or now_s < self._next_s:
            return set()
        if self._cursor == 0:
            self._asked = frozenset(self._watched)
            self._seen = set()
        cursor, slots = self._plane.read_flow_hosts(self._cursor, FLOWS_PER_TURN)
        self._seen |= slots
        ended = self._asked - self._seen
        if cursor is not None and ended:
            self._cursor = cursor
            return set()
        # The end of the table, or all are known to have flows: start over, a little later.
        self._cursor = 0
        self._next_s = now_s + PAUSE_S
        return set(ended) & self._watched


@dataclass(slots=True)
class _Plan:
    """A wanted handover, from its first attempt to its last."""

    successors: Sequence[NfHost]
    pause_s: float
    ends: bool = False
    """True if the host ends even if it cannot hand its state over."""
    tries: int = 0
    retry_at: float | None = None


class Drains:
    """Drains NF hosts that are supervised.

    Args:
        nfs: all supervised NF hosts; the supervisor's own list.
        stop: ends an NF host; its flows go to the slot in the second argument, or to all others.
        write: records the state of the NF hosts.
    """

    def __init__(
        self,
        deployment: Deployment,
        nfs: list[Supervised],
        stop: Callable[[Supervised, int], None],
        write: Callable[[], None],
    ) -> None:
        self._manager = deployment.manager
        self._nfs = nfs
        self._stop = stop
        self._write = write
        self._flows = FlowWatch(self._manager.plane)
        self._plans: dict[int, _Plan] = {}
        self._heard: dict[int, tuple[int, float]] = {}
        """For hosts to which other machines send: the packet count so far, and the time of its last
        change.
        """
        self.handovers = Handovers(
            self._manager,
            on_end=self._handed_over,
            on_received=self._received,
            on_released=self._released,
        )

    @property
    def is_urgent(self) -> bool:
        """True if packets wait for a handover of state."""
        return self.handovers.is_urgent

    def is_excused(self, host: NfHost) -> bool:
        """True if a host that makes no progress may be busy with a state."""
        return self.handovers.is_excused(host)

    def on_gone(self, host: NfHost) -> None:
        """Forget a host that is dead."""
        self.handovers.on_gone(host)

    def forget(self, host: NfHost) -> None:
        """Stop following a host that must stop."""
        self._plans.pop(host.slot, None)
        self._heard.pop(host.slot, None)
        self.handovers.cancel(host)
        self._flows.discard(host.slot)

    def drain(self, service: str, deadline_s: float, handover_s: float) -> str | None:
        """Let the newest host of the service end with its flows; return its name, or None.

        A host that does not serve yet is stopped at once. A host that can hand over its state does
        so, and ends when its flows have moved with the state.

        Args:
            handover_s: the longest time that packets may wait for that; 0: no handover.
        """
        for nf in reversed(self._nfs):
            if service not in nf.wanted.services or nf.is_leaving or nf.wanted.is_standby:
                continue
            if nf.is_serving and nf.host is not None:
                self._begin(nf, nf.host, self._successor_of(nf), deadline_s, handover_s)
            else:
                self._stop(nf, 0)
            return "+".join(nf.wanted.instances)
        return None

    def drain_one(self, nf: Supervised, deadline_s: float, handover_s: float) -> None:
        """Like `drain`, for a given host."""
        if nf.is_serving and nf.host is not None:
            self._begin(nf, nf.host, self._successor_of(nf), deadline_s, handover_s)
        elif not nf.is_leaving:
            self._stop(nf, 0)

    def drain_host(
        self, host: NfHost, successors: Sequence[NfHost], deadline_s: float, handover_s: float
    ) -> None:
        """Drain a host that serves, as `drain` does; `successors` is one host, or one for each
        stage.
        """
        nf = self._of(host)
        if nf is not None and nf.is_serving:
            self._begin(nf, host, successors, deadline_s, handover_s)

    def end(self, nfs: Sequence[Supervised], deadline_s: float, handover_s: float) -> None:
        """Let hosts end as soon as siblings have their state and flows; at once those that have no
        sibling, or cannot hand it over.
        """
        serving = [(nf, nf.host) for nf in nfs if nf.is_serving and nf.host is not None]
        for nf in nfs:
            plan = self._plans.get(nf.host.slot) if nf.host is not None else None
            if nf.is_serving:
                nf.is_draining = True  # none of them is a successor of another
            elif plan is not None and nf.is_draining and not nf.is_stopping:
                plan.ends = True
            else:
                self._stop(nf, 0)
        for nf, host in serving:
            successors = self._successor_of(nf) if handover_s > 0 else []
            if successors:
                self._begin(nf, host, successors, deadline_s, handover_s, ends=True)
            else:
                self._stop(nf, 0)

    def _begin(
        self,
        nf: Supervised,
        host: NfHost,
        successors: Sequence[NfHost],
        deadline_s: float,
        handover_s: float,
        *,
        ends: bool = False,
    ) -> None:
        nf.is_draining = True
        nf.drain_until = time.monotonic() + deadline_s
        nf.drain_note = ""
        self._manager.drain_host(host)
        self._flows.add(host.slot)
        if successors and handover_s > 0:
            self._plans[host.slot] = _Plan(successors, handover_s, ends)
            self._hand_over(host)

    def _hand_over(self, host: NfHost) -> None:
        plan = self._plans[host.slot]
        plan.tries += 1
        plan.retry_at = None
        self.handovers.begin(host, plan.successors, plan.pause_s)

    def resume(self, service: str) -> str | None:
        """Send new flows to a draining host again; return its name, or None if there is none."""
        for nf in self._nfs:
            if (
                nf.is_draining
                and not nf.is_stopping
                and service in nf.wanted.services
                and nf.host is not None
                and nf.host.state is HostState.DRAINING
            ):
                self.forget(nf.host)
                nf.is_draining = False
                self._manager.resume_host(nf.host)
                return "+".join(nf.wanted.instances)
        return None

    def turn(self, now: float) -> None:
        """Advance handovers, and end hosts that have no flow any more."""
        self.handovers.turn()
        ended = self._flows.turn(now)
        for nf in list(self._nfs):
            if not nf.is_draining or nf.is_stopping or nf.host is None:
                continue
            # A state outlives the flows of the table: connections may be silent for long.
            has_ended = (
                nf.host.slot in ended
                and nf.host.slot not in self._plans
                and nf.host.is_drained
                and self._is_quiet(nf.host, now)
            )
            if has_ended or now > nf.drain_until or nf.host.state is HostState.DEAD:
                self.forget(nf.host)
                self._stop(nf, 0)
                continue
            plan = self._plans.get(nf.host.slot)
            if plan is not None and plan.retry_at is not None and now > plan.retry_at:
                self._hand_over(nf.host)

    def _is_quiet(self, host: NfHost, now: float) -> bool:
        """True if no flow that other hosts know can be there any more."""
        if not host.is_shared:
            return True
        rx = sum(self._manager.plane.read_host(host.slot).rx)
        known = self._heard.get(host.slot)
        if known is None or known[0] != rx:
            known = self._heard[host.slot] = rx, now
        return now - known[1] > self._manager.longest_idle_s(host.services)

    # ---- the state ----

    def _successor_of(self, nf: Supervised) -> list[NfHost]:
        """The sibling best able to take its flows, if there is one."""
        meters = self._manager.meters
        siblings = [
            other.host
            for other in self._nfs
            if other is not nf
            and other.is_serving
            and other.host is not None
            and (other.wanted.nfs, other.wanted.services) == (nf.wanted.nfs, nf.wanted.services)
            and other.wanted.digest == nf.wanted.digest
        ]
        return sorted(siblings, key=meters.spare_pps)[-1:]

    def _of(self, host: NfHost) -> Supervised | None:
        return next((nf for nf in self._nfs if nf.host is host), None)

    def _handed_over(
        self, host: NfHost, successors: Sequence[NfHost], failure: HandoverFailure | None
    ) -> None:
        nf = self._of(host)
        if nf is None or not nf.is_draining or nf.is_stopping:
            return
        label = "+".join(nf.wanted.instances)
        plan = self._plans.get(host.slot)
        is_late = failure is not None and failure.is_timeout
        if is_late and plan is not None and plan.tries < TRIES_MAX and _all_serve(successors):
            plan.retry_at = time.monotonic() + RETRY_S
            nf.drain_note = f"state not handed over yet: {failure}; it is tried again"
            log.warning("%s drains: %s", label, nf.drain_note)
            return
        self._plans.pop(host.slot, None)
        if failure is not None and plan is not None and plan.ends:
            log.warning("%s ends without handing its state over: %s", label, failure)
            self.forget(host)
            self._stop(nf, 0)
            return
        if failure is not None:
            nf.drain_note = f"state not handed over: {failure}; its flows may end by themselves"
            log.warning("%s drains: %s", label, nf.drain_note)
            return
        names = [successor.instances[0].name for successor in successors]
        log.info("%s has handed its state over to %s", label, ", ".join(names))
        self._flows.discard(host.slot)
        # Where several can take it, there is one for each service, and so no choice.
        self._stop(nf, successors[0].slot)

    def _received(self, successor: NfHost, name: str) -> None:
        """Keep the names of the former owner reserved as long as its state is used."""
        nf = self._of(successor)
        owner = next((one for one in self._nfs if name in one.wanted.instances), None)
        if nf is not None:
            nf.adopted |= {name}
            if owner is not None:
                nf.adopted |= {*owner.wanted.instances, *owner.adopted}
            self._write()

    def _released(self, successor: NfHost) -> None:
        nf = self._of(successor)
        if nf is not None:
            nf.adopted = set()
            self._write()


def _all_serve(hosts: Sequence[NfHost]) -> bool:
    return all(host.state is HostState.ACTIVE for host in hosts)
