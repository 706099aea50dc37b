"""Make a manager's report from the counters of its data plane."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from onvm_core.dataplane.interface import CounterPlane, DataPlane
from onvm_core.dataplane.values import HostCounters, PlaneCounters, PortCounters
from onvm_core.export.report import (
    BufferReport,
    GeneratorReport,
    Latency,
    LoadReport,
    NfReport,
    NodeBuffers,
    PortReport,
    Report,
)
from onvm_core.manager.manager import Manager
from onvm_core.manager.nf_hosts.registry import HostState, NfHost, Registry
from onvm_core.scaling.load import quantile

__all__ = [
    "buffer_report",
    "cpu_seconds",
    "latency_of",
    "load_report",
    "make_report",
    "retire_dead",
]


LOAD_OVER_S = 1.0


def buffer_report(plane: PlaneCounters) -> BufferReport:
    """Number of buffers in each place, by the counters of the data plane."""
    nodes = [
        NodeBuffers(
            area.node,
            area.total,
            area.free,
            area.with_nfs,
            f"the kernel gives no memory of it: {os.strerror(area.bind_errno)}"
            if area.bind_errno
            else "",
        )
        for area in plane.areas
    ]
    return BufferReport(plane.buffers_total, plane.buffers_free, plane.buffers_with_nfs, nodes)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latency_of(plane: CounterPlane, histogram: Sequence[int]) -> Latency:
    """Quantiles of a latency histogram of the data plane; see `quantile`."""
    bounds = plane.latency_bounds_ns()
    return Latency(quantile(histogram, bounds, 0.5), quantile(histogram, bounds, 0.99))


def _reason(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) and names[index] else f"reason_{index}"


def _stage_rx(counters: HostCounters, stage: int) -> int:
    """Packets that reached a stage, in each direction: without those that left at earlier ones."""
    forward = counters.rx[0] - sum(counters.exits[0][:stage])
    backward = counters.rx[1] - sum(counters.exits[1][stage + 1 :])
    return forward + backward


def load_report(manager: Manager, host: NfHost) -> LoadReport | None:
    """The load of a host over the last second."""
    meter = manager.meters.of(host)
    load = None if meter is None else meter.over(LOAD_OVER_S)
    if meter is None or load is None:
        return None
    spare_pps = meter.spare_pps(load)
    return LoadReport(
        seconds=round(load.seconds, 3),
        packets=load.packets,
        busy_cycles=load.busy_cycles,
        idle_cycles=load.idle_cycles,
        cycles_per_packet=round(load.cycles_per_packet, 1),
        occupancy_mean=round(load.occupancy_mean, 4),
        occupancy_peak=round(load.occupancy_peak, 4),
        sheds=load.sheds,
        queue=Latency(load.p50_us, load.p99_us),
        utilisation=round(load.utilisation, 4),
        spare_pps=None if spare_pps is None else int(spare_pps),
    )


def _nf_reports(
    plane: DataPlane, host: NfHost, cpu: float, load: LoadReport | None = None
) -> list[NfReport]:
    counters = host.last if host.last is not None else plane.read_host(host.slot)
    busy = sum(counters.busy_cycles) or 1
    reports = []
    for stage, instance in enumerate(host.instances):
        rx = _stage_rx(counters, stage)
        drops = {
            _reason(instance.reasons, index): count
            for index, count in enumerate(counters.drops[stage])
            if count
        }
        is_dead = host.state is HostState.DEAD
        inside = counters.lost if is_dead and stage == 0 else 0
        held = 0 if is_dead else counters.held[stage]
        packets = counters.packets[stage]
        reports.append(
            NfReport(
                service=instance.service,
                instance=instance.name,
                state=host.life,
                pid=host.pid,
                rx=rx,
                tx=max(rx - sum(drops.values()) - inside - held, 0),
                originated=counters.originated[stage],
                drops=drops,
                latency=latency_of(plane, counters.latency),
                cpu=round(cpu * counters.busy_cycles[stage] / busy, 3),
                cycles_per_packet=round(counters.busy_cycles[stage] / packets, 1) if packets else 0,
                counters={
                    name: counters.counters[stage][index]
                    for index, name in enumerate(instance.counters)
                    if name
                },
                reason=host.reason,
                load=load,
                held=held,
                hold_refused=counters.hold_refused[stage],
            )
        )
    return reports


def _generator(plane: DataPlane, port: int, name: str) -> GeneratorReport:
    counters = plane.read_gen(port)
    return GeneratorReport(
        port=name,
        opened=counters.opened,
        completed=counters.completed,
        failed=counters.failed,
        requests=counters.requests,
        replies=counters.replies,
        lost=counters.lost,
        bad_checksum=counters.bad_checksum,
        bad_payload=counters.bad_payload,
        out_of_order=counters.out_of_order,
        unexpected=counters.unexpected,
        rtt=latency_of(plane, counters.rtt),
    )


def retire_dead(plane: DataPlane, registry: Registry, keep: int) -> None:
    """Keep only the sums of drops of most dead hosts: a manager lives long.

    One stays for each name, and of these the last `keep`.
    """
    dead = [host for host in registry.hosts if host.state is HostState.DEAD]
    last = {tuple(one.name for one in host.instances): id(host) for host in dead}
    kept = {id(host) for host in [one for one in dead if id(one) in last.values()][-keep:]}
    for host in (host for host in dead if id(host) not in kept):
        for nf in _nf_reports(plane, host, 0.0):
            _add_drops(registry.retired_drops, nf)
        registry.hosts.remove(host)


def _add_drops(drops: dict[str, int], nf: NfReport) -> None:
    for reason, count in nf.drops.items():
        key = f"{nf.service}.{reason}"
        drops[key] = drops.get(key, 0) + count


def _order(manager: Manager, host: NfHost) -> tuple[int, int]:
    return manager.registry.service_id(host.services[0]), manager.registry.hosts.index(host)


def _state(port: PortCounters) -> Literal["up", "down", "gone"]:
    if port.is_gone:
        return "gone"
    return "down" if port.is_down else "up"


def _lost(port: PortCounters) -> dict[str, int]:
    return {name: n for name, n in msgspec.structs.asdict(port.losses).items() if n}


def make_report(manager: Manager, ports: Mapping[int, tuple[str, str]], seconds: float) -> Report:
    """Read all counters: those of outgoing packets first, then those of incoming ones.

    So a packet that passes meanwhile may count as inside, but never as sent and not received.

    Args:
        ports: name and URI by port ID.
        seconds: how long packets have been flowing.
    """
    seconds = max(seconds, 1e-9)
    plane = manager.plane
    total = plane.read_plane()
    drops = {reason: count for reason, count in total.drops.items() if count}
    drops.update(manager.registry.retired_drops)
    nfs: list[NfReport] = []
    for host in sorted(manager.registry.hosts, key=lambda h: _order(manager, h)):
        used = host.cpu_seconds if host.state is HostState.DEAD else cpu_seconds(host.pid)
        cpu = max(used - host.cpu_before, 0.0) / seconds
        nfs.extend(_nf_reports(plane, host, cpu, load_report(manager, host)))
    for nf in nfs:
        _add_drops(drops, nf)
    sent = {port: plane.read_port(port) for port in ports}
    came = plane.read_plane()
    received = {port: plane.read_port(port) for port in ports}
    shown = [
        PortReport(
            name=name,
            uri=uri,
            rx=received[port].rx,
            rx_bytes=received[port].rx_bytes,
            tx=sent[port].tx,
            tx_bytes=sent[port].tx_bytes,
            mpps=round((received[port].rx + sent[port].tx) / seconds / 1e6, 3),
            latency=latency_of(plane, sent[port].latency),
            state=_state(received[port]),
            lost=_lost(received[port]),
            fault=received[port].fault,
        )
        for port, (name, uri) in ports.items()
    ]
    generators = [
        _generator(plane, port, name)
        for port, (name, uri) in ports.items()
        if uri.startswith("gen:") and plane.read_gen(port).sent
    ]
    rx = came.closed_rx + sum(port.rx for port in shown)
    return Report(
        rx=rx,
        originated=came.originated,
        tx=total.closed_tx + sum(port.tx for port in shown),
        drops=dict(sorted(drops.items())),
        nfs=nfs,
        ports=shown,
        generators=[report for report in generators if report.opened],
        buffers=buffer_report(total),
        flows=total.flows,
        seconds=round(seconds, 6),
        mpps=round(rx / seconds / 1e6, 3),
    )
