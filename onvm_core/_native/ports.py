"""Thin binding of the calls of ``dataplane.h`` for ports."""

from __future__ import annotations

import errno

from onvm_core._native._dataplane import ffi, lib
from onvm_core._native.call import check, ip_address
from onvm_core.dataplane.interface import DataplaneError
from onvm_core.dataplane.values import (
    DevicePort,
    GenCounters,
    GeneratorPort,
    NullPort,
    PcapPort,
    PortCounters,
    PortOptions,
    TunnelPort,
)

__all__ = ["NativePorts"]


class NativePorts:
    """See `onvm_core.dataplane.interface.PortPlane`."""

    def open_port(self, name: str, options: PortOptions) -> int:
        match options:
            case NullPort():
                return _open_null(name, options)
            case PcapPort():
                return _open_pcap(name, options)
            case DevicePort():
                return _open_device(name, options)
            case GeneratorPort():
                return _open_generator(name, options)
            case TunnelPort():
                version, data = ip_address(options.address)
                return check(lib.onvm_dp_tunnel_open(name.encode(), version, data, options.vni))

    def close_port(self, port: int) -> None:
        check(lib.onvm_dp_port_close(port))

    def pause_sources(self, is_paused: bool) -> None:
        lib.onvm_dp_pause_sources(is_paused)

    def read_port(self, port: int) -> PortCounters:
        stats = ffi.new("struct onvm_dp_port_stats *")
        check(lib.onvm_dp_read_port(port, stats))
        return PortCounters(
            rx=stats.rx,
            rx_bytes=stats.rx_bytes,
            tx=stats.tx,
            tx_bytes=stats.tx_bytes,
            is_finished=bool(stats.is_finished),
            n_held=stats.nb_held,
            is_gone=bool(stats.is_gone),
            is_down=bool(stats.is_down),
            n_missed=stats.nb_missed,
            n_no_buffer=stats.nb_no_buffer,
            n_rx_errors=stats.nb_rx_errors,
            n_tx_errors=stats.nb_tx_errors,
            latency=tuple(stats.latency),
        )

    def read_gen(self, port: int) -> GenCounters:
        stats = ffi.new("struct onvm_dp_gen_stats *")
        check(lib.onvm_dp_read_gen(port, stats))
        return GenCounters(
            sent=stats.sent,
            received=stats.received,
            opened=stats.opened,
            completed=stats.completed,
            failed=stats.failed,
            tcp=stats.tcp,
            udp=stats.udp,
            icmp=stats.icmp,
            ipv6=stats.ipv6,
            requests=stats.requests,
            replies=stats.replies,
            lost=stats.lost,
            bad_checksum=stats.bad_checksum,
            bad_payload=stats.bad_payload,
            out_of_order=stats.out_of_order,
            unexpected=stats.unexpected,
            n_active=stats.nb_active,
            is_finished=bool(stats.is_finished),
            rtt=tuple(stats.rtt),
        )


def _open_null(name: str, port: NullPort) -> int:
    return check(
        lib.onvm_dp_port_null(
            name.encode(),
            port.size,
            port.n_flows,
            port.is_random,
            port.is_source,
            port.n_queues,
            port.rate_pps,
            port.count,
        )
    )


def _open_pcap(name: str, port: PcapPort) -> int:
    source = ffi.NULL if port.rx_path is None else port.rx_path.encode()
    sink = ffi.NULL if port.tx_path is None else port.tx_path.encode()
    return check(
        lib.onvm_dp_port_pcap(name.encode(), source, sink, port.loop, port.rate_pps, port.count)
    )


def _open_device(name: str, port: DevicePort) -> int:
    return check(
        lib.onvm_dp_port_ethdev(
            name.encode(),
            port.device.encode(),
            port.n_queues,
            port.mtu,
            port.needs_copy,
            port.is_promiscuous,
            -1 if port.numa_node is None else port.numa_node,
        )
    )


def _open_generator(name: str, port: GeneratorPort) -> int:
    if port.role not in ("client", "server"):
        raise DataplaneError(
            errno.EINVAL, f"port {name}: role {port.role}: expected client or server"
        )
    vip = ffi.NULL if port.vip is None else ffi.new("char[]", port.vip.encode())
    servers = ffi.new("char[]", ",".join(port.servers).encode()) if port.servers else ffi.NULL
    options = ffi.new(
        "struct onvm_gen_options *",
        {
            "is_server": port.role == "server",
            "nb_flows": port.flows,
            "rate_pps": port.rate_pps,
            "count": port.count,
            "seed": port.seed,
            "ipv6_percent": port.ipv6_percent,
            "tcp_percent": port.tcp_percent,
            "udp_percent": port.udp_percent,
            "size": port.size,
            "timeout_ms": port.timeout_ms,
            "no_answer": not port.answer,
            "vip_percent": port.vip_percent,
            "vip_port": port.vip_port,
            "vip": vip,
            "servers": servers,
        },
    )
    return check(lib.onvm_dp_port_gen(name.encode(), options))
