# SPDX-License-Identifier: Apache-2.0
"""IPv6 prefixes become others, and checksums stay (RFC 6296)."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat_bed import I1, KEY, O1, REASONS, E, Nat, src, tagged, turned
from onvm_nf_nat.config import load
from onvm_nf_nat.kernel import set_routed
from onvm_nf_nat.model import Drop, NatModel

from onvm_sdk.errors import ConfigError
from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import echo, icmp_error, tcp, udp
from onvm_sdk.testing.kernel import DROP, NEXT, OUT, Packet

INSIDE, OUTSIDE = "fd01:203:405::/48", "2001:db8:1::/48"
# RFC 6296 3.1 to 3.3 use these
A, B = "fd01:203:405:1::1234", "2001:db8:1:d550::1234"
SERVER = "2001:db8:99::1"


def nptv6(*pairs: tuple[str, str], **config: object) -> Nat:
    given_pairs = pairs or ((INSIDE, OUTSIDE),)
    return Nat(nptv6=[{"inside": a, "outside": b} for a, b in given_pairs], **config)


def ends(frame: bytes) -> tuple[str, str]:
    h = read_headers(frame)
    return str(ip_address(h.src)), str(ip_address(h.dst))


@pytest.mark.parametrize("make", [udp, tcp])
@pytest.mark.parametrize("vlans", [(), (3, 4)])
def test_prefix_is_translated_both_ways(make, vlans: tuple[int, ...]) -> None:  # RFC 6296 3.2
    nat = nptv6()
    assert nat.out(tagged(make(A, 5000, SERVER, 80), *vlans)) == tagged(
        make(B, 5000, SERVER, 80), *vlans
    )
    assert nat.back(tagged(make(SERVER, 80, B, 5000), *vlans)) == tagged(
        make(SERVER, 80, A, 5000), *vlans
    )
    assert (nat.count("translated_out"), nat.count("translated_in")) == (1, 1)
    assert nat.out(echo(A, SERVER, 7)) == echo(B, SERVER, 7)


@pytest.mark.parametrize(
    ("inside", "outside", "host"),
    [
        ("fd01:203:405::/56", "2001:db8:1:aa00::/56", "fd01:203:405:7::1"),
        ("fd01:203:405:1::/64", "2001:db8:1:2::/64", "fd01:203:405:1:ffff:1:2:3"),
        ("fd01::/33", "2001:db8:8000::/33", "fd01:0:7fff:1::9"),
        ("fd01:203:405:1:2::/80", "2001:db8:1:2:3::/80", "fd01:203:405:1:2::5"),
        ("fd01:203:405:1:2:3:4:0/112", "2001:db8:1:2:3:4:5:0/112", "fd01:203:405:1:2:3:4:5"),
    ],
)
def test_prefixes_of_any_length(inside: str, outside: str, host: str) -> None:  # RFC 6296 3.5
    nat = nptv6((inside, outside))
    out = nat.out(udp(host, 1, SERVER, 2, b"x"))
    assert IPv6Address(ends(out)[0]) in IPv6Network(outside)
    assert nat.back(udp(SERVER, 2, ends(out)[0], 1)) == udp(SERVER, 2, host, 1)


def test_address_without_a_word_to_adjust_is_dropped() -> None:  # RFC 6296 3.4, 3.5
    nat = nptv6()
    assert nat.dropped(udp("fd01:203:405:ffff::1", 1, SERVER, 2), reverse=False) == "unroutable"
    nat = nptv6(("fd01::/64", "fd02::/64"))
    last = "fd01::ffff:ffff:ffff:ffff"
    assert nat.dropped(udp(last, 1, SERVER, 2), reverse=False) == "unroutable"


def test_inside_hosts_reach_each_other_by_outside_addresses() -> None:  # RFC 6296 2.3
    nat = nptv6()
    other = "fd01:203:405:2::9"
    outside = ends(nat.out(udp(other, 1, SERVER, 2)))[0]
    done = nat._run(udp(A, 5000, outside, 80), False)
    assert (done.verdict, done.destination) == (OUT, 3)
    assert done.data == turned(udp(B, 5000, other, 80))
    set_routed(nat.kernel, True)
    assert nat.out(udp(A, 5000, outside, 80)) == udp(B, 5000, other, 80)


def test_errors_name_the_addresses_of_their_side() -> None:
    nat = nptv6()
    about = nat.out(udp(A, 5000, SERVER, 80))
    router = "2001:db8:99::ff"
    assert nat.back(icmp_error(router, B, about)) == icmp_error(router, A, udp(A, 5000, SERVER, 80))
    received = nat.back(udp(SERVER, 80, B, 5000))
    assert nat.out(icmp_error(A, SERVER, received)) == icmp_error(
        B, SERVER, udp(SERVER, 80, B, 5000)
    )


def test_others_pass_and_inside_addresses_stay_inside() -> None:
    nat = nptv6()
    for frame in (udp(SERVER, 1, A, 2), udp(A, 1, "fd01:203:405:9::1", 2), udp("fe80::1", 1, A, 2)):
        assert nat._run(frame, False) == Packet(frame, port=3)
    frame = udp(SERVER, 1, "2001:db8:7::1", 2)
    assert nat._run(frame, True) == Packet(frame, True, port=3)
    assert nat.dropped(udp(SERVER, 1, A, 2)) == "no_mapping"
    assert src(nat.out(udp(I1, 1, O1, 2)))[0] == IPv6Address("::192.0.2.1").packed[12:]


def test_prefixes_and_nat64_live_together() -> None:
    nat = nptv6(nat64="2001:db8:64::/96")
    assert ends(nat.out(udp(A, 1, SERVER, 2))) == (B, SERVER)
    assert ends(nat.out(udp(A, 1, "2001:db8:64::c633:6401", 2))) == (E, O1)


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [
        ("fd01::1/48", OUTSIDE, "nptv6[0].inside: 'fd01::1/48': expected an IPv6 prefix"),
        ("::/0", OUTSIDE, "nptv6[0].inside: '::/0': expected a prefix of 1 to 112 bits"),
        (INSIDE, "fd00::/56", "nptv6[0].outside: 'fd00::/56': expected a prefix of 48 bits"),
        (INSIDE, INSIDE, f"nptv6[0].outside: '{INSIDE}': expected another prefix"),
    ],
)
def test_mistakes_in_prefixes(inside: str, outside: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"nptv6": [{"inside": inside, "outside": outside}]})
    assert str(caught.value).startswith(message)
    with pytest.raises(ConfigError, match="overlap none of the pairs before"):
        load({"nptv6": [{"inside": INSIDE, "outside": OUTSIDE}] * 2})


WORDS = st.sampled_from([0, 1, 0x7FFF, 0xFFFE, 0xFFFF])
PAIRS = [(INSIDE, OUTSIDE), ("fd02::/60", "2001:db8:2:10::/60"), ("fd03::/79", "2001:db9::/79")]


@st.composite
def addresses(draw: st.DrawFn) -> str:
    prefix = IPv6Network(draw(st.sampled_from([*PAIRS[0], *PAIRS[1], *PAIRS[2], "2001:dba::/32"])))
    host = 0
    for _ in range(8):
        host = host << 16 | draw(WORDS)
    return str(IPv6Address(int(prefix.network_address) | (host & int(prefix.hostmask))))


@given(addresses(), addresses(), addresses(), st.booleans(), st.integers(0, 2))
def test_kernel_agrees_with_model(a: str, b: str, c: str, reverse: bool, kind: int) -> None:
    frame = [udp(a, 1, b, 2), icmp_error(a, b, udp(b, 1, c, 2)), icmp_error(a, b, udp(c, 1, a, 2))]
    packet = Packet(frame[kind], reverse, port=3)
    done = BED.runner.run([packet])[0]
    try:
        expected = MODEL.translate(packet.data, reverse, 1)
    except Drop as drop:
        assert (done.verdict, REASONS[done.destination]) == (DROP, drop.args[0])
        return
    verdict, port = (OUT, 3) if expected.is_hairpin else (NEXT, 0)
    assert (done.verdict, done.destination) == (verdict, port)
    assert done.data == expected.data


BED = nptv6(*PAIRS)
MODEL = NatModel(load({"nptv6": [{"inside": a, "outside": b} for a, b in PAIRS]}), KEY)
