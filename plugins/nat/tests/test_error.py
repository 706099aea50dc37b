# SPDX-License-Identifier: Apache-2.0
"""Errors of ICMP about what was translated."""

from __future__ import annotations

import pytest
from nat_bed import (
    I1,
    I2,
    O1,
    O2,
    E,
    Nat,
    src,
)

from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import SYN, echo, icmp_error, ip, tcp, udp


def test_error_ends_no_mapping() -> None:  # RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6
    nat = Nat()
    for make in (tcp, udp):
        sent = nat.out(make(I1, 5000, O1, 80))
        port = src(sent)[1]
        nat.back(icmp_error(O1, E, sent))
        nat.back(make(O1, 80, E, port) if make is udp else make(O1, 80, E, port, SYN))
    sent = nat.out(echo(I1, O1, 7))
    nat.wait(30)
    nat.back(icmp_error(O1, E, sent))
    nat.wait(30)
    assert nat.dropped(icmp_error(O1, E, sent)) == "no_mapping", "nor does it refresh one"


@pytest.mark.parametrize("kind", [3, 4, 11, 12])
@pytest.mark.parametrize("size", [28, 40, 48])
@pytest.mark.parametrize("make", [udp, tcp])
def test_error_comes_back(make, size: int, kind: int) -> None:  # RFC 5508 REQ-3, REQ-4, 5382 REQ-9
    nat = Nat()
    other = src(nat.out(make(I2, 5000, O1, 80)))[1]
    sent = nat.out(make(I1, 5000, O1, 80))
    assert nat.back(icmp_error("203.0.113.9", E, sent, kind, size)) == icmp_error(
        "203.0.113.9", I1, make(I1, 5000, O1, 80), kind, size
    )
    assert nat.dropped(icmp_error(O1, E, make(E, other ^ 1, O1, 80))) == "no_mapping"
    assert nat.dropped(icmp_error(O1, E, make(E, other, O1, 81))) == "no_mapping"
    broken = bytearray(icmp_error(O1, E, sent))
    broken[-1] ^= 1
    assert nat.dropped(bytes(broken)) == "malformed"


def test_error_about_a_packet_with_options_comes_back() -> None:  # RFC 5508 REQ-3b
    nat = Nat()
    inner = udp(I1, 5000, O1, 80)[34:]
    sent = nat.out(ip(I1, O1, 17, inner, options=b"\x01" * 8))
    back = nat.back(icmp_error(O2, E, sent))
    assert back == icmp_error(O2, I1, ip(I1, O1, 17, inner, options=b"\x01" * 8))


def test_error_with_extensions_comes_back() -> None:  # RFC 5508 REQ-3d
    nat = Nat()
    sent = nat.out(udp(I1, 5000, O1, 80, bytes(100)))
    padded = sent[14:142] + bytes.fromhex("2000000000080101deadbeef")
    back = nat.back(ip(O2, E, 1, bytes([11, 0, 0, 0, 0, 32, 0, 0]) + padded))
    h = read_headers(back)
    assert back[h.l4_offset + 8 :][:128] == udp(I1, 5000, O1, 80, bytes(100))[14:142]
    assert back[-12:] == padded[-12:], "what follows the packet is as it was"


@pytest.mark.parametrize("make", [udp, tcp])
def test_error_goes_out(make) -> None:  # RFC 5508 REQ-5
    nat = Nat()
    nat.out(make(I2, 5000, O1, 80))
    port = src(nat.out(make(I1, 5000, O1, 80)))[1]
    received = nat.back(make(O1, 80, E, port))
    about = make(O1, 80, E, port)
    assert nat.out(icmp_error(I1, O1, received)) == icmp_error(E, O1, about)
    assert nat.out(icmp_error("10.9.9.9", O1, received)) == icmp_error(E, O1, about)
    assert nat.dropped(icmp_error(I1, O1, make(O1, 80, I1, 5001)), reverse=False) == "no_mapping"


def test_damaged_quote_is_dropped() -> None:  # RFC 5508 REQ-3a
    nat = Nat()
    out = nat.out(udp(I1, 5000, O1, 80))
    good = icmp_error(O2, E, out)
    assert nat.back(good)
    quote = bytearray(out)
    quote[24] ^= 1
    assert nat.dropped(icmp_error(O2, E, bytes(quote))) == "malformed"
