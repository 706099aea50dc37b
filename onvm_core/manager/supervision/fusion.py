"""NFs that share a process only as long as that is better: ``fuse = "auto"``.

The decision to start them fused is made with their placement (`placement.fuse`). When the fused
host's core turns out not to be enough (`placement.split`), each NF is started in its own process.
When all of them serve, the fused host drains: its state goes to them, and its flows follow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from onvm_core.manager.config.onvm_toml import NfGroup
from onvm_core.manager.config.sections import ScaleConfig
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts.registry import NfHost
from onvm_core.manager.placement.policy import split
from onvm_core.manager.supervision.supervised import WantedHost
from onvm_core.manager.supervision.supervisor import Supervisor
from onvm_sdk.errors import OnvmError

__all__ = ["Fusion"]

log = logging.getLogger("onvm.fusion")

SUSTAINED_S = 1.0
"""Time for which the fused host must have been short of CPU time."""
PAUSE_S = 30.0
"""Delay after an attempt that failed."""


class Fusion:
    """Manages groups of NFs.

    Args:
        groups: the groups with ``fuse = "auto"``.
        make: gives the NF host to run, from plugins, instance names and launcher.
    """

    def __init__(
        self,
        deployment: Deployment,
        supervisor: Supervisor,
        groups: Sequence[NfGroup],
        make: Callable[[NfGroup], WantedHost],
    ) -> None:
        self._deployment = deployment
        self._supervisor = supervisor
        self._groups = [(group, make(group).services) for group in groups]
        self._make = make
        self._not_before: dict[str, float] = {}
        self._seen_s = 0.0

    def turn(self) -> None:
        """Separate a fused host that is short of CPU time; call it after each reading of loads."""
        meters = self._deployment.manager.meters
        if not self._groups or meters.at_s == self._seen_s:
            return
        self._seen_s = meters.at_s
        for group, services in self._groups:
            fused = [h for h in self._supervisor.serving(services[0]) if h.services == services]
            if not fused:
                continue
            successors = [self._alone(service) for service in services]
            if all(successors):
                for host in fused:
                    self._retire(host, [one for found in successors for one in found])
            elif not any(self._is_coming(service, services) for service in services):
                self._look(group, services, fused[0])

    def _alone(self, service: str) -> list[NfHost]:
        """Hosts that provide this service and nothing else."""
        return [h for h in self._supervisor.serving(service) if h.services == (service,)]

    def _is_coming(self, service: str, together: tuple[str, ...]) -> bool:
        """True if a host of this service alone starts, or serves already."""
        return together != (service,) and any(
            one.services == (service,) for one in self._supervisor.wanted()
        )

    def _look(self, group: NfGroup, services: tuple[str, ...], host: NfHost) -> None:
        load = self._deployment.manager.meters.load(host, SUSTAINED_S)
        now = time.monotonic()
        if load is None or load.seconds < SUSTAINED_S or now < self._not_before.get(group.field, 0):
            return
        decision = split(len(services), load.utilisation, self._deployment.resources)
        if decision.is_fused:
            return
        log.info("%s: %s", "+".join(group.instances), decision.reason)
        self._not_before[group.field] = now + PAUSE_S
        for one in group.separate():
            try:
                self._supervisor.run(self._make(self._renamed(one)))
            except OnvmError as error:
                log.warning("%s stays fused: %s", "+".join(group.instances), error)
                return

    def _renamed(self, group: NfGroup) -> NfGroup:
        """The group under a name that is free."""
        taken = self._supervisor.instance_names()
        number = 1
        while f"{group.names[0]}-{number}" in taken:
            number += 1
        names = (f"{group.names[0]}-{number}",)
        return NfGroup(group.names, names, group.launcher, group.field)

    def _retire(self, host: NfHost, successors: Sequence[NfHost]) -> None:
        """Let a fused host end; its state goes with its flows where there is no choice."""
        settings = ScaleConfig()
        is_plain = len(successors) == len(host.services)
        self._supervisor.drains.drain_host(
            host, successors if is_plain else (), settings.drain_s, settings.handover_ms / 1000
        )
