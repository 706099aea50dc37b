"""From what stands in ZooKeeper to what a manager is told: pure functions.

Equal snapshots give equal views on all hosts, but for what is a host's own: who it is, and the
spare capacity it knows of. `digest` leaves these out.

What does not count:

* hosts without a manager, and all of their instances;
* instances that have handed their state to another: their flows are there (`heirs`);
* chains whose ends are not both on hosts that are there.

What gets no new flows, while running ones stay (``draining``):

* instances of hosts that leave;
* instances of hosts that drain, or have just vanished from ZooKeeper, where others serve as well: if
  nobody else does, one that is to end, or may be dead, is better than none, and its manager's peers
  know by their probes;
* instances of another edition of a plugin than that of the cluster, see `editions`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

import msgspec

from onvm_core.cluster.mirror import Snapshot
from onvm_core.cluster.tree import InstanceNode
from onvm_core.manager.view import ChainView, ClusterView, InstanceView, PeerView

__all__ = ["Edition", "digest", "editions", "heirs_of", "make_view", "mismatches"]

Edition = tuple[str, str]
"""Version and manifest digest of a plugin."""


def make_view(
    snapshot: Snapshot, host: str, spare_pps: Mapping[int, int], vanished: Collection[str] = ()
) -> ClusterView | None:
    """What the manager of `host` is to know; None when the host is not in the cluster.

    Args:
        spare_pps: what new flows may take, of NF hosts by number. Where it is not known, the
            capacity that was published stands in.
        vanished: hosts of the snapshot that are not in ZooKeeper any more.
    """
    me = snapshot.hosts.get(host)
    if me is None:
        return None
    there = {name: node for name, node in snapshot.hosts.items() if node.state != "no_manager"}
    there[host] = me
    chosen = editions(snapshot)

    heirs = heirs_of(snapshot)

    def leaves(name: str) -> bool:
        return there[name].state != "up"

    served = {
        service
        for name in there.keys() - set(vanished) - snapshot.draining.keys()
        if not leaves(name) and name in snapshot.instances
        for node in snapshot.instances[name].instances
        if node.state == "active" and node.number not in heirs
        for service in node.services
    }
    instances = [
        _instance(
            node,
            name,
            spare_pps,
            chosen,
            is_leaving=leaves(name)
            or (
                (name in vanished or name in snapshot.draining) and served.issuperset(node.services)
            ),
        )
        for name in there
        for node in (snapshot.instances[name].instances if name in snapshot.instances else ())
        if node.number not in heirs
    ]
    return ClusterView(
        cluster=snapshot.cluster.name,
        vni=snapshot.cluster.vni,
        host=host,
        number=me.number,
        address=me.address,
        peers=sorted(
            (
                PeerView(name=name, number=node.number, address=node.address)
                for name, node in there.items()
                if name != host
            ),
            key=lambda peer: peer.number,
        ),
        instances=sorted(instances, key=lambda instance: instance.number),
        heirs=sorted(heirs.items()),
        chains=sorted(
            (
                ChainView(
                    number=node.number, name=name, near=node.near, far=node.far,
                    services=node.services, bidirectional=node.bidirectional,
                    track_flows=node.track_flows, on_failure=node.on_failure, match=node.match,
                )
                for name, node in snapshot.chains.items()
                if node.near.host in there and node.far.host in there
            ),
            key=lambda chain: chain.number,
        ),
    )  # fmt: skip


def heirs_of(snapshot: Snapshot) -> dict[int, int]:
    """NF hosts that have handed their state to another, and to which."""
    return {
        number: heir
        for node in snapshot.instances.values()
        for number, heir in node.heirs
    }  # fmt: skip


def _instance(
    node: InstanceNode, host: str, spare_pps: Mapping[int, int],
    chosen: Mapping[str, Edition], *, is_leaving: bool,
) -> InstanceView:  # fmt: skip
    is_other = any(
        chosen.get(service, edition) != edition
        for service, edition in zip(node.services, node.editions, strict=False)
    )
    return InstanceView(
        number=node.number,
        host=host,
        name=node.name,
        services=node.services,
        state="draining" if is_leaving or is_other else node.state,
        spare_pps=spare_pps.get(node.number, node.capacity_pps),
        claims=node.claims,
    )


def editions(snapshot: Snapshot) -> dict[str, Edition]:
    """The edition of each service that the cluster runs.

    It is the one that most instances have; where none runs, the one that most hosts have
    installed. Of several the highest counts, so that all hosts come to the same.
    """
    running: dict[str, Counter[Edition]] = defaultdict(Counter)
    installed: dict[str, Counter[Edition]] = defaultdict(Counter)
    for name, host in snapshot.hosts.items():
        for plugin in host.plugins:
            installed[plugin.service][plugin.edition] += 1
        if name not in snapshot.instances or host.state == "no_manager":
            continue
        for instance in snapshot.instances[name].instances:
            for service, edition in zip(instance.services, instance.editions, strict=False):
                running[service][edition] += 1
    return {
        service: max((running[service] or counts).items(), key=lambda one: (one[1], one[0]))[0]
        for service, counts in sorted((installed | running).items())
    }


def mismatches(snapshot: Snapshot) -> list[str]:
    """Where hosts have not what the cluster runs, a line each."""
    chosen = editions(snapshot)
    wanted = {service for chain in snapshot.chains.values() for service in chain.services}
    lines = []
    for name, host in sorted(snapshot.hosts.items()):
        here = {plugin.service: plugin.edition for plugin in host.plugins}
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
    """Of what is equal on all hosts: 16 hexadecimal digits."""
    hosts = [
        *((peer.number, peer.name, peer.address) for peer in view.peers),
        (view.number, view.host, view.address),
    ]
    instances = [
        (one.number, one.host, one.name, one.services, one.state, one.claims)
        for one in view.instances
    ]
    text = msgspec.json.encode(
        [view.cluster, view.vni, sorted(hosts), instances, view.heirs, view.chains]
    )
    return hashlib.sha256(text).hexdigest()[:16]
