# SPDX-License-Identifier: Apache-2.0
"""IPv6-to-IPv6 network prefix translation (RFC 6296)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network

from onvm_nf_nat.model.reading import ERRORS6, Drop
from onvm_nf_nat.model.writing import replaced
from onvm_sdk.headers import ICMPV6, L3, Headers

__all__ = ["Nptv6", "translated"]

_Pair = tuple[IPv6Network, IPv6Network]


def _sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    return total % 0xFFFF  # a ones' complement sum, 0 for either zero


def translated(address: bytes, old: IPv6Network, new: IPv6Network) -> bytes | None:
    """An address of one prefix in the other, with the same sum; None: it cannot have that."""
    places = [6] if old.prefixlen <= 48 else range(max(8, (old.prefixlen + 15) // 16 * 2), 16, 2)
    at = next((at for at in places if address[at : at + 2] != b"\xff\xff"), None)
    if at is None:
        return None
    word = int.from_bytes(address[at : at + 2], "big")
    word = (word + _sum(old.network_address.packed) - _sum(new.network_address.packed)) % 0xFFFF
    address = replaced(address, at, word.to_bytes(2, "big"))
    host = int.from_bytes(address, "big") & int(new.hostmask)
    return (int(new.network_address) | host).to_bytes(16, "big")


class Nptv6:
    """The pairs of prefixes, inside and outside."""

    def __init__(self, pairs: Sequence[_Pair]) -> None:
        self.pairs = pairs

    def _find(self, address: bytes, side: int) -> _Pair | None:
        return next((p for p in self.pairs if IPv6Address(address) in p[side]), None)

    def _new(self, address: bytes, side: int) -> bytes:
        """`side`: 0 from inside to outside."""
        pair = self._find(address, side)
        if pair is None:
            return address
        made = translated(address, pair[side], pair[1 - side])
        if made is None:
            raise Drop("unroutable")
        return made

    def translate(self, frame: bytes, h: Headers, is_reverse: bool) -> tuple[bytes, bool] | None:
        """The frame as it leaves, and whether it goes back inside; None: it is not translated."""
        if h.l3 is not L3.OK:
            return None
        at = h.l3_offset
        is_hairpin = self._find(h.dst, 1) is not None
        if not is_reverse:
            if self._find(h.src, 0) is None or self._find(h.dst, 0) is not None:
                return None
            frame = replaced(frame, at + 8, self._new(h.src, 0))
            frame = self._quoted(frame, h, 24, 0)
        elif self._find(h.dst, 0) is not None:
            raise Drop("no_mapping")
        elif not is_hairpin:
            return None
        if is_hairpin:
            frame = replaced(frame, at + 24, self._new(h.dst, 1))
            frame = self._quoted(frame, h, 8, 1)
        return frame, is_hairpin and not is_reverse

    def _quoted(self, frame: bytes, h: Headers, end: int, side: int) -> bytes:
        """Replace an address of the packet that an error quotes. Its sum stays, so others do."""
        at = h.l4_offset + 8
        is_error = h.protocol == ICMPV6 and not h.fragment_offset
        if not is_error or h.l4_length < 48 or frame[h.l4_offset] not in ERRORS6:
            return frame
        address = frame[at + end : at + end + 16]
        return replaced(frame, at + end, self._new(address, side))
