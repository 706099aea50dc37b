# SPDX-License-Identifier: Apache-2.0
"""New addresses and ports in a packet, with the checksums that follow."""

from __future__ import annotations

from onvm_nf_nat.model.reading import Endpoint
from onvm_sdk.headers import ICMP, L4, TCP, UDP, Headers, checksum

__all__ = ["error_rewritten", "replaced", "rewritten", "turned", "updated", "with_address"]


def turned(frame: bytes) -> bytes:
    return frame[6:12] + frame[:6] + frame[12:]


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def updated(old_checksum: bytes, old: bytes, new: bytes) -> bytes:
    """RFC 1624 equation 3."""
    total = 0xFFFF ^ int.from_bytes(old_checksum, "big")
    for i in range(0, len(old), 2):
        total += 0xFFFF ^ int.from_bytes(old[i : i + 2].ljust(2, b"\0"), "big")
    for i in range(0, len(new), 2):
        total += int.from_bytes(new[i : i + 2].ljust(2, b"\0"), "big")
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (0xFFFF ^ total).to_bytes(2, "big")


def set_end(data: bytes, h: Headers, end: Endpoint, is_src: bool) -> bytes:
    """Replace one end of the packet whose headers are `h`, with its own checksums."""
    at = h.l3_offset + (12 if is_src else 16)
    is_icmp = h.protocol == ICMP
    port_at = h.l4_offset + (4 if is_icmp else 0 if is_src else 2)
    address, port = end[0], end[1].to_bytes(2, "big")
    old_address, old_port = data[at : at + 4], data[port_at : port_at + 2]
    data = replaced(replaced(data, at, address), port_at, port)
    ip_sum = h.l3_offset + 10
    data = replaced(data, ip_sum, updated(data[ip_sum : ip_sum + 2], old_address, address))
    offset = {TCP: 16, UDP: 6, ICMP: 2}[h.protocol]
    l4_sum, old = h.l4_offset + offset, b"" if is_icmp else old_address
    value = data[l4_sum : l4_sum + 2]
    if offset + 2 > h.l4_length or (h.protocol == UDP and value == b"\0\0"):
        return data
    value = updated(value, old + old_port, (b"" if is_icmp else address) + port)
    if h.protocol == UDP and value == b"\0\0":
        value = b"\xff\xff"
    return replaced(data, l4_sum, value)


def with_address(data: bytes, h: Headers, address: bytes, *, is_src: bool) -> bytes:
    """Replace one address of a packet of any protocol, with the checksums that cover it."""
    at, ip_sum = h.l3_offset + (12 if is_src else 16), h.l3_offset + 10
    old = data[at : at + 4]
    data = replaced(data, at, address)
    data = replaced(data, ip_sum, updated(data[ip_sum : ip_sum + 2], old, address))
    offset = {TCP: 16, UDP: 6, 136: 6, 33: 6, 58: 2}.get(h.protocol)
    if h.l4 is not L4.OK or offset is None or offset + 2 > h.l4_length:
        return data
    value = data[h.l4_offset + offset : h.l4_offset + offset + 2]
    if h.protocol == UDP and value == b"\0\0":
        return data
    value = updated(value, old, address)
    if h.protocol == UDP and value == b"\0\0":
        value = b"\xff\xff"
    return replaced(data, h.l4_offset + offset, value)


def rewritten(
    frame: bytes, h: Headers, src: Endpoint | None = None, dst: Endpoint | None = None
) -> bytes:
    end = src or dst
    assert end is not None
    return set_end(frame, h, end, is_src=src is not None)


def error_rewritten(
    frame: bytes,
    h: Headers,
    inner: Headers,
    src: Endpoint | None = None,
    dst: Endpoint | None = None,
) -> bytes:
    """Replace one end of the embedded packet, and the other end of the error itself."""
    end = src or dst
    assert end is not None
    data = set_end(frame, inner, end, is_src=src is not None)
    at = h.l3_offset + (16 if src else 12)
    old, data = data[at : at + 4], replaced(data, at, end[0])
    ip_sum = h.l3_offset + 10
    data = replaced(data, ip_sum, updated(data[ip_sum : ip_sum + 2], old, end[0]))
    return replaced(
        data,
        h.l4_offset + 2,
        checksum(
            replaced(data, h.l4_offset + 2, b"\0\0")[h.l4_offset : h.l4_offset + h.l4_length]
        ).to_bytes(2, "big"),
    )
