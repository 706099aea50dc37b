"""The view for a manager, made from the nodes in ZooKeeper: pure functions.

Equal snapshots give equal views on all hosts, except for the parts that belong to one host: its
identity, and the spare capacity it knows of. `digest` leaves these out. `make_view` defines a view.
Agents use `view_maker`, which gives the same result and keeps unchanged parts.

Not part of the view:

* hosts without a manager, and all of their instances;
* instances that have handed over their state: their flows are at the successor (`successors`);
* chains with an end on a host that is not there.

Without new flows, while running ones stay (``draining``):

* instances of hosts that leave;
* instances of hosts that drain, or have just vanished from ZooKeeper, where others serve as well:
  if no other does, an instance that will end, or may be dead, is better than none, and its
  manager's peers detect a dead one by their probes;
* instances of another version of a plugin than that of the cluster, see `plugin_versions`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping

import msgspec

from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import ChainNode, HostNode, InstanceNode, InstancesNode
from onvm_core.manager.cluster_view.view import ChainView, ClusterView, InstanceView, PeerView

__all__ = [
    "InstanceCounts",
    "PluginVersion",
    "SecretOf",
    "chain_view",
    "digest",
    "digest_of",
    "digest_of_instance",
    "digest_text",
    "instance_view",
    "make_view",
    "mismatches",
    "no_secret",
    "plugin_versions",
    "successors_of",
]

DIGEST_BYTES = 8

PluginVersion = tuple[str, str]
"""Version and manifest digest of a plugin."""
SecretOf = Callable[[str], str]
"""From a host's public CURVE key to the secret shared with it; "": there is none."""


def no_secret(key: str) -> str:
    """The secret of two hosts of a cluster without security."""
    del key
    return ""


def make_view(
    snapshot: Snapshot,
    host: str,
    spare_pps: Mapping[int, int],
    vanished: Collection[str] = (),
    secret_of: SecretOf = no_secret,
) -> ClusterView | None:
    """The view for the manager of `host`; None if the host is not in the cluster.

    Args:
        spare_pps: capacity for new flows, of NF hosts by number. Where it is not known, the
            published capacity is used.
        vanished: hosts of the snapshot that are no longer in ZooKeeper.
        secret_of: gives the secret shared with another host.
    """
    me = snapshot.hosts.get(host)
    if me is None:
        return None
    there = {name: node for name, node in snapshot.hosts.items() if node.state != "no_manager"}
    there[host] = me
    chosen = plugin_versions(snapshot)

    successors = successors_of(snapshot)

    def leaves(name: str) -> bool:
        return there[name].state != "up"

    served = {
        service
        for name in there.keys() - set(vanished) - snapshot.draining.keys()
        if not leaves(name) and name in snapshot.instances
        for node in snapshot.instances[name].instances
        if node.state == "active" and node.number not in successors
        for service in node.services
    }
    instances = [
        instance_view(
            node,
            name,
            chosen,
            spare_pps.get(node.number, node.capacity_pps),
            is_leaving=leaves(name)
            or (
                (name in vanished or name in snapshot.draining) and served.issuperset(node.services)
            ),
        )
        for name in there
        for node in (snapshot.instances[name].instances if name in snapshot.instances else ())
        if node.number not in successors
    ]
    return ClusterView(
        cluster=snapshot.cluster.name,
        vni=snapshot.cluster.vni,
        data_security=snapshot.cluster.data_security,
        host=host,
        number=me.number,
        address=me.address,
        peers=sorted(
            (
                PeerView(
                    name=name, number=node.number, address=node.address, secret=secret_of(node.key)
                )
                for name, node in there.items()
                if name != host
            ),
            key=lambda peer: peer.number,
        ),
        instances=sorted(instances, key=lambda instance: instance.number),
        successors=sorted(successors.items()),
        chains=sorted(
            (
                chain_view(name, node)
                for name, node in snapshot.chains.items()
                if node.near.host in there and node.far.host in there
            ),
            key=lambda chain: chain.place,
        ),
    )


def chain_view(name: str, node: ChainNode) -> ChainView:
    """A chain in the view."""
    return ChainView(
        number=node.number,
        name=name,
        near=node.near,
        far=node.far,
        services=node.services,
        bidirectional=node.bidirectional,
        track_flows=node.track_flows,
        on_failure=node.on_failure,
        match=node.match,
        formers=[chain_view(name, former) for former in node.formers],
        is_staged=node.is_staged,
        order=node.order,
    )


def successors_of(snapshot: Snapshot) -> dict[int, int]:
    """NF hosts that have handed over their state, and the NF hosts that have it."""
    return {
        number: successor
        for node in snapshot.instances.values()
        for number, successor in node.successors
    }


def instance_view(
    node: InstanceNode,
    host: str,
    chosen: Mapping[str, PluginVersion],
    spare_pps: int,
    *,
    is_leaving: bool,
) -> InstanceView:
    """An NF host in the view."""
    is_other = any(
        chosen.get(service, plugin_version) != plugin_version
        for service, plugin_version in zip(node.services, node.plugin_versions, strict=False)
    )
    return InstanceView(
        number=node.number,
        host=host,
        name=node.name,
        services=node.services,
        state="draining" if is_leaving or is_other else node.state,
        spare_pps=spare_pps,
        claims=node.claims,
    )


class InstanceCounts:
    """The plugin versions of each service on each host, and the versions that the cluster runs."""

    def __init__(self) -> None:
        self._running: dict[str, Counter[PluginVersion]] = defaultdict(Counter)
        self._installed: dict[str, Counter[PluginVersion]] = defaultdict(Counter)

    def add(self, host: HostNode, instances: InstancesNode | None, count: int = 1) -> None:
        """Count a host; with a `count` of -1, remove it again."""
        for plugin in host.plugins:
            _count(self._installed, plugin.service, plugin.plugin_version, count)
        if instances is None or host.state == "no_manager":
            return
        for instance in instances.instances:
            for service, plugin_version in zip(
                instance.services, instance.plugin_versions, strict=False
            ):
                _count(self._running, service, plugin_version, count)

    def plugin_versions(self) -> dict[str, PluginVersion]:
        """See `plugin_versions`."""
        return {
            service: max(
                (self._running.get(service) or self._installed[service]).items(),
                key=lambda one: (one[1], one[0]),
            )[0]
            for service in sorted(self._installed.keys() | self._running.keys())
        }


def _count(
    counts: dict[str, Counter[PluginVersion]],
    service: str,
    plugin_version: PluginVersion,
    count: int,
) -> None:
    counter = counts[service]
    counter[plugin_version] += count
    if not counter[plugin_version]:
        del counter[plugin_version]
        if not counter:
            del counts[service]


def plugin_versions(snapshot: Snapshot) -> dict[str, PluginVersion]:
    """The plugin version of each service that the cluster runs.

    It is the version that most instances have or, if none runs, the one that most hosts have
    installed. In a tie the highest counts, so that all hosts come to the same result.
    """
    counts = InstanceCounts()
    for name, host in snapshot.hosts.items():
        counts.add(host, snapshot.instances.get(name))
    return counts.plugin_versions()


def mismatches(snapshot: Snapshot) -> list[str]:
    """One line for each host whose versions differ from those that the cluster runs."""
    chosen = plugin_versions(snapshot)
    wanted = {service for chain in snapshot.chains.values() for service in chain.services}
    lines = []
    for name, host in sorted(snapshot.hosts.items()):
        here = {plugin.service: plugin.plugin_version for plugin in host.plugins}
        for service in sorted(wanted):
            if service not in chosen:
                continue
            version, manifest = chosen[service]
            if service not in here:
                lines.append(f"{name}: has no NF for {service}; it is not chosen for it")
            elif here[service] != chosen[service]:
                other, digest_ = here[service]
                what = other if other != version else f"{other} with manifest {digest_[:8]}"
                right = version if other != version else f"manifest {manifest[:8]}"
                lines.append(
                    f"{name}: has {service} {what}, the cluster runs {right}; "
                    "it is not chosen for it"
                )
    return lines


def digest(view: ClusterView) -> str:
    """Digest of the parts that are equal on all hosts: 16 hexadecimal digits."""
    hosts = [(peer.number, peer.name, peer.address) for peer in view.peers]
    return digest_text(
        digest_of((view.cluster, view.vni, view.data_security))
        + sum(digest_of(host) for host in [*hosts, (view.number, view.host, view.address)])
        + sum(digest_of_instance(one) for one in view.instances)
        + sum(digest_of(pair) for pair in view.successors)
        + sum(digest_of(chain) for chain in view.chains)
    )


# The digest is a sum over the parts of a view, so a change of one part needs no look at the
# others.


def digest_of(part: object) -> int:
    """Digest of one part, as JSON."""
    data = msgspec.json.encode(part)
    return int.from_bytes(hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest(), "big")


def digest_of_instance(one: InstanceView) -> int:
    """The part of an NF host that is equal on all hosts."""
    return digest_of((one.number, one.host, one.name, one.services, one.state, one.claims))


def digest_text(total: int) -> str:
    """The digest as text, made from the sum of all parts."""
    return f"{total % (1 << 8 * DIGEST_BYTES):0{2 * DIGEST_BYTES}x}"
