# SPDX-License-Identifier: Apache-2.0
"""Packets as `onvm_nf_lb.model` changes and makes them."""

from __future__ import annotations

from onvm_sdk.headers import ICMP, ICMPV6, TCP, UDP, Headers, checksum

__all__ = [
    "End",
    "echo_reply",
    "embedded",
    "encapsulated",
    "error_done",
    "may_be_too_big",
    "reset",
    "set_end",
    "too_big",
    "unreachable",
]

End = tuple[bytes, int]
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_EXTENSIONS = (0, 43, 44, 51, 60, 135, 139, 140)


def _replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _updated(data: bytes, at: int, old: bytes, new: bytes) -> bytes:
    """Update the checksum at `at` (RFC 1624 equation 3)."""
    total = 0xFFFF ^ int.from_bytes(data[at : at + 2], "big")
    for i in range(0, len(old), 2):
        total += 0xFFFF ^ int.from_bytes(old[i : i + 2].ljust(2, b"\0"), "big")
        total += int.from_bytes(new[i : i + 2].ljust(2, b"\0"), "big")
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return _replaced(data, at, (0xFFFF ^ total).to_bytes(2, "big"))


def set_end(data: bytes, h: Headers, is_src: bool, end: End) -> bytes:
    """Replace one end of the packet whose headers are `h`, with its own checksums."""
    size = len(end[0])
    at = h.l3_offset + (12 if h.version == 4 else 8) + (0 if is_src else size)
    port_at, port = h.l4_offset + (0 if is_src else 2), end[1].to_bytes(2, "big")
    old = data[at : at + size], data[port_at : port_at + 2]
    data = _replaced(_replaced(data, at, end[0]), port_at, port)
    if h.version == 4:
        data = _updated(data, h.l3_offset + 10, old[0], end[0])
    offset = 16 if h.protocol == TCP else 6
    sum_at = h.l4_offset + offset
    if offset + 2 > h.l4_length or (h.protocol == UDP and data[sum_at : sum_at + 2] == b"\0\0"):
        return data
    data = _updated(data, sum_at, b"".join(old), end[0] + port)
    if h.protocol == UDP and data[sum_at : sum_at + 2] == b"\0\0":
        data = _replaced(data, sum_at, b"\xff\xff")
    return data


def embedded(frame: bytes, h: Headers) -> Headers | None:
    """Read the packet inside an error, if it is one of TCP or UDP."""
    ip = frame[h.l4_offset + 8 : h.l4_offset + h.l4_length]
    if len(ip) < 20 or ip[0] >> 4 != h.version:
        return None
    inner = Headers(version=h.version, l3_offset=h.l4_offset + 8)
    if h.version == 4:
        size, inner.protocol = (ip[0] & 15) * 4, ip[9]
        inner.src, inner.dst = ip[12:16], ip[16:20]
        if size < 20 or int.from_bytes(ip[6:8], "big") & 0x1FFF:
            return None
    else:
        if len(ip) < 40:
            return None
        inner.src, inner.dst = ip[8:24], ip[24:40]
        size, inner.protocol = _behind_extensions(ip)
    l4 = ip[size:]
    if len(l4) < 8 or inner.protocol not in (TCP, UDP):
        return None
    inner.l4_offset, inner.l4_length = inner.l3_offset + size, len(l4)
    inner.src_port, inner.dst_port = (int.from_bytes(l4[i : i + 2], "big") for i in (0, 2))
    return inner


def _behind_extensions(ip: bytes) -> tuple[int, int]:
    """Where the transport header of IPv6 begins, and its protocol."""
    size, protocol = 40, ip[6]
    for _ in range(16):
        if protocol not in _EXTENSIONS or len(ip) < size + 8:
            break
        if protocol == 44 and int.from_bytes(ip[size + 2 : size + 4], "big") & 0xFFF8:
            break  # not the first fragment
        length = 8 if protocol == 44 else (ip[size + 1] + 1) * 8
        if protocol == 51:
            length = (ip[size + 1] + 2) * 4
        size, protocol = size + length, ip[size]
    return size, protocol


def error_done(before: bytes, after: bytes, h: Headers, is_src: bool, address: bytes) -> bytes:
    """Replace an end of the error itself; its checksum covers what it quotes, which has changed."""
    end, sum_at = h.l4_offset + h.l4_length, h.l4_offset + 2
    at = h.l3_offset + (12 if h.version == 4 else 8) + (0 if is_src else len(address))
    old, after = after[at : at + len(address)], _replaced(after, at, address)
    if h.version == 4:
        after = _updated(after, h.l3_offset + 10, old, address)
    else:
        after = _updated(after, sum_at, old, address)
    return _updated(after, sum_at, before[sum_at + 2 : end], after[sum_at + 2 : end])


def _turned(frame: bytes, h: Headers) -> bytes:
    return frame[6:12] + frame[:6] + frame[12 : h.l3_offset]


def echo_reply(frame: bytes, h: Headers) -> bytes:
    at, size, icmp = h.l3_offset + (12 if h.version == 4 else 8), len(h.src), h.l4_offset
    ttl_at = h.l3_offset + (8 if h.version == 4 else 7)
    old, data = frame, _turned(frame, h) + frame[h.l3_offset :]
    data = _replaced(_replaced(data, at, h.dst), at + size, h.src)
    data = _replaced(data, ttl_at, bytes([64]))
    if h.version == 4:
        data = _updated(data, h.l3_offset + 10, old[ttl_at : ttl_at + 2], data[ttl_at : ttl_at + 2])
    data = _replaced(data, icmp, bytes([0 if h.version == 4 else 129]))
    return _updated(data, icmp + 2, old[icmp : icmp + 2], data[icmp : icmp + 2])


def _ip(h: Headers, protocol: int, l4: bytes, sum_at: int) -> bytes:
    """An IP packet back to where one came from."""
    pseudo = h.dst + h.src + len(l4).to_bytes(4, "big") + protocol.to_bytes(4, "big")
    value = checksum((b"" if protocol == ICMP else pseudo) + l4)
    l4 = _replaced(l4, sum_at, value.to_bytes(2, "big"))
    if h.version == 6:
        return (
            b"\x60\0\0\0" + len(l4).to_bytes(2, "big") + bytes([protocol, 64]) + h.dst + h.src + l4
        )
    head = (
        b"\x45\0" + (20 + len(l4)).to_bytes(2, "big") + b"\0\0\x40\0" + bytes([64, protocol, 0, 0])
    )
    head += h.dst + h.src
    return _replaced(head, 10, checksum(head).to_bytes(2, "big")) + l4


def reset(frame: bytes, h: Headers) -> bytes:
    """The answer to a segment for a port that is closed (RFC 9293 section 3.5.2)."""
    l4 = frame[h.l4_offset : h.l4_offset + h.l4_length]
    number, acknowledged = int.from_bytes(l4[4:8], "big"), l4[8:12]
    if h.tcp_flags & _ACK:
        middle, flags = acknowledged + bytes(4), _RST
    else:
        length = len(l4) - (l4[12] >> 4) * 4 + bool(h.tcp_flags & _SYN) + bool(h.tcp_flags & _FIN)
        middle, flags = bytes(4) + ((number + length) % (1 << 32)).to_bytes(4, "big"), _RST | _ACK
    segment = l4[2:4] + l4[:2] + middle + bytes([0x50, flags]) + bytes(6)
    return _turned(frame, h) + _ip(h, TCP, segment, 16)


def unreachable(frame: bytes, h: Headers) -> bytes:
    """Port unreachable (RFC 792, RFC 4443)."""
    return _error(frame, h, b"\x03\x03" if h.version == 4 else b"\x01\x04", 0)


def may_be_too_big(frame: bytes, h: Headers) -> bool:
    """Whether the sender may be told that a packet is too big."""
    errors = (3, 4, 11, 12) if h.version == 4 else (1, 2, 3, 4)
    if h.protocol in (ICMP, ICMPV6) and frame[h.l4_offset] in errors:
        return False
    return h.version == 6 or bool(frame[h.l3_offset + 6] & 0x40)


def too_big(frame: bytes, h: Headers, mtu: int) -> bytes:
    """Fragmentation needed (RFC 1191), packet too big (RFC 4443)."""
    return _error(frame, h, b"\x03\x04" if h.version == 4 else b"\x02\x00", mtu)


def _error(frame: bytes, h: Headers, kind: bytes, mtu: int) -> bytes:
    """An error with what fits into the smallest packets."""
    most = 548 if h.version == 4 else 1232
    quoted = frame[h.l3_offset : h.l4_offset + h.l4_length][:most]
    protocol = ICMP if h.version == 4 else ICMPV6
    content = kind + bytes(2) + mtu.to_bytes(4, "big") + quoted
    return _turned(frame, h) + _ip(h, protocol, content, 2)


def encapsulated(
    frame: bytes, h: Headers, source: bytes, to: bytes, ports: tuple[int, int] | None
) -> bytes:
    """An IP packet around that of a frame, with UDP between them if there are ports."""
    inner = frame[h.l3_offset : h.l4_offset + h.l4_length]
    traffic_class = inner[1] if h.version == 4 else (inner[0] << 4 | inner[1] >> 4) & 0xFF
    protocol, payload = 4 if h.version == 4 else 41, inner
    if ports is not None:
        size = (8 + len(inner)).to_bytes(2, "big")
        head = b"".join(port.to_bytes(2, "big") for port in ports) + size
        protocol, payload = UDP, head + bytes(2) + inner
        if len(to) == 16:
            pseudo = source + to + len(payload).to_bytes(4, "big") + UDP.to_bytes(4, "big")
            value = checksum(pseudo + payload) or 0xFFFF
            payload = head + value.to_bytes(2, "big") + inner
    if len(to) == 16:
        first = 6 << 28 | traffic_class << 20
        outer = first.to_bytes(4, "big") + len(payload).to_bytes(2, "big")
        outer += bytes([protocol, 64]) + source + to
    else:
        outer = bytes([0x45, traffic_class]) + (20 + len(payload)).to_bytes(2, "big")
        outer += b"\0\0\x40\0" + bytes([64, protocol, 0, 0]) + source + to
        outer = _replaced(outer, 10, checksum(outer).to_bytes(2, "big"))
    kind = b"\x86\xdd" if len(to) == 16 else b"\x08\x00"
    return frame[: h.l3_offset - 2] + kind + outer + payload
