"""Thin binding of those calls of ``dataplane.h`` that are about ports."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from onvm_core._native._dataplane import ffi, lib
from onvm_core._native.dataplane import DataplaneError, check
from onvm_core._native.values import GenCounters, PortCounters, PortRule


def open_null(
    name: str, *, size: int = 64, n_flows: int = 0, is_random: bool = False,
    is_source: bool = True, n_queues: int = 1, rate_pps: int = 0, count: int = 0,
) -> int:  # fmt: skip
    """Open a "null" port; its ID."""
    return check(
        lib.onvm_dp_port_null(
            name.encode(), size, n_flows, is_random, is_source, n_queues, rate_pps, count
        )
    )


def open_pcap(
    name: str, *, rx_path: str | None, tx_path: str | None, loop: int, rate_pps: int, count: int
) -> int:
    """Open a "pcap" port; its ID."""
    source = ffi.NULL if rx_path is None else rx_path.encode()
    sink = ffi.NULL if tx_path is None else tx_path.encode()
    return check(lib.onvm_dp_port_pcap(name.encode(), source, sink, loop, rate_pps, count))


def open_ethdev(
    name: str, device: str,
    *, n_queues: int, mtu: int, needs_copy: bool, is_promiscuous: bool, socket: int | None = None,
) -> int:  # fmt: skip
    """Open a port over a DPDK driver; its ID.

    Args:
        socket: CPU socket of the NIC behind a virtual device; None: there is none, or unknown.
    """
    return check(
        lib.onvm_dp_port_ethdev(
            name.encode(),
            device.encode(),
            n_queues,
            mtu,
            needs_copy,
            is_promiscuous,
            -1 if socket is None else socket,
        )
    )


def open_gen(
    name: str,
    *,
    role: str,
    flows: int = 1024,
    seed: int = 1,
    rate_pps: int = 0,
    count: int = 0,
    ipv6_percent: int = 20,
    tcp_percent: int = 70,
    udp_percent: int = 25,
    size: int = 0,
    timeout_ms: int = 0,
    answer: bool = True,
    vip: str | None = "198.51.100.10",
    vip_port: int = 80,
    vip_percent: int = 30,
    servers: Sequence[str] = (),
) -> int:
    """Open a "gen" port; its ID.

    Args:
        role: ``client`` (opens connections) or ``server`` (answers; only `rate_pps` counts).
        flows: connections at a time.
        count: packets that the client sends in all; 0: endless.
        ipv6_percent, tcp_percent, udp_percent: of connections; the rest is ICMP echo.
        size: bytes of frames with data, with frame check sequence; 0: IMIX.
        timeout_ms: after which a silent connection has failed; 0: follows the RTT.
        answer: False: go on as if answered, for chains without a server.
        vip_percent: of IPv4 TCP connections that go to `vip`.
        servers: addresses of the other connections' destinations.
    """
    if role not in ("client", "server"):
        raise DataplaneError(errno.EINVAL, f"port {name}: role {role}: expected client or server")
    vip_text = ffi.NULL if vip is None else ffi.new("char[]", vip.encode())
    servers_text = ffi.new("char[]", ",".join(servers).encode()) if servers else ffi.NULL
    options = ffi.new(
        "struct onvm_gen_options *",
        {
            "is_server": role == "server",
            "nb_flows": flows,
            "rate_pps": rate_pps,
            "count": count,
            "seed": seed,
            "ipv6_percent": ipv6_percent,
            "tcp_percent": tcp_percent,
            "udp_percent": udp_percent,
            "size": size,
            "timeout_ms": timeout_ms,
            "no_answer": not answer,
            "vip_percent": vip_percent,
            "vip_port": vip_port,
            "vip": vip_text,
            "servers": servers_text,
        },
    )
    return check(lib.onvm_dp_port_gen(name.encode(), options))


def close_port(port: int) -> None:
    """Close a port that no chain uses."""
    check(lib.onvm_dp_port_close(port))


def pause_sources(is_paused: bool) -> None:
    """Let sources rest, or read them again."""
    lib.onvm_dp_pause_sources(is_paused)


def set_port_rules(port: int, rules: Sequence[PortRule]) -> None:
    """Let new flows from `port` take the chain of the first rule that they match.

    Those that match none take the chain that the port is bound to; running flows stay.
    """
    native = ffi.new("struct onvm_dp_rule[]", max(len(rules), 1))
    for slot, rule in zip(native, rules, strict=False):
        versions = {prefix.version for prefix in (rule.src, rule.dst) if prefix is not None}
        slot.ip_version = versions.pop() if versions else 0
        slot.any_protocol = rule.protocol is None
        slot.protocol = rule.protocol or 0
        if rule.src is not None:
            ffi.memmove(slot.src, rule.src.network_address.packed, rule.src.max_prefixlen // 8)
            slot.src_prefix = rule.src.prefixlen
        if rule.dst is not None:
            ffi.memmove(slot.dst, rule.dst.network_address.packed, rule.dst.max_prefixlen // 8)
            slot.dst_prefix = rule.dst.prefixlen
        slot.src_port_first, slot.src_port_last = rule.src_ports
        slot.dst_port_first, slot.dst_port_last = rule.dst_ports
        slot.chain = rule.chain
    check(lib.onvm_dp_port_rules(port, native, len(rules)))


def read_port(port: int) -> PortCounters:
    """Counters of one port."""
    stats = ffi.new("struct onvm_dp_port_stats *")
    check(lib.onvm_dp_read_port(port, stats))
    return PortCounters(
        rx=stats.rx,
        rx_bytes=stats.rx_bytes,
        tx=stats.tx,
        tx_bytes=stats.tx_bytes,
        is_finished=bool(stats.is_finished),
        n_held=stats.nb_held,
        latency=tuple(stats.latency),
    )


def read_gen(port: int) -> GenCounters:
    """Counters of a generator."""
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
