"""Values that go into the data plane and come out of it: settings, chains, counters, flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

__all__ = [
    "AreaCounters",
    "CaptureCounters",
    "CapturePoint",
    "ChainSpec",
    "DataplaneSettings",
    "FlowRecord",
    "GenCounters",
    "Handover",
    "HostCounters",
    "LoadCounters",
    "PlaneCounters",
    "PortCounters",
    "PortRule",
    "TurnSums",
]


class DataplaneSettings(msgspec.Struct, frozen=True):
    """What the data plane is made with; see ``struct onvm_dp_config``."""

    n_workers: int = 1
    worker_sockets: tuple[int, ...] = (0,)
    """CPU socket of each worker; those beyond the last are on the last one's."""
    memory_sockets: tuple[int, ...] = (0,)
    """CPU sockets that have packet memory."""
    n_buffers: int = 8192
    """On each of them."""
    data_bytes: int = 2048
    ring_length: int = 1024
    idle_policy: int = 0
    flow_capacity: int = 1 << 20
    flow_idle_ms: int = 300_000
    sample_every: int = 64
    use_huge_pages: bool = False
    high_percent: int = 80
    low_percent: int = 60


class ChainSpec(msgspec.Struct, frozen=True):
    """A chain as the data plane knows it: service IDs between two port IDs."""

    near_port: int
    far_port: int
    services: tuple[int, ...]
    is_bidirectional: bool = True
    track_flows: bool = True
    by_rules: bool = False
    """Only rules of a port lead to it; its ports are bound to another chain."""
    number: int = 0
    """In the cluster; 0: a chain of this host alone."""
    waits: bool = False
    """Its entry waits while a service has no instance."""


class PortRule(msgspec.Struct, frozen=True):
    """New flows that take a chain: their 5-tuple as it comes in.

    Attributes:
        chain: number of the chain.
        protocol: IP protocol number; None: any.
        src, dst: prefixes of one IP version; None: any address, of both versions if both are.
        src_ports, dst_ports: first and last, both included; what has no ports counts as 0.
    """

    chain: int
    protocol: int | None = None
    src: IPv4Network | IPv6Network | None = None
    dst: IPv4Network | IPv6Network | None = None
    src_ports: tuple[int, int] = (0, 65535)
    dst_ports: tuple[int, int] = (0, 65535)


class Handover(msgspec.Struct, frozen=True):
    """What a new NF host gets; `area_fd` is the receiver's to close."""

    memory_fd: int
    area_fd: int
    event_fds: tuple[int, ...]
    buffer_stride: int
    n_buffers: int
    memory_bytes: int
    area_bytes: int


class PortCounters(msgspec.Struct, frozen=True):
    """Counters of one port, all workers together."""

    rx: int
    rx_bytes: int
    tx: int
    tx_bytes: int
    is_finished: bool
    n_held: int
    latency: tuple[int, ...]


class HostCounters(msgspec.Struct, frozen=True):
    """Counters of one NF host, all workers together; pairs are (forwards, backwards)."""

    rx: tuple[int, int]
    exits: tuple[tuple[int, ...], tuple[int, ...]]
    drops: tuple[tuple[int, ...], ...]
    originated: tuple[int, ...]
    lost: int
    shed: int
    bad: int
    peak: int
    reserved: int
    latency: tuple[int, ...]
    packets: tuple[int, ...]
    busy_cycles: tuple[int, ...]
    idle_cycles: int
    sleeps: int
    loops: int
    counters: tuple[tuple[int, ...], ...]
    is_bad: bool


class TurnSums(msgspec.Struct, frozen=True):
    """Sums over the turns of an NF host's loop that had packets; see ``struct onvm_turn_sums``."""

    turns: int = 0
    packets: int = 0
    packets_squared: int = 0
    cycles: int = 0
    cycles_by_packets: int = 0


class LoadCounters(msgspec.Struct, frozen=True):
    """Those counters of an NF host from which its load is made; cheap to read.

    `packets` were handed to it, `done` it has taken; `busy_cycles` is of all stages together.
    """

    packets: int
    done: int
    busy_cycles: int
    idle_cycles: int
    loops: int
    shed: int
    reserved: int
    peak: int
    latency: tuple[int, ...]
    turns: TurnSums = TurnSums()


class PeerCounters(msgspec.Struct, frozen=True):
    """Packets from and to a peer, and its probes."""

    rx: int
    tx: int
    heard_us: int | None
    """Since its last probe; None: there was none."""
    is_down: bool


class AreaCounters(msgspec.Struct, frozen=True):
    """Packet memory near one CPU socket, in buffers."""

    socket: int
    total: int
    free: int
    with_nfs: int
    bind_errno: int
    """Why the kernel did not give that socket's memory; 0: it did."""


class PlaneCounters(msgspec.Struct, frozen=True):
    """Counters of the data plane as a whole."""

    drops: dict[str, int]
    originated: int
    new_flows: int
    learned_flows: int
    flow_table_full: int
    flows: int
    idle_cycles: int
    sleeps: int
    buffers_total: int
    buffers_free: int
    buffers_with_nfs: int
    paths: int
    closed_rx: int
    closed_tx: int
    """Packets of ports that are no more."""
    areas: tuple[AreaCounters, ...]


class CapturePoint(msgspec.Struct, frozen=True):
    """Where packets are captured: a port (or the slot of an NF host), and which way they go.

    `is_in` is received by the port, or handed to the host; `is_out` sent by the port, or taken
    back from the host. `name` is that of the interface in the file.
    """

    name: str
    id: int
    is_host: bool = False
    is_in: bool = True
    is_out: bool = True


class CaptureCounters(msgspec.Struct, frozen=True):
    """Counters of one capture, in packets; `overflow` counts copies for which no room was."""

    captured: int
    overflow: int
    written: int
    is_full: bool


class GenCounters(msgspec.Struct, frozen=True):
    """Counters of a generator; see ``struct onvm_dp_gen_stats``."""

    sent: int
    received: int
    opened: int
    completed: int
    failed: int
    tcp: int
    udp: int
    icmp: int
    ipv6: int
    requests: int
    replies: int
    lost: int
    bad_checksum: int
    bad_payload: int
    out_of_order: int
    unexpected: int
    n_active: int
    is_finished: bool
    rtt: tuple[int, ...]


class FlowRecord(msgspec.Struct, frozen=True):
    """One direction of one flow."""

    src: str
    dst: str
    src_port: int
    dst_port: int
    protocol: int
    vlan: int
    port: int
    is_reverse: bool
    spi: int
    """Service path identifier."""
    chain: int
    hosts: tuple[int, ...] = ()
    idle_ms: int = 0
