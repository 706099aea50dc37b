"""Successive views; each keeps the unchanged parts of the one before.

`view.make_view` defines a view, and a property test compares this module with it. In a cluster of
hundreds of hosts one host changes at a time; without this module everything else would be made,
compared and sent again. A node of the mirror stays the same object as long as its content is the
same, and so do the parts of views that are made from it.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

import msgspec

from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import ChainNode, HostNode, InstancesNode
from onvm_core.cluster.view.cluster_view import (
    InstanceCounts,
    PluginVersion,
    SecretOf,
    chain_view,
    digest_of,
    digest_of_instance,
    digest_text,
    instance_view,
    no_secret,
    successors_of,
)
from onvm_core.manager.cluster_view.view import ChainView, ClusterView, InstanceView, PeerView

__all__ = ["ViewMaker"]

_number = attrgetter("number")


@dataclass(frozen=True, slots=True)
class _Origin:
    """The inputs of a host's part of the view, except spare capacity."""

    host: HostNode
    instances: InstancesNode | None
    chosen: Mapping[str, PluginVersion]
    is_leaving: bool
    served: frozenset[str]
    """Services for which others get new flows, because this host drains or has vanished."""
    moved: frozenset[int]
    """NF hosts whose state is elsewhere."""

    def is_same(self, other: _Origin) -> bool:
        """True if the result is the same; quick, so a "no" may also mean "perhaps"."""
        return (
            self.host is other.host
            and self.instances is other.instances
            and self.chosen is other.chosen
            and self.is_leaving == other.is_leaving
            and self.served == other.served
            and self.moved == other.moved
        )


class _Part:
    """The part that one host contributes to the view."""

    def __init__(
        self, name: str, origin: _Origin, spare_pps: Mapping[int, int], secret: str
    ) -> None:
        node = origin.host
        nodes = [
            one
            for one in (() if origin.instances is None else origin.instances.instances)
            if one.number not in origin.moved
        ]
        self.origin = origin
        self.peer = PeerView(name=name, number=node.number, address=node.address, secret=secret)
        self.capacities = {one.number: one.capacity_pps for one in nodes}
        self.views = [
            instance_view(
                one,
                name,
                origin.chosen,
                spare_pps.get(one.number, one.capacity_pps),
                is_leaving=origin.is_leaving
                or (bool(origin.served) and origin.served.issuperset(one.services)),
            )
            for one in nodes
        ]
        self.serves = (
            frozenset()
            if origin.is_leaving
            else frozenset(
                chain.from_iterable(one.services for one in nodes if one.state == "active")
            )
        )
        self.digest = digest_of((node.number, name, node.address)) + sum(
            digest_of_instance(one) for one in self.views
        )

    def price(self, spare_pps: Mapping[int, int]) -> bool:
        """Take over spare capacities; return True if one has changed."""
        has_changed = False
        for index, one in enumerate(self.views):
            now = spare_pps.get(one.number, self.capacities[one.number])
            if now != one.spare_pps:
                self.views[index] = msgspec.structs.replace(one, spare_pps=now)
                has_changed = True
        return has_changed


class ViewMaker:
    """Makes the views of one host.

    Args:
        secret_of: gives the secret shared with another host; the same for the same key.

    Attributes:
        digest: digest of the last view; "": none.
    """

    def __init__(self, host: str, secret_of: SecretOf = no_secret) -> None:
        self._host = host
        self._secret_of = secret_of
        self._counts = InstanceCounts()
        self._counted: dict[str, tuple[HostNode, InstancesNode | None]] = {}
        self._chosen: dict[str, PluginVersion] = {}
        self._parts: dict[str, _Part] = {}
        self._chains: dict[str, tuple[ChainNode, ChainView, int]] = {}
        self._spare_pps: Mapping[int, int] = {}
        self._instances: list[InstanceView] = []
        self.digest = ""

    def make(
        self, snapshot: Snapshot, spare_pps: Mapping[int, int], vanished: Collection[str] = ()
    ) -> ClusterView | None:
        """The view, equal to that of `make_view`."""
        me = snapshot.hosts.get(self._host)
        if me is None:
            return None
        self._count(snapshot)
        there = {
            name: node
            for name, node in snapshot.hosts.items()
            if node.state != "no_manager" or name == self._host
        }
        if self._follow(snapshot, there, spare_pps, vanished):
            self._instances = sorted(
                chain.from_iterable(self._parts[name].views for name in there), key=_number
            )
        successors = successors_of(snapshot)
        chains = self._follow_chains(snapshot, there)
        self.digest = digest_text(
            digest_of((snapshot.cluster.name, snapshot.cluster.vni, snapshot.cluster.data_security))
            + sum(part.digest for part in self._parts.values())
            + sum(digest_of(pair) for pair in successors.items())
            + sum(self._chains[one.name][2] for one in chains)
        )
        return ClusterView(
            cluster=snapshot.cluster.name,
            vni=snapshot.cluster.vni,
            data_security=snapshot.cluster.data_security,
            host=self._host,
            number=me.number,
            address=me.address,
            peers=sorted(
                (self._parts[name].peer for name in there if name != self._host), key=_number
            ),
            instances=self._instances,
            successors=sorted(successors.items()),
            chains=chains,
        )

    def _count(self, snapshot: Snapshot) -> None:
        has_changed = False
        for name in self._counted.keys() - snapshot.hosts.keys():
            self._counts.add(*self._counted.pop(name), -1)
            has_changed = True
        for name, host in snapshot.hosts.items():
            instances = snapshot.instances.get(name)
            known = self._counted.get(name)
            if known is not None and known[0] is host and known[1] is instances:
                continue
            if known is not None:
                self._counts.add(*known, -1)
            self._counts.add(host, instances)
            self._counted[name] = host, instances
            has_changed = True
        if has_changed:
            chosen = self._counts.plugin_versions()
            if chosen != self._chosen:  # an identical object has identical content
                self._chosen = chosen

    def _follow(
        self,
        snapshot: Snapshot,
        there: Mapping[str, HostNode],
        spare_pps: Mapping[int, int],
        vanished: Collection[str],
    ) -> bool:
        """Update the hosts' parts; return True if one has other instances than before."""
        gone = self._parts.keys() - there.keys()
        for name in gone:
            del self._parts[name]
        has_changed = bool(gone)
        is_priced = spare_pps == self._spare_pps
        self._spare_pps = spare_pps
        # Hosts that drain or have vanished come last: their state depends on the services of the
        # others.
        unsure = {*vanished, *snapshot.draining}
        moved = successors_of(snapshot)
        for name in sorted(there, key=lambda name: name in unsure) if unsure else there:
            node = there[name]
            origin = _Origin(
                node,
                snapshot.instances.get(name),
                self._chosen,
                node.state != "up",
                self._served(there, unsure) if name in unsure else frozenset(),
                self._moved(snapshot, name, moved),
            )
            part = self._parts.get(name)
            if part is None or not part.origin.is_same(origin):
                secret = "" if name == self._host else self._secret_of(node.key)
                self._parts[name] = _Part(name, origin, spare_pps, secret)
                has_changed = True
            elif not is_priced:
                has_changed |= part.price(spare_pps)
        return has_changed

    def _served(self, there: Mapping[str, HostNode], unsure: Collection[str]) -> frozenset[str]:
        return frozenset(
            chain.from_iterable(self._parts[name].serves for name in there if name not in unsure)
        )

    @staticmethod
    def _moved(snapshot: Snapshot, name: str, moved: Mapping[int, int]) -> frozenset[int]:
        if not moved or name not in snapshot.instances:
            return frozenset()
        return frozenset(
            one.number for one in snapshot.instances[name].instances if one.number in moved
        )

    def _follow_chains(self, snapshot: Snapshot, there: Collection[str]) -> list[ChainView]:
        for name in self._chains.keys() - snapshot.chains.keys():
            del self._chains[name]
        chains = []
        for name, node in snapshot.chains.items():
            known = self._chains.get(name)
            if known is None or known[0] is not node:
                view = chain_view(name, node)
                known = self._chains[name] = node, view, digest_of(view)
            if node.near.host in there and node.far.host in there:
                chains.append(known[1])
        return sorted(chains, key=lambda chain: chain.place)
