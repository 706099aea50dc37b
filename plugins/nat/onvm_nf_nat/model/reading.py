# SPDX-License-Identifier: Apache-2.0
"""What the NAT reads of a packet."""

from __future__ import annotations

from onvm_sdk.headers import ICMP, TCP, UDP, Headers, checksum

__all__ = [
    "ERRORS",
    "ERRORS6",
    "QUERIES",
    "REPLIES",
    "Drop",
    "Endpoint",
    "Key",
    "Remote",
    "Vlans",
    "datagram",
    "embedded",
    "identifier",
    "is_no_host",
    "opens",
    "out_key",
    "stays_on_link",
    "vlans",
]

FIN, SYN, RST, ACK = 1, 2, 4, 16
ERRORS = (3, 4, 11, 12)
ERRORS6 = (1, 2, 3, 4)
QUERIES, REPLIES = (8, 13, 15, 17, 42), (0, 14, 16, 18, 43)
# ARP, EAPOL, LLDP, Ethernet's slow protocols, PTP: they carry no IP and do not leave a link
_LINK_TYPES = (0x0806, 0x888E, 0x88CC, 0x8809, 0x88F7)
Vlans = tuple[int, int, int, int]
Endpoint = tuple[bytes, int]  # address, port or query identifier
Key = tuple[int, Vlans, bytes, int]  # protocol, VLANs, inside address, port
Remote = tuple[bytes, int]


class Drop(Exception):  # noqa: N818  a verdict
    """The packet goes; `args` has the reason."""


def opens(h: Headers) -> bool:
    return h.tcp_flags & (SYN | ACK | RST) == SYN


def is_no_host(address: bytes) -> bool:
    first = address[0]
    return first in (0, 127) or 224 <= first < 240 or address == b"\xff\xff\xff\xff"


def stays_on_link(frame: bytes, h: Headers) -> bool:
    kind = int.from_bytes(frame[h.l3_offset - 2 : h.l3_offset], "big")
    return kind in _LINK_TYPES or (
        kind < 1536 and frame[h.l3_offset : h.l3_offset + 3] == b"\x42\x42\x03"  # spanning tree
    )


def vlans(frame: bytes, h: Headers) -> Vlans:
    tags = [int.from_bytes(frame[at : at + 2], "big") & 0xFFF for at in range(14, h.l3_offset, 4)]
    a, b, c, d = tags + [0] * (4 - len(tags))
    return a, b, c, d


def identifier(frame: bytes, h: Headers) -> int:
    return int.from_bytes(frame[h.l4_offset + 4 : h.l4_offset + 6], "big")


def out_key(frame: bytes, h: Headers) -> Key:
    port = h.src_port if h.has_ports else identifier(frame, h)
    return h.protocol, vlans(frame, h), h.src, port


def datagram(frame: bytes, h: Headers, is_reverse: bool) -> tuple[object, ...]:
    """What a datagram is known by while it is in pieces (RFC 791)."""
    identification = frame[h.l3_offset + 4 : h.l3_offset + 6]
    return h.src, h.dst, identification, h.protocol, vlans(frame, h), is_reverse


def embedded(frame: bytes, h: Headers) -> Headers:
    """Read the packet inside an ICMP error; ports of an echo are its identifier."""
    end = h.l4_offset + h.l4_length
    if checksum(frame[h.l4_offset : end]) != 0:
        raise Drop("malformed")
    ip = frame[h.l4_offset + 8 : end]
    size = (ip[0] & 15) * 4 if ip else 0
    later = int.from_bytes(ip[6:8], "big") & 0x1FFF
    if len(ip) < 20 or ip[0] >> 4 != 4 or size < 20 or later or len(ip) < size + 8:
        raise Drop("malformed")
    l4, inner = ip[size:], Headers(version=4, protocol=ip[9], src=ip[12:16], dst=ip[16:20])
    inner.l3_offset, inner.l4_offset = h.l4_offset + 8, h.l4_offset + 8 + size
    inner.l4_length = len(l4)
    if inner.protocol == ICMP:
        if l4[0] not in (*QUERIES, *REPLIES):
            raise Drop("malformed")
        inner.src_port = inner.dst_port = int.from_bytes(l4[4:6], "big")
    elif inner.protocol in (TCP, UDP, 136, 132, 33):
        inner.src_port, inner.dst_port = (int.from_bytes(l4[i : i + 2], "big") for i in (0, 2))
    else:
        raise Drop("malformed")
    return inner
