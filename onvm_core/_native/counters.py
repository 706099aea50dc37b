"""Thin binding of the calls of ``dataplane.h`` that read the counters of the whole."""

from __future__ import annotations

from onvm_core._native._dataplane import ffi, lib
from onvm_core.dataplane.values import AreaCounters, PlaneCounters

__all__ = ["NativeCounters", "drop_reasons"]


class NativeCounters:
    """See `onvm_core.dataplane.interface.CounterPlane`."""

    def read_plane(self) -> PlaneCounters:
        stats = ffi.new("struct onvm_dp_stats *")
        lib.onvm_dp_read_stats(stats)
        return PlaneCounters(
            drops={name: stats.drops[i] for i, name in enumerate(drop_reasons())},
            originated=stats.originated,
            new_flows=stats.new_flows,
            learned_flows=stats.learned_flows,
            flow_table_full=stats.flow_table_full,
            flows=stats.flows,
            idle_cycles=stats.idle_cycles,
            sleeps=stats.sleeps,
            buffers_total=stats.buffers_total,
            buffers_free=stats.buffers_free,
            buffers_with_nfs=stats.buffers_with_nfs,
            paths=stats.nb_paths,
            closed_rx=stats.closed_rx,
            closed_tx=stats.closed_tx,
            areas=tuple(
                AreaCounters(area.numa_node, area.total, area.free, area.with_nfs, area.bind_error)
                for area in stats.areas[0 : stats.nb_areas]
            ),
        )

    def cycles_per_second(self) -> float:
        return float(lib.onvm_dp_cycles_per_second())

    def worker_cpu_ns(self, worker: int) -> int:
        return int(lib.onvm_dp_worker_cpu_ns(worker))

    def notice_fd(self) -> int:
        return int(lib.onvm_dp_notice_fd())

    def latency_bounds_ns(self) -> list[float]:
        return [lib.onvm_dp_latency_bound_ns(i) for i in range(lib.ONVM_LATENCY_BUCKETS)]


def drop_reasons() -> dict[str, str]:
    """The meanings of the manager's own drop reasons, by name, in the order of the counters."""
    reasons: dict[str, str] = {}
    while (name := lib.onvm_dp_drop_name(len(reasons))) != ffi.NULL:
        text = lib.onvm_dp_drop_text(len(reasons))
        reasons[ffi.string(name).decode()] = ffi.string(text).decode()
    return reasons
