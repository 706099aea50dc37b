# SPDX-License-Identifier: Apache-2.0
"""One-to-one translation: the addresses of a pair stand for each other (RFC 3022 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

from onvm_nf_nat.model.reading import ERRORS, Drop, is_no_host
from onvm_nf_nat.model.writing import replaced, updated, with_address
from onvm_sdk.headers import ICMP, L4, Headers

__all__ = ["OneToOne"]


class OneToOne:
    """The pairs, inside and external."""

    def __init__(self, pairs: Sequence[tuple[IPv4Address, IPv4Address]]) -> None:
        self.external_of = {inside.packed: external.packed for inside, external in pairs}
        self.inside_of = {external: inside for inside, external in self.external_of.items()}

    @staticmethod
    def check(h: Headers) -> None:
        if is_no_host(h.src) or is_no_host(h.dst):
            raise Drop("unroutable")
        if h.l4 in (L4.SHORT, L4.BAD_HEADER):
            raise Drop("fragment" if h.more_fragments else "malformed")

    def out(self, frame: bytes, h: Headers) -> bytes:
        """Replace the source of a packet from inside."""
        return _with_end(frame, h, self.external_of[h.src], is_src=True)

    def into(self, frame: bytes, h: Headers) -> bytes:
        """Replace the destination of a packet to an external address."""
        return _with_end(frame, h, self.inside_of[h.dst], is_src=False)


def _with_end(frame: bytes, h: Headers, address: bytes, *, is_src: bool) -> bytes:
    before = h.src if is_src else h.dst
    if h.protocol == ICMP and h.l4 is L4.OK and frame[h.l4_offset] in ERRORS:
        inner, end = _quoted(frame, h), h.l4_offset + h.l4_length
        if (inner.dst if is_src else inner.src) == before:
            at = h.l4_offset + 2
            old, value = frame[at + 2 : end], frame[at : at + 2]
            frame = with_address(frame, inner, address, is_src=not is_src)
            frame = replaced(frame, at, updated(value, old, frame[at + 2 : end]))
    return with_address(frame, h, address, is_src=is_src)


def _quoted(frame: bytes, h: Headers) -> Headers:
    """Headers of the packet that an error quotes, whatever its protocol."""
    ip = frame[h.l4_offset + 8 : h.l4_offset + h.l4_length]
    size = (ip[0] & 15) * 4 if ip else 0
    is_whole = len(ip) >= 20 and ip[0] >> 4 == 4 and size >= 20 and len(ip) >= size + 8
    if not is_whole or int.from_bytes(ip[6:8], "big") & 0x1FFF:
        raise Drop("malformed")
    inner = Headers(version=4, protocol=ip[9], src=ip[12:16], dst=ip[16:20], l4=L4.OK)
    inner.l3_offset, inner.l4_offset = h.l4_offset + 8, h.l4_offset + 8 + size
    inner.l4_length = len(ip) - size
    return inner
