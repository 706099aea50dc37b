"""Moving NF hosts to other hosts before a host leaves."""

from __future__ import annotations

import posixpath
import time

from kazoo.exceptions import NodeExistsError

from onvm_core.cluster.handover.state_sender import successors_for, to_move
from onvm_core.cluster.status import read_snapshot
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.nodes import DrainNode, Paths, pack

__all__ = ["move_away", "set_draining"]

POLL_S = 0.1
SETTLE_S = 0.3
"""Time that all hosts need to send flows to the place where the last one has gone."""


def set_draining(ensemble: Ensemble, paths: Paths, host: str) -> None:
    """Send a host nothing new, and have the NF hosts that are there now move away."""
    has = read_snapshot(ensemble, paths).instances.get(host)
    numbers = None if has is None else [one.number for one in has.instances]
    node = DrainNode(since=round(time.time(), 3), numbers=numbers)
    path = posixpath.join(paths.draining, host)
    with ensemble.call(f"drain {host}") as client:
        try:
            client.create(path, pack(node))
        except NodeExistsError:  # it drains already; more may have started since
            client.set(path, pack(node))


def move_away(ensemble: Ensemble, paths: Paths, host: str, timeout_s: float) -> bool:
    """Drain a host that lives, and wait until its NF hosts have moved where there are others of
    their kind; return True if they have.
    """
    snapshot = read_snapshot(ensemble, paths)
    if host not in snapshot.hosts or snapshot.hosts[host].state != "up":
        return True
    set_draining(ensemble, paths, host)
    deadline = time.monotonic() + timeout_s
    has_moved = False
    while host in snapshot.hosts:
        snapshot = read_snapshot(ensemble, paths)
        if not any(successors_for(snapshot, host, one, {}) for one in to_move(snapshot, host)):
            break
        has_moved = True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    if has_moved:
        time.sleep(SETTLE_S)
    return True
