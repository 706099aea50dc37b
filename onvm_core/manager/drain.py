"""NF hosts that drain: they get no new flows, and end.

One that can hand its state over to a sibling does so at once, and its flows go with it. Any other
ends when its flows have ended and its NFs say that their state may go, or after a while, when what
is left of its flows moves to others.

The flow table may have millions of entries: each turn looks at some of them. A host whose slot no
entry has named in a whole pass has no flow any more, for it gets no new ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from onvm_core._native import dataplane
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.handover import HandOvers
from onvm_core.manager.registry import HostState, NfHost
from onvm_core.manager.supervised import Supervised

__all__ = ["Drains", "FlowWatch"]

log = logging.getLogger("onvm.drain")

FLOWS_PER_TURN = 2048
PAUSE_S = 0.2


class FlowWatch:
    """Watches slots of draining hosts."""

    def __init__(self) -> None:
        self._watched: set[int] = set()
        self._asked: frozenset[int] = frozenset()
        self._seen: set[int] = set()
        self._cursor = 0
        self._next_s = 0.0

    def add(self, slot: int) -> None:
        """Watch a slot."""
        self._watched.add(slot)

    def discard(self, slot: int) -> None:
        """Watch it no longer."""
        self._watched.discard(slot)

    def turn(self, now_s: float) -> set[int]:
        """Look at some flows; slots that were found to have none."""
        if not self._watched or now_s < self._next_s:
            return set()
        if self._cursor == 0:
            self._asked = frozenset(self._watched)
            self._seen = set()
        cursor, slots = dataplane.read_flow_hosts(self._cursor, FLOWS_PER_TURN)
        self._seen |= slots
        ended = self._asked - self._seen
        if cursor is not None and ended:
            self._cursor = cursor
            return set()
        # The table's end, or all are known to have flows: once more, a little later.
        self._cursor = 0
        self._next_s = now_s + PAUSE_S
        return set(ended) & self._watched


class Drains:
    """Drains NF hosts that are looked after.

    Args:
        nfs: all of them; the supervisor's own list.
        stop: ends one of them; its flows go to the second argument, or to all others.
        write: records what is known of them.
    """

    def __init__(
        self,
        deployment: Deployment,
        nfs: list[Supervised],
        stop: Callable[[Supervised, NfHost | None], None],
        write: Callable[[], None],
    ) -> None:
        self._manager = deployment.manager
        self._nfs = nfs
        self._stop = stop
        self._write = write
        self._flows = FlowWatch()
        self._hand_overs = HandOvers(
            self._manager, on_end=self._handed_over, on_inherited=self._inherited,
            on_released=self._released,
        )  # fmt: skip

    @property
    def is_urgent(self) -> bool:
        """Whether packets wait for a hand-over of state."""
        return self._hand_overs.is_urgent

    def is_excused(self, host: NfHost) -> bool:
        """Whether a host that makes no progress may be busy with a state."""
        return self._hand_overs.is_excused(host)

    def on_gone(self, host: NfHost) -> None:
        """A host is dead."""
        self._hand_overs.on_gone(host)

    def forget(self, host: NfHost) -> None:
        """A host is to stop, whatever it was doing."""
        self._hand_overs.cancel(host)
        self._flows.discard(host.slot)

    def drain(self, service: str, deadline_s: float, handover_s: float) -> str | None:
        """Let the newest host of the service end with its flows; its name, or None.

        One that does not serve yet is stopped at once. One that can hand its state over does so,
        and ends when its flows have gone with it.

        Args:
            handover_s: for how long packets may wait for that; 0: it does not.
        """
        for nf in reversed(self._nfs):
            if service not in nf.wanted.services or nf.is_leaving or nf.wanted.is_spare:
                continue
            if nf.is_serving and nf.host is not None:
                self._begin(nf, nf.host, self._heir_of(nf), deadline_s, handover_s)
            else:
                self._stop(nf, None)
            return "+".join(nf.wanted.instances)
        return None

    def drain_host(
        self, host: NfHost, heirs: Sequence[NfHost], deadline_s: float, handover_s: float
    ) -> None:
        """As `drain`, a host that serves; its state goes to `heirs`, one or one for each stage."""
        nf = self._of(host)
        if nf is not None and nf.is_serving:
            self._begin(nf, host, heirs, deadline_s, handover_s)

    def _begin(
        self, nf: Supervised, host: NfHost, heirs: Sequence[NfHost], deadline_s: float,
        handover_s: float,
    ) -> None:  # fmt: skip
        nf.is_draining = True
        nf.drain_until = time.monotonic() + deadline_s
        nf.drain_note = ""
        self._manager.drain_host(host)
        self._flows.add(host.slot)
        if heirs and handover_s > 0:
            self._hand_overs.begin(host, heirs, handover_s)

    def resume(self, service: str) -> str | None:
        """Let new flows come to a host that drains; its name, or None without one."""
        for nf in self._nfs:
            if (
                nf.is_draining and not nf.is_stopping and service in nf.wanted.services
                and nf.host is not None and nf.host.state is HostState.DRAINING
            ):  # fmt: skip
                self._hand_overs.cancel(nf.host)
                self._flows.discard(nf.host.slot)
                nf.is_draining = False
                self._manager.resume_host(nf.host)
                return "+".join(nf.wanted.instances)
        return None

    def turn(self, now: float) -> None:
        """Go on with hand-overs, and end who has no flow any more."""
        self._hand_overs.turn()
        ended = self._flows.turn(now)
        for nf in list(self._nfs):
            if not nf.is_draining or nf.is_stopping or nf.host is None:
                continue
            has_ended = nf.host.slot in ended and nf.host.is_drained
            if has_ended or now > nf.drain_until or nf.host.state is HostState.DEAD:
                self.forget(nf.host)
                self._stop(nf, None)

    # ---- the state ----

    def _heir_of(self, nf: Supervised) -> list[NfHost]:
        """The sibling that could best take its flows, if there is one."""
        meters = self._manager.meters
        siblings = [
            other.host for other in self._nfs
            if other is not nf and other.is_serving and other.host is not None
            and (other.wanted.nfs, other.wanted.services) == (nf.wanted.nfs, nf.wanted.services)
            and other.wanted.digest == nf.wanted.digest
        ]  # fmt: skip
        return sorted(siblings, key=meters.spare_pps)[-1:]

    def _of(self, host: NfHost) -> Supervised | None:
        return next((nf for nf in self._nfs if nf.host is host), None)

    def _handed_over(self, host: NfHost, heirs: Sequence[NfHost], failure: str) -> None:
        nf = self._of(host)
        if nf is None or not nf.is_draining or nf.is_stopping:
            return
        label = "+".join(nf.wanted.instances)
        if failure:
            nf.drain_note = f"state not handed over: {failure}; its flows may end by themselves"
            log.warning("%s drains: %s", label, nf.drain_note)
            return
        names = [heir.instances[0].name for heir in heirs]
        log.info("%s has handed its state over to %s", label, ", ".join(names))
        self._flows.discard(host.slot)
        # Where several take it, there is one for each service, and so no choice.
        self._stop(nf, heirs[0])

    def _inherited(self, heir: NfHost, name: str) -> None:
        """As long as the state is used, nobody else gets the names of who owned it."""
        nf = self._of(heir)
        owner = next((one for one in self._nfs if name in one.wanted.instances), None)
        if nf is not None:
            nf.heirlooms |= {name}
            if owner is not None:
                nf.heirlooms |= {*owner.wanted.instances, *owner.heirlooms}
            self._write()

    def _released(self, heir: NfHost) -> None:
        nf = self._of(heir)
        if nf is not None:
            nf.heirlooms = set()
            self._write()
