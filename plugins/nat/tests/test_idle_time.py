# SPDX-License-Identifier: Apache-2.0
"""How long sessions live."""

from __future__ import annotations

from nat_bed import (
    I1,
    I2,
    NS,
    O1,
    O2,
    REASONS,
    E,
    Nat,
    src,
)
from onvm_nf_nat.kernel import save, tick

from onvm_sdk.testing.frames import ACK, FIN, RST, SYN, echo, tcp, udp
from onvm_sdk.testing.kernel import NEXT, Packet


def test_udp_idle_time_and_refresh() -> None:  # RFC 4787 REQ-5, REQ-6
    nat = Nat(max_sessions=1024)
    port = src(nat.out(udp(I1, 5000, O1, 80)))[1]
    nat.wait(200)
    nat.out(udp(I1, 5000, O1, 80))
    nat.wait(200)
    nat.back(udp(O1, 80, E, port))
    nat.wait(99)
    nat.back(udp(O1, 80, E, port))
    nat.wait(1)
    assert nat.dropped(udp(O1, 80, E, port)) == "no_mapping", "inbound did not refresh"


def test_inbound_refresh_is_an_option() -> None:  # RFC 4787 REQ-6a
    nat = Nat(inbound_refresh=True)
    port = src(nat.out(udp(I1, 5000, O1, 80)))[1]
    for _ in range(3):
        nat.wait(200)
        nat.back(udp(O1, 80, E, port))


def test_tcp_idle_times() -> None:  # RFC 5382 REQ-5
    nat = Nat(max_sessions=1024)
    nat.out(tcp(I1, 1, O1, 80, SYN))
    nat.out(tcp(I2, 2, O1, 80, SYN))
    nat.back(tcp(O1, 80, E, src(nat.out(tcp(I2, 2, O1, 80, SYN)))[1], SYN | ACK))
    nat.wait(239)
    assert nat.count("sessions_expired") == 0
    nat.wait(1)
    assert nat.count("sessions_expired") == 1, "only the half-open one is gone"
    nat.wait(7199)
    assert nat.count("sessions_expired") == 1
    nat.out(tcp(I2, 2, O1, 80, FIN | ACK))
    nat.back(tcp(O1, 80, E, src(nat.out(tcp(I2, 2, O1, 80)))[1], FIN | ACK))
    nat.wait(240)
    assert nat.count("sessions_expired") == 2
    nat.back(tcp(O1, 80, E, src(nat.out(tcp(I1, 3, O1, 80, SYN)))[1], SYN | ACK))
    nat.wait(7440)
    assert nat.count("sessions_expired") == 3


def test_query_idle_time() -> None:  # RFC 5508 REQ-2
    nat = Nat()
    nat.out(echo(I1, O1, 7))
    nat.wait(59)
    assert nat.count("sessions_expired") == 0
    nat.wait(1)
    assert nat.count("sessions_expired") == 1


def test_reset_shortens_the_idle_time_and_ends_nothing() -> None:  # RFC 7857 2.2
    nat = Nat(max_sessions=1024)
    port = src(nat.out(tcp(I1, 5000, O1, 80, SYN)))[1]
    nat.back(tcp(O1, 80, E, port, SYN | ACK))
    nat.back(tcp(O1, 80, E, port, RST))
    nat.out(tcp(I1, 5000, O1, 80, ACK))
    nat.wait(300)
    nat.back(tcp(O1, 80, E, port, ACK))
    nat.back(tcp(O1, 80, E, port, RST))
    nat.wait(239)
    nat.back(tcp(O1, 80, E, port, RST))
    nat.wait(240)
    assert nat.dropped(tcp(O1, 80, E, port, ACK)) == "no_mapping"


def test_what_has_expired_is_free_at_once() -> None:
    nat = Nat(max_sessions=20_000)
    nat.runner.run([Packet(udp(I1, 10_000 + i, O1, 9)) for i in range(20_000)], NS)
    done = nat.runner.run(
        [Packet(tcp(I2, 10_000 + i, O1, 9, SYN)) for i in range(20_000)], 1000 * NS
    )
    assert {packet.verdict for packet in done} == {NEXT}
    assert nat.count("sessions_expired") == 20_000
    assert nat.count("sessions_evicted") == 0


def test_expired_mapping_is_not_believed() -> None:
    nat = Nat(max_sessions=20_000)
    out = nat.runner.run([Packet(udp(I1, 10_000 + i, O1, 9)) for i in range(20_000)], NS)
    ports = [src(packet.data)[1] for packet in out]
    done = nat.runner.run([Packet(udp(O2, 9, E, port), True) for port in ports], 301 * NS)
    assert {REASONS[packet.destination] for packet in done} == {"no_mapping"}


def test_time_passes_without_packets() -> None:
    nat = Nat()
    nat.out(udp(I1, 5000, O1, 80))
    tick(nat.kernel, 400 * NS)
    assert save(nat.kernel, 400 * NS) == b""
    nat.runner.run([], 400 * NS)
    assert nat.count("sessions_expired") == 1, "what happened between bursts is counted"
