"""Thin binding of the calls of ``dataplane.h`` for ports."""

from __future__ import annotations

import errno
from typing import Any

import msgspec

from onvm_core._native._dataplane import ffi, lib
from onvm_core._native.call import check, ip_address
from onvm_core.dataplane.interface import DataplaneError
from onvm_core.dataplane.values import (
    EthdevPort,
    GenCounters,
    GenPort,
    KindOptions,
    PacketPort,
    PortCounters,
    PortLosses,
    PortOptions,
    TunnelPort,
)

__all__ = ["NativePorts"]


class NativePorts:
    """See `onvm_core.dataplane.interface.PortPlane`."""

    def open_port(self, name: str, options: PortOptions) -> int:
        if isinstance(options, TunnelPort):
            version, data = ip_address(options.address)
            return check(
                lib.onvm_dp_tunnel_open(name.encode(), version, data, options.vni, options.security)
            )
        return _open(name, options)

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
            losses=PortLosses(
                missed=stats.nb_missed,
                no_buffer=stats.nb_no_buffer,
                rx_errors=stats.nb_rx_errors,
                refused=stats.nb_refused,
                large=stats.nb_large,
                down=stats.nb_down,
                unwritten=stats.nb_unwritten,
            ),
            fault=ffi.string(stats.fault).decode(errors="replace"),
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


def _open(name: str, options: KindOptions) -> int:
    """Open a port of the kind that is named like the class of its options."""
    kind = type(options).__name__.removesuffix("Port").lower()
    texts: list[Any] = []  # C's strings live as long as these

    def native(value: object) -> Any:
        if value is None:
            return ffi.NULL
        if isinstance(value, str):
            texts.append(ffi.new("char[]", value.encode()))
            return texts[-1]
        return value

    fields = _fields(options)
    members = {member: native(value) for member, value in fields.items()}
    native_options = ffi.new("union onvm_port_options *", {kind: members})
    return check(
        lib.onvm_dp_port_open(
            name.encode(), getattr(lib, f"ONVM_PORT_KIND_{kind.upper()}"), native_options
        )
    )


def _fields(options: KindOptions) -> dict[str, object]:
    """The members of the kind's struct: those of `options`, but for what C calls differently."""
    fields = {
        f"nb_{field.removeprefix('n_')}" if field.startswith("n_") else field: value
        for field, value in msgspec.structs.asdict(options).items()
    }
    if isinstance(options, EthdevPort | PacketPort):
        fields["node"] = -1 if options.numa_node is None else options.numa_node
        del fields["numa_node"]
    if isinstance(options, GenPort):
        if options.role not in ("client", "server"):
            raise DataplaneError(errno.EINVAL, f"role {options.role}: expected client or server")
        fields["is_server"] = fields.pop("role") == "server"
        fields["no_answer"] = not fields.pop("answer")
        fields["servers"] = ",".join(options.servers) or None
    return fields
