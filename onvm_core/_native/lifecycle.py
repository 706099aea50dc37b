"""Thin binding of the calls of ``dataplane.h`` that start and end the data plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onvm_core._native._dataplane import ffi, lib
from onvm_core._native.call import check
from onvm_core.dataplane.values import DataplaneSettings

__all__ = ["NativeLifecycle"]

_arguments: list[Any] = []
"""EAL keeps pointers into its arguments."""


class NativeLifecycle:
    """See `onvm_core.dataplane.interface.Lifecycle`."""

    def start_environment(self, eal_arguments: Sequence[str]) -> None:
        # EAL permutes the array and keeps the first string.
        _arguments[:] = [ffi.new("char[]", argument.encode()) for argument in eal_arguments]
        argv = ffi.new("char *[]", [*_arguments, ffi.NULL])
        check(lib.onvm_dp_environment(len(_arguments), argv))

    def init(self, settings: DataplaneSettings) -> None:
        config = ffi.new(
            "struct onvm_dp_config *",
            {
                "nb_workers": settings.n_workers,
                "worker_nodes": _filled(settings.worker_nodes, settings.n_workers),
                "nb_nodes": len(settings.memory_nodes),
                "nodes": settings.memory_nodes,
                "nb_buffers": settings.n_buffers,
                "nb_large_buffers": settings.n_large_buffers,
                "data_bytes": settings.data_bytes,
                "ring_length": settings.ring_length,
                "idle_policy": settings.idle_policy,
                "flow_capacity": settings.flow_capacity,
                "flow_idle_ms": settings.flow_idle_ms,
                "sample_every": settings.sample_every,
                "use_huge_pages": settings.use_huge_pages,
                "high_percent": settings.high_percent,
                "low_percent": settings.low_percent,
            },
        )
        check(lib.onvm_dp_init(config))

    def start(self) -> None:
        check(lib.onvm_dp_start())

    def stop(self) -> None:
        lib.onvm_dp_stop()

    def fini(self) -> None:
        lib.onvm_dp_fini()


def _filled(nodes: Sequence[int], n_workers: int) -> list[int]:
    return [nodes[min(worker, len(nodes) - 1)] for worker in range(n_workers)]
