"""Alarms of the data network: packets that no host of the cluster can have sent.

Such packets are dropped and counted (`forged`, `replayed`, `foreign`, `wrong_hop`). An alarm says
so in the log, at most once in `LOG_S` for each reason, and in the status for `SHOWN_S` after the
last one.

Threads: the manager's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Alarms"]

log = logging.getLogger("onvm.cluster")

LOOK_S = 1.0
LOG_S = 10.0
SHOWN_S = 60.0
TEXTS = {
    "forged": "were not sealed by the host whose address they have: forged, or its key is another",
    "replayed": "came a second time: recorded by a stranger, or doubled by the network",
    "wrong_hop": "came from a host that is not before their hop: look at that host",
    "foreign": "are not of this cluster: find what else sends to UDP port 4790",
}


@dataclass(slots=True)
class _Alarm:
    seen: int = 0
    """Packets counted by now."""
    logged: int = 0
    """Packets that the log has."""
    seen_s: float = float("-inf")
    logged_s: float = float("-inf")


class Alarms:
    """Watches the drops of packets from other hosts.

    Args:
        read_drops: gives the drops by reason.
        forgers: names the hosts whose addresses packets pretended to come from.
    """

    def __init__(
        self, read_drops: Callable[[], Mapping[str, int]], forgers: Callable[[], list[str]]
    ) -> None:
        self._read_drops = read_drops
        self._forgers = forgers
        self._alarms = {reason: _Alarm() for reason in TEXTS}
        self._looked_s = float("-inf")

    def turn(self, now_s: float) -> None:
        """Look at the counters, if it is time."""
        if now_s < self._looked_s + LOOK_S:
            return
        self._looked_s = now_s
        drops = self._read_drops()
        for reason, alarm in self._alarms.items():
            if drops[reason] > alarm.seen:
                alarm.seen, alarm.seen_s = drops[reason], now_s
            if alarm.seen > alarm.logged and now_s >= alarm.logged_s + LOG_S:
                log.warning("%s", self._line(reason, alarm.seen - alarm.logged))
                alarm.logged, alarm.logged_s = alarm.seen, now_s

    def warnings(self, now_s: float) -> list[str]:
        """One line for each reason that has been met lately, with all packets so far."""
        return [
            self._line(reason, alarm.seen)
            for reason, alarm in self._alarms.items()
            if now_s < alarm.seen_s + SHOWN_S
        ]

    def _line(self, reason: str, n_packets: int) -> str:
        names = self._forgers() if reason in ("forged", "replayed") else []
        of = f" ({', '.join(names)})" if names else ""
        return f"data network: {n_packets} packets {TEXTS[reason]}{of}"
