"""Requests on the control socket about chains and flows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Literal

from onvm_core.manager.api import messages as m
from onvm_core.manager.captures.filters import matching_flows
from onvm_core.manager.chains.chains import Chain
from onvm_core.manager.cluster_tables.tables import ClusterTables
from onvm_core.manager.config.onvm_toml import ChainConfig
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts.registry import HostState
from onvm_core.manager.supervision.bypass import Bypass
from onvm_sdk.errors import ConfigError

__all__ = ["ChainRequests"]

PATH_FLOWS_MAX = 50_000


class ChainRequests:
    """Chains by command, and those of the file that wait for their services.

    Args:
        cluster: knows the chains and instances of the cluster.
        wanted: the chains of the file.
        publish: sends an event to all subscribers.
    """

    def __init__(
        self,
        deployment: Deployment,
        bypass: Bypass,
        cluster: ClusterTables,
        wanted: Mapping[str, ChainConfig],
        publish: Callable[[m.Event], None],
    ) -> None:
        self._deployment = deployment
        self._plane = deployment.plane
        self._bypass = bypass
        self._cluster = cluster
        self._wanted = dict(wanted)
        self._pending = dict(wanted)
        self._detached: dict[str, ChainConfig] = {}
        """Chains without a port, while it is closed and opened again."""
        self._publish = publish

    @property
    def has_pending(self) -> bool:
        """True if chains of the file wait for a service."""
        return bool(self._pending)

    def add_pending(self) -> None:
        """Add the chains of the file whose services are now there."""
        for name, chain in list(self._pending.items()):
            if all(self._deployment.serves(service) for service in chain.services):
                del self._pending[name]
                self._add_chain(name, chain)

    @property
    def wanted(self) -> Mapping[str, ChainConfig]:
        """The chains of the file."""
        return self._wanted

    def detach(self, ports: Collection[str]) -> None:
        """Take chains away from ports that are to be closed; `change` adds them again.

        Raises:
            ConfigError: a chain of the cluster has such a port.
        """
        for name, chain in list(self._deployment.chains.by_name.items()):
            if chain.near not in ports and chain.far not in ports:
                continue
            if name in self._cluster.chains:
                raise ConfigError(
                    f"expected a port that is not of chain {name} of the cluster",
                    field="ports",
                    value=chain.near if chain.near in ports else chain.far,
                )
            self._detached[name] = self._config_of(chain)
            self._drop(name)

    def change(self, wanted: Mapping[str, ChainConfig]) -> None:
        """Let the chains of the file be these; traffic takes them at once.

        Raises:
            ConfigError: a chain that was added by command has one of their ports.
        """
        here = self._deployment.chains.by_name
        for name in self._wanted.keys() - wanted.keys():
            self._detached.pop(name, None)
            if self._pending.pop(name, None) is not None or name in here:
                self._drop(name)
                self._publish(m.ChainEvent(name=name, action="removed"))
        missing = dict(self._detached)
        for name, chain in wanted.items():
            known = here.get(name)
            if name in missing or known is None or chain != self._wanted.get(name):
                missing[name] = chain
        self._wanted = dict(wanted)
        self._set_all(missing)

    def _set_all(self, chains: dict[str, ChainConfig]) -> None:
        """Add or change chains in an order in which each finds its ports free."""
        while chains:
            before = len(chains)
            error: ConfigError | None = None
            for name, chain in list(chains.items()):
                if not all(self._deployment.serves(service) for service in chain.services):
                    self._pending[name] = chains.pop(name)
                    continue
                try:
                    self._add_chain(name, chain)
                except ConfigError as found:
                    error = found
                    continue
                del chains[name]
                self._detached.pop(name, None)
            if error is not None and len(chains) == before:
                swapped = [name for name in chains if name in self._deployment.chains.by_name]
                if not swapped:
                    raise error
                self._drop(swapped[0])  # two chains that exchange their ports

    def _drop(self, name: str) -> None:
        self._bypass.forget(name)
        if name in self._deployment.chains.by_name:
            self._deployment.chains.remove(name)

    def _config_of(self, chain: Chain) -> ChainConfig:
        return ChainConfig(
            near=chain.near,
            far=chain.far,
            services=list(chain.services),
            bidirectional=chain.is_bidirectional,
            track_flows=chain.track_flows,
            on_failure=self._on_failure(chain),
            match=None if chain.match is None else list(chain.match),
        )

    def _on_failure(self, chain: Chain) -> Literal["drop", "bypass", "wait"]:
        if chain.waits:
            return "wait"
        return "bypass" if self._bypass.watches(chain.name) else "drop"

    def _add_chain(self, name: str, chain: ChainConfig) -> None:
        action = "changed" if name in self._deployment.chains.by_name else "added"
        self._deployment.chains.add(
            name,
            chain.near,
            chain.far,
            chain.services,
            is_bidirectional=chain.bidirectional,
            track_flows=chain.track_flows,
            match=chain.match,
            waits=chain.on_failure == "wait",
        )
        if chain.on_failure == "bypass":
            self._bypass.watch(name)
        else:
            self._bypass.forget(name)
        self._publish(m.ChainEvent(name=name, action=action))

    def all(self) -> list[m.ChainReply]:
        """All chains, including those that wait for a service, by name."""
        shown = [self._chain(chain) for chain in self._deployment.chains.by_name.values()]
        shown += [
            m.ChainReply(
                name=name,
                near=chain.near,
                far=chain.far,
                services=chain.services,
                bidirectional=chain.bidirectional,
                track_flows=chain.track_flows,
                state="waiting",
                match=chain.match,
                on_failure=chain.on_failure,
            )
            for name, chain in self._pending.items()
        ]
        return sorted(shown, key=lambda chain: chain.name)

    def _chain(self, chain: Chain) -> m.ChainReply:
        bypass = self._bypass
        missing = bypass.missing(chain.name)
        return m.ChainReply(
            name=chain.name,
            near=chain.near,
            far=chain.far,
            services=list(chain.services),
            bidirectional=chain.is_bidirectional,
            track_flows=chain.track_flows,
            state=f"bypassing {', '.join(missing)}" if missing else self._state_of(chain),
            on_failure=self._on_failure(chain),
            match=None if chain.match is None else list(chain.match),
        )

    def _state_of(self, chain: Chain) -> str:
        absent = [
            name
            for name in chain.services
            if not self._deployment.serves(name, anywhere=chain.cluster_number != 0)
        ]
        return f"waiting for {', '.join(absent)}" if chain.waits and absent else "active"

    def list_all(self, _request: m.ChainListRequest) -> m.ChainsReply:
        """All chains."""
        return m.ChainsReply(chains=self.all())

    def add(self, request: m.ChainAddRequest) -> m.ChainReply:
        """Add a chain, or change one."""
        self._check_own(request.name, "chain add")
        for service in request.services:
            if not self._deployment.serves(service):
                raise ConfigError(
                    f"expected a service with an instance; start one: onvm nf run {service}",
                    field="chain add",
                    value=service,
                )
        known = self._deployment.chains.by_name.get(request.name)
        chain = ChainConfig(
            near=request.near,
            far=request.far,
            services=request.services,
            bidirectional=request.bidirectional,
            track_flows=request.track_flows,
            on_failure=request.on_failure,
            match=None if known is None or known.match is None else list(known.match),
        )
        self._add_chain(request.name, chain)
        self._pending.pop(request.name, None)
        return self._chain(self._deployment.chains.by_name[request.name])

    def _check_own(self, name: str, field: str) -> None:
        if name in self._cluster.chains:
            raise ConfigError(
                "expected a chain of this host; this one is the cluster's: onvm cluster chain",
                field=field,
                value=name,
            )

    def remove(self, request: m.ChainRemoveRequest) -> m.DoneReply:
        """Remove a chain."""
        self._check_own(request.name, "chain remove")
        if self._pending.pop(request.name, None) is None:
            self._bypass.forget(request.name)
            self._deployment.chains.remove(request.name)
        self._publish(m.ChainEvent(name=request.name, action="removed"))
        return m.DoneReply()

    def show(self, request: m.ChainShowRequest) -> m.ChainShowReply:
        """A chain, and the paths that its flows take."""
        chain = self._deployment.chains.by_name.get(request.name)
        if chain is None:
            known = ", ".join(sorted(self._deployment.chains.by_name)) or "there is none"
            raise ConfigError(f"expected a chain ({known})", field="chain show", value=request.name)
        flows = self._plane.read_flows(PATH_FLOWS_MAX)
        counts = Counter(
            (flow.spi, flow.hosts, flow.is_reverse) for flow in flows if flow.chain == chain.number
        )
        paths = [
            m.Path(
                spi=spi,
                is_reverse=is_reverse,
                flows=count,
                hops=self._hops(chain, hosts, is_reverse),
            )
            for (spi, hosts, is_reverse), count in sorted(counts.items())
        ]
        return m.ChainShowReply(chain=self._chain(chain), paths=paths, flows_seen=len(flows))

    def _hops(self, chain: Chain, slots: tuple[int, ...], is_reverse: bool) -> list[m.Hop]:
        services = chain.services[::-1] if is_reverse else chain.services
        hops: list[tuple[str, str]] = []
        for slot in slots:
            for service in services[len(hops) :]:
                names = self._instances_of(slot, service)
                if not names:
                    break
                hops.append((service, names[0]))
        return [
            m.Hop(si=len(hops) - index, service=service, instance=instance)
            for index, (service, instance) in enumerate(hops)
        ]

    def _instances_of(self, slot: int, service: str) -> list[str]:
        remote = self._cluster.instance_at(slot, service)
        return (
            [remote]
            if remote
            else [
                instance.name
                for host, instance in self._deployment.manager.registry.instances()
                if host.slot == slot and service == instance.service
            ]
        )

    def flows(self, request: m.FlowListRequest) -> m.FlowsReply:
        """Some of the flows."""
        ports = {self._deployment.port_number(name): name for name in self._deployment.ports}
        chains = {chain.number: chain.name for chain in self._deployment.chains.by_name.values()}
        names = self._cluster.names()
        for host, instance in self._deployment.manager.registry.instances():
            if host.state is not HostState.DEAD:
                names.setdefault(host.slot, []).append(instance.name)
        if request.filter:
            found = matching_flows(
                self._plane, request.filter, self._plane.read_flows(m.FLOWS_MAX)
            )[: request.limit]
        else:
            found = self._plane.read_flows(request.limit)
        return m.FlowsReply(
            total=self._plane.read_plane().flows,
            flows=[
                m.Flow(
                    src=flow.src,
                    src_port=flow.src_port,
                    dst=flow.dst,
                    dst_port=flow.dst_port,
                    protocol=flow.protocol,
                    vlan=flow.vlan,
                    port=ports.get(flow.port, str(flow.port)),
                    chain=chains.get(flow.chain, str(flow.chain)),
                    spi=flow.spi,
                    is_reverse=flow.is_reverse,
                    instances=[name for slot in flow.hosts for name in names.get(slot, [])],
                    idle_s=flow.idle_ms / 1000,
                )
                for flow in found
            ],
        )
