"""Hosts that have vanished from ZooKeeper, and their treatment.

A host that has vanished from ZooKeeper may be dead, or only cut off from ZooKeeper while its
packets flow. Managers notice a dead one by themselves, within a fraction of a second, because it
does not answer their probes. So a host that vanishes stays in the view as it was last
(`Snapshot.away`), for as long as it answers probes: its running flows stay where they are, and
nothing new is sent to it where others serve. It is forgotten when it leaves the cluster, or has not
answered for `LINGER_S`.

An agent that was cut off itself does not judge others at first: for the length of a session after
it comes back, hosts that it misses stay as they were, because they may have to register again too.
Without this, all agents would drop all hosts when an ensemble was away for long. Hosts that are not
even members any more, and have not left, are those that a tree from a backup lacks. They stay as
well, until they have registered again or do not answer.

A host that announces its departure, or that has no manager, is gone at once.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import InstancesNode, KnownNode

__all__ = ["LINGER_S", "Absences"]

LINGER_S = 30.0


class _Absent(msgspec.Struct):
    since_s: float
    """From then on it gets nothing new."""
    until_s: float | None = None
    """Then it is forgotten; None: it answers probes."""


class Absences:
    """Remembers since when hosts have been away.

    Args:
        settle_s: time after a reconnection during which others are not judged.
        linger_s: time that a vanished host that does not answer stays in the view.
    """

    def __init__(self, settle_s: float, linger_s: float = LINGER_S) -> None:
        self._settle_s = settle_s
        self._linger_s = linger_s
        self._absent: dict[str, _Absent] = {}
        self._last: dict[str, KnownNode] = {}
        self._lost: set[str] = set()
        """Hosts that the tree has lost, and that have not registered again."""
        self._settled_at_s = 0.0
        self._updated_s = 0.0

    def reconnected(self, now_s: float) -> None:
        """Record that this agent was cut off and is back."""
        self._settled_at_s = now_s + self._settle_s

    def update(
        self, snapshot: Snapshot, now_s: float, silent: Collection[str] = ()
    ) -> tuple[Snapshot, frozenset[str]]:
        """The snapshot with the vanished hosts, and the names of hosts that get nothing new.

        Args:
            silent: hosts that do not answer the probes of this host's manager.
        """
        self._updated_s = now_s
        away = {name: known for name, known in snapshot.away.items() if known.host.state == "up"}
        there = snapshot.hosts.keys() | snapshot.away.keys()
        # They become members again a moment before they register.
        self._lost = ((self._lost & snapshot.members) | snapshot.lost) - there
        away |= {name: self._last[name] for name in self._lost if name in self._last}
        self._last = away | {
            name: KnownNode(host=host, instances=snapshot.instances.get(name, InstancesNode()))
            for name, host in snapshot.hosts.items()
            if host.state == "up"
        }
        for name in self._absent.keys() - away.keys():
            del self._absent[name]
        for name in away:
            one = self._absent.setdefault(name, _Absent(max(now_s, self._settled_at_s)))
            if one.until_s is not None and now_s >= one.until_s:
                continue  # forgotten, so its manager is not asked any more
            if name not in silent:
                one.until_s = None
            elif one.until_s is None:
                one.until_s = max(now_s, one.since_s) + self._linger_s
        stay = {
            name: away[name]
            for name, one in self._absent.items()
            if one.until_s is None or now_s < one.until_s
        }
        if not stay:
            return snapshot, frozenset()
        merged = msgspec.structs.replace(
            snapshot,
            hosts={**snapshot.hosts, **{name: known.host for name, known in stay.items()}},
            instances={
                **snapshot.instances,
                **{name: known.instances for name, known in stay.items()},
            },
        )
        return merged, frozenset(name for name in stay if now_s >= self._absent[name].since_s)

    @property
    def due_s(self) -> float | None:
        """Time at which `update` gives another result than last time; None if never by itself."""
        times = [
            time_s
            for one in self._absent.values()
            for time_s in (one.since_s, one.until_s)
            if time_s is not None and time_s > self._updated_s
        ]
        if self._absent and self._settled_at_s > self._updated_s:
            times.append(self._settled_at_s)
        return min(times, default=None)
