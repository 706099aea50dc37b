# SPDX-License-Identifier: Apache-2.0
"""NAT64 (RFC 6146): IPv6 hosts take part as stand-ins, addresses in 0.0.0.0/8."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from onvm_nf_nat.config import NatConfig
from onvm_nf_nat.model.reading import ERRORS, Drop, Vlans, is_no_host, vlans
from onvm_nf_nat.model.siit import Ends, embed, extract, is_error6, quoted_addresses, to4, to6
from onvm_nf_nat.model.table import Table
from onvm_sdk.headers import ICMP, ICMPV6, L3, L4, TCP, UDP, Headers

__all__ = ["Nat64", "is_stand_in"]

_Host = tuple[bytes, Vlans]
_WELL_KNOWN = IPv6Network("64:ff9b::/96")
# RFC 6890: not global
_PRIVATE = [
    IPv4Network(net)
    for net in (
        "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "240.0.0.0/4",
    )
]  # fmt: skip


def is_stand_in(address: bytes) -> bool:
    return address[0] == 0


class Nat64:
    """The hosts that have stand-ins. A number is free again once its host has no mapping."""

    def __init__(self, config: NatConfig, prefix: IPv6Network, table: Table) -> None:
        self.prefix, self.table = prefix, table
        self.numbers: dict[_Host, int] = {}
        self.freed: list[int] = []
        self.identification = 0
        table.on_mapping_end = self.settle

    def is_outbound(self, h: Headers, is_reverse: bool, is_routed: bool) -> bool:
        return (is_routed or not is_reverse) and h.l3 is L3.OK and self._holds(h.dst)

    def _holds(self, address: bytes) -> bool:
        size = self.prefix.prefixlen // 8
        return address[:size] == self.prefix.network_address.packed[:size]

    def out(self, frame: bytes, h: Headers, is_routed: bool) -> bytes:
        """The frame as one of IPv4, from the stand-in of its host."""
        dst = extract(self.prefix, h.dst)
        self._check(h, dst)
        ends = Ends(bytes(4), dst)
        if is_error6(frame, h):
            quoted_src, quoted_dst = quoted_addresses(frame, h)
            number = self.numbers.get((quoted_dst, vlans(frame, h)))
            if number is None or not self._holds(quoted_src):
                raise Drop("no_mapping")
            ends.quoted_src = extract(self.prefix, quoted_src)
            ends.quoted_dst = number.to_bytes(4, "big")
        else:
            ends.src = self._stand_in((h.src, vlans(frame, h)), h)
        identification, self.identification = self.identification, self.identification + 1 & 0xFFFF
        return to4(frame, h, ends, 0 if is_routed else 1, identification)

    def _stand_in(self, host: _Host, h: Headers) -> bytes:
        if host not in self.numbers:
            if h.fragment_offset:
                raise Drop("fragment")
            next_one = len(self.numbers) + 1
            self.numbers[host] = self.freed.pop() if self.freed else next_one
        return self.numbers[host].to_bytes(4, "big")

    def _check(self, h: Headers, dst: bytes) -> None:
        is_local = h.src[0] == 0xFF or (h.src[0] == 0xFE and h.src[1] & 0xC0 == 0x80)
        if is_local or self._holds(h.src) or (h.src[:15] == bytes(15) and h.src[15] <= 1):
            raise Drop("unroutable")
        is_private = any(int.from_bytes(dst, "big") & int(n.netmask) == int(n[0]) for n in _PRIVATE)
        if is_no_host(dst) or (self.prefix == _WELL_KNOWN and is_private):
            raise Drop("unroutable")
        if h.l4 in (L4.SHORT, L4.BAD_HEADER):
            raise Drop("fragment" if h.more_fragments and not h.fragment_offset else "malformed")
        if h.protocol not in (TCP, UDP, ICMPV6):
            raise Drop("protocol")

    def into(self, frame: bytes, h: Headers, is_routed: bool) -> bytes:
        """A frame for a stand-in as one for its host."""
        ends = Ends(embed(self.prefix, h.src), self._host(h.dst))
        if h.protocol == ICMP and not h.fragment_offset and frame[h.l4_offset] in ERRORS:
            quoted = frame[h.l4_offset + 8 :]
            ends.quoted_src = self._host(quoted[12:16])
            ends.quoted_dst = embed(self.prefix, quoted[16:20])
        return to6(frame, h, ends, 0 if is_routed else 1)

    def _host(self, stand_in: bytes) -> bytes:
        number = int.from_bytes(stand_in, "big")
        return next(host[0] for host, one in self.numbers.items() if one == number)

    def settle(self) -> None:
        """Forget hosts without mappings."""
        kept = {(key[2], key[1]) for key in self.table.mappings}
        for host, number in list(self.numbers.items()):
            if (number.to_bytes(4, "big"), host[1]) not in kept:
                self.freed.append(number)
                del self.numbers[host]
