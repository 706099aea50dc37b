"""Inputs and outputs of the data plane: settings, chains, counters, flows."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

__all__ = [
    "Affinity",
    "AreaCounters",
    "AttachFiles",
    "CaptureCounters",
    "CapturePoint",
    "ChainSpec",
    "DataplaneSettings",
    "EthdevPort",
    "FlowRecord",
    "Fragments",
    "GenCounters",
    "GenPort",
    "HostCounters",
    "IdlePolicy",
    "LoadCounters",
    "NullPort",
    "PacketPort",
    "PcapPort",
    "PlaneCounters",
    "PortCounters",
    "PortLosses",
    "PortOptions",
    "PortRule",
    "TapPort",
    "TunnelPort",
    "TunnelSecurity",
    "TurnSums",
]


class Fragments(IntEnum):
    """The form in which an NF sees datagrams that come in fragments; ``enum onvm_fragments``."""

    PASS = 0
    VIRTUAL = 1
    REASSEMBLE = 2


class IdlePolicy(IntEnum):
    """The behaviour of workers and NF hosts without packets; ``enum onvm_idle_policy``."""

    ADAPTIVE = 0
    BUSY = 1


class Affinity(IntEnum):
    """The choice of the instance that a new flow gets, by what; ``enum onvm_affinity``."""

    FLOW = 0
    """Each flow by itself."""
    SOURCE = 1
    """The address that packets going forwards come from."""
    DESTINATION = 2
    """The address that they go to."""


class DataplaneSettings(msgspec.Struct, frozen=True):
    """The settings of the data plane; see ``struct onvm_dp_config``.

    Its defaults are also those of ``onvm.toml`` and of the command line.
    """

    n_workers: int = 1
    worker_nodes: tuple[int, ...] = (0,)
    """NUMA node of each worker; further workers are on the node of the last one."""
    memory_nodes: tuple[int, ...] = (0,)
    """NUMA nodes that have packet memory."""
    n_buffers: int = 8192
    """Number of buffers on each of them."""
    n_large_buffers: int = 512
    """Number of buffers for packets of up to 64 KiB; unused without ports that receive such."""
    data_bytes: int = 2048
    ring_length: int = 1024
    idle_policy: IdlePolicy = IdlePolicy.ADAPTIVE
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
    """Only rules of a port send flows to it; its ports are bound to another chain."""
    number: int = 0
    """Number in the cluster; 0: a chain of this host alone."""
    waits: bool = False
    """Its entry waits while a service has no instance."""
    is_unbound: bool = False
    """No port sends flows to it; packets from peers alone take it."""


class PortRule(msgspec.Struct, frozen=True):
    """New flows that take a chain: their 5-tuple as it comes in.

    Attributes:
        chain: number of the chain.
        protocol: IP protocol number; None: any.
        src, dst: prefixes of one IP version; None: any address, of both versions if both are.
        src_ports, dst_ports: first and last, both included; packets without ports count as 0.
    """

    chain: int
    protocol: int | None = None
    src: IPv4Network | IPv6Network | None = None
    dst: IPv4Network | IPv6Network | None = None
    src_ports: tuple[int, int] = (0, 65535)
    dst_ports: tuple[int, int] = (0, 65535)


class NullPort(msgspec.Struct, frozen=True, kw_only=True):
    """A source of generated packets (or only a sink), without a device."""

    size: int = 64
    n_flows: int = 0
    is_random: bool = False
    is_source: bool = True
    n_queues: int = 1
    rate_pps: int = 0
    count: int = 0


class PcapPort(msgspec.Struct, frozen=True, kw_only=True):
    """A capture file that is read, one that is written, or both.

    Attributes:
        rx_path: ``-`` is standard input.
        tx_path: ``-`` is standard output.
        speed: times the pace of the capture; 0: `rate_pps` counts.
        may_be_cut: a capture that ends within a record is whole.
        is_pcapng: the format that is written; else pcap.
        is_gzip: whether it is written as gzip.
    """

    rx_path: str | None = None
    tx_path: str | None = None
    loop: int = 1
    rate_pps: int = 0
    count: int = 0
    speed: float = 0.0
    may_be_cut: bool = False
    is_pcapng: bool = False
    is_gzip: bool = False


class PacketPort(msgspec.Struct, frozen=True, kw_only=True):
    """An existing network interface, through packet sockets.

    Attributes:
        receive_bytes: memory of each queue's socket for packets that wait.
        skips_qdisc: packets go to the driver past the host's traffic control.
        numa_node: NUMA node of the interface; None: unknown, or it has none.
    """

    interface: str
    n_queues: int = 1
    receive_bytes: int = 16 << 20
    is_promiscuous: bool = True
    skips_qdisc: bool = False
    numa_node: int | None = None


class TapPort(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface that is made, and exists while the port is open.

    Attributes:
        mtu: 0: the kernel's default.
    """

    interface: str
    n_queues: int = 1
    mtu: int = 0


class EthdevPort(msgspec.Struct, frozen=True, kw_only=True):
    """A device of a DPDK driver.

    Attributes:
        device: DPDK's name for it: a PCI address, or a virtual device with its arguments.
        mtu: 0: the device's own.
        needs_copy: the driver keeps packets where NFs cannot see them.
        numa_node: NUMA node of the NIC behind a virtual device; None: there is none, or it is
            unknown.
    """

    device: str
    n_queues: int = 1
    mtu: int = 0
    needs_copy: bool = False
    is_promiscuous: bool = True
    numa_node: int | None = None


class GenPort(msgspec.Struct, frozen=True, kw_only=True):
    """Connections that are opened, or answered.

    Attributes:
        role: ``client`` opens connections; ``server`` answers, and only `rate_pps` counts.
        n_flows: connections at a time.
        count: packets that the client sends in all; 0: no limit.
        ipv6_percent, tcp_percent, udp_percent: shares of the connections; the rest is ICMP echo.
        size: bytes of frames with data, with frame check sequence; 0: IMIX.
        timeout_ms: time after which a silent connection has failed; 0: derived from the RTT.
        answer: False: go on as if answered, for chains without a server.
        vip_percent: share of IPv4 TCP connections that go to `vip`.
        servers: addresses of the other connections' destinations.
    """

    role: Literal["client", "server"]
    n_flows: int = 1024
    seed: int = 1
    rate_pps: int = 0
    count: int = 0
    ipv6_percent: int = 20
    tcp_percent: int = 70
    udp_percent: int = 25
    size: int = 0
    timeout_ms: int = 0
    answer: bool = True
    vip: str | None = "198.51.100.10"
    vip_port: int = 80
    vip_percent: int = 30
    servers: tuple[str, ...] = ()


NO_SECRET = bytes(32)
"""The secret of a pair of hosts that has none."""


class TunnelSecurity(IntEnum):
    """Protection of packets between hosts; ``enum onvm_security``."""

    NONE = 0
    AUTH = 1
    ENCRYPT = 2


class TunnelPort(msgspec.Struct, frozen=True):
    """The port to the peers, on an address of this host (4 or 16 bytes)."""

    address: bytes
    vni: int
    security: TunnelSecurity = TunnelSecurity.NONE


KindOptions = NullPort | PcapPort | PacketPort | TapPort | EthdevPort | GenPort
"""Kinds of ``port_options.h``; `XyzPort` has the members of ``struct onvm_xyz_options``, with
``n_`` for its ``nb_``."""
PortOptions = KindOptions | TunnelPort
"""The description of a port; its type is the kind of the port."""


class AttachFiles(msgspec.Struct, frozen=True):
    """The resources of a new NF host; the receiver closes `area_fd`."""

    memory_fd: int
    area_fd: int
    event_fds: tuple[int, ...]
    buffer_stride: int
    n_buffers: int
    first_large: int
    large_bytes: int
    memory_bytes: int
    area_bytes: int


class PortLosses(msgspec.Struct, frozen=True):
    """Packets lost in a port or its device.

    The first three are among the received packets, the others are not among the sent ones; all are
    among the drops.

    Attributes:
        missed: the receive queue was full.
        no_buffer: there was no buffer to receive into.
        rx_errors: damaged, or of a kind that the port cannot take in.
        refused: not sent by the device.
        large: not sent: larger than the device's MTU.
        down: not sent: the device was down.
        unwritten: not sent: the file could not be written.
    """

    missed: int = 0
    no_buffer: int = 0
    rx_errors: int = 0
    refused: int = 0
    large: int = 0
    down: int = 0
    unwritten: int = 0


class PortCounters(msgspec.Struct, frozen=True):
    """Counters of one port, all workers together."""

    rx: int
    rx_bytes: int
    tx: int
    tx_bytes: int
    is_finished: bool
    n_held: int
    latency: tuple[int, ...]
    is_gone: bool = False
    """Its device has been removed."""
    is_down: bool = False
    """Its device has no link."""
    losses: PortLosses = PortLosses()
    fault: str = ""
    """The reason why its file was not read or written to its end."""


class HostCounters(msgspec.Struct, frozen=True):
    """Counters of one NF host, all workers together; pairs are (forwards, backwards)."""

    rx: tuple[int, int]
    exits: tuple[tuple[int, ...], tuple[int, ...]]
    drops: tuple[tuple[int, ...], ...]
    originated: tuple[int, ...]
    held: tuple[int, ...]
    """Packets that each NF holds, as it says."""
    hold_refused: tuple[int, ...]
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
    fault: int
    """0; 1: it broke the rules of its rings or descriptors; 2: it dropped without permission; 3: it
    changed the bounds of packets without permission.
    """


class TurnSums(msgspec.Struct, frozen=True):
    """Sums over the turns of an NF host's loop that had packets; see ``struct onvm_turn_sums``."""

    turns: int = 0
    packets: int = 0
    packets_squared: int = 0
    cycles: int = 0
    cycles_by_packets: int = 0


class LoadCounters(msgspec.Struct, frozen=True):
    """The counters of an NF host from which its load is computed; cheap to read.

    `packets` counts packets handed to it, `done` those it has taken; `busy_cycles` covers all
    stages together.
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
    """Time since its last probe; None: there was none."""
    is_down: bool
    forged: int = 0
    """Datagrams from its address that it cannot have sent."""
    replayed: int = 0
    """Datagrams that came a second time."""


class AreaCounters(msgspec.Struct, frozen=True):
    """Packet memory near one NUMA node, in buffers."""

    node: int
    total: int
    free: int
    with_nfs: int
    bind_errno: int
    """The error with which the kernel refused that node's memory; 0: it did not refuse."""


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
    """Packets of ports that no longer exist."""
    areas: tuple[AreaCounters, ...]


class CapturePoint(msgspec.Struct, frozen=True):
    """The point of a capture: a port (or the slot of an NF host), and the direction of the packets.

    `is_in`: packets received by the port, or handed to the host; `is_out`: packets sent by the
    port, or taken back from the host. `name` names the interface in the file.
    """

    name: str
    id: int
    is_host: bool = False
    is_in: bool = True
    is_out: bool = True


class CaptureCounters(msgspec.Struct, frozen=True):
    """Counters of one capture, in packets; `overflow` counts copies that found no space."""

    captured: int
    overflow: int
    written: int
    followed: int
    """Packets that it follows, or has followed."""
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
