# SPDX-License-Identifier: Apache-2.0
"""Read a frame's headers in plain Python.

This is a slow and short version of ``onvm/parse.h``. Plugins' ``model.py`` use it, and tests
compare the C parser with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = ["L3", "L4", "Headers", "checksum", "read_headers"]

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
_FRAGMENT: Final = 44
_AH: Final = 51
_EXTENSIONS: Final = frozenset({0, 43, 60, 135, 139, 140, _AH})
_EXTENSIONS_MAX: Final = 16
_VLANS: Final = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})
_VLANS_MAX: Final = 4
_LEAST: Final = {TCP: 20, UDP: 8, 136: 8, 132: 12, 33: 12, ICMP: 8, ICMPV6: 8}


class L3(IntEnum):
    """Status of the network layer (``enum onvm_l3_status``)."""

    OK = 0
    NONIP = 1
    SHORT = 2
    BAD_VERSION = 3
    BAD_IHL = 4
    BAD_LENGTH = 5


class L4(IntEnum):
    """Status of the transport layer (``enum onvm_l4_status``)."""

    OK = 0
    NONE = 1
    SHORT = 2
    FRAGMENT = 3
    BAD_HEADER = 4


@dataclass(slots=True)
class Headers:
    """The headers of one frame, with the fields of ``struct onvm_headers``."""

    l3: L3 = L3.OK
    l4: L4 = L4.NONE
    ethertype: int = 0
    vlans: tuple[int, ...] = ()
    version: int = 0
    protocol: int = 0
    l3_offset: int = 0
    l4_offset: int = 0
    l4_length: int = 0
    src: bytes = b""
    dst: bytes = b""
    src_port: int = 0
    dst_port: int = 0
    has_ports: bool = False
    tcp_flags: int = 0
    fragment_offset: int = 0
    fragment_header: int = 0
    more_fragments: bool = False
    icmp_id: int = 0

    @property
    def is_fragment(self) -> bool:
        return self.more_fragments or self.fragment_offset != 0


def checksum(data: bytes) -> int:
    """Return the Internet checksum of `data` (RFC 1071)."""
    total = sum(
        int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2)
    )
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _be16(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 2], "big")


def read_headers(frame: bytes) -> Headers:
    """Read the headers of an Ethernet frame."""
    h = Headers()
    if len(frame) < 14:
        h.l3 = L3.NONIP
        return h
    offset, ethertype = 14, _be16(frame, 12)
    for _ in range(_VLANS_MAX):
        if ethertype not in _VLANS:
            break
        if len(frame) < offset + 4:
            h.l3 = L3.SHORT
            return h
        h.vlans += (_be16(frame, offset),)
        offset, ethertype = offset + 4, _be16(frame, offset + 2)
    h.ethertype = ethertype
    h.l3_offset = h.l4_offset = offset
    if ethertype == 0x0800:
        _read_ipv4(frame, offset, h)
    elif ethertype == 0x86DD:
        _read_ipv6(frame, offset, h)
    else:
        h.l3 = L3.NONIP
    return h


def _read_ipv4(frame: bytes, offset: int, h: Headers) -> None:
    ip = frame[offset:]
    if ip and ip[0] >> 4 != 4:
        h.l3 = L3.BAD_VERSION
        return
    if len(ip) < 20:
        h.l3 = L3.SHORT
        return
    header_length, total = (ip[0] & 15) * 4, _be16(ip, 2)
    if header_length < 20:
        h.l3 = L3.BAD_IHL
        return
    if header_length > len(ip):
        h.l3 = L3.SHORT
        return
    if not header_length <= total <= len(ip):
        h.l3 = L3.BAD_LENGTH
        return
    h.version, h.protocol, h.src, h.dst = 4, ip[9], ip[12:16], ip[16:20]
    h.more_fragments = bool(ip[6] & 0x20)
    h.fragment_offset = (_be16(ip, 6) & 0x1FFF) * 8
    _read_l4(frame[: offset + total], offset + header_length, h)


def _read_ipv6(frame: bytes, offset: int, h: Headers) -> None:
    ip = frame[offset:]
    if ip and ip[0] >> 4 != 6:
        h.l3 = L3.BAD_VERSION
        return
    if len(ip) < 40:
        h.l3 = L3.SHORT
        return
    packet = frame[: offset + 40 + _be16(ip, 4)]
    if len(ip) < 40 + _be16(ip, 4):
        h.l3 = L3.BAD_LENGTH
        return
    h.version, h.src, h.dst = 6, ip[8:24], ip[24:40]
    h.protocol, cursor = ip[6], offset + 40
    for number in range(_EXTENSIONS_MAX + 1):
        if h.protocol not in _EXTENSIONS and h.protocol != _FRAGMENT:
            _read_l4(packet, cursor, h)
            return
        left = len(packet) - cursor
        if left < 8:
            break
        step = {_FRAGMENT: 8, _AH: (packet[cursor + 1] + 2) * 4}.get(
            h.protocol, (packet[cursor + 1] + 1) * 8
        )
        if h.protocol == _FRAGMENT:
            h.fragment_header = cursor
            h.fragment_offset = _be16(packet, cursor + 2) & 0xFFF8
            h.more_fragments = bool(packet[cursor + 3] & 1)
        h.protocol = packet[cursor]
        if step > left or number == _EXTENSIONS_MAX:
            break
        cursor += step
        if h.fragment_offset:
            _read_l4(packet, cursor, h)
            return
    h.l4_offset, h.l4 = cursor, L4.SHORT


def _read_l4(packet: bytes, offset: int, h: Headers) -> None:
    l4 = packet[offset:]
    h.l4_offset, h.l4_length = offset, len(l4)
    if h.fragment_offset:
        h.l4 = L4.FRAGMENT
    elif h.protocol not in _LEAST:
        h.l4 = L4.NONE
    elif len(l4) < _LEAST[h.protocol]:
        h.l4 = L4.SHORT
    else:
        h.l4 = L4.OK
        _read_transport(l4, h)


def _read_transport(l4: bytes, h: Headers) -> None:
    if h.protocol in (ICMP, ICMPV6):
        h.src_port = _be16(l4, 0)
        if l4[0] in ((8, 0) if h.protocol == ICMP else (128, 129)):
            h.dst_port = h.icmp_id = _be16(l4, 4)
        return
    h.has_ports, h.src_port, h.dst_port = True, _be16(l4, 0), _be16(l4, 2)
    if h.protocol == TCP:
        h.tcp_flags = l4[13]
        size = (l4[12] >> 4) * 4
        if size < 20 or (size > len(l4) and not h.more_fragments):
            h.l4 = L4.BAD_HEADER
    if h.protocol == UDP and not h.more_fragments and not 8 <= _be16(l4, 4) <= len(l4):
        h.l4 = L4.BAD_HEADER
