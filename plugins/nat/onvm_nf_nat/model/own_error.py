# SPDX-License-Identifier: Apache-2.0
"""Errors of ICMP that the NAT itself sends."""

from __future__ import annotations

import struct

from onvm_nf_nat.model.reading import QUERIES, REPLIES
from onvm_nf_nat.model.table import NS
from onvm_sdk.headers import ICMP, Headers, checksum

__all__ = [
    "PORT_UNREACHABLE",
    "PROHIBITED",
    "TOO_BIG",
    "TTL",
    "Bucket",
    "is_answerable",
    "own_error",
]

PORT_UNREACHABLE, TOO_BIG, PROHIBITED = (3, 3), (3, 4), (3, 13)
TTL = (11, 0)
_QUOTED_MAX = 576 - 28  # RFC 1812 4.3.2.3


class Bucket:
    """How many errors may leave: `per_s` in a second, and so many at once (RFC 1812 4.3.2.8)."""

    def __init__(self, per_s: int) -> None:
        self.per_s, self.due_ns = per_s, 0

    def take(self, now_ns: int) -> bool:
        if not self.per_s:
            return False
        interval = NS // self.per_s
        due_ns = max(self.due_ns, now_ns)
        if due_ns - now_ns > interval * (self.per_s - 1):
            return False
        self.due_ns = due_ns + interval
        return True


def is_answerable(frame: bytes, h: Headers) -> bool:
    """Whether an error about it may be sent (RFC 1122 3.2.2)."""
    if h.fragment_offset or frame[0] & 1:
        return False
    return h.protocol != ICMP or frame[h.l4_offset] in (*QUERIES, *REPLIES)


def own_error(
    frame: bytes, h: Headers, source: bytes, kind: tuple[int, int], mtu: int = 0
) -> bytes:
    """Make an error about a frame, with the MAC addresses as they are in it."""
    quote = frame[h.l3_offset : h.l4_offset + h.l4_length][:_QUOTED_MAX]
    icmp = struct.pack("!BBHHH", *kind, 0, 0, mtu) + quote
    icmp = icmp[:2] + checksum(icmp).to_bytes(2, "big") + icmp[4:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0x4000, 64, ICMP, 0)
    ip += source + h.src
    ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    return frame[: h.l3_offset] + ip + icmp
