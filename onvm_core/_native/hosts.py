"""Thin binding of the calls of ``dataplane.h`` for NF hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onvm_core._native._dataplane import ffi, lib
from onvm_core._native.call import check, ip_address
from onvm_core.dataplane.values import AttachFiles, HostCounters, LoadCounters, TurnSums

__all__ = ["NativeHosts"]


class NativeHosts:
    """See `onvm_core.dataplane.interface.HostPlane`."""

    def add_host(
        self, services: Sequence[int], n_loaned: int, numa_node: int | None = None
    ) -> tuple[int, AttachFiles]:
        files = ffi.new("struct onvm_dp_attach_files *")
        slot = check(
            lib.onvm_dp_host_add(
                ffi.new("uint16_t[]", list(services)),
                len(services),
                n_loaned,
                -1 if numa_node is None else numa_node,
                files,
            )
        )
        return slot, AttachFiles(
            memory_fd=files.memory_fd,
            area_fd=files.area_fd,
            event_fds=tuple(files.event_fds[0 : files.nb_workers]),
            buffer_stride=files.buffer_stride,
            n_buffers=files.nb_buffers,
            first_large=files.first_large,
            large_bytes=files.large_bytes,
            memory_bytes=files.memory_bytes,
            area_bytes=files.area_bytes,
        )

    def activate_host(self, slot: int) -> None:
        check(lib.onvm_dp_host_activate(slot))

    def drain_host(self, slot: int) -> None:
        check(lib.onvm_dp_host_drain(slot))

    def limit_host(self, slot: int, *, reads_only: bool, no_drops: int) -> None:
        check(lib.onvm_dp_host_limit(slot, reads_only, no_drops))

    def pause_host(self, slot: int, is_paused: bool) -> None:
        check(lib.onvm_dp_host_pause(slot, is_paused))

    def leave_host(self, slot: int, successor: int = 0) -> None:
        check(lib.onvm_dp_host_leave(slot, successor))

    def remove_host(self, slot: int) -> HostCounters:
        last = ffi.new("struct onvm_dp_host_stats *")
        check(lib.onvm_dp_host_remove(slot, last))
        return _host_counters(last)

    def raise_attention(self, slot: int) -> None:
        check(lib.onvm_dp_host_attention(slot))

    def share_cpu(self, slot: int, shares_cpu: bool) -> None:
        check(lib.onvm_dp_host_share_cpu(slot, shares_cpu))

    def set_spare_capacity(self, slot: int, spare_pps: int) -> None:
        check(lib.onvm_dp_host_spare_pps(slot, min(max(spare_pps, 0), 0xFFFFFFFF)))

    def claim(
        self, slot: int, address: bytes, protocol: int, first_port: int, end_port: int
    ) -> None:
        version, data = ip_address(address)
        check(lib.onvm_dp_host_claim(slot, version, data, protocol, first_port, end_port))

    def unclaim(
        self, slot: int, address: bytes, protocol: int, first_port: int, end_port: int
    ) -> None:
        version, data = ip_address(address)
        check(lib.onvm_dp_host_unclaim(slot, version, data, protocol, first_port, end_port))

    def read_host(self, slot: int) -> HostCounters:
        stats = ffi.new("struct onvm_dp_host_stats *")
        check(lib.onvm_dp_read_host(slot, stats))
        return _host_counters(stats)

    def read_load(self, slot: int) -> LoadCounters:
        stats = ffi.new("struct onvm_dp_host_stats *")
        check(lib.onvm_dp_read_host(slot, stats))
        sums = stats.turn_sums
        return LoadCounters(
            packets=stats.rx[0] + stats.rx[1],
            done=max(ffi.unpack(stats.packets, lib.ONVM_STAGES_MAX)),
            busy_cycles=sum(ffi.unpack(stats.busy_cycles, lib.ONVM_STAGES_MAX)),
            idle_cycles=stats.idle_cycles,
            loops=stats.loops,
            shed=stats.nb_shed,
            reserved=stats.reserved,
            peak=stats.peak,
            latency=tuple(ffi.unpack(stats.latency, lib.ONVM_LATENCY_BUCKETS)),
            turns=TurnSums(
                turns=sums.turns,
                packets=sums.packets,
                packets_squared=sums.packets_squared,
                cycles=sums.cycles,
                cycles_by_packets=sums.cycles_by_packets,
            ),
        )


def _host_counters(stats: Any) -> HostCounters:
    return HostCounters(
        rx=(stats.rx[0], stats.rx[1]),
        exits=(tuple(stats.exits[0]), tuple(stats.exits[1])),
        drops=tuple(tuple(row) for row in stats.drops),
        originated=tuple(stats.originated),
        held=tuple(stats.held),
        hold_refused=tuple(stats.hold_refused),
        lost=stats.lost,
        shed=stats.nb_shed,
        bad=stats.nb_bad,
        peak=stats.peak,
        reserved=stats.reserved,
        latency=tuple(stats.latency),
        packets=tuple(stats.packets),
        busy_cycles=tuple(stats.busy_cycles),
        idle_cycles=stats.idle_cycles,
        sleeps=stats.sleeps,
        loops=stats.loops,
        counters=tuple(tuple(row) for row in stats.counters),
        fault=stats.fault,
    )
