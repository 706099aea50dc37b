"""Requests about instances that move: they drain, or their state goes to or comes from another
machine.

The agents carry the state; `handover` describes what happens to packets meanwhile.

Threads: the manager's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from onvm_core.manager.api import messages as m
from onvm_core.manager.api.state_messages import (
    NfDrainRequest,
    StateDoneRequest,
    StateGivenRequest,
    StateGiveRequest,
    StatePiece,
    StateReadRequest,
    StateReply,
    StateTakeRequest,
)
from onvm_core.manager.cluster_tables.tables import ClusterTables
from onvm_core.manager.cluster_view.view import claims_meet
from onvm_core.manager.config.sections import ScaleConfig
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts.codec import Claim
from onvm_core.manager.nf_hosts.registry import HostState, NfHost
from onvm_core.manager.supervision.supervised import Supervised
from onvm_core.manager.supervision.supervisor import Supervisor
from onvm_sdk.errors import ConfigError

__all__ = ["StateRequests"]

READ_BYTES = 1 << 20
"""Approximate size of the part of a state that goes into one reply."""
RESERVED_S = 60.0
"""Minimum time for which the name of an instance that has moved stays reserved."""


class StateRequests:
    """Handles these requests.

    Attributes:
        handlers: handler by type of request.
    """

    def __init__(
        self, deployment: Deployment, supervisor: Supervisor, tables: ClusterTables
    ) -> None:
        self._manager = deployment.manager
        self._supervisor = supervisor
        self._tables = tables
        self._handovers = supervisor.drains.handovers
        self._moved: dict[str, tuple[float, frozenset[Claim]]] = {}
        supervisor.reserved = tables.reserved = self.reserved
        self.handlers: dict[type, Callable[[Any], m.Reply]] = {
            NfDrainRequest: self.drain,
            StateTakeRequest: self.take,
            StateReadRequest: self.read,
            StateDoneRequest: self.done,
            StateGiveRequest: self.give,
            StateGivenRequest: self.given,
        }

    def reserved(self) -> set[str]:
        """Names of instances that have moved away, while things that belong to the name (a block of
        ports) are used in their new place.
        """
        now = time.monotonic()
        self._moved = {
            name: (since, claims)
            for name, (since, claims) in self._moved.items()
            if now - since < RESERVED_S or self._is_used(claims)
        }
        return set(self._moved)

    def _is_used(self, claims: Iterable[Claim]) -> bool:
        """True if some of this traffic belongs to NF hosts elsewhere, in one claim or in parts."""
        return any(
            claims_meet(mine, other) for other in self._tables.remote_claims() for mine in claims
        )

    def _find(self, instance: str) -> tuple[Supervised, NfHost]:
        nf = self._supervisor.find(instance)
        if nf is None or nf.host is None or nf.is_stopping:
            raise ConfigError(
                "expected an instance that this manager launched", field="nf", value=instance
            )
        if nf.host.state not in (HostState.ACTIVE, HostState.DRAINING):
            raise ConfigError("expected a serving instance", field="nf", value=instance)
        return nf, nf.host

    def drain(self, request: NfDrainRequest) -> m.Reply:
        """Let an instance end with its flows, or hand its state to a sibling."""
        nf = self._supervisor.find(request.name)
        if nf is None:
            raise ConfigError(
                "expected an instance that this manager launched",
                field="nf drain",
                value=request.name,
            )
        usual = ScaleConfig()
        self._supervisor.drains.drain_one(nf, usual.drain_s, usual.handover_ms / 1000)
        return m.DoneReply()

    # ---- from here to another host ----

    def take(self, request: StateTakeRequest) -> m.Reply:
        """Suspend an instance, and take its state."""
        _, host = self._find(request.instance)
        if self._handovers.is_going_on(host):
            raise ConfigError(
                "expected an instance without a handover in progress",
                field="nf",
                value=request.instance,
            )
        self._manager.keep_back(host, True)
        self._handovers.begin_leaving(host, request.pause_ms / 1000)
        return m.DoneReply()

    def read(self, request: StateReadRequest) -> m.Reply:
        """Read some of its state."""
        _, host = self._find(request.instance)
        try:
            pieces, is_whole = self._handovers.read(host, READ_BYTES)
        except ConfigError as error:
            return StateReply(step="failed", reason=str(error))
        return StateReply(
            step="done" if is_whole else "waiting",
            pieces=[StatePiece(stage, piece) for stage, piece in pieces],
        )

    def done(self, request: StateDoneRequest) -> m.Reply:
        """Record that another host has its state, or that none has."""
        nf, host = self._find(request.instance)
        if request.successor is None:
            self._handovers.cancel(host)
            self._tables.local_hosts.keep_back()
            return m.DoneReply()
        number, successor = (
            self._tables.local_hosts.number_of(host.slot),
            self._tables.slot_of(request.successor),
        )
        if successor is None or number is None:
            raise ConfigError(
                "expected an NF host of this cluster", field="successor", value=request.successor
            )
        if not self._handovers.end_leaving(host):
            raise ConfigError(
                "expected an answer before the pause ended",
                field="successor",
                value=request.successor,
            )
        self._manager.plane.set_successor(number, request.successor)
        for name in nf.wanted.instances:
            self._moved[name] = (time.monotonic(), frozenset(host.claims))
        self._supervisor.stop_with_successor(nf, successor)
        return m.DoneReply()

    # ---- from another host to here ----

    def give(self, request: StateGiveRequest) -> m.Reply:
        """Give an instance a piece of the state of another."""
        _, host = self._find(request.instance)
        self._handovers.receipts.give(
            host,
            request.source,
            [(piece.stage, piece.data) for piece in request.pieces],
            is_first=request.is_first,
        )
        return m.DoneReply(count=len(request.pieces))

    def given(self, request: StateGivenRequest) -> m.Reply:
        """Tell if it has taken over that state."""
        self._find(request.instance)
        step, reason = self._handovers.receipts.look(request.source)
        return StateReply(step=step, reason=reason)
