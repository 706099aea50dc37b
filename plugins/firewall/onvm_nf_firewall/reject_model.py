# SPDX-License-Identifier: Apache-2.0
"""Answers to rejected packets in plain Python: a TCP reset or an ICMP error.

Readings chosen:

* The answer goes back to the sender of the frame, in its VLANs, from the packet's destination: the
  firewall has no address of its own.
* RFC 1122 section 3.2.2 and RFC 4443 section 2.4 say what no error answers: other errors, and
  packets to or from a group, as a frame or as a packet. Nothing answers a fragment. A reset answers
  no reset. A segment without an acknowledgement gets one of what it would take (RFC 9293 3.10.7.1).
* An error quotes as much as fits into 576 bytes of IPv4 or 1280 bytes of IPv6.
"""

from __future__ import annotations

import struct

from onvm_sdk.headers import ICMP, ICMPV6, L4, TCP, Headers, checksum

__all__ = ["answer"]

_RST, _ACK = 4, 16
_SIZES = {4: 576, 6: 1280}
_CODES = {
    4: {"auto": 3, "port": 3, "host": 1, "net": 0, "admin": 13},
    6: {"auto": 4, "port": 4, "host": 3, "net": 0, "admin": 1},
}
_TTL = 64


def _is_group(address: bytes) -> bool:
    """Whether it is no address of one host."""
    if len(address) == 4:
        return address[0] >= 224 or address[0] == 0
    return address[0] == 0xFF or address == bytes(16)


def _is_error(frame: bytes, h: Headers) -> bool:
    if (h.version, h.protocol) == (4, ICMP):
        return h.l4 is not L4.OK or frame[h.l4_offset] not in (0, 8, 13, 14, 15, 16, 17, 18)
    if (h.version, h.protocol) == (6, ICMPV6):
        return h.l4 is not L4.OK or frame[h.l4_offset] < 128 or frame[h.l4_offset] == 137
    return False


def answer(frame: bytes, h: Headers, kind: str) -> bytes | None:
    """Return the frame that goes back, or None if nothing may."""
    is_to_group = bool(frame[0] & 1 or frame[6] & 1)
    if h.is_fragment or is_to_group or _is_group(h.src) or _is_group(h.dst):
        return None
    if _is_error(frame, h):
        return None
    if h.protocol == TCP and kind in ("auto", "reset"):
        l4 = _reset(frame, h)
    else:
        l4 = _error(frame, h, _CODES[h.version][kind])
    return None if l4 is None else frame[6:12] + frame[:6] + frame[12 : h.l3_offset] + l4


def _header(h: Headers, protocol: int, l4: bytes) -> bytes:
    if h.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(l4), protocol, _TTL) + h.dst + h.src
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0x4000, _TTL, protocol, 0)
    head += h.dst + h.src
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:]


def _sealed(h: Headers, protocol: int, l4: bytes, at: int) -> bytes:
    """Return an IP packet with the checksum of its transport header at `at`."""
    pseudo = b""
    if protocol != ICMP:
        pseudo = h.dst + h.src + struct.pack("!II", len(l4), protocol)
    value = checksum(pseudo + l4)
    return _header(h, protocol, l4) + l4[:at] + value.to_bytes(2, "big") + l4[at + 2 :]


def _reset(frame: bytes, h: Headers) -> bytes | None:
    seq, ack = struct.unpack_from("!II", frame, h.l4_offset + 4)
    if h.tcp_flags & _RST:
        return None
    flags, number, acked = _RST, ack, 0
    if not h.tcp_flags & _ACK:
        header = (frame[h.l4_offset + 12] >> 4) * 4
        taken = h.l4_length - header + bool(h.tcp_flags & 2) + bool(h.tcp_flags & 1)
        flags, number, acked = _RST | _ACK, 0, (seq + taken) & 0xFFFF_FFFF
    l4 = struct.pack("!HHIIBBHHH", h.dst_port, h.src_port, number, acked, 5 << 4, flags, 0, 0, 0)
    return _sealed(h, TCP, l4, 16)


def _error(frame: bytes, h: Headers, code: int) -> bytes:
    end = h.l4_offset + h.l4_length
    quoted = frame[h.l3_offset : end]
    if h.version == 4:
        l4 = struct.pack("!BBHI", 3, code, 0, 0) + quoted[: _SIZES[4] - 28]
        return _sealed(h, ICMP, l4, 2)
    l4 = struct.pack("!BBHI", 1, code, 0, 0) + quoted[: _SIZES[6] - 48]
    return _sealed(h, ICMPV6, l4, 2)
