# SPDX-License-Identifier: Apache-2.0
"""Fragments follow the first one of their datagram."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from nat_bed import (
    I1,
    I2,
    O1,
    E,
    Nat,
    fragments,
    passed,
    src,
)

from onvm_sdk.headers import checksum, read_headers
from onvm_sdk.testing.frames import ip, is_sound, udp
from onvm_sdk.testing.kernel import OUT


def test_fragments_follow_the_first_both_ways() -> None:  # RFC 4787 REQ-14, in order
    nat = Nat()
    l4 = struct.pack("!HHHH", 5000, 53, 8 + 32, 0) + bytes(range(32))
    first, *rest = (passed(nat, one) for one in fragments(I1, O1, 17, l4, 7))
    address, port = src(first)
    assert all(read_headers(one).src == address for one in rest)
    assert all(checksum(one[14:34]) == 0 for one in (first, *rest))
    whole = b"".join(one[34:] for one in (first, *rest))
    assert is_sound(ip(E, O1, 17, whole)[:34] + whole)
    answer = struct.pack("!HHHH", 53, port, 8 + 32, 0) + bytes(32)
    back = [passed(nat, one, True) for one in fragments(O1, E, 17, answer, 9)]
    assert all(read_headers(one).dst == IPv4Address(I1).packed for one in back)
    assert back[0][36:38] == (5000).to_bytes(2, "big")


def test_fragments_without_their_first_are_dropped() -> None:  # RFC 4787 REQ-14a, RFC 5722
    nat = Nat()
    l4 = struct.pack("!HHHH", 5000, 53, 8 + 32, 0) + bytes(range(32))
    first, second, third = fragments(I1, O1, 17, l4, 7)
    assert nat.dropped(second, reverse=False) == "fragment"  # it is not kept until then
    passed(nat, first)
    passed(nat, third)
    overlapping = bytearray(second)
    overlapping[20:22] = (0x2000 | 1).to_bytes(2, "big")
    assert nat.dropped(bytes(overlapping), reverse=False) == "fragment"
    other = fragments(I1, O1, 17, l4, 8)[1]
    assert nat.dropped(other, reverse=False) == "fragment"
    nat.wait(31)
    assert nat.dropped(second, reverse=False) == "fragment"


def test_fragments_reach_an_inside_host_by_its_external_endpoint() -> None:  # RFC 4787 REQ-9
    nat = Nat()
    port = src(nat.out(udp(I2, 6000, O1, 80)))[1]
    own = src(nat.out(udp(I1, 5000, O1, 80)))[1]
    l4 = struct.pack("!HHHH", 5000, port, 8 + 32, 0) + bytes(range(32))
    done = [nat._run(one, False) for one in fragments(I1, E, 17, l4, 7)]
    assert {(one.verdict, one.destination) for one in done} == {(OUT, 3)}
    for one in done:
        h = read_headers(one.data)
        assert (h.src, h.dst) == (IPv4Address(E).packed, IPv4Address(I2).packed)
        assert checksum(one.data[14:34]) == 0
    whole = b"".join(one.data[34:] for one in done)
    assert whole[:4] == struct.pack("!HH", own, 6000)
    assert is_sound(ip(E, I2, 17, whole)[:34] + whole)
