"""Thin binding of ``native/dataplane/dataplane.h``: allocate, call, check, convert."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from onvm_core._native._dataplane import ffi, lib
from onvm_core._native.values import (
    AreaCounters,
    ChainSpec,
    DataplaneSettings,
    FlowRecord,
    GenCounters,
    Handover,
    HostCounters,
    LoadCounters,
    PlaneCounters,
    PortCounters,
    PortRule,
    TurnSums,
)
from onvm_sdk.errors import NativeError

__all__ = [
    "ChainSpec",
    "DataplaneError",
    "DataplaneSettings",
    "FlowRecord",
    "GenCounters",
    "Handover",
    "HostCounters",
    "LoadCounters",
    "PlaneCounters",
    "PortCounters",
    "PortRule",
    "check",
]

NB_LATENCY_BUCKETS = 128
NB_STAGES = 16


class DataplaneError(NativeError):
    """A call of the data plane failed; the message is its own line for the user."""

    def __init__(self, number: int, line: str) -> None:
        self.errno = number
        Exception.__init__(self, line)


def check(result: int) -> int:
    """Give back the result of a call.

    Raises:
        DataplaneError: it failed.
    """
    if result < 0:
        raise DataplaneError(-result, ffi.string(lib.onvm_dp_error()).decode())
    return result


def start_environment(eal_arguments: Sequence[str]) -> None:
    """Start DPDK's environment; once per process."""
    # EAL permutes the array and keeps the first string.
    _arguments[:] = [ffi.new("char[]", argument.encode()) for argument in eal_arguments]
    argv = ffi.new("char *[]", [*_arguments, ffi.NULL])
    check(lib.onvm_dp_environment(len(_arguments), argv))


def init(settings: DataplaneSettings) -> None:
    """Make memory and tables, in the thread that has started the environment."""
    config = ffi.new(
        "struct onvm_dp_config *",
        {
            "nb_workers": settings.n_workers,
            "worker_nodes": _filled(settings.worker_sockets, settings.n_workers),
            "nb_nodes": len(settings.memory_sockets),
            "nodes": settings.memory_sockets,
            "nb_buffers": settings.n_buffers,
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


def _filled(sockets: Sequence[int], n_workers: int) -> list[int]:
    return [sockets[min(worker, len(sockets) - 1)] for worker in range(n_workers)]


_arguments: list[Any] = []


def start() -> None:
    """Start the workers."""
    check(lib.onvm_dp_start())


def stop() -> None:
    """Stop the workers; packets still inside are dropped and counted."""
    lib.onvm_dp_stop()


def fini() -> None:
    """Free everything; the process can never init again."""
    lib.onvm_dp_fini()


def add_host(
    services: Sequence[int], n_loaned: int, cpu_socket: int | None = None
) -> tuple[int, Handover]:
    """A slot and the files for a new NF host.

    Args:
        n_loaned: empty buffers that it is lent.
        cpu_socket: whose memory these are from; None: the worker's.
    """
    handover = ffi.new("struct onvm_dp_attach_files *")
    slot = check(
        lib.onvm_dp_host_add(
            ffi.new("uint16_t[]", list(services)),
            len(services),
            n_loaned,
            -1 if cpu_socket is None else cpu_socket,
            handover,
        )
    )
    return slot, Handover(
        memory_fd=handover.memory_fd,
        area_fd=handover.area_fd,
        event_fds=tuple(handover.event_fds[0 : handover.nb_workers]),
        buffer_stride=handover.buffer_stride,
        n_buffers=handover.nb_buffers,
        memory_bytes=handover.memory_bytes,
        area_bytes=handover.area_bytes,
    )


def activate_host(slot: int) -> None:
    """Let new flows come to the host, also when it was draining."""
    check(lib.onvm_dp_host_activate(slot))


def drain_host(slot: int) -> None:
    """Let no new flows come to the host."""
    check(lib.onvm_dp_host_drain(slot))


def pause_host(slot: int, is_paused: bool) -> None:
    """Let no packet enter a path through a draining host, or let them enter again.

    With `reserved` at 0 its state stands still. What comes for it keeps its port waiting.
    """
    check(lib.onvm_dp_host_pause(slot, is_paused))


def leave_host(slot: int, heir: int = 0) -> None:
    """Send the host's flows to others; with `reserved` at 0 it has no packet any more.

    Args:
        heir: slot of the host that takes them all; 0: they are shared out.
    """
    check(lib.onvm_dp_host_leave(slot, heir))


def remove_host(slot: int) -> HostCounters:
    """Take everything back from the host; what it had done in the end."""
    last = ffi.new("struct onvm_dp_host_stats *")
    check(lib.onvm_dp_host_remove(slot, last))
    return _host_counters(last)


def raise_attention(slot: int) -> None:
    """Make the host look at its socket."""
    check(lib.onvm_dp_host_attention(slot))


def set_spare(slot: int, spare_pps: int) -> None:
    """Say how many packets per second of new flows the host can take."""
    check(lib.onvm_dp_host_spare_pps(slot, min(max(spare_pps, 0), 0xFFFFFFFF)))


def claim(slot: int, address: bytes, protocol: int, first_port: int, end_port: int) -> None:
    """Give the host all traffic to ports [first, end) of an address (4 or 16 bytes)."""
    version = 4 if len(address) == 4 else 6
    check(
        lib.onvm_dp_host_claim(
            slot, version, ffi.from_buffer(address), protocol, first_port, end_port
        )
    )


def unclaim(slot: int, address: bytes, protocol: int, first_port: int, end_port: int) -> None:
    """Forget such a claim of the host."""
    version = 4 if len(address) == 4 else 6
    check(
        lib.onvm_dp_host_unclaim(
            slot, version, ffi.from_buffer(address), protocol, first_port, end_port
        )
    )


def set_chain(chain_id: int, spec: ChainSpec) -> None:
    """Set a chain and bind its ports."""
    chain = ffi.new(
        "struct onvm_dp_chain *",
        {
            "near_port": spec.near_port,
            "far_port": spec.far_port,
            "is_bidirectional": spec.is_bidirectional,
            "track_flows": spec.track_flows,
            "by_rules": spec.by_rules,
            "number": spec.number,
            "waits": spec.waits,
            "nb_services": len(spec.services),
            "services": list(spec.services),
        },
    )
    check(lib.onvm_dp_chain_set(chain_id, chain))


def remove_chain(chain_id: int) -> None:
    """Remove a chain; its ports have none then."""
    check(lib.onvm_dp_chain_remove(chain_id))


def drop_reasons() -> dict[str, str]:
    """What each of the manager's own drop reasons means, by name, in the order of the counters."""
    reasons: dict[str, str] = {}
    while (name := lib.onvm_dp_drop_name(len(reasons))) != ffi.NULL:
        text = lib.onvm_dp_drop_text(len(reasons))
        reasons[ffi.string(name).decode()] = ffi.string(text).decode()
    return reasons


def read_plane() -> PlaneCounters:
    """Counters of the data plane as a whole."""
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


def _host_counters(stats: Any) -> HostCounters:
    return HostCounters(
        rx=(stats.rx[0], stats.rx[1]),
        exits=(tuple(stats.exits[0]), tuple(stats.exits[1])),
        drops=tuple(tuple(row) for row in stats.drops),
        originated=tuple(stats.originated),
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
        is_bad=bool(stats.is_bad),
    )


def read_host(slot: int) -> HostCounters:
    """Counters of one NF host."""
    stats = ffi.new("struct onvm_dp_host_stats *")
    check(lib.onvm_dp_read_host(slot, stats))
    return _host_counters(stats)


def read_load(slot: int) -> LoadCounters:
    """Those counters of one NF host that its load is made of."""
    stats = ffi.new("struct onvm_dp_host_stats *")
    check(lib.onvm_dp_read_host(slot, stats))
    return LoadCounters(
        packets=stats.rx[0] + stats.rx[1],
        done=max(ffi.unpack(stats.packets, NB_STAGES)),
        busy_cycles=sum(ffi.unpack(stats.busy_cycles, NB_STAGES)),
        idle_cycles=stats.idle_cycles,
        loops=stats.loops,
        shed=stats.nb_shed,
        reserved=stats.reserved,
        peak=stats.peak,
        latency=tuple(ffi.unpack(stats.latency, NB_LATENCY_BUCKETS)),
        turns=TurnSums(*ffi.unpack(stats.turn_sums, 5)),
    )


def read_flows(limit: int) -> list[FlowRecord]:
    """Up to `limit` flows."""
    cursor = ffi.new("uint32_t *")
    chunk = ffi.new("struct onvm_dp_flow[]", 256)
    records: list[FlowRecord] = []
    while len(records) < limit:
        n = check(lib.onvm_dp_read_flows(cursor, chunk, min(256, limit - len(records))))
        if n == 0:
            break
        records.extend(_flow_record(chunk[i]) for i in range(n))
    return records


def read_flow_hosts(cursor: int, limit: int) -> tuple[int | None, set[int]]:
    """NF hosts that the flows from position `cursor` on take.

    Returns:
        Where to go on (None: those were the last), and the slots of up to `limit` flows.
    """
    position = ffi.new("uint32_t *", cursor)
    chunk = ffi.new("struct onvm_dp_flow[]", limit)
    n = check(lib.onvm_dp_read_flows(position, chunk, limit))
    slots = {slot for i in range(n) for slot in chunk[i].hosts[0 : chunk[i].nb_hops]}
    return (position[0] if n == limit else None), slots


def _flow_record(flow: Any) -> FlowRecord:
    family, length = (socket.AF_INET, 4) if flow.ip_version == 4 else (socket.AF_INET6, 16)
    return FlowRecord(
        src=socket.inet_ntop(family, bytes(flow.src[0:length])),
        dst=socket.inet_ntop(family, bytes(flow.dst[0:length])),
        src_port=flow.src_port,
        dst_port=flow.dst_port,
        protocol=flow.protocol,
        vlan=flow.vlan,
        port=flow.port,
        is_reverse=bool(flow.is_reverse),
        spi=flow.spi,
        chain=flow.chain,
        hosts=tuple(flow.hosts[0 : flow.nb_hops]),
        idle_ms=flow.idle_ms,
    )


def cycles_per_second() -> float:
    """Rate of the TSC, in which `busy_cycles` and `idle_cycles` count."""
    return float(lib.onvm_dp_cycles_per_second())


def worker_cpu_ns(worker: int) -> int:
    """CPU time that a worker has used, in nanoseconds."""
    return int(lib.onvm_dp_worker_cpu_ns(worker))


def notice_fd() -> int:
    """An eventfd, readable when an NF host has broken the rules."""
    return int(lib.onvm_dp_notice_fd())


def latency_bounds_ns() -> list[float]:
    """Lower bounds of the latency buckets, in nanoseconds."""
    return [lib.onvm_dp_latency_bound_ns(i) for i in range(NB_LATENCY_BUCKETS)]
