"""The local NF hosts as part of a cluster: their numbers, the facts that other machines know, and
their right to new flows.

Threads: the manager's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from onvm_core.manager.cluster_view.view import ClaimView, LocalHost
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts.registry import HostState, NfHost

__all__ = ["LocalHosts"]


class LocalHosts:
    """The NF hosts of one manager.

    Attributes:
        draining: names of NF hosts that get no new flows because the cluster drains them.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._manager = deployment.manager
        self._numbers: dict[int, int] = {}
        """Numbers in the cluster, by slot; 0: none."""
        self.draining: frozenset[str] = frozenset()
        self._unknown: set[str] = set()
        """Names of NF hosts that get no new flows until the cluster knows them."""

    def serving(self) -> Iterable[NfHost]:
        """The NF hosts that have flows."""
        return [
            host
            for host in self._manager.registry.living()
            if host.state in (HostState.ACTIVE, HostState.DRAINING)
        ]

    # ---- numbers ----

    def number(self, numbers: Mapping[str, int]) -> None:
        """Give the NF hosts their numbers in the cluster, by name of the first instance."""
        living = {host.slot: host for host in self.serving()}
        self._numbers = {slot: n for slot, n in self._numbers.items() if slot in living}
        for slot, host in living.items():
            number = numbers.get(host.instances[0].name, 0)
            if self._numbers.get(slot, 0) != number:
                self._set_number(slot, number)
                host.is_shared |= number != 0

    def _set_number(self, slot: int, number: int) -> None:
        self._manager.plane.set_number(slot, number)
        self._numbers[slot] = number

    def numbered(self) -> list[tuple[int, NfHost, str]]:
        """Number, NF host and state, as the cluster sees it, of each NF host that has a number."""
        by_slot = {host.slot: host for host in self.serving()}
        return [
            (number, by_slot[slot], _state(by_slot[slot]))
            for slot, number in self._numbers.items()
            if number and slot in by_slot
        ]

    def number_of(self, slot: int) -> int | None:
        """The number of an NF host; None if it has none."""
        return self._numbers.get(slot) or None

    def slot_of(self, number: int) -> int | None:
        """The slot of the NF host with a number; None if it is not here."""
        return next((slot for slot, one in self._numbers.items() if one == number), None)

    def forget(self) -> None:
        """Forget all numbers: the NF hosts are in no cluster any more."""
        for slot in [slot for slot, number in self._numbers.items() if number]:
            self._set_number(slot, 0)
        self.draining = frozenset()
        self._unknown.clear()
        self.keep_back()

    def on_host_change(self, host: NfHost) -> None:
        """An NF host serves, drains or is gone: its number no longer belongs to the slot."""
        if host.state is HostState.DEAD:
            self._numbers.pop(host.slot, None)
            self._unknown.discard(host.instances[0].name)

    # ---- new flows ----

    def keep_back(self) -> None:
        """Send no new flows to NF hosts that drain for the cluster, but not for this manager."""
        for host in self.serving():
            name = host.instances[0].name
            is_unknown = name in self._unknown and not self._numbers.get(host.slot)
            self._manager.keep_back(host, name in self.draining or is_unknown)

    def hold_back(self, name: str) -> None:
        """Send no new flows to an NF host until the cluster gives it a number."""
        self._unknown.add(name)
        self.keep_back()

    def assume_capacity(self, host: NfHost, spare_pps: int | None) -> None:
        """Let new flows come to an NF host whose load is not known yet, as to those at peers."""
        meter = self._manager.meters.of(host)
        if spare_pps is not None and (meter is None or meter.capacity_pps is None):
            self._manager.plane.set_spare_capacity(host.slot, spare_pps)

    # ---- reading ----

    def spare_pps(self, host: NfHost) -> int | None:
        """Packets per second that new flows may add to an NF host; None if nothing is known yet."""
        meter = self._manager.meters.of(host)
        if meter is None or meter.recent is None or meter.capacity_pps is None:
            return None
        return int(max(meter.spare_pps(meter.recent) or 0, 0))

    def show(self, host: NfHost, unknown_pps: int | None) -> LocalHost:
        """An NF host, described for the cluster.

        Args:
            unknown_pps: spare capacity to assume until one is measured: without flows none ever
                would be.
        """
        meter = self._manager.meters.of(host)
        load = None if meter is None else meter.recent
        capacity = None if meter is None else meter.capacity_pps
        spare_pps = unknown_pps if capacity is None else self.spare_pps(host)
        return LocalHost(
            name=host.instances[0].name,
            services=list(host.services),
            state=host.state.value,
            spare_pps=spare_pps or 0,
            capacity_pps=None if capacity is None else int(capacity),
            utilisation=None if load is None else round(load.utilisation, 3),
            demand=None if load is None else round(load.demand, 3),
            sheds=0 if load is None else load.sheds,
            claims=[
                ClaimView(
                    address=str(ipaddress.ip_address(claim.address)),
                    protocol=claim.protocol,
                    first_port=claim.first_port,
                    end_port=claim.end_port,
                )
                for claim in host.claims
            ],
        )


def _state(host: NfHost) -> str:
    return HostState.DRAINING.value if host.is_kept_back else host.state.value
