# SPDX-License-Identifier: Apache-2.0
"""What one inside address may take, and what gives way in a full table."""

from __future__ import annotations

import pytest
from nat_bed import (
    I1,
    I2,
    MAKERS,
    NS,
    O1,
    O2,
    REASONS,
    E,
    Nat,
    src,
)

from onvm_sdk.testing.frames import ACK, SYN, tcp, udp
from onvm_sdk.testing.kernel import NEXT, Packet


def test_exhaustion_is_counted_and_spares_others() -> None:  # RFC 6888 REQ-4 in spirit
    nat = Nat(ports="2000-2003", max_per_subscriber=4)
    ports = [src(nat.out(udp(I1, port, O1, 80)))[1] for port in range(4)]
    assert sorted(ports) == [2000, 2001, 2002, 2003]
    assert nat.dropped(udp(I2, 4, O1, 80), reverse=False) == "exhausted"
    nat.out(udp(I1, 3, O2, 80))
    nat.out(tcp(I1, 4, O1, 80))


@pytest.mark.parametrize("config", [{}, {"max_per_subscriber": 100}])
def test_one_inside_address_cannot_take_all_ports(config: dict) -> None:  # RFC 6888 REQ-4
    nat = Nat(**config)
    done = nat.runner.run([Packet(udp(I1, i, O1, 9)) for i in range(1, 65536)], NS)
    limit = config.get("max_per_subscriber", 65535 // 2)
    assert sum(packet.verdict == NEXT for packet in done) == limit
    assert REASONS[done[-1].destination] == "subscriber_limit"
    nat.out(udp(I2, 5353, O1, 53))
    nat.out(tcp(I1, 1, O1, 80))
    nat.wait(300)
    nat.out(udp(I1, 9, O1, 9))


def test_half_open_sessions_give_way() -> None:
    nat = Nat(max_sessions=2)
    port = src(nat.out(tcp(I1, 1, O1, 80, SYN)))[1]
    nat.back(tcp(O1, 80, E, port, SYN | ACK))
    for i in range(100):
        nat.out(tcp(I2, 1000 + i, O1, 80, SYN))
    assert nat.count("sessions_evicted") == 99
    nat.back(tcp(O1, 80, E, port, ACK))
    for i in range(100):
        nat.out(udp(I2, 1000 + i, O1, 80))
    nat.back(tcp(O1, 80, E, port, ACK))
    # Answered sessions stay.
    answered = src(nat.out(udp(I2, 1, O1, 80)))[1]
    nat.back(udp(O1, 80, E, answered))
    nat.out(udp(I2, 1, O1, 80))
    assert nat.dropped(udp(I2, 2, O1, 80), reverse=False) == "table_full"
    nat.back(udp(O1, 80, E, answered))


@pytest.mark.parametrize("make", MAKERS)
def test_one_inside_address_cannot_take_all_sessions(make) -> None:  # RFC 6888 REQ-5
    """Not even when an end outside answers."""
    nat = Nat(max_sessions=100)

    def open_answered(inside: str, first: int, count: int) -> list[int]:
        ports = []
        for port in range(first, first + count):
            ports.append(src(nat.out(make(inside, port, O1, 80)))[1])
            nat.back(make(O1, 80, E, ports[-1]))
            nat.out(make(inside, port, O1, 80))
        return ports

    open_answered(I1, 2000, 100)
    others = open_answered(I2, 3000, 50)
    assert nat.count("sessions_evicted") == 50, "those beyond half of the table"
    for port in others:
        nat.back(make(O1, 80, E, port))
    assert nat.dropped(make("10.0.0.3", 1, O1, 80), reverse=False) == "table_full"
