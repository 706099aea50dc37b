"""The chains of a manager by name, and the rules that send new flows to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from onvm_core.dataplane.limits import CHAINS_MAX, PORT_REMOTE
from onvm_core.dataplane.values import PortRule
from onvm_core.manager.chains.classifier import ChainMatch, Classifier, MatchClassifier, MatchConfig
from onvm_core.manager.manager import Manager
from onvm_sdk.errors import ConfigError

__all__ = ["Chain", "Chains"]

log = logging.getLogger("onvm.chains")


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain, described by names.

    Attributes:
        match: flows that take the chain where another chain has the port `near`; None: this chain
            has the port, and takes the flows that match no other chain.
        waits: True if its entry waits while a service has no instance.
        cluster_number: number in the cluster, for a chain that may span hosts; 0: it spans none.
    """

    name: str
    number: int
    near: str
    far: str
    services: tuple[str, ...]
    is_bidirectional: bool
    track_flows: bool
    match: tuple[MatchConfig, ...] | None = None
    waits: bool = False
    cluster_number: int = 0


class Chains:
    """Adds, changes and removes chains while traffic flows.

    Args:
        port_number: number of an open port by its name.
        classifiers: classifiers of the ports that have their own, by the port's name.

    Threads: the manager's.
    """

    def __init__(
        self,
        manager: Manager,
        port_number: Callable[[str], int],
        classifiers: Mapping[str, Classifier] | None = None,
    ) -> None:
        self._manager = manager
        self._port_number = port_number
        self._classifiers = dict(classifiers or {})
        self._default = MatchClassifier({})
        self._chains: dict[str, Chain] = {}
        self._unbound: dict[int, Chain] = {}
        """Chains of the cluster that packets from peers alone take, by their numbers there."""

    def use_classifiers(self, classifiers: Mapping[str, Classifier], ports: Iterable[str]) -> None:
        """Use other classifiers, and make the rules of these ports with them."""
        self._classifiers = dict(classifiers)
        for port in ports:
            if any(chain.near == port for chain in self._chains.values()):
                self._classify(port)

    @property
    def by_name(self) -> Mapping[str, Chain]:
        """All chains, in the order in which they were added."""
        return self._chains

    def add(
        self,
        name: str,
        near: str,
        far: str,
        services: Sequence[str],
        *,
        is_bidirectional: bool,
        track_flows: bool,
        match: Sequence[MatchConfig] | None = None,
        waits: bool = False,
        cluster_number: int = 0,
    ) -> None:
        """Add a chain, or change the chain of that name; traffic takes it at once.

        With another number in the cluster it is another chain: the one that had the name stays, for
        packets of peers, until `forget`.

        Raises:
            ConfigError: there is no such port, another chain has it, or there are too many chains.
        """
        known = self._chains.get(name)
        prepared = self._unbound.get(cluster_number)
        former = None
        if known and 0 != known.cluster_number != cluster_number != 0:
            former = known
        chain = Chain(
            name,
            self._number(name, prepared or (None if former else known)),
            near,
            far,
            tuple(services),
            is_bidirectional,
            track_flows,
            None if match is None else tuple(match),
            waits,
            cluster_number,
        )
        self._port_number(near), self._port_number(far)
        self._check_ports(chain)
        self.set_services(chain, chain.services)
        self._unbound.pop(cluster_number, None)
        self._chains[name] = chain
        for port in {near, known.near if known else near}:
            self._classify(port)
        if former is not None:
            self._manager.plane.succeed_chain(former.number, chain.number)
            self._unbound[former.cluster_number] = former
            self._set(former, former.services, is_unbound=True)

    def prepare(
        self,
        name: str,
        near: str,
        far: str,
        services: Sequence[str],
        *,
        is_bidirectional: bool,
        track_flows: bool,
        cluster_number: int,
    ) -> None:
        """Let packets of peers take a chain of the cluster that ports here do not use (yet).

        Raises:
            ConfigError: there is no such port, or there are too many chains.
        """
        chain = Chain(
            name,
            self._number(name, self._unbound.get(cluster_number)),
            near,
            far,
            tuple(services),
            is_bidirectional,
            track_flows,
            cluster_number=cluster_number,
        )
        self._set(chain, chain.services, is_unbound=True)
        self._unbound[cluster_number] = chain

    def forget(self, cluster_number: int) -> None:
        """Remove a chain that packets of peers alone take; flows go on in the one of its name."""
        chain = self._unbound.pop(cluster_number)
        now = self._chains.get(chain.name)
        if now is not None:
            self._manager.plane.succeed_chain(chain.number, now.number)
        self._manager.plane.remove_chain(chain.number)

    @property
    def unbound(self) -> Mapping[int, Chain]:
        """Chains of the cluster that packets from peers alone take, by their numbers there."""
        return self._unbound

    def _number(self, name: str, same: Chain | None) -> int:
        """The number that a chain has here already, or one that is free."""
        if same is not None:
            return same.number
        taken = {chain.number for chain in (*self._chains.values(), *self._unbound.values())}
        number = min(set(range(1, CHAINS_MAX)) - taken, default=0)
        if number == 0:
            most = CHAINS_MAX - 1
            raise ConfigError(f"expected at most {most} chains", field="chain", value=name)
        return number

    def set_services(self, chain: Chain, services: Sequence[str]) -> None:
        """Send packets of a chain through these services, some of its own, from now on."""
        self._set(chain, services, is_unbound=False)

    def _set(self, chain: Chain, services: Sequence[str], *, is_unbound: bool) -> None:
        self._manager.set_chain(
            chain.number,
            self._port_number(chain.near),
            self._port_number(chain.far),
            services,
            is_bidirectional=chain.is_bidirectional,
            track_flows=chain.track_flows,
            by_rules=chain.match is not None,
            waits=chain.waits,
            cluster_number=chain.cluster_number,
            is_unbound=is_unbound,
        )

    def remove(self, name: str) -> None:
        """Remove a chain; ports that belonged to it then have none."""
        chain = self._chains.pop(name, None)
        if chain is None:
            known = ", ".join(self._chains) or "there is none"
            raise ConfigError(f"expected a chain ({known})", field="chain", value=name)
        self._classify(chain.near)
        self._manager.plane.remove_chain(chain.number)

    def _check_ports(self, chain: Chain) -> None:
        for other in self._chains.values():
            if other.name == chain.name or other.match is not None or chain.match is not None:
                continue
            for end, port in (("in", chain.near), ("out", chain.far)):
                if port in (other.near, other.far):
                    raise ConfigError(
                        f"expected a port that is not chain {other.name}'s", field=end, value=port
                    )

    def _classify(self, port: str) -> None:
        """Give the data plane the current rules of a port; a peer does that for its own ports."""
        if self._port_number(port) >= PORT_REMOTE:
            return
        here = [chain for chain in self._chains.values() if chain.near == port]
        numbers = {chain.name: chain.number for chain in here}
        rules: list[PortRule] = []
        if any(chain.match is not None for chain in here):
            classifier = self._classifiers.get(port, self._default)
            matches = [ChainMatch(c.name, c.services, c.match or ()) for c in here]
            try:
                rules = [
                    PortRule(
                        numbers[rule.chain],
                        rule.protocol,
                        rule.src,
                        rule.dst,
                        rule.src_ports,
                        rule.dst_ports,
                    )
                    for rule in classifier.rules(port, matches)
                ]
            except Exception as error:  # a plugin may do anything; the port's own chain remains
                if classifier is self._default:
                    raise
                log.error("classifier of port %s: %s: %s", port, type(error).__name__, error)
        self._manager.plane.set_port_rules(self._port_number(port), rules)
