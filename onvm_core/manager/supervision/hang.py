"""Finds NF hosts that hang: packets wait, and the host makes no turn of its loop.

Time without a turn counts against a host only as far as it proves something:

* CPU time that it has used: it computes, and comes to no end.
* Time for which it was blocked or stopped, so neither ran nor waited for a CPU, while the manager
  was on time. A late manager, or one that was stopped together with the whole machine, cannot tell:
  the host may have been waiting for it, or for the machine.

Time for which one of its threads waited for a CPU does not count: that host is starved. A host that
waits for room in a ring makes turns, because it waits for the worker (``native/nf/burst.c``).

The limit is longer until the host has returned its first packet, because it may import modules on
its first packet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onvm_core.manager.nf_hosts.meters import Meters
from onvm_core.manager.nf_hosts.registry import NfHost, Registry
from onvm_core.manager.supervision.thread_times import ThreadTimes, read_thread_times
from onvm_core.scaling.load import Meter, Reading, is_stuck

__all__ = ["HangWatch"]

FIRST_PACKET_S = 5.0
LATE = 2.0
"""A manager that takes so many times the interval of its readings is late …"""
LATE_SHARE = 0.25
"""… if that is this share of the limit as well."""


@dataclass(slots=True)
class _Suspicion:
    """The evidence against a host since it has last made a turn."""

    host: NfHost
    reading: Reading
    ran_s: float = 0.0
    blocked_s: float = 0.0
    state: str = ""
    threads: Mapping[int, ThreadTimes] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.ran_s + self.blocked_s

    def add(
        self, step_s: float, threads: Mapping[int, ThreadTimes], pid: int, late_s: float
    ) -> None:
        """Take a period without a turn.

        Args:
            threads: the times of the host's threads at its end.
            late_s: a longer period means that the manager was late.
        """
        before, self.threads = self.threads, threads
        now = threads.get(pid)
        if now is None:  # gone: its socket tells
            return
        self.state = now.state
        if pid in before:
            ran_s = now.ran_s - before[pid].ran_s
            waited_s = max(
                _waited(one, before[tid], step_s) for tid, one in threads.items() if tid in before
            )
        else:  # the first period: its state at the end must do
            ran_s = 0.0
            waited_s = step_s if now.state == "R" else 0.0
        if step_s > late_s:  # a virtual machine that stood still counts that time as CPU time
            self.ran_s += min(ran_s, late_s)
        else:
            self.ran_s += ran_s
            self.blocked_s += max(step_s - ran_s - waited_s, 0.0)


def _waited(now: ThreadTimes, before: ThreadTimes, step_s: float) -> float:
    """Time for which a thread has waited for a CPU; all of the period if it still does."""
    if now.state == "R" and now.ran_s == before.ran_s:
        return step_s
    return max(now.waited_s - before.waited_s, 0.0)


class HangWatch:
    """Checks all NF hosts.

    Args:
        after_s: time without progress after which a host counts as hung; 0: never.
        is_excused: True for a host that may make no progress now.
        read_threads: gives the times of the threads of a process.
    """

    def __init__(
        self,
        registry: Registry,
        meters: Meters,
        after_s: float,
        is_excused: Callable[[NfHost], bool] = lambda host: False,
        read_threads: Callable[[int], Mapping[int, ThreadTimes]] = read_thread_times,
    ) -> None:
        self._is_excused = is_excused
        self._registry = registry
        self._meters = meters
        self._after_s = after_s
        self._read_threads = read_threads
        self._suspicions: dict[int, _Suspicion] = {}

    @property
    def has_suspects(self) -> bool:
        """True if some host has made no turn between the last two readings while packets wait."""
        return any(suspicion.threads for suspicion in self._suspicions.values())

    def turn(self) -> list[tuple[NfHost, str]]:
        """Hosts that hang, each with the reason as text."""
        hung = []
        for host in self._registry.living() if self._after_s else ():
            meter = self._meters.of(host)
            if meter is None or meter.last is None or self._is_excused(host):
                self._suspicions.pop(host.slot, None)
                continue
            suspicion = self._look(host, meter.last)
            if suspicion.seconds >= self._limit_s(meter):
                hung.append((host, _describe(suspicion)))
        return hung

    def _look(self, host: NfHost, reading: Reading) -> _Suspicion:
        """Bring the suspicion against a host up to date with the last reading of its counters."""
        known = self._suspicions.get(host.slot)
        if known is not None and known.host is host and known.reading is reading:
            return known
        if known is None or known.host is not host or not is_stuck(known.reading, reading):
            known = self._suspicions[host.slot] = _Suspicion(host, reading)
            return known
        step_s = reading.at_s - known.reading.at_s
        known.reading = reading
        late_s = max(LATE * self._meters.interval_s, LATE_SHARE * self._after_s)
        known.add(step_s, self._read_threads(host.pid), host.pid, late_s)
        return known

    def _limit_s(self, meter: Meter) -> float:
        return self._after_s if meter.has_worked else max(self._after_s, FIRST_PACKET_S)


def _describe(suspicion: _Suspicion) -> str:
    is_computing = suspicion.ran_s > suspicion.blocked_s
    doing = "it computes" if is_computing else f"its process is in state {suspicion.state}"
    return f"no progress for {suspicion.seconds:.2f} s while packets wait; {doing}"
