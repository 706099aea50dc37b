"""Scaling policies decide how many instances a service should have: interface and built-in policy.

The autoscaler calls a policy for each new reading of a service's load. A policy has no state and
changes nothing. The same history gives the same answer, so you can try any policy on a recorded or
simulated load. If the answer differs from the present number, the autoscaler acts on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from math import ceil
from typing import Any, Protocol

from onvm_core.scaling.load import Load
from onvm_sdk.errors import ConfigError

__all__ = ["ScaleSettings", "ScalingPolicy", "ServiceLoad", "UtilisationPolicy", "Wish"]

QUEUE_SHARE = 0.5
"""A host with a greater share of its credits in use has a queue."""
GROWING_SHARE = 0.05
"""Arrival above which a host is considered to have a growing queue."""
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class ScaleSettings:
    """``[scale.SERVICE]``, checked.

    Attributes:
        target: utilisation to aim for.
        hysteresis: an instance may go if the others would stay this share below `target`.
        out_after_s: how long the load must be above the target.
        in_after_s: how long the load must be low.
        history_s: length of the history that a policy gets; at least both of these.
        options: options of a plugin's policy.
    """

    min: int = 1
    max: int = 8
    target: float = 0.7
    hysteresis: float = 0.2
    out_after_s: float = 0.1
    in_after_s: float = 10.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def history_s(self) -> float:
        """Length of the history that a policy gets."""
        return max(self.out_after_s, self.in_after_s) * 1.25 + 1.0


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """The load of a service between two readings.

    Attributes:
        at_s: end of the interval, on a monotonic clock.
        loads: loads of the instances that get new flows.
        instances: present target; more than `loads` while some instances start.
    """

    at_s: float
    loads: tuple[Load, ...]
    instances: int

    def demand(self, target: float) -> float:
        """Instances needed at full utilisation.

        Shed packets count, unless another instance is below `target`: their flows stay where they
        are, and new flows already have somewhere to go.
        """
        has_room = any(load.utilisation < target for load in self.loads)
        return sum(min(load.demand, 1.0) if has_room else load.demand for load in self.loads)

    @property
    def utilisation(self) -> float:
        """Mean over the instances."""
        return sum(load.utilisation for load in self.loads) / max(len(self.loads), 1)

    @property
    def pps(self) -> float:
        """Packets per second, over all instances."""
        return sum(load.pps for load in self.loads)

    @property
    def sheds(self) -> int:
        """Shed packets, over all instances."""
        return sum(load.sheds for load in self.loads)

    @property
    def occupancy(self) -> float:
        """Share of credits in use, of the fullest instance."""
        return max((load.occupancy for load in self.loads), default=0.0)

    @property
    def p99_us(self) -> float | None:
        """Time in queue, of the slowest instance; None without samples."""
        return max((load.p99_us for load in self.loads if load.p99_us is not None), default=None)


@dataclass(frozen=True, slots=True)
class Wish:
    """The decision of a policy, and its reason: one line for people."""

    instances: int
    reason: str


class ScalingPolicy(Protocol):
    """Made with the service's `ScaleSettings`."""

    def decide(self, history: Sequence[ServiceLoad]) -> Wish:
        """Decide how many instances there should be.

        Args:
            history: readings of the last `ScaleSettings.history_s`, oldest first; at least one.
        """


class UtilisationPolicy:
    """Keep utilisation at a target.

    *Out*: the demand, in instances at full utilisation, has been above `target` for each instance
    at every reading of the last `out_after_s`; as many are added as the least of these demands
    needs. If busy instances shed packets or have a queue at the last reading, or one gets more
    than its capacity and its queue grows, that reading is enough.

    *In*: at every reading of the last `in_after_s` the others alone, without the one of most
    capacity, would have stayed `hysteresis` below `target`. One goes at a time.

    Both look only at readings with as many instances as there are now, so that a change is never
    judged by what was before it. A load that stays within the band between the two thresholds
    changes nothing, however it swings.
    """

    def __init__(self, settings: ScaleSettings) -> None:
        for name, value in settings.options.items():
            raise ConfigError("expected no options for this policy", field=name, value=value)
        self._settings = settings

    def decide(self, history: Sequence[ServiceLoad]) -> Wish:
        """See `ScalingPolicy`."""
        settings, now = self._settings, history[-1]
        if len(now.loads) != now.instances or not now.loads:
            return Wish(now.instances, "instances start")
        same = list(_unchanged(history))
        wish = self._out(same) or self._in(same)
        return wish or Wish(now.instances, f"utilisation {_band(now, settings)}")

    def _out(self, same: Sequence[ServiceLoad]) -> Wish | None:
        settings, now = self._settings, same[0]
        if now.instances >= settings.max:
            return None
        is_urgent = _is_saturated(now, settings)
        window = same[:1] if is_urgent else _window(same, settings.out_after_s)
        if window is None:
            return None
        demand = min(load.demand(settings.target) for load in window)
        if demand <= settings.target * now.instances + ROUNDING:
            return None
        wanted = max(ceil(demand / settings.target - ROUNDING), now.instances + 1)
        why = f"utilisation {demand / now.instances:.0%}, target {settings.target:.0%}"
        if is_urgent:
            why += f"; {now.sheds:,} shed" if now.sheds else f"; queues {now.occupancy:.0%} full"
        else:
            why += f", for {settings.out_after_s:g} s"
        return Wish(min(wanted, settings.max), why)

    def _in(self, same: Sequence[ServiceLoad]) -> Wish | None:
        settings, now = self._settings, same[0]
        if now.instances <= settings.min:
            return None
        window = _window(same, settings.in_after_s)
        if window is None:
            return None
        limit = settings.target * (1 - settings.hysteresis)
        if any(load.sheds or _without_one(load) > limit for load in window):
            return None
        left = max(_without_one(load) for load in window)
        return Wish(
            now.instances - 1,
            f"the others would be at {left:.0%}, below {limit:.0%} for {settings.in_after_s:g} s",
        )


def _unchanged(history: Sequence[ServiceLoad]) -> Iterator[ServiceLoad]:
    """Readings with as many instances as at the last, newest first."""
    n = history[-1].instances
    return takewhile(lambda load: load.instances == n and len(load.loads) == n, reversed(history))


def _window(newest_first: Sequence[ServiceLoad], seconds: float) -> list[ServiceLoad] | None:
    """Those of the last `seconds`; None if there are not so many yet."""
    end = newest_first[0].at_s
    window = []
    for load in newest_first:
        window.append(load)
        # The reading covers the time before it, too.
        if end - load.at_s + min(one.seconds for one in load.loads) >= seconds - ROUNDING:
            return window
    return None


def _is_saturated(load: ServiceLoad, settings: ScaleSettings) -> bool:
    """True if it is too late to wait: packets are shed or queue up because NFs are busy.

    An NF that is not busy has a queue when the worker, or its core's other users, are the limit;
    another instance would not help.
    """
    return any(
        (one.utilisation > settings.target and (one.sheds or one.occupancy_mean > QUEUE_SHARE))
        or (one.arrival > 1 and one.occupancy > GROWING_SHARE)
        for one in load.loads
    )


def _without_one(load: ServiceLoad) -> float:
    """Utilisation if the instance of most capacity were gone."""
    n = len(load.loads)
    capacities = [one.pps / one.utilisation for one in load.loads if one.utilisation > 0]
    even = sum(one.demand for one in load.loads) / (n - 1)
    if len(capacities) < n:
        return even
    return max(even, load.pps / max(sum(capacities) - max(capacities), ROUNDING))


def _band(now: ServiceLoad, settings: ScaleSettings) -> str:
    return f"{now.utilisation:.0%}, target {settings.target:.0%}"
