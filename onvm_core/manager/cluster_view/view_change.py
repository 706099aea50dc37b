"""The difference between one view of the cluster and the next, so that only changes are sent.

The old view and the change give the new one; with `ViewTables` a manager keeps a view that changes
often. Peers and chains are known by their names, NF hosts by their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, TypeVar

import msgspec

from onvm_core.manager.cluster_view.view import (
    ChainView,
    ClusterView,
    InstanceView,
    Name,
    Number,
    PeerView,
)
from onvm_sdk.errors import ConfigError

__all__ = ["ViewChange", "ViewTables", "difference"]

Pps = Annotated[int, msgspec.Meta(ge=0)]

KeyT = TypeVar("KeyT", str, int)
ValueT = TypeVar("ValueT")


class ViewChange(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The parts that a view has gained and lost since the previous one."""

    peers: list[PeerView] = []
    """Parts that are new or have changed."""
    peers_gone: list[Name] = []
    instances: list[InstanceView] = []
    instances_gone: list[Number] = []
    spare_pps: list[tuple[Number, Pps]] = []
    """New spare capacity of NF hosts of which nothing else has changed."""
    chains: list[ChainView] = []
    chains_gone: list[Name] = []


class ViewTables:
    """A view, by names and numbers.

    Args:
        view: the view to begin with.
    """

    def __init__(self, view: ClusterView) -> None:
        self._head = view
        self._view: ClusterView | None = view
        self._peers = {peer.name: peer for peer in view.peers}
        self._instances = {one.number: one for one in view.instances}
        self._chains = {chain.name: chain for chain in view.chains}

    def change(self, change: ViewChange) -> None:
        """Apply a change, which gives the next view.

        Raises:
            ConfigError: the change does not apply to this view; nothing was done.
        """
        _check("peer", change.peers_gone, self._peers)
        _check("NF host", change.instances_gone, self._instances)
        _check("NF host", (number for number, _ in change.spare_pps), self._instances)
        _check("chain", change.chains_gone, self._chains)
        self._view = None
        for name in change.peers_gone:
            del self._peers[name]
        for number in change.instances_gone:
            del self._instances[number]
        for chain_name in change.chains_gone:
            del self._chains[chain_name]
        self._peers.update((peer.name, peer) for peer in change.peers)
        self._instances.update((one.number, one) for one in change.instances)
        for number, spare_pps in change.spare_pps:
            one = self._instances[number]
            self._instances[number] = msgspec.structs.replace(one, spare_pps=spare_pps)
        self._chains.update((chain.name, chain) for chain in change.chains)

    @property
    def view(self) -> ClusterView:
        """The view as it is now."""
        if self._view is None:
            self._view = msgspec.structs.replace(
                self._head,
                peers=sorted(self._peers.values(), key=lambda peer: peer.number),
                instances=sorted(self._instances.values(), key=lambda one: one.number),
                chains=sorted(self._chains.values(), key=lambda chain: chain.place),
            )
        return self._view


def difference(old: ClusterView, new: ClusterView) -> ViewChange | None:
    """The change that turns `old` into `new`; None if only the whole view can express it.

    Parts that two views share (the same object) are not compared: this is quick for views that
    `onvm_core.cluster.view.view_maker` has made.
    """
    if _head(old) != _head(new):
        return None
    peers = _changed(
        {peer.name: peer for peer in old.peers}, {peer.name: peer for peer in new.peers}
    )
    chains = _changed(
        {chain.name: chain for chain in old.chains}, {chain.name: chain for chain in new.chains}
    )
    instances: list[InstanceView] = []
    gone: list[int] = []
    spare_pps: list[tuple[int, int]] = []
    if old.instances is not new.instances:
        known = {one.number: one for one in old.instances}
        now = {one.number: one for one in new.instances}
        if len(known) != len(old.instances) or len(now) != len(new.instances):
            return None  # two parts with one number: damaged nodes
        gone = [number for number in known if number not in now]
        for number, one in now.items():
            before = known.get(number)
            if before is one or before == one:
                continue
            if (
                before is not None
                and msgspec.structs.replace(before, spare_pps=one.spare_pps) == one
            ):
                spare_pps.append((number, one.spare_pps))
            else:
                instances.append(one)
    return ViewChange(
        peers=peers[0],
        peers_gone=peers[1],
        instances=instances,
        instances_gone=gone,
        spare_pps=spare_pps,
        chains=chains[0],
        chains_gone=chains[1],
    )


def _head(view: ClusterView) -> tuple[object, ...]:
    return (
        view.cluster,
        view.vni,
        view.data_security,
        view.host,
        view.number,
        view.address,
        view.successors,
    )


def _changed(
    old: Mapping[str, ValueT], new: Mapping[str, ValueT]
) -> tuple[list[ValueT], list[str]]:
    return (
        [value for name, value in new.items() if old.get(name) != value],
        [name for name in old if name not in new],
    )


def _check(noun: str, keys: Iterable[KeyT], known: Mapping[KeyT, object]) -> None:
    for key in keys:
        if key not in known:
            raise ConfigError(f"expected a {noun} of the view", field="change", value=key)
