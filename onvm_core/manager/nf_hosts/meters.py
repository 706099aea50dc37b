"""Reads the load of the NF hosts, and tells the data plane the spare capacity of each.

Threads: the manager's.
"""

from __future__ import annotations

import time

from onvm_core.dataplane.interface import DataPlane
from onvm_core.dataplane.values import DataplaneSettings
from onvm_core.manager.nf_hosts.registry import HostState, NfHost, Registry
from onvm_core.scaling.load import Load, Meter, Reading, Units

__all__ = ["Meters"]

INTERVAL_S = 0.05
IDLE_INTERVAL_S = 0.25
"""While no packet comes there is nothing to learn; each reading wakes the manager."""
IDLE_AFTER_S = 2.0
"""Time without a packet after which readings become rare; new hosts are watched as long."""
FLOOR_SHARE = 0.01
"""Without spare capacity, new flows still follow the speed of the hosts."""


class Meters:
    """A `Meter` for each NF host that serves.

    Attributes:
        interval_s: time between two readings; longer while no host has had a packet for a while.
        at_s: time of the last one.
    """

    def __init__(self, registry: Registry, settings: DataplaneSettings, plane: DataPlane) -> None:
        self._busy_interval_s = INTERVAL_S
        self._seen: dict[int, tuple[int, int]] = {}
        self._registry = registry
        self._settings = settings
        self._plane = plane
        self._units: Units | None = None
        self._meters: dict[int, Meter] = {}
        self.at_s = self._moved_s = time.monotonic()

    @property
    def interval_s(self) -> float:
        """The time between two readings."""
        is_idle = self.at_s - self._moved_s > IDLE_AFTER_S
        return max(self._busy_interval_s, IDLE_INTERVAL_S) if is_idle else self._busy_interval_s

    @interval_s.setter
    def interval_s(self, seconds: float) -> None:
        self._busy_interval_s = seconds

    def turn(self) -> None:
        """Read all hosts when it is time to."""
        now = time.monotonic()
        # A turn that comes slightly early is as good as one that comes a whole turn late.
        if now - self.at_s < 0.8 * self.interval_s:
            return
        self.at_s = now
        for host in self._registry.living():
            if host.state in (HostState.ACTIVE, HostState.DRAINING):
                self._read(host)

    def _read(self, host: NfHost) -> None:
        meter = self._meters.get(host.slot)
        if meter is None:
            meter = self._meters[host.slot] = Meter(self._make_units(), host.burst_size)
        counters = self._plane.read_load(host.slot)
        meter.add(Reading(time.monotonic(), counters))
        seen = counters.packets + counters.shed, counters.reserved
        if seen != self._seen.get(host.slot) or counters.reserved:
            self._seen[host.slot] = seen
            self._moved_s = self.at_s
        load = meter.recent
        spare_pps = None if load is None else meter.spare_pps(load)
        if spare_pps is not None and meter.capacity_pps is not None:
            self._plane.set_spare_capacity(
                host.slot, int(max(spare_pps, meter.capacity_pps * FLOOR_SHARE, 1))
            )

    def _make_units(self) -> Units:
        if self._units is None:
            self._units = Units(
                hz=self._plane.cycles_per_second(),
                ring_length=self._settings.ring_length,
                n_workers=self._settings.n_workers,
                bounds_ns=tuple(self._plane.latency_bounds_ns()),
            )
        return self._units

    def of(self, host: NfHost) -> Meter | None:
        """The meter of a living host, with its readings."""
        # A dead host's slot may already belong to another.
        return None if host.state is HostState.DEAD else self._meters.get(host.slot)

    def load(self, host: NfHost, seconds: float) -> Load | None:
        """The load of a host over the last seconds; None if it does not serve yet."""
        meter = self.of(host)
        return None if meter is None else meter.over(seconds)

    def spare_pps(self, host: NfHost) -> float:
        """Packets per second that a host could take in addition; 0 if nothing is known."""
        meter = self.of(host)
        if meter is None or meter.recent is None:
            return 0.0
        return meter.spare_pps(meter.recent) or 0.0

    def assume_capacity(self, host: NfHost) -> None:
        """Let new flows come to a host whose load is not known yet, as to others of its service.

        Without this it would get none: it has no spare capacity before it has had packets.
        """
        known = [
            meter.capacity_pps
            for other in self._registry.living()
            if other.services == host.services
            and other is not host
            and (meter := self._meters.get(other.slot)) is not None
            and meter.capacity_pps is not None
        ]
        if known:
            self._plane.set_spare_capacity(host.slot, int(max(sum(known) / len(known), 1)))

    def forget(self, host: NfHost) -> None:
        """Forget a host that is gone."""
        self._meters.pop(host.slot, None)
        self._seen.pop(host.slot, None)
