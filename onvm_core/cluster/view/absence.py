"""Hosts that have recently vanished from ZooKeeper, and their treatment.

A host that has vanished from ZooKeeper may be dead, or only cut off from ZooKeeper while its
packets flow. Managers notice a dead one by themselves, within a fraction of a second, because it
does not answer their probes. So a host that vanishes stays in the view for `LINGER_S`: its running
flows stay where they are if it is alive, and nothing new is sent to it.

An agent that was cut off itself does not judge others at first: for the length of a session after
it comes back, hosts that it misses stay as they were, because they may have to register again too.
Without this, all agents would drop all hosts when an ensemble was away for long.

A host that announces its departure, or that has no manager, is gone at once.
"""

from __future__ import annotations

import msgspec

from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import HostNode, InstancesNode

__all__ = ["LINGER_S", "Absences"]

LINGER_S = 30.0


class _Absent(msgspec.Struct, frozen=True):
    host: HostNode
    instances: InstancesNode | None
    since_s: float
    until_s: float


class Absences:
    """Remembers the hosts that have vanished.

    Args:
        settle_s: time after a reconnection during which others are not judged.
        linger_s: time that a vanished host stays in the view.
    """

    def __init__(self, settle_s: float, linger_s: float = LINGER_S) -> None:
        self._settle_s = settle_s
        self._linger_s = linger_s
        self._last: Snapshot | None = None
        self._absent: dict[str, _Absent] = {}
        self._settled_at_s = 0.0
        self._updated_s = 0.0

    def reconnected(self, now_s: float) -> None:
        """Record that this agent was cut off and is back."""
        self._settled_at_s = now_s + self._settle_s

    def update(self, snapshot: Snapshot, now_s: float) -> tuple[Snapshot, frozenset[str]]:
        """The snapshot with the vanished hosts, and the names of hosts that get nothing new."""
        if self._last is not None:
            for name in self._last.hosts.keys() - snapshot.hosts.keys():
                host = self._last.hosts[name]
                if host.state == "up":
                    since = max(now_s, self._settled_at_s)
                    self._absent[name] = _Absent(
                        host, self._last.instances.get(name), since, since + self._linger_s
                    )
        self._last = snapshot
        self._updated_s = now_s
        self._absent = {
            name: one
            for name, one in self._absent.items()
            if name not in snapshot.hosts and now_s < one.until_s
        }
        if not self._absent:
            return snapshot, frozenset()
        merged = msgspec.structs.replace(
            snapshot,
            hosts={**snapshot.hosts, **{name: one.host for name, one in self._absent.items()}},
            instances={
                **snapshot.instances,
                **{
                    name: one.instances
                    for name, one in self._absent.items()
                    if one.instances is not None
                },
            },
        )
        vanished = (name for name, one in self._absent.items() if now_s >= one.since_s)
        return merged, frozenset(vanished)

    @property
    def due_s(self) -> float | None:
        """Time at which `update` gives another result than last time; None if never by itself."""
        times = [
            time_s
            for one in self._absent.values()
            for time_s in (one.since_s, one.until_s)
            if time_s > self._updated_s
        ]
        return min(times, default=None)
