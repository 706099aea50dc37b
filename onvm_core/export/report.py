"""A manager's report as one value, the source of text tables and of ``--json``."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "BufferReport",
    "GeneratorReport",
    "Latency",
    "LoadReport",
    "NfReport",
    "NodeBuffers",
    "PortReport",
    "Report",
]


class Latency(msgspec.Struct, frozen=True):
    """Quantiles of sampled packets, in microseconds; None without samples."""

    p50_us: float | None
    p99_us: float | None


class LoadReport(msgspec.Struct, frozen=True):
    """Load of an NF host over the last second; a fused host covers all its instances."""

    seconds: float
    packets: int
    busy_cycles: int
    idle_cycles: int
    cycles_per_packet: float
    occupancy_mean: float
    """Share of its credits in use, 0 to 1."""
    occupancy_peak: float
    sheds: int
    queue: Latency
    """From the link to the NF to the return."""
    utilisation: float
    """Share of its capacity in use, 0 to 1."""
    spare_pps: int | None
    """Further packets per second that it could take; None: not known yet."""


class NfReport(msgspec.Struct, frozen=True):
    """One NF instance. `rx` = `tx` + drops + the packets it holds."""

    service: str
    instance: str
    state: str
    """attached, standby, active, draining; crashed: it ended by itself, or was ended because it
    broke a rule or hung; stopped: it was asked to end.
    """
    pid: int
    rx: int
    tx: int
    originated: int
    drops: dict[str, int]
    latency: Latency
    cpu: float
    """CPU time used, as a share of one core."""
    cycles_per_packet: float
    counters: dict[str, int]
    reason: str
    load: LoadReport | None = None
    """None if it does not serve."""
    held: int = 0
    """Packets that it holds to release them later, as it says."""
    hold_refused: int = 0
    """Packets that it could not hold, because it held as many as it may."""

    @property
    def is_gone(self) -> bool:
        """True if it has ended."""
        return self.state in ("crashed", "stopped")


class PeerReport(msgspec.Struct, frozen=True):
    """Another host of the cluster, as the data plane sees it.

    Attributes:
        is_up: True if probes are answered.
        tx, rx: packets sent to it and received from it.
    """

    name: str
    is_up: bool
    tx: int
    rx: int


class PortReport(msgspec.Struct, frozen=True):
    """One port."""

    name: str
    uri: str
    rx: int
    rx_bytes: int
    tx: int
    tx_bytes: int
    mpps: float
    """Packets received and sent per second, in millions."""
    latency: Latency
    """From reception on any port to sending on this one."""
    state: Literal["up", "down", "gone"] = "up"
    """Of its device: down has no link, gone has been taken away."""
    lost: dict[str, int] = {}
    """Packets lost in the port or its device, by cause: missed, no_buffer, rx_errors, refused,
    large, down, unwritten. They are among the drops.
    """
    fault: str = ""
    """The reason why its file was not read or written to its end."""


class GeneratorReport(msgspec.Struct, frozen=True):
    """Connections of a ``gen:`` client."""

    port: str
    opened: int
    completed: int
    failed: int
    requests: int
    replies: int
    lost: int
    bad_checksum: int
    bad_payload: int
    out_of_order: int
    unexpected: int
    rtt: Latency


class NodeBuffers(msgspec.Struct, frozen=True):
    """Buffers near one NUMA node."""

    node: int
    total: int
    free: int
    with_nfs: int
    problem: str = ""
    """The reason why they are not in that node's memory; "" if they are."""


class BufferReport(msgspec.Struct, frozen=True):
    """Use of the buffers; ports and workers have the rest."""

    total: int
    free: int
    with_nfs: int
    nodes: list[NodeBuffers] = []


class Report(msgspec.Struct, frozen=True):
    """A manager's counters. Without packets inside, `rx` + `originated` = `tx` + all drops."""

    rx: int
    originated: int
    tx: int
    drops: dict[str, int]
    nfs: list[NfReport]
    ports: list[PortReport]
    generators: list[GeneratorReport]
    buffers: BufferReport
    flows: int
    seconds: float
    mpps: float
    """Packets received per second, in millions."""
