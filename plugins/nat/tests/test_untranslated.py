# SPDX-License-Identifier: Apache-2.0
"""What passes as it is, and what never leaves."""

from __future__ import annotations

import pytest
from nat_bed import (
    I1,
    MAKERS,
    NO_HOSTS,
    O1,
    E,
    Nat,
    tagged,
)

from onvm_sdk.testing.frames import echo, ip, udp
from onvm_sdk.testing.kernel import Packet


@pytest.mark.parametrize("address", NO_HOSTS)
def test_nothing_goes_to_what_is_no_host(address: str) -> None:
    nat = Nat()
    for make in MAKERS:
        assert nat.dropped(make(I1, 5353, address, 5353), reverse=False) == "unroutable"
        assert nat.dropped(make(address, 5353, O1, 5353), reverse=False) == "unroutable"
        assert nat.dropped(make(address, 5353, E, 5353)) == "unroutable"
    assert nat.dropped(echo(I1, address, 5), reverse=False) == "unroutable"
    assert nat.count("mappings_opened") == 0


@pytest.mark.parametrize(
    "frame",
    [
        bytes(12) + b"\x88\x64\x11\0\0\x01\0\x1e\0\x21" + udp(I1, 1, O1, 2)[14:],  # PPPoE
        bytes(12) + b"\x88\x47\0\x01\x01\x40" + udp(I1, 1, O1, 2)[14:],  # MPLS
        bytes(12) + b"\x88\x48\0\x01\x01\x40" + udp(I1, 1, O1, 2)[14:],
        bytes(12) + b"\0\x24\xaa\xaa\x03\0\0\0\x08\0" + udp(I1, 1, O1, 2)[14:],  # SNAP
        bytes(12) + b"\0\x20\x06\x06\x03" + udp(I1, 1, O1, 2)[14:],  # LLC
        tagged(udp(I1, 1, O1, 2), 1, 2, 3, 4, 5),
        bytes(12) + b"\x65\x58" + udp(I1, 1, O1, 2),  # Ethernet
        bytes(12) + b"\x89\x4f" + bytes(40),
        bytes(60),
    ],
)
def test_what_cannot_be_read_never_leaves(frame: bytes) -> None:
    for nat in (Nat(), Nat(inside=["10.0.0.0/8"])):
        assert nat.dropped(frame, reverse=False) == "not_ip"
        assert nat.dropped(frame) == "not_ip"


def test_what_is_not_translated() -> None:
    nat = Nat(inside=["10.0.0.0/8"])
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    tree = bytes(12) + b"\0\x26\x42\x42\x03" + bytes(35)
    for frame in (arp, tree, udp("2001:db8::1", 1, "2001:db8::2", 2), udp("172.16.0.1", 1, O1, 2)):
        assert nat._run(frame, False) == Packet(frame, port=3)
    back = udp(O1, 2, "172.16.0.1", 1)
    assert nat._run(back, True) == Packet(back, True, port=3)
    assert nat.dropped(ip(I1, O1, 47, bytes(8)), reverse=False) == "protocol"
    assert nat.dropped(ip(I1, O1, 17, bytes(4), 0x2000), reverse=False) == "fragment"
    assert nat.dropped(ip(I1, O1, 17, bytes(8), 5), reverse=False) == "fragment"
    assert nat.dropped(echo(I1, O1, 1, 5), reverse=False) == "protocol"
    assert nat.dropped(udp(I1, 1, O1, 2)[:-1], reverse=False) == "malformed"
