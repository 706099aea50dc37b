"""A benchmark scenario, as one value. Each is measured in its own process."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from onvm_core.dataplane.values import DataplaneSettings
from onvm_core.manager.cluster_view.view import DataSecurity
from onvm_sdk.errors import OnvmError

__all__ = ["Scenario", "run_scenario"]

PLANE = DataplaneSettings()


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario.

    `hosts` lists the NF hosts, each with its fused services. The chain is all their services in
    order; if `instances` is above 1, only those of the first host.
    """

    kind: str = "throughput"
    """throughput, startup, latency, new_flows, crash, ndr, or one of `elastic`, `turns`, `remote`,
    `restart` or `cluster`."""
    way: str = "c"
    hosts: list[list[str]] = []
    instances: int = 1
    burst: int = 64
    is_busy: bool = False
    flows: int = 0
    track_flows: bool = False
    is_bidirectional: bool = False
    ring_length: int = PLANE.ring_length
    n_buffers: int = PLANE.n_buffers
    flow_capacity: int = PLANE.flow_capacity
    rate_pps: int = 0
    count: int = 0
    warmup_s: float = 0.5
    seconds: float = 1.0
    kills: int = 200
    standby: int = 0
    ways: list[str] = []
    """For the scenario pair: the value of each of the two NF hosts."""
    launcher: str = "process"
    """For elastic_start and elastic_through."""
    waits_us: list[int] = []
    """For elastic scenarios: time per packet, for each instance."""
    slowed_us: int = 0
    """For elastic_spread: time per packet of the last one from half-way on; 0: unchanged."""
    cycles: int = 100
    """For the scenario elastic_estimate: cycles per packet of each NF."""
    fused: int = 1
    """For the scenario elastic_estimate: NFs of the host."""
    is_remote: bool = False
    """For remote scenarios: the NF is at a peer."""
    is_bare: bool = False
    """For the scenario remote_rtt: the chain has no NF and ends at the peer."""
    data_security: DataSecurity = "auth"
    """For remote scenarios: protection of packets between the hosts."""
    frame_bytes: int = 64
    """For the scenario remote_hop: size of its packets."""


def run_scenario(scenario: Scenario) -> dict[str, float]:
    """Measure in a new process; returns the figures by name.

    Raises:
        OnvmError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "onvm_core.bench.measure"],
        input=msgspec.json.encode(scenario),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise OnvmError(f"benchmark scenario ended with status {done.returncode}")
    return msgspec.json.decode(done.stdout, type=dict[str, float])
