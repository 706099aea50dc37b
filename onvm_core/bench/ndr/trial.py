"""Trials: packets at a fixed rate through a chain, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import count

from onvm_core.bench.harness import pass_time, wait_until
from onvm_core.bench.ndr.search import Count
from onvm_core.bench.scenario import PLANE
from onvm_core.dataplane.values import NullPort
from onvm_core.manager.manager import Manager
from onvm_sdk.errors import OnvmError

__all__ = ["Trials"]

SAMPLES = 1000
"""Packets whose latency is counted, where that takes at most `LATENCY_MAX` times the trial."""
LATENCY_MAX = 5
SETTLE_S = 0.1
"""From the first packets until latency is measured."""
RING = 1024
"""Packets that are late and not lost: as many as wait in a card's receive ring."""
GRACE_S = 0.01
"""The generator makes up for a pause of this length at any rate."""
DRAIN_MAX_S = 3.0
PASSES_MAX = 30
"""Passes over all flows, before the first trial."""
WARM_UP_MAX_S = 60.0
POLL_S = 0.001


class Trials:
    """A chain between a generator, of which each trial makes a new one, and a sink.

    Generator and chain share a worker: a chain is too slow also when it leaves the worker no time
    to make all packets.

    Args:
        services: the NFs of the chain, which serve already.
        flows: number of flows, each as often as others.
    """

    def __init__(self, manager: Manager, services: Sequence[str], flows: int) -> None:
        self._manager = manager
        self._services = tuple(services)
        self._flows = flows
        self._numbers = count(1)
        self._near: int | None = None
        self._far = manager.plane.open_port("out", NullPort(is_source=False))

    def warm_up(self) -> None:
        """Send each flow as fast as the chain takes packets, until the chain forwards them all.

        Flows, tables and buffers are then no longer new.

        Raises:
            OnvmError: the chain takes no packets, or does not forward all of them.
        """
        for passes in range(1, PASSES_MAX + 1):
            sent = self._sent()
            near = self._connect(NullPort(n_flows=self._flows, count=self._flows))
            wait_until(
                self._manager,
                partial(self._is_finished, near),
                WARM_UP_MAX_S,
                "ndr: a packet of each flow",
            )
            self._drain()
            lost = self._flows - (self._sent() - sent)
            # A trial's port has one of two numbers, in turn, and a flow belongs to its port.
            if lost == 0 and passes > 1:
                return
        raise OnvmError(
            f"ndr: the chain dropped {lost:,} of {self._flows:,} packets at leisure: "
            "expected one that forwards all"
        )

    def run(self, rate_pps: float, seconds: float) -> Count:
        """Send for some seconds, and count."""
        begin = time.perf_counter()
        rate = max(round(rate_pps), 1)
        intended = max(round(rate * seconds), 1)
        sent = self._sent()
        near = self._connect(NullPort(n_flows=self._flows, rate_pps=rate, count=intended))
        grace = max(GRACE_S, RING / rate)
        self._send(near, time.perf_counter() + intended / rate + grace)
        self._drain()
        offered = self._manager.plane.read_port(near).rx
        return Count(
            intended=intended,
            offered=offered,
            lost=offered - (self._sent() - sent),
            overhead_s=max(time.perf_counter() - begin - seconds, 0.0),
        )

    def latency(self, rate_pps: float, seconds: float) -> list[int]:
        """Send at a rate; returns the histogram of the time from port to port.

        Its buckets are those of `CounterPlane.latency_bounds_ns`. At a low rate it takes longer
        than the given seconds, so that there are enough packets.
        """
        rate = max(round(rate_pps), 1)
        self._connect(NullPort(n_flows=self._flows, rate_pps=rate))
        pass_time(self._manager, SETTLE_S)
        before = self._manager.plane.read_port(self._far).latency
        needed_s = SAMPLES * PLANE.sample_every / rate
        pass_time(self._manager, max(seconds, min(needed_s, LATENCY_MAX * seconds)))
        after = self._manager.plane.read_port(self._far).latency
        self._drain()
        return [now - then for now, then in zip(after, before, strict=True)]

    def _connect(self, source: NullPort) -> int:
        """Put a new generator before the chain; it begins at once. Returns its port."""
        plane, old = self._manager.plane, self._near
        plane.pause_sources(True)
        self._near = near = plane.open_port(f"in-{next(self._numbers)}", source)
        self._manager.set_chain(
            1, near, self._far, self._services, is_bidirectional=False, track_flows=True
        )
        if old is not None:
            plane.close_port(old)
        plane.pause_sources(False)
        return near

    def _send(self, near: int, until_s: float) -> None:
        """Let the generator finish, until the given time at most."""
        while (left := until_s - time.perf_counter()) > 0 and not self._is_finished(near):
            self._manager.poll(min(left, 2 * GRACE_S if left > 4 * GRACE_S else POLL_S))

    def _drain(self) -> None:
        """Stop the generator, and wait until no packet is inside, not even one that an NF holds."""
        self._manager.plane.pause_sources(True)
        wait_until(self._manager, self._is_empty, DRAIN_MAX_S, "ndr: NFs forward all packets")

    def _is_finished(self, near: int) -> bool:
        return self._manager.plane.read_port(near).is_finished

    def _is_empty(self) -> bool:
        plane = self._manager.plane.read_plane()
        return plane.buffers_free == plane.buffers_total

    def _sent(self) -> int:
        return self._manager.plane.read_port(self._far).tx
