# SPDX-License-Identifier: Apache-2.0
"""The IP/ICMP translation algorithm (RFC 7915), and the addresses of RFC 6052."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Network

from onvm_nf_nat.model.reading import ERRORS, Drop
from onvm_nf_nat.model.writing import replaced, updated
from onvm_sdk.headers import ICMP, ICMPV6, TCP, UDP, Headers, checksum, read_headers

__all__ = ["Ends", "embed", "extract", "is_error6", "quoted_addresses", "to4", "to6"]

_FRAGMENT = 44
_CHECKSUM_AT = {TCP: 16, UDP: 6}
_QUOTED_WHOLE_MAX = 1280
_PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)  # RFC 1191 7.1
_UNREACHABLE_TO4 = {0: 1, 1: 10, 2: 1, 3: 1, 4: 3}
_UNREACHABLE_TO6 = {
    **dict.fromkeys((0, 1, 5, 6, 7, 8, 11, 12), 0),
    **dict.fromkeys((9, 10, 13, 15), 1),
    3: 4,
}
_POINTER_TO4 = {0: 0, 1: 1, 4: 2, 5: 2, 6: 9, 7: 8}
_POINTER_TO4 |= {**dict.fromkeys(range(8, 24), 12), **dict.fromkeys(range(24, 40), 16)}
_POINTER_TO6 = {0: 0, 1: 1, 2: 4, 3: 4, 8: 7, 9: 6}
_POINTER_TO6 |= {**dict.fromkeys(range(12, 16), 8), **dict.fromkeys(range(16, 20), 24)}


@dataclass
class Ends:
    """What addresses become: of the packet, and of the one that an error quotes."""

    src: bytes
    dst: bytes
    quoted_src: bytes = b""
    quoted_dst: bytes = b""


def _places(prefix: IPv6Network) -> list[int]:
    """Where the four bytes of the IPv4 address are; the ninth byte is zero."""
    first = prefix.prefixlen // 8
    return [at for at in range(first, first + 5) if at != 8][:4]


def extract(prefix: IPv6Network, address: bytes) -> bytes:
    """Read the IPv4 address in an address of the prefix."""
    return bytes(address[at] for at in _places(prefix))


def embed(prefix: IPv6Network, address: bytes) -> bytes:
    """Make the address of the prefix that stands for an IPv4 address."""
    made = bytearray(prefix.network_address.packed)
    for at, byte in zip(_places(prefix), address, strict=True):
        made[at] = byte
    return bytes(made)


def is_error6(frame: bytes, h: Headers) -> bool:
    return h.protocol == ICMPV6 and not h.fragment_offset and 1 <= frame[h.l4_offset] <= 4


def _pseudo(src: bytes, dst: bytes, length: int, protocol: int) -> bytes:
    return src + dst + struct.pack("!HH", length & 0xFFFF, protocol)


def _header4(
    src: bytes, dst: bytes, *, tos: int, length: int, identification: int, flags: int, ttl: int,
    protocol: int,
) -> bytes:  # fmt: skip
    ip = struct.pack(
        "!BBHHHBBH", 0x45, tos, (20 + length) & 0xFFFF, identification, flags, ttl, protocol, 0
    )
    ip += src + dst
    return ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]


def _header6(
    src: bytes, dst: bytes, *, tos: int, length: int, hops: int, protocol: int,
    fragment: tuple[int, int] | None,
) -> bytes:  # fmt: skip
    """`fragment`: offset and flag, identification."""
    behind = b""
    if fragment:
        behind = struct.pack("!BBHI", protocol, 0, *fragment)
        protocol = _FRAGMENT
    length = (length + len(behind)) & 0xFFFF
    return struct.pack("!IHBB", 6 << 28 | tos << 20, length, protocol, hops) + src + dst + behind


def _extensions(ip: bytes, size: int) -> bytes | None:
    """Give the fragment header, or b"" without one.

    Raises:
        Drop: a header has no counterpart in IPv4.
    """
    at, kind, fragment = 40, ip[6], b""
    while at + 8 <= size:
        if kind not in (0, 60, _FRAGMENT) and (kind != 43 or ip[at + 3]):
            raise Drop("protocol")
        if kind == _FRAGMENT:
            fragment = ip[at : at + 8]
        step = 8 if kind == _FRAGMENT else (ip[at + 1] + 1) * 8
        kind, at = ip[at], at + step
    return fragment


def _echo(l4: bytes, old: bytes, new: bytes, types: dict[int, int]) -> bytes:
    """`old`, `new`: the pseudo-headers."""
    if l4[0] not in types:
        raise Drop("protocol")
    kind = bytes((types[l4[0]], l4[1]))
    value = updated(l4[2:4], old + l4[:2], new + kind)
    return kind + value + l4[4:]


def _with_sum(l4: bytes, protocol: int, old: bytes, new: bytes) -> bytes:
    at = _CHECKSUM_AT[protocol]
    value = l4[at : at + 2]
    if len(value) < 2 or (protocol == UDP and value == b"\0\0"):
        return l4
    value = updated(value, old, new)
    if protocol == UDP and value == b"\0\0":
        value = b"\xff\xff"
    return replaced(l4, at, value)


def _framed(frame: bytes, h: Headers, ethertype: int, packet: bytes) -> bytes:
    trailer = b""
    if packet[0] >> 4 == 4 or h.version == 4:
        trailer = frame[h.l4_offset + h.l4_length :]
    return frame[: h.l3_offset - 2] + ethertype.to_bytes(2, "big") + packet + trailer


def to4(frame: bytes, h: Headers, ends: Ends, hops: int, identification: int) -> bytes:
    """Translate an IPv6 frame.

    Raises:
        Drop: it has no counterpart.
    """
    ip = frame[h.l3_offset :]
    fragment = _extensions(ip, h.l4_offset - h.l3_offset)
    tos, ttl = (ip[0] << 4 | ip[1] >> 4) & 0xFF, max(ip[7] - hops, 0)
    l4 = frame[h.l4_offset : h.l4_offset + h.l4_length]
    protocol = ICMP if h.protocol == ICMPV6 else h.protocol
    if h.is_fragment and h.protocol == ICMPV6:
        raise Drop("fragment")
    flags = 0 if 20 + len(l4) <= 1260 else 0x4000
    if h.is_fragment:
        assert fragment
        flags = (0x2000 if h.more_fragments else 0) | h.fragment_offset // 8
        identification = int.from_bytes(fragment[6:], "big")
    if flags == 0x4000:
        identification = 0
    is_error = is_error6(frame, h)
    if is_error:
        l4 = _error4(l4, ends)
    elif h.protocol == ICMPV6:
        old = _pseudo(h.src, h.dst, h.l4_length, ICMPV6)
        l4 = _echo(l4, old, b"", {128: 8, 129: 0})
    elif not h.fragment_offset:
        if h.protocol == UDP and l4[6:8] == b"\0\0":
            raise Drop("malformed")
        l4 = _with_sum(l4, h.protocol, h.src + h.dst, ends.src + ends.dst)
    head = _header4(
        ends.src, ends.dst, tos=tos, length=len(l4), identification=identification, flags=flags,
        ttl=ttl, protocol=protocol,
    )  # fmt: skip
    made = _framed(frame, h, 0x0800, head + l4)
    return made[: h.l3_offset + len(head + l4)] if is_error else made


def to6(frame: bytes, h: Headers, ends: Ends, hops: int) -> bytes:
    """Translate an IPv4 frame.

    Raises:
        Drop: it has no counterpart.
    """
    ip = frame[h.l3_offset :]
    _check_options(ip, h.l4_offset - h.l3_offset)
    l4 = frame[h.l4_offset : h.l4_offset + h.l4_length]
    protocol = ICMPV6 if h.protocol == ICMP else h.protocol
    if h.is_fragment and h.protocol == ICMP:
        raise Drop("fragment")
    fragment = None
    if h.is_fragment:
        fragment = h.fragment_offset | h.more_fragments, int.from_bytes(ip[4:6], "big")
    is_error = h.protocol == ICMP and l4[0] in ERRORS
    if is_error:
        l4 = _error6(l4, ends)
        l4 = _summed6(l4, ends, ICMPV6, 2)
    elif h.protocol == ICMP:
        new = _pseudo(ends.src, ends.dst, len(l4), ICMPV6)
        l4 = _echo(l4, b"", new, {8: 128, 0: 129})
    elif not h.fragment_offset and h.protocol == UDP and l4[6:8] == b"\0\0":
        if fragment:
            raise Drop("fragment")
        length = int.from_bytes(l4[4:6], "big")
        l4 = _summed6(l4[:length], ends, UDP, 6) + l4[length:]
    elif not h.fragment_offset:
        l4 = _with_sum(l4, h.protocol, h.src + h.dst, ends.src + ends.dst)
    head = _header6(
        ends.src, ends.dst, tos=ip[1], length=len(l4), hops=max(ip[8] - hops, 0),
        protocol=protocol, fragment=fragment,
    )  # fmt: skip
    made = _framed(frame, h, 0x86DD, head + l4)
    return made[: h.l3_offset + len(head + l4)] if is_error else made


def _summed6(l4: bytes, ends: Ends, protocol: int, at: int) -> bytes:
    pseudo = _pseudo(ends.src, ends.dst, len(l4), protocol)
    value = checksum(pseudo + replaced(l4, at, b"\0\0"))
    return replaced(l4, at, (value or (0xFFFF if protocol == UDP else 0)).to_bytes(2, "big"))


def _check_options(ip: bytes, size: int) -> None:
    """RFC 7915 4.1: a source route that is not over."""
    at = 20
    while at < size and ip[at]:
        length = 1 if ip[at] == 1 or at + 1 == size else ip[at + 1]
        if not length or at + length > size:
            raise Drop("protocol")
        if ip[at] in (131, 137) and (length < 3 or ip[at + 2] <= length):
            raise Drop("protocol")
        at += length


def _quoted(version: int, ip: bytes) -> Headers:
    """Headers of a quoted packet, which may be cut short."""
    whole = ip + bytes(65536 - len(ip))
    h = read_headers(bytes(12) + (b"\x08\0" if version == 4 else b"\x86\xdd") + whole)
    h.l3_offset, h.l4_offset = 0, h.l4_offset - 14
    h.l4_length = len(ip) - h.l4_offset
    if ip[0] >> 4 != version or h.fragment_offset or h.l4_length < 8:
        raise Drop("malformed")
    return h


def quoted_addresses(frame: bytes, h: Headers) -> tuple[bytes, bytes]:
    """Source and destination of the packet that an ICMPv6 error quotes.

    Raises:
        Drop: the error is damaged.
    """
    l4 = frame[h.l4_offset : h.l4_offset + h.l4_length]
    if checksum(_pseudo(h.src, h.dst, len(l4), ICMPV6) + l4) or len(l4) < 48:
        raise Drop("malformed")
    return l4[16:32], l4[32:48]


def _error4(l4: bytes, ends: Ends) -> bytes:
    kind, code, ip = l4[0], l4[1], l4[8:]
    _quoted(6, ip)
    head = _error4_head(kind, code, int.from_bytes(l4[4:8], "big"))
    if kind in (1, 3) and l4[4]:  # RFC 4884
        ip = ip[: l4[4] * 8]
    inner = _quoted(6, l4[8:])
    size = inner.l4_offset
    fragment = _extensions(l4[8:], size)
    if len(ip) < size + 8:
        raise Drop("malformed")
    inner_l4 = ip[size:][: _QUOTED_WHOLE_MAX - 48]
    length = int.from_bytes(ip[4:6], "big") + 40 - size
    if length < 0:
        raise Drop("malformed")
    more = bool(fragment and fragment[3] & 1)
    protocol = ICMP if inner.protocol == ICMPV6 else inner.protocol
    quote_head = _header4(
        ends.quoted_src, ends.quoted_dst, tos=(ip[0] << 4 | ip[1] >> 4) & 0xFF, length=length,
        identification=int.from_bytes(fragment[6:], "big") if more and fragment else 0,
        flags=0x2000 if more else 0x4000, ttl=ip[7], protocol=protocol,
    )  # fmt: skip
    if protocol == ICMP:
        old = _pseudo(ip[8:24], ip[24:40], length, ICMPV6)
        inner_l4 = _quoted_echo(inner_l4, old, b"", (128, 8, 0))
    elif protocol in _CHECKSUM_AT:
        inner_l4 = _with_sum(inner_l4, protocol, ip[8:40], ends.quoted_src + ends.quoted_dst)
    made = head + quote_head + inner_l4
    return made[:2] + checksum(made).to_bytes(2, "big") + made[4:]


def _quoted_echo(l4: bytes, old: bytes, new: bytes, types: tuple[int, int, int]) -> bytes:
    """`types`: what a request has, what it becomes, and what anything else becomes."""
    request, first, other = types
    kind = bytes((first if l4[0] == request else other, l4[1]))
    return kind + updated(l4[2:4], old + l4[:2], new + kind) + l4[4:]


def _error4_head(kind: int, code: int, value: int) -> bytes:
    if kind == 1 and code in _UNREACHABLE_TO4:
        return bytes((3, _UNREACHABLE_TO4[code], 0, 0, 0, 0, 0, 0))
    if kind == 2:
        mtu = min(max(value - 20, 68), 65535) if value <= 65535 else 65535
        return struct.pack("!BBHHH", 3, 4, 0, 0, mtu)
    if kind == 3:
        return bytes((11, code, 0, 0, 0, 0, 0, 0))
    if (kind, code) == (4, 1):
        return bytes((3, 2, 0, 0, 0, 0, 0, 0))
    if (kind, code) == (4, 0) and value in _POINTER_TO4:
        return bytes((12, 0, 0, 0, _POINTER_TO4[value], 0, 0, 0))
    raise Drop("protocol")


def _error6(l4: bytes, ends: Ends) -> bytes:
    ip = l4[8:]
    inner = _quoted(4, ip)
    size, total = inner.l4_offset, int.from_bytes(ip[2:4], "big")
    head = _error6_head(l4, total)
    if l4[5]:  # RFC 4884
        ip = ip[: l4[5] * 4]
    if len(ip) < size + 8 or total < size:
        raise Drop("malformed")
    more = bool(ip[6] & 0x20)
    fragment = (1, int.from_bytes(ip[4:6], "big")) if more else None
    inner_l4 = ip[size:][: _QUOTED_WHOLE_MAX - 48 - 40 - (8 if more else 0)]
    protocol = ICMPV6 if ip[9] == ICMP else ip[9]
    quote_head = _header6(
        ends.quoted_src, ends.quoted_dst, tos=ip[1], length=total - size, hops=ip[8],
        protocol=protocol, fragment=fragment,
    )  # fmt: skip
    if ip[9] == ICMP:
        new = _pseudo(ends.quoted_src, ends.quoted_dst, total - size, ICMPV6)
        inner_l4 = _quoted_echo(inner_l4, b"", new, (8, 128, 129))
    elif protocol in _CHECKSUM_AT:
        inner_l4 = _with_sum(inner_l4, protocol, ip[12:20], ends.quoted_src + ends.quoted_dst)
    return head + quote_head + inner_l4


def _error6_head(l4: bytes, total: int) -> bytes:
    kind, code = l4[0], l4[1]
    if kind == 3 and code == 2:
        return bytes((4, 1, 0, 0, 0, 0, 0, 6))
    if kind == 3 and code == 4:
        mtu = int.from_bytes(l4[6:8], "big") or next(
            (step for step in _PLATEAUS if step < total), 68
        )
        return struct.pack("!BBHI", 2, 0, 0, max(mtu + 20, 1280))
    if kind == 3 and code in _UNREACHABLE_TO6:
        return bytes((1, _UNREACHABLE_TO6[code], 0, 0, 0, 0, 0, 0))
    if kind == 11:
        return bytes((3, code, 0, 0, 0, 0, 0, 0))
    if kind == 12 and code in (0, 2) and l4[4] in _POINTER_TO6:
        return bytes((4, 0, 0, 0, 0, 0, 0, _POINTER_TO6[l4[4]]))
    raise Drop("protocol")
