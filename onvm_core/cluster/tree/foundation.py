"""Making a cluster in an ensemble, and removing it."""

from __future__ import annotations

import contextlib
import random
import uuid
from typing import Any

from kazoo.exceptions import NodeExistsError, NoNodeError

from onvm_core.cluster.errors import ConflictError
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.nodes import ROOT, ClusterNode, Paths, check_name, pack
from onvm_core.manager.cluster_view.view import DataSecurity
from onvm_sdk.errors import ConfigError

__all__ = ["ensure_folders", "make_cluster", "remove_cluster"]


def make_cluster(
    ensemble: Ensemble, name: str, vni: int | None = None, data_security: DataSecurity = "auth"
) -> ClusterNode:
    """Make a cluster: all its folders, with our ACL, at once.

    Args:
        vni: VXLAN network identifier; None: a random one.
        data_security: protection of packets between hosts.

    Raises:
        ConfigError: a cluster of that name exists.
    """
    check_name(name, "--cluster")
    paths = Paths(name)
    node = ClusterNode(
        id=str(uuid.uuid4()),
        name=name,
        vni=random.randrange(1, 1 << 24) if vni is None else vni,
        data_security=data_security,
    )
    with (
        ensemble.call(f"make cluster {name!r}") as client,
        contextlib.suppress(NodeExistsError),  # of another cluster
    ):
        client.create(ROOT, b"")

    def build(transaction: Any) -> None:
        transaction.create(paths.root, pack(node))
        for folder in paths.folders:
            transaction.create(folder, b"")

    try:
        ensemble.commit(f"make cluster {name!r}", build)
    except ConflictError:
        raise ConfigError(
            f"expected a new name (ZooKeeper at {ensemble.hosts} has this one); to join it: "
            f"onvm cluster join {ensemble.hosts} --cluster {name}",
            field="--cluster",
            value=name,
        ) from None
    return node


def ensure_folders(ensemble: Ensemble, paths: Paths) -> None:
    """Make the folders of a cluster that an older version has not made."""
    with ensemble.call(f"join cluster {paths.cluster!r}") as client:
        found = [(folder, client.exists_async(folder)) for folder in paths.folders]
        for folder, result in found:
            if result.get() is None:
                with contextlib.suppress(NodeExistsError):
                    client.create(folder, b"")


def remove_cluster(ensemble: Ensemble, name: str) -> None:
    """Remove a cluster and all its data."""
    with ensemble.call(f"remove cluster {name!r}") as client:
        try:
            client.delete(Paths(name).root, recursive=True)
        except NoNodeError:
            raise ConfigError(
                "expected a cluster of that name", field="cluster", value=name
            ) from None
