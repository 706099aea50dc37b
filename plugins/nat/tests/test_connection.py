# SPDX-License-Identifier: Apache-2.0
"""Which connections come about, and what strangers may send."""

from __future__ import annotations

import pytest
from nat_bed import (
    I1,
    O1,
    O2,
    E,
    Nat,
    src,
)

from onvm_sdk.testing.frames import ACK, SYN, tcp, udp


@pytest.mark.parametrize(
    ("filtering", "other_port", "other_host"),
    [
        ("endpoint-independent", True, True),
        ("address-dependent", True, False),
        ("address-and-port-dependent", False, False),
    ],
)
def test_filtering(filtering: str, other_port: bool, other_host: bool) -> None:  # RFC 4787 REQ-8
    nat = Nat(filtering=filtering)
    port = src(nat.out(udp(I1, 5000, O1, 80)))[1]
    nat.back(udp(O1, 80, E, port))
    for frame, allowed in ((udp(O1, 81, E, port), other_port), (udp(O2, 80, E, port), other_host)):
        if allowed:
            nat.back(frame)
        else:
            assert nat.dropped(frame) == "filtered"


def test_simultaneous_open() -> None:  # RFC 5382 REQ-2
    nat = Nat(filtering="address-and-port-dependent")
    port = src(nat.out(tcp(I1, 5000, O1, 80, SYN)))[1]
    nat.back(tcp(O1, 80, E, port, SYN))
    nat.out(tcp(I1, 5000, O1, 80, SYN | ACK))
    nat.back(tcp(O1, 80, E, port, SYN | ACK))
    nat.wait(300)
    nat.back(tcp(O1, 80, E, port, ACK))


def test_unsolicited_syn_is_dropped_in_silence() -> None:  # RFC 5382 REQ-4
    """It is never answered, so also not when an outbound SYN follows."""
    nat = Nat(filtering="address-and-port-dependent")
    port = src(nat.out(tcp(I1, 5000, O1, 80, SYN)))[1]
    assert nat.dropped(tcp(O2, 99, E, port, SYN)) == "filtered"
    assert nat.dropped(tcp(O2, 99, E, port ^ 1, SYN)) == "no_mapping"
    assert nat.out(tcp(I1, 5000, O2, 99, SYN)) == tcp(E, port, O2, 99, SYN)
    assert nat.back(tcp(O2, 99, E, port, SYN | ACK)) == tcp(O2, 99, I1, 5000, SYN | ACK)


def test_connection_begins_outside_where_filtering_allows() -> None:  # RFC 5382 REQ-2, REQ-3
    nat = Nat()
    port = src(nat.out(tcp(I1, 5000, O1, 80, SYN)))[1]
    assert nat.back(tcp(O2, 99, E, port, SYN)) == tcp(O2, 99, I1, 5000, SYN)
    assert nat.out(tcp(I1, 5000, O2, 99, SYN | ACK)) == tcp(E, port, O2, 99, SYN | ACK)
    nat.back(tcp(O2, 99, E, port, ACK))
    nat.wait(300)
    nat.back(tcp(O2, 99, E, port, ACK))
