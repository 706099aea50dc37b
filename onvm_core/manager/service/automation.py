"""The automatic tasks of a manager: scale services, end NF hosts that hang, bypass, export."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from onvm_core.export.report import PeerReport
from onvm_core.export.runner import ExporterReport, Exporters
from onvm_core.export.snapshot import Snapshot
from onvm_core.manager.api import messages as m
from onvm_core.manager.cluster_view.view import PeerStatus
from onvm_core.manager.config.extensions import Extensions
from onvm_core.manager.config.onvm_toml import Config
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts.registry import NfHost
from onvm_core.manager.supervision.bypass import Bypass
from onvm_core.manager.supervision.fusion import Fusion
from onvm_core.manager.supervision.hang import HangWatch
from onvm_core.manager.supervision.scaling import Scaling
from onvm_core.manager.supervision.supervisor import Supervisor

__all__ = ["Automation"]

URGENT_S = 0.0005
"""Time between two looks while packets wait for a handover."""


class Automation:
    """Bundles these tasks; `turn` is called after each poll.

    Args:
        name: name of the manager.
        publish: sends an event to all listeners.
    """

    def __init__(
        self,
        name: str,
        deployment: Deployment,
        supervisor: Supervisor,
        config: Config,
        extensions: Extensions,
        publish: Callable[[m.Event], None],
    ) -> None:
        self._name = name
        self._began = time.monotonic()
        self._deployment = deployment
        self._supervisor = supervisor
        manager = deployment.manager
        self._hangs = HangWatch(
            manager.registry,
            manager.meters,
            config.faults.hang_ms / 1000,
            supervisor.is_excused,
        )
        self._exporters = Exporters(extensions.exporters, self._snapshot)
        self.peers: Callable[[], Sequence[PeerStatus]] = tuple
        """Gives the other hosts of the cluster."""
        self.fusion: Fusion | None = None
        """Set when the manager knows which NFs it may fuse."""
        self.scaling = Scaling(deployment, supervisor, config.scale, extensions.policies)
        self.bypass = Bypass(
            deployment, lambda chain, action: publish(m.ChainEvent(name=chain, action=action))
        )

    def close(self) -> None:
        """Let the exporters process a last snapshot, and end them."""
        self._exporters.close()

    @property
    def poll_s(self) -> float:
        """The longest time to wait for events."""
        if self._supervisor.drains.is_urgent:
            return URGENT_S
        return self._deployment.manager.meters.interval_s

    def turn(self) -> None:
        """Look for work and do it."""
        for host, reason in self._hangs.turn():
            place = self._deployment.place_of_hang(host)
            self._deployment.manager.attach.detach(host.slot, reason + place)
            self._supervisor.end(host)
        self.scaling.turn()
        if self.fusion is not None:
            self.fusion.turn()
        self._exporters.turn()

    def on_host_change(self, host: NfHost) -> None:
        """Record that a host serves, drains or is gone."""
        self._supervisor.on_host_change(host)
        self.bypass.turn()

    def exporters(self) -> list[ExporterReport]:
        """The state of each exporter."""
        return self._exporters.reports()

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            time=round(time.time(), 3),
            manager=self._name,
            uptime_s=round(time.monotonic() - self._began, 3),
            report=self._deployment.report(),
            peers=[PeerReport(one.name, one.is_up, one.tx, one.rx) for one in self.peers()],
        )
