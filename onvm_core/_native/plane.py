"""The data plane in C: one per process, as DPDK's environment is."""

from __future__ import annotations

from onvm_core._native.captures import NativeCaptures
from onvm_core._native.chains import NativeChains
from onvm_core._native.counters import NativeCounters
from onvm_core._native.hosts import NativeHosts
from onvm_core._native.lifecycle import NativeLifecycle
from onvm_core._native.peers import NativePeers
from onvm_core._native.ports import NativePorts

__all__ = ["NativeDataPlane"]


class NativeDataPlane(
    NativeLifecycle,
    NativeHosts,
    NativeChains,
    NativePorts,
    NativePeers,
    NativeCaptures,
    NativeCounters,
):
    """`onvm_core.dataplane.interface.DataPlane` over cffi."""
