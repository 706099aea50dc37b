"""The messages of the control socket: requests, replies and events.

`codec` writes them as bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from onvm_core.dataplane.limits import CHAIN_LENGTH_MAX
from onvm_core.export.report import Report
from onvm_core.export.runner import ExporterReport
from onvm_core.manager.api.config_messages import (
    ChangeReply,
    ChangeStateRequest,
    ReconfigureRequest,
    ReloadRequest,
)
from onvm_core.manager.api.question_messages import (
    ListMoreRequest,
    ListRequest,
    QuestionReply,
)
from onvm_core.manager.api.state_messages import (
    NfDrainRequest,
    NfReplaceRequest,
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
    """Ask for everything in `Status`."""


class DownRequest(_Tagged, frozen=True, tag="down"):
    """Drain the NFs, report and end."""

    keep_nfs: bool = False
    """End, and leave the NFs to the next manager."""


class NfRunRequest(_Tagged, frozen=True, tag="nf_run"):
    """Start an instance."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    """Name of a table in the file, or of an installed NF, or ``FILE.py:Class``."""
    config: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    """Absolute path of a configuration file."""
    launcher: Name | None = None
    """None: the launcher in the NF's table."""
    instance: Annotated[int, msgspec.Meta(ge=1, le=9999)] | None = None


class NfStopRequest(_Tagged, frozen=True, tag="nf_stop"):
    """Let instances finish their work and leave."""

    name: Name
    """An instance, or a service, which stands for all its instances."""


class InstancesRequest(_Tagged, frozen=True, tag="instances"):
    """Ask for the launched NFs alone; cheap."""


class ChainListRequest(_Tagged, frozen=True, tag="chain_list"):
    """Ask for all chains."""


class ChainAddRequest(_Tagged, frozen=True, tag="chain_add"):
    """Add a chain, or change the chain of that name."""

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
    """Ask for a chain and the paths that its flows take."""

    name: Name


class FlowListRequest(_Tagged, frozen=True, tag="flow_list"):
    """Ask for flows of the flow table."""

    limit: Limit = 1000
    filter: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    """As in pcap-filter(7), for packets of the flow; "": all flows."""


class EventsRequest(_Tagged, frozen=True, tag="events"):
    """Ask for the last events; cheap."""

    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Only those with a greater number."""


class AskRequest(_Tagged, frozen=True, tag="ask"):
    """Send a message to an instance, or to all instances of a service, that may reply."""

    name: Name
    message: Annotated[str, msgspec.Meta(max_length=16000)]


class AnswersRequest(_Tagged, frozen=True, tag="answers"):
    """Ask for the replies so far."""

    question: int
    """The number in `AskedReply`."""


class ScaleRequest(_Tagged, frozen=True, tag="scale"):
    """Set the number of instances of a service."""

    service: Name
    instances: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    """None: as many as the scaling policy wants."""


class ScaleStatusRequest(_Tagged, frozen=True, tag="scale_status"):
    """Ask for the services that are scaled, and for the decisions and their reasons."""


class CaptureStartRequest(_Tagged, frozen=True, tag="capture_start"):
    """Copy packets that pass a port or an NF into a file."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    name: Name | None = None
    """A port, an instance, or a service, which stands for all its instances; None: all points."""
    limit: Annotated[int, msgspec.Meta(ge=0)] = 0
    snap_length: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    direction: Literal["in", "out", "both"] = "both"
    filter: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    """As in pcap-filter(7); "": all packets."""
    follow: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    """Packets to follow through all points, of those that the filter chooses at ports."""


class CaptureReadRequest(_Tagged, frozen=True, tag="capture_read"):
    """Ask for the progress of a capture."""

    number: int


class CaptureStopRequest(_Tagged, frozen=True, tag="capture_stop"):
    """End a capture."""

    number: int


class ClusterApplyRequest(_Tagged, frozen=True, tag="cluster_apply"):
    """Make the tables equal to a view of the cluster."""

    view: ClusterView | None
    """None: leave the cluster."""


class ClusterChangeRequest(_Tagged, frozen=True, tag="cluster_change"):
    """The same request, for a manager that already has the previous view."""

    revision: int
    """Revision of the view to which the change applies, as the manager has reported it."""
    change: ViewChange


class ClusterLocalRequest(_Tagged, frozen=True, tag="cluster_local"):
    """Ask for the facts about this manager that the cluster needs; cheap."""


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
    | EventsRequest
    | AskRequest
    | AnswersRequest
    | ScaleRequest
    | ScaleStatusRequest
    | CaptureStartRequest
    | CaptureReadRequest
    | CaptureStopRequest
    | ClusterApplyRequest
    | ClusterChangeRequest
    | ClusterLocalRequest
    | NfDrainRequest
    | NfReplaceRequest
    | StateTakeRequest
    | StateReadRequest
    | StateDoneRequest
    | StateGiveRequest
    | StateGivenRequest
    | ReloadRequest
    | ReconfigureRequest
    | ChangeStateRequest
    | ListRequest
    | ListMoreRequest
)


# ---- events ----


class NfEvent(_Tagged, frozen=True, tag="nf"):
    """An NF host has attached, is on standby, serves, drains, is gone or has failed (crash-loop:
    repeatedly).
    """

    instances: list[str]
    state: str
    pid: int
    reason: str = ""


class ChainEvent(_Tagged, frozen=True, tag="chain"):
    """A chain was added, changed or removed, or it bypasses services, or is whole again."""

    name: str
    action: str


class ManagerEvent(_Tagged, frozen=True, tag="manager"):
    """The manager is ready, or is ending."""

    state: str


Event = NfEvent | ChainEvent | ManagerEvent


class TimedEvent(msgspec.Struct, frozen=True):
    """An event that a manager remembers."""

    number: int
    """Counts from 1."""
    time: float
    """Seconds since 1970."""
    event: Event


# ---- replies ----


class LaunchedNf(msgspec.Struct, frozen=True):
    """An NF host that the manager supervises."""

    nfs: list[str]
    instances: list[str]
    launcher: str
    state: str
    """starting, standby, active, draining; waiting: it died and is started again after a delay;
    crash-loop: it has died so often, one time soon after the other, that the delay is long; also
    while it runs, until it has run for some time.
    """
    pid: int
    cpus: list[int]
    """CPUs that it may run on; empty: any."""
    restarts: int
    reason: str
    """The way it ended last; for a draining NF host, why its state was not handed over."""
    log: str
    log_tail: list[str]
    """The last lines of output of an NF host that has failed."""


class ChainReply(_Tagged, frozen=True, tag="chain"):
    """A chain."""

    name: str
    near: str
    far: str
    services: list[str]
    bidirectional: bool
    track_flows: bool
    state: str
    """active, waiting for a service that has no instance, or bypassing a service that has none."""
    on_failure: str = "drop"
    match: list[MatchConfig] | None = None
    """Flows that take the chain where another chain has the port; None: this chain has the port."""


class StatusReply(_Tagged, frozen=True, tag="status"):
    """The state of a manager at one moment."""

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
    """Limits that this host puts on the manager, one line each."""
    peers: list[PeerStatus] = []
    """The other hosts of the cluster."""
    crossing: float | None = None
    """The share of hops that led to another host: packets sent to peers, divided by the sum of
    these and the packets that NFs here received; None: there was no hop.
    """
    startup: Startup | None = None
    """The time that each part of the start took."""


class DownReply(_Tagged, frozen=True, tag="down"):
    """The last counters."""

    is_drained: bool
    report: Report


class InstancesReply(_Tagged, frozen=True, tag="instances"):
    """NFs that were started or stopped, or all of them."""

    launched: list[LaunchedNf]


class ChainsReply(_Tagged, frozen=True, tag="chains"):
    """All chains."""

    chains: list[ChainReply]


class Hop(msgspec.Struct, frozen=True):
    """One hop of a path; SI is the value that the packet has when it comes to the instance (RFC
    8300).
    """

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
    """Number of flows that were examined to find them."""


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


class EventsReply(_Tagged, frozen=True, tag="events"):
    """The events that a manager remembers, oldest first."""

    events: list[TimedEvent]
    last: int
    """Number of the last one; 0: there was none."""


class TraceNames(msgspec.Struct, frozen=True):
    """Names for the numbers in verdicts."""

    ports: dict[int, str]
    services: dict[int, str]
    reasons: dict[str, list[list[str]]]
    """By point: the drop reasons of each stage."""
    stages: dict[str, list[str]]
    """By point: its instances."""


class CaptureReply(_Tagged, frozen=True, tag="capture"):
    """A capture; counts are in packets."""

    number: int
    path: str
    points: list[str]
    captured: int
    written: int
    overflow: int
    is_full: bool
    followed: int = 0
    names: TraceNames | None = None
    """Names for the numbers in verdicts; only when the capture begins."""


class ScaleReply(_Tagged, frozen=True, tag="scale"):
    """The decision that was taken; None when a service is left to its policy."""

    decision: Decision | None = None


class ScaledService(msgspec.Struct, frozen=True):
    """A service that is scaled, with its instances counted by state."""

    service: str
    mode: str
    """auto, or manual if a command has set the number."""
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
    """Mean load at the last reading; None if there is none."""
    demand: float | None
    """Instances that the load would need at full utilisation."""


class ScaleStatusReply(_Tagged, frozen=True, tag="scale_status"):
    """The services, and the decisions, oldest first."""

    services: list[ScaledService]
    decisions: list[Decision]


class ClusterReply(_Tagged, frozen=True, tag="cluster"):
    """A view has been applied."""

    digest: str
    """Digest of the tables as they are: equal on all hosts that have applied equal views."""
    missing: list[str] = []
    """Parts that could not be applied, one line each."""
    revision: int = 0
    """Revision of the view, for a `ClusterChangeRequest`; unique even across managers."""
    chains: list[int] = []
    """Numbers of the chains whose packets it takes from peers."""
    bound: list[int] = []
    """Those of them whose flows its ports send there, or would if a port here were an end."""


class ClusterLocalReply(_Tagged, frozen=True, tag="cluster_local"):
    """The facts about a manager that its cluster knows."""

    hosts: list[LocalHost]
    ports: list[str]
    peers: list[PeerStatus]
    digest: str
    """The digest in `ClusterReply`; "" without a cluster."""
    drops: dict[str, int] = {}
    """Drops of packets between hosts, by reason."""
    resources: LocalResources | None = None
    reserved: list[str] = []
    """Instance names that are reserved although no instance here has them."""


class DoneReply(_Tagged, frozen=True, tag="done"):
    """The request has been carried out; `count` is the number of things affected."""

    count: int = 1


class AskedReply(_Tagged, frozen=True, tag="asked"):
    """The message has been sent to `count` instances."""

    question: int
    count: int


class AnswersReply(_Tagged, frozen=True, tag="answers"):
    """Replies to a question."""

    answers: dict[str, str | None]
    """By instance; None: it has read the message and replies nothing."""
    waiting: list[str]
    """Instances that have not read it yet."""


class ErrorReply(_Tagged, frozen=True, tag="error"):
    """The request has failed, and why."""

    message: str


Reply = (
    StatusReply
    | DownReply
    | InstancesReply
    | ChainsReply
    | ChainReply
    | ChainShowReply
    | FlowsReply
    | EventsReply
    | DoneReply
    | AskedReply
    | AnswersReply
    | CaptureReply
    | ScaleReply
    | ScaleStatusReply
    | ClusterReply
    | ClusterLocalReply
    | StateReply
    | ChangeReply
    | QuestionReply
    | ErrorReply
)
