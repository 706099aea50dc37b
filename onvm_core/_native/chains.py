"""Thin binding of the calls of ``dataplane.h`` for chains and flows."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from onvm_core._native._dataplane import ffi, lib
from onvm_core._native.call import check
from onvm_core.dataplane.values import Affinity, ChainSpec, FlowRecord, Fragments, PortRule

__all__ = ["NativeChains"]

FLOWS_PER_CALL = 256


class NativeChains:
    """See `onvm_core.dataplane.interface.ChainPlane`."""

    def set_chain(self, chain_id: int, spec: ChainSpec) -> None:
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
                "is_unbound": spec.is_unbound,
                "nb_services": len(spec.services),
                "services": list(spec.services),
            },
        )
        check(lib.onvm_dp_chain_set(chain_id, chain))

    def set_wire_sized(self, service: int) -> None:
        check(lib.onvm_dp_service_wire_sized(service))

    def set_affinity(self, service: int, affinity: Affinity) -> None:
        check(lib.onvm_dp_service_affinity(service, affinity))

    def set_fragments(self, service: int, fragments: Fragments) -> None:
        check(lib.onvm_dp_service_fragments(service, fragments))

    def set_lifetimes(self, service: int, lifetimes_ms: Sequence[int]) -> None:
        check(lib.onvm_dp_service_lives(service, list(lifetimes_ms)))

    def remove_chain(self, chain_id: int) -> None:
        check(lib.onvm_dp_chain_remove(chain_id))

    def succeed_chain(self, chain_id: int, successor: int) -> None:
        check(lib.onvm_dp_chain_succeed(chain_id, successor))

    def set_port_rules(self, port: int, rules: Sequence[PortRule]) -> None:
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

    def read_flows(self, limit: int) -> list[FlowRecord]:
        cursor = ffi.new("uint32_t *")
        chunk = ffi.new("struct onvm_dp_flow[]", FLOWS_PER_CALL)
        records: list[FlowRecord] = []
        while len(records) < limit:
            n = check(
                lib.onvm_dp_read_flows(cursor, chunk, min(FLOWS_PER_CALL, limit - len(records)))
            )
            if n == 0:
                break
            records.extend(_flow_record(chunk[i]) for i in range(n))
        return records

    def read_flow_hosts(self, cursor: int, limit: int) -> tuple[int | None, set[int]]:
        position = ffi.new("uint32_t *", cursor)
        chunk = ffi.new("struct onvm_dp_flow[]", limit)
        n = check(lib.onvm_dp_read_flows(position, chunk, limit))
        slots = {slot for i in range(n) for slot in chunk[i].hosts[0 : chunk[i].nb_hops]}
        return (position[0] if n == limit else None), slots


def _flow_record(flow: Any) -> FlowRecord:
    is_v4 = flow.ip_version == 4
    family, length = (socket.AF_INET, 4) if is_v4 else (socket.AF_INET6, lib.ONVM_ADDRESS_BYTES)
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
