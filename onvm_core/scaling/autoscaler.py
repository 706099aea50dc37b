"""Keep the number of instances of each service that its policy, or a command, wants.

*Out*: an instance that drains serves again, an instance on standby is activated, or an instance is
started. *In*: an instance drains; it gets no new flows and ends with its last one, or hands over
its state. There are no decisions while an instance starts, nor for `cooldown_s` after a change.
Instances that users start or stop by hand, and those that die, are accepted as they are; min and
max always hold.

Threads: the caller's; no call waits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from onvm_core.scaling.load import Load
from onvm_core.scaling.policy import ScaleSettings, ScalingPolicy, ServiceLoad, Wish
from onvm_sdk.errors import OnvmError

__all__ = ["Autoscaler", "Decision", "Figures", "Instances", "Scaled", "ServiceState"]

DECISIONS_KEPT = 200
REFUSED_PAUSE_S = 5.0
STANDBY_PAUSE_S = 1.0
"""A new instance on standby waits: its set-up would take CPU time from those that are
overloaded."""


class Instances(Protocol):
    """Actions on the instances of a service; each returns the name of an instance."""

    def start(self, service: str, *, is_standby: bool) -> str:
        """Start an instance.

        Raises:
            OnvmError: it cannot be started.
        """

    def resume(self, service: str) -> str | None:
        """Give new flows to a draining instance again; None if there is none."""

    def activate(self, service: str) -> str | None:
        """Give new flows to a standby; None if there is none."""

    def drain(self, service: str) -> str | None:
        """Drain an instance; None if none can be spared."""

    def stop_standby(self, service: str) -> str | None:
        """End a standby."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The instances of a service now.

    Attributes:
        serving: instances that get new flows.
        starting: instances that start for the first time.
        failing: instances that died and start again.
        standby: instances that could serve at once.
        standby_starting: standbys that are starting.
        draining: instances that end with their flows.
        loads: loads of serving instances that were read twice.
    """

    serving: int = 0
    starting: int = 0
    failing: int = 0
    standby: int = 0
    standby_starting: int = 0
    draining: int = 0
    loads: tuple[Load, ...] = ()


class Figures(msgspec.Struct, frozen=True):
    """The load behind a decision."""

    utilisation: float
    demand: float
    """Instances needed at full utilisation, shed packets included."""
    pps: int
    sheds: int
    occupancy: float
    p99_us: float | None
    instances: list[float]
    """Utilisation of each."""


class Decision(msgspec.Struct):
    """A change of the number of instances."""

    time: float
    """Wall clock, in seconds since 1970."""
    service: str
    by: str
    """policy, command, or limits: min or max."""
    before: int
    wanted: int
    reason: str
    figures: Figures | None
    actions: list[str]
    done_ms: float | None = None
    """From the decision until the wanted number of instances served."""
    error: str = ""


@dataclass(slots=True)
class Scaled:
    """A service under the autoscaler."""

    settings: ScaleSettings
    policy: ScalingPolicy | None
    standby: int = 0
    cooldown_s: float = 1.0
    wanted: int | None = None
    is_manual: bool = False
    hold_until_s: float = 0.0
    spare_from_s: float = 0.0
    history: deque[ServiceLoad] = field(default_factory=deque)
    state: ServiceState = ServiceState()
    open: tuple[Decision, float] | None = None

    def clamp(self, instances: int) -> int:
        """Between min and max; who died and starts again counts for min."""
        floor = self.settings.min - self.state.failing
        return min(max(instances, floor), self.settings.max)


class Autoscaler:
    """Keeps services at the right size.

    Args:
        instances: starts and drains instances.
        clock: wall clock, for the history of decisions.
    """

    def __init__(self, instances: Instances, clock: Callable[[], float] = time.time) -> None:
        self._instances = instances
        self._clock = clock
        self.services: dict[str, Scaled] = {}
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS_KEPT)

    def turn(self, now_s: float, states: Mapping[str, ServiceState]) -> None:
        """Act on the states of a new reading."""
        for service, scaled in self.services.items():
            scaled.state = states.get(service, ServiceState())
            self._look(scaled, now_s)
            self._accept(service, scaled, now_s)
            self._ask_policy(service, scaled, now_s)
            self._keep_standby(service, scaled, now_s)

    def command(self, service: str, instances: int, now_s: float, state: ServiceState) -> Decision:
        """Keep `instances` of a service until `release`; returns the decision."""
        scaled = self.services.setdefault(service, Scaled(ScaleSettings(max=64), None))
        scaled.state = state
        scaled.is_manual = True
        wish = Wish(instances, "asked for")
        return self._change(service, scaled, wish, "command", now_s)

    def release(self, service: str) -> None:
        """Return a service to its policy."""
        self.services[service].is_manual = False

    @property
    def is_watchful(self) -> bool:
        """True if a service may soon need another instance, or could have one at once."""
        return any(
            scaled.history[-1].utilisation > scaled.settings.target / 2
            or (scaled.state.standby > 0 and scaled.history[-1].pps > 0)
            for scaled in self.services.values()
            if scaled.history and not scaled.is_manual
        )

    # ---- one service ----

    def _look(self, scaled: Scaled, now_s: float) -> None:
        state, history = scaled.state, scaled.history
        history.append(ServiceLoad(now_s, state.loads, state.serving + state.starting))
        while now_s - history[0].at_s > scaled.settings.history_s:
            history.popleft()
        if scaled.open is not None and state.serving == scaled.wanted and not state.starting:
            decision, since_s = scaled.open
            decision.done_ms = round((now_s - since_s) * 1000, 1)
            scaled.open = None

    def _accept(self, service: str, scaled: Scaled, now_s: float) -> None:
        """Take what is there for what is wanted, unless min or max says otherwise."""
        state = scaled.state
        have = state.serving + state.starting
        if have == scaled.wanted:
            return
        wanted = scaled.clamp(have)
        if wanted == have:
            scaled.wanted = have
        elif scaled.policy is not None and now_s >= scaled.hold_until_s:
            limit = "min" if wanted > have else "max"
            wish = Wish(wanted, f"{limit} is {getattr(scaled.settings, limit)}")
            self._change(service, scaled, wish, "limits", now_s)

    def _ask_policy(self, service: str, scaled: Scaled, now_s: float) -> None:
        state = scaled.state
        if scaled.policy is None or scaled.is_manual or now_s < scaled.hold_until_s:
            return
        if state.starting or state.serving != scaled.wanted:
            return
        wish = scaled.policy.decide(list(scaled.history))
        if scaled.clamp(wish.instances) != scaled.wanted:
            wish = Wish(scaled.clamp(wish.instances), wish.reason)
            self._change(service, scaled, wish, "policy", now_s)

    def _change(self, service: str, scaled: Scaled, wish: Wish, by: str, now_s: float) -> Decision:
        have = scaled.state.serving + scaled.state.starting
        decision = Decision(
            self._clock(),
            service,
            by,
            have,
            wish.instances,
            wish.reason,
            _figures(scaled),
            [],
        )
        reached = have
        try:
            while reached < wish.instances:
                decision.actions.append(self._add(service))
                reached += 1
            while reached > wish.instances and (name := self._instances.drain(service)):
                decision.actions.append(f"draining {name}")
                reached -= 1
        except OnvmError as error:
            decision.error = str(error)
        scaled.wanted = reached
        is_refused = reached != wish.instances
        scaled.hold_until_s = now_s + (REFUSED_PAUSE_S if is_refused else scaled.cooldown_s)
        scaled.spare_from_s = now_s + STANDBY_PAUSE_S
        scaled.open = None if is_refused else (decision, now_s)
        if not (self.decisions and _is_again(self.decisions[-1], decision)):
            self.decisions.append(decision)
        return decision

    def _add(self, service: str) -> str:
        draining = self._instances.resume(service)
        if draining is not None:
            return f"resumed {draining}"
        activated = self._instances.activate(service)
        if activated is not None:
            return f"activated {activated}"
        return f"started {self._instances.start(service, is_standby=False)}"

    def _keep_standby(self, service: str, scaled: Scaled, now_s: float) -> None:
        state = scaled.state
        wanted = min(scaled.standby, scaled.settings.max - (scaled.wanted or 0))
        have = state.standby + state.standby_starting
        if have < wanted and now_s >= scaled.spare_from_s and not state.starting:
            try:
                self._instances.start(service, is_standby=True)
            except OnvmError:
                scaled.spare_from_s = now_s + REFUSED_PAUSE_S
        elif have > wanted and now_s >= scaled.spare_from_s:
            self._instances.stop_standby(service)


def _is_again(last: Decision, decision: Decision) -> bool:
    """True if the same was refused for the same reason: once in the history is enough."""
    return (
        bool(decision.error)
        and not decision.actions
        and (
            (last.service, last.wanted, last.error)
            == (decision.service, decision.wanted, decision.error)
        )
    )


def _figures(scaled: Scaled) -> Figures | None:
    if not scaled.history or not scaled.history[-1].loads:
        return None
    load = scaled.history[-1]
    return Figures(
        utilisation=round(load.utilisation, 3),
        demand=round(load.demand(scaled.settings.target), 3),
        pps=int(load.pps),
        sheds=load.sheds,
        occupancy=round(load.occupancy, 3),
        p99_us=load.p99_us,
        instances=[round(one.utilisation, 3) for one in load.loads],
    )
