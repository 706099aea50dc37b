# SPDX-License-Identifier: Apache-2.0
"""The state of all backends: what checks and clients have found, and what follows for shares.

Time is an argument, and nothing here waits or asks. Threads: one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from onvm_nf_lb.check import Target
from onvm_nf_lb.config import Backend, LbConfig, Vip
from onvm_nf_lb.shares import SLOW_START_STEPS, Share, Shares, share_out

__all__ = ["Pool"]


@dataclass
class _Found:
    """What the checks of a target have found. The first one decides alone."""

    is_up: bool = True
    is_known: bool = False
    streak: int = 0
    """Results in a row that contradict `is_up`."""
    why: str = "not checked yet"

    def note(self, target: Target, failure: str | None) -> bool:
        """Take a result; return whether `is_up` has changed."""
        is_good, is_first, self.is_known = failure is None, not self.is_known, True
        self.streak = 0 if is_good is self.is_up else self.streak + 1
        if failure is not None:
            self.why = failure
        needed = target.check.rise if is_good else target.check.fall
        if self.streak == 0 or (self.streak < needed and not is_first):
            if self.is_up and is_good:
                self.why = "checked"
            return False
        self.is_up, self.streak = is_good, 0
        self.why = f"{target.check.rise} checks in a row" if failure is None else failure
        return True


@dataclass
class _State:
    """A backend of a VIP."""

    since_s: float
    out_until_s: float | None = None
    """No new connections until then, because it has failed clients."""
    rising_s: float | None = None
    """When its slow start began."""


class Pool:
    """The backends of a configuration.

    Args:
        before: the pool of the former configuration; what it knows of the same backends stays.
    """

    def __init__(self, config: LbConfig, now_s: float, before: Pool | None = None) -> None:
        self.config = config
        self.members: dict[Target, list[tuple[int, int]]] = {}
        self._found: dict[Target, _Found] = {}
        self._states: list[list[_State]] = []
        self._turning: set[tuple[int, int]] = set()
        known = {} if before is None else dict(before._named())
        served = set() if before is None else {vip.name for vip in before.config.vips}
        for i, vip in enumerate(config.vips):
            states = []
            for j, backend in enumerate(vip.backends):
                state = known.get((vip.name, str(backend)))
                if state is not None:
                    state = replace(state)  # the former pool may still be in use
                else:
                    is_new = vip.name in served and vip.slow_start_s > 0
                    state = _State(now_s, rising_s=now_s if is_new else None)
                states.append(state)
                self._turning.add((i, j))
                target = vip.target(backend)
                if target is not None:
                    self.members.setdefault(target, []).append((i, j))
                    found = before._found.get(target) if before is not None else None
                    self._found[target] = _Found() if found is None else replace(found)
            self._states.append(states)
        self._shares: list[tuple[Share, ...] | None] = [None] * len(config.vips)
        self._served: list[str] = ["" for _ in config.vips]
        if before is not None:
            told = dict(zip((vip.name for vip in before.config.vips), before._served, strict=True))
            self._served = [told.get(vip.name, "") for vip in config.vips]
        self.turn(now_s)

    def _named(self) -> Iterator[tuple[tuple[str, str], _State]]:
        for vip, states in zip(self.config.vips, self._states, strict=True):
            for backend, state in zip(vip.backends, states, strict=True):
                yield (vip.name, str(backend)), state

    def _at(self, place: tuple[int, int]) -> tuple[Vip, Backend, _State]:
        vip = self.config.vips[place[0]]
        return vip, vip.backends[place[1]], self._states[place[0]][place[1]]

    def _finding(self, vip: Vip, backend: Backend) -> _Found | None:
        target = vip.target(backend)
        return None if target is None else self._found[target]

    # ---- events ----

    def note(self, target: Target, failure: str | None, now_s: float) -> list[str]:
        """Take the result of a check: None, or why it failed. Return lines for the log."""
        found = self._found.get(target)
        if found is None or not found.note(target, failure):
            return []
        lines = []
        for place in self.members[target]:
            vip, backend, state = self._at(place)
            state.since_s = now_s
            if found.is_up:
                self._rise(place, now_s)
            self._shares[place[0]] = None
            lines.append(f"{vip.name}: {backend} is {'up' if found.is_up else 'down'}: {found.why}")
        return lines

    def take_out(self, place: tuple[int, int], now_s: float) -> list[str]:
        """Let a backend that has failed clients have no new ones for a while."""
        vip, backend, state = self._at(place)
        if vip.passive is None or not self._is_up(vip, backend, state):
            return []
        state.out_until_s, state.since_s = now_s + vip.passive.out_s, now_s
        self._turning.add(place)
        self._shares[place[0]] = None
        failures, out_s = vip.passive.failures, vip.passive.out_s
        return [f"{vip.name}: {backend} is out for {out_s:g} s: it failed {failures} clients"]

    def turn(self, now_s: float) -> list[str]:
        """Let time pass: backends come back, slow starts go on."""
        lines = []
        for place in list(self._turning):
            vip, backend, state = self._at(place)
            if state.out_until_s is not None and now_s >= state.out_until_s:
                state.out_until_s, state.since_s = None, now_s
                self._rise(place, now_s)
                self._shares[place[0]] = None
                lines.append(f"{vip.name}: {backend} is no longer out")
            if state.rising_s is not None:
                self._shares[place[0]] = None
                if now_s - state.rising_s >= vip.slow_start_s:
                    state.rising_s = None
            if state.out_until_s is None and state.rising_s is None:
                self._turning.discard(place)
        return lines

    def _rise(self, place: tuple[int, int], now_s: float) -> None:
        vip, _, state = self._at(place)
        if vip.slow_start_s > 0:
            state.rising_s = now_s
            self._turning.add(place)

    # ---- results ----

    def _is_up(self, vip: Vip, backend: Backend, state: _State) -> bool:
        found = self._finding(vip, backend)
        return state.out_until_s is None and (found is None or found.is_up)

    def shares(self, now_s: float) -> Shares:
        """Shares of new connections at this time."""
        for i, vip in enumerate(self.config.vips):
            if self._shares[i] is None:
                states = self._states[i]
                up = [
                    self._is_up(vip, backend, state)
                    for backend, state in zip(vip.backends, states, strict=True)
                ]
                self._shares[i] = share_out(
                    vip, up, [_step(state, vip.slow_start_s, now_s) for state in states]
                )
        return [share for share in self._shares if share is not None]

    def served(self, shares: Shares) -> Iterable[str]:
        """Give lines for the log about VIPs that other backends serve than before."""
        for i, (vip, listed) in enumerate(zip(self.config.vips, shares, strict=True)):
            if not vip.changes:
                continue
            weights = {
                backend.backup
                for backend, share in zip(vip.backends, listed, strict=True)
                if share.weight
            }
            state = "backup backends serve" if weights == {True} else ""
            if not weights:
                state = "no backend serves"
            if state != self._served[i]:
                yield f"{vip.name}: {state or 'its usual backends serve'}"
            self._served[i] = state

    def rows(self, now_s: float) -> list[list[dict[str, Any]]]:
        """Describe the backends of each VIP."""
        return [
            [
                self._row(vip, backend, state, now_s)
                for backend, state in zip(vip.backends, states, strict=True)
            ]
            for vip, states in zip(self.config.vips, self._states, strict=True)
        ]

    def _row(self, vip: Vip, backend: Backend, state: _State, now_s: float) -> dict[str, Any]:
        found = self._finding(vip, backend)
        why = "not checked" if found is None else found.why
        if found is not None and not found.is_up:
            name = "down"
        elif state.out_until_s is not None:
            name, why = "out", "it failed clients"
        else:
            name = "up" if backend.weight else "draining"
        return {
            "backend": str(backend),
            "state": name,
            "for_s": round(now_s - state.since_s, 1),
            "why": why,
            "weight": backend.weight,
            "backup": backend.backup,
        }


def _step(state: _State, slow_start_s: float, now_s: float) -> int:
    if state.rising_s is None:
        return SLOW_START_STEPS
    done = (now_s - state.rising_s) / slow_start_s
    return min(SLOW_START_STEPS, 1 + int(done * SLOW_START_STEPS))
