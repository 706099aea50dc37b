"""Finds NF hosts that hang: packets wait, and the host does not look for them.

A host that has work but makes no turn of its loop for `after_s` counts as hung, unless it is only
waiting for a CPU. The limit is longer until it has returned its first packet, because it may import
modules on its first packet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from onvm_core.manager.nf_hosts.meters import Meters
from onvm_core.manager.nf_hosts.registry import NfHost, Registry

__all__ = ["HangWatch"]

FIRST_PACKET_S = 5.0


class HangWatch:
    """Checks all NF hosts.

    Args:
        after_s: time without progress after which a host counts as hung; 0: never.
        is_excused: True for a host that may make no progress now.
    """

    def __init__(
        self,
        registry: Registry,
        meters: Meters,
        after_s: float,
        is_excused: Callable[[NfHost], bool] = lambda host: False,
    ) -> None:
        self._is_excused = is_excused
        self._registry = registry
        self._meters = meters
        self._after_s = after_s
        self._ticks: dict[int, int] = {}

    def turn(self) -> list[tuple[NfHost, str]]:
        """Hosts that hang, each with the reason as text."""
        hung = []
        for host in self._registry.living() if self._after_s else ():
            meter = self._meters.of(host)
            if meter is None or meter.stuck_s == 0 or self._is_excused(host):
                self._ticks.pop(host.slot, None)
                continue
            state, ticks = _process(host.pid)
            before = self._ticks.setdefault(host.slot, ticks)
            limit_s = self._after_s if meter.has_worked else max(self._after_s, FIRST_PACKET_S)
            is_waiting_for_cpu = state == "R" and ticks == before
            if meter.stuck_s >= limit_s and not is_waiting_for_cpu:
                doing = "it computes" if ticks != before else f"its process is in state {state}"
                hung.append(
                    (host, f"no progress for {meter.stuck_s:.2f} s while packets wait; {doing}")
                )
        return hung


def _process(pid: int) -> tuple[str, int]:
    """State of a process and the CPU time it has used, in clock ticks."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "gone", 0
    fields = text.rpartition(")")[2].split()
    return fields[0], (int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK")
