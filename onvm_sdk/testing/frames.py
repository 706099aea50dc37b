# SPDX-License-Identifier: Apache-2.0
"""Ethernet frames for tests, without scapy: addresses are text, checksums are correct."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from onvm_sdk.headers import checksum, read_headers

__all__ = ["ACK", "FIN", "RST", "SYN", "echo", "icmp_error", "ip", "is_sound", "tcp", "udp"]

FIN, SYN, RST, ACK = 1, 2, 4, 16
_CHECKSUM_AT = {6: 16, 17: 6, 1: 2, 58: 2}
_MACS = bytes.fromhex("020000000002020000000001")


def _pseudo(src: bytes, dst: bytes, protocol: int, l4: bytes) -> bytes:
    return src + dst + struct.pack("!II", len(l4), protocol)


def ip(
    src: str, dst: str, protocol: int, l4: bytes, fragment: int = 0, *, options: bytes = b""
) -> bytes:
    """Wrap `l4` in IPv4 or IPv6, depending on the addresses, and fill in its checksum.

    Args:
        fragment: the flags and the offset of IPv4, as in its header.
        options: options of IPv4, a multiple of 4 bytes.
    """
    a, b = ip_address(src).packed, ip_address(dst).packed
    at = _CHECKSUM_AT.get(protocol)
    if at is not None and len(l4) >= at + 2 and not fragment & 0x1FFF:
        l4 = l4[:at] + b"\0\0" + l4[at + 2 :]
        value = checksum(b"" if protocol == 1 else _pseudo(a, b, protocol, l4)) ^ 0xFFFF
        total = checksum(value.to_bytes(2, "big") + l4)
        l4 = (
            l4[:at] + (total or (0xFFFF if protocol == 17 else 0)).to_bytes(2, "big") + l4[at + 2 :]
        )
    if len(a) == 16:
        head = struct.pack("!IHBB", 6 << 28, len(l4), protocol, 64)
        return _MACS + b"\x86\xdd" + head + a + b + l4
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH", 0x40 | words, 0, 4 * words + len(l4), 1, fragment, 64, protocol, 0
    )
    head += a + b + options
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return _MACS + b"\x08\x00" + head + l4


def tcp(
    src: str,
    sport: int,
    dst: str,
    dport: int,
    flags: int = ACK,
    payload: bytes = b"",
    *,
    seq: int = 1,
    ack: int = 1,
    window: int = 512,
    options: bytes = b"",
    fragment: int = 0,
) -> bytes:
    """Make a TCP segment.

    Args:
        seq, ack: any integers; the 32 bits of them that fit.
        options: a multiple of 4 bytes.
        fragment: the flags and the offset of IPv4, as in its header.
    """
    words, seq, ack = 5 + len(options) // 4, seq & 0xFFFF_FFFF, ack & 0xFFFF_FFFF
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, words << 4, flags, window, 0, 0)
    return ip(src, dst, 6, head + options + payload, fragment)


def udp(src: str, sport: int, dst: str, dport: int, payload: bytes = b"") -> bytes:
    """Make a UDP datagram."""
    return ip(src, dst, 17, struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload)


def echo(src: str, dst: str, identifier: int, kind: int | None = None) -> bytes:
    """Make an ICMP or ICMPv6 echo request, or another query of type `kind`."""
    protocol, request = (58, 128) if ":" in src else (1, 8)
    kind = request if kind is None else kind
    return ip(src, dst, protocol, struct.pack("!BBHHH", kind, 0, 0, identifier, 1) + b"ping")


def icmp_error(src: str, dst: str, about: bytes, kind: int | None = None, size: int = 48) -> bytes:
    """Make an ICMP or ICMPv6 error about the frame `about`.

    Args:
        kind: the type; None: destination unreachable.
        size: how many bytes of that packet the error carries.
    """
    protocol, unreachable = (58, 1) if ":" in src else (1, 3)
    kind = unreachable if kind is None else kind
    return ip(src, dst, protocol, struct.pack("!BBHI", kind, 1, 0, 0) + about[14:][:size])


def is_sound(frame: bytes) -> bool:
    """Check all checksums of an unfragmented frame."""
    h = read_headers(frame)
    l4 = frame[h.l4_offset : h.l4_offset + h.l4_length]
    if h.version == 4 and checksum(frame[h.l3_offset : h.l4_offset]) != 0:
        return False
    if h.protocol == 17 and h.version == 4 and l4[6:8] == b"\0\0":
        return True
    pseudo = b"" if h.protocol == 1 else _pseudo(h.src, h.dst, h.protocol, l4)
    return checksum(pseudo + l4) == 0
