"""A manager's tables in a cluster, kept equal to the view that the agent sends.

Peers, NF hosts at peers, numbers of the local NF hosts, chains. A part that cannot be applied (a
port that this host does not have, a chain in the way) is reported and tried again with the next
view; the rest is applied all the same. When a peer no longer answers probes, its NF hosts count as
gone until it answers again, whatever ZooKeeper reports.

Threads: the manager's.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from onvm_core.dataplane.interface import DataplaneError
from onvm_core.dataplane.limits import PORT_REMOTE
from onvm_core.dataplane.values import NO_SECRET, TunnelPort, TunnelSecurity
from onvm_core.manager.api import messages as m
from onvm_core.manager.cluster_tables.alarms import Alarms
from onvm_core.manager.cluster_tables.local_hosts import LocalHosts
from onvm_core.manager.cluster_view.view import (
    ChainView,
    ClaimView,
    ClusterView,
    DataSecurity,
    InstanceView,
    PeerStatus,
    PeerView,
    PortView,
)
from onvm_core.manager.cluster_view.view_change import ViewTables
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.nf_hosts.codec import Claim
from onvm_core.manager.nf_hosts.registry import NfHost
from onvm_core.manager.supervision.bypass import Bypass
from onvm_sdk.errors import ConfigError

__all__ = ["TUNNEL", "ClusterTables"]

log = logging.getLogger("onvm.cluster")

TUNNEL = "cluster"
"""Name of the port to the peers."""
SUCCESSORS_MAX = 8
"""Maximum number of moves through which state is followed."""
SPAN_MAX = 8
"""NF hosts of a chain that spans hosts: as many as fit into NSH's fixed context headers."""
REVISION_BITS = 48
LOG_S = 10.0
"""Interval between two lines about one peer."""
REMOTE_REASONS = (
    "foreign",
    "forged",
    "replayed",
    "wrong_hop",
    "no_path",
    "no_instance",
    "no_key",
    "oversize",
    "tx_full",
    "shed",
)


@dataclass(slots=True)
class _Peer:
    id: int
    view: PeerView
    is_up: bool = True
    logged_up: bool = True
    """The state that the last line in the log tells."""
    logged_at_s: float = -math.inf
    changes: int = 0
    """Since that line."""

    def log_change(self) -> None:
        """Tell of a change, but not more often than every `LOG_S`."""
        now = time.monotonic()
        if self.changes == 0 or now - self.logged_at_s < LOG_S:
            return
        if self.changes > 1 or self.is_up != self.logged_up:
            often = f" ({self.changes} changes)" if self.changes > 1 else ""
            what = "answers again" if self.is_up else "does not answer"
            log.warning("peer %s %s%s", self.view.name, what, often)
            self.logged_at_s, self.logged_up = now, self.is_up
        self.changes = 0


@dataclass(slots=True)
class _Remote:
    slot: int
    view: InstanceView
    claims: set[ClaimView] = field(default_factory=set)
    is_known: bool = False
    """True if it ever had spare capacity. A new NF host has none known, but is not full."""


def _traffic_of(claim: ClaimView) -> tuple[bytes, int, int, int]:
    address = ipaddress.ip_address(claim.address).packed
    return address, claim.protocol, claim.first_port, claim.end_port


class ClusterTables:
    """The cluster as this manager and its data plane know it.

    Args:
        bypass: watches chains that go on without a service.
        publish: gets the name of a chain and the event.
    """

    def __init__(
        self, deployment: Deployment, bypass: Bypass, publish: Callable[[str, str], None]
    ) -> None:
        self._deployment = deployment
        self._plane = deployment.plane
        self.local_hosts = LocalHosts(deployment)
        self._bypass = bypass
        self._publish = publish
        self._view: ClusterView | None = None
        self._views: ViewTables | None = None
        # So that no agent mistakes this manager for its predecessor.
        self._revision = secrets.randbits(REVISION_BITS)
        self._tunnel: tuple[str, int, DataSecurity] | None = None
        self._peers: dict[str, _Peer] = {}
        self._remotes: dict[int, _Remote] = {}
        self._chains: dict[str, ChainView] = {}
        self.reserved: Callable[[], set[str]] = set
        """Names of instances that have moved away from here."""
        self.alarms = Alarms(lambda: self._plane.read_plane().drops, self._forgers)
        self._successors: dict[int, int] = {}
        """NF hosts that have the state of others that moved, by number."""

    @property
    def chains(self) -> Mapping[str, ChainView]:
        """Names of chains that belong to the cluster and must not be changed here."""
        return self._chains

    def instance_at(self, slot: int, service: str) -> str | None:
        """Name of the instance of `service` at a peer that has this slot; None if there is none."""
        for remote in self._remotes.values():
            if remote.slot == slot and service in remote.view.services:
                return f"{remote.view.name}@{remote.view.host}"
        return None

    def names(self) -> dict[int, list[str]]:
        """Names of the NF hosts at peers, by slot."""
        return {
            remote.slot: [f"{remote.view.name}@{remote.view.host}"]
            for remote in self._remotes.values()
        }

    def slot_of(self, number: int) -> int | None:
        """Slot of an NF host of the cluster, or of its successor; None if there is none."""
        for _ in range(SUCCESSORS_MAX):
            if number in self._remotes:
                return self._remotes[number].slot
            own = self.local_hosts.slot_of(number)
            if own is not None:
                return own
            if number not in self._successors:
                break
            number = self._successors[number]
        return None

    def remote_claims(self) -> set[Claim]:
        """Traffic claims of NF hosts at peers."""
        return {
            Claim(*_traffic_of(claim))
            for remote in self._remotes.values()
            for claim in remote.claims
        }

    # ---- requests ----

    def apply(self, request: m.ClusterApplyRequest) -> m.ClusterReply:
        """Make the tables equal to a view."""
        view = request.view
        if view is None:
            self._leave()
            return m.ClusterReply(digest="")
        if self._view is not None and (self._view.cluster, self._view.host) != (
            view.cluster,
            view.host,
        ):
            self._leave()
        self._views = ViewTables(view)
        return self._follow(view)

    def change(self, request: m.ClusterChangeRequest) -> m.ClusterReply:
        """Apply a change of the view to the tables."""
        if self._views is None or request.revision != self._revision:
            raise ConfigError(
                "expected a change of the view that is here",
                field="revision",
                value=request.revision,
            )
        self._views.change(request.change)
        return self._follow(self._views.view)

    def _follow(self, view: ClusterView) -> m.ClusterReply:
        missing: list[str] = []
        self._view = view
        self._revision += 1
        self._apply(view, missing)
        for line in missing:
            log.warning("%s", line)
        bound = [
            chain.cluster_number
            for name, chain in self._deployment.chains.by_name.items()
            if name in self._chains
        ]
        return m.ClusterReply(
            digest=self.digest(),
            missing=missing,
            revision=self._revision,
            chains=sorted([*bound, *self._deployment.chains.unbound]),
            bound=sorted(bound),
        )

    def local(self, _request: m.ClusterLocalRequest) -> m.ClusterLocalReply:
        """The facts about this manager that the cluster needs."""
        for peer in self._peers.values():
            peer.log_change()
        drops = self._plane.read_plane().drops
        return m.ClusterLocalReply(
            hosts=[
                self.local_hosts.show(host, self._spare_of(host.services))
                for host in self.local_hosts.serving()
            ],
            ports=[name for name in self._deployment.ports if name != TUNNEL],
            peers=self.peers(),
            digest=self.digest(),
            resources=self._deployment.local_resources,
            drops={reason: drops[reason] for reason in REMOTE_REASONS},
            reserved=sorted(self.reserved()),
        )

    def peers(self) -> list[PeerStatus]:
        """The other hosts, and the state of the data network to each."""
        return [self._peer_status(peer) for peer in self._peers.values()]

    def digest(self) -> str:
        """Digest of the tables: equal on all hosts that have applied equal views."""
        view = self._view
        if view is None:
            return ""
        names = {peer.id: name for name, peer in self._peers.items()}
        instances = [
            (remote.view.number, remote.view.host, remote.view.services, remote.view.state)
            for remote in self._remotes.values()
        ] + [
            (number, view.host, list(host.services), state)
            for number, host, state in self.local_hosts.numbered()
        ]
        state = (
            view.cluster,
            view.vni,
            view.data_security,
            sorted([*names.values(), view.host]),
            sorted(instances),
            sorted(self._chains.values(), key=lambda chain: chain.number),
        )
        return hashlib.sha256(msgspec.json.encode(state)).hexdigest()[:16]

    # ---- reachability of peers ----

    def on_notice(self) -> None:
        """Let the NF hosts of peers serve or not, as the probes have found."""
        has_changed = False
        for peer in self._peers.values():
            is_up = not self._plane.read_peer(peer.id).is_down
            if is_up != peer.is_up:
                peer.is_up = is_up
                peer.changes += 1
                peer.log_change()
                has_changed = True
        if has_changed and self._view is not None:
            self._apply(self._view, [])

    # ---- applying ----

    def _apply(self, view: ClusterView, missing: list[str]) -> None:
        wanted_chains = {chain.name: chain for chain in view.chains}
        for name in [n for n in self._chains if n not in wanted_chains]:
            self._remove_chain(name)
        self._open_tunnel(view, missing)
        self._set_successors(view)
        self._set_instances(view, missing)
        self._set_peers(view, missing)
        self._add_instances(view, missing)
        self._tell_local_hosts(view)
        for chain in view.chains:
            if self._chains.get(chain.name) != chain:
                self._add_chain(chain, view, missing)
        self._bypass.turn()

    def _forget_peers(self) -> None:
        """Remove the peers, and everything that leads there."""
        for name in list(self._chains):
            self._remove_chain(name)
        for number in list(self._remotes):
            self._remove_remote(number)
        for name in list(self._peers):
            self._remove_peer(name)

    def _leave(self) -> None:
        self._forget_peers()
        if self._tunnel is not None:
            self._deployment.close_port(TUNNEL)
            self._tunnel = None
        self._view = self._views = None
        self._successors = {}
        self.local_hosts.forget()

    def _open_tunnel(self, view: ClusterView, missing: list[str]) -> None:
        wanted = (view.address, view.vni, view.data_security)
        if self._tunnel == wanted:
            return
        if self._tunnel is not None:
            self._forget_peers()  # they may have had no secrets
            self._deployment.close_port(TUNNEL)
            self._tunnel = None
        try:
            address = ipaddress.ip_address(view.address).packed
            security = TunnelSecurity[view.data_security.upper()]
            number = self._plane.open_port(TUNNEL, TunnelPort(address, view.vni, security))
        except (DataplaneError, ValueError) as error:
            missing.append(f"data address {view.address}: {error}")
            return
        self._deployment.take_port(TUNNEL, number, f"tunnel:{view.address}")
        self._tunnel = wanted

    # peers

    def _set_peers(self, view: ClusterView, missing: list[str]) -> None:
        wanted = {peer.name: peer for peer in view.peers}
        for name, peer in list(self._peers.items()):
            if wanted.get(name) != peer.view:
                for number, remote in list(self._remotes.items()):
                    if remote.view.host == name:
                        self._remove_remote(number)
                for chain in list(self._chains.values()):
                    ends = [end for one in chain.definitions for end in (one.near, one.far)]
                    if name in {end.host for end in ends}:
                        self._remove_chain(chain.name)
                self._remove_peer(name)
        for name, peer_view in wanted.items():
            if name in self._peers:
                continue
            try:
                if view.data_security != "none" and not peer_view.secret:
                    raise ValueError("its agent has no key; packets cannot be authenticated")
                peer_id = self._plane.add_peer(
                    ipaddress.ip_address(peer_view.address).packed,
                    bytes.fromhex(peer_view.secret) or NO_SECRET,
                )
            except (DataplaneError, ValueError) as error:
                missing.append(f"peer {name} at {peer_view.address}: {error}")
                continue
            self._peers[name] = _Peer(peer_id, peer_view)
            self._deployment.remote_ports_of(name, PORT_REMOTE | peer_id)

    def _remove_peer(self, name: str) -> None:
        peer = self._peers.pop(name)
        self._deployment.remote_ports_of(name, None)
        self._plane.remove_peer(peer.id)

    # NF hosts

    def _wanted_remotes(self, view: ClusterView) -> dict[int, InstanceView]:
        return {
            one.number: one
            for one in view.instances
            if one.host != view.host and ((peer := self._peers.get(one.host)) is None or peer.is_up)
        }

    def _set_successors(self, view: ClusterView) -> None:
        """Record where the state of NF hosts has gone, before these are removed."""
        successors = dict(view.successors)
        for source, successor in successors.items():
            if self._successors.get(source) != successor:
                self._plane.set_successor(source, successor)
        self._successors = successors

    def _set_instances(self, view: ClusterView, missing: list[str]) -> None:
        """Remove missing entries and update changed ones, before peers are removed."""
        del missing
        wanted = self._wanted_remotes(view)
        for number, remote in list(self._remotes.items()):
            now = wanted.get(number)
            if now is None or (now.host, now.services) != (remote.view.host, remote.view.services):
                self._remove_remote(number)
                continue
            self._update_remote(remote, now)
        self._tell_services()

    def _add_instances(self, view: ClusterView, missing: list[str]) -> None:
        registry = self._deployment.manager.registry
        for number, one in sorted(self._wanted_remotes(view).items()):
            peer = self._peers.get(one.host)
            if number in self._remotes or peer is None:
                continue
            try:
                ids = [registry.service_id(service) for service in one.services]
                slot = self._plane.add_remote(ids, peer.id, number)
            except (DataplaneError, ConfigError) as error:
                missing.append(f"{one.name} at {one.host}: {error}")
                continue
            remote = msgspec.structs.replace(one, state="active", spare_pps=-1)
            self._remotes[number] = _Remote(slot, remote)
            self._update_remote(self._remotes[number], one)
        self._tell_services()

    def _update_remote(self, remote: _Remote, now: InstanceView) -> None:
        if now.spare_pps != remote.view.spare_pps:
            remote.is_known |= now.spare_pps > 0
            unknown = 0 if remote.is_known else self._spare_of(tuple(now.services)) or 0
            self._plane.set_spare_capacity(remote.slot, now.spare_pps or unknown)
        claims = set(now.claims)
        for claim in remote.claims - claims:
            self._plane.unclaim(remote.slot, *_traffic_of(claim))
        for claim in claims - remote.claims:
            self._plane.claim(remote.slot, *_traffic_of(claim))
        remote.claims = claims
        if now.state != remote.view.state:
            if now.state == "draining":
                self._plane.drain_host(remote.slot)
            else:
                self._plane.activate_host(remote.slot)
        remote.view = now

    def _remove_remote(self, number: int) -> None:
        slot = self._remotes.pop(number).slot
        self._plane.remove_remote(slot, self.slot_of(number) or 0)

    def _tell_services(self) -> None:
        self._deployment.remote_services = {
            service for remote in self._remotes.values() for service in remote.view.services
        }

    def _spare_of(self, services: tuple[str, ...]) -> int | None:
        """Mean spare capacity of the NF hosts that run these services and have some; None if none
        has.
        """
        known = [
            remote.view.spare_pps
            for remote in self._remotes.values()
            if remote.view.spare_pps > 0 and tuple(remote.view.services) == services
        ] + [
            spare_pps
            for host in self.local_hosts.serving()
            if host.services == services and (spare_pps := self.local_hosts.spare_pps(host))
        ]
        return max(sum(known) // len(known), 1) if known else None

    def _tell_local_hosts(self, view: ClusterView) -> None:
        own = [one for one in view.instances if one.host == view.host]
        self.local_hosts.number({one.name: one.number for one in own})
        self.local_hosts.draining = frozenset(one.name for one in own if one.state == "draining")
        self.local_hosts.keep_back()
        for host in self.local_hosts.serving():
            self.local_hosts.assume_capacity(host, self._spare_of(host.services))

    def on_host_change(self, host: NfHost) -> None:
        """A host of this manager serves, drains or is gone."""
        self.local_hosts.on_host_change(host)

    # chains

    def _port(self, port: PortView, view: ClusterView) -> str:
        return port.port if port.host == view.host else f"{port.host}:{port.port}"

    def _add_chain(self, chain: ChainView, view: ClusterView, missing: list[str]) -> None:
        """Give ports the definition that they use; packets from peers may name the others, too."""
        if not self._set_current(chain.current, view, missing):
            return
        self._publish(chain.name, "changed" if chain.name in self._chains else "added")
        self._chains[chain.name] = chain
        others = {one.number: one for one in chain.definitions if one is not chain.current}
        for number, one in others.items():
            self._prepare(chain.name, one, view, missing if number == chain.number else [])
        for number, unbound in list(self._deployment.chains.unbound.items()):
            if unbound.name == chain.name and number not in others:
                self._deployment.chains.forget(number)
        if chain.current.on_failure == "bypass":
            self._bypass.watch(chain.name)
        else:
            self._bypass.forget(chain.name)

    def _prepare(self, name: str, one: ChainView, view: ClusterView, missing: list[str]) -> None:
        try:
            self._deployment.chains.prepare(
                name,
                self._port(one.near, view),
                self._port(one.far, view),
                one.services,
                is_bidirectional=one.bidirectional,
                track_flows=one.track_flows,
                cluster_number=one.number,
            )
        except (ConfigError, DataplaneError) as error:
            missing.append(f"chain {name}: its next definition: {error}")

    def _set_current(self, chain: ChainView, view: ClusterView, missing: list[str]) -> bool:
        known = self._deployment.chains.by_name.get(chain.name)
        try:
            if known is not None and chain.name not in self._chains:
                raise ConfigError(
                    "expected a name that is not a chain's of this host alone",
                    field="chain",
                    value=chain.name,
                )
            if len(chain.services) > SPAN_MAX:
                raise ConfigError(
                    f"expected at most {SPAN_MAX} services",
                    field=f"chain {chain.name}.services",
                    value=len(chain.services),
                )
            self._deployment.chains.add(
                chain.name,
                self._port(chain.near, view),
                self._port(chain.far, view),
                chain.services,
                is_bidirectional=chain.bidirectional,
                track_flows=chain.track_flows,
                match=chain.match,
                waits=chain.on_failure == "wait",
                cluster_number=chain.number,
            )
        except (ConfigError, DataplaneError) as error:
            if chain.name in self._chains:
                self._remove_chain(chain.name)
            missing.append(f"chain {chain.name}: {error}")
            return False
        return True

    def _remove_chain(self, name: str) -> None:
        del self._chains[name]
        for number, unbound in list(self._deployment.chains.unbound.items()):
            if unbound.name == name:
                self._deployment.chains.forget(number)
        self._bypass.forget(name)
        self._deployment.chains.remove(name)
        self._publish(name, "removed")

    # ---- reading ----

    def _forgers(self) -> list[str]:
        """Names of the peers whose addresses forged or recorded packets had."""
        counters = {name: self._plane.read_peer(peer.id) for name, peer in self._peers.items()}
        return [name for name, one in counters.items() if one.forged or one.replayed]

    def _peer_status(self, peer: _Peer) -> PeerStatus:
        counters = self._plane.read_peer(peer.id)
        return PeerStatus(
            name=peer.view.name,
            address=peer.view.address,
            is_up=peer.is_up,
            heard_ms=None if counters.heard_us is None else round(counters.heard_us / 1000, 1),
            tx=counters.tx,
            rx=counters.rx,
            forged=counters.forged,
            replayed=counters.replayed,
        )
