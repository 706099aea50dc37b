"""The data plane as an object: the calls that the manager needs.

`DataPlane` consists of one protocol for each subject, so that a module can declare the part it
needs. `onvm_core._native.plane` has the implementation in C, `onvm_core.dataplane.fake` one in
memory.

A host is named by its slot, a port by its ID, a peer by its ID. Calls that fail raise
`DataplaneError`.

Threads: all calls belong to the thread that has called `start_environment` and `init`; a manager
takes over a plane that another thread has prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from onvm_core.dataplane.values import (
    NO_SECRET,
    Affinity,
    AttachFiles,
    CaptureCounters,
    CapturePoint,
    ChainSpec,
    DataplaneSettings,
    FlowRecord,
    Fragments,
    GenCounters,
    HostCounters,
    LoadCounters,
    PeerCounters,
    PlaneCounters,
    PortCounters,
    PortOptions,
    PortRule,
)
from onvm_sdk.errors import NativeError

__all__ = [
    "CapturePlane",
    "ChainPlane",
    "CounterPlane",
    "DataPlane",
    "DataplaneError",
    "HostPlane",
    "Lifecycle",
    "PeerPlane",
    "PortPlane",
    "StartDataPlane",
]


class DataplaneError(NativeError):
    """A call of the data plane failed; the message is one line for the user."""

    def __init__(self, number: int, line: str) -> None:
        self.errno = number
        Exception.__init__(self, line)


class Lifecycle(Protocol):
    """Start and end; each is called once, in this order."""

    def start_environment(self, eal_arguments: Sequence[str]) -> None:
        """Start DPDK's environment; once per process."""

    def init(self, settings: DataplaneSettings) -> None:
        """Make memory and tables, in the thread that has started the environment."""

    def start(self) -> None:
        """Start the workers."""

    def stop(self) -> None:
        """Stop the workers; packets still inside are dropped and counted."""

    def fini(self) -> None:
        """Close files and devices; memory goes with the process, which can never init again."""


class HostPlane(Protocol):
    """NF hosts of this machine, and the traffic they claim."""

    def add_host(
        self, services: Sequence[int], n_loaned: int, numa_node: int | None = None
    ) -> tuple[int, AttachFiles]:
        """A slot and the files for a new NF host.

        Args:
            n_loaned: number of empty buffers that it is lent.
            numa_node: NUMA node of these buffers; None: the worker's.
        """

    def activate_host(self, slot: int) -> None:
        """Send new flows to the host, even if it was draining."""

    def drain_host(self, slot: int) -> None:
        """Send no new flows to the host."""

    def limit_host(self, slot: int, *, reads_only: bool, no_drops: int) -> None:
        """Limit what a host that has just been added may do to packets.

        Args:
            reads_only: it may not change them.
            no_drops: bit i: its stage i may not drop.
        """

    def pause_host(self, slot: int, is_paused: bool) -> None:
        """Let no packet enter a path through a draining host, or let them enter again.

        When `reserved` is 0, its state no longer changes. Packets that come for it make their port
        wait.
        """

    def leave_host(self, slot: int, successor: int = 0) -> None:
        """Send the host's flows to others; when `reserved` is 0, it has no packet any more.

        Args:
            successor: slot of the host that takes them all; 0: they are shared out.
        """

    def remove_host(self, slot: int) -> HostCounters:
        """Take everything back from the host; return its last counters."""

    def raise_attention(self, slot: int) -> None:
        """Make the host look at its socket."""

    def share_cpu(self, slot: int, shares_cpu: bool) -> None:
        """Tell the host whether others use its CPU; then it sleeps when it has no packets,
        whatever the idle policy.
        """

    def set_spare_capacity(self, slot: int, spare_pps: int) -> None:
        """Set how many packets per second of new flows the host can take."""

    def claim(
        self, slot: int, address: bytes, protocol: int, first_port: int, end_port: int
    ) -> None:
        """Give the host all traffic to ports [first, end) of an address (4 or 16 bytes)."""

    def unclaim(
        self, slot: int, address: bytes, protocol: int, first_port: int, end_port: int
    ) -> None:
        """End a claim of the host."""

    def read_host(self, slot: int) -> HostCounters:
        """Counters of one NF host."""

    def read_load(self, slot: int) -> LoadCounters:
        """The counters of one NF host from which its load is computed."""


class ChainPlane(Protocol):
    """Chains, the rules that lead to them, and the flows that take them."""

    def set_chain(self, chain_id: int, spec: ChainSpec) -> None:
        """Set a chain and bind its ports."""

    def set_wire_sized(self, service: int) -> None:
        """Let the ports of chains with `service` give packets as they are on the wire, for good."""

    def set_affinity(self, service: int, affinity: Affinity) -> None:
        """Set what decides which instance of `service` a new flow gets; running flows stay."""

    def set_fragments(self, service: int, fragments: Fragments) -> None:
        """Let the ports of chains with `service` show it datagrams in fragments in this form.

        Of the services of all chains of a port, the one that wants most decides.
        """

    def set_lifetimes(self, service: int, lifetimes_ms: Sequence[int]) -> None:
        """Set how long NFs of `service` hold idle flows; no chain with it forgets them earlier.

        Args:
            lifetimes_ms: by `onvm_sdk.manifest.FLOW_CLASSES`.
        """

    def remove_chain(self, chain_id: int) -> None:
        """Remove a chain; its ports then have none."""

    def succeed_chain(self, chain_id: int, successor: int) -> None:
        """Let the flows of a chain go on in another one that has its ports.

        They stay with the NF hosts that they meet, where the other chain has their services. All
        hosts of a cluster choose the same for the other services.
        """

    def set_port_rules(self, port: int, rules: Sequence[PortRule]) -> None:
        """Let new flows from `port` take the chain of the first rule that they match.

        Flows that match no rule take the chain that the port is bound to; running flows stay.
        """

    def read_flows(self, limit: int) -> list[FlowRecord]:
        """Up to `limit` flows."""

    def read_flow_hosts(self, cursor: int, limit: int) -> tuple[int | None, set[int]]:
        """Read the NF hosts of the flows from position `cursor` on.

        Returns:
            The next position (None: those were the last flows), and the slots of up to `limit`
            flows.
        """


class PortPlane(Protocol):
    """Ports."""

    def open_port(self, name: str, options: PortOptions) -> int:
        """Open a port; return its ID."""

    def close_port(self, port: int) -> None:
        """Close a port that no chain uses."""

    def pause_sources(self, is_paused: bool) -> None:
        """Pause sources, or read from them again."""

    def read_port(self, port: int) -> PortCounters:
        """Counters of one port."""

    def read_gen(self, port: int) -> GenCounters:
        """Counters of a generator."""


class PeerPlane(Protocol):
    """Other hosts of a cluster, and NF hosts there."""

    def add_peer(self, address: bytes, secret: bytes = NO_SECRET) -> int:
        """Accept packets from this address; return the peer's ID.

        Args:
            secret: 32 bytes that both hosts alone know; for tunnels with security.
        """

    def remove_peer(self, peer: int) -> None:
        """Remove a peer that has no NF host any more."""

    def add_remote(self, services: Sequence[int], peer: int, number: int) -> int:
        """Let an NF host at a peer serve; return its slot."""

    def remove_remote(self, slot: int, successor: int = 0) -> None:
        """Send the flows of an NF host at a peer elsewhere.

        Args:
            successor: slot of the host that takes them all; 0: the one that all hosts choose.
        """

    def set_successor(self, number: int, successor: int) -> None:
        """Forward packets that name an ended NF host to the one that has its state."""

    def set_number(self, slot: int, number: int) -> None:
        """Set the number in the cluster of an NF host here; 0: none."""

    def read_peer(self, peer: int) -> PeerCounters:
        """Counters of a peer; they tell if it answers probes."""


class CapturePlane(Protocol):
    """Captures."""

    def start_capture(
        self,
        points: Sequence[CapturePoint],
        *,
        snap_length: int,
        limit: int,
        ring_bytes: int,
        fd: int,
        filter_text: str = "",
        n_followed: int = 0,
    ) -> int:
        """Begin a capture into the file `fd`; return its ID.

        Args:
            filter_text: as in pcap-filter(7), for the bytes of a packet; "": all packets.
            n_followed: 0: the filter is asked at each point; else the number of packets to follow
                through all points, of those that it chooses where they come in.
        """

    def match_filter(self, filter_text: str, frames: Sequence[bytes]) -> list[bool]:
        """The answer of a filter for each frame; all have the same length."""

    def drain_capture(self, capture: int) -> int:
        """Write the captured packets to the file; return how many."""

    def stop_capture(self, capture: int) -> CaptureCounters:
        """End a capture and write the rest of it."""

    def read_capture(self, capture: int) -> CaptureCounters:
        """Counters of one capture."""


class CounterPlane(Protocol):
    """Counters of the whole, and the units in which it counts."""

    def read_plane(self) -> PlaneCounters:
        """Counters of the data plane as a whole."""

    def cycles_per_second(self) -> float:
        """Rate of the TSC, in which `busy_cycles` and `idle_cycles` count."""

    def worker_cpu_ns(self, worker: int) -> int:
        """CPU time that a worker has used, in nanoseconds."""

    def notice_fd(self) -> int:
        """An eventfd, readable when an NF host has broken the rules, or a peer has gone or
        returned.
        """

    def latency_bounds_ns(self) -> list[float]:
        """Lower bounds of the latency buckets, in nanoseconds."""


class DataPlane(
    Lifecycle, HostPlane, ChainPlane, PortPlane, PeerPlane, CapturePlane, CounterPlane, Protocol
):
    """The whole data plane."""


StartDataPlane = Callable[[DataplaneSettings, Sequence[str]], DataPlane]
"""Makes a data plane that is ready to `start`, given the arguments of DPDK's environment."""
