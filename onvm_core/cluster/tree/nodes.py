"""The nodes in ZooKeeper: their paths and their values.

/onvm/<cluster>                  the cluster itself; persistent
    names/<host>                 owner of a host name; persistent, until it leaves
    hosts/<host>                 ephemeral: a live agent and its host's resources
    instances/<host>             ephemeral: the NF hosts there, and free resources
    draining/<host>              a host that gets nothing new; persistent
    applied/<host>               ephemeral: the view that its manager has; only commands read it
    known/<host>                 what a host has published last; persistent, until it leaves
    left/<host>                  a host that has left; tells its agent, if that still runs
    chains/<name>                the desired chain; persistent, each with its own version
    services/<name>              how a service scales; persistent, each with its own version
    history/<kind>/<name>:<n>    each revision of a chain or service
    numbers/<kind>               the last number that was given out
    scale/requests/entries/<e>   the queue; the nodes of kazoo's LockingQueue
    scale/requests/taken/<e>     ephemeral: the host that works on it
    scale/outcomes/<key>         the outcome of a request
    leader/election-<n>          ephemeral, sequential: the lowest is the leader

All values are JSON with their ``format``. Unknown fields are ignored, so that hosts of two versions
can be in one cluster. A node that cannot be read is reported and left out, and never prevents the
others from being read.

Watches: an agent watches `names`, `hosts`, `draining`, `chains`, `services` and the queue's entries
for children, and the nodes in all but the first of them and in `instances` for data. Because a
host's NF hosts are one value, a dead host causes one event, and not one for each NF host.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from onvm_core.manager.chains.classifier import MatchConfig
from onvm_core.manager.cluster_view.view import ClaimView, DataSecurity, PortView
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = [
    "FORMAT",
    "AppliedNode",
    "ChainNode",
    "ClusterNode",
    "CounterNode",
    "DamagedError",
    "DrainNode",
    "HostNode",
    "InstanceNode",
    "InstancesNode",
    "KnownNode",
    "LeftNode",
    "NameNode",
    "OutcomeNode",
    "Paths",
    "PluginNode",
    "RequestNode",
    "ServiceNode",
    "check_name",
    "pack",
    "unpack",
]

FORMAT = 2
ROOT = "/onvm"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

Name = Annotated[str, msgspec.Meta(pattern=rf"^{NAME.pattern}$")]
Number = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0.01, le=1)]


class DamagedError(OnvmError):
    """The content of a node is not valid."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The paths of one cluster."""

    cluster: str

    @property
    def root(self) -> str:
        """The path of the cluster."""
        return posixpath.join(ROOT, self.cluster)

    def __getattr__(self, name: str) -> str:
        """``paths.hosts`` and so on: the folder of that name."""
        if name not in FOLDERS:
            raise AttributeError(name)
        return posixpath.join(self.root, FOLDERS[name])

    @property
    def folders(self) -> list[str]:
        """All folders that are made with the cluster, outer ones first."""
        return [posixpath.join(self.root, folder) for folder in FOLDERS.values()]


FOLDERS = {
    "names": "names",
    "hosts": "hosts",
    "instances": "instances",
    "draining": "draining",
    "applied": "applied",
    "known": "known",
    "left": "left",
    "chains": "chains",
    "services": "services",
    "history": "history",
    "chain_history": "history/chains",
    "service_history": "history/services",
    "numbers": "numbers",
    "leader": "leader",
    "scale": "scale",
    "requests": "scale/requests",
    "entries": "scale/requests/entries",
    "taken": "scale/requests/taken",
    "outcomes": "scale/outcomes",
}


class _Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The value of a node."""


class ClusterNode(_Node, frozen=True, kw_only=True):
    """The cluster itself."""

    id: Annotated[str, msgspec.Meta(min_length=8, max_length=64)]
    """Never the same for two clusters."""
    name: Name
    vni: Annotated[int, msgspec.Meta(ge=0, lt=1 << 24)]
    data_security: DataSecurity = "none"
    """Protection of packets between hosts. A cluster that an older version made has none."""


class NameNode(_Node, frozen=True, kw_only=True):
    """A host name and its owner."""

    number: Number
    proof: str
    """SHA-256 of the secret in the state directory of the agent that has the name."""
    key: str
    """Public CURVE key of its agent."""
    holder: str = ""
    """The run of the agent that registered last."""


class PluginNode(_Node, frozen=True, kw_only=True):
    """An NF that is installed on a host."""

    name: Name
    service: Name
    version: str
    digest: str
    """From its manifest."""
    cores: float = 1.0
    memory_mib: int = 0

    @property
    def plugin_version(self) -> tuple[str, str]:
        """The part that must be equal on hosts that share a service."""
        return self.version, self.digest


class HostNode(_Node, frozen=True, kw_only=True):
    """A live agent and its host."""

    number: Number
    address: str
    """Address on the data network."""
    control: str = ""
    """ZeroMQ endpoint of its agent; "": none."""
    state_server: str = ""
    """Endpoint at which its agent takes the state of NF hosts that move; "": none."""
    key: str = ""
    """Public CURVE key of its agent."""
    version: str
    state: Literal["up", "leaving", "no_manager"] = "up"
    cores: float = 0.0
    memory_mib: int = 0
    ports: list[Name] = []
    plugins: list[PluginNode] = []
    election_number: Count
    """Sequence number in the election; the lowest leads."""
    clock_skew_s: int = 0
    """Whole seconds by which its clock was ahead of ZooKeeper's when it registered."""
    boot: str = ""
    """State directory in one run of the kernel; tells a restarted agent from a copy elsewhere."""


class InstanceNode(_Node, frozen=True, kw_only=True):
    """An NF host: one instance, or several that are fused."""

    number: Number
    name: Name
    services: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=16)]
    plugin_versions: list[tuple[str, str]] = []
    """Version and manifest digest of the plugin of each, as it was when it was first seen."""
    state: Literal["active", "draining"] = "active"
    capacity_pps: Count = 0
    """Coarse; 0: not known yet."""
    claims: list[ClaimView] = []


class InstancesNode(_Node, frozen=True, kw_only=True):
    """The NF hosts of a host, and its free resources."""

    free_cores: float = 0.0
    """Not reserved."""
    free_memory_mib: int = 0
    others_cores: float = 0.0
    """Measured: CPUs that other programs use."""
    pressure: float = 0.0
    """Measured: share of the time in which some program waited for a CPU."""
    instances: list[InstanceNode] = []
    successors: list[tuple[Number, Number]] = []
    """NF hosts that have handed over their state to another host, with the NF hosts that have it.
    """


class KnownNode(_Node, frozen=True, kw_only=True):
    """The last facts of a host, which stay when its agent has no session."""

    host: HostNode
    instances: InstancesNode


class LeftNode(_Node, frozen=True, kw_only=True):
    """A host that was taken out of the cluster."""

    number: Number
    proof: str
    """That of the agent that had the name."""


class DrainNode(_Node, frozen=True, kw_only=True):
    """A host that gets nothing new."""

    since: float
    """Seconds since 1970."""
    numbers: list[Number] | None = None
    """NF hosts that were there then, and are to move; None: all. Others that start with the next
    manager, as configured, stay.
    """


class AppliedNode(_Node, frozen=True, kw_only=True):
    """The view that a manager has."""

    view: str
    """Digest of the view without the parts that belong to one host."""
    digest: str
    """Digest of the manager's tables."""
    missing: list[str] = []
    """The parts that it could not apply, one line each."""
    unheard: list[str] = []
    """Hosts whose load its agent has not heard of lately."""
    chains: list[int] = []
    """Numbers of the chains whose packets the manager takes from peers."""
    bound: list[int] = []
    """Those of them that its ports use."""


class ChainNode(_Node, frozen=True, kw_only=True):
    """The desired definition of a chain."""

    number: Annotated[int, msgspec.Meta(ge=1, le=(1 << 23) - 1)]
    revision: Annotated[int, msgspec.Meta(ge=1)]
    near: PortView
    far: PortView
    services: Annotated[list[Name], msgspec.Meta(max_length=8)]
    bidirectional: bool = True
    track_flows: bool = True
    on_failure: Literal["drop", "bypass", "wait"] = "drop"
    match: list[MatchConfig] | None = None
    formers: list[ChainNode] = []
    """Its earlier definitions, newest first; packets on their way may have their numbers."""
    is_staged: bool = False
    """True while ports use the newest of `formers`, because not all hosts know the new one yet."""
    order: int = 0
    """Number that it had first: its `match` comes before those of chains with higher ones."""

    def has_same_way(self, other: ChainNode) -> bool:
        """True if packets go the same way, so that both can have one number."""
        return _way(self) == _way(other)


def _way(node: ChainNode) -> tuple[object, ...]:
    ends = node.near, node.far
    return *ends, node.services, node.bidirectional, node.match is None


class ServiceNode(_Node, frozen=True, kw_only=True):
    """The desired scaling of a service over the cluster."""

    revision: Annotated[int, msgspec.Meta(ge=1)]
    min: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 1
    max: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 8
    target: Share = 0.7
    hysteresis: Annotated[float, msgspec.Meta(ge=0.05, le=0.95)] = 0.2
    out_after_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.2
    in_after_s: Annotated[float, msgspec.Meta(ge=0.1, le=86400)] = 30.0
    cooldown_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 2.0
    request_s: Annotated[float, msgspec.Meta(ge=0.1, le=86400)] = 30.0
    """A request that is not served within this time expires."""
    policy: Name = "utilisation"
    options: dict[str, Any] = {}
    placement: Name = "locality"
    """Name of the policy that chooses the host of a new instance."""


class RequestNode(_Node, frozen=True, kw_only=True):
    """The wish for one more instance, in the queue."""

    key: Name
    """For idempotency: a second request with the same key has no effect."""
    service: Name
    reason: str
    preferred: list[Name] = []
    """Preferred hosts; the overloaded one comes first."""
    deadline: float
    """Seconds since 1970, by the clock of the host that asks; only older versions act on it."""
    made: float
    """By the same clock."""
    within_s: float = 0.0
    """It expires when the leader has seen it for so long; 0: between `made` and `deadline`."""
    placement: Name = "locality"
    stop: str = ""
    """The request is for one instance less: this instance, of the preferred host."""
    refused: dict[str, str] = {}
    """Hosts that have tried and failed, with the reasons."""

    @property
    def patience_s(self) -> float:
        """The time after which it expires, in seconds."""
        return self.within_s or max(self.deadline - self.made, 0.0)


class OutcomeNode(_Node, frozen=True, kw_only=True):
    """The outcome of a request; kept for a while after its end."""

    state: Literal["waiting", "done", "expired"]
    service: Name
    reason: str
    made: float
    ended: float | None = None
    host: str | None = None
    instance: str | None = None
    why: str = ""
    """The reason why it is not served yet, or was not served."""


class CounterNode(_Node, frozen=True, kw_only=True):
    """The last number that was given out."""

    last: Count
    laps: Count = 0
    """Number of times it has wrapped around; before the first, the next number cannot be in use."""


NodeT = TypeVar("NodeT", bound=_Node)


class _Head(msgspec.Struct, frozen=True):
    format: int


_HEAD = b'{"format":%d,' % FORMAT
"""The bytes with which `pack` begins."""
_decoders: dict[type[_Node], msgspec.json.Decoder[Any]] = {}
_head = msgspec.json.Decoder(_Head)


def pack(node: _Node) -> bytes:
    """Write a value."""
    return msgspec.json.encode({"format": FORMAT, **msgspec.to_builtins(node)})


def unpack(data: bytes, kind: type[NodeT]) -> NodeT:
    """Read a value.

    Raises:
        DamagedError: it is not a value, or its format is not known here.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        # Reading the nodes of hundreds of hosts should parse each only once.
        found = FORMAT if data.startswith(_HEAD) else _head.decode(data).format
        if found != FORMAT:
            raise DamagedError(
                f"format {found}: expected {FORMAT}; is it of another version of onvm?"
            )
        node: NodeT = decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(" ".join(str(error).split())) from None
    return node


def check_name(name: str, field: str) -> str:
    """Check a name for use in the tree.

    Raises:
        ConfigError: it is not valid.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            "expected 1 to 63 letters, digits, '_', '.' or '-', a letter or digit first",
            field=field,
            value=name,
        )
    return name
