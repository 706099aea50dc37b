# SPDX-License-Identifier: Apache-2.0
"""Which external endpoint an inside endpoint gets, and that replies come back to it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from nat_bed import (
    I1,
    I2,
    MAKERS,
    NS,
    O1,
    O2,
    E,
    Nat,
    src,
    tagged,
)
from onvm_nf_nat.config import load
from onvm_nf_nat.kernel import make_kernel
from onvm_nf_nat.model import siphash

from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import echo, icmp_error, tcp, udp
from onvm_sdk.testing.kernel import OUT, KernelRunner, Packet


@pytest.mark.parametrize("make", MAKERS)
def test_mapping_is_endpoint_independent(make) -> None:  # RFC 4787 REQ-1, RFC 5382 REQ-1
    nat = Nat()
    assert src(nat.out(make(I1, 5000, O1, 80))) == src(nat.out(make(I1, 5000, O2, 99)))


@pytest.mark.parametrize("make", MAKERS)
def test_ports_are_not_overloaded(make) -> None:  # RFC 4787 REQ-3, RFC 5382 REQ-7
    nat = Nat()
    ends = [
        src(nat.out(make(inside, port, O1, 80)))
        for inside in (I1, I2, "10.0.0.3")
        for port in range(4000, 4500)
    ]
    assert len(set(ends)) == len(ends)


@pytest.mark.parametrize("make", MAKERS)
def test_port_is_preserved_by_option(make) -> None:  # RFC 4787 REQ-3
    nat = Nat(preserve_port=True)
    for port in (80, 5000, 5001):
        assert src(nat.out(make(I1, port, O1, 80)))[1] == port
        other = src(nat.out(make(I2, port, O1, 80)))[1]
        assert other != port
        assert other % 2 == port % 2


@pytest.mark.parametrize("make", MAKERS)
def test_ports_keep_their_range_and_parity(make) -> None:  # RFC 4787 REQ-3a, REQ-4
    nat = Nat()
    for port in (1, 2, 123, 1022, 1023, 1024, 1025, 5000, 5001, 65535):
        external = src(nat.out(make(I1, port, O1, 80)))[1]
        assert external > 0
        assert (external < 1024) is (port < 1024)
        assert external % 2 == port % 2


@pytest.mark.parametrize("make", MAKERS)
def test_ports_are_a_secret(make) -> None:  # RFC 6056, RFC 7857 section 9
    chosen = set()
    for key in range(8):
        runner = KernelRunner(make_kernel(load({}), (key, 1)))
        out = runner.run([Packet(make(I1, port, O1, 80)) for port in range(2000, 2064, 2)], NS)
        ports = [src(packet.data)[1] for packet in out]
        steps = {(b - a) % 65536 for a, b in pairwise(ports)}
        assert len(steps) > 28, "they do not follow each other"
        chosen.add(tuple(ports))
    assert len(chosen) == 8
    runner = KernelRunner(make_kernel(load({})))
    other = KernelRunner(make_kernel(load({})))
    frames = [Packet(make(I1, port, O1, 80)) for port in range(2000, 2064)]
    assert runner.run(frames, NS) != other.run(frames, NS)


def test_siphash_is_that_of_python() -> None:
    # PYTHONHASHSEED=0 python3.11 -c "print(hex(hash(bytes(range(16))) % 2**64))"
    assert siphash((0, 0), bytes(range(16))) == 0x8972188433A5C5B7


@pytest.mark.parametrize("make", MAKERS)
def test_freed_ports_rest(make) -> None:  # RFC 6888 REQ-8
    nat = Nat(ports="2000-2000")
    assert src(nat.out(make(I1, 5000, O1, 80)))[1] == 2000
    idle_s = 240 if make is tcp else 300
    nat.wait(idle_s)
    assert nat.count("mappings_closed") == 1
    if make is tcp:  # exception A: connections are followed
        assert src(nat.out(make(I2, 5000, O1, 80)))[1] == 2000
        return
    for waited in (0, 119):
        nat.wait(waited)
        assert nat.dropped(make(I2, 5000, O1, 80), reverse=False) == "exhausted"
    nat.wait(1)
    assert src(nat.out(make(I2, 5000, O1, 80)))[1] == 2000


@pytest.mark.parametrize("make", MAKERS)
def test_reply_comes_back(make) -> None:
    nat = Nat()
    external = src(nat.out(make(I1, 5000, O1, 80)))[1]
    assert nat.back(make(O1, 80, E, external)) == make(O1, 80, I1, 5000)
    assert nat.dropped(make(O1, 80, E, external ^ 1)) == "no_mapping"
    assert nat.dropped(make(O1, 80, I1, 5000)) == "no_mapping"


@pytest.mark.parametrize("make", [udp, tcp, echo])
@pytest.mark.parametrize("vlans", [(5,), (5, 6), (5, 6, 7), (5, 6, 7, 8), (4095, 1)])
def test_equal_inside_addresses_in_two_vlans_do_not_share(make, vlans: tuple[int, ...]) -> None:
    nat = Nat()

    def made(a: str, p: int, b: str, q: int, kind: int = 8) -> bytes:
        return echo(a, b, p if kind == 8 else q, kind) if make is echo else make(a, p, b, q)

    other = (*vlans[:-1], vlans[-1] + 1)
    ports = {
        tags: src(nat.out(tagged(made(I1, 5000, O1, 80), *tags)))[1] for tags in (vlans, other, ())
    }
    assert len(set(ports.values())) == 3
    for tags, port in ports.items():
        back = nat.back(tagged(made(O1, 80, E, port, 0), *tags))
        assert back == tagged(made(O1, 80, I1, 5000, 0), *tags)
    assert nat.dropped(tagged(made(O1, 80, E, ports[vlans], 0), *other)) == "no_mapping"
    assert nat.dropped(made(O1, 80, E, ports[vlans], 0)) == "no_mapping"
    priority = (vlans[0] | 0xE000, *vlans[1:])
    assert src(nat.out(tagged(made(I1, 5000, O1, 80), *priority)))[1] == ports[vlans]
    if make is not echo:
        error = icmp_error(O2, E, made(E, ports[vlans], O1, 80))
        assert nat.dropped(tagged(error, *other)) == "no_mapping"
        nat.back(tagged(error, *vlans))


POOL = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_pool_is_paired() -> None:  # RFC 4787 REQ-2
    nat = Nat(external=POOL)
    used = set()
    for host in range(1, 60):
        inside = f"10.0.0.{host}"
        frames = [
            udp(inside, 5000, O1, 80),
            udp(inside, 5001, O2, 80),
            tcp(inside, 5000, O1, 80),
            echo(inside, O1, 7),
        ]
        addresses = {src(nat.out(frame))[0] for frame in frames}
        assert len(addresses) == 1
        used |= addresses
    assert {".".join(map(str, address)) for address in used} == set(POOL)


def test_pool_translates_both_ways() -> None:
    nat = Nat(external=POOL)
    for host in range(1, 30):
        inside = f"10.0.0.{host}"
        address, port = src(nat.out(udp(inside, 5000, O1, 80)))
        external = ".".join(map(str, address))
        assert nat.back(udp(O1, 80, external, port)) == udp(O1, 80, inside, 5000)
        about = udp(external, port, O1, 80)
        assert nat.back(icmp_error(O2, external, about)) == icmp_error(
            O2, inside, udp(inside, 5000, O1, 80)
        )
        done = nat._run(udp("10.0.0.77", 5000, external, port), False)
        assert done.verdict == OUT
        assert read_headers(done.data).dst == bytes((10, 0, 0, host))


def test_udp_without_checksum_stays_without() -> None:  # RFC 3022 4.1
    frame = udp(I1, 5000, O1, 80, b"data")
    frame = frame[:40] + b"\0\0" + frame[42:]
    done = Nat().out(frame)
    assert done[40:42] == b"\0\0"
