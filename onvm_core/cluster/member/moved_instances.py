"""Instances that have moved from this host, and come back under their old names.

The ports or addresses of an NF can depend on the name of its instance, as a NAT's block does. When
the instance has moved, that traffic belongs to its successor on another host, until the last flow
has ended. Meanwhile an instance that starts here under the old name, as with the next manager,
must get no flow: it would give them ports that the successor uses. It stays unknown to the
cluster, and the manager is asked to replace it by one of another name.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from onvm_core.cluster.member.state_directory import Moved, StateDirectory
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.manager.cluster_view.view import claims_meet

__all__ = ["MovedInstances"]

SETTLE_S = 60.0
"""Longer than the cluster needs to see what a successor has claimed."""


class MovedInstances:
    """The moved instances of one host.

    Args:
        state: its directory, which keeps them.
    """

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self.held_back: frozenset[str] = frozenset()
        """Instances that have come back, and are unknown to the cluster."""

    @property
    def names(self) -> frozenset[str]:
        """Names whose traffic may belong to others; no new instance should have one."""
        return frozenset(self._state.state.moved)

    def hold_back(
        self, names: Iterable[str], known: Collection[str], snapshot: Snapshot
    ) -> frozenset[str]:
        """The names that the cluster must not know yet.

        Args:
            names: instances that run here.
            known: those among them that the cluster knows; they serve, and stay.
            snapshot: the cluster; without any host it is not known what others claim.
        """
        if self._state.state.moved and snapshot.hosts:
            self._forget_free(snapshot)
        moved = self._state.state.moved
        self.held_back = frozenset(one for one in names if one in moved and one not in known)
        return self.held_back

    def _forget_free(self, snapshot: Snapshot) -> None:
        """Forget instances whose traffic is free again."""
        now, moved = time.time(), self._state.state.moved
        claims = [
            claim
            for node in (
                *snapshot.instances.values(),
                *(one.instances for one in snapshot.away.values()),
            )
            for instance in node.instances
            for claim in instance.claims
        ]

        def is_used(one: Moved) -> bool:
            return now - one.at < SETTLE_S or any(
                claims_meet(mine, claim) for mine in one.claims for claim in claims
            )

        used = {name: one for name, one in moved.items() if is_used(one)}
        if len(used) < len(moved):
            self._state.state.moved = used
            self._state.save()
