"""The CPU time that other programs use on this host, beside what is reserved for NFs.

Reservations say what onvm has promised, and not what is left: a host with eight busy programs of
others would look as free as an idle one. So each agent measures how many CPUs were busy without its
manager and NFs, and how long programs waited for a CPU (pressure stall information, PSI).

Threads: one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

__all__ = ["CpuUse"]

WINDOW_S = 5.0
SMOOTHING = 0.5
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
STEP_CORES = 0.5
STEP_PRESSURE = 0.25


class CpuUse:
    """Measures one host.

    Args:
        root: folder with ``proc``.

    Attributes:
        others_cores: CPUs that others used lately, in steps of 0.5.
        pressure: share of the time in which some program waited for a CPU, from 0 to 1, in steps of
            0.25; 0 where the kernel does not tell.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._at_s = 0.0
        self._busy_s = 0.0
        self._own_s: dict[int, float] = {}
        self._smooth: float | None = None
        self.others_cores = 0.0
        self.pressure = 0.0

    def read(self, own: Collection[int], now_s: float | None = None) -> None:
        """Measure, if the last time was long ago.

        Args:
            own: processes that are not others, with all their descendants.
            now_s: the time, on the monotonic clock.
        """
        now = time.monotonic() if now_s is None else now_s
        if now - self._at_s < WINDOW_S:
            return
        busy_s, own_s = self._busy(), self._times(own)
        seconds = now - self._at_s
        if self._at_s and self._own_s:
            used_s = sum(one - self._own_s[pid] for pid, one in own_s.items() if pid in self._own_s)
            others = max((busy_s - self._busy_s - used_s) / seconds, 0.0)
            before = others if self._smooth is None else self._smooth
            self._smooth = before + SMOOTHING * (others - before)
            if abs(self._smooth - self.others_cores) >= STEP_CORES:
                self.others_cores = round(self._smooth / STEP_CORES) * STEP_CORES
        self._at_s, self._busy_s, self._own_s = now, busy_s, own_s
        pressure = self._pressure()
        if abs(pressure - self.pressure) >= STEP_PRESSURE:
            self.pressure = round(pressure / STEP_PRESSURE) * STEP_PRESSURE

    def _busy(self) -> float:
        """Seconds for which the CPUs of this process were busy, also for other virtual machines."""
        cpus = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        total = 0
        with contextlib.suppress(OSError, ValueError):
            for line in (self._proc / "stat").read_text().splitlines():
                name, *ticks = line.split()
                if name in cpus:
                    user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
                    total += user + nice + system + irq + softirq + steal
        return total * TICK_S

    def _times(self, own: Collection[int]) -> dict[int, float]:
        """CPU time of these processes and their descendants."""
        children: dict[int, list[int]] = defaultdict(list)
        times: dict[int, float] = {}
        for folder in self._proc.iterdir():
            if not folder.name.isdecimal():
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):  # it has just ended
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                children[int(fields[1])].append(int(folder.name))
                times[int(folder.name)] = (int(fields[11]) + int(fields[12])) * TICK_S
        found: dict[int, float] = {}
        waiting = list(own)
        while waiting:
            pid = waiting.pop()
            if pid in times and pid not in found:
                found[pid] = times[pid]
                waiting += children[pid]
        return found

    def _pressure(self) -> float:
        with contextlib.suppress(OSError, ValueError, IndexError):
            some = (self._proc / "pressure" / "cpu").read_text().splitlines()[0]
            return float(some.split("avg60=")[1].split()[0]) / 100
        return 0.0
