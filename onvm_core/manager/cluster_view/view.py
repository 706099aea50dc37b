"""The view of a cluster that a manager needs: one value, replaced whenever it changes.

The agent derives it from ZooKeeper; the manager makes its tables equal to it. Sending the same view
twice changes nothing, and a manager that has just started needs only the last view. Numbers
are given out by the cluster and mean the same on every host, because they travel in packets (NSH).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from onvm_core.dataplane.limits import CHAIN_LENGTH_MAX
from onvm_core.manager.chains.classifier import MatchConfig

if TYPE_CHECKING:
    from onvm_core.manager.nf_hosts.codec import Claim

__all__ = [
    "ChainView",
    "ClaimView",
    "ClusterView",
    "DataSecurity",
    "InstanceView",
    "LocalHost",
    "LocalResources",
    "PeerStatus",
    "PeerView",
    "PortView",
    "claims_meet",
]

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
Number = Annotated[int, msgspec.Meta(ge=1, le=65535)]
"""Number of a host or an NF host; given by the cluster, and not reused soon."""
ChainNumber = Annotated[int, msgspec.Meta(ge=1, le=(1 << 23) - 1)]
"""Number of a chain; with the direction it forms the service path identifier."""
DataSecurity = Literal["none", "auth", "encrypt"]
"""Nothing, a tag that only the sender can make, or that and encryption."""
PortNumber = Annotated[int, msgspec.Meta(ge=0, le=65536)]


class _Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the view."""


class PeerView(_Value, frozen=True):
    """Another host of the cluster."""

    name: Name
    number: Number
    address: str
    """IPv4 or IPv6 address on the data network."""
    secret: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    """Known to this host and the peer alone, in hexadecimal; "": there is none."""


class ClaimView(_Value, frozen=True):
    """Traffic that belongs to one instance alone: ports [first, end) of an address."""

    address: str
    protocol: Annotated[int, msgspec.Meta(ge=0, le=255)]
    first_port: PortNumber
    end_port: PortNumber


def claims_meet(one: Claim | ClaimView, other: Claim | ClaimView) -> bool:
    """True if some traffic belongs to both claims; protocol 0 is any."""
    return (
        one.address == other.address
        and (one.protocol == other.protocol or 0 in (one.protocol, other.protocol))
        and one.first_port < other.end_port
        and other.first_port < one.end_port
    )


class InstanceView(_Value, frozen=True):
    """An NF host somewhere in the cluster: one instance, or several that are fused."""

    number: Number
    host: Name
    name: Name
    """Name of its first instance; unique on its host."""
    services: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=CHAIN_LENGTH_MAX)]
    """Services of its stages, in order."""
    state: Literal["active", "draining"] = "active"
    spare_pps: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Capacity that new flows may take, in packets per second."""
    claims: list[ClaimView] = []


class PortView(_Value, frozen=True):
    """A port of a host."""

    host: Name
    port: Name


class ChainView(_Value, frozen=True):
    """A chain of the cluster; its ends may be on different hosts."""

    number: ChainNumber
    name: Name
    near: PortView
    far: PortView
    services: Annotated[list[Name], msgspec.Meta(max_length=15)]
    bidirectional: bool = True
    track_flows: bool = True
    on_failure: Literal["drop", "bypass", "wait"] = "drop"
    match: list[MatchConfig] | None = None
    formers: list[ChainView] = []
    """Its earlier definitions, newest first; packets on their way may have their numbers."""
    is_staged: bool = False
    """True while ports use the newest of `formers`, because not all hosts know the new one yet."""
    order: int = 0
    """The place of its `match` among those of other chains; 0: that of its number."""

    @property
    def place(self) -> int:
        """The key by which chains are in order."""
        return self.order or self.number

    @property
    def current(self) -> ChainView:
        """The definition that ports use."""
        return self.formers[0] if self.is_staged and self.formers else self

    @property
    def definitions(self) -> list[ChainView]:
        """All of them that packets may name."""
        return [self, *self.formers]


class ClusterView(_Value, frozen=True):
    """Everything that a manager needs to know of its cluster."""

    cluster: Name
    vni: Annotated[int, msgspec.Meta(ge=0, lt=1 << 24)]
    """VXLAN network identifier; packets with another one do not belong to this cluster."""
    host: Name
    """Name of this host."""
    number: Number
    address: str
    """This host's address on the data network."""
    data_security: DataSecurity = "none"
    """Protection of packets between hosts."""
    peers: list[PeerView] = []
    instances: list[InstanceView] = []
    """NF hosts of all hosts, including this one: its own are told apart by `host` and found by
    `name`.
    """
    successors: list[tuple[Number, Number]] = []
    """NF hosts that have ended, and the successors that have their state and flows."""
    chains: list[ChainView] = []


class LocalHost(msgspec.Struct, frozen=True, kw_only=True):
    """An NF host of this manager, described for the cluster."""

    name: str
    """Name of its first instance."""
    services: list[str]
    state: str
    """active or draining; the cluster does not see other states."""
    spare_pps: int
    capacity_pps: int | None
    utilisation: float | None
    claims: list[ClaimView] = []
    demand: float | None = None
    """Share of its capacity that the offered load needs; above 1 when the NF host is overloaded."""
    sheds: int = 0
    """Packets refused at the last reading because its credits were taken."""


class LocalResources(msgspec.Struct, frozen=True, kw_only=True):
    """Resources that NF hosts can have on this host, and the free part of them."""

    cores: float
    free_cores: float
    memory_mib: int
    free_memory_mib: int


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The data network between this host and a peer."""

    name: str
    address: str
    is_up: bool
    """True if probes are answered."""
    heard_ms: float | None
    """Time since the last answer; None: there was never one."""
    tx: int
    rx: int
    """Counted in packets."""
    forged: int = 0
    """Datagrams from its address that it cannot have sent; dropped."""
    replayed: int = 0
    """Datagrams that came a second time; dropped."""
