"""The behaviour of a chain while one of its services has no instance at all: ``on_failure``.

``drop`` needs no action: the data plane drops the packets as ``no_instance``. ``bypass`` takes the
service out of the chain until an instance serves again: packets go on without it. Use it for
services whose absence harms less than an outage, such as a cache or a counter; never for a
firewall.

Flows that began meanwhile take the service as soon as it is back; an NF that needs to see the
beginning of a flow must cope with that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts.registry import HostState

__all__ = ["Bypass"]

log = logging.getLogger("onvm.bypass")


class Bypass:
    """Chains that go on without services that have no instance.

    Args:
        publish: gets the chain's name and the event.
    """

    def __init__(self, deployment: Deployment, publish: Callable[[str, str], None]) -> None:
        self._deployment = deployment
        self._publish = publish
        self._taken: dict[str, tuple[str, ...]] = {}
        """Services that packets take now, by chain."""

    def watch(self, name: str) -> None:
        """Watch a chain that has just been added or changed."""
        self._taken[name] = self._deployment.chains.by_name[name].services

    def forget(self, name: str) -> None:
        """Stop watching a chain."""
        self._taken.pop(name, None)

    def watches(self, name: str) -> bool:
        """True if it watches the chain."""
        return name in self._taken

    def missing(self, name: str) -> list[str]:
        """Services that the chain bypasses now."""
        if name not in self._taken:
            return []
        return [
            s for s in self._deployment.chains.by_name[name].services if s not in self._taken[name]
        ]

    def turn(self) -> None:
        """Take services out of chains, or put them back, after the state of a host has changed."""
        there = {
            instance.service
            for host, instance in self._deployment.manager.registry.instances()
            if host.state in (HostState.ACTIVE, HostState.DRAINING)
        }
        for name, taken in self._taken.items():
            chain = self._deployment.chains.by_name[name]
            serving = there | self._deployment.remote_services if chain.cluster_number else there
            wanted = tuple(service for service in chain.services if service in serving)
            if wanted == taken:
                continue
            self._deployment.chains.set_services(chain, wanted)
            self._taken[name] = wanted
            without = ", ".join(self.missing(name))
            log.warning("chain %s: %s", name, f"goes without {without}" if without else "whole")
            self._publish(name, "bypassing" if without else "whole")
