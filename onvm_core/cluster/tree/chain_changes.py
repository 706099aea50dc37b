"""Moving chains on to their new definitions without a loss; the leader alone does it.

A definition by which packets go another way has a number of its own. At first it is *staged*: all
hosts take packets of that number, and no port uses it. When all know it, ports use it. When all
ports do, and packets with the former number have come to their ends, hosts forget that one.
"""

from __future__ import annotations

import logging
import posixpath
import time
from collections.abc import Callable, Iterable
from typing import Any

from kazoo.exceptions import NoNodeError
from msgspec.structs import replace

from onvm_core.cluster.errors import ConflictError
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import (
    AppliedNode,
    ChainNode,
    DamagedError,
    Paths,
    pack,
    unpack,
)

__all__ = ["ChainChanges"]

log = logging.getLogger("onvm.cluster")

WAIT_S = 10.0
"""After this time, hosts that have not followed are no longer waited for."""
PASSED_S = 5.0
"""Time in which packets come to their ends: longer than one waits for an unknown instance."""

Fence = Callable[[Any], None]


class ChainChanges:
    """The changes that are under way.

    Args:
        fence: makes a write fail if this agent no longer leads.
    """

    def __init__(self, ensemble: Ensemble, paths: Paths, fence: Fence) -> None:
        self._ensemble = ensemble
        self._paths = paths
        self._fence = fence
        self._since_s: dict[tuple[str, int, bool], float] = {}
        """Times at which this leader has met each state of a chain."""
        self._passed_s: dict[tuple[str, int], float] = {}
        """Times at which all ports were seen to use a definition."""
        self._followed: dict[tuple[str, int, bool], set[str]] = {}
        """Hosts that have followed."""

    def turn(self, snapshot: Snapshot) -> None:
        """Move on the chains that can be.

        Raises:
            ClusterError: this agent no longer leads, or ZooKeeper does not answer.
        """
        if not any(node.formers for node in snapshot.chains.values()):
            self._since_s, self._passed_s, self._followed = {}, {}, {}
            return
        now = time.monotonic()
        for name, node in snapshot.chains.items():
            if node.is_staged:
                self._use(name, node, snapshot, now)
            elif node.formers:
                self._forget(name, node, snapshot, now)

    def _use(self, name: str, node: ChainNode, snapshot: Snapshot, now: float) -> None:
        """Let ports use a staged definition, when all hosts know it."""
        late = self._late(name, node, snapshot.hosts, snapshot)
        is_over = now - self._since(name, node, now) > WAIT_S
        if late and not is_over:
            return
        if late:
            log.warning(
                "chain %s: %s did not learn of its change within %g s; it is not waited for",
                name,
                ", ".join(late),
                WAIT_S,
            )
        self._write(name, node, replace(node, is_staged=False))

    def _forget(self, name: str, node: ChainNode, snapshot: Snapshot, now: float) -> None:
        """Give up the former definitions, when no port and no packet uses them any more."""
        ends = {end.host for one in (node, *node.formers) for end in (one.near, one.far)}
        is_over = now - self._since(name, node, now) > WAIT_S
        if self._late(name, node, ends, snapshot) and not is_over:
            return
        if now - self._passed_s.setdefault((name, node.number), now) > PASSED_S:
            self._write(name, node, replace(node, formers=[]))

    def _since(self, name: str, node: ChainNode, now: float) -> float:
        return self._since_s.setdefault((name, node.number, node.is_staged), now)

    def _late(
        self, name: str, node: ChainNode, hosts: Iterable[str], snapshot: Snapshot
    ) -> list[str]:
        """Those of the hosts that do not know the definition yet, or whose ports do not use it."""
        followed = self._followed.setdefault((name, node.number, node.is_staged), set())
        wanted = [
            host
            for host in hosts
            if host in snapshot.hosts
            and snapshot.hosts[host].state != "no_manager"
            and host not in followed
        ]
        with self._ensemble.call(f"look who knows chain {name!r}") as client:
            results = [
                (host, client.get_async(posixpath.join(self._paths.applied, host)))
                for host in wanted
            ]
            for host, result in results:
                try:
                    applied = unpack(result.get()[0], AppliedNode)
                except (NoNodeError, DamagedError):
                    continue
                if node.number in (applied.chains if node.is_staged else applied.bound):
                    followed.add(host)
        return [host for host in wanted if host not in followed]

    def _write(self, name: str, seen: ChainNode, node: ChainNode) -> None:
        path = posixpath.join(self._paths.chains, name)
        with self._ensemble.call(f"read chain {name!r}") as client:
            try:
                data, stat = client.get(path)
                if unpack(data, ChainNode) != seen:
                    return  # it has changed again
            except (NoNodeError, DamagedError):
                return

        def build(transaction: Any) -> None:
            self._fence(transaction)
            transaction.set_data(path, pack(node), stat.version)

        try:
            self._ensemble.commit(f"move chain {name!r} on", build)
        except ConflictError as error:
            log.info("%s", error)  # changed at the same time; or the next turn finds out
