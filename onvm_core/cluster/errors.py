"""Errors between an agent and its cluster.

OnvmError
├── ClusterError           cannot be done now; a retry may help
│   ├── NoEnsembleError    ZooKeeper does not answer, or refuses us
│   └── ConflictError      another process has changed it meanwhile
└── ConfigError
    ├── NameTakenError     another agent has the name
    ├── FencedError        another agent has taken the name over
    │   └── RemovedError   the name was taken out of the cluster
    └── NoClusterError     the ensemble has no such cluster, or it is another one
        └── LostClusterError   the ensemble has lost the cluster that this host has joined
"""

from __future__ import annotations

from onvm_sdk.errors import ConfigError, OnvmError

__all__ = [
    "ClusterError",
    "ConflictError",
    "FencedError",
    "LostClusterError",
    "NameTakenError",
    "NoClusterError",
    "NoEnsembleError",
    "RemovedError",
]


class ClusterError(OnvmError):
    """The operation cannot be done now."""


class NoEnsembleError(ClusterError):
    """ZooKeeper does not answer, or does not accept this user."""


class ConflictError(ClusterError):
    """Another process has changed it meanwhile."""


class NameTakenError(ConfigError):
    """Another agent has the name."""


class FencedError(ConfigError):
    """Another agent has taken over this one's name while it was away; it must not go on."""


class RemovedError(FencedError):
    """This host's name was removed from the cluster."""


class NoClusterError(ConfigError):
    """The ensemble has no such cluster, or it is another cluster of that name."""


class LostClusterError(NoClusterError):
    """The ensemble has lost the cluster that this host has joined; it may get it back."""
