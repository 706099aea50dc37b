"""Filters of pcap-filter(7), for packets and for flows."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

from onvm_core.dataplane.interface import CapturePlane, DataplaneError
from onvm_core.dataplane.values import FlowRecord
from onvm_sdk.errors import ConfigError

__all__ = ["check_filter", "matching_flows"]

FRAME_BYTES = 78
_TCP, _UDP, _SCTP = 6, 17, 132


def check_filter(plane: CapturePlane, text: str) -> None:
    """Check that libpcap understands a filter.

    Raises:
        ConfigError: it does not.
    """
    try:
        plane.match_filter(text, [])
    except DataplaneError as error:
        raise ConfigError(
            f"expected a filter as in pcap-filter(7): {error}", field="filter", value=text
        ) from None


def matching_flows(plane: CapturePlane, text: str, flows: Sequence[FlowRecord]) -> list[FlowRecord]:
    """The flows whose packets a filter chooses, as far as 5-tuple and VLAN tell.

    Raises:
        ConfigError: libpcap does not understand the filter.
    """
    check_filter(plane, text)
    matches = plane.match_filter(text, [_frame(flow) for flow in flows])
    return [flow for flow, is_match in zip(flows, matches, strict=True) if is_match]


def _frame(flow: FlowRecord) -> bytes:
    """A frame of the flow, without content."""
    src, dst = ipaddress.ip_address(flow.src), ipaddress.ip_address(flow.dst)
    tag = struct.pack("!HH", 0x8100, flow.vlan) if flow.vlan else b""
    ports = struct.pack("!HH", flow.src_port, flow.dst_port)
    transport = ports if flow.protocol in (_TCP, _UDP, _SCTP) else b"\0" * 4
    if flow.protocol == _TCP:
        transport += struct.pack("!IIBB", 0, 0, 0x50, 0x10)
    if src.version == 4:
        kind = 0x0800
        head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, flow.protocol, 0)
    else:
        kind = 0x86DD
        head = struct.pack("!IHBB", 6 << 28, 20, flow.protocol, 64)
    frame = bytes(12) + tag + struct.pack("!H", kind) + head + src.packed + dst.packed + transport
    return frame.ljust(FRAME_BYTES, b"\0")
