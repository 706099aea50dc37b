# SPDX-License-Identifier: Apache-2.0
"""Packets before and after the model, and how it reads and makes them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from onvm_nf_router.config import Address
from onvm_sdk.headers import L3, L4, Headers, checksum, read_headers

NS = 1_000_000_000
ARP = bytes.fromhex("0806000108000604")
IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
ICMP, ICMPV6 = 1, 58
LINK_LOCAL = ip_network("fe80::/10")
_MARTIANS = [ip_network(net) for net in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16")]


class Drop(Exception):  # noqa: N818  a verdict
    """The packet goes; `args` has the reason."""


@dataclass(frozen=True)
class Arrived:
    """A packet before the router.

    Attributes:
        buffer: tells packets apart that are inside.
        first: the router is the first NF on its way.
        last: the router is the last one.
        largest: it came in fragments, the largest of which had so many bytes.
    """

    data: bytes
    port: int
    buffer: int = 0
    first: bool = True
    last: bool = True
    largest: int = 0


@dataclass(frozen=True)
class Done:
    """A packet after it: dropped for a reason, out of a port, or on along the chain.

    The data of a packet that is dropped is b"".
    """

    data: bytes
    reason: str = ""
    out: int | None = None


def untagged(packet: Arrived) -> tuple[Arrived, int]:
    """A packet without its VLAN tag, and the VLAN."""
    data = packet.data
    if len(data) < 18 or data[12:14] != b"\x81\x00":
        return packet, 0
    vlan = int.from_bytes(data[14:16], "big") & 0xFFF
    return replace(packet, data=data[:12] + data[16:]), vlan


def read_again(packet: Arrived) -> Done:
    """A packet that other NFs have had."""
    h = read_headers(packet.data)
    if h.l3 is not L3.OK or h.l3_offset != 14:
        raise Drop("malformed")
    return Done(packet.data)


def read(frame: bytes) -> Headers:
    """Headers of a frame that may be cut off."""
    h = Headers()
    h.version = 4 if frame[12:14] == IPV4 else 6
    h.src, h.dst = (frame[26:30], frame[30:34]) if h.version == 4 else (frame[22:38], frame[38:54])
    h.protocol = frame[23] if h.version == 4 else frame[20]
    h.l4_offset = 14 + ((frame[14] & 15) * 4 if h.version == 4 else 40)
    return h


def ends(data: bytes) -> tuple[Address, Address]:
    h = read(data)
    return ip_address(h.src), ip_address(h.dst)


def ip_length(data: bytes) -> int:
    is_v4 = data[12:14] == IPV4
    return int.from_bytes(data[16:18], "big") if is_v4 else 40 + int.from_bytes(data[18:20], "big")


def is_martian(address: Address) -> bool:
    if address.version == 4:
        return int(address) >= 0xE0000000 or any(address in net for net in _MARTIANS)
    return int(address) <= 1 or address.packed[0] == 0xFF


def is_unspeakable(frame: bytes, h: Headers) -> bool:
    type_ = frame[h.l4_offset] if len(frame) > h.l4_offset else 0
    if h.version == 4:
        is_error = h.protocol == ICMP and type_ not in (0, 8) and type_ < 13
        later = int.from_bytes(frame[20:22], "big") & 0x1FFF
        return bool(later) or h.src[0] >= 224 or h.src[0] in (0, 127) or is_error
    is_error = h.protocol == ICMPV6 and type_ < 128
    return h.src[0] == 0xFF or h.src[:2] == b"\0\0" or is_error


def pseudo_header(source: Address, destination: Address, body: bytes) -> bytes:
    return source.packed + destination.packed + struct.pack("!II", len(body), ICMPV6)


def with_checksum(body: bytes, pseudo: bytes = b"") -> bytes:
    body = body[:2] + b"\0\0" + body[4:]
    return body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]


def ipv4(source: Address, destination: Address, ttl: int, body: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0xC0, 20 + len(body), 0, 0, ttl, ICMP, 0)
    head += source.packed + destination.packed
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return head + with_checksum(body)


def ipv6(source: Address, destination: Address, hops: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), ICMPV6, hops)
    pseudo = pseudo_header(source, destination, body)
    return head + source.packed + destination.packed + with_checksum(body, pseudo)


def with_ipv4_checksum(data: bytes) -> bytes:
    ihl = (data[14] & 15) * 4
    head = data[14:24] + b"\0\0" + data[26 : 14 + ihl]
    return data[:24] + checksum(head).to_bytes(2, "big") + data[26:]


def blanked(options: bytes) -> bytes:
    """Options of a later fragment: those that are not copied become "no operation"."""
    out, at = bytearray(options), 0
    while at < len(options) and options[at]:
        size = 1 if options[at] == 1 or at + 1 == len(options) else options[at + 1]
        if size == 0 or at + size > len(options):
            break
        if not options[at] & 0x80:
            out[at : at + size] = b"\1" * size
        at += size
    return bytes(out)


def flow_hash(data: bytes) -> int:
    h = read_headers(data)
    value = h.protocol
    if h.has_ports and not h.is_fragment:
        value ^= (h.src_port ^ h.dst_port) << 8
    both = h.src + h.dst
    for at in range(0, len(both), 4):
        value ^= int.from_bytes(both[at : at + 4], "big")
    value = value * 0x9E3779B1 & 0xFFFFFFFF
    return value ^ value >> 15


def clamped(data: bytes, mtu: int) -> bytes:
    """A SYN whose MSS fits through the MTU."""
    h = read_headers(data)
    if h.protocol != 6 or h.l4 is not L4.OK or not h.tcp_flags & 2 or mtu < 100:
        return data
    tcp = bytearray(data[h.l4_offset : h.l4_offset + h.l4_length])
    most, at = mtu - (40 if h.version == 4 else 60), 20
    end = min((tcp[12] >> 4) * 4, len(tcp)) & ~3
    while at + 4 <= end and tcp[at]:
        if tcp[at] == 2 and tcp[at + 1] == 4:
            if int.from_bytes(tcp[at + 2 : at + 4], "big") <= most:
                return data
            first, before = (at + 2) & ~1, int.from_bytes(tcp[16:18], "big") ^ 0xFFFF
            size = 4 if at & 1 else 2
            total = before - words(tcp[first : first + size])
            tcp[at + 2 : at + 4] = most.to_bytes(2, "big")
            total += words(tcp[first : first + size])
            tcp[16:18] = ((total % 0xFFFF or 0xFFFF) ^ 0xFFFF).to_bytes(2, "big")
            return data[: h.l4_offset] + bytes(tcp) + data[h.l4_offset + h.l4_length :]
        if tcp[at] != 1 and tcp[at + 1] < 2:
            return data
        at += 1 if tcp[at] == 1 else tcp[at + 1]
    return data


def words(data: bytes) -> int:
    return sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
