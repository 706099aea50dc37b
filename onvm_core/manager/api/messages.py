"""What is said on the control socket: requests, replies and events.

`codec` writes them as bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from onvm_core.dataplane.limits import CHAIN_LENGTH_MAX
from onvm_core.export.report import Report
from onvm_core.export.runner import ExporterReport
from onvm_core.manager.api.state_messages import (
    NfDrainRequest,
    StateDoneRequest,
    StateGivenRequest,
    StateGiveRequest,
    StateReadRequest,
    StateReply,
    StateTakeRequest,
)
from onvm_core.manager.chains.classifier import MatchConfig
from onvm_core.manager.cluster_view.view import ClusterView, LocalHost, LocalResources, PeerStatus
from onvm_core.manager.cluster_view.view_change import ViewChange
from onvm_core.manager.startup.times import Startup
from onvm_core.scaling.autoscaler import Decision
from onvm_sdk.limits import NAME_LENGTH

__all__ = [
    "ErrorReply",
    "Event",
    "Reply",
    "Request",
]

FLOWS_MAX = 100_000

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH - 1)]
Limit = Annotated[int, msgspec.Meta(ge=0, le=FLOWS_MAX)]


class _Tagged(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"
):
    """A message with its kind in the field ``type``."""


# ---- requests ----


class StatusRequest(_Tagged, frozen=True, tag="status"):
    """Everything that `Status` has."""


class DownRequest(_Tagged, frozen=True, tag="down"):
    """Drain, report and end."""

    keep_nfs: bool = False
    """Leave the NFs to the next manager."""


class NfRunRequest(_Tagged, frozen=True, tag="nf_run"):
    """Start an instance."""

    name: Name
    """A table of the file, or an installed NF."""
    config: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    """Absolute path of a configuration file."""
    launcher: Name | None = None
    """None: that of the NF's table."""
    instance: Annotated[int, msgspec.Meta(ge=1, le=9999)] | None = None


class NfStopRequest(_Tagged, frozen=True, tag="nf_stop"):
    """Let instances finish and leave."""

    name: Name
    """An instance, or a service: all of it."""


class InstancesRequest(_Tagged, frozen=True, tag="instances"):
    """The launched NFs alone: cheap."""


class ChainListRequest(_Tagged, frozen=True, tag="chain_list"):
    """All chains."""


class ChainAddRequest(_Tagged, frozen=True, tag="chain_add"):
    """Add a chain, or change the one of that name."""

    name: Name
    near: Name
    far: Name
    services: Annotated[list[Name], msgspec.Meta(max_length=CHAIN_LENGTH_MAX)]
    bidirectional: bool = True
    track_flows: bool = True
    on_failure: Literal["drop", "bypass", "wait"] = "drop"


class ChainRemoveRequest(_Tagged, frozen=True, tag="chain_remove"):
    """Remove a chain."""

    name: Name


class ChainShowRequest(_Tagged, frozen=True, tag="chain_show"):
    """A chain and the paths that its flows take."""

    name: Name


class FlowListRequest(_Tagged, frozen=True, tag="flow_list"):
    """Flows of the flow table."""

    limit: Limit = 1000


class SendRequest(_Tagged, frozen=True, tag="send"):
    """A message to an instance, or to all instances of a service."""

    name: Name
    message: Annotated[str, msgspec.Meta(max_length=16000)]


class ScaleRequest(_Tagged, frozen=True, tag="scale"):
    """Have so many instances of a service."""

    service: Name
    instances: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    """None: as many as its policy wants."""


class ScaleStatusRequest(_Tagged, frozen=True, tag="scale_status"):
    """Services that are scaled, and why."""


class CaptureStartRequest(_Tagged, frozen=True, tag="capture_start"):
    """Copy packets that pass a port or an NF into a file."""

    name: Name
    """A port, an instance, or a service: all of it."""
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    limit: Annotated[int, msgspec.Meta(ge=0)] = 0
    snap_length: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    direction: Literal["in", "out", "both"] = "both"


class CaptureReadRequest(_Tagged, frozen=True, tag="capture_read"):
    """How far a capture is."""

    number: int


class CaptureStopRequest(_Tagged, frozen=True, tag="capture_stop"):
    """End a capture."""

    number: int


class ClusterApplyRequest(_Tagged, frozen=True, tag="cluster_apply"):
    """Make the tables what a view of the cluster says."""

    view: ClusterView | None
    """None: leave the cluster."""


class ClusterChangeRequest(_Tagged, frozen=True, tag="cluster_change"):
    """The same, for a manager that has the view before."""

    revision: int
    """Of the view that the change is to, as the manager has said."""
    change: ViewChange


class ClusterLocalRequest(_Tagged, frozen=True, tag="cluster_local"):
    """What the cluster is to know of this manager; cheap."""


Request = (
    StatusRequest
    | DownRequest
    | NfRunRequest
    | NfStopRequest
    | InstancesRequest
    | ChainListRequest
    | ChainAddRequest
    | ChainRemoveRequest
    | ChainShowRequest
    | FlowListRequest
    | SendRequest
    | ScaleRequest
    | ScaleStatusRequest
    | CaptureStartRequest
    | CaptureReadRequest
    | CaptureStopRequest
    | ClusterApplyRequest
    | ClusterChangeRequest
    | ClusterLocalRequest
    | NfDrainRequest
    | StateTakeRequest
    | StateReadRequest
    | StateDoneRequest
    | StateGiveRequest
    | StateGivenRequest
)


# ---- replies ----


class LaunchedNf(msgspec.Struct, frozen=True):
    """An NF host that the manager looks after."""

    nfs: list[str]
    instances: list[str]
    launcher: str
    state: str
    """starting, standby, active, draining; waiting: it died and is started again in a while;
    crash-loop: the same, after so many deaths that the delay is long."""
    pid: int
    cpus: list[int]
    """Those it may run on; empty: any."""
    restarts: int
    reason: str
    """How it ended last; of one that drains, why its state was not handed over."""
    log: str
    log_tail: list[str]
    """Last lines of one that has failed."""


class ChainReply(_Tagged, frozen=True, tag="chain"):
    """A chain."""

    name: str
    near: str
    far: str
    services: list[str]
    bidirectional: bool
    track_flows: bool
    state: str
    """active, waiting for a service that has no instance, or bypassing one that has none."""
    on_failure: str = "drop"
    match: list[MatchConfig] | None = None
    """Flows that take it where another chain has the port; None: it has the port."""


class StatusReply(_Tagged, frozen=True, tag="status"):
    """A manager at one moment."""

    name: str
    pid: int
    version: str
    state: str
    """starting, or ready."""
    uptime_s: float
    launched: list[LaunchedNf]
    chains: list[ChainReply]
    report: Report
    exporters: list[ExporterReport] = []
    warnings: list[str] = []
    """What this host does not let the manager do; a line for each."""
    peers: list[PeerStatus] = []
    """Other hosts of the cluster."""
    crossing: float | None = None
    """Share of hops that led to another host: packets sent to peers, of those and of what NFs
    here got; None: there was none."""
    startup: Startup | None = None
    """How long the parts of its start took."""


class DownReply(_Tagged, frozen=True, tag="down"):
    """The last counters."""

    is_drained: bool
    report: Report


class InstancesReply(_Tagged, frozen=True, tag="instances"):
    """NFs that were started or stopped, or all."""

    launched: list[LaunchedNf]


class ChainsReply(_Tagged, frozen=True, tag="chains"):
    """All chains."""

    chains: list[ChainReply]


class Hop(msgspec.Struct, frozen=True):
    """One hop of a path; SI as it is when the packet comes to the instance (RFC 8300)."""

    si: int
    service: str
    instance: str


class Path(msgspec.Struct, frozen=True):
    """A rendered service path that flows take."""

    spi: int
    is_reverse: bool
    flows: int
    hops: list[Hop]


class ChainShowReply(_Tagged, frozen=True, tag="chain_show"):
    """A chain and its paths."""

    chain: ChainReply
    paths: list[Path]
    flows_seen: int
    """Flows that were looked at for them."""


class Flow(msgspec.Struct, frozen=True):
    """One direction of one flow."""

    src: str
    src_port: int
    dst: str
    dst_port: int
    protocol: int
    vlan: int
    port: str
    chain: str
    spi: int
    is_reverse: bool
    instances: list[str]
    idle_s: float


class FlowsReply(_Tagged, frozen=True, tag="flows"):
    """Some of the flows."""

    total: int
    flows: list[Flow]


class CaptureReply(_Tagged, frozen=True, tag="capture"):
    """A capture; counts are packets."""

    number: int
    path: str
    points: list[str]
    captured: int
    written: int
    overflow: int
    is_full: bool


class ScaleReply(_Tagged, frozen=True, tag="scale"):
    """What was done; nothing when a service is left to its policy."""

    decision: Decision | None = None


class ScaledService(msgspec.Struct, frozen=True):
    """A service that is scaled; instances by their states."""

    service: str
    mode: str
    """auto, or manual: a command has set the number."""
    min: int
    max: int
    target: float
    standby_wanted: int
    serving: int
    starting: int
    failing: int
    standby: int
    draining: int
    utilisation: float | None
    """Mean at the last reading; None when there is none."""
    demand: float | None
    """Instances it would take at full utilisation."""


class ScaleStatusReply(_Tagged, frozen=True, tag="scale_status"):
    """Services and decisions, oldest first."""

    services: list[ScaledService]
    decisions: list[Decision]


class ClusterReply(_Tagged, frozen=True, tag="cluster"):
    """A view was applied."""

    digest: str
    """Of the tables as they are: equal on all hosts that have equal views."""
    missing: list[str] = []
    """What could not be applied, a line each."""
    revision: int = 0
    """Of the view, for a `ClusterChangeRequest`; unique, across managers too."""


class ClusterLocalReply(_Tagged, frozen=True, tag="cluster_local"):
    """A manager as its cluster is to know it."""

    hosts: list[LocalHost]
    ports: list[str]
    peers: list[PeerStatus]
    digest: str
    """As of `ClusterReply`; "" without a cluster."""
    drops: dict[str, int] = {}
    """Of packets between hosts, by reason."""
    resources: LocalResources | None = None
    reserved: list[str] = []
    """Instance names that are not free, though nothing here has them."""


class DoneReply(_Tagged, frozen=True, tag="done"):
    """It is done; `count` of the things asked for."""

    count: int = 1


class ErrorReply(_Tagged, frozen=True, tag="error"):
    """It is not done, and why."""

    message: str


Reply = (
    StatusReply
    | DownReply
    | InstancesReply
    | ChainsReply
    | ChainReply
    | ChainShowReply
    | FlowsReply
    | DoneReply
    | CaptureReply
    | ScaleReply
    | ScaleStatusReply
    | ClusterReply
    | ClusterLocalReply
    | StateReply
    | ErrorReply
)


# ---- events ----


class NfEvent(_Tagged, frozen=True, tag="nf"):
    """An NF host has attached, stands by, serves, drains, is gone, has failed (crash-loop: again
    and again)."""

    instances: list[str]
    state: str
    pid: int
    reason: str = ""


class ChainEvent(_Tagged, frozen=True, tag="chain"):
    """A chain was added, changed or removed; it bypasses services, or is whole again."""

    name: str
    action: str


class ManagerEvent(_Tagged, frozen=True, tag="manager"):
    """The manager is ready, or ends."""

    state: str


Event = NfEvent | ChainEvent | ManagerEvent
